// How long a message waits: the documented waits of every kind, and that no input gives an impossible one.

#include "policy/backoff.hpp"

#include <chrono>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.hpp"
#include "support/property.hpp"

namespace towline::policy {
namespace {

using namespace std::chrono_literals;

class FixedRng final : public spi::Rng {
 public:
  explicit FixedRng(double uniform) : value_(static_cast<std::uint64_t>(uniform * 0x1.0p53) << 11) {}
  std::uint64_t next() noexcept override { return value_; }

 private:
  std::uint64_t value_;
};

RetryOptions options_of(BackoffKind kind, JitterKind jitter = JitterKind::kNone) {
  RetryOptions options;
  options.kind = kind;
  options.jitter = jitter;
  return options;
}

std::vector<Duration> waits(const RetryOptions& options, std::uint32_t count) {
  base::SeededRng rng(1);
  std::vector<Duration> all;
  for (std::uint32_t failures = 1; failures <= count; ++failures) {
    all.push_back(delay_after(options, failures, Duration::zero(), rng));
  }
  return all;
}

using Waits = std::vector<Duration>;

TEST(Backoff, FixedWaitsTheSameEachTime) {
  EXPECT_EQ(waits(options_of(BackoffKind::kFixed), 4), (Waits{1s, 1s, 1s, 1s}));
}

TEST(Backoff, LinearGrowsByTheInitialDelay) {
  EXPECT_EQ(waits(options_of(BackoffKind::kLinear), 4), (Waits{1s, 2s, 3s, 4s}));
}

TEST(Backoff, ExponentialMultipliesAndStopsAtTheCap) {
  EXPECT_EQ(waits(options_of(BackoffKind::kExponential), 8), (Waits{1s, 2s, 4s, 8s, 16s, 32s, 60s, 60s}));
}

TEST(Backoff, ExponentialGrowsWithFractionalMultipliers) {
  RetryOptions options = options_of(BackoffKind::kExponential);
  options.multiplier = 1.5;
  EXPECT_EQ(waits(options, 4), (Waits{1s, 1500ms, 2250ms, 3375ms}));
}

TEST(Backoff, FibonacciBeginsWithTwoOnes) {
  EXPECT_EQ(waits(options_of(BackoffKind::kFibonacci), 7), (Waits{1s, 1s, 2s, 3s, 5s, 8s, 13s}));
}

TEST(Backoff, SequenceRepeatsItsLastEntry) {
  RetryOptions options = options_of(BackoffKind::kSequence);
  options.sequence = {5s, 1s, 30s};
  EXPECT_EQ(waits(options, 5), (Waits{5s, 1s, 30s, 30s, 30s}));
}

TEST(Backoff, EmptySequenceWaitsTheInitialDelay) {
  EXPECT_EQ(waits(options_of(BackoffKind::kSequence), 2), (Waits{1s, 1s}));
}

TEST(Backoff, FirstFailureWaitsTheInitialDelayInEveryKind) {
  for (const auto kind : {BackoffKind::kFixed, BackoffKind::kLinear, BackoffKind::kExponential,
                          BackoffKind::kFibonacci, BackoffKind::kSequence, BackoffKind::kCustom}) {
    for (const auto jitter : {JitterKind::kNone, JitterKind::kDecorrelated}) {
      EXPECT_EQ(waits(options_of(kind, jitter), 1), (Waits{1s})) << static_cast<int>(kind);
    }
  }
}

TEST(Backoff, CountsNoFailureAsTheFirst) {
  base::SeededRng rng(1);
  EXPECT_EQ(delay_after(options_of(BackoffKind::kLinear), 0, {}, rng), 1s);
}

// ---- jitter ---------------------------------------------------------------------------------------------

Duration jittered(JitterKind jitter, double uniform, std::uint32_t failures = 3, Duration previous = {}) {
  FixedRng rng(uniform);
  return delay_after(options_of(BackoffKind::kExponential, jitter), failures, previous, rng);
}

constexpr double kAlmostOne = 1.0 - 0x1.0p-53;

TEST(Backoff, ProportionalJitterSpreadsToBothSides) {
  EXPECT_EQ(jittered(JitterKind::kProportional, 0.0), 3600ms);
  EXPECT_EQ(jittered(JitterKind::kProportional, 0.5), 4s);
  EXPECT_EQ(jittered(JitterKind::kProportional, kAlmostOne), 4400ms);
}

TEST(Backoff, FullJitterSpreadsFromZero) {
  EXPECT_EQ(jittered(JitterKind::kFull, 0.0), 0s);
  EXPECT_EQ(jittered(JitterKind::kFull, 0.25), 1s);
  EXPECT_EQ(jittered(JitterKind::kFull, kAlmostOne), 4s);
}

TEST(Backoff, EqualJitterKeepsHalf) {
  EXPECT_EQ(jittered(JitterKind::kEqual, 0.0), 2s);
  EXPECT_EQ(jittered(JitterKind::kEqual, 0.5), 3s);
  EXPECT_EQ(jittered(JitterKind::kEqual, kAlmostOne), 4s);
}

TEST(Backoff, DecorrelatedJitterGrowsFromThePreviousWait) {
  EXPECT_EQ(jittered(JitterKind::kDecorrelated, 0.0, 3, 7s), 1s);
  EXPECT_EQ(jittered(JitterKind::kDecorrelated, 0.5, 3, 7s), 11s);
  EXPECT_EQ(jittered(JitterKind::kDecorrelated, kAlmostOne, 3, 7s), 21s);
  EXPECT_EQ(jittered(JitterKind::kDecorrelated, kAlmostOne, 9, 50s), 60s);
}

TEST(Backoff, DecorrelatedJitterTakesThePlainWaitWhenThePreviousOneIsUnknown) {
  // Before the third failure the plain wait was 2 s.
  EXPECT_EQ(jittered(JitterKind::kDecorrelated, kAlmostOne, 3), 6s);
}

TEST(Backoff, JitterNeverPassesTheCap) {
  EXPECT_EQ(jittered(JitterKind::kProportional, kAlmostOne, 20), 60s);
  EXPECT_EQ(jittered(JitterKind::kProportional, 0.0, 20), 54s);  // spread around the cap, not around 2^19 s
}

TEST(Backoff, JitterIsSpreadEvenly) {
  base::SeededRng rng(1);
  const RetryOptions options = options_of(BackoffKind::kFixed, JitterKind::kFull);
  std::vector<int> tenths(10);
  for (int i = 0; i < 100000; ++i) {
    const Duration wait = delay_after(options, 1, {}, rng);
    ++tenths[static_cast<std::size_t>(std::min<std::int64_t>(wait.count() / 100'000, 9))];
  }
  for (const int count : tenths)
    EXPECT_NEAR(count, 10000, 600);
}

TEST(Backoff, SameSeedGivesTheSameWaits) {
  const RetryOptions options = options_of(BackoffKind::kExponential, JitterKind::kProportional);
  EXPECT_EQ(waits(options, 20), waits(options, 20));
}

// ---- custom ---------------------------------------------------------------------------------------------

TEST(Backoff, CustomFunctionSeesFailuresAndErrorAndMayStop) {
  RetryOptions options = options_of(BackoffKind::kCustom);
  options.custom = [](std::uint32_t failures, const ErrorInfo& error) -> std::optional<Duration> {
    if (error.type == "Fatal") return std::nullopt;
    return failures * 10s;
  };
  base::SeededRng rng(1);
  EXPECT_EQ(retry_delay(options, 2, {}, {"Busy", "", ""}, rng), Duration(20s));
  EXPECT_EQ(retry_delay(options, 9, {}, {"Busy", "", ""}, rng), Duration(60s));
  EXPECT_EQ(retry_delay(options, 1, {}, {"Fatal", "", ""}, rng), std::nullopt);
}

TEST(Backoff, CustomFunctionThatThrowsOrIsMissingDelaysAsExponential) {
  RetryOptions options = options_of(BackoffKind::kCustom);
  base::SeededRng rng(1);
  EXPECT_EQ(retry_delay(options, 3, {}, {}, rng), Duration(4s));
  options.custom = [](std::uint32_t, const ErrorInfo&) -> std::optional<Duration> {
    throw std::runtime_error("bug");
  };
  EXPECT_EQ(retry_delay(options, 3, {}, {}, rng), Duration(4s));
}

TEST(Backoff, CustomFunctionCannotGiveANegativeWait) {
  RetryOptions options = options_of(BackoffKind::kCustom);
  options.custom = [](std::uint32_t, const ErrorInfo&) -> std::optional<Duration> { return -5s; };
  base::SeededRng rng(1);
  EXPECT_EQ(retry_delay(options, 1, {}, {}, rng), Duration(0));
}

// ---- all inputs -----------------------------------------------------------------------------------------

// Options as nobody would check them: any value in any field.
RetryOptions any_options() {
  const auto count =
      rc::gen::oneOf(rc::gen::arbitrary<std::int64_t>(), rc::gen::inRange<std::int64_t>(0, 100'000'000),
                     rc::gen::element<std::int64_t>(0, 1, -1, INT64_MAX, INT64_MIN));
  const auto real = rc::gen::oneOf(rc::gen::arbitrary<double>(),
                                   rc::gen::element(0.0, 1.0, 1.5, 2.0, 1e308, -1.0, std::nan(""),
                                                    std::numeric_limits<double>::infinity()));
  RetryOptions options;
  options.kind = static_cast<BackoffKind>(*rc::gen::inRange(0, 6));
  options.jitter = static_cast<JitterKind>(*rc::gen::inRange(0, 5));
  options.initial_delay = Duration(*count);
  options.delay_max = Duration(*count);
  options.multiplier = *real;
  options.jitter_ratio = *real;
  for (const std::int64_t entry : *rc::gen::container<std::vector<std::int64_t>>(count)) {
    options.sequence.push_back(Duration(entry));
  }
  return options;
}

TEST(Backoff, NoInputGivesANegativeWaitOrOneAboveTheCap) {
  support::for_all(
      [](std::uint64_t seed, std::uint32_t failures, std::int64_t previous) {
        const RetryOptions options = any_options();
        base::SeededRng rng(seed);
        const Duration wait = delay_after(options, failures, Duration(previous), rng);
        RC_ASSERT(wait >= Duration::zero());
        RC_ASSERT(wait <= std::max(options.delay_max, Duration::zero()));
      },
      5000);
}

TEST(Backoff, WaitsNeverShrinkAsFailuresGrow) {
  support::for_all(
      [](std::uint32_t failures) {
        RetryOptions options = any_options();
        RC_PRE(options.kind != BackoffKind::kSequence);
        failures = std::min(failures, UINT32_MAX - 1);
        RC_ASSERT(delay_without_jitter(options, failures) <= delay_without_jitter(options, failures + 1));
      },
      5000);
}

TEST(Backoff, LargestInputsSaturateAtTheCap) {
  for (const auto kind : {BackoffKind::kLinear, BackoffKind::kExponential, BackoffKind::kFibonacci}) {
    RetryOptions options = options_of(kind);
    options.initial_delay = Duration::max();
    options.delay_max = Duration::max();
    options.multiplier = 1000;
    EXPECT_EQ(delay_without_jitter(options, UINT32_MAX), Duration::max()) << static_cast<int>(kind);
  }
}

TEST(Backoff, ZeroInitialDelayNeverBecomesNotANumber) {
  RetryOptions options = options_of(BackoffKind::kExponential);
  options.initial_delay = 0s;
  options.multiplier = 1000;
  EXPECT_EQ(delay_without_jitter(options, 1'000'000), 0s);
}

// ---- contradictions -------------------------------------------------------------------------------------

TEST(CheckRetry, AcceptsTheDefaults) { EXPECT_TRUE(check_retry({}).ok()); }

void expect_contradiction(const RetryOptions& options, const std::string& part) {
  const auto result = check_retry(options);
  ASSERT_FALSE(result.ok()) << part;
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidConfig);
  EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
}

TEST(CheckRetry, RefusesOptionsThatContradictEachOther) {
  RetryOptions low_cap;
  low_cap.delay_max = 500ms;
  expect_contradiction(
      low_cap, "retry.delay_ms_max is 500 ms, but must be at least retry.initial_delay_ms, which is 1000 ms");
  expect_contradiction(options_of(BackoffKind::kSequence), "retry.sequence_ms is empty");
  expect_contradiction(options_of(BackoffKind::kCustom), "retry.custom is not set");
}

TEST(CheckRetry, ZeroIsNothingToGrowFrom) {
  for (const BackoffKind kind : {BackoffKind::kLinear, BackoffKind::kExponential, BackoffKind::kFibonacci}) {
    RetryOptions options = options_of(kind);
    options.initial_delay = 0s;
    expect_contradiction(options, "retry.initial_delay_ms is 0, but must be more than 0");
    options.initial_delay = 1us;
    EXPECT_TRUE(check_retry(options).ok());
  }
  RetryOptions fixed = options_of(BackoffKind::kFixed);
  fixed.initial_delay = 0s;
  EXPECT_TRUE(check_retry(fixed).ok()) << "each retry at once is a choice";
}

TEST(CheckRetry, DoesNotMindAnInitialDelayThatIsNotUsed) {
  RetryOptions options = options_of(BackoffKind::kSequence);
  options.sequence = {1ms};
  options.delay_max = 1ms;
  EXPECT_TRUE(check_retry(options).ok());
}

}  // namespace
}  // namespace towline::policy
