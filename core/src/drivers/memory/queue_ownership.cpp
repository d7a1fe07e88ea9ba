// Partitions: which member of an ordered group reads which.
//
// A partition belongs to one live member at a time, and it never changes hands while something of it is in
// anybody's hands; what a dead owner held comes back first (its lease ended before its membership did).
// Partitions that a member names are reserved for it; the others are shared evenly among the members that
// name none: with a surplus a member gives up its highest partitions, as soon as nothing of them is in
// flight.

#include <algorithm>
#include <vector>

#include "drivers/memory/queue.hpp"

namespace towline::drivers::memory {
namespace {

bool names(const Session& session, std::uint32_t partition) {
  const auto& named = session.options.partitions;
  return std::binary_search(named.begin(), named.end(), partition);
}

/// A member that takes a share, and how much of it it has.
struct Share {
  Session* member = nullptr;
  std::size_t quota = 0;
  std::vector<std::uint32_t> owned;
};

}  // namespace

void Queue::mark_dirty(GroupOnTopic& group) {
  if (!group.partitioned || group.dirty) return;
  group.dirty = true;
  dirty_.push_back(&group);
}

void Queue::deal_partitions() {
  while (!dirty_.empty()) {
    GroupOnTopic& group = *dirty_.back();
    dirty_.pop_back();
    group.dirty = false;
    deal(group);
  }
}

void Queue::deal(GroupOnTopic& group) {
  std::vector<Share> shares;
  std::map<std::uint64_t, Session*> live;
  for (Session* member : group.members) {
    if (!member->live) continue;
    live.emplace(member->id, member);
    if (member->options.partitions.empty()) shares.push_back({member, 0, {}});
  }
  const auto share_of = [&](std::uint64_t id) {
    return std::find_if(shares.begin(), shares.end(), [&](const Share& s) { return s.member->id == id; });
  };
  // Who a partition is reserved for: its owner if that one names it, else the first that does.
  std::vector<Session*> reserved(group.partitions.size(), nullptr);
  std::size_t shared_count = 0;
  for (std::uint32_t p = 0; p < group.partitions.size(); ++p) {
    Ownership& partition = group.partitions[p];
    if (partition.owner != 0 && !live.contains(partition.owner)) partition.owner = 0;
    for (const auto& [id, member] : live) {
      if (names(*member, p) && (reserved[p] == nullptr || id == partition.owner)) reserved[p] = member;
    }
    partition.revoking = reserved[p] != nullptr && partition.owner != reserved[p]->id;
    if (reserved[p] != nullptr) continue;
    ++shared_count;
    if (const auto share = share_of(partition.owner); share != shares.end()) share->owned.push_back(p);
  }
  for (std::size_t i = 0; i < shares.size(); ++i) {
    Share& share = shares[i];
    share.quota = shared_count / shares.size() + (i < shared_count % shares.size() ? 1 : 0);
    for (std::size_t k = share.quota; k < share.owned.size(); ++k)
      group.partitions[share.owned[k]].revoking = true;
    share.owned.resize(std::min(share.owned.size(), share.quota));
  }
  for (std::uint32_t p = 0; p < group.partitions.size(); ++p) {
    Ownership& partition = group.partitions[p];
    if (partition.in_flight > 0) continue;
    if (partition.revoking) partition.owner = 0;
    partition.revoking = false;
    if (partition.owner != 0) continue;
    Session* next = reserved[p];
    if (next == nullptr) {
      Share* least = nullptr;
      for (Share& share : shares) {
        const bool room = share.owned.size() < share.quota;
        if (room && (least == nullptr || share.owned.size() < least->owned.size())) least = &share;
      }
      if (least == nullptr) continue;
      least->owned.push_back(p);
      next = least->member;
    }
    partition.owner = next->id;
    ++partition.epoch;
    notify(*next);
  }
}

}  // namespace towline::drivers::memory
