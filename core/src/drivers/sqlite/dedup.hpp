#pragma once
// Dedup ids: which message holds an id of a topic, until when.

#include <cstddef>
#include <optional>
#include <string_view>

#include <towline/spi/store.hpp>

#include "base/topology.hpp"
#include "drivers/sqlite/records.hpp"
#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

using base::deduplicates;

/// Who holds the id; also while looking.
[[nodiscard]] std::optional<MessageId> find_dedup(Tx& tx, std::string_view topic, std::string_view dedup_id);
/// Holds the envelope's dedup id for it; else who holds it.
[[nodiscard]] std::optional<MessageId> hold_dedup(Tx& tx, const spi::Envelope& envelope);
/// Does nothing when another message holds it.
void forget_dedup(Tx& tx, const spi::ForgetDedup& write);

/// Removes what expired.
[[nodiscard]] Swept sweep_dedup(Tx& tx, SweepPlaces& places, std::size_t count_max);

}  // namespace towline::drivers::sqlite
