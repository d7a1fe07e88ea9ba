// The histogram against exact answers: of sorted values, and of the borders of every power of two.

#include "base/histogram.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace towline::base {
namespace {

TEST(Histogram, AnswersZeroWhenNothingWasAdded) {
  const Histogram histogram;
  EXPECT_EQ(histogram.count(), 0U);
  EXPECT_EQ(histogram.min(), 0U);
  EXPECT_EQ(histogram.max(), 0U);
  EXPECT_EQ(histogram.quantile(0.5), 0U);
}

TEST(Histogram, IsExactForOneValueWhateverItsSize) {
  for (int bit = 0; bit < 64; ++bit) {
    for (std::uint64_t off : {0, 1}) {
      Histogram histogram;
      const std::uint64_t value = (std::uint64_t{1} << bit) - off;
      histogram.add(value);
      EXPECT_EQ(histogram.quantile(0.5), value);
      EXPECT_EQ(histogram.min(), value);
      EXPECT_EQ(histogram.max(), value);
    }
  }
  Histogram histogram;
  histogram.add(UINT64_MAX);
  EXPECT_EQ(histogram.quantile(0.99), UINT64_MAX);
}

TEST(Histogram, KeepsEveryValueWithinFivePerCent) {
  // Two bounds keep the clamp to [min, max] from hiding the bucket's own answer.
  for (std::uint64_t value = 1; value < std::uint64_t{1} << 62; value += 1 + value / 97) {
    Histogram histogram;
    histogram.add(0);
    histogram.add(value);
    histogram.add(UINT64_MAX);
    const auto answer = static_cast<double>(histogram.quantile(0.5));
    const auto exact = static_cast<double>(value);
    ASSERT_LE(std::abs(answer - exact), 0.05 * exact) << value;
    if (value < 16) {
      ASSERT_EQ(histogram.quantile(0.5), value);
    }
  }
}

TEST(Histogram, QuantilesOfRandomLatenciesAreNearTheExactOnes) {
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> latency(8, 2);
  Histogram histogram;
  std::vector<std::uint64_t> all;
  for (int i = 0; i < 20000; ++i) {
    all.push_back(static_cast<std::uint64_t>(latency(random)) + 1);
    histogram.add(all.back());
  }
  std::sort(all.begin(), all.end());
  for (double q : {0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0}) {
    const auto rank = static_cast<std::size_t>(std::max(1.0, std::ceil(q * 20000)));
    const auto exact = static_cast<double>(all[rank - 1]);
    EXPECT_LE(std::abs(static_cast<double>(histogram.quantile(q)) - exact), 0.05 * exact) << q;
  }
  EXPECT_EQ(histogram.quantile(0), all.front());
  EXPECT_EQ(histogram.quantile(1), all.back());
}

TEST(Histogram, MergedPartsEqualTheWhole) {
  std::mt19937_64 random(9);
  Histogram whole, left, right;
  for (int i = 0; i < 5000; ++i) {
    const std::uint64_t value = random() >> (random() % 64);
    whole.add(value, 2);
    (i % 3 == 0 ? left : right).add(value, 2);
  }
  left.merge(right);
  left.merge(Histogram());
  EXPECT_EQ(left.count(), whole.count());
  EXPECT_EQ(left.min(), whole.min());
  EXPECT_EQ(left.max(), whole.max());
  for (double q = 0; q <= 1; q += 0.01) EXPECT_EQ(left.quantile(q), whole.quantile(q));
}

TEST(Histogram, AddingZeroTimesChangesNothingAndAShareThatIsNoNumberIsTheMinimum) {
  Histogram histogram;
  histogram.add(5, 0);
  EXPECT_EQ(histogram.count(), 0U);
  EXPECT_EQ(histogram.max(), 0U);
  histogram.add(3);
  histogram.add(9);
  EXPECT_EQ(histogram.quantile(std::nan("")), 3U);
  EXPECT_EQ(histogram.quantile(-1), 3U);
  EXPECT_EQ(histogram.quantile(2), 9U);
}

}  // namespace
}  // namespace towline::base
