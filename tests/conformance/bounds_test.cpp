// Bounds that hold over many messages: what an engine holds altogether, what may be parked, how often is
// retried, for how long, how fast what is overdue is fired, and that a redrive ends.

#include <atomic>
#include <thread>

#include "conformance/fixture.hpp"
#include "support/freezable_clock.hpp"
#include "support/gauge.hpp"

namespace towline::conformance {
namespace {

TOWLINE_SUITE(Bounds);

TEST_P(Bounds, Conf87_ASteppedWallClockMovesDueTimesAndTakesNothingFromARunningHandler) {
  const auto clock = std::make_shared<support::FreezableClock>();
  EngineOptions options = short_lease();
  options.clock = clock;
  set_keeper_clock(clock);
  Engine engine = open(options);
  Recorder seen;
  std::atomic<bool> let_go{false};
  ConsumerOptions slow = member("slow");
  Consumer running = engine
                         .consume("work", slow,
                                  [&](Delivery& delivery) {
                                    seen.add(delivery);
                                    (void)eventually([&] { return let_go.load(); });
                                  })
                         .value();
  Recorder fired;
  Consumer later = engine.consume("later", member(), fired.handler()).value();
  ASSERT_TRUE(engine.publish({.topic = "work", .payload = "p"}).acked());
  ASSERT_TRUE(engine.publish({.topic = "later", .payload = "in an hour", .delay = 1h}).acked());
  ASSERT_TRUE(seen.reaches(1));
  clock->step_wall(30min);
  EXPECT_TRUE(holds_for([&] { return fired.count() == 0; }, 200ms)) << "early by the clock that it was given";
  clock->step_wall(-2h);
  EXPECT_TRUE(holds_for([&] { return fired.count() == 0; }, 200ms));
  clock->step_wall(3h);
  EXPECT_TRUE(fired.reaches(1, 3s)) << "a step forward makes it due";
  EXPECT_TRUE(holds_for([&] { return seen.count() == 1; }, 2 * kLease))
      << "a step took a running message away";
  let_go = true;
  EXPECT_TRUE(eventually([&] { return running.statistics().acked == 1; }));
  EXPECT_EQ(running.statistics().lease_lost, 0U);
}

TEST_P(Bounds, Conf88_ARedriveOfWhatDiesAgainAtOnceEnds) {
  Engine engine = open();
  const int count = 200;
  make_dead_letters(engine, "orders", count);
  ConsumerOptions options = member();
  options.concurrency = 4;
  Recorder seen;
  Consumer consumer = engine
                          .consume_outcomes({"orders"}, options,
                                            [&](Delivery& delivery) {
                                              seen.add(delivery);
                                              return Outcome::dead_letter("again");
                                            })
                          .value();
  DeadLetterQuery query;
  query.topic = "orders";
  RedriveOptions redrive;
  redrive.redrive_max = 1000;
  redrive.rate_per_second = 500;  // slow enough that the first ones are back before the last ones are sent
  const RedriveReport report = engine.redrive_all(query, redrive).value();
  EXPECT_EQ(report.redriven, static_cast<std::uint64_t>(count)) << "only what was there when it began";
  ASSERT_TRUE(seen.reaches(static_cast<std::size_t>(count)));
  ASSERT_OK(consumer.drain(5s));
  EXPECT_EQ(seen.count(), static_cast<std::size_t>(count));
  EXPECT_EQ(engine.statistics().value().dead_letters[0], static_cast<std::uint64_t>(count));
}

TEST_P(Bounds, Conf89_AllConsumersOfAnEngineTogetherHoldNoMoreThanItsLimit) {
  EngineOptions options = quick_options();
  options.in_flight_count_max = 10;
  Engine engine = open(options);
  std::atomic<bool> let_go{false};
  std::vector<Consumer> consumers;
  Recorder seen;
  for (int i = 0; i < 4; ++i) {
    ConsumerOptions consumer_options = member("group-" + std::to_string(i));
    consumer_options.prefetch_count = 50;
    consumers.push_back(engine
                            .consume("orders", consumer_options,
                                     [&](Delivery& delivery) {
                                       (void)eventually([&] { return let_go.load(); });
                                       seen.add(delivery);
                                     })
                            .value());
  }
  publish_numbers(engine, "orders", 100);
  ASSERT_TRUE(eventually([&] { return in_flight(engine) > 0; }));
  // Several lanes may look at the room that is left at the same time, each for one hand-out.
  EXPECT_TRUE(holds_for([&] { return in_flight(engine) <= 40; }, 200ms)) << in_flight(engine);
  let_go = true;
  ASSERT_TRUE(seen.reaches(400));
  EXPECT_TRUE(holds_for([&] { return seen.count() == 400; }, 50ms));
}

TEST_P(Bounds, Conf91_BeyondTheRetryBudgetARetryWaitsTheLongest) {
  Engine engine = open();
  Recorder seen;
  ConsumerOptions options = member();
  options.retry.initial_delay = 1ms;
  options.retry.delay_max = 1h;
  options.retry.max_attempts = 1000;
  options.retry.budget_ratio = 0.2;
  Consumer consumer = engine
                          .consume("orders", options,
                                   [&](Delivery& delivery) {
                                     seen.add(delivery);
                                     throw HandlerError("Down");
                                   })
                          .value();
  publish_numbers(engine, "orders", 100);
  // Without a budget this would go on for ever; with one the retries run out.
  ASSERT_TRUE(eventually([&] { return engine.statistics().value().scheduled_now == 100; }));
  EXPECT_TRUE(holds_for([&] { return engine.statistics().value().scheduled_now == 100; }, 200ms));
  EXPECT_LE(seen.count(), 150U) << "more retries than a fifth of the deliveries";
  EXPECT_TRUE(dead_letters(engine).empty());
}

TEST_P(Bounds, Conf92_AFailedMessageThatIsTooOldIsNotRetried) {
  Engine engine = open();
  make_group(engine, "orders");
  ASSERT_TRUE(engine.publish({.topic = "orders", .payload = "old"}).acked());
  (void)holds_for([] { return true; }, 150ms);
  Recorder seen;
  ConsumerOptions options = member();
  options.dead_letters.age_max = 100ms;
  Consumer consumer = engine
                          .consume("orders", options,
                                   [&](Delivery& delivery) {
                                     seen.add(delivery);
                                     throw HandlerError("Broken");
                                   })
                          .value();
  ASSERT_TRUE(eventually([&] { return dead_letters(engine).size() == 1; }));
  EXPECT_EQ(seen.count(), 1U) << "tried once, whatever its age";
  EXPECT_EQ(dead_letters(engine)[0].reason, DeadLetterReason::kMaxAge);
}

TEST_P(Bounds, Conf93_WhatIsOverdueAfterADowntimeIsFiredAtTheCatchUpRate) {
  const auto clock = std::make_shared<support::FreezableClock>();
  EngineOptions options = quick_options();
  options.clock = clock;
  options.catch_up_rate_per_second = 100;
  // On a store that lives in memory only this engine keeps it: another one would fire at its own rate.
  Engine engine = Engine::open(url(), options).value();
  Recorder seen;
  Consumer consumer = engine.consume("later", member(), seen.handler()).value();
  clock->freeze();
  for (int i = 0; i < 60; ++i) {
    ASSERT_TRUE(engine.publish({.topic = "later", .payload = std::to_string(i), .delay = Duration(1000 + i)})
                    .acked());
  }
  (void)holds_for([] { return true; }, 50ms);
  clock->thaw();
  clock->step_wall(1h);
  ASSERT_TRUE(seen.reaches(60));
  const auto all = seen.all();
  EXPECT_GE(all.back().started - all.front().started, 300ms)
      << "60 at 100/s, with at most a tenth of a second at once";
  ASSERT_OK(consumer.close());
  ASSERT_OK(engine.close());
}

}  // namespace
}  // namespace towline::conformance
