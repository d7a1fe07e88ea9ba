// Filters become a WHERE clause over bound parameters. Pages go by (created_at, id); of the conditions that
// are given, the one that is likely to be the most selective chooses the index, and each of those indexes
// continues with the page order, so no page ever sorts. Counts by status and topic are kept by triggers and
// are right also after an edit by hand.

#include "drivers/sqlite/dead_letters.hpp"

#include <array>
#include <string>
#include <utility>

#include "drivers/sqlite/headers_text.hpp"
#include "drivers/sqlite/page_cursor.hpp"

namespace towline::drivers::sqlite {
namespace {

constexpr std::size_t kPageCountMax = 1'000;
constexpr std::array kStatusNames = {"pending", "reprocessing", "resolved", "expired", "discarded"};
constexpr std::array kReasonNames = {"exhausted",  "permanent", "decode",         "expired",
                                     "crash_loop", "manual",    "publish_failed", "max_age"};

#define TOWLINE_DEAD_LETTER_COLUMNS                                                                     \
  "id, original_message_id, topic, \"group\", key, partition, headers, content_type, payload, reason, " \
  "error_type, "                                                                                        \
  "error_message, error_stack, fingerprint, retry_count, crashes, published_us, first_failed_at, "      \
  "last_failed_at, "                                                                                    \
  "created_at, reprocess_count, status, lease_until_us, metadata, version"

constexpr const char* kVersion = "SELECT version FROM dead_letter WHERE id = ?1";
constexpr const char* kErase = "DELETE FROM dead_letter WHERE id = ?1";
constexpr const char* kInsert = "INSERT INTO dead_letter(" TOWLINE_DEAD_LETTER_COLUMNS
                                ") VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, "
                                "?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23,"
                                " ?24, ?25)";
constexpr const char* kUpdate =
    "UPDATE dead_letter SET status = ?2, lease_until_us = ?3, reprocess_count = ?4, version = version + 1 "
    "WHERE id = ?1";
constexpr const char* kLeaseEnded =
    "SELECT 1 FROM dead_letter WHERE status = 'reprocessing' AND lease_until_us <= ?1 LIMIT 1";
constexpr const char* kEndLeases =
    "UPDATE dead_letter SET status = 'pending' WHERE status = 'reprocessing' AND lease_until_us <= ?1";
constexpr const char* kFind = "SELECT " TOWLINE_DEAD_LETTER_COLUMNS " FROM dead_letter WHERE id = ?1";
constexpr const char* kCounts = "SELECT status, sum(count) FROM dead_letter_count GROUP BY status";
constexpr const char* kTotal = "SELECT sum(count) FROM dead_letter_count";
constexpr const char* kSweepOld =
    "DELETE FROM dead_letter WHERE entry IN (SELECT entry FROM dead_letter INDEXED BY dead_letter_last_failed"
    " WHERE last_failed_at < ?1 AND status <> 'reprocessing' ORDER BY last_failed_at LIMIT ?2)";
constexpr const char* kSweepMany =
    "DELETE FROM dead_letter WHERE entry IN (SELECT entry FROM dead_letter INDEXED BY dead_letter_created"
    " WHERE status <> 'reprocessing' ORDER BY created_at, id LIMIT ?1)";

template <std::size_t kCount>
std::size_t index_of(const std::array<const char*, kCount>& names, std::string_view name) {
  for (std::size_t i = 0; i < kCount; ++i) {
    if (name == names[i]) return i;
  }
  return 0;
}

const char* name_of(DeadLetterStatus status) noexcept {
  return kStatusNames[static_cast<std::size_t>(status) % 5];
}
const char* name_of(DeadLetterReason reason) noexcept {
  return kReasonNames[static_cast<std::size_t>(reason) % 8];
}

MessageId parse_id(std::string_view text) {
  auto id = MessageId::parse(text);
  return id ? *id : MessageId{};
}

DeadLetter read(const Query& row) {
  DeadLetter letter;
  letter.id = parse_id(row.text(0));
  letter.message_id = parse_id(row.text(1));
  letter.topic = row.text(2);
  letter.group = row.text(3);
  if (!row.is_null(4)) letter.key.emplace(row.text(4));
  letter.partition = row.u32(5);
  letter.headers = headers_from_text(row.text(6));
  letter.content_type = row.text(7);
  letter.payload = row.blob(8);
  letter.reason = static_cast<DeadLetterReason>(index_of(kReasonNames, row.text(9)));
  letter.error_type = row.text(10);
  letter.error_message = row.text(11);
  letter.error_stack = row.text(12);
  letter.fingerprint = row.text(13);
  letter.attempt = row.u32(14);
  letter.crashes = row.u32(15);
  letter.published_at = from_us(row.integer(16));
  letter.first_failed_at = from_us(row.integer(17));
  letter.last_failed_at = from_us(row.integer(18));
  letter.created_at = from_us(row.integer(19));
  letter.reprocess_count = row.u32(20);
  letter.status = static_cast<DeadLetterStatus>(index_of(kStatusNames, row.text(21)));
  letter.lease_until = from_us(row.integer(22));
  letter.metadata = row.text(23);
  letter.version = static_cast<std::uint64_t>(row.integer(24));
  return letter;
}

/// A statement made for one query: filters differ, so it is not kept.
class FilterStatement {
 public:
  FilterStatement(Connection& sql, const DeadLetterQuery& query) : sql_(sql), query_(query) {
    where_ = " WHERE 1";
    // The index that decides comes first; the unary plus keeps the planner from choosing among the others.
    add_text("fingerprint", query.fingerprint);
    add_text("error_type", query.error_type);
    add_text("topic", query.topic);
    if (query.status) add("status = ", name_of(*query.status));
    if (!query.group.empty()) add("+\"group\" = ", query.group);
    if (query.reason) add("+reason = ", name_of(*query.reason));
    if (query.created_from) add("created_at >= ", to_us(*query.created_from));
    if (query.created_before) add("created_at < ", to_us(*query.created_before));
    if (!query.text.empty()) {
      const std::string parameter = bind_blob(query.text);
      where_ += " AND (instr(CAST(error_message AS BLOB), " + parameter + ") > 0 OR instr(payload, " +
                parameter + ") > 0)";
    }
  }
  ~FilterStatement() { sqlite3_finalize(statement_); }
  FilterStatement(const FilterStatement&) = delete;
  FilterStatement& operator=(const FilterStatement&) = delete;

  void after(const PagePlace& place) {
    const std::string rank = bind_number(place.rank);
    where_ += " AND (created_at, id) > (" + rank + ", " + bind_text(place.tie) + ")";
  }

  bool prepare(const std::string& columns, const std::string& rest) {
    const std::string text = "SELECT " + columns + " FROM dead_letter" + index_ + where_ + rest;
    const int code =
        sqlite3_prepare_v2(sql_.raw(), text.c_str(), static_cast<int>(text.size()), &statement_, nullptr);
    if (code != SQLITE_OK) sql_.fail(code);
    for (std::size_t i = 0; code == SQLITE_OK && i < values_.size(); ++i)
      bind(static_cast<int>(i + 1), values_[i]);
    return sql_.ok();
  }
  [[nodiscard]] sqlite3_stmt* statement() const noexcept { return statement_; }

 private:
  struct Value {
    enum class Kind : std::uint8_t { kNumber, kText, kBlob } kind;
    std::int64_t number = 0;
    std::string text;
  };

  void add_text(const std::string& column, const std::string& value) {
    if (value.empty()) return;
    const bool decides = index_.empty();
    if (decides) index_ = " INDEXED BY dead_letter_" + column;
    add((decides ? "" : "+") + column + " = ", value);
  }
  void add(const std::string& condition, std::string_view value) {
    where_ += " AND " + condition + bind_text(value);
  }
  void add(const std::string& condition, const char* value) { add(condition, std::string_view(value)); }
  void add(const std::string& condition, std::int64_t value) {
    where_ += " AND " + condition + bind_number(value);
  }

  std::string bind_text(std::string_view text) { return push({Value::Kind::kText, 0, std::string(text)}); }
  std::string bind_blob(std::string_view text) { return push({Value::Kind::kBlob, 0, std::string(text)}); }
  std::string bind_number(std::int64_t number) { return push({Value::Kind::kNumber, number, {}}); }
  std::string push(Value value) {
    values_.push_back(std::move(value));
    return "?" + std::to_string(values_.size());
  }
  void bind(int index, const Value& value) {
    int code = SQLITE_OK;
    switch (value.kind) {
      case Value::Kind::kNumber:
        code = sqlite3_bind_int64(statement_, index, value.number);
        break;
      case Value::Kind::kText:
        code = sqlite3_bind_text64(statement_, index, value.text.data(), value.text.size(), SQLITE_STATIC,
                                   SQLITE_UTF8);
        break;
      case Value::Kind::kBlob:
        code = sqlite3_bind_blob64(statement_, index, value.text.data(), value.text.size(), SQLITE_STATIC);
        break;
    }
    if (code != SQLITE_OK) sql_.fail(code);
  }

  Connection& sql_;
  const DeadLetterQuery& query_;
  sqlite3_stmt* statement_ = nullptr;
  std::string index_;
  std::string where_;
  std::vector<Value> values_;
};

Result<QuerySeal> check(const DeadLetterQuery& query) {
  if (query.count_max == 0 || query.count_max > kPageCountMax) {
    return Error{ErrorCode::kInvalidArgument, "count_max of the dead-letter query is " +
                                                  std::to_string(query.count_max) +
                                                  "; it must be in [1, 1000]"};
  }
  QuerySeal seal;
  seal.add("dead letters").add(query.topic).add(query.group).add(query.error_type).add(query.fingerprint);
  seal.add(query.text).add(query.status ? static_cast<std::uint64_t>(*query.status) + 1 : 0);
  seal.add(query.reason ? static_cast<std::uint64_t>(*query.reason) + 1 : 0);
  for (const auto& bound : {query.created_from, query.created_before}) {
    seal.add(bound ? 1 : 0).add(bound ? static_cast<std::uint64_t>(to_us(*bound)) : 0);
  }
  return seal;
}

/// A prepared statement in the clothes of Query.
class Rows {
 public:
  Rows(Connection& sql, sqlite3_stmt* statement) : sql_(sql), statement_(statement) {}
  bool row() {
    if (!sql_.ok()) return false;
    const int code = sqlite3_step(statement_);
    if (code != SQLITE_ROW && code != SQLITE_DONE) sql_.fail(code);
    return code == SQLITE_ROW;
  }
  [[nodiscard]] std::int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }
  [[nodiscard]] std::string text(int column) const {
    const auto* data = sqlite3_column_text(statement_, column);
    const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement_, column));
    return data == nullptr ? std::string() : std::string(reinterpret_cast<const char*>(data), size);
  }

 private:
  Connection& sql_;
  sqlite3_stmt* statement_;
};

}  // namespace

spi::Version dead_letter_version(Connection& sql, const MessageId& id) {
  return static_cast<spi::Version>(select_integer(sql, kVersion, id.to_string()).value_or(0));
}

void put_dead_letter(Tx& tx, const DeadLetter& letter) {
  const std::string id = letter.id.to_string();
  const std::string message_id = letter.message_id.to_string();
  const spi::Version version = dead_letter_version(tx.sql, letter.id) + 1;
  if (version > 1) execute(tx.sql, kErase, id);
  const std::string headers = headers_to_text(letter.headers);
  execute(tx.sql, kInsert, id, message_id, letter.topic, letter.group, letter.key, letter.partition, headers,
          letter.content_type, Blob{letter.payload}, name_of(letter.reason), letter.error_type,
          letter.error_message, letter.error_stack, letter.fingerprint, letter.attempt, letter.crashes,
          to_us(letter.published_at), to_us(letter.first_failed_at), to_us(letter.last_failed_at),
          to_us(letter.created_at), letter.reprocess_count, name_of(letter.status), to_us(letter.lease_until),
          letter.metadata, version);
}

void update_dead_letter(Tx& tx, const spi::UpdateDeadLetter& write) {
  execute(tx.sql, kUpdate, write.id.to_string(), name_of(write.status), to_us(write.lease_until),
          write.reprocess_count);
}

void erase_dead_letter(Tx& tx, const spi::EraseDeadLetter& write) {
  execute(tx.sql, kErase, write.id.to_string());
}

bool dead_letter_lease_ended(Connection& sql, TimePoint now) {
  return select_integer(sql, kLeaseEnded, to_us(now)).has_value();
}

void end_dead_letter_leases(Tx& tx) {
  if (dead_letter_lease_ended(tx.sql, tx.now.wall)) execute(tx.sql, kEndLeases, to_us(tx.now.wall));
}

std::optional<DeadLetter> find_dead_letter(Connection& sql, const MessageId& id) {
  const std::string text = id.to_string();
  Query row(sql, kFind, text);
  if (!row.row()) return std::nullopt;
  return read(row);
}

Result<Page<DeadLetter>> list_dead_letters(Connection& sql, const DeadLetterQuery& query) {
  auto seal = check(query);
  if (!seal) return std::move(seal).error();
  FilterStatement filter(sql, query);
  if (!query.cursor.empty()) {
    auto place = parse_cursor(query.cursor, *seal);
    if (!place) return std::move(place).error();
    filter.after(*place);
  }
  Page<DeadLetter> page;
  const std::string limit = " ORDER BY created_at, id LIMIT " + std::to_string(query.count_max + 1);
  if (!filter.prepare("entry, id, created_at", limit)) return page;
  // The page is found by narrow rows of an index, and only then are the entries read.
  constexpr const char* kByEntry = "SELECT " TOWLINE_DEAD_LETTER_COLUMNS " FROM dead_letter WHERE entry = ?1";
  Rows rows(sql, filter.statement());
  PagePlace last;
  while (rows.row()) {
    if (page.items.size() == query.count_max) {
      page.cursor = make_cursor(last, *seal);
      break;
    }
    last = {rows.integer(2), rows.text(1)};
    Query entry(sql, kByEntry, rows.integer(0));
    if (entry.row()) page.items.push_back(read(entry));
  }
  return page;
}

Result<std::vector<DeadLetterGroup>> group_dead_letters(Connection& sql, const DeadLetterQuery& query) {
  if (auto seal = check(query); !seal) return std::move(seal).error();
  std::vector<DeadLetterGroup> groups;
  FilterStatement filter(sql, query);
  // max() makes the bare columns those of the newest entry.
  const bool prepared = filter.prepare(
      "fingerprint, topic, error_type, error_message, count(*), min(created_at), max(created_at)",
      " GROUP BY fingerprint ORDER BY count(*) DESC, fingerprint LIMIT " + std::to_string(query.count_max));
  if (!prepared) return groups;
  Rows rows(sql, filter.statement());
  while (rows.row()) {
    DeadLetterGroup& group = groups.emplace_back();
    group.fingerprint = rows.text(0);
    group.topic = rows.text(1);
    group.error_type = rows.text(2);
    group.error_message = rows.text(3);
    group.count = static_cast<std::uint64_t>(rows.integer(4));
    group.first_at = from_us(rows.integer(5));
    group.last_at = from_us(rows.integer(6));
  }
  return groups;
}

void count_dead_letters(Connection& sql, std::uint64_t (&counts)[5]) {
  Query rows(sql, kCounts);
  while (rows.row())
    counts[index_of(kStatusNames, rows.text(0))] = static_cast<std::uint64_t>(rows.integer(1));
}

std::uint64_t sweep_dead_letters(Tx& tx, const spi::SweepRequest& request, std::size_t count_max) {
  if (count_max == 0) return 0;
  std::uint64_t removed = 0;
  if (execute(tx.sql, kSweepOld, to_us(request.dead_letters_before), count_max)) {
    removed += static_cast<std::uint64_t>(tx.sql.changes());
  }
  const auto total = static_cast<std::uint64_t>(select_integer(tx.sql, kTotal).value_or(0));
  if (total <= request.dead_letter_count_max || removed >= count_max) return removed;
  const std::uint64_t surplus =
      std::min<std::uint64_t>(total - request.dead_letter_count_max, count_max - removed);
  if (execute(tx.sql, kSweepMany, surplus)) removed += static_cast<std::uint64_t>(tx.sql.changes());
  return removed;
}

}  // namespace towline::drivers::sqlite
