#pragma once
// Partitions: which member of an ordered group reads which.

#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

/// Makes the group read the topic partition by partition, from now on and for ever.
void make_partitioned(Tx& tx, GroupTopic& at);
/// Deals out the partitions of groups whose members or holdings changed. After flush_settled().
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

}  // namespace towline::drivers::sqlite
