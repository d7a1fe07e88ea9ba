// A log is cut off at its low end, in order: everything up to the least position that some group has yet to
// read, holds, or gets again. So removing is a delete of a range. One message that is held for long would
// keep all that come after it; when they are many, those that every group is done with are removed from
// between the unsettled ones, too. The newest row stays in any case: positions go on from it.
//
// A topic that no group has ever read keeps its messages. Log topics keep theirs for their retention, read or
// not; a bus keeps a few seconds for the subscribers of the moment.

#include "drivers/sqlite/trim.hpp"

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "drivers/sqlite/claim_rows.hpp"
#include "drivers/sqlite/claims.hpp"
#include "drivers/sqlite/ephemeral.hpp"
#include "drivers/sqlite/fired.hpp"
#include "drivers/sqlite/ownership.hpp"
#include "drivers/sqlite/runs.hpp"
#include "drivers/sqlite/topics.hpp"

namespace towline::drivers::sqlite {
namespace {

/// Settled messages that make looking worthwhile.
constexpr std::uint64_t kSettledEnough = 1'000;
/// Unsettled messages of a log that are gone around at most.
constexpr std::size_t kUnsettledMax = 10'000;
/// Rows between them that one transaction looks at.
constexpr std::size_t kRowsPerStep = 4'096;
constexpr Duration kBusAge = std::chrono::seconds(10);
constexpr Seq kBusCount = 10'000;

constexpr const char* kCursors = "SELECT group_id, read_seq FROM cursor WHERE log_id = ?1";
constexpr const char* kLeastReturned =
    "SELECT seq FROM redelivery WHERE group_id = ?1 AND seq > ?2 AND seq < ?3 ORDER BY seq LIMIT 1";
/// A run goes when all of it may go; what names a body goes with it (fired.hpp).
constexpr const char* kDeleteMessages =
    "DELETE FROM message WHERE seq > ?1 AND seq <= ?2 AND body_id IS NULL"
    " AND seq + coalesce(count, 1) - 1 <= ?2";
constexpr const char* kRowsBetween =
    "SELECT seq, coalesce(count, 1), body_id IS NULL FROM message WHERE seq > ?1 AND seq <= ?2 ORDER BY seq"
    " LIMIT ?3";
constexpr const char* kDeleteRow = "DELETE FROM message WHERE seq = ?1";
constexpr const char* kReturnedUpTo =
    "SELECT r.seq FROM cursor c JOIN redelivery r ON r.group_id = c.group_id"
    " WHERE c.log_id = ?1 AND r.seq > ?2 AND r.seq <= ?3 LIMIT ?4";
/// Of the row that has the position, or the last one before it.
constexpr const char* kMessageTime =
    "SELECT coalesce(m.published_us, b.due_us) FROM message m LEFT JOIN body b ON b.body_id = m.body_id"
    " WHERE m.seq > ?1 AND m.seq <= ?2 ORDER BY m.seq DESC LIMIT 1";
constexpr const char* kForgetReturned =
    "DELETE FROM redelivery WHERE group_id IN (SELECT group_id FROM cursor WHERE log_id = ?1)"
    " AND seq > ?2 AND seq <= ?3";
constexpr const char* kFlushLog =
    "UPDATE log SET trimmed_seq = ?2, body_seq = ?3, swept_seq = ?4 WHERE id = ?1";

/// What every group has read, and up to where every group is done.
struct Progress {
  Seq read = 0;
  Seq done = 0;
};

/// nullopt: no group reads the topic.
std::optional<Progress> progress_of(Tx& tx, LogState& log,
                                    const std::unordered_map<std::int64_t, Seq>& in_hand) {
  struct Of {
    std::int64_t group_id;
    Seq read;
  };
  std::vector<Of> groups;
  {
    Query rows(tx.sql, kCursors, log.id);
    while (rows.row())
      groups.push_back({rows.integer(0), rows.integer(1)});
  }
  if (groups.empty()) return std::nullopt;
  Seq read = log.last;
  for (const Of& of : groups)
    read = std::min(read, of.read);
  Seq done = read;
  for (const Of& of : groups) {
    const auto returned =
        select_integer(tx.sql, kLeastReturned, of.group_id, log_begin(log.id), log_end(log.id));
    if (returned) done = std::min(done, *returned - 1);
  }
  if (const auto held = in_hand.find(log.id); held != in_hand.end()) done = std::min(done, held->second - 1);
  return Progress{read, done};
}

/// The last of the positions up to `until` that was published at `time` or before; messages are about in
/// order of time.
Seq older_than(Tx& tx, const LogState& log, Seq until, TimePoint time) {
  const auto old = [&](Seq seq) {
    Query row(tx.sql, kMessageTime, log_begin(log.id), seq);
    return !row.row() || row.integer(0) <= to_us(time);
  };
  Seq low = log.trimmed;
  Seq high = until;
  while (low < high) {
    const Seq middle = low + (high - low + 1) / 2;
    if (old(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

struct Bound {
  Seq all = 0;      ///< everything up to here may go
  Seq settled = 0;  ///< and what is settled up to here
};

Bound bound_of(Tx& tx, LogState& log, const std::unordered_map<std::int64_t, Seq>& in_hand) {
  const TopicState& topic = *log.topic;
  if (topic.kind == spi::TopicKind::kBus) {
    return {std::max(older_than(tx, log, log.last, tx.now.wall - kBusAge), log.last - kBusCount), 0};
  }
  if (topic.kind == spi::TopicKind::kLog) {
    if (topic.retention <= Duration(0)) return {log.trimmed, 0};
    return {older_than(tx, log, log.last, tx.now.wall - topic.retention), 0};
  }
  const std::optional<Progress> progress = progress_of(tx, log, in_hand);
  if (!progress) return {log.trimmed, 0};
  Bound bound{progress->done, progress->read};
  if (topic.retention > Duration(0))
    bound = {older_than(tx, log, progress->done, tx.now.wall - topic.retention), 0};
  if (std::max(bound.all, bound.settled) > log.trimmed && has_ephemeral_readers(tx, topic)) {
    const Seq seen = ephemeral_low(tx, log);
    const Seq old = std::max(older_than(tx, log, bound.all, tx.now.wall - kBusAge), log.last - kBusCount);
    bound = {std::min(bound.all, std::max(seen, old)), 0};
  }
  return bound;
}

/// Positions up to `until` that somebody has in hand, or gets again; in order. Empty, too: they are too many.
std::vector<Seq> unsettled_of(Tx& tx, const LogState& log, Seq until) {
  std::vector<Seq> unsettled;
  for_each_claim(tx, [&](Claim&& claim) {
    if (claim.log_id != log.id || unsettled.size() > kUnsettledMax) return;
    for (std::uint32_t i = 0; i < claim.count; ++i) {
      const Seq seq = claim.entry(i).seq;
      if (!claim.is_settled(i) && seq <= until) unsettled.push_back(seq);
    }
  });
  {
    Query returned(tx.sql, kReturnedUpTo, log.id, log_begin(log.id), until, kUnsettledMax + 1);
    while (returned.row())
      unsettled.push_back(returned.integer(0));
  }
  if (unsettled.size() > kUnsettledMax) return {};
  std::sort(unsettled.begin(), unsettled.end());
  return unsettled;
}

/// Removes what is settled up to `until` from between the messages that are not, about `count_max` messages.
/// True: there is more.
bool trim_gaps(Tx& tx, LogState& log, Seq until, std::size_t count_max) {
  until = std::min(until, log.last - 1);
  const std::vector<Seq> unsettled = unsettled_of(tx, log, until);
  if (unsettled.empty()) return false;
  std::vector<Seq> gone;
  std::size_t looked = 0;
  std::size_t count = 0;
  Seq last = 0;
  {
    // In turns: each step goes on where the one before it has ended, as far as this process knows.
    Query rows(tx.sql, kRowsBetween, std::max(unsettled.front(), log.gaps_trimmed), until, kRowsPerStep);
    for (auto next = unsettled.begin(); count < count_max && rows.row(); ++looked) {
      last = rows.integer(0);
      const Seq end = last + rows.integer(1);
      next = std::lower_bound(next, unsettled.end(), last);
      const bool needed = (next != unsettled.end() && *next < end) || end > until + 1;
      if (needed || rows.integer(2) == 0) continue;
      gone.push_back(last);
      count += static_cast<std::size_t>(end - last);
    }
  }
  for (const Seq seq : gone)
    execute(tx.sql, kDeleteRow, seq);
  const bool at_end = count < count_max && looked < kRowsPerStep;
  log.gaps_trimmed = at_end ? 0 : last;
  return !at_end && !gone.empty();
}

std::uint64_t trim_log(Tx& tx, LogState& log, const std::unordered_map<std::int64_t, Seq>& in_hand,
                       std::size_t count_max, bool& more) {
  if (count_max == 0) return 0;
  fresh(tx, log);
  if (log.trimmed >= log.last) return 0;
  const Bound bound = bound_of(tx, log, in_hand);
  Seq until = bound.all;
  if (bound.settled - std::max(until, log.trimmed) > tx.catalog.settled_behind_max)
    more = trim_gaps(tx, log, bound.settled, count_max) || more;
  if (until <= log.trimmed) return 0;
  if (until - log.trimmed > static_cast<Seq>(count_max)) {
    until = log.trimmed + static_cast<Seq>(count_max);
    more = true;
  }
  // What was trimmed before is gone, but for a run that reaches beyond it.
  execute(tx.sql, kDeleteMessages, std::max(log_begin(log.id), log.trimmed - kRunCountMax), until);
  // A queue removes nothing that a group has yet to get again; a log and a bus do.
  if (log.topic->kind != spi::TopicKind::kQueue) execute(tx.sql, kForgetReturned, log.id, log.trimmed, until);
  const auto removed = static_cast<std::uint64_t>(until - log.trimmed);
  log.trimmed = until;
  log.trimmed_dirty = true;
  tx.note_written(log);
  gather_fired(tx, log);
  return removed;
}

}  // namespace

Trimmed trim_all(Tx& tx, std::size_t count_max) {
  flush_settled(tx);
  Trimmed trimmed;
  const auto in_hand = oldest_in_hand(tx);
  for (auto& [id, log] : tx.catalog.logs) {
    if (trimmed.messages >= count_max) {
      trimmed.more = true;
      break;
    }
    log->settled_count = 0;
    trimmed.messages += trim_log(tx, *log, in_hand, count_max - trimmed.messages, trimmed.more);
  }
  return trimmed;
}

void trim_settled(Tx& tx, std::size_t count_max) {
  std::vector<LogState*> ready;
  for (LogState* log : tx.read) {
    if (log->settled_count >= kSettledEnough) ready.push_back(log);
  }
  if (ready.empty()) return;
  for (auto& [id, session] : tx.catalog.sessions)
    sync_partition_cursors(tx, *session);
  const auto in_hand = oldest_in_hand(tx);
  for (LogState* log : ready) {
    log->settled_count = 0;
    bool more = false;
    (void)trim_log(tx, *log, in_hand, count_max, more);
    if (more) log->settled_count = kSettledEnough;
  }
}

void flush_logs(Tx& tx) {
  for (LogState* log : tx.written) {
    if (!log->trimmed_dirty) continue;
    execute(tx.sql, kFlushLog, log->id, log->trimmed, log->body_last, log->swept);
    log->trimmed_dirty = false;
  }
}

}  // namespace towline::drivers::sqlite
