#pragma once
// Handing out and settling. Why a session may have to wait for a suspect: see claims.cpp.

#include <vector>

#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

/// Whether a receive of this session could get something; may be wrongly true.
[[nodiscard]] bool may_hand_out(Tx& tx, Session& session);
void hand_out(Tx& tx, Session& session, std::size_t count_max, std::size_t payload_bytes_max,
              std::vector<spi::Delivery>& out);

/// Whether the token names a message that the session holds.
[[nodiscard]] bool holds(Tx& tx, Session& session, const spi::Token& token);
/// False when it does not; then nothing was changed.
bool settle(Tx& tx, Session& session, const spi::Settlement& settlement);
/// Writes what was settled in this transaction. Before anything reads the claims back from the file.
void flush_settled(Tx& tx);

/// Whether the session still holds the claim by what other processes have done; if not it is forgotten as
/// lost.
bool still_held(Tx& tx, Session& session, std::map<std::int64_t, Claim>::iterator claim);

/// Ends a claim: what is unsettled in it comes back, to be handed out before anything newer.
void end_claim(Tx& tx, Session* session, Claim& claim, bool charged, bool suspect);

/// After a rollback: reads the session's claims back from the file, and sets its leases back to what they
/// were.
void take_back_leases(Tx& tx, Session& session);

/// The least position that somebody has in hand, by log id, over all groups and processes.
[[nodiscard]] std::unordered_map<std::int64_t, Seq> oldest_in_hand(Tx& tx);

}  // namespace towline::drivers::sqlite
