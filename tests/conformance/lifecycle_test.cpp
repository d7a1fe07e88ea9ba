// Closing: from any thread and from a handler, twice, with handlers that never return; bounded, and nothing
// of the user's runs afterwards.

#include <atomic>
#include <functional>
#include <thread>

#include "conformance/fixture.hpp"
#include "support/gauge.hpp"

namespace towline::conformance {
namespace {

TOWLINE_SUITE(Lifecycle);

/// Every call of an engine, with the code it answered.
std::map<std::string, ErrorCode> answers_of(Engine& engine, const Message& message, const MessageId& id,
                                            const IdempotencyToken& token) {
  const auto code = [](const auto& result) { return result.ok() ? ErrorCode{} : result.error().code; };
  const std::vector<std::string> patterns = {"orders"};
  std::map<std::string, ErrorCode> codes;
  codes["publish"] = engine.publish(message).error.code;
  codes["publish_batch"] = code(engine.publish_batch({message}));
  codes["publish_with_retry"] = engine.publish_with_retry(message, {}, 100ms).error.code;
  codes["cancel"] = code(engine.cancel(id));
  codes["cancel_batch"] = code(engine.cancel_batch({id}));
  codes["reschedule"] = code(engine.reschedule(id, system_clock()->now()));
  codes["pending"] = code(engine.pending());
  codes["declare_topic"] = code(engine.declare_topic("orders"));
  codes["consume"] = code(engine.consume("orders", {.group = "g"}, [](Delivery&) {}));
  codes["consume_outcomes"] =
      code(engine.consume_outcomes(patterns, {.group = "g"}, [](Delivery&) { return Outcome::ack(); }));
  codes["consume_batches"] =
      code(engine.consume_batches(patterns, {.group = "g"}, [](std::span<Delivery>) {}));
  codes["backlog"] = code(engine.backlog());
  codes["blocked_keys"] = code(engine.blocked_keys("g", "orders"));
  codes["release_key"] = code(engine.release_key("g", "orders", "k"));
  codes["dead_letters"] = code(engine.dead_letters());
  codes["find_dead_letter"] = code(engine.find_dead_letter(id));
  codes["dead_letter_groups"] = code(engine.dead_letter_groups());
  codes["redrive"] = code(engine.redrive(id));
  codes["redrive_all"] = code(engine.redrive_all({}));
  codes["discard_dead_letter"] = code(engine.discard_dead_letter(id));
  codes["begin"] = code(engine.begin("key"));
  codes["complete"] = code(engine.complete(token, "r"));
  codes["fail"] = code(engine.fail(token));
  codes["once"] = code(engine.once("key", [] { return Bytes("r"); }));
  codes["statistics"] = code(engine.statistics());
  codes["settle_down"] = code(engine.settle_down(100ms));
  return codes;
}

TEST_P(Lifecycle, Conf66_EveryCallAfterCloseAnswersClosed) {
  Engine engine = open();
  Recorder seen;
  Consumer consumer = engine.consume("orders", member(), seen.handler()).value();
  const MessageId id = engine.publish({.topic = "orders", .payload = "p"}).value();
  ASSERT_TRUE(seen.reaches(1));
  const IdempotencyToken token = engine.begin("other").value().token;
  ASSERT_OK(engine.close());
  for (const auto& [call, code] : answers_of(engine, {.topic = "orders", .payload = "late"}, id, token)) {
    EXPECT_EQ(wire_code(code), wire_code(ErrorCode::kClosed)) << call;
  }
  EXPECT_FALSE(engine.health().ok);
  EXPECT_ERROR(consumer.pause(), ErrorCode::kClosed);
  EXPECT_ERROR(consumer.resume(), ErrorCode::kClosed);
  EXPECT_ERROR(consumer.drain(1s), ErrorCode::kClosed);
  EXPECT_ERROR(consumer.set_concurrency(2), ErrorCode::kClosed);
  EXPECT_EQ(consumer.statistics().in_flight, 0U);
  (void)engine.findings();
  EXPECT_EQ(seen.count(), 1U);
}

TEST_P(Lifecycle, Conf66_ClosingTwiceAndFromFourThreadsIsOneClosing) {
  for (int round = 0; round < 5; ++round) {
    Engine engine = open();
    support::Gauge gauge;
    std::atomic<bool> closed{false};
    std::atomic<int> late{0};
    ConsumerOptions options = member();
    options.concurrency = 4;
    Consumer consumer = engine
                            .consume("orders", options,
                                     [&](Delivery&) {
                                       const support::Gauge::Scope scope(gauge);
                                       if (closed) ++late;
                                       std::this_thread::yield();
                                     })
                            .value();
    publish_numbers(engine, "orders", 200);
    ASSERT_TRUE(eventually([&] { return gauge.max() > 0; }));
    std::vector<std::thread> closers;
    for (int t = 0; t < 4; ++t) {
      closers.emplace_back([engine, &gauge, &closed]() mutable {
        EXPECT_EQ(engine.close().value(), 0U);
        closed = true;
        EXPECT_EQ(gauge.value(), 0) << "a handler still runs after close() returned";
      });
    }
    for (std::thread& closer : closers)
      closer.join();
    EXPECT_EQ(engine.close().value(), 0U);
    EXPECT_EQ(late.load(), 0) << "a handler started after close() returned";
  }
}

TEST_P(Lifecycle, Conf66_ClosingAConsumerLeavesTheEngineAndTheOthersAlone) {
  Engine engine = open();
  Recorder first, second;
  Consumer a = engine.consume("orders", member("a"), first.handler()).value();
  Consumer b = engine.consume("orders", member("b"), second.handler()).value();
  EXPECT_EQ(a.close().value(), 0U);
  EXPECT_EQ(a.close().value(), 0U);
  publish_numbers(engine, "orders", 10);
  ASSERT_TRUE(second.reaches(10));
  EXPECT_EQ(first.count(), 0U);
  EXPECT_ERROR(a.resume(), ErrorCode::kClosed);
}

TEST_P(Lifecycle, Conf66_DroppingTheLastHandleClosesWhatItHeld) {
  Recorder seen;
  {
    Engine engine = Engine::open(url(), quick_options()).value();
    { Consumer consumer = engine.consume("orders", member(), seen.handler()).value(); }
    Consumer consumer = engine.consume("orders", member(), seen.handler()).value();
    publish_numbers(engine, "orders", 10);
    ASSERT_TRUE(seen.reaches(10));
    Engine copy = engine;
    engine = Engine();
    publish_numbers(copy, "orders", 1, 10);
    ASSERT_TRUE(seen.reaches(11));
  }
  // The teardown finds every thread and descriptor given back.
}

TEST_P(Lifecycle, Conf67_AHandlerMayCloseTheEngineAndItsMessageIsSettled) {
  Engine engine = open(short_lease());
  Recorder seen;
  std::atomic<bool> returned{false};
  Consumer consumer = engine
                          .consume("orders", member(),
                                   [&](Delivery& delivery) {
                                     seen.add(delivery);
                                     const support::Stopwatch watch;
                                     EXPECT_OK(engine.close());
                                     EXPECT_LT(watch.elapsed(), 1s * support::slack());
                                     returned = true;
                                   })
                          .value();
  publish_numbers(engine, "orders", 1);
  ASSERT_TRUE(eventually([&] { return returned.load(); }));
  EXPECT_OK(engine.close());
  EXPECT_ERROR(engine.statistics(), ErrorCode::kClosed);
  Engine again = open(short_lease());
  Consumer rest = again.consume("orders", member(), seen.handler()).value();
  EXPECT_TRUE(holds_for([&] { return seen.count() == 1; }, 2 * kLease)) << "its message was not acknowledged";
}

TEST_P(Lifecycle, Conf67_AHandlerMayCloseItsConsumer) {
  Engine engine = open();
  Recorder seen;
  Consumer consumer;
  std::mutex mutex;
  const auto handler = [&](Delivery& delivery) {
    seen.add(delivery);
    const std::lock_guard guard(mutex);
    EXPECT_OK(consumer.close());
  };
  {
    const std::lock_guard guard(mutex);
    consumer = engine.consume("orders", member(), handler).value();
  }
  publish_numbers(engine, "orders", 3);
  ASSERT_TRUE(seen.reaches(1));
  EXPECT_OK(consumer.close());
  const std::size_t handled = seen.count();
  EXPECT_TRUE(holds_for([&] { return seen.count() == handled; }, 100ms));
  EXPECT_TRUE(eventually([&] { return in_flight(engine) == 0; }));
  EXPECT_EQ(waiting(engine, "orders"), 3 - handled);
}

TEST_P(Lifecycle, Conf68_CloseReturnsAtItsDeadlineAndReportsTheStuckHandler) {
  Engine engine = open(short_lease());
  std::atomic<bool> let_go{false};
  std::atomic<int> started{0};
  {
    ConsumerOptions options = member();
    options.concurrency = 2;
    Consumer consumer = engine
                            .consume("orders", options,
                                     [&](Delivery& delivery) {
                                       ++started;
                                       if (delivery.payload() == "0")
                                         (void)eventually([&] { return let_go.load(); }, 30s);
                                     })
                            .value();
    publish_numbers(engine, "orders", 5);
    ASSERT_TRUE(eventually([&] { return started == 5; }));
    const support::Stopwatch watch;
    EXPECT_EQ(engine.close(500ms).value(), 1U) << "one handler is stuck";
    EXPECT_GE(watch.elapsed(), 450ms);
    EXPECT_LE(watch.elapsed(), 1s * support::slack());
    EXPECT_ERROR(engine.statistics(), ErrorCode::kClosed);
  }
  // Its message is not lost: it goes to the next one.
  Recorder seen;
  Engine again = open(short_lease());
  Consumer consumer = again.consume("orders", member(), seen.handler()).value();
  ASSERT_TRUE(seen.reaches(1));
  EXPECT_EQ(seen.payloads(), std::vector<std::string>{"0"});
  let_go = true;
  EXPECT_TRUE(holds_for([&] { return seen.count() == 1; }, kLease)) << "the late result changed something";
  allow_stuck();
}

TEST_P(Lifecycle, Conf69_ManyStartsAndStopsUnderTrafficLeakNothing) {
  Engine engine = open();
  make_group(engine, "stress");
  std::atomic<bool> done{false};
  std::thread publisher([&] {
    int number = 0;
    while (!done)
      publish_numbers(engine, "stress", 5, 5 * number++);
  });
  std::vector<std::thread> threads;
  Recorder seen;
  const auto handler = seen.handler();
  const int rounds = scaled(50);
  for (int t = 0; t < 10; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < rounds; ++round) {
        // Most start and stop a consumer, every tenth a whole engine.
        if (round % 10 == t) {
          auto own = Engine::open(url(), quick_options());
          ASSERT_OK(own);
          auto consumer = own->consume("stress", member(), handler);
          ASSERT_OK(consumer);
          const Receipt receipt = own->publish({.topic = "other", .payload = "p"});
          EXPECT_TRUE(receipt.acked()) << receipt.error.to_string();
          EXPECT_OK(own->close());
        } else {
          auto consumer = engine.consume("stress", member(), handler);
          ASSERT_OK(consumer);
          if (round % 3 == 0) {
            EXPECT_OK(consumer->close());
          }
        }
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  done = true;
  publisher.join();
  Consumer rest = engine.consume("stress", member(), handler).value();
  EXPECT_TRUE(eventually([&] { return is_done(engine, "stress"); }, 20s));
  ASSERT_OK(rest.close());
  EXPECT_EQ(seen.times().size(), seen.count()) << "something was handled twice";
  EXPECT_TRUE(engine.health().ok);
}

}  // namespace
}  // namespace towline::conformance
