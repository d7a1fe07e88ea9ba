// Bad messages, topics, keys, ids, delays and tokens.

#include <atomic>
#include <limits>
#include <thread>

#include "conformance/bad_input.hpp"

namespace towline::conformance {
namespace {

class BadMessage : public BadInput {};
INSTANTIATE_TEST_SUITE_P(Provider, BadMessage, ::testing::ValuesIn(providers()), provider_name);

Message of(const std::string& topic) { return {.topic = topic, .payload = "p"}; }

Message with_headers(Headers headers) {
  Message message = of("orders");
  message.headers = std::move(headers);
  return message;
}

TEST_P(BadMessage, Bad01_TopicsThatAreNotNames) {
  const std::vector<std::string> topics = {"",
                                           std::string(1024, 'a'),
                                           std::string(250, 'a'),
                                           "a b",
                                           "a\tb",
                                           "a\rb",
                                           "a\nb",
                                           std::string("a\0b", 3),
                                           "caf\xc3",
                                           "\xff\xfe",
                                           "größe",
                                           "a/b",
                                           "a:b",
                                           " ",
                                           "a\x1b[31m",
                                           "a\x7f"};
  for (const std::string& topic : topics) {
    expect_rejected(of(topic), ErrorCode::kInvalidTopic, {"topic"});
    expect_refused(topic, member(), ErrorCode::kInvalidTopic, {"pattern"});
    EXPECT_ERROR(engine().declare_topic(topic), ErrorCode::kInvalidTopic);
  }
  EXPECT_TRUE(engine().publish(of(std::string(249, 'a'))).acked());
}

TEST_P(BadMessage, Bad02_TopicsThatServersKeepForThemselves) {
  for (const char* topic : {"$SYS.x", "$JS.API.x", "_INBOX.x", "amq.direct", "__consumer_offsets", "..", ".",
                            "a..b", ".a", "a."}) {
    expect_rejected(of(topic), ErrorCode::kInvalidTopic, {"topic"});
  }
}

TEST_P(BadMessage, Bad03_PatternsAreNotPublishedTo) {
  for (const char* topic : {"a.*", "a.>", "a.#", "*", "#", ">"}) {
    expect_rejected(of(topic), ErrorCode::kInvalidTopic, {"topic"});
  }
}

TEST_P(BadMessage, Bad03_PatternsThatNobodyCouldMean) {
  for (const char* pattern : {"a.*b", "a.b#", ">.a", "a.>.b", "**", "a.**", "$SYS.>", "a..#"}) {
    expect_refused(pattern, member(), ErrorCode::kInvalidTopic, {"pattern"});
  }
  EXPECT_ERROR(engine().consume(std::vector<std::string>{}, member(), [](Delivery&) {}),
               ErrorCode::kInvalidTopic);
}

TEST_P(BadMessage, Bad04_SimilarTopicsAreDistinct) {
  const std::vector<std::string> topics = {"x.y", "x_y", "x-y", "X.y", "x.Y"};
  for (const std::string& topic : topics) {
    make_group(engine(), topic);
    ASSERT_TRUE(engine().publish(of(topic)).acked());
  }
  for (const std::string& topic : topics)
    EXPECT_EQ(waiting(engine(), topic), 1U) << topic;
}

TEST_P(BadMessage, Bad05_BracesAreNotPartOfATopic) {
  expect_rejected(of("{x}"), ErrorCode::kInvalidTopic, {"topic"});
  expect_rejected(of("a.{x}.b"), ErrorCode::kInvalidTopic, {"topic"});
}

TEST_P(BadMessage, Bad06_NamesThatWouldBeCodeElsewhere) {
  const std::vector<std::string> names = {"x'; drop table m;--",
                                          "x\"y",
                                          std::string(101, 'g'),
                                          "a b",
                                          "a\nb",
                                          "größe",
                                          "a/b",
                                          std::string("a\0", 2),
                                          "*",
                                          "{x}"};
  for (const std::string& name : names) {
    expect_refused("orders", member(name), ErrorCode::kInvalidName, {"group"});
    ConsumerOptions options = member();
    options.name = name;
    expect_refused("orders", options, ErrorCode::kInvalidName, {"name"});
    IdempotencyOptions idempotency;
    idempotency.scope = name;
    EXPECT_ERROR(engine().begin("key", idempotency), ErrorCode::kInvalidName);
    EXPECT_TRUE(engine().blocked_keys(name, "orders").value_or({}).empty());
    DeadLetterQuery query;
    query.group = name;
    EXPECT_TRUE(engine().dead_letters(query).value_or({}).items.empty()) << "a filter is data, never code";
    query = {};
    query.text = name;
    EXPECT_OK(engine().dead_letters(query));
  }
}

TEST_P(BadMessage, Bad07_KeysLongerThanEveryProviderCanCarry) {
  Message message = of("orders");
  message.key = std::string(256, 'k');
  expect_rejected(message, ErrorCode::kInvalidKey, {"key", "255"});
  message.key = std::string(255, 'k');
  EXPECT_TRUE(engine().publish(message).acked());
}

TEST_P(BadMessage, Bad08_PayloadsOverTheLimit) {
  Message message = of("orders");
  message.payload = std::string(1048577, 'x');
  expect_rejected(message, ErrorCode::kPayloadTooLarge, {"payload", "1048577", "1048576"});
  message.delay = 1h;
  expect_rejected(message, ErrorCode::kPayloadTooLarge, {"payload"});
}

TEST_P(BadMessage, Bad09_AnEmptyBatchIsFineAndATooLargeOneIsNot) {
  const std::string before = state();
  EXPECT_TRUE(engine().publish_batch({}).value().empty());
  const auto refused = engine().publish_batch(std::vector<Message>(10001, of("orders")));
  ASSERT_FALSE(refused.ok());
  expect_error(refused.error(), ErrorCode::kBatchTooLarge, {"10001", "10000"});
  EXPECT_EQ(state(), before);
  EXPECT_EQ(engine().publish_batch(std::vector<Message>(10000, of("other"))).value().size(), 10000U);
}

TEST_P(BadMessage, Bad10_HeadersThatDoNotTravel) {
  for (const std::string& name :
       {std::string(), std::string("a:b"), std::string("a\r\nb"), std::string("a b"), std::string(129, 'h'),
        std::string("größe"), std::string("a\0b", 3)}) {
    expect_rejected(with_headers({{name, "v"}}), ErrorCode::kInvalidHeader, {"header"});
  }
  expect_rejected(with_headers({{"twice", "a"}, {"twice", "b"}}), ErrorCode::kInvalidHeader, {"twice"});
  expect_rejected(with_headers({{"twice", "a"}, {"Twice", "b"}}), ErrorCode::kInvalidHeader, {"wice"});
  Headers many;
  for (int i = 0; i < 65; ++i)
    many.emplace_back("h" + std::to_string(i), "v");
  expect_rejected(with_headers(many), ErrorCode::kHeadersTooLarge, {"64"});
  many.pop_back();
  EXPECT_TRUE(engine().publish(with_headers(many)).acked());
  expect_rejected(with_headers({{"big", std::string(1 << 20, 'x')}}), ErrorCode::kHeadersTooLarge, {"16"});
}

TEST_P(BadMessage, Bad11_HeaderValuesThatWouldBecomeHeaders) {
  for (const std::string& value :
       {std::string("v\r\nNats-Msg-Id: 1"), std::string("v\n"), std::string("\x01"), std::string("a\0b", 3),
        std::string("\x7f"), std::string("caf\xc3")}) {
    expect_rejected(with_headers({{"name", value}}), ErrorCode::kInvalidHeader, {"name"});
  }
}

TEST_P(BadMessage, Bad12_HeadersThatBelongToTheEngineOrAProvider) {
  for (const char* name :
       {"Nats-Rollup", "Nats-Expected-Stream", "nats-ttl", "Nats-Msg-Id", "x-death", "X-Death", "CC", "BCC",
        "cc", "x-delay", "towline-attempt", "Towline-Anything", "x-first-death-queue", "amqp-anything"}) {
    expect_rejected(with_headers({{name, "all"}}), ErrorCode::kReservedHeader, {name});
  }
  EXPECT_TRUE(engine().publish(with_headers({{"ce-type", "t"}, {"x-tenant", "t"}})).acked());
}

TEST_P(BadMessage, Bad13_NoKeyAnEmptyKeyAndAHugeOne) {
  Message message = of("orders");
  EXPECT_TRUE(engine().publish(message).acked());
  message.key = "";
  EXPECT_TRUE(engine().publish(message).acked());
  message.key = std::string(1 << 20, 'k');
  expect_rejected(message, ErrorCode::kInvalidKey, {"key", "255"});
}

TEST_P(BadMessage, Bad14_IdsThatAreEmptyLongOrBinary) {
  for (const std::string& id :
       {std::string(1024, 'd'), std::string(256, 'd'), std::string("a\0b", 3), std::string("a b"),
        std::string("a\nb"), std::string("\xff"), std::string("größe")}) {
    Message message = of("orders");
    message.dedup_id = id;
    expect_rejected(message, ErrorCode::kInvalidId, {"dedup_id"});
    message = of("orders");
    message.correlation_id = id;
    expect_rejected(message, ErrorCode::kInvalidId, {"correlation_id"});
    message = of("orders");
    message.causation_id = id;
    expect_rejected(message, ErrorCode::kInvalidId, {"causation_id"});
  }
  for (const char* text :
       {"", "x", "0190163d-8694-739b-aea5-966c26f8ad9", "0190163d-8694-739b-aea5-966c26f8ad900",
        "0190163d_8694_739b_aea5_966c26f8ad90", "g190163d-8694-739b-aea5-966c26f8ad90"}) {
    EXPECT_ERROR(MessageId::parse(text), ErrorCode::kInvalidId);
  }
  Message message = of("orders");
  message.traceparent = "00-nonsense";
  expect_rejected(message, ErrorCode::kInvalidHeader, {"traceparent"});
  message = of("orders");
  message.content_type = "text/plain\r\nX: 1";
  expect_rejected(message, ErrorCode::kInvalidHeader, {"content_type"});
  message = of("orders");
  message.priority = 10;
  expect_rejected(message, ErrorCode::kInvalidArgument, {"priority", "10", "9"});
}

TEST_P(BadMessage, Bad15_DelaysThatAreNotTimes) {
  using Limits = std::numeric_limits<std::int64_t>;
  for (const std::int64_t us : {std::int64_t{-1}, std::int64_t{-1000000}, Limits::min(), Limits::max(),
                                Limits::max() / 2, std::int64_t{31622400000} * 1000 + 1}) {
    Message message = of("orders");
    message.delay = Duration(us);
    expect_rejected(message, ErrorCode::kInvalidDelay, {"delay"});
    message = of("orders");
    message.ttl = Duration(us);
    expect_rejected(message, ErrorCode::kInvalidDelay, {"ttl"});
    message = of("orders");
    message.delay = 1s;
    message.misfire.skip_if_late_by = Duration(us);
    expect_rejected(message, ErrorCode::kInvalidDelay, {"skip_if_late_by"});
  }
  Message message = of("orders");
  message.due_at = kNever;
  expect_rejected(message, ErrorCode::kInvalidDelay, {"due_at"});
  message.due_at = system_clock()->now() + 10s;
  message.delay = 1s;
  expect_rejected(message, ErrorCode::kInvalidDelay, {"due_at"});
  message.due_at = TimePoint::min();
  message.delay = 0s;
  EXPECT_TRUE(engine().publish(message).acked()) << "a due time in the past means now";
}

TEST_P(BadMessage, Bad15_SettlingWithABadDelayIsRefusedAndTheDeliveryStaysOpen) {
  std::atomic<bool> done{false};
  Consumer consumer = engine()
                          .consume("delays", manual_member(),
                                   [&](Delivery& delivery) {
                                     EXPECT_ERROR(delivery.nak(-1s), ErrorCode::kInvalidDelay);
                                     EXPECT_ERROR(delivery.nak(Duration::max()), ErrorCode::kInvalidDelay);
                                     EXPECT_ERROR(delivery.defer(-1us), ErrorCode::kInvalidDelay);
                                     EXPECT_ERROR(delivery.extend(-1s), ErrorCode::kInvalidArgument);
                                     EXPECT_ERROR(delivery.extend(25h), ErrorCode::kInvalidArgument);
                                     EXPECT_OK(delivery.ack(false));
                                     done = true;
                                   })
                          .value();
  ASSERT_TRUE(engine().publish(of("delays")).acked());
  EXPECT_TRUE(eventually([&] { return done && consumer.statistics().acked == 1; }));
}

TEST_P(BadMessage, Bad29_HandlesAndTokensOfNothingOfOthersAndOfThePast) {
  Delivery nothing;
  EXPECT_ERROR(nothing.ack(), ErrorCode::kInvalidToken);
  EXPECT_ERROR(nothing.nak(), ErrorCode::kInvalidToken);
  EXPECT_ERROR(nothing.extend(1s), ErrorCode::kInvalidToken);
  EXPECT_TRUE(nothing.payload().empty());
  EXPECT_TRUE(nothing.id().empty());
  const IdempotencyToken mine = engine().begin("key").value().token;
  IdempotencyToken forged = mine;
  forged.fence += 1;
  forged.version += 1;
  EXPECT_ERROR(engine().complete(forged, "forged"), ErrorCode::kLeaseLost);
  EXPECT_ERROR(engine().fail(forged), ErrorCode::kLeaseLost);
  forged = mine;
  forged.key = "another";
  EXPECT_ERROR(engine().complete(forged, "forged"), ErrorCode::kLeaseLost);
  forged.key = mine.key;
  forged.scope = "another";
  EXPECT_ERROR(engine().fail(forged), ErrorCode::kLeaseLost);
  EXPECT_EQ(engine().begin("key").value().kind, IdempotencyAnswer::Kind::kInProgress) << "still mine";
  ASSERT_OK(engine().complete(mine, "right"));
  EXPECT_ERROR(engine().complete(mine, "replayed"), ErrorCode::kLeaseLost);
  EXPECT_EQ(engine().begin("key").value().result.bytes, "right");
  const MessageId unknown{{9, 9, 9}};
  EXPECT_ERROR(engine().redrive(unknown), ErrorCode::kNotFound);
  EXPECT_ERROR(engine().discard_dead_letter(unknown), ErrorCode::kNotFound);
  EXPECT_FALSE(engine().find_dead_letter(unknown).value().has_value());
}

TEST_P(BadMessage, Bad29_ADeliveryOfAClosedConsumerStaysClosedForEver) {
  std::mutex mutex;
  std::optional<Delivery> kept;
  Consumer consumer = engine()
                          .consume("orders", manual_member(),
                                   [&](Delivery& delivery) {
                                     const std::lock_guard guard(mutex);
                                     kept = delivery;
                                   })
                          .value();
  ASSERT_TRUE(engine().publish(of("orders")).acked());
  ASSERT_TRUE(eventually([&] {
    const std::lock_guard guard(mutex);
    return kept.has_value();
  }));
  ASSERT_OK(consumer.close(0ms));
  Recorder seen;
  Consumer next = engine().consume("orders", member(), seen.handler()).value();
  ASSERT_TRUE(seen.reaches(1));
  EXPECT_ERROR(kept->ack(true), ErrorCode::kClosed);
  EXPECT_ERROR(kept->extend(1s), ErrorCode::kClosed);
  EXPECT_TRUE(holds_for([&] { return seen.count() == 1; }, 100ms));
}

TEST_P(BadMessage, Bad32_AHandlerMayPublishToItsOwnTopicWithEveryLimitAtOne) {
  EngineOptions options = quick_options();
  options.publish_in_flight_count_max = 1;
  options.in_flight_count_max = 1;
  Engine small = open(options);
  Recorder seen;
  ConsumerOptions consumer_options = member("chain");
  Consumer consumer =
      small
          .consume("chain", consumer_options,
                   [&](Delivery& delivery) {
                     seen.add(delivery);
                     const int number = std::stoi(std::string(delivery.payload()));
                     if (number < 20) {
                       EXPECT_TRUE(
                           small.publish({.topic = "chain", .payload = std::to_string(number + 1)}).acked());
                     }
                   })
          .value();
  ASSERT_TRUE(small.publish({.topic = "chain", .payload = "0"}).acked());
  ASSERT_TRUE(seen.reaches(21)) << "it waits for itself after " << seen.count();
  ASSERT_OK(consumer.drain(5s));
  EXPECT_EQ(seen.times().size(), 21U);
}

TEST_P(BadMessage, Bad37_IdempotencyKeysThatAreEmptyOrHuge) {
  const std::string before = state();
  for (const std::string& key : {std::string(), std::string(10240, 'k')}) {
    EXPECT_ERROR(engine().begin(key), ErrorCode::kInvalidKey);
    int runs = 0;
    EXPECT_ERROR(engine().once(key, [&] { return ++runs, Bytes(); }), ErrorCode::kInvalidKey);
    EXPECT_EQ(runs, 0);
  }
  EXPECT_EQ(state(), before);
  IdempotencyOptions a, b;
  a.fingerprint = "a";
  b.fingerprint = "b";
  ASSERT_OK(engine().once(
      "key", [] { return Bytes("r"); }, a));
  const auto refused = engine().begin("key", b);
  ASSERT_FALSE(refused.ok());
  expect_error(refused.error(), ErrorCode::kKeyMismatch, {"key"});
}

TEST_P(BadMessage, Bad38_CursorsThatThisQueryDidNotMake) {
  make_dead_letters(engine(), "orders", 10);
  make_dead_letters(engine(), "others", 10);
  DeadLetterQuery query;
  query.topic = "orders";
  query.count_max = 3;
  const std::string good = engine().dead_letters(query).value().cursor;
  ASSERT_FALSE(good.empty());
  std::vector<std::string> bad = {"x",
                                  "0",
                                  "-1",
                                  "' OR 1=1 --",
                                  std::string(10000, 'A'),
                                  good + "x",
                                  good.substr(0, good.size() / 2),
                                  std::string("\0", 1),
                                  "\xff\xff"};
  for (std::size_t i = 0; i < good.size(); i += 3) {
    std::string changed = good;
    changed[i] = changed[i] == 'b' ? 'c' : 'b';
    bad.push_back(changed);
  }
  for (const std::string& cursor : bad) {
    query.cursor = cursor;
    EXPECT_ERROR(engine().dead_letters(query), ErrorCode::kInvalidCursor)
        << "'" << cursor.substr(0, 40) << "'";
  }
  query.cursor = good;
  EXPECT_OK(engine().dead_letters(query));
  query.topic = "others";
  EXPECT_ERROR(engine().dead_letters(query), ErrorCode::kInvalidCursor) << "of another topic";
  for (const std::size_t count :
       {std::size_t{0}, std::size_t{1001}, std::numeric_limits<std::size_t>::max()}) {
    query = {};
    query.count_max = count;
    EXPECT_ERROR(engine().dead_letters(query), ErrorCode::kInvalidArgument);
    EXPECT_ERROR(engine().pending({}, count), ErrorCode::kInvalidArgument);
  }
  ASSERT_TRUE(engine().publish({.topic = "later", .payload = "p", .delay = 1h}).acked());
  ASSERT_TRUE(engine().publish({.topic = "later", .payload = "p", .delay = 2h}).acked());
  const std::string pending = engine().pending("later", 1).value().cursor;
  ASSERT_FALSE(pending.empty());
  for (const std::string& cursor : {std::string("x"), good, pending + "0", pending.substr(1)}) {
    EXPECT_ERROR(engine().pending("later", 1, cursor), ErrorCode::kInvalidCursor) << cursor;
  }
  EXPECT_ERROR(engine().pending("other", 1, pending), ErrorCode::kInvalidCursor) << "of another topic";
}

}  // namespace
}  // namespace towline::conformance
