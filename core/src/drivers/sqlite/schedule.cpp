// A record is written once, to `body`. While it waits, there is a narrow row that is found by due time
// (due_rows.hpp); firing deletes that row and appends a message that names the body, so it touches neither
// the payload nor any index of the body. What is parked has no schedule row. A body with neither has fired,
// and goes when its message is removed from the log.

#include "drivers/sqlite/schedule.hpp"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "base/ids.hpp"
#include "codec/extras.hpp"
#include "drivers/sqlite/cancelled.hpp"
#include "drivers/sqlite/dedup.hpp"
#include "drivers/sqlite/due_rows.hpp"
#include "drivers/sqlite/fired.hpp"
#include "drivers/sqlite/page_cursor.hpp"
#include "drivers/sqlite/publish.hpp"
#include "drivers/sqlite/records.hpp"
#include "drivers/sqlite/topics.hpp"

namespace towline::drivers::sqlite {
namespace {

constexpr std::size_t kPageCountMax = 1'000;
/// Rows that one call looks at while it finds nothing but cancelled ones.
constexpr std::size_t kLookMax = 4'096;

constexpr const char* kFindWaiting =
    "SELECT body_id, version, due_us, order_key, promised_us, topic_id, priority, skip_if_late_by_us, "
    "group_id, extras IS NOT NULL "
    "FROM body b"
    " WHERE " TOWLINE_RECORD_IS_1 " AND (order_key IS NOT NULL OR " TOWLINE_WAITS_FOR_DUE ")";
constexpr const char* kInsertBody =
    "INSERT INTO body(record_id, topic_id, priority, due_us, order_key, version, skip_if_late_by_us, "
    TOWLINE_ENVELOPE_COLUMNS("message_id") ", body_id) VALUES(?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, ?8, ?9, ?10, "
    "?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)";
constexpr const char* kBodyLast = "SELECT value FROM counter WHERE name = 'bodies'";
constexpr const char* kDeleteBody = "DELETE FROM body WHERE body_id = ?1";
constexpr const char* kMoveBody =
    "UPDATE body SET due_us = ?2, order_key = NULL, promised_us = NULL, version = version + 1 WHERE body_id "
    "= ?1";
constexpr const char* kUnparkBody =
    "UPDATE body SET due_us = ?2, order_key = NULL, heads_key = 1, skip_if_late_by_us = NULL, version = "
    "version + 1"
    " WHERE body_id = ?1";
constexpr const char* kClaimBody =
    "UPDATE body SET due_us = ?2, promised_us = ?3, version = version + 1 WHERE body_id = ?1";
constexpr const char* kRule =
    "SELECT skip_if_late_by_us, topic_id, priority, promised_us FROM body WHERE body_id = ?1";

#define TOWLINE_RECORD_COLUMNS                                                                          \
  "b.body_id, b.record_id, t.name, g.name, b.priority, b.due_us, b.order_key, b.skip_if_late_by_us, "   \
  "b.version, "                                                                                         \
  "b.partition, b.group_id, coalesce(b.message_id, b.record_id), b.key, b.published_us, b.expires_us, " \
  "b.attempt, "                                                                                         \
  "b.crashes, b.redrives, b.heads_key, b.extras, b.payload"
#define TOWLINE_RECORD_TABLES "body b JOIN topic t ON t.id = b.topic_id LEFT JOIN grp g ON g.id = b.group_id"
constexpr int kEnvelopeAt = 9;

constexpr const char* kRecord =
    "SELECT " TOWLINE_RECORD_COLUMNS " FROM " TOWLINE_RECORD_TABLES " WHERE b.body_id = ?1";
constexpr const char* kListParked =
    "SELECT b.body_id FROM body b WHERE b.order_key IS NOT NULL AND b.body_id > ?1 AND (?2 = '' OR "
    "b.topic_id ="
    " (SELECT id FROM topic WHERE name = ?2)) AND (?3 = '' OR b.group_id = (SELECT id FROM grp WHERE name = "
    "?3))"
    " AND (?4 IS NULL OR b.partition = ?4) AND (?5 IS NULL OR b.order_key = ?5) ORDER BY b.body_id";

constexpr const char* kBlocked =
    "SELECT 1 FROM key_block WHERE group_id = (SELECT id FROM grp WHERE name = ?1)"
    " AND topic_id = (SELECT id FROM topic WHERE name = ?2) AND partition = ?3 AND key = ?4";
constexpr const char* kPutBlock = "INSERT OR REPLACE INTO key_block VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)";
constexpr const char* kEraseBlock =
    "DELETE FROM key_block WHERE group_id = ?1 AND topic_id = ?2 AND partition = ?3 AND key = ?4";
constexpr const char* kBlockHead =
    "SELECT head FROM key_block WHERE group_id = ?1 AND topic_id = ?2 AND partition = ?3 AND key = ?4";
constexpr const char* kMoveHead =
    "UPDATE key_block SET head = ?5, held = 0 WHERE group_id = ?1 AND topic_id = ?2 AND partition = ?3 AND "
    "key = ?4";
constexpr const char* kFirstParked =
    "SELECT body_id FROM body WHERE group_id = ?1 AND topic_id = ?2 AND partition = ?3 AND order_key = ?4"
    " ORDER BY body_id LIMIT 1";
constexpr const char* kCountParked =
    "SELECT count(*) FROM body WHERE group_id = ?1 AND topic_id = ?2 AND partition = ?3 AND order_key = ?4";
constexpr const char* kHead = "SELECT coalesce(message_id, record_id), priority FROM body WHERE body_id = ?1";
constexpr const char* kBlocks =
    "SELECT k.group_id, k.topic_id, k.partition, k.key, k.head, k.since_us, k.held FROM key_block k"
    " WHERE k.group_id = (SELECT id FROM grp WHERE name = ?1) AND k.topic_id = (SELECT id FROM topic WHERE "
    "name = ?2)"
    " AND (?3 IS NULL OR k.partition = ?3) ORDER BY k.partition, k.key";

void note_due(Tx& tx, TimePoint due_at) {
  Catalog& catalog = tx.catalog;
  if (catalog.due_generation != catalog.generation || due_at >= catalog.next_due) {
    if (catalog.due_generation != catalog.generation) tx.due_earlier = true;
    return;
  }
  catalog.next_due = due_at;
  tx.due_earlier = true;
}

void insert_due(Tx& tx, std::int64_t body_id, TimePoint due_at, TopicState& topic, std::uint8_t priority,
                bool has_rule) {
  std::optional<std::int64_t> log_id;
  if (!has_rule) log_id = log_of(tx, topic, priority).id;
  insert_due_row(tx, to_us(due_at), body_id, log_id);
  ++tx.scheduled;
  note_due(tx, due_at);
}

void delete_due(Tx& tx, const Waiting& waiting) {
  if (waiting.parked) {
    --tx.parked;
    return;
  }
  delete_due_row(tx, to_us(waiting.due_at), waiting.body_id);
  --tx.scheduled;
  if (waiting.due_at <= tx.catalog.next_due) tx.catalog.due_generation = kNoGeneration;
}

std::int64_t next_body_id(Tx& tx) {
  Catalog& catalog = tx.catalog;
  if (catalog.body_generation != catalog.generation) {
    catalog.body_last = select_integer(tx.sql, kBodyLast).value_or(0);
    catalog.body_generation = catalog.generation;
  }
  ++tx.bodies;
  return ++catalog.body_last;
}

TopicState* topic_by_id(Tx& tx, std::int64_t id) {
  const auto it = tx.catalog.topics.find(id);
  return it == tx.catalog.topics.end() ? nullptr : it->second.get();
}

std::optional<spi::ScheduleRecord> read_record(Connection& sql, std::int64_t body_id, bool with_payload) {
  Query row(sql, kRecord, body_id);
  if (!row.row()) return std::nullopt;
  spi::ScheduleRecord record;
  record.sequence = static_cast<std::uint64_t>(row.integer(0));
  record.id = row.id(1);
  record.envelope.topic = row.text(2);
  record.envelope.group = row.text(3);
  record.envelope.priority = static_cast<std::uint8_t>(row.integer(4));
  record.due_at = from_us(row.integer(5));
  record.parked = !row.is_null(6);
  record.order_key = row.text(6);
  record.skip_if_late_by = Duration(row.integer(7));
  record.version = static_cast<spi::Version>(row.integer(8));
  (void)read_envelope(row, kEnvelopeAt, record.envelope);
  record.payload_size = record.envelope.payload.size();
  if (!with_payload) record.envelope.payload.clear();
  return record;
}

/// One row of `schedule` that is due.
struct Due {
  TimePoint at{};
  TimePoint promised_at{};
  std::int64_t body_id = 0;
  std::int64_t log_id = 0;
};

/// Whether the misfire rule of the record says that it is too late; finds its log.
bool too_late(Tx& tx, Due& due) {
  Query row(tx.sql, kRule, due.body_id);
  if (!row.row()) return false;
  const Duration bound(row.integer(0));
  if (!row.is_null(3)) due.promised_at = from_us(row.integer(3));
  TopicState* topic = topic_by_id(tx, row.integer(1));
  if (topic != nullptr) due.log_id = log_of(tx, *topic, static_cast<std::uint8_t>(row.integer(2))).id;
  return bound > Duration(0) && tx.now.wall - due.promised_at > bound;
}

void claim_due(Tx& tx, const Due& due, Duration lease, spi::DueBatch& out) {
  auto record = read_record(tx.sql, due.body_id, true);
  if (!record) return;
  // At least a little, or this call would find it due again.
  const TimePoint until = after(tx.now.wall, std::max<Duration>(lease, std::chrono::milliseconds(1)));
  execute(tx.sql, kClaimBody, due.body_id, to_us(until), to_us(due.promised_at));
  if (TopicState* topic = find_topic(tx.catalog, record->envelope.topic)) {
    insert_due(tx, due.body_id, until, *topic, record->envelope.priority, true);
  }
  ++record->version;
  // The caller wants to know how late it is, not when the claim ends.
  record->due_at = due.promised_at;
  out.records.push_back(std::move(*record));
}

}  // namespace

std::optional<Waiting> find_waiting(Connection& sql, const MessageId& id) {
  Query row(sql, kFindWaiting, id);
  // A cancelled record may still be there beside one that was put with its id later.
  do {
    if (!row.row()) return std::nullopt;
  } while (is_cancelled(sql, row.integer(0)));
  Waiting waiting;
  waiting.body_id = row.integer(0);
  waiting.version = static_cast<spi::Version>(row.integer(1));
  waiting.due_at = from_us(row.integer(2));
  waiting.parked = !row.is_null(3);
  waiting.claimed = !row.is_null(4);
  waiting.topic_id = row.integer(5);
  waiting.priority = static_cast<std::uint8_t>(row.integer(6));
  waiting.has_rule = row.integer(7) != 0;
  waiting.addressed = !row.is_null(8);
  waiting.has_extras = row.integer(9) != 0;
  return waiting;
}

void put_schedule(Tx& tx, const spi::ScheduleRecord& record) {
  const spi::Envelope& envelope = record.envelope;
  if (deduplicates(envelope)) (void)hold_dedup(tx, envelope);  // the unit was checked
  TopicState& topic = topic_of(tx, envelope.topic);
  std::optional<std::int64_t> group_id;
  if (!envelope.group.empty()) group_id = group_of(tx, envelope.group).id;
  const std::string extras = codec::encode_extras(envelope);
  std::optional<std::int64_t> bound;
  if (record.skip_if_late_by > Duration(0)) bound = record.skip_if_late_by.count();
  const std::int64_t body_id = next_body_id(tx);
  {
    Query insert(tx.sql, kInsertBody, record.id, topic.id, envelope.priority, to_us(record.due_at),
                 record.parked ? std::optional<std::string_view>(record.order_key) : std::nullopt, bound);
    bind_envelope(insert, 7, envelope, group_id, extras);
    if (envelope.id == record.id) insert.set(9, nullptr);
    if (base::time_of(envelope.id) == envelope.published_at) insert.set(11, nullptr);
    insert.set(19, body_id);
    insert.run();
  }
  if (record.parked) {
    ++tx.parked;
    return;
  }
  insert_due(tx, body_id, record.due_at, topic, envelope.priority, bound.has_value());
}

void erase_schedule(Tx& tx, const spi::EraseSchedule& write) {
  if (const auto waiting = find_waiting(tx.sql, write.id)) erase_schedule(tx, write, *waiting);
}

void erase_schedule(Tx& tx, const spi::EraseSchedule& write, const Waiting& waiting) {
  // Dedup ids are among the extras.
  const auto record = write.finishes && waiting.has_extras ? read_record(tx.sql, waiting.body_id, false)
                                                           : std::optional<spi::ScheduleRecord>();
  if (record && record->envelope.dedup_mode == DedupMode::kWhileUnfinished) {
    forget_dedup(tx, {record->envelope.topic, record->envelope.dedup_id, record->envelope.id});
  }
  if (write.version == 0 && !waiting.parked) {
    note_cancelled(tx, waiting.body_id);
    return;
  }
  if (waiting.claimed && write.version != 0 && !waiting.addressed) {
    remember_fired(tx, blob_of(write.id).bytes);
  }
  delete_due(tx, waiting);
  execute(tx.sql, kDeleteBody, waiting.body_id);
}

void move_schedule(Tx& tx, const spi::MoveSchedule& write) {
  const auto waiting = find_waiting(tx.sql, write.id);
  if (!waiting) return;
  TopicState* topic = topic_by_id(tx, waiting->topic_id);
  if (topic == nullptr) return;
  delete_due(tx, *waiting);
  execute(tx.sql, kMoveBody, waiting->body_id, to_us(write.due_at));
  insert_due(tx, waiting->body_id, write.due_at, *topic, waiting->priority, waiting->has_rule);
}

bool is_blocked(Connection& sql, const std::string& group, const std::string& topic, std::uint32_t partition,
                const std::string& key) {
  return select_integer(sql, kBlocked, group, topic, partition, key).has_value();
}

void put_key_block(Tx& tx, const spi::KeyBlock& block) {
  execute(tx.sql, kPutBlock, group_of(tx, block.group).id, topic_of(tx, block.topic).id, block.partition,
          block.key, block.head, to_us(block.since), block.held ? 1 : 0);
}

void unpark_next(Tx& tx, const spi::UnparkNext& write) {
  const std::int64_t group_id = group_of(tx, write.group).id;
  TopicState& topic = topic_of(tx, write.topic);
  if (!write.head.empty()) {
    Query row(tx.sql, kBlockHead, group_id, topic.id, write.partition, write.key);
    if (row.row() && row.id(0) != write.head) return;
  }
  const auto next = select_integer(tx.sql, kFirstParked, group_id, topic.id, write.partition, write.key);
  if (!next) {
    execute(tx.sql, kEraseBlock, group_id, topic.id, write.partition, write.key);
    return;
  }
  MessageId head;
  std::uint8_t priority = 0;
  {
    Query row(tx.sql, kHead, *next);
    if (!row.row()) return;
    head = row.id(0);
    priority = static_cast<std::uint8_t>(row.integer(1));
  }
  --tx.parked;
  execute(tx.sql, kUnparkBody, *next, to_us(write.due_at));
  // A misfire rule was for the first firing; what was parked is not too late.
  insert_due(tx, *next, write.due_at, topic, priority, false);
  execute(tx.sql, kMoveHead, group_id, topic.id, write.partition, write.key, head);
}

TimePoint next_due(Tx& tx) {
  Catalog& catalog = tx.catalog;
  if (catalog.due_generation != catalog.generation) {
    const auto us = first_due_us(tx.sql);
    catalog.next_due = us ? from_us(*us) : kNever;
    catalog.due_generation = catalog.generation;
  }
  return catalog.next_due;
}

namespace {

/// The first rows that are due, at most `count_max`; they are removed from the schedule, and those that were
/// cancelled altogether.
std::vector<Due> take_rows(Tx& tx, std::size_t count_max) {
  std::vector<Due> due;
  const bool some_cancelled = any_cancelled(tx.sql);
  for (std::size_t looked = 0; due.size() < count_max && looked < kLookMax;) {
    const std::size_t wanted = count_max - due.size();
    const auto first_new = static_cast<std::ptrdiff_t>(due.size());
    {
      Query rows(tx.sql, kDueRows, INT64_MIN, INT64_MIN, to_us(tx.now.wall), wanted);
      while (rows.row()) {
        const TimePoint at = from_us(rows.integer(0));
        due.push_back({at, at, rows.integer(1), rows.integer(2)});
      }
    }
    const std::size_t found = due.size() - static_cast<std::size_t>(first_new);
    if (found == 0) break;
    looked += found;
    take_due_rows(tx, to_us(due.back().at), due.back().body_id);
    tx.catalog.due_generation = kNoGeneration;
    if (!some_cancelled) break;
    const auto cancelled = std::remove_if(due.begin() + first_new, due.end(), [&](const Due& one) {
      if (!is_cancelled(tx.sql, one.body_id)) return false;
      remove_cancelled(tx, one.body_id);
      return true;
    });
    due.erase(cancelled, due.end());
    if (found < wanted) break;
  }
  tx.scheduled -= static_cast<std::int64_t>(due.size());
  return due;
}

}  // namespace

void take_due(Tx& tx, const spi::DueRequest& request, bool promote, spi::DueBatch& out) {
  std::vector<Due> due = take_rows(tx, request.count_max);
  LogState* log = nullptr;
  for (Due& one : due) {
    const bool late = one.log_id == 0 && too_late(tx, one);
    if (!promote || late || one.log_id == 0) {
      claim_due(tx, one, request.lease, out);
      continue;
    }
    if (log == nullptr || log->id != one.log_id) log = &fresh(tx, *tx.catalog.logs.at(one.log_id));
    append_body(tx, *log, one.body_id);
    out.lateness.push_back(tx.now.wall - one.promised_at);
    ++out.promoted_count;
  }
  const TimePoint next = next_due(tx);
  if (next != kNever) out.next_due_at = next;
}

std::optional<spi::ScheduleRecord> find_schedule(Connection& sql, const MessageId& id) {
  const auto waiting = find_waiting(sql, id);
  return waiting ? read_record(sql, waiting->body_id, true) : std::nullopt;
}

namespace {

struct ListState {
  const spi::ScheduleQuery& query;
  std::size_t count_max;
  QuerySeal seal;
  Page<spi::ScheduleRecord> page;
  PagePlace last;

  /// False: the page is full.
  bool add(spi::ScheduleRecord&& record, std::int64_t rank) {
    if (page.items.size() == count_max) {
      page.cursor = make_cursor(last, seal);
      return false;
    }
    last = {rank, std::to_string(record.sequence)};
    page.items.push_back(std::move(record));
    return true;
  }
};

bool matches(const spi::ScheduleRecord& record, const spi::ScheduleQuery& query) {
  const spi::Envelope& e = record.envelope;
  if (!query.topic.empty() && e.topic != query.topic) return false;
  if (e.group != query.group && !(query.parked && query.group.empty())) return false;
  return !query.partition || e.partition == *query.partition;
}

void list_due(Connection& sql, ListState& state, std::int64_t after_us, std::int64_t after_body) {
  constexpr const char* kLogsOfTopic =
      "SELECT l.id FROM log l JOIN topic t ON t.id = l.topic_id WHERE t.name = ?1";
  std::vector<std::int64_t> logs;
  if (!state.query.topic.empty()) {
    Query rows(sql, kLogsOfTopic, state.query.topic);
    while (rows.row())
      logs.push_back(rows.integer(0));
  }
  Query rows(sql, kDueRows, after_us, after_body, INT64_MAX, INT64_MAX);
  while (rows.row()) {
    // The narrow row says enough to pass over the other topics.
    const bool other = !state.query.topic.empty() && !rows.is_null(2) &&
                       std::find(logs.begin(), logs.end(), rows.integer(2)) == logs.end();
    if (other || is_cancelled(sql, rows.integer(1))) continue;
    auto record = read_record(sql, rows.integer(1), false);
    if (!record || !matches(*record, state.query)) continue;
    if (state.query.key && record->envelope.key != state.query.key) continue;
    if (!state.add(std::move(*record), rows.integer(0))) return;
  }
}

void list_parked(Connection& sql, ListState& state, std::int64_t after_body) {
  const spi::ScheduleQuery& query = state.query;
  Query rows(sql, kListParked, after_body, query.topic, query.group, query.partition, query.key);
  while (rows.row()) {
    auto record = read_record(sql, rows.integer(0), true);
    if (!record || !matches(*record, state.query)) continue;
    if (!state.add(std::move(*record), 0)) return;
  }
}

}  // namespace

Result<Page<spi::ScheduleRecord>> list_schedule(Connection& sql, const spi::ScheduleQuery& query) {
  if (query.count_max == 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "count_max of the schedule query is 0; it must be in [1, 1000]"};
  }
  ListState state{query, std::min(query.count_max, kPageCountMax), {}, {}, {}};
  state.seal.add("schedule").add(query.topic).add(query.group).add(query.parked ? 1 : 0);
  state.seal.add(query.partition ? *query.partition + 1ULL : 0)
      .add(query.key ? 1 : 0)
      .add(query.key.value_or(""));
  std::int64_t rank = INT64_MIN;
  std::int64_t body_id = 0;
  if (!query.cursor.empty()) {
    auto place = parse_cursor(query.cursor, state.seal);
    if (!place) return std::move(place).error();
    rank = place->rank;
    body_id = std::strtoll(place->tie.c_str(), nullptr, 10);
  }
  if (query.parked) {
    list_parked(sql, state, body_id);
  } else {
    list_due(sql, state, rank, body_id);
  }
  return std::move(state.page);
}

std::vector<spi::KeyBlock> list_key_blocks(Connection& sql, std::string_view group, std::string_view topic,
                                           std::optional<std::uint32_t> partition) {
  std::vector<spi::KeyBlock> blocks;
  Query rows(sql, kBlocks, group, topic, partition);
  while (rows.row()) {
    spi::KeyBlock& block = blocks.emplace_back();
    block.group = group;
    block.topic = topic;
    block.partition = rows.u32(2);
    block.key = rows.text(3);
    block.head = rows.id(4);
    block.since = from_us(rows.integer(5));
    block.held = rows.integer(6) != 0;
    const auto count =
        select_integer(sql, kCountParked, rows.integer(0), rows.integer(1), block.partition, block.key);
    block.parked_count = static_cast<std::uint64_t>(count.value_or(0));
  }
  return blocks;
}

}  // namespace towline::drivers::sqlite
