// Streams. One writer at a time gives out positions and versions in the transaction that stores them, so
// whoever reads a snapshot of the file sees no position behind which a lower one appears later.

#include "drivers/sqlite/streams.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "base/streams.hpp"
#include "drivers/sqlite/headers_text.hpp"

namespace towline::drivers::sqlite {
namespace {

/// The same statements over the tables of a space. An event is found by the index of the ids: the plus keeps
/// the planner from reading its whole stream instead.
struct Statements {
  const char *find_stream, *make_stream, *newest, *oldest, *find_id, *last_position, *insert, *truncate;
  const char *read, *read_backwards, *read_all, *list, *erase;
};

#define TOWLINE_COLUMNS "position, version, recorded_us, id, type, payload, content_type, headers"
#define TOWLINE_STATEMENTS(stream, entry)                                                                \
  {                                                                                                      \
    "SELECT id FROM " stream " WHERE name = ?1", "INSERT INTO " stream "(name) VALUES(?1)",              \
        "SELECT max(version) FROM " entry " WHERE stream_id = ?1",                                       \
        "SELECT min(version) FROM " entry " WHERE stream_id = ?1",                                       \
        "SELECT version, position FROM " entry " WHERE id = ?1 AND +stream_id = ?2",                     \
        "SELECT max(position) FROM " entry,                                                              \
        "INSERT INTO " entry                                                                             \
        "(position, version, recorded_us, id, type, payload, content_type, headers,"                     \
        " stream_id) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",                                        \
        "DELETE FROM " entry " WHERE stream_id = ?1 AND version < ?2",                                   \
        "SELECT " TOWLINE_COLUMNS " FROM " entry                                                         \
        " WHERE stream_id = ?1 AND version >= ?2 ORDER BY version LIMIT ?3",                             \
        "SELECT " TOWLINE_COLUMNS " FROM " entry                                                         \
        " WHERE stream_id = ?1 AND version <= ?2 ORDER BY version DESC LIMIT ?3",                        \
        "SELECT " TOWLINE_COLUMNS ", (SELECT name FROM " stream " s WHERE s.id = stream_id) FROM " entry \
        " WHERE position >= ?1 ORDER BY position LIMIT ?2",                                              \
        "SELECT id, name FROM " stream " WHERE name > ?1 AND name >= ?2 ORDER BY name LIMIT ?3",         \
        "DELETE FROM " stream " WHERE id = ?1"                                                           \
  }

constexpr Statements kEvents = TOWLINE_STATEMENTS("event_stream", "event_record");
constexpr Statements kConversations = TOWLINE_STATEMENTS("conversation_stream", "conversation_record");

constexpr Statements kSagas = TOWLINE_STATEMENTS("saga_stream", "saga_record");

const Statements& of(spi::StreamSpace space) noexcept {
  switch (space) {
    case spi::StreamSpace::kEvents:
      return kEvents;
    case spi::StreamSpace::kConversations:
      return kConversations;
    case spi::StreamSpace::kSagas:
      break;
  }
  return kSagas;
}

constexpr const char* kFirstSince =
    "SELECT version FROM conversation_record WHERE stream_id = ?1 AND recorded_us >= ?2"
    " ORDER BY version LIMIT 1";
// The length of a payload is known without reading it.
constexpr const char* kSizes =
    "SELECT version, length(payload) FROM conversation_record WHERE stream_id = ?1 AND version >= ?2"
    " ORDER BY version DESC";
constexpr const char* kPutSnapshot =
    "INSERT INTO event_snapshot(stream_id, version, saved_us, content_type, state) VALUES(?1, ?2, ?3, ?4, ?5)"
    " ON CONFLICT DO UPDATE SET version = excluded.version, saved_us = excluded.saved_us,"
    " content_type = excluded.content_type, state = excluded.state WHERE excluded.version >= version";
constexpr const char* kFindSnapshot =
    "SELECT version, saved_us, content_type, state FROM event_snapshot"
    " WHERE stream_id = (SELECT id FROM event_stream WHERE name = ?1)";
constexpr const char* kFindCursor =
    "SELECT stream, place, owner, lease_until_us, version FROM event_cursor WHERE name = ?1";
constexpr const char* kCursorVersion = "SELECT version FROM event_cursor WHERE name = ?1";
constexpr const char* kPutCursor =
    "INSERT OR REPLACE INTO event_cursor(name, stream, place, owner, lease_until_us, version)"
    " VALUES(?1, ?2, ?3, ?4, ?5, ?6)";

/// 0: there is none.
std::int64_t stream_id(Connection& sql, const Statements& statements, std::string_view name) {
  return select_integer(sql, statements.find_stream, name).value_or(0);
}

std::uint64_t newest_version(Connection& sql, const Statements& statements, std::int64_t id) {
  return static_cast<std::uint64_t>(select_integer(sql, statements.newest, id).value_or(0));
}

/// SQLite's integers end before ours.
std::int64_t bounded(std::uint64_t number) noexcept {
  return static_cast<std::int64_t>(std::min<std::uint64_t>(number, INT64_MAX));
}

RecordedEvent event_of(const Query& row) {
  RecordedEvent event;
  event.position = static_cast<std::uint64_t>(row.integer(0));
  event.version = static_cast<std::uint64_t>(row.integer(1));
  event.recorded_at = from_us(row.integer(2));
  event.id = row.id(3);
  event.type = row.text(4);
  event.payload = row.blob(5);
  event.content_type = row.text(6);
  if (!row.is_null(7)) event.headers = headers_from_text(row.text(7));
  return event;
}

/// Steps through `rows`; false: there is more, but no room for it.
bool take(Query& rows, const spi::StreamRead& read, spi::StreamSlice& slice) {
  std::size_t bytes = 0;
  while (rows.row()) {
    const std::size_t size = rows.blob(5).size();
    const bool fits = slice.events.empty() || bytes + size <= read.payload_bytes_max;
    if (slice.events.size() >= read.count_max || !fits) return false;
    bytes += size;
    slice.events.push_back(event_of(rows));
    slice.events.back().stream = read.stream.empty() ? std::string(rows.text(8)) : read.stream;
  }
  return true;
}

}  // namespace

namespace {

struct Place {
  std::uint64_t version = 0;
  std::uint64_t position = 0;
};

std::optional<Place> find_event(Connection& sql, const Statements& statements, const MessageId& event,
                                std::int64_t stream) {
  if (stream == 0) return std::nullopt;
  Query found(sql, statements.find_id, event, stream);
  if (!found.row()) return std::nullopt;
  return Place{static_cast<std::uint64_t>(found.integer(0)), static_cast<std::uint64_t>(found.integer(1))};
}

}  // namespace

Result<void> check_append(Connection& sql, const spi::AppendEvents& write) {
  const Statements& statements = of(write.space);
  const std::int64_t id = stream_id(sql, statements, write.stream);
  const auto version_of = [&](const MessageId& event) -> std::optional<std::uint64_t> {
    const auto place = find_event(sql, statements, event, id);
    return place ? std::optional(place->version) : std::nullopt;
  };
  auto known = base::find_repeated(write.stream, write.events, version_of);
  if (!known) return std::move(known).error();
  if (*known || !write.expected) return {};
  const std::uint64_t newest = id == 0 ? 0 : newest_version(sql, statements, id);
  return base::check_expected(write.stream, newest, write.expected);
}

std::optional<Appended> repeated_append(Connection& sql, const spi::AppendEvents& write) {
  if (write.events.empty()) return std::nullopt;
  const Statements& statements = of(write.space);
  const std::int64_t id = stream_id(sql, statements, write.stream);
  const auto first = find_event(sql, statements, write.events.front().id, id);
  if (!first) return std::nullopt;
  const auto last = find_event(sql, statements, write.events.back().id, id);
  return Appended{first->version, first->version + write.events.size() - 1, last ? last->position : 0, true};
}

Appended append_events(Tx& tx, const spi::AppendEvents& write) {
  const Statements& statements = of(write.space);
  std::int64_t id = stream_id(tx.sql, statements, write.stream);
  if (id == 0) {
    execute(tx.sql, statements.make_stream, write.stream);
    id = sqlite3_last_insert_rowid(tx.sql.raw());
  }
  std::uint64_t version = newest_version(tx.sql, statements, id);
  std::int64_t position = select_integer(tx.sql, statements.last_position).value_or(0);
  Appended appended;
  appended.first_version = version + 1;
  for (const RecordedEvent& event : write.events) {
    std::optional<std::string> headers, content_type;
    if (!event.headers.empty()) headers = headers_to_text(event.headers);
    if (!event.content_type.empty()) content_type = event.content_type;
    execute(tx.sql, statements.insert, ++position, ++version, to_us(event.recorded_at), event.id, event.type,
            Blob{event.payload}, content_type, headers, id);
  }
  appended.last_version = version;
  appended.last_position = static_cast<std::uint64_t>(position);
  tx.events_appended = true;
  return appended;
}

bool has_version(Connection& sql, spi::StreamSpace space, std::string_view stream, std::uint64_t version) {
  const Statements& statements = of(space);
  const std::int64_t id = stream_id(sql, statements, stream);
  return id != 0 && version >= 1 && version <= newest_version(sql, statements, id);
}

void truncate_stream(Tx& tx, const spi::TruncateStream& write) {
  const Statements& statements = of(write.space);
  const std::int64_t id = stream_id(tx.sql, statements, write.stream);
  const std::uint64_t newest = newest_version(tx.sql, statements, id);
  execute(tx.sql, statements.truncate, id, bounded(std::min(write.before_version, newest)));
}

void trim_conversation(Tx& tx, const spi::TrimConversation& write, std::optional<std::uint64_t> unread) {
  const std::int64_t id = stream_id(tx.sql, kConversations, write.conversation);
  if (id == 0) return;
  const std::uint64_t newest = newest_version(tx.sql, kConversations, id);
  std::uint64_t before = newest >= write.count_max ? newest - write.count_max + 1 : 0;
  if (write.recorded_before > TimePoint{}) {
    const auto kept = select_integer(tx.sql, kFirstSince, id, to_us(write.recorded_before));
    before = std::max(before, kept ? static_cast<std::uint64_t>(*kept) : newest);
  }
  if (write.bytes_max != UINT64_MAX) {
    Query sizes(tx.sql, kSizes, id, bounded(before));
    for (std::uint64_t bytes = 0; sizes.row();) {
      bytes += static_cast<std::uint64_t>(sizes.integer(1));
      if (bytes <= write.bytes_max) continue;
      before = static_cast<std::uint64_t>(sizes.integer(0)) + 1;
      break;
    }
  }
  before = std::min({before, newest, unread.value_or(newest)});
  execute(tx.sql, kConversations.truncate, id, bounded(before));
}

void erase_stream(Tx& tx, spi::StreamSpace space, std::string_view stream) {
  const Statements& statements = of(space);
  const std::int64_t id = stream_id(tx.sql, statements, stream);
  execute(tx.sql, statements.truncate, id, INT64_MAX);
  execute(tx.sql, statements.erase, id);
}

void put_snapshot(Tx& tx, const spi::PutSnapshot& write) {
  const Snapshot& snapshot = write.snapshot;
  execute(tx.sql, kPutSnapshot, stream_id(tx.sql, kEvents, write.stream), bounded(snapshot.version),
          to_us(snapshot.saved_at), snapshot.content_type, Blob{snapshot.state});
}

std::uint64_t event_cursor_version(Connection& sql, std::string_view name) {
  return static_cast<std::uint64_t>(select_integer(sql, kCursorVersion, name).value_or(0));
}

void put_event_cursor(Tx& tx, const spi::PutEventCursor& write) {
  const spi::EventCursor& cursor = write.cursor;
  execute(tx.sql, kPutCursor, cursor.name, cursor.stream, bounded(cursor.place), cursor.owner,
          to_us(cursor.lease_until), write.expected + 1);
}

Result<spi::StreamSlice> read_stream(Connection& sql, const spi::StreamRead& read) {
  const Statements& statements = of(read.space);
  spi::StreamSlice slice;
  slice.last_position = last_position(sql, read.space);
  // One more than is wanted: whether there is more.
  const std::int64_t limit = bounded(read.count_max) + 1;
  if (read.stream.empty()) {
    Query rows(sql, statements.read_all, bounded(read.from), limit);
    slice.end = take(rows, read, slice);
    return slice;
  }
  slice.end = true;
  const std::int64_t id = stream_id(sql, statements, read.stream);
  std::uint64_t from = read.from;
  if (!read.after_id.empty()) {
    const auto known = id == 0 ? std::nullopt : select_integer(sql, statements.find_id, read.after_id, id);
    if (!known) return base::no_such_id(read.stream, read.after_id);
    from = static_cast<std::uint64_t>(*known) + 1;
  }
  if (id == 0) return slice;
  slice.newest_version = newest_version(sql, statements, id);
  slice.oldest_version = static_cast<std::uint64_t>(select_integer(sql, statements.oldest, id).value_or(0));
  Query rows(sql, read.backwards ? statements.read_backwards : statements.read, id, bounded(from), limit);
  slice.end = take(rows, read, slice);
  return slice;
}

Page<StreamInfo> list_streams(Connection& sql, spi::StreamSpace space, std::string_view prefix,
                              std::size_t count_max, std::string_view cursor) {
  const Statements& statements = of(space);
  Page<StreamInfo> page;
  Query rows(sql, statements.list, cursor, prefix, bounded(count_max) + 1);
  while (rows.row() && rows.text(1).starts_with(prefix)) {
    if (page.items.size() == count_max) {
      page.cursor = page.items.back().name;
      break;
    }
    const std::int64_t id = rows.integer(0);
    const auto oldest = static_cast<std::uint64_t>(select_integer(sql, statements.oldest, id).value_or(0));
    page.items.push_back({std::string(rows.text(1)), oldest, newest_version(sql, statements, id)});
  }
  return page;
}

std::optional<Snapshot> find_snapshot(Connection& sql, std::string_view stream) {
  Query row(sql, kFindSnapshot, stream);
  if (!row.row()) return std::nullopt;
  Snapshot snapshot;
  snapshot.version = static_cast<std::uint64_t>(row.integer(0));
  snapshot.saved_at = from_us(row.integer(1));
  snapshot.content_type = row.text(2);
  snapshot.state = row.blob(3);
  return snapshot;
}

std::optional<spi::EventCursor> find_event_cursor(Connection& sql, std::string_view name) {
  Query row(sql, kFindCursor, name);
  if (!row.row()) return std::nullopt;
  spi::EventCursor cursor;
  cursor.name = name;
  cursor.stream = row.text(0);
  cursor.place = static_cast<std::uint64_t>(row.integer(1));
  cursor.owner = row.text(2);
  cursor.lease_until = from_us(row.integer(3));
  cursor.version = static_cast<std::uint64_t>(row.integer(4));
  return cursor;
}

std::uint64_t last_position(Connection& sql, spi::StreamSpace space) {
  return static_cast<std::uint64_t>(select_integer(sql, of(space).last_position).value_or(0));
}

}  // namespace towline::drivers::sqlite
