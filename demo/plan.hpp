#pragma once
// The plan: what must happen to every order, drawn from the seed before the first process starts.
//
// The same orders and the same seed always give the same plan, so the verdict knows which orders must fail,
// how often, and which must end as dead letters, without asking anybody who took part.

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include <towline/result.hpp>

#include "orders.hpp"
#include "saga.hpp"

namespace towline::demo {

/// Failures of a handler that never succeeds.
inline constexpr std::uint32_t kAlwaysFails = 1'000'000;

/// What happens to one order on its way.
struct Fate {
  std::uint32_t failure_count = 0;     ///< its handler fails this often before it succeeds
  std::chrono::milliseconds delay{0};  ///< published with a due time this far ahead
  bool twice = false;                  ///< published a second time with the same dedup id
  SagaFate saga;

  [[nodiscard]] bool dead() const { return failure_count == kAlwaysFails; }
};

struct PlannedOrder {
  Order order;
  std::uint32_t number = 0;     ///< its place in the plan
  std::uint32_t sequence = 0;   ///< its place among the orders of its customer
  std::uint32_t publisher = 0;  ///< who publishes it; all orders of one customer have the same publisher
  Fate fate;
  std::string saga_context;  ///< read_plan() only: empty without a saga
};

struct Plan {
  std::uint64_t seed = 0;
  std::vector<PlannedOrder> orders;

  [[nodiscard]] std::size_t dead_count() const;
  [[nodiscard]] std::size_t saga_count() const;
  /// How long the customer with the most bad luck waits for retries alone: a floor for the run's deadline.
  [[nodiscard]] std::chrono::milliseconds longest_wait() const;
};

/// Exact shares, not chances: of 10,000 orders 1,500 fail once, 200 three times, 50 always, 500 are delayed
/// by 1 to 4 s and 300 published twice; 500 have a saga, of which 100 are refused by a step and undone, and
/// in 100 a part fails once.
[[nodiscard]] Plan make_plan(std::vector<Order> orders, std::uint64_t seed, std::uint32_t publisher_count);

/// The plan as a file, one order per line: what the publishers read.
[[nodiscard]] Result<void> write_plan(const Plan& plan, const std::string& path);
[[nodiscard]] Result<Plan> read_plan(const std::string& path);

/// The generator of the demo (splitmix64): the same numbers on every machine and with every standard library.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next();
  /// Even in [0, bound).
  std::uint64_t below(std::uint64_t bound) { return next() % bound; }

 private:
  std::uint64_t state_;
};

}  // namespace towline::demo
