#pragma once
// Rows of `claim`: encoding, reading, writing.
//
//   entries := ( zigzag varint(seq - seq before)  varint(partition)  varint(crashes << 1 | suspect) )*
//
// Lease tokens grow for ever, also over restarts and with an empty table: the row with the greatest id is
// never deleted but emptied (remaining = 0), until there is a greater one.

#include <functional>

#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

/// Calls `visit` for every claim with something in it. `visit` may not write claims.
void for_each_claim(Tx& tx, const std::function<void(Claim&&)>& visit);
/// Gives the claim its token and writes it.
void insert_claim(Tx& tx, Claim& claim);
/// Writes what remains, or removes the row.
void update_claim(Tx& tx, const Claim& claim);
[[nodiscard]] bool claim_exists(Tx& tx, std::int64_t lease);
/// Brings Catalog::lease_last up to date.
void load_lease_last(Tx& tx);

}  // namespace towline::drivers::sqlite
