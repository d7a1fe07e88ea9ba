#pragma once
// Partitions: which member of an ordered group reads which.

#include <span>
#include <vector>

#include "drivers/sqlite/members.hpp"
#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

/// Makes the group read the topic partition by partition, from now on and for ever.
void make_partitioned(Tx& tx, GroupTopic& at);
/// Deals out the partitions of groups whose members or holdings changed.
void deal_partitions(Tx& tx);
/// Whether the session reads this partition now.
[[nodiscard]] inline bool owns(const GroupTopic& at, const Session& session,
                               std::uint32_t partition) noexcept {
  if (partition >= at.partitions.size()) return false;
  const Ownership& one = at.partitions[partition];
  return one.member_id == session.member_id && !one.revoking;
}
/// Writes how far the session has read in its partitions, so that what is behind can be removed.
void sync_partition_cursors(Tx& tx, Session& session);
/// Of a message that may be in `message` or `body`; 0 when it is gone.
[[nodiscard]] std::uint32_t partition_of(Tx& tx, Seq seq);

/// The rule of dealing, by itself: changes `partitions` to what the members should have. `in_flight`:
/// messages in anybody's hands, by partition. A partition never changes hands while something of it is in
/// flight. Partitions that a member names are reserved for it; the others are shared evenly among the members
/// that name none, and with a surplus a member gives up its highest ones.
void plan_partitions(std::vector<Ownership>& partitions, std::span<const LiveMember> members,
                     std::span<const std::uint32_t> in_flight);

}  // namespace towline::drivers::sqlite
