// A body lies where its message was published, and messages fire in another order. Removing each when it is
// done would change a page of `body` and one of its index for every message. So the narrow message rows that
// name the bodies stay behind when their log is trimmed; when there are many, their bodies are sorted and
// removed in the order they lie in, a little with each transaction, several from one page. Then the rows go,
// too. All of it can be begun again after a death: removing what is gone does nothing.

#include "drivers/sqlite/fired.hpp"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "drivers/sqlite/cancelled.hpp"
#include "drivers/sqlite/due_rows.hpp"
#include "drivers/sqlite/schedule.hpp"
#include "drivers/sqlite/topics.hpp"

namespace towline::drivers::sqlite {
namespace {

/// So many are worth a pass, and so is this part of all that wait for their time: the denser they lie, the
/// more of them share a page.
constexpr std::size_t kWorthwhile = 20'000;
constexpr std::size_t kPartOfScheduled = 4;
/// Rows looked through, or removed, by one transaction.
constexpr std::size_t kRowsPerStep = 4'096;
constexpr std::size_t kBodiesPerStepMin = 16;
constexpr std::size_t kBodiesPerRest = 256;

constexpr Duration kFiredAge = std::chrono::hours(24);
/// Small enough that ids land near each other, large enough that there are few to look into.
constexpr std::int64_t kFiredSlotCount = 20'000;
constexpr Duration kFiredSlotAge = std::chrono::hours(1);
constexpr std::int64_t kFiredSlotsMax = 100;

constexpr const char* kFiredBody =
    "SELECT body_id FROM body b WHERE " TOWLINE_RECORD_IS_1
    " AND order_key IS NULL AND group_id IS NULL AND NOT " TOWLINE_WAITS_FOR_DUE;
constexpr const char* kFiredId =
    "SELECT 1 FROM fired_slot s CROSS JOIN fired f ON f.slot = s.slot AND f.record_id = ?1 LIMIT 1";
constexpr const char* kFiredSlot =
    "SELECT slot FROM fired_slot WHERE slot = (SELECT max(slot) FROM fired_slot) AND count < ?1"
    " AND since_us > ?2";
constexpr const char* kInsertFiredSlot = "INSERT INTO fired_slot(since_us, count) VALUES(?1, 0)";
constexpr const char* kInsertFired = "INSERT OR IGNORE INTO fired VALUES(?1, ?2)";
constexpr const char* kCountFired = "UPDATE fired_slot SET count = count + ?2 WHERE slot = ?1";
constexpr const char* kOldestFired =
    "SELECT slot FROM fired_slot WHERE slot = (SELECT min(slot) FROM fired_slot)"
    " AND (since_us < ?1 OR slot <= (SELECT max(slot) FROM fired_slot) - ?2)";
constexpr const char* kForgetFired = "DELETE FROM fired WHERE slot = ?1";
constexpr const char* kForgetFiredSlot = "DELETE FROM fired_slot WHERE slot = ?1";

constexpr const char* kBodies =
    "SELECT seq, body_id FROM message WHERE seq > ?1 AND seq <= ?2 AND body_id IS NOT NULL"
    " ORDER BY seq LIMIT ?3";
constexpr const char* kBodyHead = "SELECT record_id, group_id FROM body WHERE body_id = ?1";
constexpr const char* kDeleteBody = "DELETE FROM body WHERE body_id = ?1";
constexpr const char* kDeleteRows =
    "DELETE FROM message WHERE seq IN (SELECT seq FROM message WHERE seq > ?1 AND seq <= ?2"
    " AND body_id IS NOT NULL ORDER BY seq LIMIT ?3)";
constexpr const char* kScheduled = "SELECT value FROM counter WHERE name = 'scheduled'";

/// Whether there are enough of them that it pays to remove them.
bool is_worthwhile(Tx& tx, const FiredBodies& fired) {
  if (!fired.pass.empty()) return true;
  if (fired.waiting.size() < kWorthwhile) return false;
  const std::int64_t scheduled = select_integer(tx.sql, kScheduled).value_or(0);
  return fired.waiting.size() >=
         static_cast<std::size_t>(std::max<std::int64_t>(0, scheduled)) / kPartOfScheduled;
}

/// One step of a pass.
void remove_some(Tx& tx, LogState& log, std::size_t count_max) {
  FiredBodies& fired = log.fired;
  if (fired.pass.empty()) {
    fired.pass.swap(fired.waiting);
    fired.pass_until = fired.gathered;
    std::sort(fired.pass.begin(), fired.pass.end());
  }
  std::string ids;
  const std::size_t end = std::min(fired.pass.size(), fired.removed + count_max);
  for (; fired.removed < end; ++fired.removed) {
    const std::int64_t id = fired.pass[fired.removed];
    {
      Query head(tx.sql, kBodyHead, id);
      // Only users ask, and they know the ids of what they delayed.
      if (head.row() && head.is_null(1)) ids.append(head.blob(0));
    }
    execute(tx.sql, kDeleteBody, id);
  }
  if (!ids.empty()) remember_fired(tx, ids);
  if (fired.removed < fired.pass.size()) return;
  execute(tx.sql, kDeleteRows, log.swept, fired.pass_until, kRowsPerStep);
  if (tx.sql.changes() == static_cast<int>(kRowsPerStep)) return;
  log.swept = fired.pass_until;
  log.trimmed_dirty = true;
  tx.note_written(log);
  fired.pass.clear();
  fired.removed = 0;
}

}  // namespace

void remember_fired(Tx& tx, std::string_view record_ids) {
  constexpr std::size_t kIdSize = 16;
  auto slot = select_integer(tx.sql, kFiredSlot, kFiredSlotCount, to_us(tx.now.wall - kFiredSlotAge));
  if (!slot) {
    execute(tx.sql, kInsertFiredSlot, to_us(tx.now.wall));
    slot = sqlite3_last_insert_rowid(tx.sql.raw());
  }
  std::vector<std::string_view> ids;
  ids.reserve(record_ids.size() / kIdSize);
  for (std::size_t at = 0; at + kIdSize <= record_ids.size(); at += kIdSize)
    ids.push_back(record_ids.substr(at, kIdSize));
  // In the order they lie in, so that neighbours share a page.
  std::sort(ids.begin(), ids.end());
  Query insert(tx.sql, kInsertFired);
  for (const std::string_view id : ids) {
    insert.bind(*slot, Blob{id}).run();
    insert.again();
  }
  execute(tx.sql, kCountFired, *slot, ids.size());
}

bool has_fired(Connection& sql, const MessageId& id) {
  {
    Query rows(sql, kFiredBody, id);
    while (rows.row()) {
      // Of one that was cancelled the row in `schedule` goes first.
      if (!is_cancelled(sql, rows.integer(0))) return true;
    }
  }
  return select_integer(sql, kFiredId, id).has_value();
}

bool forget_fired(Tx& tx) {
  const TimePoint before = tx.now.wall - kFiredAge - kFiredSlotAge;
  const auto slot = select_integer(tx.sql, kOldestFired, to_us(before), kFiredSlotsMax);
  if (!slot) return false;
  execute(tx.sql, kForgetFired, *slot);
  execute(tx.sql, kForgetFiredSlot, *slot);
  return true;
}

void gather_fired(Tx& tx, LogState& log) {
  FiredBodies& fired = log.fired;
  const Seq until = std::min(log.trimmed, log.body_last);
  if (fired.gathered >= until) return;
  std::size_t count = 0;
  Seq last = fired.gathered;
  Query rows(tx.sql, kBodies, fired.gathered, until, kRowsPerStep);
  for (; rows.row(); ++count) {
    last = rows.integer(0);
    fired.waiting.push_back(rows.integer(1));
  }
  fired.gathered = count < kRowsPerStep ? until : last;
}

void remove_fired(Tx& tx, std::size_t settled_count) {
  for (LogState* log : tx.read) {
    if (log->fired.count() == 0 && log->fired.pass.empty()) continue;
    // Another process may have trimmed and swept since: its row must not be set back.
    if (!is_worthwhile(tx, fresh(tx, *log).fired)) continue;
    remove_some(tx, *log, std::max(kBodiesPerStepMin, settled_count + settled_count / 4));
  }
}

bool remove_all_fired(Tx& tx, std::size_t count_max) {
  bool more = false;
  std::size_t left = std::min(count_max, kBodiesPerRest);
  for (auto& [id, log] : tx.catalog.logs) {
    if (std::exchange(log->busy, false)) continue;
    gather_fired(tx, fresh(tx, *log));
    FiredBodies& fired = log->fired;
    if (fired.count() == 0 && fired.pass.empty()) continue;
    if (left > 0) {
      const std::size_t before = fired.count();
      remove_some(tx, *log, left);
      left -= std::min(left, before - fired.count());
    }
    more = more || fired.count() > 0 || !fired.pass.empty() ||
           fired.gathered < std::min(log->trimmed, log->body_last);
  }
  return more;
}

}  // namespace towline::drivers::sqlite
