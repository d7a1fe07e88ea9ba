// A durable reader of events: whose turn it is, what comes again after a failure, and what a checkpoint
// means. The store is the memory provider, tripped up where an error matters; time is virtual, nothing waits.

#include "engine/event_follower.hpp"

#include <future>

#include "support/eventually.hpp"
#include "unit/engine/world.hpp"

namespace towline::engine {
namespace {

using namespace testing;

using Names = std::vector<std::string>;

struct Story : World {
  using World::World;
  void append(const std::string& stream, const Names& types) {
    std::vector<NewEvent> events;
    for (const std::string& type : types)
      events.push_back({type, "payload of " + type});
    ASSERT_TRUE(core->events().append(stream, std::move(events), std::nullopt).ok());
  }
  [[nodiscard]] std::shared_ptr<EventFollower> follow(EventSubscriptionOptions options = {},
                                                      EventFollower::Work work = {}, bool fill = false) {
    if (options.name.empty()) options.name = "reader";
    options.retry.jitter = JitterKind::kNone;
    return core->follow(options, std::move(work), fill).value();
  }
  /// Notes the types it is given; fails while `failing` is set.
  [[nodiscard]] EventFollower::Work notes() {
    return [this](std::span<const RecordedEvent> events) -> Result<std::vector<spi::Write>> {
      for (const RecordedEvent& event : events)
        seen.push_back(event.type);
      if (during) during();
      if (failing) throw std::runtime_error("not now");
      return std::vector<spi::Write>{};
    };
  }
  [[nodiscard]] static Names types(const Result<std::vector<RecordedEvent>>& events) {
    Names names;
    for (const RecordedEvent& event : events.value())
      names.push_back(event.type);
    return names;
  }
  void step(EventFollower& follower) { follower.step(clock->monotonic()); }

  Names seen;
  bool failing = false;
  std::function<void()> during;
};

TEST(EventFollower, GivesWhatIsThereAndThenWhatComes) {
  Story world;
  world.append("a", {"one", "two"});
  const auto reader = world.follow();
  EXPECT_EQ(Story::types(reader->receive(10, 0s)), (Names{"one", "two"}));
  EXPECT_EQ(Story::types(reader->receive(10, 0s)), Names{});
  world.append("b", {"three"});
  world.append("a", {"four"});
  EXPECT_EQ(Story::types(reader->receive(1, 0s)), Names{"three"});
  EXPECT_EQ(Story::types(reader->receive(1, 0s)), Names{"four"});
}

TEST(EventFollower, ANewReaderOfTheSameNameBeginsBehindTheCheckpoint) {
  Story world;
  world.append("a", {"one", "two", "three"});
  {
    const auto reader = world.follow();
    const auto events = reader->receive(2, 0s).value();
    ASSERT_TRUE(reader->checkpoint(events[0].position).ok());
    EXPECT_EQ(reader->statistics().checkpoint, events[0].position);
    EXPECT_FALSE(reader->close(MonotonicTime::min()));
  }
  EXPECT_EQ(Story::types(world.follow()->receive(10, 0s)), (Names{"two", "three"}));
}

TEST(EventFollower, OneStreamIsFollowedByItsVersions) {
  Story world;
  world.append("a", {"one", "two"});
  world.append("b", {"other"});
  EventSubscriptionOptions options;
  options.stream = "a";
  const auto reader = world.follow(options);
  const auto events = reader->receive(10, 0s);
  EXPECT_EQ(Story::types(events), (Names{"one", "two"}));
  ASSERT_TRUE(reader->checkpoint(events->back().version).ok());
  world.append("a", {"three"});
  EXPECT_EQ(Story::types(reader->receive(10, 0s)), Names{"three"});
  options.stream = "b";
  options.name = "reader";
  EXPECT_EQ(world.core->follow(options, {}, false).error().code, ErrorCode::kTopologyMismatch);
}

TEST(EventFollower, FromTheEndANewNameSeesOnlyWhatComes) {
  Story world;
  world.append("a", {"old"});
  EventSubscriptionOptions options;
  options.from_end = true;
  auto reader = world.follow(options);
  world.append("a", {"new"});
  EXPECT_EQ(Story::types(reader->receive(10, 0s)), Names{"new"});
  EXPECT_FALSE(reader->close(MonotonicTime::min()));
  reader = world.follow(options);
  EXPECT_EQ(Story::types(reader->receive(10, 0s)), Names{"new"}) << "a known name goes on where it was";
}

TEST(EventFollower, TypesThatAreNotWantedArePassedOverAndNotReadAgain) {
  Story world;
  world.append("a", {"order.placed", "user.born", "order.paid", "user.died"});
  EventSubscriptionOptions options;
  options.types = {"order.*"};
  auto reader = world.follow(options);
  const auto events = reader->receive(10, 0s);
  EXPECT_EQ(Story::types(events), (Names{"order.placed", "order.paid"}));
  ASSERT_TRUE(reader->checkpoint(events->back().position).ok());
  EXPECT_EQ(reader->statistics().checkpoint, events->back().position + 1)
      << "what was passed over is behind it";
  world.append("a", {"user.back"});
  EXPECT_EQ(Story::types(reader->receive(10, 0s)), Names{});
  world.core->step_keeper();
  EXPECT_EQ(reader->statistics().checkpoint, events->back().position + 2) << "renewing takes it along";
}

TEST(EventFollower, OfTwoOneHasTheTurnUntilItsLeaseEnds) {
  Story world;
  world.append("a", {"one", "two"});
  const auto first = world.follow();
  const auto second = world.follow();
  EXPECT_EQ(Story::types(second->receive(10, 0s)), Names{});
  EXPECT_TRUE(first->statistics().active);
  EXPECT_FALSE(second->statistics().active);
  const auto events = first->receive(10, 0s);
  // The first stalls past its lease.
  world.clock->advance(31s);
  EXPECT_EQ(Story::types(second->receive(10, 0s)), (Names{"one", "two"}));
  EXPECT_EQ(first->checkpoint(events->back().position).error().code, ErrorCode::kLeaseLost);
  EXPECT_EQ(Story::types(first->receive(10, 0s)), Names{});
  ASSERT_TRUE(second->checkpoint(events->back().position).ok());
}

TEST(EventFollower, TheKeeperKeepsTheTurnAndNotTheCheckpoint) {
  Story world;
  world.append("a", {"one"});
  const auto first = world.follow();
  const auto second = world.follow();
  (void)first->receive(10, 0s);
  for (int i = 0; i < 10; ++i) {
    world.clock->advance(10s);
    world.core->step_keeper();
  }
  EXPECT_EQ(Story::types(second->receive(10, 0s)), Names{});
  EXPECT_EQ(first->statistics().checkpoint, 0U) << "it was not handled yet";
}

TEST(EventFollower, ClosingGivesTheTurnAway) {
  Story world;
  world.append("a", {"one"});
  const auto first = world.follow();
  const auto second = world.follow();
  EXPECT_FALSE(first->close(MonotonicTime::min()));
  EXPECT_EQ(Story::types(second->receive(10, 0s)), Names{"one"});
  EXPECT_EQ(first->receive(10, 0s).error().code, ErrorCode::kClosed);
  EXPECT_EQ(first->checkpoint(1).error().code, ErrorCode::kClosed);
}

TEST(EventFollower, TheTurnOfAHandlerThatClosingLeftBehindGoesWithItAndNothingItDidCounts) {
  Story world;
  world.append("a", {"one"});
  std::promise<void> begun, over;
  world.during = [&] {
    begun.set_value();
    over.get_future().wait();
  };
  const auto first = world.follow({}, world.notes());
  first->start();
  begun.get_future().wait();
  EXPECT_TRUE(first->close(MonotonicTime::min()));
  const auto second = world.follow();
  EXPECT_EQ(Story::types(second->receive(10, 0s)), Names{}) << "its handler is still at work";
  over.set_value();
  EXPECT_TRUE(support::eventually([&] { return Story::types(second->receive(10, 0s)) == Names{"one"}; }));
  EXPECT_EQ(second->statistics().checkpoint, 0U);
}

TEST(EventFollower, AHandlerThatFailsGetsTheSameEventsAgainAfterTheBackoff) {
  Story world;
  world.append("a", {"one", "two"});
  const auto reader = world.follow({}, world.notes());
  world.failing = true;
  world.step(*reader);
  EXPECT_EQ(world.seen, (Names{"one", "two"}));
  EXPECT_EQ(reader->statistics().failures, 1U);
  EXPECT_EQ(reader->statistics().last_error, "ERR_HANDLER_FAILED: std::runtime_error: not now");
  world.step(*reader);
  EXPECT_EQ(world.seen.size(), 2U) << "the backoff is not over";
  world.clock->advance(1s);
  world.failing = false;
  world.append("a", {"three"});
  world.step(*reader);
  EXPECT_EQ(world.seen, (Names{"one", "two", "one", "two", "three"}));
  EXPECT_EQ(reader->statistics().failures, 0U);
  EXPECT_EQ(reader->statistics().handled, 3U);
  EXPECT_EQ(reader->statistics().checkpoint, 3U);
}

TEST(EventFollower, WhatWasHandledAfterTheTurnWasLostDoesNotMoveTheCheckpoint) {
  Story world;
  world.append("a", {"one"});
  const auto first = world.follow({}, world.notes());
  const auto second = world.follow();
  world.during = [&] {
    world.clock->advance(31s);
    EXPECT_EQ(Story::types(second->receive(10, 0s)), Names{"one"});
  };
  world.step(*first);
  EXPECT_EQ(second->statistics().checkpoint, 0U);
  EXPECT_EQ(first->statistics().handled, 0U);
  ASSERT_TRUE(second->checkpoint(1).ok());
}

TEST(EventFollower, ACheckpointWhoseAnswerWasLostIsFoundAgain) {
  Story world;
  world.append("a", {"one", "two"});
  const auto reader = world.follow();
  const auto events = reader->receive(1, 0s);
  world.script->fail("commit", {ErrorCode::kUnavailable, "lost"}, 1, true);
  EXPECT_EQ(reader->checkpoint(1).error().code, ErrorCode::kUnavailable);
  ASSERT_TRUE(reader->checkpoint(1).ok());
  EXPECT_EQ(Story::types(reader->receive(1, 0s)), Names{"two"}) << "and nothing comes again";
  ASSERT_TRUE(reader->checkpoint(2).ok());
}

TEST(EventFollower, StreamingMovesTheCheckpointWithWhatItPublishes) {
  for (const bool is_store : {true, false}) {
    WorldOptions options;
    options.is_store = is_store;
    Story world(options);
    world.append("order-1", {"order.placed", "order.paid"});
    EventSubscriptionOptions subscription;
    subscription.interval = Duration{0};
    const auto relay = world.follow(
        subscription,
        [&](std::span<const RecordedEvent> events) {
          return world.core->publisher().as_writes(events,
                                                   [](const RecordedEvent& e) { return "events." + e.type; });
        },
        true);
    // The answer of the commit is lost: it happened all the same, and must not happen twice.
    world.script->fail("commit", {ErrorCode::kUnavailable, "lost"}, 1, true);
    world.step(*relay);
    world.clock->advance(2s);
    world.step(*relay);
    std::vector<std::string> got;
    ConsumerOptions member;
    member.group = "g";
    const auto consumer = world.consume_as(member, Handler([&](Delivery& d) {
                                             got.push_back(std::string(d.topic()) + " " + *d.key() + " " +
                                                           std::string(*d.header("towline-version")));
                                           }),
                                           {"events.#"});
    world.play(*consumer);
    std::sort(got.begin(), got.end(), std::greater<>());  // between topics there is no order
    EXPECT_EQ(got, (Names{"events.order.placed order-1 1", "events.order.paid order-1 2"})) << is_store;
    EXPECT_EQ(relay->statistics().checkpoint, 2U);
  }
}

TEST(EventFollower, StreamingWaitsForABatchToFillNoLongerThanTheInterval) {
  Story world;
  world.append("a", {"one"});
  EventSubscriptionOptions options;
  options.batch_count_max = 3;
  options.interval = 1s;
  const auto relay = world.follow(options, world.notes(), true);
  const MonotonicTime begin = world.clock->monotonic();
  int looks = 0;
  // While it waits: first an event, then the end of the interval.
  world.script->before("wait_for_events", [&] {
    ++looks;
    if (looks == 4) world.append("a", {"two"});
    if (looks == 9) world.clock->advance(1s);
  });
  world.step(*relay);
  EXPECT_EQ(world.seen, (Names{"one", "two"}));
  EXPECT_EQ(world.clock->monotonic() - begin, 1s);
}

TEST(EventFollower, ABadSubscriptionIsRefusedBeforeAnythingIsWritten) {
  Story world;
  const auto refused = [&](EventSubscriptionOptions options) {
    return world.core->follow(options, {}, false).error().code;
  };
  EventSubscriptionOptions options;
  EXPECT_EQ(refused(options), ErrorCode::kInvalidName);
  options.name = "ok";
  options.stream = "with space";
  EXPECT_EQ(refused(options), ErrorCode::kInvalidName);
  options.stream = "";
  options.types = {"a..b"};
  EXPECT_EQ(refused(options), ErrorCode::kInvalidTopic);
  options.types = {};
  options.batch_count_max = 0;
  EXPECT_EQ(refused(options), ErrorCode::kInvalidConfig);
  EXPECT_FALSE(world.store->find_event_cursor("ok").value());
}

}  // namespace
}  // namespace towline::engine
