#pragma once
// How far the clients of conversations have read, and what their users missed.

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include <towline/spi/conversations.hpp>

#include "drivers/sqlite/connection.hpp"
#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

void put_client_position(Tx& tx, const spi::ClientPosition& position);
void add_missed(Tx& tx, const spi::AddMissed& write);
void clear_missed(Tx& tx, const spi::ClearMissed& write);

[[nodiscard]] std::vector<spi::ClientPosition> client_positions(Connection& sql, std::string_view user,
                                                                std::string_view client,
                                                                std::string_view from, std::size_t count_max,
                                                                TimePoint now);
[[nodiscard]] std::vector<spi::MissedMessages> missed_messages(Connection& sql, std::string_view user,
                                                               std::string_view from, std::size_t count_max,
                                                               TimePoint now);
/// The first message that some client has not acknowledged; nullopt: no client has a position.
[[nodiscard]] std::optional<std::uint64_t> first_unread(Connection& sql, std::string_view conversation,
                                                        TimePoint now);

/// Each removes at most so many of those that have expired, and returns how many.
[[nodiscard]] std::uint64_t sweep_client_positions(Tx& tx, TimePoint now, std::size_t count_max);
[[nodiscard]] std::uint64_t sweep_missed(Tx& tx, TimePoint now, std::size_t count_max);

}  // namespace towline::drivers::sqlite
