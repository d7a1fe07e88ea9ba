#pragma once
// What every conformance test stands on: a fresh store of the provider, engines that are tracked until the
// end, the log, and the checks of the teardown, which hold after every test: nothing is in flight, every
// thread and file descriptor is given back, and nothing was logged as an error that the test did not expect.

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include <towline/towline.hpp>

#include "conformance/providers.hpp"
#include "support/eventually.hpp"
#include "support/temp_dir.hpp"

namespace towline::conformance {

using namespace std::chrono_literals;
using support::eventually;
using support::holds_for;
using support::scaled;

/// The lease of tests in which one ends: short, so that a test can wait for it, and long enough to be renewed
/// on a loaded machine.
inline constexpr Duration kLease = 450ms * support::slack();

/// What a handler saw of one delivery.
struct Handled {
  MessageId id;
  std::string topic, group, payload;
  std::optional<std::string> key;
  std::uint32_t partition = 0, attempt = 0, crashes = 0, redrives = 0;
  bool redelivered = false;
  TimePoint at{};           ///< machine's wall clock at the handler's start
  MonotonicTime started{};  ///< machine's monotonic clock
};

/// Collects what handlers saw. Thread-safe. Must outlive the consumers that use it.
class Recorder {
 public:
  void add(const Delivery& delivery);
  /// A handler that records and acknowledges.
  [[nodiscard]] Handler handler();
  [[nodiscard]] std::size_t count() const;
  [[nodiscard]] std::vector<Handled> all() const;
  [[nodiscard]] std::vector<std::string> payloads() const;
  /// Payload to how often it was handled.
  [[nodiscard]] std::map<std::string, int> times() const;
  /// Whether at least `count` deliveries came in time.
  [[nodiscard]] bool reaches(std::size_t count, Duration within = 10s) const;
  void clear();

 private:
  mutable std::mutex mutex_;
  std::vector<Handled> handled_;
};

class ConformanceTest : public ::testing::TestWithParam<ProviderRow> {
 protected:
  void SetUp() override;
  void TearDown() override;

  [[nodiscard]] const ProviderRow& row() const { return GetParam(); }
  /// This test's store.
  [[nodiscard]] const std::string& url() const { return url_; }
  [[nodiscard]] const support::TempDir& folder() const { return folder_; }

  /// Quick sweeps and the log of the test. The lease outlives the test, so that whatever is handled twice is
  /// a fault.
  [[nodiscard]] EngineOptions quick_options();
  /// The same with a lease of kLease.
  [[nodiscard]] EngineOptions short_lease();
  /// Opens an engine on this test's store; fails the test when that fails.
  [[nodiscard]] Engine open();
  [[nodiscard]] Engine open(EngineOptions options);
  /// Closes one and forgets it; what the store keeps is kept also where it lives in memory only.
  void close(Engine& engine);

  /// Before open(): the clock of the engine that keeps a store alive which lives in memory only.
  void set_keeper_clock(std::shared_ptr<spi::Clock> clock) { keeper_clock_ = std::move(clock); }

  /// A group member: retries after 20 ms, three attempts, no breaker, no jitter.
  [[nodiscard]] static ConsumerOptions member(std::string group = "group");
  [[nodiscard]] static ConsumerOptions manual_member(std::string group = "group");
  [[nodiscard]] static RetryOptions quick_retry(std::int64_t max_attempts = 3);

  /// Publishes `count` messages "0", "1", ... and checks that each was stored.
  static void publish_numbers(Engine& engine, const std::string& topic, int count, int first = 0);
  /// Makes the group known to the topic, with no member left behind.
  void make_group(Engine& engine, const std::string& topic, const std::string& group = "group");
  static std::uint64_t in_flight(Engine& engine);
  /// Whether every group is through with the topic. One look: between two a lease may end, and what was in
  /// flight waits again.
  static bool is_done(Engine& engine, std::string_view topic);
  static std::uint64_t waiting(Engine& engine, std::string_view topic, std::string_view group = "group");
  /// Dead letters of a topic, all pages.
  static std::vector<DeadLetter> dead_letters(Engine& engine, const std::string& topic = {});
  /// Fills a topic's dead letters with `count` entries of payload "0", "1", ...
  void make_dead_letters(Engine& engine, const std::string& topic, int count, int first = 0);

  /// Error log lines that contain `part` are expected.
  void expect_log(std::string part) { expected_log_.insert(std::move(part)); }
  /// Lines of one level and up that contain `part`.
  [[nodiscard]] std::size_t logged(std::string_view part, LogLevel least = LogLevel::kDebug) const;
  /// An engine of the test was closed while a handler was stuck, and says so again when it is asked.
  void allow_stuck() { stuck_allowed_ = 1; }
  /// Leaves out the in-flight check of the teardown, for tests that end with a lost holder.
  void leave_in_flight() { check_in_flight_ = false; }

  /// Used by TOWLINE_NEEDS: the reason to skip, from the capability table. Fails the test when the table has
  /// no row.
  [[nodiscard]] std::string skip_for(const char* need) const;
  [[nodiscard]] std::string id() const;

 private:
  struct Log {
    struct Line {
      LogLevel level;
      std::string station, text;
    };
    mutable std::mutex mutex;
    std::vector<Line> lines;
  };
  void check_nothing_in_flight();
  void check_log();

  support::TempDir folder_;
  std::string url_;
  std::shared_ptr<Log> log_ = std::make_shared<Log>();
  std::set<std::string> expected_log_;
  /// Where nothing is durable: keeps the store alive while a test closes and opens its engines.
  std::optional<Engine> keeper_;
  std::shared_ptr<spi::Clock> keeper_clock_;
  std::vector<Engine> engines_;
  bool check_in_flight_ = true;
  std::uint64_t stuck_allowed_ = 0;
  std::size_t threads_before_ = 0;
  std::size_t fds_before_ = 0;
};

std::string provider_name(const ::testing::TestParamInfo<ProviderRow>& info);

/// Whether a Result is a value.
template <typename T>
::testing::AssertionResult is_ok(const Result<T>& result) {
  if (result.ok()) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << result.error().to_string();
}

/// Whether a Result is this error.
template <typename T>
::testing::AssertionResult is_error(const Result<T>& result, ErrorCode code) {
  if (result.ok()) return ::testing::AssertionFailure() << "succeeded, wants " << wire_code(code);
  if (result.error().code == code) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << result.error().to_string() << ", wants " << wire_code(code);
}

/// Skips the test where the provider's row says no; the reason must be in capabilities.txt.
#define TOWLINE_NEEDS(fact)                                                          \
  do {                                                                               \
    if (!(fact)) {                                                                   \
      const std::string reason = skip_for(#fact);                                    \
      if (reason.empty()) FAIL() << "no row for " << id() << " in capabilities.txt"; \
      GTEST_SKIP() << reason;                                                        \
    }                                                                                \
  } while (false)

/// A test suite over all providers.
#define TOWLINE_SUITE(suite)               \
  class suite : public ConformanceTest {}; \
  INSTANTIATE_TEST_SUITE_P(Provider, suite, ::testing::ValuesIn(providers()), provider_name)

#define ASSERT_OK(expression) ASSERT_TRUE(::towline::conformance::is_ok(expression))
#define EXPECT_OK(expression) EXPECT_TRUE(::towline::conformance::is_ok(expression))
#define EXPECT_ERROR(expression, code) EXPECT_TRUE(::towline::conformance::is_error(expression, code))

}  // namespace towline::conformance
