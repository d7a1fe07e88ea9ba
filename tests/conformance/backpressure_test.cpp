// Limits: how much runs, waits and is held at once; and pausing.

#include <atomic>
#include <random>
#include <thread>

#include "conformance/fixture.hpp"
#include "support/gauge.hpp"
#include "support/resources.hpp"

namespace towline::conformance {
namespace {

TOWLINE_SUITE(Backpressure);

TEST_P(Backpressure, Conf54_NeverMoreHandlersThanTheLimitAndAsMany) {
  Engine engine = open();
  Recorder seen;
  support::Gauge gauge;
  ConsumerOptions options = member();
  options.concurrency = 7;
  Consumer consumer = engine
                          .consume("orders", options,
                                   [&](Delivery& delivery) {
                                     const support::Gauge::Scope scope(gauge);
                                     seen.add(delivery);
                                     // The first ones wait for each other, so that the limit is reached for
                                     // certain.
                                     if (gauge.max() < 7)
                                       (void)eventually([&] { return gauge.max() >= 7; }, 3s);
                                     std::this_thread::yield();
                                   })
                          .value();
  publish_numbers(engine, "orders", 1000);
  ASSERT_TRUE(seen.reaches(1000));
  ASSERT_OK(consumer.drain(5s));
  EXPECT_EQ(gauge.max(), 7);
  EXPECT_EQ(consumer.statistics().running_max, 7U);
  EXPECT_EQ(seen.times().size(), 1000U);
}

TEST_P(Backpressure, Conf54_TheLimitMayBeRaisedAndLoweredWhileMessagesFlow) {
  Engine engine = open();
  Recorder seen;
  support::Gauge gauge;
  std::atomic<int> limit{2};
  std::atomic<int> breaches{0};
  ConsumerOptions options = member();
  options.concurrency = 2;
  Consumer consumer = engine
                          .consume("orders", options,
                                   [&](Delivery& delivery) {
                                     if (gauge.enter() > limit) ++breaches;
                                     seen.add(delivery);
                                     // sleeps: the handler's work, so that several overlap
                                     std::this_thread::sleep_for(200us);
                                     gauge.leave();
                                   })
                          .value();
  publish_numbers(engine, "orders", 500);
  ASSERT_TRUE(seen.reaches(50));
  limit = 9;
  ASSERT_OK(consumer.set_concurrency(9));
  ASSERT_TRUE(eventually([&] { return gauge.max() == 9 || seen.count() == 500; }));
  EXPECT_EQ(gauge.max(), 9) << "the higher limit was not used";
  ASSERT_OK(consumer.set_concurrency(1));
  // Those that run may go on; once they have returned, one at a time.
  ASSERT_TRUE(eventually([&] { return gauge.value() <= 1; }));
  limit = 1;
  publish_numbers(engine, "orders", 100, 500);
  ASSERT_TRUE(seen.reaches(600));
  EXPECT_EQ(breaches.load(), 0);
  EXPECT_ERROR(consumer.set_concurrency(0), ErrorCode::kInvalidConfig);
  EXPECT_ERROR(consumer.set_concurrency(4097), ErrorCode::kInvalidConfig);
}

TEST_P(Backpressure, Conf54_PrefetchBoundsWhatIsHeld) {
  Engine engine = open();
  std::atomic<bool> open_gate{false};
  ConsumerOptions options = member();
  options.concurrency = 2;
  options.prefetch_count = 5;
  Consumer consumer =
      engine
          .consume("orders", options, [&](Delivery&) { (void)eventually([&] { return open_gate.load(); }); })
          .value();
  publish_numbers(engine, "orders", 100);
  ASSERT_TRUE(eventually([&] { return consumer.statistics().running == 2; }));
  EXPECT_TRUE(holds_for([&] { return in_flight(engine) <= 7; }, 100ms)) << in_flight(engine);
  EXPECT_EQ(waiting(engine, "orders") + in_flight(engine), 100U);
  open_gate = true;
  ASSERT_TRUE(eventually([&] { return consumer.statistics().acked == 100; }));
}

TEST_P(Backpressure, Conf54_TheByteLimitBoundsWhatIsHeldAndLetsOneLargeMessageThrough) {
  EngineOptions engine_options = quick_options();
  Engine engine = open(engine_options);
  std::atomic<bool> open_gate{false};
  ConsumerOptions options = member();
  options.prefetch_count = 1000;
  options.prefetch_bytes_max = 10'000;
  Consumer consumer =
      engine
          .consume("orders", options, [&](Delivery&) { (void)eventually([&] { return open_gate.load(); }); })
          .value();
  std::vector<Message> batch(50, Message{.topic = "orders", .payload = std::string(3000, 'x')});
  batch[10].payload = std::string(50'000, 'y');
  for (const Receipt& receipt : engine.publish_batch(std::move(batch)).value())
    ASSERT_TRUE(receipt.acked());
  ASSERT_TRUE(eventually([&] { return consumer.statistics().running == 1; }));
  EXPECT_TRUE(holds_for([&] { return in_flight(engine) <= 5; }, 100ms)) << in_flight(engine);
  open_gate = true;
  ASSERT_TRUE(eventually([&] { return consumer.statistics().acked == 50; }));
}

TEST_P(Backpressure, Conf54_ARateLimitSpreadsTheStarts) {
  Engine engine = open();
  Recorder seen;
  ConsumerOptions options = member();
  options.concurrency = 4;
  options.rate_per_second = 100;
  publish_numbers(engine, "orders", 60);
  Consumer consumer = engine.consume("orders", options, seen.handler()).value();
  ASSERT_TRUE(seen.reaches(60));
  const auto all = seen.all();
  // 60 starts at 100/s with at most one second's worth, here at most ten, let through at the beginning.
  const Duration span = all.back().started - all.front().started;
  EXPECT_GE(span, 300ms) << "faster than asked for";
  EXPECT_LE(span, 3s * support::slack());
}

TEST_P(Backpressure, Conf55_PermitsReturnToTheirLimitWhoeverGivesUp) {
  const Permits permits = Permits::create(5, 100).value();
  Permits shared = permits;
  support::Gauge gauge;
  std::atomic<int> granted{0}, timed_out{0}, cancelled{0}, refused{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 16; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 64; ++i) {
        std::stop_source stop;
        std::optional<std::jthread> canceller;
        if (random() % 4 == 0) canceller.emplace([&stop] { stop.request_stop(); });
        auto permit = shared.acquire(Duration(random() % 2000), stop.get_token());
        if (permit.ok()) {
          ++granted;
          const support::Gauge::Scope scope(gauge);
          if (random() % 2 == 0) std::this_thread::yield();
        } else {
          if (permit.error().code == ErrorCode::kTimeout) ++timed_out;
          if (permit.error().code == ErrorCode::kCancelled) ++cancelled;
          if (permit.error().code == ErrorCode::kOverloaded) ++refused;
        }
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_LE(gauge.max(), 5);
  EXPECT_EQ(granted + timed_out + cancelled + refused, 16 * 64);
  const PermitStatistics statistics = permits.statistics();
  EXPECT_EQ(statistics.in_use, 0U) << "a permit was lost";
  EXPECT_EQ(statistics.waiting, 0U) << "a waiter was left behind";
  EXPECT_EQ(statistics.limit, 5U);
  EXPECT_LE(statistics.in_use_max, 5U);
  std::vector<Permit> all;
  for (int i = 0; i < 5; ++i) {
    auto permit = shared.try_acquire();
    ASSERT_TRUE(permit.has_value()) << i;
    all.push_back(std::move(*permit));
  }
  EXPECT_FALSE(shared.try_acquire().has_value());
}

TEST_P(Backpressure, Conf55_PermitsAreHandedOverInTheOrderOfAsking) {
  Permits permits = Permits::create(1, 1000).value();
  Permit held = permits.acquire().value();
  std::mutex mutex;
  std::vector<int> order;
  std::vector<std::thread> waiters;
  std::vector<std::stop_source> stops(200);
  for (int i = 0; i < 200; ++i) {
    waiters.emplace_back([&, i] {
      auto permit = permits.acquire(30s, stops[static_cast<std::size_t>(i)].get_token());
      if (!permit.ok()) return;
      const std::lock_guard guard(mutex);
      order.push_back(i);
    });
    ASSERT_TRUE(
        eventually([&] { return permits.statistics().waiting == static_cast<std::uint64_t>(i) + 1; }));
  }
  for (std::size_t i = 0; i < stops.size(); i += 2)
    stops[i].request_stop();
  EXPECT_TRUE(eventually([&] { return permits.statistics().waiting == 100; }));
  EXPECT_FALSE(permits.try_acquire().has_value()) << "nobody slips in while others wait";
  held.release();
  for (std::thread& waiter : waiters)
    waiter.join();
  std::vector<int> wanted;
  for (int i = 1; i < 200; i += 2)
    wanted.push_back(i);
  EXPECT_EQ(order, wanted);
  EXPECT_EQ(permits.statistics().in_use, 0U);
}

TEST_P(Backpressure, Conf55_AFullQueueOfWaitersRefusesTheNext) {
  Permits permits = Permits::create(1, 2).value();
  Permit held = permits.acquire().value();
  std::vector<std::thread> waiters;
  for (int i = 0; i < 2; ++i)
    waiters.emplace_back([&] { EXPECT_OK(permits.acquire(30s)); });
  ASSERT_TRUE(eventually([&] { return permits.statistics().waiting == 2; }));
  EXPECT_ERROR(permits.acquire(30s), ErrorCode::kOverloaded);
  held.release();
  for (std::thread& waiter : waiters)
    waiter.join();
  EXPECT_EQ(permits.statistics().in_use, 0U);
}

TEST_P(Backpressure, Conf56_PublishingIntoAStoreThatStandsStillIsBounded) {
  TOWLINE_NEEDS(row().keeps_deadlines);
  TOWLINE_NEEDS(row().stall != nullptr);
  EngineOptions options = quick_options();
  options.publish_in_flight_count_max = 4;
  options.publish_timeout = 300ms;
  Engine engine = open(options);
  ASSERT_TRUE(engine.publish({.topic = "orders", .payload = "first"}).acked());
  const std::size_t before = support::resident_bytes();
  std::atomic<int> acked{0}, refused{0};
  row().stall(url(), [&] {
    std::vector<std::thread> publishers;
    for (int t = 0; t < 16; ++t) {
      publishers.emplace_back([&] {
        for (int i = 0; i < 3; ++i) {
          const support::Stopwatch watch;
          const Receipt receipt = engine.publish({.topic = "orders", .payload = std::string(100'000, 'x')});
          EXPECT_LE(watch.elapsed(), 3s * support::slack()) << "a publish has a deadline";
          receipt.acked() ? ++acked : ++refused;
          if (receipt.acked()) continue;
          const ErrorCode code = receipt.error.code;
          EXPECT_TRUE(code == ErrorCode::kTimeout || code == ErrorCode::kOverloaded)
              << receipt.error.to_string();
          EXPECT_EQ(receipt.outcome, PublishOutcome::kRejected) << "none of them could begin";
        }
      });
    }
    for (std::thread& publisher : publishers)
      publisher.join();
    for (const Message& message : {Message{.topic = "never.seen", .payload = "new"},
                                   Message{.topic = "orders", .payload = "later", .delay = 1h}}) {
      const support::Stopwatch watch;
      const Receipt receipt = engine.publish(message);
      EXPECT_LE(watch.elapsed(), 3s * support::slack()) << "so have new topics and delayed messages";
      EXPECT_EQ(receipt.error.code, ErrorCode::kTimeout);
      EXPECT_EQ(receipt.outcome, PublishOutcome::kRejected);
    }
  });
  EXPECT_EQ(acked.load(), 0) << "acknowledged while nothing could be written";
  EXPECT_EQ(refused.load(), 48);
  EXPECT_EQ(engine.statistics().value().unknown, 0U);
  EXPECT_TRUE(engine.pending().value().items.empty());
  EXPECT_LE(support::resident_bytes(), before + (32U << 20U) * static_cast<unsigned>(support::slack()));
  EXPECT_TRUE(engine.publish({.topic = "orders", .payload = "after"}).acked()) << "and it goes on";
}

TEST_P(Backpressure, Conf57_APausedConsumerTakesNothingInUntilItIsResumed) {
  Engine engine = open();
  Recorder seen;
  Consumer consumer = engine.consume("orders", member(), seen.handler()).value();
  publish_numbers(engine, "orders", 10);
  ASSERT_TRUE(seen.reaches(10));
  ASSERT_OK(consumer.pause());
  ASSERT_OK(consumer.pause());
  ASSERT_OK(consumer.drain(5s));
  EXPECT_TRUE(consumer.statistics().paused);
  const std::size_t before = seen.count();
  publish_numbers(engine, "orders", 200, 10);
  EXPECT_TRUE(holds_for([&] { return seen.count() == before; }, 200ms));
  EXPECT_EQ(waiting(engine, "orders"), 200U);
  ASSERT_OK(consumer.resume());
  ASSERT_OK(consumer.resume());
  ASSERT_TRUE(seen.reaches(210));
  EXPECT_EQ(seen.times().size(), 210U);
  EXPECT_FALSE(consumer.statistics().paused);
}

TEST_P(Backpressure, Conf57_DrainingWaitsForWhatRunsAndSaysWhenItCannot) {
  Engine engine = open();
  std::atomic<bool> let_go{false};
  Recorder seen;
  Consumer consumer = engine
                          .consume("orders", member(),
                                   [&](Delivery& delivery) {
                                     seen.add(delivery);
                                     (void)eventually([&] { return let_go.load(); });
                                   })
                          .value();
  publish_numbers(engine, "orders", 3);
  ASSERT_TRUE(seen.reaches(1));
  EXPECT_ERROR(consumer.drain(100ms), ErrorCode::kTimeout);
  let_go = true;
  EXPECT_OK(consumer.drain(5s));
  EXPECT_EQ(consumer.statistics().in_flight, 0U);
  ASSERT_OK(consumer.resume());
  ASSERT_TRUE(seen.reaches(3));
}

}  // namespace
}  // namespace towline::conformance
