// Point reads and writes by primary key, and the sweeps along it.

#include "drivers/sqlite/records.hpp"

#include <string>
#include <utility>

#include "drivers/sqlite/topics.hpp"

namespace towline::drivers::sqlite {
namespace {

using State = spi::IdempotencyRecord::State;

constexpr std::size_t kLookFactor = 4;

constexpr const char* kFindIdempotency =
    "SELECT state, fingerprint, fence, lease_until_us, expires_us, has_result, content_type, version, result"
    " FROM idempotency WHERE scope = ?1 AND key = ?2 AND (expires_us IS NULL OR expires_us > ?3)";
constexpr const char* kIdempotencyVersion =
    "SELECT version FROM idempotency WHERE scope = ?1 AND key = ?2 AND (expires_us IS NULL OR expires_us > "
    "?3)";
constexpr const char* kIdempotencyExists = "SELECT 1 FROM idempotency WHERE scope = ?1 AND key = ?2";
constexpr const char* kPutIdempotency =
    "INSERT OR REPLACE INTO idempotency(scope, key, state, fingerprint, fence, lease_until_us, expires_us, "
    "has_result,"
    " content_type, version, result) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
constexpr const char* kEraseIdempotency = "DELETE FROM idempotency WHERE scope = ?1 AND key = ?2";
constexpr const char* kWalkIdempotency =
    "SELECT scope, key, expires_us FROM idempotency WHERE (scope, key) > (?1, ?2) ORDER BY scope, key LIMIT "
    "?3";

constexpr const char* kInInbox =
    "SELECT 1 FROM inbox WHERE group_id = (SELECT id FROM grp WHERE name = ?1) AND message_id = ?2 AND "
    "expires_us > ?3";
constexpr const char* kPutInbox = "INSERT OR REPLACE INTO inbox VALUES(?1, ?2, ?3)";
constexpr const char* kEraseInbox = "DELETE FROM inbox WHERE group_id = ?1 AND message_id = ?2";
constexpr const char* kWalkInbox =
    "SELECT group_id, message_id, expires_us FROM inbox WHERE (group_id, message_id) > (?1, ?2)"
    " ORDER BY group_id, message_id LIMIT ?3";

constexpr const char* kEraseDedup = "DELETE FROM dedup WHERE topic_id = ?1 AND dedup_id = ?2";
constexpr const char* kWalkDedup =
    "SELECT topic_id, dedup_id, expires_us FROM dedup WHERE (topic_id, dedup_id) > (?1, ?2)"
    " ORDER BY topic_id, dedup_id LIMIT ?3";

const char* name_of(State state) noexcept {
  switch (state) {
    case State::kInProgress:
      return "in_progress";
    case State::kDone:
      return "done";
    case State::kFailed:
      return "failed";
  }
  return "failed";
}

State state_of(std::string_view name) noexcept {
  if (name == "in_progress") return State::kInProgress;
  return name == "done" ? State::kDone : State::kFailed;
}

}  // namespace

std::optional<spi::IdempotencyRecord> find_idempotency(Connection& sql, std::string_view scope,
                                                       std::string_view key, TimePoint now) {
  Query row(sql, kFindIdempotency, scope, key, to_us(now));
  if (!row.row()) return std::nullopt;
  spi::IdempotencyRecord record;
  record.scope = scope;
  record.key = key;
  record.state = state_of(row.text(0));
  record.fingerprint = row.text(1);
  record.fence = static_cast<std::uint64_t>(row.integer(2));
  record.lease_until = from_us(row.integer(3));
  record.expires_at = row.is_null(4) ? kNever : from_us(row.integer(4));
  record.has_result = row.integer(5) != 0;
  record.content_type = row.text(6);
  record.version = static_cast<spi::Version>(row.integer(7));
  record.result = row.blob(8);
  return record;
}

spi::Version idempotency_version(Connection& sql, std::string_view scope, std::string_view key,
                                 TimePoint now) {
  return static_cast<spi::Version>(
      select_integer(sql, kIdempotencyVersion, scope, key, to_us(now)).value_or(0));
}

void put_idempotency(Tx& tx, const spi::PutIdempotency& write) {
  const spi::IdempotencyRecord& record = write.record;
  if (!select_integer(tx.sql, kIdempotencyExists, record.scope, record.key)) ++tx.idempotency;
  std::optional<std::int64_t> expires;
  if (record.expires_at != kNever) expires = to_us(record.expires_at);
  execute(tx.sql, kPutIdempotency, record.scope, record.key, name_of(record.state), record.fingerprint,
          record.fence, to_us(record.lease_until), expires, record.has_result ? 1 : 0, record.content_type,
          write.expected + 1, Blob{record.result});
}

void erase_idempotency(Tx& tx, const spi::EraseIdempotency& write) {
  execute(tx.sql, kEraseIdempotency, write.scope, write.key);
  tx.idempotency -= tx.sql.changes();
}

bool inbox_holds(Connection& sql, std::string_view group, const MessageId& id, TimePoint now) {
  return select_integer(sql, kInInbox, group, id, to_us(now)).has_value();
}

void put_inbox(Tx& tx, const spi::PutInbox& write) {
  execute(tx.sql, kPutInbox, group_of(tx, write.group).id, write.message_id, to_us(write.expires_at));
}

namespace {

struct Expired {
  std::string first, second;
  std::int64_t number = 0;
};

/// Walks on from `place` and collects what has expired. `numbered`: the first column is an integer.
std::vector<Expired> walk(Tx& tx, const char* sql, SweepPlace& place, bool numbered, TimePoint now,
                          std::size_t count_max, bool& more) {
  std::vector<Expired> expired;
  const std::size_t look_max = count_max * kLookFactor;
  std::size_t looked = 0;
  Query rows(tx.sql, sql);
  if (numbered) {
    rows.set(1, place.started ? place.number : INT64_MIN);
  } else {
    rows.set(1, place.first);
  }
  // Text sorts before blobs, so an empty text is before everything.
  if (numbered && place.started && sql == kWalkInbox) {
    rows.set(2, Blob{place.second});
  } else {
    rows.set(2, place.second);
  }
  rows.set(3, look_max);
  SweepPlace reached;
  while (expired.size() < count_max && rows.row()) {
    ++looked;
    reached.started = true;
    reached.first = numbered ? std::string() : std::string(rows.text(0));
    reached.number = numbered ? rows.integer(0) : 0;
    reached.second = sql == kWalkInbox ? rows.blob(1) : rows.text(1);
    if (!rows.is_null(2) && rows.integer(2) <= to_us(now)) {
      expired.push_back({reached.first, reached.second, reached.number});
    }
  }
  more = looked == look_max || expired.size() == count_max;
  // At the end the next sweep begins anew.
  place = more ? reached : SweepPlace{};
  return expired;
}

}  // namespace

Swept sweep_idempotency(Tx& tx, SweepPlace& place, TimePoint now, std::size_t count_max) {
  Swept swept;
  if (count_max == 0) return swept;
  for (const Expired& one : walk(tx, kWalkIdempotency, place, false, now, count_max, swept.more)) {
    erase_idempotency(tx, {one.first, one.second, 0});
    ++swept.removed;
  }
  return swept;
}

Swept sweep_inbox(Tx& tx, SweepPlace& place, TimePoint now, std::size_t count_max) {
  Swept swept;
  if (count_max == 0) return swept;
  for (const Expired& one : walk(tx, kWalkInbox, place, true, now, count_max, swept.more)) {
    execute(tx.sql, kEraseInbox, one.number, Blob{one.second});
    ++swept.removed;
  }
  return swept;
}

Swept sweep_old_dedup(Tx& tx, SweepPlace& place, TimePoint now, std::size_t count_max) {
  Swept swept;
  if (count_max == 0) return swept;
  for (const Expired& one : walk(tx, kWalkDedup, place, true, now, count_max, swept.more)) {
    execute(tx.sql, kEraseDedup, one.number, one.second);
    ++swept.removed;
  }
  return swept;
}

}  // namespace towline::drivers::sqlite
