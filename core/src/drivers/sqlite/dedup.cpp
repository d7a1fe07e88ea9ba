// A dedup id that nobody can foresee has a place of its own in every ordered table, so that a batch would
// change a page for each of its messages. Therefore new ids are appended to `dedup_recent`, which has no
// other order than that of their numbers, and are found through an index in memory (dedup_index.hpp). It is
// made when the first id is asked for. What is a good deal older than the newest moves to `dedup`, which is
// ordered by id and is only looked into when it is not empty; so memory is bounded, however many are held.
//
// Numbers are given out once: the file counts them. So at the begin of a transaction the index is complete
// when it knows every number that was given out by then, and others have appended exactly what is greater
// than what was known. A transaction that is rolled back gives its numbers back, and then others may use
// them: `safe` is the greatest number that was committed when it was last looked, and everything after it is
// read again whenever another process has written or a transaction was undone (Catalog::generation). The
// index forgets a row that is not there, unless this very transaction has removed it and may yet put it back.

#include "drivers/sqlite/dedup.hpp"

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "drivers/sqlite/topics.hpp"

namespace towline::drivers::sqlite {
namespace {

/// Rows that are moved to `dedup` at once, sorted; more than a transaction usually appends. Moving begins
/// when the span is exceeded by a part of it.
constexpr std::int64_t kMoveMax = 2'048;
constexpr std::int64_t kPartBeyond = 8;
/// Dropping is worthwhile when a quarter of the index, and at least this part of the span, can be forgotten.
constexpr std::int64_t kDropPart = 64;
/// Rows that a sweep looks at beyond those that have expired one behind the other.
constexpr std::size_t kWalkCount = 1'000;

constexpr const char* kLast = "SELECT value FROM counter WHERE name = 'dedup'";
constexpr const char* kOldest = "SELECT min(number) FROM dedup_recent";
constexpr const char* kAnyOld = "SELECT 1 FROM dedup LIMIT 1";
constexpr const char* kNewer = "SELECT number, topic_id, dedup_id FROM dedup_recent WHERE number > ?1";
constexpr const char* kRow =
    "SELECT topic_id, dedup_id, expires_us, message_id FROM dedup_recent WHERE number = ?1";
constexpr const char* kAppend = "INSERT INTO dedup_recent VALUES(?1, ?2, ?3, ?4, ?5)";
constexpr const char* kRemove = "DELETE FROM dedup_recent WHERE number = ?1";
constexpr const char* kFirst =
    "SELECT number, topic_id, dedup_id, expires_us, message_id FROM dedup_recent WHERE number <= ?1"
    " ORDER BY number LIMIT ?2";
constexpr const char* kRemoveUpTo = "DELETE FROM dedup_recent WHERE number <= ?1";
constexpr const char* kWalk =
    "SELECT number, expires_us FROM dedup_recent WHERE number > ?1 ORDER BY number LIMIT ?2";

constexpr const char* kOldRow =
    "SELECT expires_us, message_id FROM dedup WHERE topic_id = ?1 AND dedup_id = ?2";
constexpr const char* kPutOld = "INSERT OR REPLACE INTO dedup VALUES(?1, ?2, ?3, ?4)";
constexpr const char* kRemoveOld = "DELETE FROM dedup WHERE topic_id = ?1 AND dedup_id = ?2";

/// Where an id is held, or was until it expired.
struct Held {
  std::int64_t number = 0;  ///< 0: in `dedup`
  bool expired = false;
  MessageId by;
};

bool has_expired(const Query& row, int column, TimePoint now) {
  return !row.is_null(column) && row.integer(column) <= to_us(now);
}

void remove_row(Tx& tx, std::int64_t number) {
  execute(tx.sql, kRemove, number);
  tx.catalog.dedup.removed.insert(number);
}

/// Reads what was appended by others, or is not known to be committed.
void catch_up(Tx& tx, DedupIds& ids) {
  if (!ids.loaded) {
    ids.index.clear();
    ids.safe = 0;
    ids.dropped = select_integer(tx.sql, kOldest).value_or(0);
  }
  // While only looking, others may commit between the two: then there are rows beyond this number.
  ids.last = select_integer(tx.sql, kLast).value_or(0);
  {
    Query rows(tx.sql, kNewer, ids.safe);
    while (rows.row()) {
      const std::int64_t number = rows.integer(0);
      ids.index.add(hash_of_dedup(rows.integer(1), rows.text(2)), number);
      ids.last = std::max(ids.last, number);
    }
  }
  if (!tx.sql.ok()) return;
  // What this transaction has removed before is not in the index, and may come back.
  ids.loaded = !tx.dedup_removed;
  ids.generation = tx.catalog.generation;
}

/// Once for each transaction, before it writes anything about dedup ids.
void make_ready(Tx& tx) {
  DedupIds& ids = tx.catalog.dedup;
  if (tx.dedup_ready || !tx.sql.ok()) return;
  if (!ids.loaded || ids.generation != tx.catalog.generation) catch_up(tx, ids);
  const std::int64_t oldest = select_integer(tx.sql, kOldest).value_or(ids.last + 1);
  const bool any_old = select_integer(tx.sql, kAnyOld).has_value();
  if (!tx.sql.ok()) return;
  // All that was appended in earlier transactions is committed, or the generation would be another.
  ids.safe = ids.last;
  ids.removed.clear();
  ids.oldest = oldest;
  ids.any_old = any_old;
  const auto size = static_cast<std::int64_t>(ids.index.size());
  if (oldest - ids.dropped >= std::max(ids.span_max / kDropPart, size / 4)) {
    ids.index.drop_before(oldest, ids.last);
    ids.dropped = oldest;
  }
  tx.dedup_ready = true;
}

std::optional<Held> look_up(Tx& tx, std::int64_t topic_id, std::string_view dedup_id, std::uint32_t hash) {
  DedupIds& ids = tx.catalog.dedup;
  Held held;
  const bool found = ids.index.find(hash, ids.last, [&](std::int64_t number) {
    using Row = DedupIndex::Row;
    Query row(tx.sql, kRow, number);
    if (!row.row()) return tx.sql.ok() && ids.removed.count(number) == 0 ? Row::kGone : Row::kOther;
    if (row.integer(0) != topic_id || row.text(1) != dedup_id) return Row::kOther;
    held = {number, has_expired(row, 2, tx.now.wall), row.id(3)};
    return Row::kIsIt;
  });
  if (found) return held;
  if (!ids.any_old) return std::nullopt;
  Query row(tx.sql, kOldRow, topic_id, dedup_id);
  if (!row.row()) return std::nullopt;
  return Held{0, has_expired(row, 0, tx.now.wall), row.id(1)};
}

void remove(Tx& tx, const Held& held, std::int64_t topic_id, std::string_view dedup_id) {
  if (held.number == 0) {
    execute(tx.sql, kRemoveOld, topic_id, dedup_id);
  } else {
    remove_row(tx, held.number);
  }
}

/// Makes room: moves some of the oldest rows.
void move_old(Tx& tx) {
  DedupIds& ids = tx.catalog.dedup;
  if (ids.last - ids.oldest < ids.span_max + ids.span_max / kPartBeyond) return;
  struct Row {
    std::int64_t topic_id;
    std::string dedup_id;
    std::optional<std::int64_t> expires_us;
    MessageId by;
  };
  std::vector<Row> moved;
  std::int64_t until = 0;
  {
    Query rows(tx.sql, kFirst, ids.last - ids.span_max, kMoveMax);
    while (rows.row()) {
      until = rows.integer(0);
      ids.removed.insert(until);
      if (has_expired(rows, 3, tx.now.wall)) continue;
      std::optional<std::int64_t> expires_us;
      if (!rows.is_null(3)) expires_us = rows.integer(3);
      moved.push_back({rows.integer(1), std::string(rows.text(2)), expires_us, rows.id(4)});
    }
  }
  // In the order they come to lie in.
  std::sort(moved.begin(), moved.end(), [](const Row& a, const Row& b) {
    return std::tie(a.topic_id, a.dedup_id) < std::tie(b.topic_id, b.dedup_id);
  });
  for (const Row& row : moved)
    execute(tx.sql, kPutOld, row.topic_id, row.dedup_id, row.expires_us, row.by);
  execute(tx.sql, kRemoveUpTo, until);
  ids.oldest = select_integer(tx.sql, kOldest).value_or(ids.last + 1);
  ids.any_old = true;
}

}  // namespace

std::optional<MessageId> find_dedup(Tx& tx, std::string_view topic, std::string_view dedup_id) {
  const TopicState* known = dedup_id.empty() ? nullptr : find_topic(tx.catalog, topic);
  if (known == nullptr) return std::nullopt;
  make_ready(tx);
  const auto held = look_up(tx, known->id, dedup_id, hash_of_dedup(known->id, dedup_id));
  return held && !held->expired ? std::optional(held->by) : std::nullopt;
}

std::optional<MessageId> hold_dedup(Tx& tx, const spi::Envelope& envelope) {
  const std::int64_t topic_id = topic_of(tx, envelope.topic).id;
  const std::uint32_t hash = hash_of_dedup(topic_id, envelope.dedup_id);
  make_ready(tx);
  if (const auto held = look_up(tx, topic_id, envelope.dedup_id, hash)) {
    if (!held->expired) return held->by;
    remove(tx, *held, topic_id, envelope.dedup_id);
  }
  move_old(tx);
  DedupIds& ids = tx.catalog.dedup;
  std::optional<std::int64_t> until;
  if (envelope.dedup_mode == DedupMode::kWindow && envelope.dedup_until != kNever) {
    until = to_us(envelope.dedup_until);
  }
  ++ids.last;
  ++tx.dedup_ids;
  // First to the index: it may know too much, but never too little.
  ids.index.add(hash, ids.last);
  execute(tx.sql, kAppend, ids.last, topic_id, envelope.dedup_id, until, envelope.id);
  return std::nullopt;
}

void forget_dedup(Tx& tx, const spi::ForgetDedup& write) {
  const TopicState* topic = find_topic(tx.catalog, write.topic);
  if (topic == nullptr) return;
  make_ready(tx);
  const auto held = look_up(tx, topic->id, write.dedup_id, hash_of_dedup(topic->id, write.dedup_id));
  if (held && held->by == write.message_id) remove(tx, *held, topic->id, write.dedup_id);
}

Swept sweep_dedup(Tx& tx, SweepPlaces& places, std::size_t count_max) {
  Swept swept;
  if (count_max == 0) return swept;
  if (tx.catalog.dedup.loaded) {
    make_ready(tx);  // gives memory back
  } else {
    tx.dedup_removed = true;
  }
  // Mostly they expire in the order of their numbers: those at the begin, as long as they have expired; of
  // the others a few each time.
  std::vector<std::int64_t> expired;
  for (const bool all : {false, true}) {
    const std::int64_t after = all ? places.dedup_number : 0;
    Query rows(tx.sql, kWalk, after, all ? std::min(count_max, kWalkCount) : count_max);
    std::size_t looked = 0;
    for (; expired.size() < count_max && rows.row(); ++looked) {
      const bool over = has_expired(rows, 1, tx.now.wall);
      if (over) expired.push_back(rows.integer(0));
      if (all) places.dedup_number = rows.integer(0);
      if (!over && !all) break;
    }
    if (all && looked < std::min(count_max, kWalkCount) && expired.size() < count_max) {
      places.dedup_number = 0;
    }
  }
  std::sort(expired.begin(), expired.end());
  expired.erase(std::unique(expired.begin(), expired.end()), expired.end());
  for (const std::int64_t number : expired)
    remove_row(tx, number);
  swept.removed = expired.size();
  swept.more = swept.removed >= count_max;
  if (swept.more) return swept;
  const Swept old = sweep_old_dedup(tx, places.dedup, tx.now.wall, count_max - expired.size());
  swept.removed += old.removed;
  swept.more = old.more;
  return swept;
}

}  // namespace towline::drivers::sqlite
