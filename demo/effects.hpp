#pragma once
// The table that the handlers write, and reading it with nothing but SQLite.
//
// A row is inserted inside the handler's transaction, together with the acknowledgement. The table has no
// unique index on the order: an order that was handled twice shows as two rows instead of being hidden by a
// constraint.

#include <cstdint>
#include <string>
#include <vector>

#include <towline/result.hpp>

namespace towline::demo {

struct EffectRow {
  std::int64_t id = 0;  ///< grows in the order of commits
  std::uint32_t number = 0;
  std::string order_id;
  std::string customer;
  std::int64_t total_cents = 0;
  std::uint32_t attempt = 0;
  std::int64_t payload_hash = 0;
  std::string worker;  ///< the process life that committed it, e.g. "python-2.1"
  std::int64_t at_us = 0;
};

/// What a handler executes; its parameters are the columns of EffectRow after `id`, in order.
inline constexpr const char* kInsertEffect =
    "INSERT INTO effects (order_number, order_id, customer, total_cents, attempt, payload_hash, worker, "
    "at_us) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)";

/// Creates the table. Only while no engine has the file open.
[[nodiscard]] Result<void> create_effects_table(const std::string& database);
/// All rows in commit order; `worker` not empty: only those of that process life.
[[nodiscard]] Result<std::vector<EffectRow>> read_effects(const std::string& database,
                                                          const std::string& worker = {});

}  // namespace towline::demo
