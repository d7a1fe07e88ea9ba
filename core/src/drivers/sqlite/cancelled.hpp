#pragma once
// Delayed messages that were cancelled and whose rows are still there.

#include <cstddef>
#include <cstdint>

#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

/// On any connection.
[[nodiscard]] bool is_cancelled(Connection& sql, std::int64_t body_id);
/// Whether anything is.
[[nodiscard]] bool any_cancelled(Connection& sql);
/// Notes that the body, which has a row in `schedule` and was not cancelled before, will never fire.
void note_cancelled(Tx& tx, std::int64_t body_id);
/// At the end of a transaction: what was cancelled lately is noted among the many, when it has become many.
void settle_cancelled(Tx& tx);
/// The schedule row is gone: so is the body, and what is noted about it.
void remove_cancelled(Tx& tx, std::int64_t body_id);

/// How far removing has come. Only an aid to be quick: a pass can be begun again at any time.
struct CancelledPass {
  bool runs = false;
  bool rows_gone = false;  ///< those of `schedule`
  std::int64_t due_us = INT64_MIN, body_id = INT64_MIN;  ///< where the present half is
};
/// Removes some of what was cancelled, once that is a good part of what waits; true: there is more to do now.
[[nodiscard]] bool sweep_cancelled(Tx& tx, CancelledPass& pass);

}  // namespace towline::drivers::sqlite
