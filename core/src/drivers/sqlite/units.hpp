#pragma once
// Units of writes: all or nothing.

#include <span>
#include <vector>

#include <towline/spi/store.hpp>

#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

/// Commits each unit or refuses it; `settle` is the session that Settle writes refer to. `may_grow` false:
/// the disk is nearly full, so units that put something new are refused with `full`.
[[nodiscard]] std::vector<Result<void>> commit_units(Tx& tx, std::span<const spi::Unit> units,
                                                     Session* settle, const Error* full);
/// Checks one unit; changes nothing.
[[nodiscard]] Result<void> check_unit(Tx& tx, const spi::Unit& unit, Session* settle);
/// Applies a unit that was checked.
void apply_unit(Tx& tx, const spi::Unit& unit, Session* settle);
/// Whether the unit asks for room that a user could be refused: a new message or a newly delayed one.
[[nodiscard]] bool grows(const spi::Unit& unit) noexcept;

}  // namespace towline::drivers::sqlite
