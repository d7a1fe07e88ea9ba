#pragma once
// The narrow rows of what waits for its due time, read in order of it.

#include <cstdint>
#include <optional>

#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

/// Whether `body b` has such a row.
#define TOWLINE_HAS_DUE_ROW                                                                   \
  "(EXISTS(SELECT 1 FROM schedule s WHERE s.due_us = b.due_us AND s.body_id = b.body_id) OR " \
  "EXISTS(SELECT 1 FROM schedule_recent s WHERE s.due_us = b.due_us AND s.body_id = b.body_id))"

/// The same without a look at the row of what falls due later than all that was ever taken; not of a body
/// whose row went because it was cancelled.
#define TOWLINE_WAITS_FOR_DUE                                                                 \
  "(b.due_us > (SELECT value FROM counter WHERE name = 'taken_until_us') OR " TOWLINE_HAS_DUE_ROW ")"

/// Rows as (due_us, body_id, log_id), in order, behind (?1, ?2) and due by ?3, at most ?4.
inline constexpr const char* kDueRows =
    "SELECT due_us, body_id, log_id FROM schedule WHERE (due_us, body_id) > (?1, ?2) AND due_us <= ?3"
    " UNION ALL "
    "SELECT due_us, body_id, log_id FROM schedule_recent WHERE (due_us, body_id) > (?1, ?2) AND due_us <= ?3"
    " ORDER BY 1, 2 LIMIT ?4";

void insert_due_row(Tx& tx, std::int64_t due_us, std::int64_t body_id, std::optional<std::int64_t> log_id);
void delete_due_row(Tx& tx, std::int64_t due_us, std::int64_t body_id);
/// That one and all before it, because they are due.
void take_due_rows(Tx& tx, std::int64_t due_us, std::int64_t body_id);
/// The earliest due time.
[[nodiscard]] std::optional<std::int64_t> first_due_us(Connection& sql);

/// At the end of a transaction: some of the recent rows move to where the many are, when there are too many
/// of them.
void settle_due_rows(Tx& tx);

}  // namespace towline::drivers::sqlite
