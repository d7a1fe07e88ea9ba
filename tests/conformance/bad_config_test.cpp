// Bad options, URLs, files and subscriptions.

#include <atomic>
#include <cmath>
#include <limits>
#include <thread>

#include "conformance/bad_input.hpp"
#include "support/child_process.hpp"
#include "support/ledger.hpp"

namespace towline::conformance {
namespace {

class BadConfig : public BadInput {
 protected:
  /// Neither consuming nor publishing with these retry options is accepted.
  void expect_bad_retry(const RetryOptions& retry, const std::vector<std::string>& words) {
    ConsumerOptions options = member();
    options.retry = retry;
    expect_refused("orders", options, ErrorCode::kInvalidConfig, words);
    const Receipt receipt = engine().publish_with_retry({.topic = "orders", .payload = "p"}, retry);
    EXPECT_EQ(receipt.outcome, PublishOutcome::kRejected);
    EXPECT_EQ(receipt.error.wire_code(), wire_code(ErrorCode::kInvalidConfig)) << receipt.error.to_string();
  }
};
INSTANTIATE_TEST_SUITE_P(Provider, BadConfig, ::testing::ValuesIn(providers()), provider_name);

constexpr std::int64_t kTooMany = std::int64_t{1} << 31;

TEST_P(BadConfig, Bad16_LeasesThatCannotWork) {
  for (const Duration lease :
       {Duration(0), Duration(1ms), Duration(-1s), Duration(24h * 3650), Duration::max()}) {
    EngineOptions options = quick_options();
    options.lease = lease;
    expect_unopened(options, {"lease_ms", "100", "3600000"});
    IdempotencyOptions idempotency;
    idempotency.lease = lease;
    EXPECT_ERROR(engine().begin("key", idempotency), ErrorCode::kInvalidConfig);
    EXPECT_ERROR(engine().once(
                     "key", [] { return Bytes(); }, idempotency),
                 ErrorCode::kInvalidConfig);
  }
  for (const Duration timeout : {Duration(0), Duration(-1s), Duration(25h)}) {
    ConsumerOptions options = member();
    options.handler_timeout = timeout;
    expect_refused("orders", options, ErrorCode::kInvalidConfig, {"handler_timeout_ms", "86400000"});
  }
  IdempotencyOptions idempotency;
  idempotency.ttl = 0s;
  EXPECT_ERROR(engine().begin("key", idempotency), ErrorCode::kInvalidConfig);
}

TEST_P(BadConfig, Bad17_RetryPoliciesThatCannotWork) {
  for (const std::int64_t attempts : {std::int64_t{0}, std::int64_t{-1}, kTooMany}) {
    RetryOptions retry;
    retry.max_attempts = attempts;
    expect_bad_retry(retry, {"max_attempts", std::to_string(attempts), "1000000"});
  }
  for (const double multiplier :
       {0.5, 0.0, -2.0, 1e9, std::nan(""), std::numeric_limits<double>::infinity()}) {
    RetryOptions retry;
    retry.multiplier = multiplier;
    expect_bad_retry(retry, {"multiplier", "1000"});
  }
  for (const double ratio : {-0.1, 1.5, std::nan("")}) {
    RetryOptions retry;
    retry.jitter_ratio = ratio;
    expect_bad_retry(retry, {"jitter_ratio"});
    retry = {};
    retry.budget_ratio = ratio;
    expect_bad_retry(retry, {"budget_ratio"});
  }
  RetryOptions retry;
  retry.initial_delay = -1s;
  expect_bad_retry(retry, {"initial_delay_ms"});
  retry.initial_delay = 0s;
  expect_bad_retry(retry, {"initial_delay_ms", "more than 0", "fixed"});
  retry = {};
  retry.initial_delay = 25h;
  expect_bad_retry(retry, {"initial_delay_ms"});
  retry = {};
  retry.delay_max = 10ms;
  expect_bad_retry(retry, {"delay_ms_max", "initial_delay_ms"});
  retry = {};
  retry.kind = BackoffKind::kSequence;
  expect_bad_retry(retry, {"sequence"});
  retry.sequence = {1s, -1s};
  expect_bad_retry(retry, {"sequence"});
  retry = {};
  retry.kind = BackoffKind::kCustom;
  expect_bad_retry(retry, {"custom"});
}

TEST_P(BadConfig, Bad18_LimitsThatCannotWork) {
  struct Case {
    std::int64_t ConsumerOptions::*field;
    const char* name;
    std::vector<std::int64_t> values;
  };
  const std::vector<Case> cases = {
      {&ConsumerOptions::concurrency, "concurrency", {0, -1, 4097, kTooMany}},
      {&ConsumerOptions::prefetch_count, "prefetch_count", {-1, 100001, kTooMany}},
      {&ConsumerOptions::prefetch_bytes_max, "prefetch_bytes_max", {0, -1}},
      {&ConsumerOptions::batch_count_max, "batch_count_max", {0, 10001}},
      {&ConsumerOptions::rate_per_second, "rate_per_second", {-1, 10000001}},
      {&ConsumerOptions::parked_count_max, "parked_count_max", {0, -5}},
  };
  for (const Case& one : cases) {
    for (const std::int64_t value : one.values) {
      ConsumerOptions options = member();
      options.*one.field = value;
      expect_refused("orders", options, ErrorCode::kInvalidConfig, {one.name, std::to_string(value)});
    }
  }
  ConsumerOptions options = member();
  options.partitions = {1024};
  expect_refused("orders", options, ErrorCode::kInvalidConfig, {"partitions"});
  options = member();
  options.dead_letters.max_crashes = 0;
  expect_refused("orders", options, ErrorCode::kInvalidConfig, {"max_crashes"});
  options = member();
  options.breaker.enabled = true;
  options.breaker.failure_ratio = 0;
  expect_refused("orders", options, ErrorCode::kInvalidConfig, {"failure_ratio"});
  options = member();
  options.filter = "header.x = ";
  expect_refused("orders", options, ErrorCode::kInvalidFilter, {"filter"});
  options.filter = std::string(5000, '(');
  expect_refused("orders", options, ErrorCode::kInvalidFilter, {"filter"});
  for (const std::int64_t count : {std::int64_t{0}, std::int64_t{1025}, std::int64_t{-1}}) {
    EXPECT_ERROR(engine().declare_topic("sized", {.partition_count = count}), ErrorCode::kInvalidConfig);
  }
  EXPECT_ERROR(Permits::create(0), ErrorCode::kInvalidConfig);
  EXPECT_ERROR(Permits::create(std::uint64_t{1} << 31), ErrorCode::kInvalidConfig);
  Permits permits = Permits::create(3).value();
  EXPECT_ERROR(permits.set_limit(0), ErrorCode::kInvalidConfig);
  EXPECT_ERROR(permits.acquire(1s, {}, 0), ErrorCode::kInvalidArgument);
  EXPECT_ERROR(permits.acquire(1s, {}, 4), ErrorCode::kInvalidArgument);
}

TEST_P(BadConfig, Bad18_EveryEngineOptionIsHeldToItsBounds) {
  struct Case {
    std::int64_t EngineOptions::*field;
    const char* name;
    std::vector<std::int64_t> values;
  };
  const std::vector<Case> cases = {
      {&EngineOptions::partition_count, "partition_count", {0, 1025, -1}},
      {&EngineOptions::payload_bytes_max, "payload_bytes_max", {0, 67108865}},
      {&EngineOptions::batch_count_max, "batch_count_max", {0, 100001}},
      {&EngineOptions::publish_in_flight_count_max, "publish_in_flight_count_max", {0, kTooMany}},
      {&EngineOptions::in_flight_count_max, "in_flight_count_max", {0, kTooMany}},
      {&EngineOptions::in_flight_bytes_max, "in_flight_bytes_max", {0, 1023}},
      {&EngineOptions::promote_count_max, "promote_count_max", {0, 10001}},
      {&EngineOptions::dead_letter_count_max, "dead_letter_count_max", {0, kTooMany}},
      {&EngineOptions::seed, "seed", {-1}},
  };
  for (const Case& one : cases) {
    for (const std::int64_t value : one.values) {
      EngineOptions options = quick_options();
      options.*one.field = value;
      expect_unopened(options, {one.name, std::to_string(value)});
    }
  }
  EngineOptions options = quick_options();
  options.name = "a name\n";
  const auto refused = Engine::open(url(), options);
  ASSERT_FALSE(refused.ok());
  EXPECT_TRUE(refused.error().code == ErrorCode::kInvalidName ||
              refused.error().code == ErrorCode::kInvalidConfig)
      << refused.error().to_string();
}

TEST_P(BadConfig, Bad19_OptionsThatNobodyKnowsOrCannotRead) {
  const auto refusal = [&](const std::string& parameters) {
    const auto opened = Engine::open(url() + parameters, quick_options());
    EXPECT_FALSE(opened.ok()) << parameters;
    return opened.ok() ? Error{} : opened.error();
  };
  expect_error(refusal("?lease_sm=5000"), ErrorCode::kInvalidConfig, {"lease_sm", "lease_ms"});
  expect_error(refusal("?something_else_entirely=1"), ErrorCode::kInvalidConfig, {"something_else_entirely"});
  expect_error(refusal("?lease_ms=soon"), ErrorCode::kInvalidConfig, {"lease_ms", "soon"});
  expect_error(refusal("?lease_ms="), ErrorCode::kInvalidConfig, {"lease_ms"});
  expect_error(refusal("?lease_ms=5000&lease_ms=6000"), ErrorCode::kInvalidConfig, {"lease_ms"});
  for (const char* value :
       {"nan", "inf", "-1", "1e300", "9223372036854775808", "0x10", "5s", "5000ms", "%205000", "5,000"}) {
    expect_error(refusal(std::string("?lease_ms=") + value), ErrorCode::kInvalidConfig, {"lease_ms"});
  }
  expect_error(refusal("?durability=forever"), ErrorCode::kInvalidConfig, {"durability", "forever"});
  expect_error(refusal("?lease_ms=1"), ErrorCode::kInvalidConfig, {"lease_ms", "100"});
  EXPECT_OK(Engine::open(url() + "?lease_ms=5000&partition_count=16", quick_options()));
  EngineOptions options;
  const auto set = set_option(options, "sweep_intervall_ms", "1");
  ASSERT_FALSE(set.ok());
  expect_error(set.error(), ErrorCode::kInvalidConfig, {"sweep_interval_ms"});
}

TEST_P(BadConfig, Bad20_OptionsThatContradictEachOther) {
  ConsumerOptions options = member();
  options.inbox_window = 1ms;
  expect_refused("orders", options, ErrorCode::kInvalidConfig, {"inbox_window_ms"});
  options = member();
  options.partitions = {70};
  ASSERT_OK(engine().declare_topic("small", {.partition_count = 8}));
  const auto consumer = engine().consume("small", options, [](Delivery&) {});
  EXPECT_ERROR(consumer, ErrorCode::kInvalidConfig);
  EXPECT_ERROR(engine().declare_topic("small", {.partition_count = 9}), ErrorCode::kTopologyMismatch);
  EXPECT_ERROR(engine().declare_topic("small", {.type = TopicType::kLog, .partition_count = 8}),
               ErrorCode::kTopologyMismatch);
  EXPECT_OK(engine().declare_topic("small", {.partition_count = 8}));
  if (!row().durable) {
    EngineOptions engine_options = quick_options();
    engine_options.durability = Durability::kHost;
    EXPECT_ERROR(Engine::open(url(), engine_options), ErrorCode::kDurabilityUnavailable);
  }
}

TEST_P(BadConfig, Bad21_UrlsThatNobodyCanOpenAndThePasswordInThemIsNeverShown) {
  const std::vector<std::string> urls = {"",
                                         "x",
                                         ":",
                                         "://",
                                         "sqlite",
                                         "memory",
                                         "nosuch:thing",
                                         "http://h/",
                                         "redis://h:99999",
                                         "redis://user:hunter2@h:99999",
                                         "postgres://user:hunter2@h:port/db",
                                         "sqlite:",
                                         "sqlite:a%zz",
                                         "sqlite:a.db?x",
                                         "sqlite:a.db?lease_ms",
                                         "nosuch://user:hunter2@host/path",
                                         "//user:hunter2@host",
                                         "user:hunter2@host",
                                         "redis://:hunter2@h/?lease_ms=hunter2x",
                                         std::string("sqlite:a\0b", 10),
                                         "sqlite:a\nb",
                                         "memory:a b",
                                         std::string(100000, 'x'),
                                         "SQLITE://user:hunter2@h",
                                         "sqlite:file:x?mode=memory&vfs=unix"};
  for (const std::string& bad : urls) {
    const auto opened = Engine::open(bad, quick_options());
    ASSERT_FALSE(opened.ok()) << bad.substr(0, 100);
    const ErrorCode code = opened.error().code;
    EXPECT_TRUE(code == ErrorCode::kInvalidUrl || code == ErrorCode::kInvalidConfig ||
                code == ErrorCode::kUnsupported)
        << bad.substr(0, 100) << " -> " << opened.error().to_string();
    EXPECT_EQ(opened.error().message.find("hunter2"), std::string::npos) << opened.error().message;
    EXPECT_LT(opened.error().message.size(), 1000U);
  }
  EXPECT_EQ(logged("hunter2"), 0U);
}

TEST_P(BadConfig, Bad23_TwoProcessesShareOneStoreAsDocumented) {
  TOWLINE_NEEDS(row().shared_between_processes);
  support::Ledger ledger(folder().file("ledger"));
  support::ChildProcess child(support::sibling_program("conformance_child"), {"work", url(), ledger.path()});
  ASSERT_EQ(child.read_line(10s), "ready");
  publish_numbers(engine(), "orders", 20);
  EXPECT_TRUE(eventually([&] { return ledger.count("done") == 20; }))
      << "the other process handles what this one published";
  Recorder seen;
  Consumer consumer = engine().consume("orders", member(), seen.handler()).value();
  publish_numbers(engine(), "orders", 200, 20);
  EXPECT_TRUE(eventually([&] { return ledger.count("done") + seen.count() == 220; }));
  child.kill();
  EXPECT_TRUE(eventually([&] { return in_flight(engine()) == 0; }));
  EXPECT_TRUE(engine().health().ok);
}

TEST_P(BadConfig, Bad27_AHandlerThatIsNotThere) {
  const std::string before = state();
  EXPECT_ERROR(engine().consume("orders", member(), Handler()), ErrorCode::kInvalidArgument);
  EXPECT_ERROR(engine().consume_outcomes({"orders"}, member(), OutcomeHandler()),
               ErrorCode::kInvalidArgument);
  EXPECT_ERROR(engine().consume_batches({"orders"}, member(), BatchHandler()), ErrorCode::kInvalidArgument);
  EXPECT_EQ(state(), before);
}

TEST_P(BadConfig, Bad30_TheSameSubscriptionTwice) {
  ConsumerOptions options = member();
  options.name = "worker-1";
  Consumer first = engine().consume("orders", options, [](Delivery&) {}).value();
  expect_refused("orders", options, ErrorCode::kAlreadySubscribed, {"worker-1"});
  options.name = "worker-2";
  Consumer second = engine().consume("orders", options, [](Delivery&) {}).value();
  options.name = "worker-1";
  options.group = "other";
  Consumer other = engine().consume("orders", options, [](Delivery&) {}).value();
  options = member();
  Consumer unnamed = engine().consume("orders", options, [](Delivery&) {}).value();
  Consumer unnamed_too = engine().consume("orders", options, [](Delivery&) {}).value();
  ASSERT_OK(first.close());
  options.name = "worker-1";
  Consumer again = engine().consume("orders", options, [](Delivery&) {}).value();
}

TEST_P(BadConfig, Bad31_ClosingInsideAHandlerAndFromTwoThreadsAtOnce) {
  Recorder seen;
  Consumer consumer;
  std::mutex mutex;
  std::atomic<bool> start{false};
  {
    const std::lock_guard guard(mutex);
    ConsumerOptions options = member();
    options.concurrency = 2;
    consumer = engine()
                   .consume("orders", options,
                            [&](Delivery& delivery) {
                              seen.add(delivery);
                              Consumer mine;
                              {
                                const std::lock_guard inner(mutex);
                                mine = consumer;
                              }
                              start = true;
                              EXPECT_OK(mine.close());
                            })
                   .value();
  }
  publish_numbers(engine(), "orders", 10);
  ASSERT_TRUE(eventually([&] { return start.load(); }));
  std::vector<std::thread> closers;
  for (int i = 0; i < 2; ++i)
    closers.emplace_back([&] { EXPECT_OK(consumer.close()); });
  for (std::thread& closer : closers)
    closer.join();
  EXPECT_EQ(consumer.statistics().running, 0U);
  EXPECT_EQ(waiting(engine(), "orders") + seen.count(), 10U)
      << "what was handled is settled, the rest given back";
  Consumer rest = engine().consume("orders", member(), seen.handler()).value();
  ASSERT_TRUE(seen.reaches(10));
  EXPECT_EQ(seen.times().size(), 10U);
}

}  // namespace
}  // namespace towline::conformance
