#pragma once
// The dead-letter table.

#include <optional>
#include <vector>

#include <towline/spi/store.hpp>

#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

/// 0: there is none.
[[nodiscard]] spi::Version dead_letter_version(Connection& sql, const MessageId& id);
void put_dead_letter(Tx& tx, const DeadLetter& record);
void update_dead_letter(Tx& tx, const spi::UpdateDeadLetter& write);
void erase_dead_letter(Tx& tx, const spi::EraseDeadLetter& write);

/// An entry whose redrive never came back is pending again when its lease ends. Whether there is one, and
/// making it so.
[[nodiscard]] bool dead_letter_lease_ended(Connection& sql, TimePoint now);
void end_dead_letter_leases(Tx& tx);

[[nodiscard]] std::optional<DeadLetter> find_dead_letter(Connection& sql, const MessageId& id);
[[nodiscard]] Result<Page<DeadLetter>> list_dead_letters(Connection& sql, const DeadLetterQuery& query);
[[nodiscard]] Result<std::vector<DeadLetterGroup>> group_dead_letters(Connection& sql,
                                                                      const DeadLetterQuery& query);
void count_dead_letters(Connection& sql, std::uint64_t (&counts)[5]);
[[nodiscard]] std::uint64_t sweep_dead_letters(Tx& tx, const spi::SweepRequest& request,
                                               std::size_t count_max);

}  // namespace towline::drivers::sqlite
