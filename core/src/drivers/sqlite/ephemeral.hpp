#pragma once
// Subscribers without a group: each sees every message published while it is there, and nothing is kept for
// it. Its position is in memory; its row in `member` only makes removing wait for it, within a bound.

#include <vector>

#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

/// Reads on from the session's positions. Writes nothing.
void read_ephemeral(Tx& tx, Session& session, std::size_t count_max, std::size_t payload_bytes_max,
                    std::vector<spi::Delivery>& out);
/// Whether an ephemeral subscriber of some process may want messages of the topic.
[[nodiscard]] bool has_ephemeral_readers(Tx& tx, const TopicState& topic);
/// The position that every ephemeral subscriber of this process has passed; log_begin() when another process
/// has some.
[[nodiscard]] Seq ephemeral_low(Tx& tx, const LogState& log);

}  // namespace towline::drivers::sqlite
