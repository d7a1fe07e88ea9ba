#pragma once
// Chance, for everything that the simulator decides. One seed, one sequence: whoever draws in the same order
// gets the same run, so nothing here may depend on addresses, on time or on the order of an unordered
// container.

#include <cstdint>
#include <initializer_list>
#include <vector>

#include <towline/time.hpp>

#include "base/random.hpp"

namespace towline::simulation {

class Dice {
 public:
  explicit Dice(std::uint64_t seed) noexcept : rng_(seed) {}

  /// Uniform in [0, bound); 0 for bound 0.
  [[nodiscard]] std::uint64_t below(std::uint64_t bound) noexcept {
    return bound == 0 ? 0 : base::uniform_below(rng_, bound);
  }
  /// Uniform in [from, to].
  [[nodiscard]] std::uint64_t between(std::uint64_t from, std::uint64_t to) noexcept {
    return from + below(to - from + 1);
  }
  [[nodiscard]] Duration between(Duration from, Duration to) noexcept {
    return from +
           Duration(static_cast<Duration::rep>(below(static_cast<std::uint64_t>((to - from).count()) + 1)));
  }
  [[nodiscard]] bool chance(double probability) noexcept { return rng_.uniform() < probability; }
  template <typename T>
  [[nodiscard]] T pick(std::initializer_list<T> choices) noexcept {
    return choices.begin()[below(choices.size())];
  }
  template <typename T>
  [[nodiscard]] const T& pick(const std::vector<T>& choices) noexcept {
    return choices[below(choices.size())];
  }
  [[nodiscard]] std::uint64_t next() noexcept { return rng_.next(); }

 private:
  base::SeededRng rng_;
};

}  // namespace towline::simulation
