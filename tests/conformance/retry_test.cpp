// Failing: what a failed handler costs, how long the next attempt waits, and which errors are not worth one.

#include <algorithm>

#include "conformance/fixture.hpp"

namespace towline::conformance {
namespace {

TOWLINE_SUITE(Retry);

struct OddError {};

/// The waits between the starts of the attempts of one message.
std::vector<Duration> waits_of(const Recorder& seen) {
  std::vector<Duration> result;
  const auto all = seen.all();
  for (std::size_t i = 1; i < all.size(); ++i)
    result.push_back(all[i].started - all[i - 1].started);
  return result;
}

RetryOptions policy(BackoffKind kind) {
  RetryOptions retry;
  retry.kind = kind;
  retry.initial_delay = 20ms;
  retry.multiplier = 3.0;
  retry.delay_max = 200ms;
  retry.jitter = JitterKind::kNone;
  retry.max_attempts = 6;
  return retry;
}

TEST_P(Retry, Conf33_EveryBackoffWaitsAsItsFormulaSays) {
  Engine engine = open();
  struct Case {
    RetryOptions retry;
    std::vector<Duration> wanted;
  };
  std::map<std::string, Case> cases;
  cases["fixed"] = {policy(BackoffKind::kFixed), {20ms, 20ms, 20ms, 20ms, 20ms}};
  cases["linear"] = {policy(BackoffKind::kLinear), {20ms, 40ms, 60ms, 80ms, 100ms}};
  cases["exponential"] = {policy(BackoffKind::kExponential), {20ms, 60ms, 180ms, 200ms, 200ms}};
  cases["fibonacci"] = {policy(BackoffKind::kFibonacci), {20ms, 20ms, 40ms, 60ms, 100ms}};
  cases["sequence"] = {policy(BackoffKind::kSequence), {5ms, 70ms, 30ms, 30ms, 30ms}};
  cases["sequence"].retry.sequence = {5ms, 70ms, 30ms};
  cases["custom"] = {policy(BackoffKind::kCustom), {11ms, 22ms, 33ms}};
  cases["custom"].retry.custom = [](std::uint32_t failures,
                                    const ErrorInfo& error) -> std::optional<Duration> {
    EXPECT_EQ(error.type, "Flaky");
    if (failures > 3) return std::nullopt;
    return failures * Duration(11ms);
  };
  std::map<std::string, Recorder> seen;
  std::vector<Consumer> consumers;
  for (auto& [name, one] : cases) {
    ConsumerOptions options = member(name);
    options.retry = one.retry;
    consumers.push_back(engine
                            .consume("backoff", options,
                                     [&recorder = seen[name]](Delivery& delivery) {
                                       recorder.add(delivery);
                                       throw HandlerError("Flaky", "again");
                                     })
                            .value());
  }
  ASSERT_TRUE(engine.publish({.topic = "backoff", .payload = "p"}).acked());
  ASSERT_TRUE(eventually([&] { return dead_letters(engine, "backoff").size() == cases.size(); }));
  std::vector<Duration> lateness;
  for (const auto& [name, one] : cases) {
    const auto waits = waits_of(seen[name]);
    ASSERT_EQ(waits.size(), one.wanted.size()) << name;
    for (std::size_t i = 0; i < waits.size(); ++i) {
      EXPECT_GE(waits[i], one.wanted[i]) << name << ", retry " << i + 1 << " came too early";
      lateness.push_back(waits[i] - one.wanted[i]);
    }
  }
  std::sort(lateness.begin(), lateness.end());
  EXPECT_LE(lateness[lateness.size() / 2], 100ms * support::slack());
}

TEST_P(Retry, Conf33_JitterStaysWithinItsBoundsAndVaries) {
  Engine engine = open();
  std::map<JitterKind, std::pair<Duration, Duration>> bounds = {{JitterKind::kProportional, {80ms, 120ms}},
                                                                {JitterKind::kFull, {0ms, 100ms}},
                                                                {JitterKind::kEqual, {50ms, 100ms}}};
  std::map<JitterKind, Recorder> seen;
  std::vector<Consumer> consumers;
  for (const auto& [jitter, bound] : bounds) {
    ConsumerOptions options = member("jitter-" + std::to_string(static_cast<int>(jitter)));
    options.retry = policy(BackoffKind::kFixed);
    options.retry.initial_delay = 100ms;
    options.retry.jitter = jitter;
    options.retry.jitter_ratio = 0.2;
    options.concurrency = 8;
    consumers.push_back(engine
                            .consume("jitter", options,
                                     [&recorder = seen[jitter]](Delivery& delivery) {
                                       recorder.add(delivery);
                                       if (delivery.attempt() == 1) throw HandlerError("Flaky", "again");
                                     })
                            .value());
  }
  publish_numbers(engine, "jitter", 20);
  for (const auto& [jitter, bound] : bounds) {
    ASSERT_TRUE(seen[jitter].reaches(40));
    std::map<std::string, MonotonicTime> first;
    std::vector<Duration> waits;
    for (const Handled& handled : seen[jitter].all()) {
      if (handled.attempt == 1) {
        first[handled.payload] = handled.started;
      } else {
        waits.push_back(handled.started - first.at(handled.payload));
      }
    }
    std::sort(waits.begin(), waits.end());
    EXPECT_GE(waits.front(), bound.first) << "jitter " << static_cast<int>(jitter);
    EXPECT_LE(waits[waits.size() / 2], bound.second + 100ms * support::slack());
    EXPECT_GT(waits.back() - waits.front(), 2ms) << "does not vary";
  }
}

TEST_P(Retry, Conf33_ManyAttemptsWithHugeGrowthDoNotOverflow) {
  Engine engine = open();
  ConsumerOptions options = member();
  options.retry = policy(BackoffKind::kExponential);
  options.retry.initial_delay = 1us;
  options.retry.delay_max = 1us;
  options.retry.multiplier = 1000.0;
  options.retry.max_attempts = scaled(200);
  Recorder seen;
  Consumer consumer = engine
                          .consume("backoff", options,
                                   [&](Delivery& delivery) {
                                     seen.add(delivery);
                                     throw HandlerError("Flaky", "again");
                                   })
                          .value();
  ASSERT_TRUE(engine.publish({.topic = "backoff", .payload = "p"}).acked());
  ASSERT_TRUE(eventually([&] { return dead_letters(engine, "backoff").size() == 1; }, 20s)) << seen.count();
  const auto all = seen.all();
  ASSERT_EQ(all.size(), static_cast<std::size_t>(options.retry.max_attempts));
  for (std::size_t i = 0; i < all.size(); ++i)
    ASSERT_EQ(all[i].attempt, i + 1);
}

TEST_P(Retry, Conf34_AttemptsAreRememberedOverARestart) {
  Engine engine = open();
  Recorder seen;
  ConsumerOptions options = member();
  options.retry.initial_delay = 200ms;
  const auto handler = [&](Delivery& delivery) {
    seen.add(delivery);
    throw HandlerError("Broken", "attempt " + std::to_string(delivery.attempt()));
  };
  {
    Consumer consumer = engine.consume("orders", options, handler).value();
    ASSERT_TRUE(engine.publish({.topic = "orders", .payload = "p"}).acked());
    ASSERT_TRUE(seen.reaches(2));
    ASSERT_OK(consumer.close());
  }
  close(engine);
  engine = open();
  Consumer consumer = engine.consume("orders", options, handler).value();
  ASSERT_TRUE(seen.reaches(3));
  EXPECT_EQ(seen.all()[2].attempt, 3U);
  ASSERT_TRUE(eventually([&] { return dead_letters(engine, "orders").size() == 1; }));
  EXPECT_EQ(dead_letters(engine, "orders")[0].attempt, 3U);
  EXPECT_EQ(seen.count(), 3U);
}

TEST_P(Retry, Conf38_APermanentErrorIsADeadLetterAtOnce) {
  Engine engine = open();
  Recorder seen;
  ConsumerOptions options = member();
  options.classify.permanent_types = {"Permanent"};
  options.classify.permanent_patterns = {"Invalid"};
  options.dead_letters.error_types = {"Unwanted"};
  options.classify.predicate = [](const ErrorInfo& error) -> std::optional<FailureClass> {
    if (error.message == "undecodable") return FailureClass::kDecode;
    return std::nullopt;
  };
  Consumer consumer = engine
                          .consume("orders", options,
                                   [&](Delivery& delivery) {
                                     seen.add(delivery);
                                     const std::string payload(delivery.payload());
                                     throw HandlerError(payload, payload == "Garbled" ? "undecodable" : "no");
                                   })
                          .value();
  const std::map<std::string, std::pair<DeadLetterReason, std::uint32_t>> wanted = {
      {"Permanent", {DeadLetterReason::kPermanent, 1}},
      {"SomeInvalidInput", {DeadLetterReason::kPermanent, 1}},
      {"Unwanted", {DeadLetterReason::kPermanent, 1}},
      {"Garbled", {DeadLetterReason::kDecode, 1}},
      {"PermanentlyOdd", {DeadLetterReason::kExhausted, 3}},
      {"TimeoutTransient", {DeadLetterReason::kExhausted, 3}},
  };
  for (const auto& [type, end] : wanted) {
    ASSERT_TRUE(engine.publish({.topic = "orders", .payload = type}).acked());
  }
  ASSERT_TRUE(eventually([&] { return dead_letters(engine, "orders").size() == wanted.size(); }));
  for (const DeadLetter& entry : dead_letters(engine, "orders")) {
    EXPECT_EQ(entry.reason, wanted.at(entry.payload).first) << entry.payload;
    EXPECT_EQ(entry.error_type, entry.payload);
    EXPECT_EQ(entry.attempt, wanted.at(entry.payload).second) << entry.payload;
    EXPECT_EQ(seen.times()[entry.payload], static_cast<int>(wanted.at(entry.payload).second))
        << entry.payload;
  }
}

TEST_P(Retry, Conf38_AThrottledHandlerWaitsAsToldAndCountsNothing) {
  Engine engine = open();
  Recorder seen;
  Consumer consumer = engine
                          .consume("orders", member(),
                                   [&](Delivery& delivery) {
                                     seen.add(delivery);
                                     if (seen.count() <= 5)
                                       throw HandlerError("TooManyRequests", "slow down").retry_after(30ms);
                                   })
                          .value();
  ASSERT_TRUE(engine.publish({.topic = "orders", .payload = "p"}).acked());
  ASSERT_TRUE(seen.reaches(6));
  ASSERT_OK(consumer.drain(5s));
  for (const Handled& handled : seen.all())
    EXPECT_EQ(handled.attempt, 1U);
  for (const Duration wait : waits_of(seen))
    EXPECT_GE(wait, 30ms);
  EXPECT_TRUE(dead_letters(engine).empty());
}

TEST_P(Retry, Conf38_DeferringCountsNothing) {
  Engine engine = open();
  Recorder seen;
  Consumer consumer =
      engine
          .consume_outcomes({"orders"}, member(),
                            [&](Delivery& delivery) {
                              seen.add(delivery);
                              return seen.count() <= 5 ? Outcome::defer(30ms) : Outcome::ack();
                            })
          .value();
  ASSERT_TRUE(engine.publish({.topic = "orders", .payload = "p"}).acked());
  ASSERT_TRUE(seen.reaches(6));
  ASSERT_OK(consumer.drain(5s));
  for (const Handled& handled : seen.all())
    EXPECT_EQ(handled.attempt, 1U);
  for (const Duration wait : waits_of(seen))
    EXPECT_GE(wait, 30ms);
  EXPECT_EQ(consumer.statistics().deferred, 5U);
  EXPECT_EQ(consumer.statistics().failed, 0U);
  EXPECT_TRUE(dead_letters(engine).empty());
}

TEST_P(Retry, Conf70_WhateverIsThrownIsAFailedAttemptAndTheEngineLives) {
  Engine engine = open();
  Recorder seen;
  ConsumerOptions options = member();
  options.retry.max_attempts = 2;
  Consumer consumer = engine
                          .consume("odd", options,
                                   [&](Delivery& delivery) {
                                     seen.add(delivery);
                                     const std::string_view kind = delivery.payload();
                                     if (kind == "int") throw 42;
                                     if (kind == "text") throw "a text";
                                     if (kind == "string") throw std::string("a string");
                                     if (kind == "null") throw nullptr;
                                     if (kind == "struct") throw OddError{};
                                     if (kind == "bytes")
                                       throw std::runtime_error(std::string("\x1b[2J\r\n\xff\xfe") +
                                                                std::string(100000, 'x'));
                                     if (kind == "empty") throw std::runtime_error("");
                                     if (kind == "own")
                                       throw Exception(Error{ErrorCode::kUnavailable, "elsewhere"});
                                     if (kind == "bad_alloc") throw std::bad_alloc();
                                   })
                          .value();
  const std::vector<std::string> kinds = {"int",   "text",  "string", "null",      "struct",
                                          "bytes", "empty", "own",    "bad_alloc", "fine"};
  for (const std::string& kind : kinds) {
    ASSERT_TRUE(engine.publish({.topic = "odd", .payload = kind}).acked());
  }
  ASSERT_TRUE(eventually([&] { return dead_letters(engine, "odd").size() == kinds.size() - 1; }));
  const auto times = seen.times();
  for (const std::string& kind : kinds)
    EXPECT_EQ(times.at(kind), kind == "fine" ? 1 : 2) << kind;
  for (const DeadLetter& entry : dead_letters(engine, "odd")) {
    EXPECT_EQ(entry.reason, DeadLetterReason::kExhausted) << entry.payload;
    EXPECT_FALSE(entry.error_type.empty()) << entry.payload;
    EXPECT_LT(entry.error_message.size(), 70000U) << "user text is capped";
    if (entry.payload == "own") {
      EXPECT_NE(entry.error_message.find("elsewhere"), std::string::npos);
    }
  }
  EXPECT_TRUE(engine.health().ok);
  EXPECT_EQ(consumer.statistics().acked, 1U);
}

TEST_P(Retry, Conf70_AHandlerThatSettledAndThenThrowsKeepsItsSettlement) {
  Engine engine = open();
  Recorder seen;
  Consumer consumer = engine
                          .consume("odd", manual_member(),
                                   [&](Delivery& delivery) {
                                     seen.add(delivery);
                                     EXPECT_OK(delivery.ack());
                                     throw std::runtime_error("after the fact");
                                   })
                          .value();
  ASSERT_TRUE(engine.publish({.topic = "odd", .payload = "p"}).acked());
  ASSERT_TRUE(eventually([&] { return consumer.statistics().acked == 1; }));
  EXPECT_TRUE(holds_for([&] { return seen.count() == 1; }, 100ms));
  EXPECT_TRUE(dead_letters(engine).empty());
}

}  // namespace
}  // namespace towline::conformance
