// Order: per key and group, handlers start in publishing order and never overlap, also over retries, dead
// letters and changes of membership; a key that fails holds up itself and nobody else.

#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "conformance/fixture.hpp"
#include "support/gauge.hpp"

namespace towline::conformance {
namespace {

/// Watches the handlers of an ordered group. Payloads are "<key>/<number>", numbered from 0 per key.
class OrderWatch {
 public:
  /// Counts one handler of `lane` (a key, or a partition) in until the scope ends.
  void enter(const std::string& lane, const Delivery& delivery) {
    const std::lock_guard guard(mutex_);
    if (++running_[lane] > 1) ++overlaps_;
    const int number = number_of(delivery);
    auto& started = started_[std::string(delivery.key().value_or(""))];
    // A first start must follow all the earlier ones; a later start of the same number is a retry.
    if (number > static_cast<int>(started.size())) ++early_;
    if (number == static_cast<int>(started.size())) started.push_back(number);
    if (number < static_cast<int>(started.size()) - 1) ++late_;
  }
  void leave(const std::string& lane) {
    const std::lock_guard guard(mutex_);
    --running_[lane];
  }
  static int number_of(const Delivery& delivery) {
    const std::string payload(delivery.payload());
    return std::stoi(payload.substr(payload.rfind('/') + 1));
  }
  void expect_in_order() const {
    const std::lock_guard guard(mutex_);
    EXPECT_EQ(overlaps_, 0) << "two handlers of one key ran at the same time";
    EXPECT_EQ(early_, 0) << "a handler started before an earlier message of its key";
    EXPECT_EQ(late_, 0) << "a handler started again after a later message of its key";
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, int> running_;
  std::map<std::string, std::vector<int>> started_;
  int overlaps_ = 0, early_ = 0, late_ = 0;
};

class Ordering : public ConformanceTest {
 protected:
  static ConsumerOptions ordered_member(Order order = Order::kKeyOrdered) {
    ConsumerOptions options = member();
    options.order = order;
    options.concurrency = 4;
    return options;
  }
  static void publish_keys(Engine& engine, const std::string& topic, int keys, int from, int to) {
    std::vector<Message> batch;
    for (int number = from; number < to; ++number) {
      for (int key = 0; key < keys; ++key)
        batch.push_back(message_of(topic, "key-" + std::to_string(key), number));
    }
    for (const Receipt& receipt : engine.publish_batch(std::move(batch)).value()) {
      ASSERT_TRUE(receipt.acked()) << receipt.error.to_string();
    }
  }
  static Message message_of(const std::string& topic, const std::string& key, int number) {
    return {.topic = topic, .payload = key + "/" + std::to_string(number), .key = key};
  }
};
INSTANTIATE_TEST_SUITE_P(Provider, Ordering, ::testing::ValuesIn(providers()), provider_name);

TEST_P(Ordering, Conf28_HandlersOfAKeyStartInPublishingOrderAmongFourMembers) {
  const int keys = 20;
  const int per_key = scaled(500);
  OrderWatch watch;
  Recorder seen;
  const auto handler = [&](Delivery& delivery) {
    watch.enter(*delivery.key(), delivery);
    seen.add(delivery);
    watch.leave(*delivery.key());
  };
  std::vector<Engine> engines = {open(), open()};
  std::vector<Consumer> members;
  for (int i = 0; i < 4; ++i) {
    Engine& engine = engines[static_cast<std::size_t>(i % 2)];
    members.push_back(engine.consume("orders", ordered_member(), handler).value());
  }
  for (int from = 0; from < per_key; from += 50) {
    publish_keys(engines[0], "orders", keys, from, std::min(from + 50, per_key));
  }
  const auto total = static_cast<std::size_t>(keys * per_key);
  ASSERT_TRUE(seen.reaches(total, 20s)) << seen.count();
  for (Consumer& consumer : members)
    EXPECT_OK(consumer.drain(5s));
  EXPECT_EQ(seen.count(), total);
  EXPECT_EQ(seen.times().size(), total);
  watch.expect_in_order();
}

TEST_P(Ordering, Conf28_InPartitionOrderOneHandlerRunsPerPartition) {
  OrderWatch watch;
  Recorder seen;
  Engine engine = open();
  ASSERT_OK(engine.declare_topic("orders", {.partition_count = 4}));
  const auto handler = [&](Delivery& delivery) {
    const std::string lane = std::to_string(delivery.partition());
    watch.enter(lane, delivery);
    seen.add(delivery);
    watch.leave(lane);
  };
  Consumer consumer = engine.consume("orders", ordered_member(Order::kPartitionOrdered), handler).value();
  publish_keys(engine, "orders", 20, 0, 50);
  ASSERT_TRUE(seen.reaches(1000));
  ASSERT_OK(consumer.drain(5s));
  watch.expect_in_order();
  std::map<std::uint32_t, std::vector<MessageId>> per_partition;
  for (const Handled& handled : seen.all())
    per_partition[handled.partition].push_back(handled.id);
  EXPECT_GT(per_partition.size(), 1U);
  for (const auto& [partition, ids] : per_partition) {
    EXPECT_TRUE(std::is_sorted(ids.begin(), ids.end()))
        << "partition " << partition << " left its publishing order";
  }
}

TEST_P(Ordering, Conf29_ARetryHoldsUpItsKeyAndNoOther) {
  Engine engine = open();
  Recorder seen;
  OrderWatch watch;
  ConsumerOptions options = ordered_member();
  options.retry.initial_delay = 300ms;
  const auto handler = [&](Delivery& delivery) {
    watch.enter(*delivery.key(), delivery);
    seen.add(delivery);
    watch.leave(*delivery.key());
    if (delivery.payload() == "key-0/3" && delivery.attempt() <= 2) throw HandlerError("Flaky", "not yet");
  };
  Consumer consumer = engine.consume("orders", options, handler).value();
  publish_keys(engine, "orders", 8, 0, 10);
  // 4 of key-0 have started (0..3), and everything of the others.
  ASSERT_TRUE(seen.reaches(7 * 10 + 4));
  EXPECT_TRUE(holds_for([&] { return seen.count() == 74; }, 100ms)) << "key-0/4 did not wait";
  const auto blocked = engine.blocked_keys("group", "orders").value();
  ASSERT_EQ(blocked.size(), 1U);
  EXPECT_EQ(blocked[0].key, "key-0");
  EXPECT_FALSE(blocked[0].held);
  ASSERT_TRUE(seen.reaches(80 + 2));
  ASSERT_OK(consumer.drain(5s));
  std::vector<std::string> key_0;
  for (const Handled& handled : seen.all()) {
    if (handled.key == "key-0")
      key_0.push_back(handled.payload.substr(6) + "#" + std::to_string(handled.attempt));
  }
  const std::vector<std::string> wanted = {"0#1", "1#1", "2#1", "3#1", "3#2", "3#3",
                                           "4#1", "5#1", "6#1", "7#1", "8#1", "9#1"};
  EXPECT_EQ(key_0, wanted);
  watch.expect_in_order();
  EXPECT_TRUE(engine.blocked_keys("group", "orders").value().empty());
}

TEST_P(Ordering, Conf29_OrderHoldsOverManyRetriesAndARestart) {
  const int keys = 10;
  const int per_key = scaled(50);
  OrderWatch watch;
  Recorder seen;
  const auto handler = [&](Delivery& delivery) {
    watch.enter(*delivery.key(), delivery);
    const int number = OrderWatch::number_of(delivery);
    if (delivery.attempt() == 3 || number % 7 != 3) seen.add(delivery);
    watch.leave(*delivery.key());
    if (delivery.attempt() < 3 && number % 7 == 3) throw HandlerError("Flaky", "not yet");
  };
  Engine engine = open();
  {
    Consumer consumer = engine.consume("orders", ordered_member(), handler).value();
    publish_keys(engine, "orders", keys, 0, per_key);
    ASSERT_TRUE(seen.reaches(static_cast<std::size_t>(keys * per_key / 3)));
    ASSERT_OK(consumer.close());
  }
  close(engine);
  engine = open();
  Consumer consumer = engine.consume("orders", ordered_member(), handler).value();
  const auto total = static_cast<std::size_t>(keys * per_key);
  ASSERT_TRUE(eventually([&] { return seen.times().size() == total; }, 20s)) << seen.times().size();
  watch.expect_in_order();
}

TEST_P(Ordering, Conf30_AKeyGoesToThePartitionOfTheVectorsAndStaysThere) {
  std::ifstream file(std::string(TOWLINE_SOURCE_DIR) + "/tests/vectors/partitions.txt");
  ASSERT_TRUE(file.is_open());
  std::map<std::string, std::uint32_t> vectors;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream fields(line);
    std::string hex;
    std::uint32_t partition = 0;
    if (!(fields >> hex >> partition)) {  // the empty key has no digits
      hex.clear();
      partition = static_cast<std::uint32_t>(std::stoul(line));
    }
    std::string key;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
      key += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
    if (key.size() <= 255) vectors[key] = partition;
  }
  ASSERT_GE(vectors.size(), 900U);
  Engine engine = open();
  Recorder seen;
  make_group(engine, "vectors");
  for (int round = 0; round < 2; ++round) {
    std::vector<Message> batch;
    for (const auto& [key, partition] : vectors)
      batch.push_back({.topic = "vectors", .payload = "p", .key = key});
    for (const Receipt& receipt : engine.publish_batch(std::move(batch)).value())
      ASSERT_TRUE(receipt.acked());
    close(engine);
    engine = open();
  }
  Consumer consumer = engine.consume("vectors", member(), seen.handler()).value();
  ASSERT_TRUE(seen.reaches(2 * vectors.size()));
  for (const Handled& handled : seen.all()) {
    ASSERT_EQ(handled.partition, vectors.at(*handled.key)) << "key of " << handled.key->size() << " bytes";
  }
}

TEST_P(Ordering, Conf31_AMemberThatJoinsMidStreamNeverOverlapsWithTheOthers) {
  const int keys = 20;
  const int per_key = scaled(100);
  OrderWatch watch;
  Recorder first, second;
  const auto handler_of = [&](Recorder& recorder) {
    return [&](Delivery& delivery) {
      watch.enter(*delivery.key(), delivery);
      recorder.add(delivery);
      // sleeps: the handler's work, so that an overlap has time to happen
      std::this_thread::sleep_for(200us);
      watch.leave(*delivery.key());
    };
  };
  Engine engine = open();
  Engine other = open();
  Consumer a = engine.consume("orders", ordered_member(), handler_of(first)).value();
  publish_keys(engine, "orders", keys, 0, per_key / 2);
  ASSERT_TRUE(first.reaches(50));
  Consumer b = other.consume("orders", ordered_member(), handler_of(second)).value();
  publish_keys(engine, "orders", keys, per_key / 2, per_key);
  const auto total = static_cast<std::size_t>(keys * per_key);
  ASSERT_TRUE(eventually([&] { return first.count() + second.count() >= total; }, 20s))
      << first.count() << " and " << second.count();
  // The newcomer gets its share; with a backlog handled already it may have to wait for new messages.
  for (int extra = per_key; extra < per_key + 200 && second.count() == 0; ++extra) {
    publish_keys(engine, "orders", keys, extra, extra + 1);
    (void)eventually([&] { return second.count() > 0; }, 50ms);
  }
  EXPECT_GT(second.count(), 0U);
  watch.expect_in_order();
  ASSERT_OK(b.close());
  ASSERT_OK(a.close());
  watch.expect_in_order();
}

TEST_P(Ordering, Conf32_TheNextMessageOfAKeyRunsAfterItsHeadBecameADeadLetter) {
  Engine engine = open();
  Recorder seen;
  Consumer consumer = engine
                          .consume("orders", ordered_member(),
                                   [&](Delivery& delivery) {
                                     seen.add(delivery);
                                     if (delivery.payload() == "key-0/0")
                                       throw HandlerError("Broken", "always");
                                   })
                          .value();
  publish_keys(engine, "orders", 1, 0, 5);
  ASSERT_TRUE(seen.reaches(3 + 4));
  ASSERT_OK(consumer.drain(5s));
  const std::vector<std::string> wanted = {"key-0/0", "key-0/0", "key-0/0", "key-0/1",
                                           "key-0/2", "key-0/3", "key-0/4"};
  EXPECT_EQ(seen.payloads(), wanted);
  EXPECT_EQ(dead_letters(engine, "orders").size(), 1U);
  EXPECT_TRUE(engine.blocked_keys("group", "orders").value().empty());
}

TEST_P(Ordering, Conf32_AParkedKeyWaitsForAPerson) {
  Engine engine = open();
  Recorder seen;
  ConsumerOptions options = ordered_member();
  options.on_key_failure = KeyFailure::kParkKey;
  Consumer consumer = engine
                          .consume("orders", options,
                                   [&](Delivery& delivery) {
                                     seen.add(delivery);
                                     if (delivery.payload() == "key-0/1")
                                       throw HandlerError("Broken", "always");
                                   })
                          .value();
  publish_keys(engine, "orders", 2, 0, 5);
  ASSERT_TRUE(eventually([&] { return dead_letters(engine, "orders").size() == 1; }));
  ASSERT_TRUE(seen.reaches(1 + 3 + 5));
  EXPECT_TRUE(holds_for([&] { return seen.count() == 9; }, 200ms)) << "key-0/2 must wait for release_key()";
  const auto blocked = engine.blocked_keys("group", "orders").value();
  ASSERT_EQ(blocked.size(), 1U);
  EXPECT_EQ(blocked[0].key, "key-0");
  EXPECT_TRUE(blocked[0].held);
  EXPECT_EQ(blocked[0].parked_count, 3U);
  EXPECT_ERROR(engine.release_key("group", "orders", "key-1"), ErrorCode::kNotFound);
  ASSERT_OK(engine.release_key("group", "orders", "key-0"));
  ASSERT_TRUE(seen.reaches(12));
  ASSERT_OK(consumer.drain(5s));
  std::vector<std::string> tail;
  for (const Handled& handled : seen.all()) {
    if (handled.key == "key-0" && handled.payload > "key-0/1") tail.push_back(handled.payload);
  }
  EXPECT_EQ(tail, (std::vector<std::string>{"key-0/2", "key-0/3", "key-0/4"}));
  EXPECT_TRUE(engine.blocked_keys("group", "orders").value().empty());
}

TEST_P(Ordering, Conf32_WithSkipAFailedMessageIsADeadLetterAtOnceAndItsKeyGoesOn) {
  Engine engine = open();
  Recorder seen;
  ConsumerOptions options = ordered_member();
  options.on_key_failure = KeyFailure::kSkip;
  Consumer consumer = engine
                          .consume("orders", options,
                                   [&](Delivery& delivery) {
                                     seen.add(delivery);
                                     if (delivery.payload() == "key-0/1")
                                       throw HandlerError("Broken", "always");
                                   })
                          .value();
  publish_keys(engine, "orders", 1, 0, 5);
  ASSERT_TRUE(seen.reaches(5));
  ASSERT_OK(consumer.drain(5s));
  EXPECT_EQ(seen.payloads(),
            (std::vector<std::string>{"key-0/0", "key-0/1", "key-0/2", "key-0/3", "key-0/4"}));
  EXPECT_EQ(dead_letters(engine, "orders").size(), 1U);
}

TEST_P(Ordering, Conf32_ABlockedKeyIsBlockedInEveryEngineOfTheGroup) {
  Engine engine = open();
  Engine other = open();
  Recorder seen;
  std::atomic<bool> broken{true};
  ConsumerOptions options = ordered_member();
  options.retry.max_attempts = 1000;
  const auto handler = [&](Delivery& delivery) {
    if (broken && delivery.payload() == "key-0/0") throw HandlerError("Flaky", "not yet");
    seen.add(delivery);
  };
  Consumer a = engine.consume("orders", options, handler).value();
  publish_keys(engine, "orders", 1, 0, 3);
  ASSERT_TRUE(eventually([&] { return engine.blocked_keys("group", "orders").value().size() == 1; }));
  Consumer b = other.consume("orders", options, handler).value();
  ASSERT_OK(a.close());
  publish_keys(engine, "orders", 1, 3, 6);
  EXPECT_TRUE(holds_for([&] { return seen.count() == 0; }, 300ms))
      << "the key is blocked for its new owner too";
  EXPECT_EQ(engine.blocked_keys("group", "orders").value().size(), 1U);
  broken = false;
  ASSERT_TRUE(seen.reaches(6));
  std::vector<std::string> wanted;
  for (int i = 0; i < 6; ++i)
    wanted.push_back("key-0/" + std::to_string(i));
  EXPECT_EQ(seen.payloads(), wanted);
}

}  // namespace
}  // namespace towline::conformance
