#pragma once
// What every store decides the same way about the clients of conversations.

#include <cstdint>

#include <towline/spi/conversations.hpp>

namespace towline::base {

/// What is known of a position after `given` was put: it moves only forward, unless it expired by `now`.
/// Default-constructed `known`: nothing is.
void advance(spi::ClientPosition& known, const spi::ClientPosition& given, TimePoint now);

/// Counts one message, at most once. Default-constructed `missed`: nothing was counted.
void count_missed(spi::MissedMessages& missed, std::uint64_t sequence) noexcept;
/// Takes what was counted up to a sequence. What was counted behind it stays.
void take_missed(spi::MissedMessages& missed, std::uint64_t through_sequence) noexcept;

}  // namespace towline::base
