// What SQL wrote to the outbox on its way to its topics: once, in order, whatever is answered and by whom it
// is relayed; what can never be published holds up nothing.

#include "engine/relay.hpp"

#include "unit/engine/world.hpp"

namespace towline::engine {
namespace {

using namespace testing;

using Payloads = std::vector<std::string>;

struct Outbox : World {
  explicit Outbox(bool is_store = true, EngineOptions engine = {})
      : World({.engine = std::move(engine), .is_store = is_store, .runs_sql = true}) {}

  void write(const std::string& payload, const std::function<void(Message&)>& change = {},
             Duration ago = Duration{0}) {
    Message message;
    message.topic = "t";
    message.payload = payload;
    if (change) change(message);
    store->write_outbox(std::move(message), clock->now() - ago);
  }
  MonotonicTime step() { return relay.step(clock->monotonic()); }
  /// Waits out every failure.
  void play() {
    for (int i = 0; i < 20; ++i) {
      step();
      clock->advance(10s);
    }
  }
  Payloads read() {
    if (subscription == nullptr) {
      spi::SubscribeOptions options;
      options.group = "g";
      options.lease = 24h;
      options.matches = [](std::string_view) { return true; };
      subscription = inner.transport->subscribe(options).value();
    }
    spi::ReceiveRequest request;
    request.count_max = 1000;
    Payloads payloads;
    for (const spi::Delivery& delivery : subscription->receive(request).value().deliveries)
      payloads.push_back(delivery.envelope->payload);
    return payloads;
  }

  std::unique_ptr<spi::Subscription> subscription;
  Relay relay{std::shared_ptr<Context>(core, &core->context()), core->publisher()};
};

TEST(Relay, WhatIsWrittenIsPublishedOnceInTheOrderOfWriting) {
  Outbox outbox;
  for (const char* payload : {"1", "2", "3"})
    outbox.write(payload, [](Message& message) { message.key = "k"; });
  EXPECT_TRUE(outbox.relay.busy());
  outbox.step();
  EXPECT_EQ(outbox.read(), (Payloads{"1", "2", "3"}));
  EXPECT_FALSE(outbox.relay.busy());
  outbox.step();
  EXPECT_TRUE(outbox.read().empty());
  EXPECT_EQ(outbox.counters().relayed.load(), 3U);
  EXPECT_EQ(outbox.counters().refused.load(), 0U);
}

TEST(Relay, ALostReplyOfTheCommitPublishesNothingTwice) {
  Outbox outbox;
  outbox.write("1");
  outbox.write("2");
  outbox.script->fail("commit", unavailable(), 1, true);
  outbox.play();
  EXPECT_EQ(outbox.read(), (Payloads{"1", "2"}));
}

TEST(Relay, WhatCouldNotBeStoredStaysAndIsPublishedLater) {
  for (const Error& error : {unavailable(), storage_full(), Error{ErrorCode::kInternal, "no idea"}}) {
    Outbox outbox;
    outbox.write("1");
    outbox.script->fail("commit", error, 3);
    outbox.step();
    EXPECT_TRUE(outbox.read().empty());
    EXPECT_TRUE(outbox.relay.busy());
    outbox.play();
    EXPECT_EQ(outbox.read(), Payloads{"1"});
    EXPECT_TRUE(outbox.dead_letters().empty()) << "an error of the store says nothing about a message";
  }
}

TEST(Relay, WhileTheStoreIsAwayItAsksMoreAndMoreSeldom) {
  Outbox outbox;
  outbox.write("1");
  outbox.script->fail("read_outbox", unavailable(), 1000);
  const MonotonicTime begin = outbox.clock->monotonic();
  int asked = 0;
  while (outbox.clock->monotonic() < begin + 60s) {
    outbox.script->forget_events();
    const MonotonicTime next = outbox.step();
    EXPECT_GT(next, outbox.clock->monotonic()) << "never a hot loop";
    ++asked;
    outbox.clock->advance(std::max<Duration>(1ms, next - outbox.clock->monotonic()));
  }
  EXPECT_GE(asked, 6);
  EXPECT_LE(asked, 60);
  EXPECT_EQ(outbox.step(), outbox.step()) << "and before that time it does not ask at all";
  outbox.script->heal("read_outbox");
  outbox.play();
  EXPECT_EQ(outbox.read(), Payloads{"1"});
}

TEST(Relay, AfterAFailureIsOverItIsQuickAgain) {
  Outbox outbox;
  outbox.script->fail("read_outbox", unavailable(), 5);
  outbox.play();
  outbox.write("1");
  outbox.step();
  EXPECT_EQ(outbox.read(), Payloads{"1"});
  outbox.script->fail("read_outbox", unavailable(), 1);
  EXPECT_LE(outbox.step() - outbox.clock->monotonic(), 200ms);
}

TEST(Relay, OfTwoRelaysOneFindsItDoneAndGoesOn) {
  Outbox outbox;
  Relay other(std::shared_ptr<Context>(outbox.core, &outbox.core->context()), outbox.core->publisher());
  outbox.write("1");
  outbox.write("2");
  bool first = true;
  outbox.script->before("commit", [&] {
    if (!std::exchange(first, false)) return;
    outbox.write("3");
    (void)other.step(outbox.clock->monotonic());  // all three, after the first one has read two
  });
  const MonotonicTime again = outbox.step();
  EXPECT_EQ(again, outbox.clock->monotonic()) << "that is no failure";
  outbox.write("4");
  outbox.step();
  EXPECT_EQ(outbox.read(), (Payloads{"1", "2", "3", "4"}));
  EXPECT_EQ(outbox.counters().relayed.load(), 4U);
}

TEST(Relay, DelaysAndTheTimeToLiveCountFromTheWriting) {
  Outbox outbox;
  outbox.write(
      "later", [](Message& message) { message.delay = 10s; }, 4s);
  outbox.write(
      "short", [](Message& message) { message.ttl = 10s; }, 4s);
  outbox.step();
  EXPECT_EQ(outbox.read(), Payloads{"short"});
  const auto scheduled = outbox.scheduled();
  ASSERT_EQ(scheduled.size(), 1U);
  EXPECT_EQ(scheduled[0].due_at, outbox.clock->now() + 6s);
  outbox.clock->advance(6s);
  outbox.core->step_scheduler();
  EXPECT_EQ(outbox.read(), Payloads{"later"});
}

TEST(Relay, AWriterWhoseClockIsAheadDelaysNothingFurther) {
  Outbox outbox;
  outbox.write("now", {}, -1h);
  outbox.write(
      "later", [](Message& message) { message.delay = 10s; }, -1h);
  outbox.step();
  EXPECT_EQ(outbox.read(), Payloads{"now"});
  ASSERT_EQ(outbox.scheduled().size(), 1U);
  EXPECT_EQ(outbox.scheduled()[0].due_at, outbox.clock->now() + 10s);
}

TEST(Relay, WhatCanNeverBePublishedBecomesADeadLetterAndHoldsUpNothing) {
  EngineOptions engine;
  engine.payload_bytes_max = 100;
  Outbox outbox(true, engine);
  outbox.write("1");
  outbox.write("a", [](Message& message) { message.topic = "amq.direct"; });
  outbox.write(std::string(101, 'x'));
  outbox.write("b", [](Message& message) { message.headers = {{"towline-x", "reserved"}}; });
  outbox.write("c", [](Message& message) { message.priority = 200; });
  outbox.write("2");
  outbox.step();
  EXPECT_EQ(outbox.read(), (Payloads{"1", "2"}));
  const auto letters = outbox.dead_letters();
  ASSERT_EQ(letters.size(), 4U);
  for (const DeadLetter& letter : letters) {
    EXPECT_EQ(letter.reason, DeadLetterReason::kPublishFailed);
    EXPECT_FALSE(letter.error_message.empty());
  }
  EXPECT_EQ(letters[0].topic, "amq.direct");
  EXPECT_EQ(letters[0].payload, "a");
  EXPECT_EQ(letters[0].error_type, "ERR_INVALID_TOPIC");
  EXPECT_EQ(letters[1].payload.size(), 101U);
  EXPECT_EQ(letters[2].headers, (Headers{{"towline-x", "reserved"}}));
  EXPECT_FALSE(outbox.relay.busy());
  EXPECT_EQ(outbox.counters().relayed.load(), 2U);
  EXPECT_EQ(outbox.counters().refused.load(), 4U);
}

TEST(Relay, AnIdThatWaitsAlreadyIsRefusedAloneAndTheOthersKeepTheirOrder) {
  Outbox outbox;
  Message waiting;
  waiting.topic = "t";
  waiting.payload = "first";
  waiting.delay = 1h;
  const MessageId id = outbox.World::publish(waiting);
  outbox.write("1");
  outbox.write("second", [&](Message& message) {
    message.id = id;
    message.delay = 1s;
  });
  outbox.write("2");
  outbox.step();
  EXPECT_EQ(outbox.read(), (Payloads{"1", "2"}));
  ASSERT_EQ(outbox.dead_letters().size(), 1U);
  EXPECT_EQ(outbox.dead_letters()[0].payload, "second");
  EXPECT_EQ(outbox.scheduled().size(), 1U) << "the one that was there first";
}

TEST(Relay, OneThatHasToWaitHoldsUpThoseBehindIt) {
  Outbox outbox;
  for (const char* payload : {"1", "2", "3"})
    outbox.write(payload, [](Message& message) { message.key = "k"; });
  // The batch is refused for a reason of its own, so they are tried alone, and then the second has no room.
  bool room = false;
  outbox.script->refuse_units([&](const spi::Unit& unit) -> std::optional<Error> {
    if (unit.writes.size() > 2) return Error{ErrorCode::kConflict, "not all at once"};
    const auto* publish = find_write<spi::Publish>(unit);
    return publish != nullptr && publish->envelope.payload == "2" && !room ? std::optional(storage_full())
                                                                           : std::nullopt;
  });
  outbox.step();
  EXPECT_EQ(outbox.read(), Payloads{"1"});
  room = true;
  outbox.play();
  EXPECT_EQ(outbox.read(), (Payloads{"2", "3"}));
}

TEST(Relay, ADedupIdThatIsKnownCountsAsPublished) {
  for (const bool is_store : {true, false}) {
    Outbox outbox(is_store);
    const auto dedup = [](Message& message) { message.dedup_id = "order-1"; };
    outbox.write("1", dedup);
    outbox.write("1 again", dedup);
    outbox.step();
    outbox.write("and again", dedup);
    outbox.write("2");
    outbox.step();
    outbox.core->step_scheduler();
    EXPECT_EQ(outbox.read(), (Payloads{"1", "2"})) << is_store;
    EXPECT_TRUE(outbox.dead_letters().empty()) << is_store;
    EXPECT_EQ(outbox.counters().relayed.load(), 4U) << is_store;
  }
}

TEST(Relay, ADedupIdIsKeptFromTheRelayingOnHoweverLongTheOutageWas) {
  EngineOptions engine;
  engine.dedup_window = 1min;
  Outbox outbox(true, engine);
  outbox.write(
      "1", [](Message& message) { message.dedup_id = "order-1"; }, 1h);
  outbox.step();
  outbox.write(
      "2", [](Message& message) { message.dedup_id = "order-1"; }, 59min);
  outbox.step();
  EXPECT_EQ(outbox.read(), Payloads{"1"});
}

TEST(Relay, WhereTheTransportIsNotTheStoreItGoesByTheSchedule) {
  Outbox outbox(false);
  for (const char* payload : {"1", "2", "3"})
    outbox.write(payload, [](Message& message) { message.key = "k"; });
  outbox.step();
  EXPECT_EQ(outbox.script->count("publish 3"), 0);
  EXPECT_EQ(outbox.scheduled().size(), 3U) << "in one commit of the store with the end of the entries";
  EXPECT_FALSE(outbox.relay.busy());
  outbox.core->step_scheduler();
  EXPECT_EQ(outbox.read(), (Payloads{"1", "2", "3"}));
}

TEST(Relay, AnIoErrorStopsTheEngine) {
  Outbox outbox;
  outbox.write("1");
  outbox.script->fail("commit", {ErrorCode::kIoError, "the disk is gone"});
  outbox.step();
  EXPECT_EQ(code_of(outbox.core->context().check_open()), ErrorCode::kIoError);
}

TEST(Relay, AnEngineIsNotQuietBeforeTheOutboxIsEmpty) {
  Outbox outbox;
  outbox.write("1");
  EXPECT_EQ(code_of(outbox.core->settle_down(5ms)), ErrorCode::kTimeout);
  outbox.core->step_relay();
  EXPECT_TRUE(outbox.core->settle_down(10s).ok());
}

}  // namespace
}  // namespace towline::engine
