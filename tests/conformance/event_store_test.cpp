// The event store: versions without gaps under contention, and readers that miss nothing and see nothing
// twice.

#include <atomic>
#include <map>
#include <thread>

#include "conformance/fixture.hpp"

namespace towline::conformance {
namespace {

TOWLINE_SUITE(EventStoreSuite);

NewEvent event(std::string payload, std::string type = "happened") {
  return {std::move(type), std::move(payload)};
}

TEST_P(EventStoreSuite, Conf64_OfEightWritersAtOneVersionOneWins) {
  std::vector<Engine> engines = {open(), open()};
  constexpr std::uint64_t kVersions = 25;
  constexpr std::size_t kWriters = 8;
  std::atomic<std::uint64_t> won{0}, refused{0};
  std::vector<std::thread> writers;
  for (std::size_t w = 0; w < kWriters; ++w) {
    writers.emplace_back([&, w] {
      EventStore events = engines[w % 2].event_store();
      for (std::uint64_t version = 0; version < kVersions;) {
        const auto appended = events.append("order-1", {event(std::to_string(w))}, version);
        if (appended.ok()) {
          ++won;
          EXPECT_EQ(appended->first_version, version + 1);
        } else {
          EXPECT_TRUE(is_error(appended, ErrorCode::kConflict));
          ++refused;
        }
        const auto info = events.find_stream("order-1");
        ASSERT_OK(info);
        version = (*info)->newest_version;
      }
    });
  }
  for (std::thread& writer : writers)
    writer.join();
  EventStore events = engines[0].event_store();
  const auto page = events.read("order-1");
  ASSERT_OK(page);
  EXPECT_EQ(page->events.size(), won.load());
  for (std::size_t i = 0; i < page->events.size(); ++i)
    EXPECT_EQ(page->events[i].version, i + 1);
  EXPECT_GE(won.load(), kVersions);
  EXPECT_LT(won.load(), kVersions + kWriters);
}

TEST_P(EventStoreSuite, Conf64_AnAppendCanBeRepeated) {
  Engine engine = open();
  EventStore events = engine.event_store();
  NewEvent first = event("one"), second = event("two");
  first.id = MessageId::parse("018f0000-0000-7000-8000-000000000001").value();
  second.id = MessageId::parse("018f0000-0000-7000-8000-000000000002").value();
  const auto appended = events.append("order-1", {first, second}, 0);
  ASSERT_OK(appended);
  ASSERT_OK(events.append("order-1", {event("three")}));
  const auto again = events.append("order-1", {first, second}, 0);
  ASSERT_OK(again);
  EXPECT_TRUE(again->duplicate);
  EXPECT_EQ(again->last_version, 2U);
  EXPECT_EQ(again->last_position, appended->last_position);
  EXPECT_ERROR(events.append("order-1", {second, event("four")}), ErrorCode::kConflict);
  EXPECT_ERROR(events.append("order-1", {event("four")}, 2), ErrorCode::kConflict);
  EXPECT_EQ(events.read("order-1")->events.size(), 3U);
}

TEST_P(EventStoreSuite, Conf65_AReaderBehindEightWritersSeesEachEventOnceAndInOrder) {
  constexpr int kWriters = 8, kEach = 100;
  std::vector<Engine> engines = {open(), open()};
  EventSubscriptionOptions options;
  options.name = "reader";
  auto subscription = engines[1].event_store().subscribe(options);
  ASSERT_OK(subscription);
  std::vector<std::thread> writers;
  for (int w = 0; w < kWriters; ++w) {
    writers.emplace_back([&, w] {
      EventStore events = engines[static_cast<std::size_t>(w) % 2].event_store();
      for (int i = 0; i < kEach; i += 2) {
        const std::string stream = "stream-" + std::to_string(w);
        ASSERT_OK(events.append(stream, {event(std::to_string(i)), event(std::to_string(i + 1))}));
      }
    });
  }
  // Beside the subscription somebody reads them all, each page behind the last event of the one before.
  std::thread reader([&] {
    std::map<std::string, int> read;
    std::uint64_t behind = 0;
    int left = kWriters * kEach;
    EXPECT_TRUE(eventually([&] {
      const auto page = engines[0].event_store().read_all(behind + 1, 7);
      EXPECT_OK(page);
      for (const RecordedEvent& one : page->events) {
        EXPECT_GT(one.position, behind);
        behind = one.position;
        EXPECT_EQ(one.payload, std::to_string(read[one.stream]++)) << "one was passed over";
        --left;
      }
      return left == 0;
    }));
  });
  std::map<std::string, int> next;
  std::uint64_t position = 0;
  int count = 0;
  for (int idle = 0; count < kWriters * kEach && idle < 10;) {
    const auto events = subscription->receive(7, 5s);
    ASSERT_OK(events);
    idle = events->empty() ? idle + 1 : 0;
    for (const RecordedEvent& one : *events) {
      EXPECT_GT(one.position, position);
      position = one.position;
      EXPECT_EQ(one.payload, std::to_string(next[one.stream]++));
      ++count;
    }
    ASSERT_OK(subscription->checkpoint(position));
  }
  for (std::thread& writer : writers)
    writer.join();
  reader.join();
  EXPECT_EQ(count, kWriters * kEach);
  EXPECT_TRUE(subscription->receive(10, 0s)->empty());
}

TEST_P(EventStoreSuite, Conf95_ASubscriptionGoesOnBehindItsCheckpointInAnotherEngine) {
  Engine first = open(), second = open();
  EventStore events = first.event_store();
  for (int i = 0; i < 10; ++i)
    ASSERT_OK(events.append("order-1", {event(std::to_string(i))}));
  EventSubscriptionOptions options;
  options.name = "reader";
  auto mine = first.event_store().subscribe(options);
  ASSERT_OK(mine);
  auto others = second.event_store().subscribe(options);
  ASSERT_OK(others);
  const auto got = mine->receive(6, 5s);
  ASSERT_EQ(got->size(), 6U);
  EXPECT_TRUE(others->receive(6, 0s)->empty()) << "one is active";
  ASSERT_OK(mine->checkpoint((*got)[3].position));
  close(first);
  const auto rest = others->receive(100, 10s);
  ASSERT_OK(rest);
  ASSERT_EQ(rest->size(), 6U);
  EXPECT_EQ(rest->front().payload, "4");
  EXPECT_EQ(rest->back().payload, "9");
}

TEST_P(EventStoreSuite, Conf95_WhoDropsASubscriptionGivesItsTurnAway) {
  Engine engine = open();
  ASSERT_OK(engine.event_store().append("order-1", {event("one")}));
  EventSubscriptionOptions options;
  options.name = "reader";
  { ASSERT_OK(engine.event_store().subscribe(options)); }
  auto next = engine.event_store().subscribe(options);
  ASSERT_OK(next);
  // Well within the lease, which outlives the test.
  EXPECT_EQ(next->receive(10, 10s)->size(), 1U);
}

TEST_P(EventStoreSuite, Conf95_AHandlerGetsWhatFailedAgainAndNothingIsPassedOver) {
  Engine engine = open();
  std::mutex mutex;
  std::vector<std::string> handled;
  int calls = 0;
  EventSubscriptionOptions options;
  options.name = "reader";
  options.batch_count_max = 3;
  options.retry = quick_retry();
  auto subscription = engine.event_store().subscribe(options, [&](std::span<const RecordedEvent> batch) {
    const std::lock_guard lock(mutex);
    if (++calls % 2 == 1) throw std::runtime_error("the database is away");
    for (const RecordedEvent& one : batch)
      handled.push_back(one.payload);
  });
  ASSERT_OK(subscription);
  std::vector<std::string> wanted;
  for (int i = 0; i < 20; ++i) {
    wanted.push_back(std::to_string(i));
    ASSERT_OK(engine.event_store().append("stream-" + std::to_string(i % 3), {event(wanted.back())}));
  }
  EXPECT_TRUE(eventually([&] { return subscription->statistics().handled >= 20; }));
  EXPECT_TRUE(subscription->close());
  const std::lock_guard lock(mutex);
  EXPECT_EQ(handled, wanted);
}

TEST_P(EventStoreSuite, Conf95_ClosingAtOnceGivesTheTurnAwayWhenNoHandlerIsAtWork) {
  Engine engine = open(), other = open();
  EventSubscriptionOptions options;
  options.name = "reader";
  auto next = other.event_store().subscribe(options);
  ASSERT_OK(next);
  EXPECT_TRUE(next->close());
  auto subscription = engine.event_store().subscribe(options, [](std::span<const RecordedEvent>) {});
  ASSERT_OK(subscription);
  ASSERT_OK(engine.event_store().append("order-1", {event("one")}));
  ASSERT_OK(engine.settle_down());
  EXPECT_EQ(subscription->statistics().handled, 1U);
  EXPECT_TRUE(subscription->close(0ms));
  ASSERT_OK(engine.event_store().append("order-1", {event("two")}));
  // Well within the lease, which outlives the test.
  next = other.event_store().subscribe(options);
  ASSERT_OK(next);
  const auto events = next->receive(10, 10s);
  ASSERT_OK(events);
  ASSERT_EQ(events->size(), 1U);
  EXPECT_EQ(events->front().payload, "two");
}

TEST_P(EventStoreSuite, Conf96_EventsAreStreamedToTopicsOnceAndInOrderOverTwoLives) {
  {
    Engine engine = open();
    make_group(engine, "events.order.placed");
    make_group(engine, "events.order.paid");
    EventSubscriptionOptions options;
    options.name = "relay";
    options.interval = 5ms;
    options.batch_count_max = 4;
    auto relay = engine.event_store().stream_to("events.{type}", options);
    ASSERT_OK(relay);
    for (int i = 0; i < 10; ++i) {
      const std::string type = i % 2 == 0 ? "order.placed" : "order.paid";
      ASSERT_OK(engine.event_store().append("order-1", {event(std::to_string(i), type)}));
    }
    EXPECT_TRUE(eventually([&] { return relay->statistics().handled >= 4; }));
    close(engine);
  }
  Engine engine = open();
  EventSubscriptionOptions options;
  options.name = "relay";
  options.interval = 5ms;
  auto relay = engine.event_store().stream_to("events.{type}", options);
  ASSERT_OK(relay);
  Recorder recorder;
  auto placed = engine.consume("events.#", member(), recorder.handler());
  ASSERT_OK(placed);
  EXPECT_TRUE(recorder.reaches(10));
  EXPECT_TRUE(eventually([&] { return is_done(engine, "events.order.paid"); }));
  const auto times = recorder.times();
  EXPECT_EQ(times.size(), 10U);
  for (const auto& [payload, count] : times)
    EXPECT_EQ(count, 1) << payload;
  for (const Handled& one : recorder.all())
    EXPECT_EQ(one.key, "order-1");
}

TEST_P(EventStoreSuite, Conf97_SnapshotsAndTruncationKeepWhatIsNeeded) {
  {
    Engine engine = open();
    EventStore events = engine.event_store();
    for (int i = 1; i <= 5; ++i)
      ASSERT_OK(events.append("cart-1", {event(std::to_string(i))}));
    EXPECT_ERROR(events.save_snapshot("cart-1", {6, "future", {}, {}}), ErrorCode::kNotFound);
    ASSERT_OK(events.save_snapshot("cart-1", {4, "sum 10", "text/plain", {}}));
    ASSERT_OK(events.truncate("cart-1", 5));
    close(engine);
  }
  Engine engine = open();
  EventStore events = engine.event_store();
  const auto snapshot = events.find_snapshot("cart-1");
  ASSERT_OK(snapshot);
  ASSERT_TRUE(snapshot->has_value());
  EXPECT_EQ((*snapshot)->state, "sum 10");
  const auto page = events.read("cart-1", (*snapshot)->version + 1);
  ASSERT_OK(page);
  ASSERT_EQ(page->events.size(), 1U);
  EXPECT_EQ(page->events[0].payload, "5");
  EXPECT_EQ(events.find_stream("cart-1")->value().oldest_version, 5U);
  const auto appended = events.append("cart-1", {event("6")}, 5);
  ASSERT_OK(appended);
  EXPECT_EQ(appended->first_version, 6U);
}

TEST_P(EventStoreSuite, Bad36_VersionsThatCannotBe) {
  Engine engine = open();
  EventStore events = engine.event_store();
  ASSERT_OK(events.append("order-1", {event("one")}));
  for (const std::uint64_t expected : {std::uint64_t{0}, std::uint64_t{2}, UINT64_MAX})
    EXPECT_ERROR(events.append("order-1", {event("two")}, expected), ErrorCode::kConflict);
  EXPECT_ERROR(events.save_snapshot("order-1", {UINT64_MAX, "state", {}, {}}), ErrorCode::kNotFound);
  EXPECT_TRUE(events.read("order-1", UINT64_MAX)->events.empty());
  EXPECT_TRUE(events.read_all(UINT64_MAX)->events.empty());
  EXPECT_EQ(events.read("order-1", 0)->events.size(), 1U);
  for (const std::size_t count_max : {std::size_t{0}, std::size_t{10'001}, SIZE_MAX})
    EXPECT_ERROR(events.read("order-1", 1, count_max), ErrorCode::kInvalidArgument);
  EventSubscriptionOptions options;
  options.name = "reader";
  auto subscription = events.subscribe(options);
  ASSERT_OK(subscription);
  EXPECT_ERROR(subscription->checkpoint(UINT64_MAX), ErrorCode::kInvalidArgument);
  options.stream = "order-1";
  EXPECT_ERROR(events.subscribe(options), ErrorCode::kTopologyMismatch);
  EXPECT_EQ(events.read("order-1")->events.size(), 1U);
}

}  // namespace
}  // namespace towline::conformance
