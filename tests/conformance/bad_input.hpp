#pragma once
// For the tests of bad input: each bad call must answer a typed error whose message names what is wrong, and
// must leave the store as it was.

#include <string>
#include <vector>

#include "conformance/fixture.hpp"

namespace towline::conformance {

class BadInput : public ConformanceTest {
 protected:
  void SetUp() override {
    ConformanceTest::SetUp();
    engine_ = open();
    make_group(engine_, "orders");
  }
  void TearDown() override {
    engine_ = Engine();
    ConformanceTest::TearDown();
  }

  Engine& engine() { return engine_; }

  /// What the store holds, as text.
  [[nodiscard]] std::string state() {
    std::string text;
    for (const GroupBacklog& backlog : engine_.backlog().value()) {
      text += backlog.topic + "/" + backlog.group + " " + std::to_string(backlog.waiting) + "+" +
              std::to_string(backlog.in_flight) + "; ";
    }
    const EngineStatistics statistics = engine_.statistics().value();
    text += std::to_string(statistics.scheduled_now) + " scheduled, " +
            std::to_string(statistics.parked_now) + " parked, " +
            std::to_string(statistics.idempotency_records) + " keys, dead letters";
    for (const std::uint64_t count : statistics.dead_letters)
      text += " " + std::to_string(count);
    return text;
  }

  /// The error has this code, and its one-line message contains each of `words`.
  static void expect_error(const Error& error, ErrorCode code, const std::vector<std::string>& words) {
    EXPECT_EQ(error.wire_code(), wire_code(code)) << error.to_string();
    for (const std::string& word : words) {
      EXPECT_NE(error.message.find(word), std::string::npos) << "no '" << word << "' in: " << error.message;
    }
    EXPECT_FALSE(error.message.empty());
    EXPECT_LT(error.message.size(), 1000U) << "a value is cut, not printed whole";
    for (const char c : error.message) {
      ASSERT_GE(static_cast<unsigned char>(c), 0x20) << "a control byte in the message";
    }
  }

  /// Publishing it is rejected with this code, by every way of publishing, and nothing changes.
  void expect_rejected(const Message& message, ErrorCode code, const std::vector<std::string>& words) {
    const std::string before = state();
    const Receipt receipt = engine_.publish(message);
    EXPECT_EQ(receipt.outcome, PublishOutcome::kRejected);
    expect_error(receipt.error, code, words);
    const auto batch = engine_.publish_batch({message}).value();
    EXPECT_EQ(batch.at(0).outcome, PublishOutcome::kRejected);
    EXPECT_EQ(batch.at(0).error.wire_code(), wire_code(code));
    const support::Stopwatch watch;
    const Receipt retried = engine_.publish_with_retry(message, {}, 10s);
    EXPECT_EQ(retried.error.wire_code(), wire_code(code));
    EXPECT_LT(watch.elapsed(), 900ms * support::slack()) << "what is wrong stays wrong: it is not retried";
    EXPECT_EQ(state(), before);
  }

  /// Consuming with these options is refused with this code, and no member is left behind.
  void expect_refused(const std::string& pattern, const ConsumerOptions& options, ErrorCode code,
                      const std::vector<std::string>& words) {
    const std::string before = state();
    const auto consumer = engine_.consume(pattern, options, [](Delivery&) {});
    ASSERT_FALSE(consumer.ok()) << "accepted '" << pattern << "'";
    expect_error(consumer.error(), code, words);
    EXPECT_EQ(state(), before);
  }

  /// Opening another engine on this store with these options is refused.
  void expect_unopened(const EngineOptions& options, const std::vector<std::string>& words) {
    const auto engine = Engine::open(url(), options);
    ASSERT_FALSE(engine.ok());
    expect_error(engine.error(), ErrorCode::kInvalidConfig, words);
  }

 private:
  Engine engine_;
};

}  // namespace towline::conformance
