#pragma once
// The streams of all spaces: appended to in a transaction of the writer, read on any connection.

#include <optional>
#include <string_view>

#include <towline/spi/conversations.hpp>
#include <towline/spi/streams.hpp>

#include "drivers/sqlite/connection.hpp"
#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

/// Whether it is new, or all of it is there already, one behind the other. kConflict.
[[nodiscard]] Result<void> check_append(Connection& sql, const spi::AppendEvents& write);
/// After check_append(): the place of a repeated append, or nullopt when it is new. Looks for the first event
/// alone, which is there if all of them are.
[[nodiscard]] std::optional<Appended> repeated_append(Connection& sql, const spi::AppendEvents& write);
/// After repeated_append() said that it is new.
Appended append_events(Tx& tx, const spi::AppendEvents& write);
[[nodiscard]] bool has_version(Connection& sql, spi::StreamSpace space, std::string_view stream,
                               std::uint64_t version = 1);
void truncate_stream(Tx& tx, const spi::TruncateStream& write);
/// `unread`: the first message that has to stay whatever else; nullopt: none has to.
void trim_conversation(Tx& tx, const spi::TrimConversation& write, std::optional<std::uint64_t> unread);
/// With all of it.
void erase_stream(Tx& tx, spi::StreamSpace space, std::string_view stream);
void put_snapshot(Tx& tx, const spi::PutSnapshot& write);
[[nodiscard]] std::uint64_t event_cursor_version(Connection& sql, std::string_view name);
void put_event_cursor(Tx& tx, const spi::PutEventCursor& write);

[[nodiscard]] Result<spi::StreamSlice> read_stream(Connection& sql, const spi::StreamRead& read);
[[nodiscard]] Page<StreamInfo> list_streams(Connection& sql, spi::StreamSpace space, std::string_view prefix,
                                            std::size_t count_max, std::string_view cursor);
[[nodiscard]] std::optional<Snapshot> find_snapshot(Connection& sql, std::string_view stream);
[[nodiscard]] std::optional<spi::EventCursor> find_event_cursor(Connection& sql, std::string_view name);
[[nodiscard]] std::uint64_t last_position(Connection& sql, spi::StreamSpace space);

}  // namespace towline::drivers::sqlite
