// What a consumer can be told to do: filter, live for the moment only, expire, prefer, remember, protect a
// dependency, acknowledge first, take batches, name its partitions; and the kinds of topics.

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>

#include "conformance/fixture.hpp"
#include "support/gauge.hpp"

namespace towline::conformance {
namespace {

TOWLINE_SUITE(Feature);

TEST_P(Feature, Conf71_AFilterTakesWhatItNamesAndCountsTheRest) {
  Engine engine = open();
  Recorder some, all;
  ConsumerOptions options = member("some");
  options.filter = "region = 'eu' and $priority >= 5 or exists vip";
  Consumer filtered = engine.consume("orders", options, some.handler()).value();
  Consumer everything = engine.consume("orders", member("all"), all.handler()).value();
  const auto publish = [&](const std::string& name, Headers headers, int priority) {
    Message message{.topic = "orders", .payload = name};
    message.headers = std::move(headers);
    message.priority = static_cast<std::uint8_t>(priority);
    ASSERT_TRUE(engine.publish(std::move(message)).acked());
  };
  publish("eu high", {{"region", "eu"}}, 9);
  publish("eu low", {{"region", "eu"}}, 1);
  publish("us high", {{"region", "us"}}, 9);
  publish("none", {}, 9);
  publish("vip", {{"vip", ""}}, 0);
  ASSERT_TRUE(all.reaches(5));
  ASSERT_TRUE(some.reaches(2));
  ASSERT_TRUE(eventually([&] { return filtered.statistics().filtered == 3; }));
  EXPECT_EQ(some.times(), (std::map<std::string, int>{{"eu high", 1}, {"vip", 1}}));
  EXPECT_TRUE(eventually([&] { return waiting(engine, "orders", "some") == 0 && in_flight(engine) == 0; }));
}

TEST_P(Feature, Conf72_EveryEphemeralSubscriberSeesEveryMessageOfItsTime) {
  Engine engine = open();
  Engine other = open();
  ASSERT_TRUE(engine.publish({.topic = "prices", .payload = "before"}).acked());
  Recorder first, second;
  ConsumerOptions options = member("");
  Consumer a = engine.consume("prices", options, first.handler()).value();
  Consumer b = other.consume("prices.#", options, second.handler()).value();
  publish_numbers(engine, "prices", 100);
  ASSERT_TRUE(first.reaches(100));
  ASSERT_TRUE(second.reaches(100));
  EXPECT_FALSE(first.times().contains("before"));
  EXPECT_EQ(first.times().size(), 100U);
  ASSERT_OK(a.close());
  publish_numbers(engine, "prices", 10, 100);
  ASSERT_TRUE(second.reaches(110));
  Recorder late;
  Consumer again = engine.consume("prices", options, late.handler()).value();
  publish_numbers(engine, "prices", 1, 1000);
  ASSERT_TRUE(late.reaches(1));
  EXPECT_EQ(late.payloads(), std::vector<std::string>{"1000"}) << "nothing was kept for it";
}

TEST_P(Feature, Conf72_AnEphemeralSubscribersFailureIsItsOwnBusiness) {
  Engine engine = open();
  Recorder seen;
  Consumer consumer = engine
                          .consume("prices", member(""),
                                   [&](Delivery& delivery) {
                                     seen.add(delivery);
                                     if (delivery.payload() == "0") throw HandlerError("Broken");
                                   })
                          .value();
  publish_numbers(engine, "prices", 3);
  ASSERT_TRUE(eventually([&] { return seen.times().size() == 3; }));
  EXPECT_TRUE(holds_for([&] { return dead_letters(engine).empty(); }, 200ms));
}

TEST_P(Feature, Conf73_AMessageWhoseTimeIsOverBecomesADeadLetterAndIsNotHandled) {
  Engine engine = open();
  make_group(engine, "offers");
  ASSERT_TRUE(engine.publish({.topic = "offers", .payload = "short", .ttl = 50ms}).acked());
  ASSERT_TRUE(engine.publish({.topic = "offers", .payload = "long", .ttl = 1h}).acked());
  ASSERT_TRUE(engine.publish({.topic = "offers", .payload = "delayed", .ttl = 2s, .delay = 150ms}).acked());
  (void)holds_for([] { return true; }, 100ms);
  Recorder seen;
  Consumer consumer = engine.consume("offers", member(), seen.handler()).value();
  ASSERT_TRUE(seen.reaches(2));
  ASSERT_TRUE(eventually([&] { return dead_letters(engine, "offers").size() == 1; }));
  EXPECT_EQ(seen.times(), (std::map<std::string, int>{{"delayed", 1}, {"long", 1}}))
      << "the time to live of a delayed message begins when it is due";
  EXPECT_EQ(dead_letters(engine, "offers")[0].payload, "short");
  EXPECT_EQ(dead_letters(engine, "offers")[0].reason, DeadLetterReason::kExpired);
  EXPECT_EQ(consumer.statistics().expired, 1U);
}

TEST_P(Feature, Conf74_AHigherPriorityIsHandedOutFirst) {
  Engine engine = open();
  make_group(engine, "jobs");
  for (int i = 0; i < 30; ++i) {
    Message message{.topic = "jobs", .payload = std::to_string(i)};
    message.priority = static_cast<std::uint8_t>(i % 3 * 4);
    ASSERT_TRUE(engine.publish(std::move(message)).acked());
  }
  Recorder seen;
  Consumer consumer = engine.consume("jobs", member(), seen.handler()).value();
  ASSERT_TRUE(seen.reaches(30));
  std::vector<std::string> wanted;
  for (const int rest : {2, 1, 0}) {
    for (int i = rest; i < 30; i += 3)
      wanted.push_back(std::to_string(i));
  }
  EXPECT_EQ(seen.payloads(), wanted);
}

TEST_P(Feature, Conf75_WithinTheInboxWindowASecondDeliveryIsPassedOver) {
  Engine engine = open();
  Recorder seen;
  ConsumerOptions options = member();
  options.inbox_window = 24h;
  Consumer consumer = engine.consume("orders", options, seen.handler()).value();
  Message message{.topic = "orders", .payload = "p"};
  const MessageId id = engine.publish(message).value();
  ASSERT_TRUE(seen.reaches(1));
  ASSERT_OK(consumer.drain(5s));
  ASSERT_OK(consumer.resume());
  // The same message once more, as a producer does that repeats a publish whose outcome it does not know.
  message.id = id;
  ASSERT_TRUE(engine.publish(message).acked());
  ASSERT_TRUE(eventually([&] { return consumer.statistics().duplicates == 1; }));
  EXPECT_EQ(seen.count(), 1U);
  Recorder other;
  Consumer second = engine.consume("orders", member("other"), other.handler()).value();
  ASSERT_TRUE(engine.publish({.topic = "orders", .payload = "new"}).acked());
  ASSERT_TRUE(seen.reaches(2));
}

TEST_P(Feature, Conf76_AFailingDependencyPausesIntakeAndUsesUpNoAttempts) {
  Engine engine = open();
  Recorder seen;
  std::atomic<bool> down{true};
  ConsumerOptions options = member();
  options.retry.max_attempts = 100;
  options.breaker.enabled = true;
  options.breaker.throughput_min = 10;
  options.breaker.open = 300ms;
  options.breaker.probe_count = 2;
  Consumer consumer = engine
                          .consume("orders", options,
                                   [&](Delivery& delivery) {
                                     seen.add(delivery);
                                     if (down) throw HandlerError("ConnectionRefused", "down");
                                   })
                          .value();
  publish_numbers(engine, "orders", 200);
  ASSERT_TRUE(eventually([&] { return consumer.statistics().breaker_open; }));
  // What was in hand may still run; then it is quiet but for probes.
  (void)holds_for([] { return true; }, 100ms);
  const std::size_t before = seen.count();
  EXPECT_LT(before, 100U) << "the breaker opened late";
  (void)holds_for([] { return true; }, 1s);
  EXPECT_LE(seen.count() - before, 20U) << "an open breaker lets only probes through";
  down = false;
  ASSERT_TRUE(eventually([&] { return consumer.statistics().acked == 200; }));
  EXPECT_FALSE(consumer.statistics().breaker_open);
  for (const Handled& handled : seen.all())
    EXPECT_LE(handled.attempt, 20U);
  EXPECT_TRUE(dead_letters(engine).empty());
}

TEST_P(Feature, Conf77_APublishThatCannotSucceedIsADeadLetterAndItsErrorIsReturned) {
  TOWLINE_NEEDS(row().stall != nullptr);
  EngineOptions options = quick_options();
  options.publish_timeout = 100ms;
  options.publish_in_flight_count_max = 1;
  Engine engine = open(options);
  make_group(engine, "orders");
  Receipt receipt;
  std::optional<std::thread> publisher;
  row().stall(url(), [&] {
    // Given up while the store stands still; the dead letter can be written once it goes on.
    publisher.emplace(
        [&] { receipt = engine.publish_with_retry({.topic = "orders", .payload = "p"}, quick_retry(2)); });
    (void)holds_for([] { return true; }, 500ms);
  });
  publisher->join();
  if (receipt.acked()) {
    EXPECT_EQ(waiting(engine, "orders"), 1U);
    EXPECT_TRUE(dead_letters(engine).empty());
  } else {
    ASSERT_EQ(dead_letters(engine, "orders").size(), 1U);
    EXPECT_EQ(dead_letters(engine, "orders")[0].reason, DeadLetterReason::kPublishFailed);
    EXPECT_EQ(dead_letters(engine, "orders")[0].group, "");
  }
  const Receipt fine = engine.publish_with_retry({.topic = "orders", .payload = "fine"}, quick_retry(2));
  EXPECT_TRUE(fine.acked());
}

TEST_P(Feature, Conf78_AcknowledgedFirstAMessageIsHandledAtMostOnce) {
  Engine engine = open();
  Recorder seen;
  ConsumerOptions options = member();
  options.ack = AckPolicy::kFirst;
  Consumer consumer = engine
                          .consume("orders", options,
                                   [&](Delivery& delivery) {
                                     EXPECT_EQ(in_flight(engine), 0U)
                                         << "it is settled before the handler starts";
                                     seen.add(delivery);
                                     throw HandlerError("Broken");
                                   })
                          .value();
  for (int i = 0; i < 5; ++i) {
    publish_numbers(engine, "orders", 1, i);
    ASSERT_TRUE(seen.reaches(static_cast<std::size_t>(i) + 1));
  }
  EXPECT_TRUE(holds_for([&] { return seen.count() == 5; }, 200ms));
  EXPECT_EQ(waiting(engine, "orders"), 0U);
}

TEST_P(Feature, Conf79_ABatchIsHandledTogetherAndSettledOneByOneWhereItSaysSo) {
  Engine engine = open();
  make_group(engine, "orders");
  publish_numbers(engine, "orders", 100);
  std::mutex mutex;
  std::vector<std::size_t> sizes;
  Recorder seen;
  ConsumerOptions options = member();
  options.batch_count_max = 40;
  Consumer consumer = engine
                          .consume_batches({"orders"}, options,
                                           [&](std::span<Delivery> batch) {
                                             {
                                               const std::lock_guard guard(mutex);
                                               sizes.push_back(batch.size());
                                             }
                                             bool fail = false;
                                             for (Delivery& delivery : batch) {
                                               seen.add(delivery);
                                               const int number = std::stoi(std::string(delivery.payload()));
                                               if (number == 7) {
                                                 EXPECT_OK(delivery.dead_letter("seven"));
                                               } else if (number == 8 && delivery.attempt() == 1) {
                                                 EXPECT_OK(delivery.nak(0ms));
                                               } else if (number % 2 == 0) {
                                                 EXPECT_OK(delivery.ack());
                                               } else if (number == 9 && delivery.attempt() == 1) {
                                                 fail = true;
                                               }
                                             }
                                             if (fail) throw HandlerError("Broken", "the batch of 9");
                                           })
                          .value();
  ASSERT_TRUE(eventually([&] { return consumer.statistics().acked == 99; })) << consumer.statistics().acked;
  const auto times = seen.times();
  EXPECT_EQ(times.at("7"), 1);
  EXPECT_EQ(times.at("8"), 2);
  EXPECT_EQ(times.at("9"), 2);
  EXPECT_EQ(times.at("10"), 1) << "settled by itself, so the batch's failure does not touch it";
  EXPECT_EQ(dead_letters(engine, "orders").size(), 1U);
  const std::lock_guard guard(mutex);
  EXPECT_EQ(*std::max_element(sizes.begin(), sizes.end()), 40U);
}

TEST_P(Feature, Conf80_ATransactionThatFailsLeavesNothingAndAGoodOneEverything) {
  TOWLINE_NEEDS(row().runs_sql);
  Engine engine = open();
  make_group(engine, "follow-ups");
  Recorder seen;
  std::vector<std::int64_t> counts;
  Consumer consumer =
      engine
          .consume(
              "orders", manual_member(),
              [&](Delivery& delivery) {
                seen.add(delivery);
                const auto body = [&](bool good) {
                  return [&, good](SqlTransaction& sql) -> Result<void> {
                    EXPECT_OK(sql.execute("CREATE TABLE IF NOT EXISTS effect(name TEXT, amount INTEGER)"));
                    const SqlTransaction::Value values[] = {std::string("charge"), std::int64_t{42}};
                    EXPECT_OK(sql.execute("INSERT INTO effect VALUES (?1, ?2)", values));
                    EXPECT_OK(sql.publish({.topic = "follow-ups", .payload = good ? "good" : "bad"}));
                    EXPECT_OK(sql.complete("scope", "key", "result"));
                    const auto found = sql.execute("SELECT amount FROM effect");
                    EXPECT_OK(found);
                    counts.push_back(static_cast<std::int64_t>(found->size()));
                    for (const char* forbidden :
                         {"COMMIT", "BEGIN", "ATTACH 'x' AS y", "PRAGMA synchronous=OFF", "SAVEPOINT s"}) {
                      EXPECT_FALSE(sql.execute(forbidden).ok()) << forbidden;
                    }
                    if (!good) return Error{ErrorCode::kHandlerFailed, "no"};
                    return {};
                  };
                };
                EXPECT_ERROR(delivery.transaction(body(false)), ErrorCode::kHandlerFailed);
                EXPECT_ERROR(delivery.transaction(
                                 [](SqlTransaction&) -> Result<void> { throw std::runtime_error("out"); }),
                             ErrorCode::kHandlerFailed);
                EXPECT_OK(delivery.transaction(body(true)));
                EXPECT_ERROR(delivery.ack(), ErrorCode::kAlreadySettled) << "the transaction acknowledged it";
              })
          .value();
  ASSERT_TRUE(engine.publish({.topic = "orders", .payload = "p"}).acked());
  ASSERT_TRUE(seen.reaches(1));
  ASSERT_TRUE(eventually([&] { return is_done(engine, "orders"); }));
  ASSERT_OK(consumer.close());
  EXPECT_EQ(counts, (std::vector<std::int64_t>{1, 1})) << "the first effect was rolled back";
  Recorder follow_ups;
  Consumer reader = engine.consume("follow-ups", member(), follow_ups.handler()).value();
  ASSERT_TRUE(follow_ups.reaches(1));
  EXPECT_TRUE(holds_for([&] { return follow_ups.count() == 1; }, 100ms));
  EXPECT_EQ(follow_ups.payloads(), std::vector<std::string>{"good"});
  IdempotencyOptions scope;
  scope.scope = "scope";
  EXPECT_EQ(engine.begin("key", scope).value().result.bytes, "result");
}

TEST_P(Feature, Conf81_ALogTopicIsReadByEveryGroupAtItsOwnPace) {
  Engine engine = open();
  ASSERT_OK(engine.declare_topic("events", {.type = TopicType::kLog, .retention = 1h}));
  for (int i = 0; i < 500; i += 50)
    publish_numbers(engine, "events", 50, i);
  std::vector<std::string> wanted;
  for (int i = 0; i < 500; ++i)
    wanted.push_back(std::to_string(i));
  for (const char* group : {"first", "second"}) {
    Recorder seen;
    Consumer consumer = engine.consume("events", member(group), seen.handler()).value();
    ASSERT_TRUE(seen.reaches(500)) << group << " " << seen.count();
    ASSERT_OK(consumer.close());
    EXPECT_EQ(seen.payloads(), wanted) << group;
  }
  Recorder rest;
  Consumer again = engine.consume("events", member("first"), rest.handler()).value();
  publish_numbers(engine, "events", 5, 500);
  ASSERT_TRUE(rest.reaches(5));
  EXPECT_TRUE(holds_for([&] { return rest.count() == 5; }, 100ms)) << "a group goes on where it was";
  Recorder failing;
  Consumer third = engine
                       .consume("events", member("third"),
                                [&](Delivery& delivery) {
                                  failing.add(delivery);
                                  if (delivery.payload() == "3") throw HandlerError("Broken");
                                })
                       .value();
  ASSERT_TRUE(eventually([&] { return dead_letters(engine, "events").size() == 1; }));
  ASSERT_TRUE(eventually([&] { return failing.times().size() == 505; }));
  EXPECT_EQ(failing.times().at("3"), 3) << "retried as everywhere";
}

TEST_P(Feature, Conf82_ABusTopicReachesOnlyTheSubscribersOfTheMoment) {
  Engine engine = open();
  ASSERT_OK(engine.declare_topic("bus", {.type = TopicType::kBus}));
  ASSERT_TRUE(engine.publish({.topic = "bus", .payload = "nobody"}).acked());
  Recorder seen;
  Consumer consumer = engine.consume("bus", member(""), seen.handler()).value();
  publish_numbers(engine, "bus", 50);
  ASSERT_TRUE(seen.reaches(50));
  EXPECT_FALSE(seen.times().contains("nobody"));
}

TEST_P(Feature, Conf83_AMemberThatNamesPartitionsGetsThoseAndNoOthers) {
  Engine engine = open();
  ASSERT_OK(engine.declare_topic("orders", {.partition_count = 8}));
  Recorder low, high;
  ConsumerOptions options = member();
  options.order = Order::kKeyOrdered;
  options.partitions = {0, 1, 2};
  Consumer a = engine.consume("orders", options, low.handler()).value();
  options.partitions = {3, 4, 5, 6, 7};
  Consumer b = engine.consume("orders", options, high.handler()).value();
  std::vector<Message> batch;
  for (int i = 0; i < 400; ++i) {
    batch.push_back({.topic = "orders", .payload = std::to_string(i), .key = "key-" + std::to_string(i)});
  }
  for (const Receipt& receipt : engine.publish_batch(std::move(batch)).value())
    ASSERT_TRUE(receipt.acked());
  ASSERT_TRUE(eventually([&] { return low.count() + high.count() == 400; }));
  EXPECT_GT(low.count(), 50U);
  EXPECT_GT(high.count(), 100U);
  for (const Handled& handled : low.all())
    EXPECT_LE(handled.partition, 2U);
  for (const Handled& handled : high.all())
    EXPECT_GE(handled.partition, 3U);
}

TEST_P(Feature, Conf84_WithAVirtualClockADayPassesInOneCall) {
  TOWLINE_NEEDS(row().virtual_clock_possible);
  EngineOptions options = quick_options();
  const auto clock = std::make_shared<VirtualClock>();
  options.clock = clock;
  set_keeper_clock(clock);
  Engine engine = open(options);
  Recorder seen;
  ConsumerOptions consumer_options = member();
  consumer_options.retry.initial_delay = 1h;
  consumer_options.retry.delay_max = 1h;
  std::vector<TimePoint> times;
  std::mutex mutex;
  Consumer consumer = engine
                          .consume("orders", consumer_options,
                                   [&](Delivery& delivery) {
                                     {
                                       const std::lock_guard guard(mutex);
                                       times.push_back(clock->now());
                                     }
                                     seen.add(delivery);
                                     if (delivery.payload() == "flaky" && delivery.attempt() < 3)
                                       throw HandlerError("Flaky");
                                   })
                          .value();
  const TimePoint start = clock->now();
  const support::Stopwatch watch;
  ASSERT_TRUE(engine.publish({.topic = "orders", .payload = "tomorrow", .delay = 24h}).acked());
  ASSERT_TRUE(engine.publish({.topic = "orders", .payload = "flaky"}).acked());
  ASSERT_OK(engine.settle_down());
  EXPECT_EQ(seen.count(), 1U);
  clock->advance(1h);
  ASSERT_OK(engine.settle_down());
  EXPECT_EQ(seen.count(), 2U);
  clock->advance(1h);
  ASSERT_OK(engine.settle_down());
  EXPECT_EQ(seen.count(), 3U);
  clock->advance(21h + 59min);
  ASSERT_OK(engine.settle_down());
  EXPECT_EQ(seen.count(), 3U) << "not early";
  clock->advance(1min);
  ASSERT_OK(engine.settle_down());
  ASSERT_EQ(seen.count(), 4U);
  EXPECT_EQ(seen.payloads().back(), "tomorrow");
  EXPECT_EQ(times.back() - start, 24h);
  EXPECT_LT(watch.elapsed(), 5s * support::slack());
}

}  // namespace
}  // namespace towline::conformance
