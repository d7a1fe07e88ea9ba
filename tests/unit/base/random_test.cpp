// The seeded generator: the published sequence, the same everywhere, and bounded draws without bias.

#include "base/random.hpp"

#include <array>
#include <cstdint>
#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace towline::base {
namespace {

// xoshiro256** written down a second time, over a state that is given.
std::uint64_t reference_next(std::array<std::uint64_t, 4>& s) {
  const auto rotate = [](std::uint64_t x, int k) { return (x << k) | (x >> (64 - k)); };
  const std::uint64_t result = rotate(s[1] * 5, 7) * 9;
  const std::uint64_t t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = rotate(s[3], 45);
  return result;
}

TEST(Mix, IsThePublishedSplitmix64) {
  // The first three outputs of splitmix64 for the seed 1234567.
  constexpr std::uint64_t kStep = 0x9E3779B97F4A7C15;
  EXPECT_EQ(mix(1234567), 6457827717110365317u);
  EXPECT_EQ(mix(1234567 + kStep), 3203168211198807973u);
  EXPECT_EQ(mix(1234567 + 2 * kStep), 9817491932198370423u);
}

TEST(SeededRng, IsXoshiro256StarStarFilledBySplitmix64) {
  constexpr std::uint64_t kStep = 0x9E3779B97F4A7C15;
  std::array<std::uint64_t, 4> state{mix(42), mix(42 + kStep), mix(42 + 2 * kStep), mix(42 + 3 * kStep)};
  SeededRng rng(42);
  for (int i = 0; i < 1000; ++i)
    ASSERT_EQ(rng.next(), reference_next(state)) << "number " << i;
}

TEST(SeededRng, GivesTheSameNumbersForTheSameSeedAndOthersForAnother) {
  SeededRng a(7), b(7), c(8);
  int equal = 0;
  for (int i = 0; i < 100; ++i) {
    const std::uint64_t number = a.next();
    ASSERT_EQ(number, b.next());
    if (number == c.next()) ++equal;
  }
  EXPECT_EQ(equal, 0);
}

TEST(SeededRng, UniformStaysInsideItsHalfOpenRangeAndFillsIt) {
  SeededRng rng(1);
  std::array<int, 10> tenths{};
  for (int i = 0; i < 100000; ++i) {
    const double value = rng.uniform();
    ASSERT_GE(value, 0.0);
    ASSERT_LT(value, 1.0);
    ++tenths[static_cast<std::size_t>(value * 10)];
  }
  // The standard deviation of each count is 95.
  for (const int count : tenths)
    EXPECT_NEAR(count, 10000, 600);
}

TEST(DeriveSeed, GivesEachStreamItsOwnSeed) {
  std::set<std::uint64_t> seeds;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    for (std::uint64_t stream = 0; stream < 100; ++stream)
      seeds.insert(derive_seed(seed, stream));
  }
  EXPECT_EQ(seeds.size(), 10000u);
}

TEST(UniformBelow, IsZeroForBoundsZeroAndOne) {
  SeededRng rng(3);
  EXPECT_EQ(uniform_below(rng, 0), 0u);
  EXPECT_EQ(uniform_below(rng, 1), 0u);
}

TEST(UniformBelow, HitsEachValueEquallyOftenAndNeverTheBound) {
  SeededRng rng(4);
  std::vector<int> counts(7);
  for (int i = 0; i < 70000; ++i) {
    const std::uint64_t value = uniform_below(rng, counts.size());
    ASSERT_LT(value, counts.size());
    ++counts[value];
  }
  for (const int count : counts)
    EXPECT_NEAR(count, 10000, 600);
}

TEST(UniformBelow, HasNoBiasWhereTheBoundDoesNotDivideTheRange) {
  // Two thirds of 2^64: without a second draw the lower half would come up twice as often as the upper one.
  constexpr std::uint64_t kBound = 0xAAAAAAAAAAAAAAAA;
  SeededRng rng(5);
  int lower = 0;
  for (int i = 0; i < 20000; ++i)
    lower += uniform_below(rng, kBound) < kBound / 2 ? 1 : 0;
  EXPECT_NEAR(lower, 10000, 500);
}

}  // namespace
}  // namespace towline::base
