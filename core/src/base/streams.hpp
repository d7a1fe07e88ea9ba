#pragma once
// What every store decides the same way about an append.

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <towline/event_store.hpp>
#include <towline/result.hpp>
#include <towline/spi/store.hpp>

namespace towline::base {

/// Whether the events are in the stream already: the version of the first of them; nullopt: none is there.
/// `version_of`: where an id is in the stream. kConflict when some are and others are not, or not in a row.
[[nodiscard]] Result<std::optional<std::uint64_t>> find_repeated(
    std::string_view stream, std::span<const RecordedEvent> events,
    const std::function<std::optional<std::uint64_t>(const MessageId&)>& version_of);

/// kConflict unless the stream, whose newest version is `newest` (0: it is not there), is as expected.
[[nodiscard]] Result<void> check_expected(std::string_view stream, std::uint64_t newest,
                                          std::optional<std::uint64_t> expected);

/// kInvalidArgument: a unit appends to it twice.
[[nodiscard]] Error second_append(std::string_view stream);
/// kNotFound, of an id to read on from.
[[nodiscard]] Error no_such_id(std::string_view stream, const MessageId& id);
/// The writes that AppendEvents::copies are when the first event has this version.
[[nodiscard]] std::vector<spi::Write> copies_of(const spi::AppendEvents& write, std::uint64_t first_version);
/// kNotFound, of a snapshot.
[[nodiscard]] Error no_such_version(std::string_view stream, std::uint64_t version);

}  // namespace towline::base
