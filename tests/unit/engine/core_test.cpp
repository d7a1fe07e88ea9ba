// One engine as a whole: its threads, how it becomes quiet, and how it closes, whoever asks for it and
// whatever is going on.

#include "engine/core.hpp"

#include <atomic>
#include <thread>

#include "support/eventually.hpp"
#include "unit/engine/world.hpp"

namespace towline::engine {
namespace {

using namespace testing;
using support::eventually;

// ---- closing ------------------------------------------------------------------------------------

TEST(Core, CloseFromFourThreadsClosesOnceAndAnswersAllOfThemAlike) {
  RunningWorld world;
  Gate stuck;
  const auto consumer = world.consume(group_options(), [&](Delivery&) { stuck.wait(); });
  world.publish("a");
  stuck.await_waiting();
  std::vector<std::thread> threads;
  std::array<std::uint64_t, 4> answers{};
  for (std::uint64_t& answer : answers)
    threads.emplace_back([&] { answer = world.core->close(20ms).value(); });
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_EQ(answers, (std::array<std::uint64_t, 4>{1, 1, 1, 1}));
  EXPECT_EQ(world.script->count("close"), 1) << "the subscription is closed once";
  EXPECT_EQ(world.core->close(std::nullopt).value(), 1U);
  EXPECT_TRUE(consumer->closed());
  stuck.open();
}

TEST(Core, WhoClosesWithLessTimeHurriesTheOneWhoClosesAlready) {
  RunningWorld world;
  Gate stuck;
  const auto consumer = world.consume(group_options(), [&](Delivery&) { stuck.wait(); });
  world.publish("a");
  stuck.await_waiting();
  std::thread patient([&] { EXPECT_EQ(world.core->close(24h).value(), 1U); });
  ASSERT_TRUE(eventually([&] { return consumer->statistics().paused; }));
  EXPECT_EQ(world.core->close(0s).value(), 1U);
  patient.join();
  stuck.open();
}

TEST(Core, WhoClosesWithLessTimeHurriesAHandlerOfEventsToo) {
  RunningWorld world;
  Gate stuck;
  ASSERT_TRUE(world.core->events().append("s", {{.type = "one", .payload = "1"}}, std::nullopt).ok());
  EventSubscriptionOptions options;
  options.name = "reader";
  const auto work = [&](std::span<const RecordedEvent>) -> Result<std::vector<spi::Write>> {
    stuck.wait();
    return std::vector<spi::Write>{};
  };
  ASSERT_TRUE(world.core->follow(options, work, false).ok());
  stuck.await_waiting();
  std::thread patient([&] { EXPECT_EQ(world.core->close(24h).value(), 1U); });
  ConsumerOptions late = group_options();
  ASSERT_TRUE(eventually([&] { return !world.core->consume({"b"}, late, Handler([](Delivery&) {})); }));
  EXPECT_EQ(world.core->close(0s).value(), 1U);
  patient.join();
  stuck.open();
}

TEST(Core, CloseWaitsForARunningHandlerAndSettlesItsMessage) {
  RunningWorld world;
  Gate gate;
  (void)world.consume(group_options(), [&](Delivery&) { gate.wait(); });
  world.publish("a");
  gate.await_waiting();
  std::thread closer([&] { EXPECT_EQ(world.core->close(20s).value(), 0U); });
  gate.open();
  closer.join();
  EXPECT_EQ(world.group().waiting, 0U);
  EXPECT_EQ(world.group().in_flight, 0U);
}

TEST(Core, CloseHandsBackWhatNoHandlerHasStarted) {
  RunningWorld world;
  Gate gate;
  ConsumerOptions options = group_options();
  options.prefetch_count = 10;
  const auto consumer = world.consume(options, [&](Delivery&) { gate.wait(); });
  for (int i = 0; i < 5; ++i)
    world.publish("m");
  gate.await_waiting();
  ASSERT_TRUE(eventually([&] { return consumer->statistics().in_flight == 5; }));
  std::thread closer([&] { EXPECT_EQ(world.core->close(20s).value(), 0U); });
  // Before the handler returns: closing does not keep what another process could handle.
  EXPECT_TRUE(eventually([&] { return world.group().waiting == 4; }));
  gate.open();
  closer.join();
  EXPECT_EQ(world.group().waiting, 4U);
  EXPECT_EQ(consumer->statistics().failed, 0U);
}

TEST(Core, AStuckHandlerIsCountedAndItsMessageGoesBackAndItsThreadIsLeftAlone) {
  Gate stuck;
  std::atomic<bool> returned = false;
  std::shared_ptr<ConsumerCore> consumer;
  {
    RunningWorld world;
    consumer = world.consume(group_options(), [&](Delivery& delivery) {
      stuck.wait();
      EXPECT_EQ(code_of(delivery.extend(1s)), ErrorCode::kClosed);
      EXPECT_TRUE(delivery.stop_token().stop_requested());
      EXPECT_EQ(delivery.payload(), "a") << "the payload outlives the consumer";
      returned = true;
    });
    world.publish("a");
    stuck.await_waiting();
    EXPECT_EQ(world.core->close(10ms).value(), 1U);
    EXPECT_EQ(world.group().waiting, 1U);
  }
  stuck.open();  // the engine is gone
  EXPECT_TRUE(eventually([&] { return returned.load(); }));
  // Its thread holds the consumer until it ends.
  const std::weak_ptr<ConsumerCore> rest = std::exchange(consumer, nullptr);
  EXPECT_TRUE(eventually([&] { return rest.expired(); }));
}

TEST(Core, CloseInsideAHandlerReturnsAtOnceAndTheRestHappensElsewhere) {
  RunningWorld world;
  Gate gate;
  std::atomic<bool> handled = false;
  (void)world.consume(group_options(), [&](Delivery&) {
    EXPECT_EQ(world.core->close(std::nullopt).value(), 0U);
    EXPECT_EQ(world.core->close(std::nullopt).value(), 0U) << "also the second time";
    EXPECT_EQ(code_of(world.core->consume({"other"}, group_options("late"), Handler([](Delivery&) {}))),
              ErrorCode::kClosed);
    handled = true;
    gate.wait();
  });
  world.publish("a");
  gate.await_waiting();
  EXPECT_TRUE(handled);
  gate.open();
  EXPECT_TRUE(eventually([&] { return world.core->context().closed(); }));
  EXPECT_EQ(world.core->close(std::nullopt).value(), 0U);
  EXPECT_EQ(world.group().waiting + world.group().in_flight, 0U) << "the handler's message was settled";
}

TEST(Core, CloseOfAnotherEngineInsideAHandlerWaitsUntilThatOneIsClosed) {
  RunningWorld mine;
  RunningWorld other;
  Gate done;
  std::atomic<bool> closed = false;
  (void)mine.consume(group_options(), [&](Delivery&) {
    (void)other.core->close(std::nullopt);
    closed = other.core->context().closed();
    done.open();
  });
  mine.publish("a");
  done.wait();
  EXPECT_TRUE(closed);
}

TEST(Core, AConsumerThatClosesInsideItsHandlerIsClosedSoon) {
  RunningWorld world;
  std::atomic<ConsumerCore*> raw = nullptr;
  Gate started;
  std::atomic<int> handled = 0;
  const auto consumer = world.consume(group_options(), [&](Delivery&) {
    started.wait();
    ++handled;
    EXPECT_EQ(raw.load()->close(std::nullopt).value(), 0U);
  });
  raw = consumer.get();
  world.publish("a");
  world.publish("b");
  started.open();
  EXPECT_TRUE(eventually([&] { return consumer->closed(); }));
  // What was in hand already may have started meanwhile; it was settled, and the rest went back.
  EXPECT_EQ(world.group().waiting, 2U - static_cast<unsigned>(handled));
  EXPECT_EQ(world.group().in_flight, 0U);
  EXPECT_TRUE(world.core->consumers().empty());
}

TEST(Core, AConsumerThatClosesInsideItsHandlerOnAVirtualClockIsClosedWithoutTheClock) {
  RunningWorld world({}, std::make_shared<VirtualClock>());
  std::atomic<ConsumerCore*> raw = nullptr;
  Gate started;
  const auto consumer = world.consume(group_options(), [&](Delivery&) {
    started.wait();
    (void)raw.load()->close(std::nullopt);
  });
  raw = consumer.get();
  world.publish("a");
  started.open();
  EXPECT_TRUE(eventually([&] { return consumer->closed(); }));
}

TEST(Core, LeasesAreRenewedWhileAConsumerTakesItsTimeToClose) {
  EngineOptions options;
  options.lease = 400ms;
  RunningWorld world(options);
  Gate gate;
  std::atomic<ConsumerCore*> raw = nullptr;
  const auto slow = world.consume(group_options("slow"), [&](Delivery&) {
    while (raw.load() == nullptr)
      std::this_thread::yield();
    (void)raw.load()->close(std::nullopt);
    gate.wait();
  });
  raw = slow.get();
  std::atomic<int> started = 0;
  const auto other = world.consume(group_options("other"), [&](Delivery&) {
    ++started;
    gate.wait();
  });
  world.publish("a");
  gate.await_waiting(2);
  // Three leases long somebody else could have had it, if nobody renewed.
  EXPECT_TRUE(support::holds_for([&] { return started == 1 && world.group("other").waiting == 0; }, 1200ms));
  EXPECT_EQ(other->statistics().lease_lost, 0U);
  gate.open();
  EXPECT_TRUE(eventually([&] { return other->statistics().acked == 1; }));
}

TEST(Core, CloseOnAVirtualClockThatStandsStillGivesUpOnAStuckHandler) {
  RunningWorld world({}, std::make_shared<VirtualClock>());
  Gate stuck;
  (void)world.consume(group_options(), [&](Delivery&) { stuck.wait(); });
  world.publish("a");
  stuck.await_waiting();
  EXPECT_EQ(world.core->close(10ms).value(), 1U);
  stuck.open();
}

TEST(Core, CloseOnAVirtualClockReturnsWhenTheLastHandlerHas) {
  RunningWorld world({}, std::make_shared<VirtualClock>());
  Gate gate;
  (void)world.consume(group_options(), [&](Delivery&) { gate.wait(); });
  world.publish("a");
  gate.await_waiting();
  std::thread closer([&] { EXPECT_EQ(world.core->close(std::nullopt).value(), 0U); });
  gate.open();
  closer.join();  // the clock stands still all the time
  EXPECT_EQ(world.group().in_flight, 0U);
}

TEST(Core, DrainOnAVirtualClockReturnsWhenTheLastHandlerHas) {
  RunningWorld world({}, std::make_shared<VirtualClock>());
  Gate gate;
  const auto consumer = world.consume(group_options(), [&](Delivery&) { gate.wait(); });
  world.publish("a");
  gate.await_waiting();
  std::thread drainer([&] { EXPECT_TRUE(consumer->drain(1s).ok()); });
  gate.open();
  drainer.join();
  EXPECT_EQ(consumer->statistics().in_flight, 0U);
  EXPECT_TRUE(consumer->statistics().paused);
}

TEST(Core, DrainGivesUpAtItsDeadlineAndSaysHowMuchIsLeft) {
  RunningWorld world;
  Gate gate;
  const auto consumer = world.consume(group_options(), [&](Delivery&) { gate.wait(); });
  world.publish("a");
  gate.await_waiting();
  const Result<void> drained = consumer->drain(20ms);
  ASSERT_EQ(code_of(drained), ErrorCode::kTimeout);
  EXPECT_EQ(drained.error().message, "1 deliveries are still in flight");
  gate.open();
}

TEST(Core, AfterCloseEveryCallAnswersThatItIsClosed) {
  RunningWorld world;
  const auto consumer = world.consume(group_options(), [](Delivery&) {});
  (void)world.core->close(std::nullopt);
  EXPECT_EQ(code_of(world.core->consume({"t"}, group_options("h"), Handler([](Delivery&) {}))),
            ErrorCode::kClosed);
  EXPECT_EQ(code_of(world.core->statistics()), ErrorCode::kClosed);
  EXPECT_EQ(code_of(world.core->settle_down(1s)), ErrorCode::kClosed);
  EXPECT_EQ(code_of(consumer->pause()), ErrorCode::kClosed);
  EXPECT_EQ(code_of(consumer->resume()), ErrorCode::kClosed);
  EXPECT_EQ(code_of(consumer->set_concurrency(2)), ErrorCode::kClosed);
  EXPECT_FALSE(world.core->health().ok);
  EXPECT_EQ(world.core->publisher().publish({.topic = "t", .payload = "x"}).error.code, ErrorCode::kClosed);
  EXPECT_EQ(code_of(world.core->idempotency().begin("k", {})), ErrorCode::kClosed);
}

TEST(Core, ConsumingAgainstClosingEndsInARefusalOrInAClosedConsumer) {
  for (int round = 0; round < support::scaled(200); ++round) {
    RunningWorld world;
    std::thread closer([&] { (void)world.core->close(std::nullopt); });
    auto consumer = world.core->consume({"t"}, group_options(), Handler([](Delivery&) {}));
    closer.join();
    if (consumer) {
      EXPECT_TRUE((*consumer)->closed());
    } else {
      EXPECT_EQ(consumer.error().code, ErrorCode::kClosed);
    }
  }
}

TEST(Core, ClosingEndsTheWaitOfACaller) {
  RunningWorld world;
  std::atomic<bool> paused = false;
  std::thread caller([&] {
    paused = true;
    world.core->context().pause_until(world.clock->monotonic() + 10h);
  });
  EXPECT_TRUE(eventually([&] { return paused.load(); }));
  (void)world.core->close(std::nullopt);
  caller.join();
}

TEST(Core, AbandonSettlesNothingAndTheMessageComesAgainWhenTheLeaseEnds) {
  World world({.location = "abandon"});
  const auto consumer = world.consume(group_options());
  const MessageId id = world.publish("a");
  world.step(*consumer);
  auto delivery = consumer->take_one();
  ASSERT_TRUE(delivery);
  consumer->run_one(*delivery);  // handled, and the acknowledgement is on its way
  world.core->abandon();
  EXPECT_EQ(world.group().in_flight, 1U);
  EXPECT_EQ(code_of(delivery->ack()), ErrorCode::kClosed);
  EXPECT_EQ(world.counters().in_flight_count.load(), 0U);

  World next({.location = "abandon", .clock = world.clock});
  const auto other = next.consume(group_options());
  world.clock->advance(31s);
  next.play(*other);
  EXPECT_EQ(next.handled, std::vector<std::string>{"a"});
  EXPECT_TRUE(next.is_done(id));
}

// ---- consumers ----------------------------------------------------------------------------------

TEST(Core, ASecondConsumerOfOneNameIsRefusedUntilTheFirstIsClosed) {
  World world;
  ConsumerOptions options = group_options();
  options.name = "one";
  const auto first = world.consume(options);
  EXPECT_EQ(code_of(world.core->consume({"t"}, options, Handler([](Delivery&) {}))),
            ErrorCode::kAlreadySubscribed);
  EXPECT_EQ(world.group().member_count, 1U) << "the refused one has left the group";
  (void)first->close(0s);
  EXPECT_TRUE(world.core->consume({"t"}, options, Handler([](Delivery&) {})).ok());
}

TEST(Core, ConsumersWithoutANameAreAsManyAsOneLikes) {
  World world;
  const auto first = world.consume(group_options());
  const auto second = world.consume(group_options());
  EXPECT_EQ(world.core->consumers().size(), 2U);
}

TEST(Core, OfTenThousandConsumersOneMoreIsRefusedUntilOneIsClosed) {
  World world;
  const Handler handler = [](Delivery&) {};
  ConsumerOptions options = group_options("");
  for (int i = 0; i < 10'000; ++i)
    ASSERT_TRUE(world.core->consume({"t"}, options, handler).ok()) << i;
  EXPECT_EQ(code_of(world.core->consume({"t"}, options, handler)), ErrorCode::kLimitExceeded);
  EXPECT_EQ(world.core->consumers().size(), 10'000U) << "the refused one is not among them";
  (void)world.core->consumers().front()->close(0s);
  EXPECT_TRUE(world.core->consume({"t"}, options, handler).ok());
}

TEST(Core, AConsumerWithABadPatternOptionOrHandlerIsRefusedBeforeItSubscribes) {
  World world;
  const Handler handler = [](Delivery&) {};
  const auto refusal = [&](std::vector<std::string> patterns, ConsumerOptions options, AnyHandler with) {
    return code_of(world.core->consume(std::move(patterns), std::move(options), std::move(with)));
  };
  ConsumerOptions bad = group_options();
  EXPECT_EQ(refusal({}, bad, handler), ErrorCode::kInvalidTopic);
  EXPECT_EQ(refusal({"a..b"}, bad, handler), ErrorCode::kInvalidTopic);
  EXPECT_EQ(refusal({"t"}, bad, Handler()), ErrorCode::kInvalidArgument);
  bad.concurrency = 0;
  EXPECT_EQ(refusal({"t"}, bad, handler), ErrorCode::kInvalidConfig);
  bad = group_options("no spaces");
  EXPECT_EQ(refusal({"t"}, bad, handler), ErrorCode::kInvalidName);
  bad = group_options("");
  bad.order = Order::kKeyOrdered;
  EXPECT_EQ(refusal({"t"}, bad, handler), ErrorCode::kInvalidConfig);
  bad = group_options("");
  bad.inbox_window = 24h;
  EXPECT_EQ(refusal({"t"}, bad, handler), ErrorCode::kInvalidConfig);
  bad = key_ordered();
  bad.ack = AckPolicy::kFirst;
  EXPECT_EQ(refusal({"t"}, bad, handler), ErrorCode::kInvalidConfig);
  bad = group_options();
  bad.inbox_window = 1s;  // shorter than the redelivery horizon
  EXPECT_EQ(refusal({"t"}, bad, handler), ErrorCode::kInvalidConfig);
  bad = group_options();
  bad.filter = "a ==";
  EXPECT_EQ(refusal({"t"}, bad, handler), ErrorCode::kInvalidFilter);
  bad = group_options();
  bad.on_key_failure = KeyFailure::kParkKey;  // there are no keys to park
  EXPECT_EQ(refusal({"t"}, bad, handler), ErrorCode::kInvalidConfig);
  bad = group_options();
  bad.classify.transient_types = {"A", "B"};
  bad.classify.permanent_types = {"B"};
  EXPECT_EQ(refusal({"t"}, bad, handler), ErrorCode::kInvalidConfig);
  EXPECT_EQ(world.script->count("subscribe"), 0);
}

// ---- quiet --------------------------------------------------------------------------------------

TEST(Core, SettleDownWaitsForARetryThatHasComeDue) {
  const auto clock = std::make_shared<VirtualClock>();
  for (int round = 0; round < support::scaled(40); ++round) {
    RunningWorld world({}, clock);
    std::atomic<int> attempts = 0;
    (void)world.consume(group_options(), [&](Delivery&) {
      if (++attempts == 1) throw std::runtime_error("once");
    });
    world.publish("a");
    ASSERT_TRUE(world.core->settle_down(10s).ok());
    ASSERT_EQ(attempts, 1);
    clock->advance(10s);
    ASSERT_TRUE(world.core->settle_down(10s).ok());
    ASSERT_EQ(attempts, 2) << "in round " << round;
  }
}

TEST(Core, ARetryWithoutDelayFiresWhileAVirtualClockStandsStill) {
  RunningWorld world({}, std::make_shared<VirtualClock>());
  ConsumerOptions options = group_options();
  options.retry = retry_after(0s, 50);
  std::atomic<int> attempts = 0;
  (void)world.consume(options, [&](Delivery&) {
    if (++attempts < 50) throw std::runtime_error("again");
  });
  world.publish("a");
  ASSERT_TRUE(world.core->settle_down(10s).ok());
  EXPECT_EQ(attempts, 50);
}

TEST(Core, SettleDownGivesUpInRealTimeWhileAHandlerRuns) {
  RunningWorld world({}, std::make_shared<VirtualClock>());
  Gate gate;
  (void)world.consume(group_options(), [&](Delivery&) { gate.wait(); });
  world.publish("a");
  const auto busy = world.core->settle_down(50ms);
  EXPECT_EQ(code_of(busy), ErrorCode::kTimeout);
  EXPECT_NE(busy.error().message.find("handlers run, or wait to, of g/t"), std::string::npos)
      << busy.error().message;
  gate.open();
  EXPECT_TRUE(world.core->settle_down(10s).ok());
}

TEST(Core, SettleDownDoesNotWaitForAPausedConsumerOrForWhatIsDueLater) {
  RunningWorld world({}, std::make_shared<VirtualClock>());
  const auto consumer = world.consume(group_options(), [](Delivery&) {});
  ASSERT_TRUE(consumer->pause().ok());
  world.publish("a");
  Message later;
  later.topic = "t";
  later.delay = 1h;
  ASSERT_TRUE(world.core->publisher().publish(later).acked());
  EXPECT_TRUE(world.core->settle_down(5s).ok());
}

// ---- the provider fails -------------------------------------------------------------------------

TEST(Core, TheSchedulerDoesNotRunAgainstAStoreThatIsAway) {
  RunningWorld world;
  std::atomic<int> calls = 0;
  world.script->before("promote_due", [&] { ++calls; });
  world.script->fail("promote_due", unavailable(), 1000);
  EXPECT_TRUE(eventually([&] { return calls >= 1; }));
  const int before = calls;
  EXPECT_TRUE(support::holds_for([] { return true; }, 300ms));
  EXPECT_LE(calls - before, 4) << "one call each 100 ms";
  world.script->heal("promote_due");
  EXPECT_TRUE(eventually([&] { return calls > before; })) << "and it comes back";
}

TEST(Core, ADiskErrorStopsTheEngineAndEveryLaterCallAnswersIt) {
  World world;
  world.script->fail("promote_due", {ErrorCode::kIoError, "the disk is broken"});
  world.core->step_scheduler();
  EXPECT_EQ(world.core->publisher().publish({.topic = "t", .payload = "x"}).error.code, ErrorCode::kIoError);
  EXPECT_EQ(code_of(world.core->statistics()), ErrorCode::kIoError);
  EXPECT_EQ(code_of(world.core->consume({"t"}, group_options(), Handler([](Delivery&) {}))),
            ErrorCode::kIoError);
  const Health health = world.core->health();
  EXPECT_FALSE(health.ok);
  EXPECT_EQ(health.detail, "ERR_IO: the disk is broken");
}

TEST(Core, CloseGivesUpAtOnceOnWhatAStoppedStoreWillNeverSettle) {
  RunningWorld world;
  ConsumerOptions options = group_options();
  options.ack = AckPolicy::kManual;
  const auto consumer = world.consume(options, [](Delivery&) {});
  world.publish("a");
  ASSERT_TRUE(eventually([&] {
    const ConsumerStatistics now = consumer->statistics();
    return now.in_flight == 1 && now.running == 0;
  }));
  world.core->context().fail({ErrorCode::kIoError, "the disk is broken"});
  EXPECT_EQ(code_of(consumer->drain(1h)), ErrorCode::kIoError) << "an hour would be waited for nothing";
  EXPECT_EQ(world.core->close(1h).value(), 0U);
}

TEST(Core, CloseOfAStoppedEngineStillWaitsForHandlersThatRun) {
  RunningWorld world;
  Gate gate;
  std::atomic<bool> ended = false;
  const auto consumer = world.consume(group_options(), [&](Delivery&) {
    gate.wait();
    ended = true;
  });
  world.publish("a");
  gate.await_waiting();
  world.core->context().fail({ErrorCode::kIoError, "the disk is broken"});
  std::thread opener([&] {
    EXPECT_TRUE(eventually([&] { return consumer->statistics().paused; }));
    gate.open();
  });
  EXPECT_EQ(world.core->close(1h).value(), 0U);
  EXPECT_TRUE(ended);
  opener.join();
}

TEST(Core, HealthTellsOfAStoreThatIsAwayAndOfItsReturn) {
  World world;
  world.script->fail("statistics", unavailable());
  EXPECT_EQ(world.core->health().detail, "ERR_UNAVAILABLE: the provider is away");
  EXPECT_TRUE(world.core->health().ok);
}

// ---- keys and figures ---------------------------------------------------------------------------

TEST(Core, ReleasingAKeyThatIsNotBlockedIsNotFound) {
  World world;
  const Result<void> released = world.core->release_key("g", "t", "nobody");
  ASSERT_EQ(code_of(released), ErrorCode::kNotFound);
  EXPECT_EQ(released.error().message, "no key 'nobody' of this group and topic is blocked");
}

TEST(Core, ReleasingAPartitionOrderedGroupReachesEveryBlockedPartition) {
  World world;
  for (std::uint32_t partition = 0; partition < 3; ++partition) {
    spi::KeyBlock block;
    block.group = "g";
    block.topic = "t";
    block.partition = partition;
    const spi::Unit unit{{spi::PutKeyBlock{block}}};
    ASSERT_TRUE(world.inner.store->commit({&unit, 1}).ok());
  }
  ASSERT_EQ(world.blocks().size(), 3U);
  EXPECT_TRUE(world.core->release_key("g", "t", "").ok());
  EXPECT_TRUE(world.blocks().empty());
}

TEST(Core, AReleaseThatTheStoreCouldNotWriteIsAnError) {
  World world;
  spi::KeyBlock block;
  block.group = "g";
  block.topic = "t";
  block.key = "k";
  const spi::Unit unit{{spi::PutKeyBlock{block}}};
  ASSERT_TRUE(world.inner.store->commit({&unit, 1}).ok());
  world.script->fail("commit", unavailable());
  EXPECT_EQ(code_of(world.core->release_key("g", "t", "k")), ErrorCode::kUnavailable);
  world.script->refuse_units([](const spi::Unit&) { return storage_full(); });
  EXPECT_EQ(code_of(world.core->release_key("g", "t", "k")), ErrorCode::kStorageFull);
  EXPECT_EQ(world.blocks().size(), 1U);
}

TEST(Core, StatisticsCountWhatHappenedAndWhatWaits) {
  World world;
  const auto consumer = world.consume(group_options(), [](Delivery& delivery) {
    if (delivery.payload() == "bad") throw HandlerError("Nope");
  });
  world.publish("a");
  world.publish("bad");
  Message later;
  later.topic = "t";
  later.delay = 5s;
  (void)world.publish(later);
  world.play(*consumer);
  EngineStatistics statistics = world.core->statistics().value();
  EXPECT_EQ(statistics.published, 3U);
  EXPECT_EQ(statistics.scheduled_now, 2U) << "the delayed message and the retry";
  EXPECT_EQ(statistics.fired, 0U);
  EXPECT_GT(statistics.store_bytes, 0U);
  world.clock->advance(6s);
  world.core->step_scheduler();
  statistics = world.core->statistics().value();
  EXPECT_EQ(statistics.fired, 1U);
  EXPECT_EQ(statistics.scheduled_now, 1U);
  EXPECT_NEAR(static_cast<double>(statistics.lateness_max_us), 1e6, 1e5);
}

TEST(Core, ATopicIsDeclaredOnceWithItsSettingsAndNeverWithOthers) {
  World world;
  TopicOptions options;
  options.partition_count = 4;
  EXPECT_TRUE(world.core->declare_topic("t", options).ok());
  EXPECT_TRUE(world.core->declare_topic("t", options).ok());
  options.partition_count = 5;
  EXPECT_EQ(code_of(world.core->declare_topic("t", options)), ErrorCode::kTopologyMismatch);
  EXPECT_EQ(code_of(world.core->declare_topic("t*", options)), ErrorCode::kInvalidTopic);
  options.partition_count = 0;
  EXPECT_EQ(code_of(world.core->declare_topic("u", options)), ErrorCode::kInvalidConfig);
}

}  // namespace
}  // namespace towline::engine
