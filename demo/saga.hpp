#pragma once
// The order saga: what its steps are, what goes wrong on its way, and the outside world that they change.
//
// A step changes something that is not in the engine's file: a warehouse, a bank, a carrier. Here that is a
// folder in which every effect is a file named after the key of the step. Asked again under a key it knows it
// does nothing, like a bank that takes idempotency keys; under any other key it would do it once more.

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <towline/result.hpp>

namespace towline::demo {

inline constexpr std::string_view kSagaType = "order";
/// In their order. Each has a compensation.
inline constexpr std::array<std::string_view, 3> kSagaSteps = {"reserve", "charge", "ship"};

/// What happens to the saga of one order. Its parts are named "charge/execute" and "charge/compensate".
struct SagaFate {
  bool wanted = false;        ///< the order has a saga
  std::string refused_at;     ///< the step that fails for good; empty: none does
  bool refused_late = false;  ///< it fails when it has had its effect
  std::string fails_once;     ///< the part whose first attempt fails; empty: none does

  /// What the saga begins with, as JSON: all that the steps have to know.
  [[nodiscard]] std::string context(std::uint32_t number) const;
  /// The parts that must have had their effect at the end, in that order.
  [[nodiscard]] std::vector<std::string> expected() const;
};

/// One thing that was done out there, or undone.
struct SagaEffect {
  std::uint32_t number = 0;  ///< of the order
  std::string part;
  std::string key;     ///< under which it was asked for
  std::string worker;  ///< the process life that asked
  std::int64_t at_us = 0;
};

/// The key that every attempt of a part must have.
[[nodiscard]] std::string saga_key(std::uint32_t number, std::string_view part);

/// The outside world, as one process life sees it. Thread-safe.
class World {
 public:
  World(std::string folder, std::string worker) : folder_(std::move(folder)), worker_(std::move(worker)) {}
  /// All of it or nothing, also if the process dies here. False: it was done under this key before.
  [[nodiscard]] Result<bool> take_effect(const SagaEffect& effect);
  /// Everything that was done, in the order of time.
  [[nodiscard]] static Result<std::vector<SagaEffect>> read(const std::string& folder);

 private:
  const std::string folder_;
  const std::string worker_;
  std::atomic<std::uint64_t> drafts_{0};
};

}  // namespace towline::demo
