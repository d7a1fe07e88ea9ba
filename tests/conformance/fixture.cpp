// The fixture: opening, tracking and the checks after every test.

#include "conformance/fixture.hpp"

#include <algorithm>
#include <atomic>

#include <unistd.h>

#include "conformance/scenarios.hpp"
#include "support/resources.hpp"

namespace towline::conformance {
namespace {

std::string unique_name() {
  static std::atomic<int> number{0};
  return "conformance-" + std::to_string(::getpid()) + "-" + std::to_string(++number);
}

}  // namespace

// ---- Recorder
// --------------------------------------------------------------------------------------------------------

void Recorder::add(const Delivery& delivery) {
  const auto clock = system_clock();
  Handled handled{delivery.id(),
                  std::string(delivery.topic()),
                  std::string(delivery.group()),
                  std::string(delivery.payload()),
                  delivery.key(),
                  delivery.partition(),
                  delivery.attempt(),
                  delivery.crashes(),
                  delivery.redrives(),
                  delivery.redelivered(),
                  clock->now(),
                  clock->monotonic()};
  const std::lock_guard guard(mutex_);
  handled_.push_back(std::move(handled));
}

Handler Recorder::handler() {
  return [this](Delivery& delivery) { add(delivery); };
}

std::size_t Recorder::count() const {
  const std::lock_guard guard(mutex_);
  return handled_.size();
}

std::vector<Handled> Recorder::all() const {
  const std::lock_guard guard(mutex_);
  return handled_;
}

std::vector<std::string> Recorder::payloads() const {
  std::vector<std::string> result;
  for (const Handled& handled : all())
    result.push_back(handled.payload);
  return result;
}

std::map<std::string, int> Recorder::times() const {
  std::map<std::string, int> result;
  for (const Handled& handled : all())
    ++result[handled.payload];
  return result;
}

bool Recorder::reaches(std::size_t wanted, Duration within) const {
  return eventually([&] { return count() >= wanted; }, within);
}

void Recorder::clear() {
  const std::lock_guard guard(mutex_);
  handled_.clear();
}

// ---- ConformanceTest
// -------------------------------------------------------------------------------------------------

std::string provider_name(const ::testing::TestParamInfo<ProviderRow>& info) { return info.param.name; }

void ConformanceTest::SetUp() {
  threads_before_ = support::thread_count();
  fds_before_ = support::fd_count();
  url_ = row().make_url(folder_.path(), unique_name());
}

EngineOptions ConformanceTest::quick_options() {
  EngineOptions options;
  options.lease = 1min;
  options.sweep_interval = 50ms;
  options.drain_timeout = 5s * support::slack();
  options.log = [log = log_](const LogRecord& record) {
    const std::lock_guard guard(log->mutex);
    log->lines.push_back({record.level, std::string(record.station), std::string(record.text)});
  };
  return options;
}

EngineOptions ConformanceTest::short_lease() {
  EngineOptions options = quick_options();
  options.lease = kLease;
  return options;
}

Engine ConformanceTest::open() { return open(quick_options()); }

Engine ConformanceTest::open(EngineOptions options) {
  if (!row().durable && !keeper_) {
    EngineOptions keeping = quick_options();
    keeping.clock = keeper_clock_;
    keeper_ = Engine::open(url_, keeping).value();
  }
  Engine engine = Engine::open(url_, std::move(options)).value();
  engines_.push_back(engine);
  return engine;
}

void ConformanceTest::close(Engine& engine) {
  EXPECT_OK(engine.close());
  engine = Engine();
}

ConsumerOptions ConformanceTest::member(std::string group) {
  ConsumerOptions options;
  options.group = std::move(group);
  options.retry = quick_retry();
  options.breaker.enabled = false;
  return options;
}

ConsumerOptions ConformanceTest::manual_member(std::string group) {
  ConsumerOptions options = member(std::move(group));
  options.ack = AckPolicy::kManual;
  return options;
}

RetryOptions ConformanceTest::quick_retry(std::int64_t max_attempts) {
  RetryOptions retry;
  retry.kind = BackoffKind::kFixed;
  retry.initial_delay = 20ms;
  retry.jitter = JitterKind::kNone;
  retry.max_attempts = max_attempts;
  return retry;
}

void ConformanceTest::publish_numbers(Engine& engine, const std::string& topic, int count, int first) {
  std::vector<Message> batch;
  batch.reserve(static_cast<std::size_t>(count));
  for (int i = first; i < first + count; ++i)
    batch.push_back({.topic = topic, .payload = std::to_string(i)});
  const auto receipts = engine.publish_batch(std::move(batch));
  ASSERT_OK(receipts);
  ASSERT_EQ(receipts->size(), static_cast<std::size_t>(count));
  for (const Receipt& receipt : *receipts)
    ASSERT_TRUE(receipt.acked()) << receipt.error.to_string();
}

void ConformanceTest::make_group(Engine& engine, const std::string& topic, const std::string& group) {
  Consumer consumer = engine.consume(topic, member(group), [](Delivery&) {}).value();
  ASSERT_OK(consumer.close());
}

std::uint64_t ConformanceTest::in_flight(Engine& engine) {
  std::uint64_t total = 0;
  for (const GroupBacklog& backlog : engine.backlog().value())
    total += backlog.in_flight;
  return total;
}

bool ConformanceTest::is_done(Engine& engine, std::string_view topic) {
  for (const GroupBacklog& backlog : engine.backlog().value()) {
    if (backlog.topic == topic && backlog.waiting + backlog.in_flight > 0) return false;
  }
  return true;
}

std::uint64_t ConformanceTest::waiting(Engine& engine, std::string_view topic, std::string_view group) {
  for (const GroupBacklog& backlog : engine.backlog().value()) {
    if (backlog.topic == topic && backlog.group == group) return backlog.waiting;
  }
  return 0;
}

std::vector<DeadLetter> ConformanceTest::dead_letters(Engine& engine, const std::string& topic) {
  std::vector<DeadLetter> result;
  DeadLetterQuery query;
  query.topic = topic;
  query.count_max = 1000;
  do {
    Page<DeadLetter> page = engine.dead_letters(query).value();
    std::move(page.items.begin(), page.items.end(), std::back_inserter(result));
    query.cursor = page.cursor;
  } while (!query.cursor.empty());
  return result;
}

void ConformanceTest::make_dead_letters(Engine& engine, const std::string& topic, int count, int first) {
  const auto pending = [&] { return engine.statistics().value().dead_letters[0]; };
  const std::uint64_t before = pending();
  ConsumerOptions options = member();
  options.concurrency = 8;
  Consumer consumer =
      engine
          .consume_outcomes({topic}, options,
                            [](Delivery&) { return Outcome::dead_letter("made by the test"); })
          .value();
  ASSERT_NO_FATAL_FAILURE(publish_numbers(engine, topic, count, first));
  ASSERT_TRUE(eventually([&] { return pending() == before + static_cast<std::uint64_t>(count); }, 20s));
  ASSERT_OK(consumer.close());
}

std::size_t ConformanceTest::logged(std::string_view part, LogLevel least) const {
  const std::lock_guard guard(log_->mutex);
  return static_cast<std::size_t>(
      std::count_if(log_->lines.begin(), log_->lines.end(), [&](const Log::Line& line) {
        return line.level >= least && line.text.find(part) != std::string::npos;
      }));
}

std::string ConformanceTest::id() const {
  return id_of_test(::testing::UnitTest::GetInstance()->current_test_info()->name());
}

std::string ConformanceTest::skip_for(const char* need) const {
  const auto reason = skip_reason(id(), row().name);
  return reason ? *reason + " (needs " + need + ")" : std::string();
}

void ConformanceTest::check_nothing_in_flight() {
  // Asked of a fresh engine: it sees what the store says, not what those of the test remember.
  auto witness = Engine::open(url_, quick_options());
  ASSERT_TRUE(witness.ok()) << witness.error().to_string();
  EXPECT_TRUE(eventually([&] { return in_flight(*witness) == 0; }))
      << in_flight(*witness) << " left in flight";
  EXPECT_OK(witness->close());
}

void ConformanceTest::check_log() {
  const std::lock_guard guard(log_->mutex);
  for (const Log::Line& line : log_->lines) {
    if (line.level < LogLevel::kError) continue;
    const bool expected =
        std::any_of(expected_log_.begin(), expected_log_.end(),
                    [&](const std::string& part) { return line.text.find(part) != std::string::npos; });
    EXPECT_TRUE(expected) << "unexpected error in the log: " << line.station << ": " << line.text;
  }
}

void ConformanceTest::TearDown() {
  if (check_in_flight_ && !engines_.empty() && !IsSkipped()) check_nothing_in_flight();
  for (Engine& engine : engines_) {
    const auto closed = engine.close();
    if (closed.ok()) {
      EXPECT_LE(*closed, stuck_allowed_) << "stuck handlers";
    } else {
      EXPECT_EQ(closed.error().code, ErrorCode::kClosed) << closed.error().to_string();
    }
  }
  engines_.clear();
  if (keeper_) {
    EXPECT_OK(keeper_->close());
  }
  keeper_.reset();
  check_log();
  EXPECT_TRUE(eventually([&] { return support::thread_count() <= threads_before_; }))
      << support::thread_count() << " threads, " << threads_before_ << " at the start";
  EXPECT_TRUE(eventually([&] { return support::fd_count() <= fds_before_; }))
      << support::fd_count() << " file descriptors, " << fds_before_ << " at the start";
}

}  // namespace towline::conformance
