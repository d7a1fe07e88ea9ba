#pragma once
// What SQL of others wrote to towline_outbox_v1: read in order of writing, and erased in the transaction that
// publishes it.

#include <cstdint>
#include <vector>

#include <towline/spi/outbox.hpp>

#include "drivers/sqlite/connection.hpp"
#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

/// The oldest, at most so many, and as many as have a megabyte of payload together; at least one.
[[nodiscard]] std::vector<spi::OutboxEntry> read_outbox(Connection& sql, std::size_t count_max);
/// Whether there is any entry; with a number, this one.
[[nodiscard]] bool outbox_holds_any(Connection& sql);
[[nodiscard]] bool outbox_holds(Connection& sql, std::uint64_t number);
void erase_outbox_entry(Tx& tx, const spi::EraseOutboxEntry& write);

}  // namespace towline::drivers::sqlite
