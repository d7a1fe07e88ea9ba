#pragma once
// Seeded random numbers: the same seed gives the same run, on every machine and with every compiler. Not for
// secrets.

#include <array>
#include <cstdint>

#include <towline/spi/clock.hpp>

namespace towline::base {

/// One step of splitmix64: a bijection of 64-bit numbers that mixes well. Also turns a seed and a stream
/// number into the seed of an independent stream: `mix(seed ^ mix(stream))`.
[[nodiscard]] std::uint64_t mix(std::uint64_t value) noexcept;

/// Seed of stream `stream` of a run: one for each lane, so that lanes do not share numbers.
[[nodiscard]] std::uint64_t derive_seed(std::uint64_t seed, std::uint64_t stream) noexcept;

/// xoshiro256** (Blackman and Vigna), its state filled from the seed by splitmix64. Not thread-safe: one per
/// lane.
class SeededRng final : public spi::Rng {
 public:
  explicit SeededRng(std::uint64_t seed) noexcept;
  [[nodiscard]] std::uint64_t next() noexcept override;

 private:
  std::array<std::uint64_t, 4> state_;
};

/// Uniform in [0, bound) without bias. 0 for bound 0.
[[nodiscard]] std::uint64_t uniform_below(spi::Rng& rng, std::uint64_t bound) noexcept;

}  // namespace towline::base
