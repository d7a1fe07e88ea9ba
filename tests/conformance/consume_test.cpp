// Consuming: acknowledging removes, nak brings back, a lease protects and its loss is noticed. The holder
// that loses its lease is an engine whose clock stands still: to everybody else it is a process that stopped.

#include "conformance/fixture.hpp"
#include "support/freezable_clock.hpp"

namespace towline::conformance {
namespace {

TOWLINE_SUITE(Consume);

/// A consumer of its own engine that takes one message by hand and then stops in time.
class Zombie {
 public:
  Zombie(Engine engine, std::shared_ptr<support::FreezableClock> clock, const std::string& topic,
         const ConsumerOptions& options)
      : engine_(std::move(engine)), clock_(std::move(clock)) {
    consumer_ = engine_
                    .consume(topic, options,
                             [this](Delivery& delivery) {
                               const std::lock_guard guard(mutex_);
                               taken_.push_back(delivery);
                             })
                    .value();
  }
  ~Zombie() { clock_->thaw(); }

  [[nodiscard]] std::size_t count() {
    const std::lock_guard guard(mutex_);
    return taken_.size();
  }
  Delivery& delivery() {
    const std::lock_guard guard(mutex_);
    return taken_.front();
  }
  /// Takes in nothing more, then stands still.
  void freeze() {
    consumer_.pause().value();
    clock_->freeze();
  }
  void thaw() { clock_->thaw(); }
  Consumer& consumer() { return consumer_; }

 private:
  Engine engine_;
  std::shared_ptr<support::FreezableClock> clock_;
  std::mutex mutex_;
  std::vector<Delivery> taken_;
  Consumer consumer_;
};

class ZombieConsume : public ConformanceTest {
 protected:
  std::unique_ptr<Zombie> zombie_on(const std::string& topic) {
    EngineOptions options = short_lease();
    auto clock = std::make_shared<support::FreezableClock>();
    options.clock = clock;
    Engine engine = open(options);
    return std::make_unique<Zombie>(engine, clock, topic, manual_member());
  }
};
INSTANTIATE_TEST_SUITE_P(Provider, ZombieConsume, ::testing::ValuesIn(providers()), provider_name);

TEST_P(Consume, Conf03_WhatIsAcknowledgedNeverComesBack) {
  Engine engine = open(short_lease());
  Recorder seen;
  Consumer consumer = engine.consume("orders", member(), seen.handler()).value();
  publish_numbers(engine, "orders", 100);
  ASSERT_TRUE(seen.reaches(100));
  ASSERT_OK(consumer.close());
  Consumer again = engine.consume("orders", member(), seen.handler()).value();
  EXPECT_TRUE(holds_for([&] { return seen.count() == 100; }, 2 * kLease));
  EXPECT_EQ(seen.times().size(), 100U);
  EXPECT_EQ(waiting(engine, "orders"), 0U);
}

TEST_P(Consume, Conf05_NakBringsItBackAtOnceAsTheNextAttempt) {
  Engine engine = open(short_lease());
  Recorder seen;
  ConsumerOptions options = manual_member();
  options.retry.initial_delay = options.retry.delay_max;  // so that only nak(0) can be what brings it back
  Consumer consumer =
      engine
          .consume("naks", options,
                   [&](Delivery& delivery) {
                     seen.add(delivery);
                     EXPECT_OK(delivery.attempt() == 1 ? delivery.nak(0ms, "not yet") : delivery.ack());
                   })
          .value();
  const Receipt receipt = engine.publish({.topic = "naks", .payload = "p"});
  ASSERT_TRUE(receipt.acked());
  ASSERT_TRUE(seen.reaches(2));
  ASSERT_OK(consumer.drain(5s));
  const auto all = seen.all();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].attempt, 1U);
  EXPECT_EQ(all[1].attempt, 2U);
  EXPECT_EQ(all[1].id, receipt.id) << "the id is stable over retries";
  EXPECT_EQ(all[1].payload, "p");
}

TEST_P(Consume, Conf05_NakCountsAsAnAttemptAndEndsInTheDeadLetters) {
  Engine engine = open(short_lease());
  Recorder seen;
  Consumer consumer = engine
                          .consume_outcomes({"naks"}, member(),
                                            [&](Delivery& delivery) {
                                              seen.add(delivery);
                                              return Outcome::nak(0ms, "never");
                                            })
                          .value();
  ASSERT_TRUE(engine.publish({.topic = "naks", .payload = "p"}).acked());
  ASSERT_TRUE(eventually([&] { return dead_letters(engine, "naks").size() == 1; }));
  EXPECT_EQ(seen.count(), 3U);
  EXPECT_EQ(dead_letters(engine, "naks")[0].reason, DeadLetterReason::kExhausted);
}

TEST_P(Consume, Conf06_NakWithADelayWaitsThatLongAndNotMuchLonger) {
  Engine engine = open(short_lease());
  Recorder seen;
  ConsumerOptions options = member();
  options.concurrency = 4;
  Consumer consumer =
      engine
          .consume_outcomes({"naks"}, options,
                            [&](Delivery& delivery) {
                              seen.add(delivery);
                              return delivery.attempt() == 1 ? Outcome::nak(500ms) : Outcome::ack();
                            })
          .value();
  publish_numbers(engine, "naks", 20);
  ASSERT_TRUE(seen.reaches(40));
  std::map<std::string, MonotonicTime> first;
  std::vector<Duration> waits;
  for (const Handled& handled : seen.all()) {
    if (handled.attempt == 1) {
      first[handled.payload] = handled.started;
    } else {
      waits.push_back(handled.started - first.at(handled.payload));
    }
  }
  ASSERT_EQ(waits.size(), 20U);
  std::sort(waits.begin(), waits.end());
  EXPECT_GE(waits.front(), 500ms) << "came back too early";
  EXPECT_LE(waits[waits.size() / 2], 750ms * support::slack());
}

TEST_P(ZombieConsume, Conf07_AMessageGoesToAnotherConsumerWhenTheLeaseOfItsHolderEnds) {
  auto zombie = zombie_on("leases");
  Engine engine = open(short_lease());
  ASSERT_TRUE(engine.publish({.topic = "leases", .payload = "p"}).acked());
  ASSERT_TRUE(eventually([&] { return zombie->count() == 1; }));
  Recorder seen;
  Consumer consumer = engine.consume("leases", member(), seen.handler()).value();
  // While the holder lives its lease is renewed.
  EXPECT_TRUE(holds_for([&] { return seen.count() == 0; }, 3 * kLease));
  zombie->freeze();
  const support::Stopwatch watch;
  ASSERT_TRUE(seen.reaches(1));
  // The last renewal was at most a third of the lease ago.
  EXPECT_GE(watch.elapsed(), kLease / 2) << "taken away before the lease ended";
  const Handled handled = seen.all().front();
  EXPECT_TRUE(handled.redelivered) << "the first handling may have had its effect";
  EXPECT_EQ(handled.attempt, 1U) << "a lost lease is not a failure of the handler";
  zombie->thaw();
  EXPECT_TRUE(holds_for([&] { return seen.count() == 1; }, kLease));
}

TEST_P(ZombieConsume, Conf08_ALateAcknowledgementIsRefusedAndChangesNothing) {
  TOWLINE_NEEDS(row().fences);
  auto zombie = zombie_on("leases");
  Engine engine = open(short_lease());
  ASSERT_TRUE(engine.publish({.topic = "leases", .payload = "p"}).acked());
  ASSERT_TRUE(eventually([&] { return zombie->count() == 1; }));
  zombie->freeze();
  std::mutex mutex;
  std::optional<Delivery> second;
  Consumer consumer = engine
                          .consume("leases", manual_member(),
                                   [&](Delivery& delivery) {
                                     const std::lock_guard guard(mutex);
                                     second = delivery;
                                   })
                          .value();
  ASSERT_TRUE(eventually([&] {
    const std::lock_guard guard(mutex);
    return second.has_value();
  }));
  zombie->thaw();
  EXPECT_ERROR(zombie->delivery().ack(true), ErrorCode::kLeaseLost);
  EXPECT_ERROR(zombie->delivery().nak(), ErrorCode::kLeaseLost);
  EXPECT_EQ(in_flight(engine), 1U) << "the new holder still has it";
  EXPECT_OK(second->ack(true)) << "the new holder's delivery stands";
  EXPECT_EQ(in_flight(engine), 0U);
  EXPECT_EQ(dead_letters(engine).size(), 0U);
}

TEST_P(ZombieConsume, Conf08_TheHolderIsToldThatItsResultNoLongerCounts) {
  TOWLINE_NEEDS(row().fences);
  auto zombie = zombie_on("leases");
  Engine engine = open(short_lease());
  ASSERT_TRUE(engine.publish({.topic = "leases", .payload = "p"}).acked());
  ASSERT_TRUE(eventually([&] { return zombie->count() == 1; }));
  const std::stop_token stop = zombie->delivery().stop_token();
  EXPECT_FALSE(stop.stop_requested());
  zombie->freeze();
  Recorder seen;
  Consumer consumer = engine.consume("leases", member(), seen.handler()).value();
  ASSERT_TRUE(seen.reaches(1));
  zombie->thaw();
  EXPECT_TRUE(eventually([&] { return stop.stop_requested(); }));
  EXPECT_TRUE(eventually([&] { return zombie->consumer().statistics().lease_lost == 1; }));
}

TEST_P(Consume, Conf09_AHandlerThatExtendsMayTakeLongerThanItsTimeout) {
  Engine engine = open(short_lease());
  Recorder seen;
  ConsumerOptions options = member();
  options.handler_timeout = kLease;
  Consumer consumer = engine
                          .consume("slow", options,
                                   [&](Delivery& delivery) {
                                     seen.add(delivery);
                                     const support::Stopwatch watch;
                                     while (watch.elapsed() < 3 * kLease) {
                                       EXPECT_OK(delivery.extend(kLease));
                                       (void)holds_for([] { return true; }, kLease / 4);
                                     }
                                     EXPECT_FALSE(delivery.stop_token().stop_requested());
                                   })
                          .value();
  ASSERT_TRUE(engine.publish({.topic = "slow", .payload = "p"}).acked());
  ASSERT_TRUE(eventually([&] { return consumer.statistics().acked == 1; }));
  EXPECT_TRUE(holds_for([&] { return seen.count() == 1; }, kLease));
  EXPECT_EQ(consumer.statistics().timed_out, 0U);
}

TEST_P(Consume, Conf09_AHandlerWithinItsTimeoutKeepsItsLeaseWithoutExtending) {
  Engine engine = open(short_lease());
  Engine other = open(short_lease());
  Recorder seen;
  const auto slow = [&](Delivery& delivery) {
    seen.add(delivery);
    (void)holds_for([] { return true; }, 3 * kLease);
  };
  Consumer consumer = engine.consume("slow", member(), slow).value();
  Consumer rival = other.consume("slow", member(), slow).value();
  ASSERT_TRUE(engine.publish({.topic = "slow", .payload = "p"}).acked());
  ASSERT_TRUE(eventually([&] { return consumer.statistics().acked + rival.statistics().acked == 1; }));
  EXPECT_EQ(seen.count(), 1U);
}

TEST_P(Consume, Conf09_ProgressGivesTheHandlerItsTimeAgain) {
  Engine engine = open(short_lease());
  Recorder seen;
  ConsumerOptions options = member();
  options.handler_timeout = kLease;
  Consumer consumer = engine
                          .consume("slow", options,
                                   [&](Delivery& delivery) {
                                     seen.add(delivery);
                                     for (int i = 0; i < 8; ++i) {
                                       EXPECT_OK(delivery.progress("step " + std::to_string(i)));
                                       (void)holds_for([] { return true; }, kLease / 3);
                                     }
                                   })
                          .value();
  ASSERT_TRUE(engine.publish({.topic = "slow", .payload = "p"}).acked());
  ASSERT_TRUE(eventually([&] { return consumer.statistics().acked == 1; }));
  EXPECT_EQ(seen.count(), 1U);
}

TEST_P(Consume, Conf09_AHandlerPastItsTimeoutHasFailedAndItsLateResultIsVoid) {
  Engine engine = open(short_lease());
  Recorder seen;
  ConsumerOptions options = member();
  options.concurrency = 2;
  options.handler_timeout = 200ms;
  std::atomic<bool> let_go{false};
  Consumer consumer =
      engine
          .consume("slow", options,
                   [&](Delivery& delivery) {
                     seen.add(delivery);
                     if (delivery.attempt() > 1) return;
                     EXPECT_TRUE(eventually([&] { return delivery.stop_token().stop_requested(); }));
                     EXPECT_TRUE(eventually([&] { return let_go.load(); }));
                     EXPECT_ERROR(delivery.extend(1s), ErrorCode::kLeaseLost);
                   })
          .value();
  ASSERT_TRUE(engine.publish({.topic = "slow", .payload = "p"}).acked());
  ASSERT_TRUE(seen.reaches(2));
  EXPECT_EQ(seen.all()[1].attempt, 2U);
  ASSERT_TRUE(eventually([&] { return consumer.statistics().acked == 1; }));
  EXPECT_EQ(consumer.statistics().timed_out, 1U);
  EXPECT_EQ(consumer.statistics().stuck, 1U) << "it has not returned yet";
  let_go = true;
  EXPECT_TRUE(eventually([&] { return consumer.statistics().stuck == 0; }));
  EXPECT_TRUE(holds_for([&] { return seen.count() == 2 && consumer.statistics().acked == 1; }, 200ms));
}

TEST_P(ZombieConsume, Conf10_ExtendingALostLeaseIsRefused) {
  TOWLINE_NEEDS(row().fences);
  auto zombie = zombie_on("leases");
  Engine engine = open(short_lease());
  ASSERT_TRUE(engine.publish({.topic = "leases", .payload = "p"}).acked());
  ASSERT_TRUE(eventually([&] { return zombie->count() == 1; }));
  zombie->freeze();
  Recorder seen;
  Consumer consumer = engine.consume("leases", member(), seen.handler()).value();
  ASSERT_TRUE(seen.reaches(1));
  zombie->thaw();
  const std::stop_token stop = zombie->delivery().stop_token();
  ASSERT_TRUE(eventually([&] { return stop.stop_requested(); }));
  EXPECT_ERROR(zombie->delivery().extend(1s), ErrorCode::kLeaseLost);
  EXPECT_ERROR(zombie->delivery().progress("still here"), ErrorCode::kLeaseLost);
  EXPECT_EQ(seen.count(), 1U);
}

TEST_P(Consume, Conf11_TheSecondSettlementIsRefusedAndChangesNothing) {
  Engine engine = open(short_lease());
  std::mutex mutex;
  std::vector<Delivery> taken;
  ConsumerOptions options = manual_member();
  options.prefetch_count = 10;
  options.concurrency = 4;
  Consumer consumer = engine
                          .consume("twice", options,
                                   [&](Delivery& delivery) {
                                     const std::lock_guard guard(mutex);
                                     taken.push_back(delivery);
                                   })
                          .value();
  publish_numbers(engine, "twice", 4);
  const auto taken_count = [&] {
    const std::lock_guard guard(mutex);
    return taken.size();
  };
  ASSERT_TRUE(eventually([&] { return taken_count() == 4; }));
  EXPECT_OK(taken[0].ack(true));
  EXPECT_ERROR(taken[0].ack(), ErrorCode::kAlreadySettled);
  EXPECT_OK(taken[1].ack(true));
  EXPECT_ERROR(taken[1].nak(0ms), ErrorCode::kAlreadySettled);
  EXPECT_ERROR(taken[1].dead_letter("late"), ErrorCode::kAlreadySettled);
  EXPECT_ERROR(taken[1].defer(1ms), ErrorCode::kAlreadySettled);
  EXPECT_ERROR(taken[1].extend(1s), ErrorCode::kAlreadySettled);
  Delivery copy = taken[2];
  EXPECT_OK(taken[2].settle(Outcome::nak(1h), true));
  EXPECT_ERROR(copy.ack(), ErrorCode::kAlreadySettled) << "copies of a handle are one delivery";
  Delivery last = taken[3];
  ASSERT_OK(consumer.close(0ms));
  EXPECT_ERROR(last.ack(true), ErrorCode::kClosed);
  EXPECT_EQ(last.payload().empty(), false) << "the payload outlives the consumer";
  EXPECT_EQ(in_flight(engine), 0U);
  EXPECT_EQ(waiting(engine, "twice"), 1U) << "closing gave back the one that was not settled";
  EXPECT_EQ(dead_letters(engine).size(), 0U);
  // Only the released one and the one that was sent back are left.
  Recorder seen;
  Consumer rest = engine.consume("twice", member(), seen.handler()).value();
  ASSERT_TRUE(seen.reaches(1));
  EXPECT_TRUE(holds_for([&] { return seen.count() == 1; }, 200ms));
  EXPECT_EQ(seen.all()[0].id, last.id());
}

}  // namespace
}  // namespace towline::conformance
