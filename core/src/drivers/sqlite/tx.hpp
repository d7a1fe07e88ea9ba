#pragma once
// One transaction as its parts see it: the connection, what is known in memory, the time, and what committing
// it will have changed. All functions that take a Tx run under leadership of the writer.

#include <algorithm>
#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

#include "drivers/sqlite/connection.hpp"
#include "drivers/sqlite/model.hpp"

namespace towline::drivers::sqlite {

struct ClaimBefore {
  std::int64_t member_id = 0;  ///< 0: there was no such claim
  MonotonicTime lease_until{};
};

struct Tx {
  Connection& sql;
  Catalog& catalog;
  Moment now;

  /// Logs whose row in `log` changes with this transaction.
  std::vector<LogState*> written = {};
  /// Logs of which something was settled.
  std::vector<LogState*> read = {};
  /// Logs that got something new.
  std::vector<LogState*> appended = {};
  /// Groups to which something came back, or whose partitions moved.
  std::vector<GroupState*> stirred = {};
  /// Claims with settlements that are not written yet.
  std::vector<Claim*> settled = {};
  /// Groups on topics whose partitions have to be dealt out again.
  std::vector<GroupTopic*> to_deal = {};
  std::size_t settled_count = 0;  ///< messages
  bool shape_changed = false;
  bool due_earlier = false;
  bool events_appended = false;
  bool outbox_written = false;
  bool lease_sooner = false;
  std::int64_t scheduled = 0, cancelled = 0, parked = 0, idempotency = 0;
  std::int64_t bodies = 0;     ///< ids that were given out
  std::int64_t due_recent = 0, due_recent_new = 0;  ///< rows more, and rows put, in `schedule_recent`
  bool cancelled_some = false;  ///< rows were put in `cancelled_recent`
  std::int64_t dedup_ids = 0;  ///< numbers that were given out
  bool dedup_ready = false;    ///< Catalog::dedup is as of this transaction
  bool dedup_removed = false;  ///< rows were removed before it was made ready
  /// For the way back, before they are changed: sessions by member id, and claims by lease. What
  /// was not committed must not move a lease, or this process believes in one that the file does not know.
  std::unordered_map<std::int64_t, SessionLease> sessions_before = {};
  std::map<std::int64_t, ClaimBefore> claims_before = {};

  void remember(const Session& session) { sessions_before.try_emplace(session.member_id, session); }
  void remember(const Claim& claim) {
    claims_before.try_emplace(claim.lease, ClaimBefore{claim.member_id, claim.lease_until});
  }
  /// One that this transaction makes: there is nothing to go back to.
  void note_made(const Claim& claim) { claims_before.try_emplace(claim.lease, ClaimBefore{}); }

  void note_appended(LogState& log) { add_once(appended, log); }
  void note_written(LogState& log) { add_once(written, log); }
  void note_read(LogState& log) { add_once(read, log); }
  void note_stirred(GroupState& group) { add_once(stirred, group); }
  void note_deal(GroupTopic& at) {
    if (!at.partitioned || at.deal_dirty) return;
    at.deal_dirty = true;
    to_deal.push_back(&at);
  }
  void note_settled(Claim& claim) {
    if (claim.dirty) return;
    claim.dirty = true;
    remember(claim);  // once all of it is settled it is forgotten
    settled.push_back(&claim);
  }

 private:
  template <typename T>
  static void add_once(std::vector<T*>& to, T& one) {
    // Mostly it is the last one.
    if (!to.empty() && to.back() == &one) return;
    if (std::find(to.begin(), to.end(), &one) == to.end()) to.push_back(&one);
  }
};

}  // namespace towline::drivers::sqlite
