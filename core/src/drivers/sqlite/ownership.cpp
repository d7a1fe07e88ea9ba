// Everything that the dealing depends on is in the file, so whoever notices that it must be done does it for
// the whole group, in its own transaction: the members find what they got when they look again.

#include "drivers/sqlite/ownership.hpp"

#include <algorithm>

#include "drivers/sqlite/claim_rows.hpp"
#include "drivers/sqlite/claims.hpp"
#include "drivers/sqlite/publish.hpp"
#include "drivers/sqlite/topics.hpp"

namespace towline::drivers::sqlite {
namespace {

constexpr const char* kMakePartitioned =
    "UPDATE grp_topic SET partitioned = 1 WHERE topic_id = ?1 AND group_id = ?2";
constexpr const char* kInsertOwnership = "INSERT OR IGNORE INTO ownership VALUES(?1, ?2, ?3, 0, 0, 0)";
constexpr const char* kInsertCursors =
    "INSERT OR IGNORE INTO partition_cursor SELECT c.log_id, c.group_id, o.partition, c.read_seq FROM log l"
    " JOIN cursor c ON c.log_id = l.id AND c.group_id = ?2"
    " JOIN ownership o ON o.topic_id = ?1 AND o.group_id = ?2 WHERE l.topic_id = ?1";
constexpr const char* kReturned = "SELECT seq FROM redelivery WHERE group_id = ?1 AND seq > ?2 AND seq < ?3";
constexpr const char* kPlaceReturned =
    "UPDATE redelivery SET partition = ?3 WHERE group_id = ?1 AND seq = ?2";
constexpr const char* kWriteOwnership =
    "UPDATE ownership SET member_id = ?4, epoch = ?5, revoking = ?6"
    " WHERE topic_id = ?1 AND group_id = ?2 AND partition = ?3";
constexpr const char* kSyncCursor =
    "UPDATE partition_cursor SET read_seq = ?4"
    " WHERE log_id = ?1 AND group_id = ?2 AND partition = ?3 AND read_seq < ?4";
constexpr const char* kLeastCursor =
    "SELECT min(read_seq) FROM partition_cursor WHERE log_id = ?1 AND group_id = ?2";
constexpr const char* kMoveCursor =
    "UPDATE cursor SET read_seq = ?3 WHERE log_id = ?1 AND group_id = ?2 AND read_seq < ?3";

bool names(const LiveMember& member, std::uint32_t partition) {
  return std::find(member.partitions.begin(), member.partitions.end(), partition) != member.partitions.end();
}

/// A member that takes a share, and what it keeps of what it has.
struct Share {
  std::int64_t member_id = 0;
  std::size_t quota = 0;
  std::vector<std::uint32_t> owned;
};

/// Who each partition is reserved for: its owner if that one names it, else the first that does; 0: nobody.
std::vector<std::int64_t> reservations(std::vector<Ownership>& partitions,
                                       std::span<const LiveMember> members) {
  std::vector<std::int64_t> reserved(partitions.size(), 0);
  for (std::uint32_t p = 0; p < partitions.size(); ++p) {
    Ownership& one = partitions[p];
    const bool alive = std::any_of(members.begin(), members.end(),
                                   [&](const LiveMember& member) { return member.id == one.member_id; });
    if (!alive) one.member_id = 0;
    for (const LiveMember& member : members) {
      if (names(member, p) && (reserved[p] == 0 || member.id == one.member_id)) reserved[p] = member.id;
    }
    one.revoking = reserved[p] != 0 && one.member_id != reserved[p];
  }
  return reserved;
}

/// The shares of the members that name nothing; marks what is above them as revoked.
std::vector<Share> share_out(std::vector<Ownership>& partitions, std::span<const LiveMember> members,
                             const std::vector<std::int64_t>& reserved) {
  std::vector<Share> shares;
  for (const LiveMember& member : members) {
    if (member.partitions.empty()) shares.push_back({member.id, 0, {}});
  }
  std::size_t shared_count = 0;
  for (std::uint32_t p = 0; p < partitions.size(); ++p) {
    if (reserved[p] != 0) continue;
    ++shared_count;
    const auto share = std::find_if(shares.begin(), shares.end(),
                                    [&](const Share& s) { return s.member_id == partitions[p].member_id; });
    if (share != shares.end()) share->owned.push_back(p);
  }
  for (std::size_t i = 0; i < shares.size(); ++i) {
    Share& share = shares[i];
    share.quota = shared_count / shares.size() + (i < shared_count % shares.size() ? 1 : 0);
    for (std::size_t k = share.quota; k < share.owned.size(); ++k)
      partitions[share.owned[k]].revoking = true;
    share.owned.resize(std::min(share.owned.size(), share.quota));
  }
  return shares;
}

std::vector<std::uint32_t> in_flight_of(Tx& tx, const GroupTopic& at) {
  std::vector<std::uint32_t> in_flight(at.partitions.size(), 0);
  std::vector<Seq> dense;
  for_each_claim(tx, [&](Claim&& claim) {
    const auto log = tx.catalog.logs.find(claim.log_id);
    if (claim.group_id != at.group->id || log == tx.catalog.logs.end() || log->second->topic != at.topic) {
      return;
    }
    for (std::uint32_t i = 0; i < claim.count; ++i) {
      if (claim.is_settled(i)) continue;
      if (claim.entries.empty()) {
        dense.push_back(claim.first + i);
      } else if (claim.entries[i].partition < in_flight.size()) {
        ++in_flight[claim.entries[i].partition];
      }
    }
  });
  // Handed out before the group was partitioned.
  for (const Seq seq : dense) {
    const std::uint32_t partition = partition_of(tx, seq);
    if (partition < in_flight.size()) ++in_flight[partition];
  }
  return in_flight;
}

void deal(Tx& tx, GroupTopic& at) {
  const std::vector<Ownership> before = at.partitions;
  const std::vector<LiveMember> members = live_members(tx, at);
  plan_partitions(at.partitions, members, in_flight_of(tx, at));
  for (std::uint32_t p = 0; p < at.partitions.size(); ++p) {
    const Ownership& one = at.partitions[p];
    if (one == before[p]) continue;
    execute(tx.sql, kWriteOwnership, at.topic->id, at.group->id, p, one.member_id, one.epoch,
            one.revoking ? 1 : 0);
    if (one.member_id == 0 || one.epoch == before[p].epoch) continue;
    tx.note_stirred(*at.group);
    // The new owner goes on where the file says that the partition is.
    for (Reader& reader : at.readers)
      reader.generation = kNoGeneration;
  }
}

}  // namespace

void plan_partitions(std::vector<Ownership>& partitions, std::span<const LiveMember> members,
                     std::span<const std::uint32_t> in_flight) {
  const std::vector<std::int64_t> reserved = reservations(partitions, members);
  std::vector<Share> shares = share_out(partitions, members, reserved);
  for (std::uint32_t p = 0; p < partitions.size(); ++p) {
    Ownership& one = partitions[p];
    if (in_flight[p] > 0) continue;
    if (one.revoking) one.member_id = 0;
    one.revoking = false;
    if (one.member_id != 0) continue;
    std::int64_t next = reserved[p];
    if (next == 0) {
      Share* least = nullptr;
      for (Share& share : shares) {
        const bool room = share.owned.size() < share.quota;
        if (room && (least == nullptr || share.owned.size() < least->owned.size())) least = &share;
      }
      if (least == nullptr) continue;
      least->owned.push_back(p);
      next = least->member_id;
    }
    one.member_id = next;
    ++one.epoch;
  }
}

std::uint32_t partition_of(Tx& tx, Seq seq) {
  const auto log = tx.catalog.logs.find(log_of(seq));
  if (log == tx.catalog.logs.end()) return 0;
  MessageReader message(tx.sql, *log->second, seq - 1, seq);
  return message.next() ? message.partition() : 0;
}

namespace {

void place_returned(Tx& tx, const GroupState& group, const LogState& log) {
  std::vector<Seq> returned;
  {
    Query rows(tx.sql, kReturned, group.id, log_begin(log.id), log_end(log.id));
    while (rows.row())
      returned.push_back(rows.integer(0));
  }
  for (const Seq seq : returned)
    execute(tx.sql, kPlaceReturned, group.id, seq, partition_of(tx, seq));
}

}  // namespace

void make_partitioned(Tx& tx, GroupTopic& at) {
  execute(tx.sql, kMakePartitioned, at.topic->id, at.group->id);
  for (std::uint32_t p = 0; p < at.topic->partition_count; ++p) {
    execute(tx.sql, kInsertOwnership, at.topic->id, at.group->id, p);
  }
  execute(tx.sql, kInsertCursors, at.topic->id, at.group->id);
  for (const LogState* log : at.topic->logs) {
    if (log != nullptr) place_returned(tx, *at.group, *log);
  }
  at.partitioned = true;
  at.partitions.assign(at.topic->partition_count, {});
  for (Reader& reader : at.readers)
    reader.generation = kNoGeneration;
  tx.note_deal(at);
}

void deal_partitions(Tx& tx) {
  if (tx.to_deal.empty()) return;
  flush_settled(tx);
  while (!tx.to_deal.empty()) {
    GroupTopic& at = *tx.to_deal.back();
    tx.to_deal.pop_back();
    at.deal_dirty = false;
    deal(tx, at);
  }
}

void sync_partition_cursors(Tx& tx, Session& session) {
  if (session.group == nullptr) return;
  for (TopicState* topic : session.topics) {
    GroupTopic* at = find_group_topic(tx, *session.group, *topic);
    if (at == nullptr || !at->partitioned) continue;
    for (LogState* log : topic->logs) {
      if (log == nullptr) continue;
      const Reader& reader = reader_of(tx, *at, *log);
      bool moved = false;
      for (std::uint32_t p = 0; p < at->partitions.size(); ++p) {
        if (!owns(*at, session, p) || reader.partition_read[p] <= reader.partition_written[p]) continue;
        execute(tx.sql, kSyncCursor, log->id, session.group->id, p, reader.partition_read[p]);
        at->readers[log->priority].partition_written[p] = reader.partition_read[p];
        moved = true;
      }
      if (!moved) continue;
      const auto least = select_integer(tx.sql, kLeastCursor, log->id, session.group->id);
      if (least) execute(tx.sql, kMoveCursor, log->id, session.group->id, *least);
    }
  }
}

}  // namespace towline::drivers::sqlite
