// A log is cut off at its low end, in order: everything up to the least position that some group has yet to
// read, holds, or gets again. So a message stays while an older one of its log is unsettled, and removing is
// a delete of a range.
//
// A topic that no group has ever read keeps its messages. Log topics keep theirs for their retention, read or
// not; a bus keeps a few seconds for the subscribers of the moment.

#include "drivers/sqlite/trim.hpp"

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <vector>

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
constexpr Duration kBusAge = std::chrono::seconds(10);
constexpr Seq kBusCount = 10'000;

constexpr const char* kCursors = "SELECT group_id, read_seq FROM cursor WHERE log_id = ?1";
constexpr const char* kLeastReturned =
    "SELECT seq FROM redelivery WHERE group_id = ?1 AND seq > ?2 AND seq < ?3 ORDER BY seq LIMIT 1";
/// A run goes when all of it may go; what names a body goes with it (fired.hpp).
constexpr const char* kDeleteMessages =
    "DELETE FROM message WHERE seq > ?1 AND seq <= ?2 AND body_id IS NULL"
    " AND seq + coalesce(count, 1) - 1 <= ?2";
/// Of the row that has the position, or the last one before it.
constexpr const char* kMessageTime =
    "SELECT coalesce(m.published_us, b.due_us) FROM message m LEFT JOIN body b ON b.body_id = m.body_id"
    " WHERE m.seq > ?1 AND m.seq <= ?2 ORDER BY m.seq DESC LIMIT 1";
constexpr const char* kForgetReturned =
    "DELETE FROM redelivery WHERE group_id IN (SELECT group_id FROM cursor WHERE log_id = ?1)"
    " AND seq > ?2 AND seq <= ?3";
constexpr const char* kFlushLog =
    "UPDATE log SET trimmed_seq = ?2, body_seq = ?3, swept_seq = ?4 WHERE id = ?1";

/// The last position that every group is done with; nullopt: no group reads the topic.
std::optional<Seq> done_by_all(Tx& tx, LogState& log, const std::unordered_map<std::int64_t, Seq>& in_hand) {
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
  Seq done = log.last;
  for (const Of& of : groups) {
    done = std::min(done, of.read);
    const auto returned =
        select_integer(tx.sql, kLeastReturned, of.group_id, log_begin(log.id), log_end(log.id));
    if (returned) done = std::min(done, *returned - 1);
  }
  if (const auto held = in_hand.find(log.id); held != in_hand.end()) done = std::min(done, held->second - 1);
  return done;
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

/// Everything up to the result may go.
Seq bound_of(Tx& tx, LogState& log, const std::unordered_map<std::int64_t, Seq>& in_hand) {
  const TopicState& topic = *log.topic;
  if (topic.kind == spi::TopicKind::kBus) {
    return std::max(older_than(tx, log, log.last, tx.now.wall - kBusAge), log.last - kBusCount);
  }
  if (topic.kind == spi::TopicKind::kLog) {
    if (topic.retention <= Duration(0)) return log.trimmed;
    return older_than(tx, log, log.last, tx.now.wall - topic.retention);
  }
  const std::optional<Seq> done = done_by_all(tx, log, in_hand);
  if (!done) return log.trimmed;
  Seq bound = *done;
  if (topic.retention > Duration(0)) bound = older_than(tx, log, bound, tx.now.wall - topic.retention);
  if (bound > log.trimmed && has_ephemeral_readers(tx, topic)) {
    const Seq seen = ephemeral_low(tx, log);
    const Seq old = std::max(older_than(tx, log, bound, tx.now.wall - kBusAge), log.last - kBusCount);
    bound = std::min(bound, std::max(seen, old));
  }
  return bound;
}

std::uint64_t trim_log(Tx& tx, LogState& log, const std::unordered_map<std::int64_t, Seq>& in_hand,
                       std::size_t count_max, bool& more) {
  if (count_max == 0) return 0;
  fresh(tx, log);
  if (log.trimmed >= log.last) return 0;
  Seq until = bound_of(tx, log, in_hand);
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
