// xoshiro256** and splitmix64, from their published definitions, and an unbiased bounded draw.

#include "base/random.hpp"

#include <bit>

namespace towline::base {
namespace {

constexpr std::uint64_t kGoldenStep = 0x9E3779B97F4A7C15;

// The product of two 64-bit numbers, as high and low half.
struct Product {
  std::uint64_t high;
  std::uint64_t low;
};

Product multiply(std::uint64_t a, std::uint64_t b) noexcept {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return {static_cast<std::uint64_t>(product >> 64), static_cast<std::uint64_t>(product)};
}

}  // namespace

std::uint64_t mix(std::uint64_t value) noexcept {
  value += kGoldenStep;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EB;
  return value ^ (value >> 31);
}

std::uint64_t derive_seed(std::uint64_t seed, std::uint64_t stream) noexcept {
  return mix(seed ^ mix(stream));
}

SeededRng::SeededRng(std::uint64_t seed) noexcept {
  // splitmix64 never gives four zeros in a row, the one state that xoshiro cannot leave.
  for (std::size_t i = 0; i < state_.size(); ++i)
    state_[i] = mix(seed + i * kGoldenStep);
}

std::uint64_t SeededRng::next() noexcept {
  const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const std::uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

std::uint64_t uniform_below(spi::Rng& rng, std::uint64_t bound) noexcept {
  if (bound == 0) return 0;
  // A draw falls into one of `bound` equal buckets by its high half; the few that would make some buckets
  // larger than others are drawn again.
  Product product = multiply(rng.next(), bound);
  if (product.low < bound) {
    const std::uint64_t surplus = (0 - bound) % bound;
    while (product.low < surplus)
      product = multiply(rng.next(), bound);
  }
  return product.high;
}

}  // namespace towline::base
