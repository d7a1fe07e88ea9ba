// A row may have been written past the view, so nothing in it is believed: what has the wrong form is read as
// something that whoever relays it refuses, and no row keeps the others from being read.

#include "drivers/sqlite/outbox.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include "drivers/sqlite/model.hpp"

namespace towline::drivers::sqlite {
namespace {

constexpr std::size_t kReadBytesMax = 1 << 20;

constexpr const char* kRead =
    "SELECT number, written_us, topic, payload, key, headers, content_type, priority, delay_us, due_us,"
    " skip_if_late_by_us, ttl_us, dedup_id, dedup_mode, message_id, correlation_id, causation_id, traceparent"
    " FROM outbox ORDER BY number LIMIT ?1";
constexpr const char* kHeaders =
    "SELECT key, value FROM json_each(CASE WHEN json_valid(?1) THEN ?1 ELSE '{\"not JSON\": \"\"}' END)";
constexpr const char* kAny = "SELECT 1 FROM outbox LIMIT 1";
constexpr const char* kHolds = "SELECT 1 FROM outbox WHERE number = ?1";
constexpr const char* kErase = "DELETE FROM outbox WHERE number = ?1";

constexpr std::uint8_t kNoPriority = UINT8_MAX;

std::uint8_t priority_of(std::int64_t value) noexcept {
  return value < 0 || value > kNoPriority ? kNoPriority : static_cast<std::uint8_t>(value);
}

Headers headers_of(Connection& sql, std::string_view json) {
  Headers headers;
  Query rows(sql, kHeaders, json);
  while (rows.row())
    headers.emplace_back(std::string(rows.text(0)), std::string(rows.text(1)));
  return headers;
}

MessageId message_id_of(const Query& row, int column) {
  const std::string_view bytes = row.blob(column);
  if (bytes.size() == MessageId{}.bytes.size()) return row.id(column);
  return MessageId::parse(bytes).value_or({});
}

spi::OutboxEntry entry_of(Connection& sql, const Query& row) {
  spi::OutboxEntry entry;
  entry.number = static_cast<std::uint64_t>(row.integer(0));
  entry.written_at = from_us(row.integer(1));
  Message& message = entry.message;
  message.topic = row.text(2);
  message.payload = row.blob(3);
  if (!row.is_null(4)) message.key.emplace(row.text(4));
  if (!row.is_null(5)) message.headers = headers_of(sql, row.text(5));
  message.content_type = row.text(6);
  message.priority = priority_of(row.integer(7));
  message.delay = Duration(row.integer(8));
  if (!row.is_null(9)) message.due_at = from_us(row.integer(9));
  message.misfire.skip_if_late_by = Duration(row.integer(10));
  message.ttl = Duration(row.integer(11));
  message.dedup_id = row.text(12);
  message.dedup_mode = row.text(13) == "while_unfinished" ? DedupMode::kWhileUnfinished : DedupMode::kWindow;
  message.id = message_id_of(row, 14);
  message.correlation_id = row.text(15);
  message.causation_id = row.text(16);
  message.traceparent = row.text(17);
  return entry;
}

}  // namespace

std::vector<spi::OutboxEntry> read_outbox(Connection& sql, std::size_t count_max) {
  std::vector<spi::OutboxEntry> entries;
  std::size_t bytes = 0;
  Query rows(sql, kRead, count_max);
  while (rows.row()) {
    bytes += rows.blob(3).size();
    if (!entries.empty() && bytes > kReadBytesMax) break;
    entries.push_back(entry_of(sql, rows));
  }
  return entries;
}

bool outbox_holds_any(Connection& sql) { return select_integer(sql, kAny).has_value(); }

bool outbox_holds(Connection& sql, std::uint64_t number) {
  return select_integer(sql, kHolds, number).has_value();
}

void erase_outbox_entry(Tx& tx, const spi::EraseOutboxEntry& write) { execute(tx.sql, kErase, write.number); }

}  // namespace towline::drivers::sqlite
