// One statement list per version. Names are for people: everything is a plain table that sqlite3 shows; `_us`
// columns are microseconds since 1970 (UTC). README.md says what the tables mean.
//
// Where the payload of a message lies decides the speed, so these are the rules the tables follow:
//   - `message` is only appended to and only deleted from its low end; seq = log id << 40 | position in the
//     log; what is published together shares a row;
//   - a delayed message is written once to `body`; `schedule` is narrow, and firing appends a `message` row
//     that only names the body;
//   - what a group holds is one row per hand-out in `claim`, not one per message.

#include "drivers/sqlite/schema.hpp"

#include <string>

#include "drivers/sqlite/contract.hpp"

namespace towline::drivers::sqlite {
namespace {

constexpr const char* kVersion1 = R"sql(
CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;

CREATE TABLE topic(
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL CHECK(kind IN ('queue', 'log', 'bus')),
  partition_count INTEGER NOT NULL,
  retention_us INTEGER NOT NULL,
  created_us INTEGER NOT NULL);

CREATE TABLE log(
  id INTEGER PRIMARY KEY,
  topic_id INTEGER NOT NULL REFERENCES topic(id),
  priority INTEGER NOT NULL,
  trimmed_seq INTEGER NOT NULL,   -- everything up to here was removed, but for bodies and what names them
  swept_seq INTEGER NOT NULL,     -- up to here these, too
  body_seq INTEGER NOT NULL,      -- no message after this one names a body
  UNIQUE(topic_id, priority));

CREATE TABLE message(
  seq INTEGER PRIMARY KEY,        -- log.id << 40 | position
  count INTEGER,                  -- set: a run of so many messages from seq on, all in payload (runs.hpp)
  body_id INTEGER,                -- set: everything else is there
  published_us INTEGER,
  payload BLOB,
  id BLOB,
  partition INTEGER,
  group_id INTEGER,               -- NULL: for every group
  key TEXT,
  extras BLOB,
  expires_us INTEGER,
  attempt INTEGER,                -- NULL: 1
  crashes INTEGER,                -- NULL: 0, as the next two
  redrives INTEGER,
  heads_key INTEGER);

CREATE TABLE grp(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

CREATE TABLE interest(            -- patterns a group has subscribed to: topics made later are kept for it
  group_id INTEGER NOT NULL,
  pattern TEXT NOT NULL,
  PRIMARY KEY(group_id, pattern)) WITHOUT ROWID;

CREATE TABLE grp_topic(
  topic_id INTEGER NOT NULL,
  group_id INTEGER NOT NULL,
  partitioned INTEGER NOT NULL,   -- 1: read partition by partition
  PRIMARY KEY(topic_id, group_id)) WITHOUT ROWID;

CREATE TABLE cursor(
  log_id INTEGER NOT NULL,
  group_id INTEGER NOT NULL,
  read_seq INTEGER NOT NULL,      -- everything up to here was handed out or passed over
  PRIMARY KEY(log_id, group_id)) WITHOUT ROWID;

CREATE TABLE partition_cursor(
  log_id INTEGER NOT NULL,
  group_id INTEGER NOT NULL,
  partition INTEGER NOT NULL,
  read_seq INTEGER NOT NULL,
  PRIMARY KEY(log_id, group_id, partition)) WITHOUT ROWID;

CREATE TABLE member(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  group_id INTEGER NOT NULL,      -- 0: ephemeral
  consumer TEXT NOT NULL,
  pid INTEGER NOT NULL,
  patterns TEXT NOT NULL,         -- one a line
  order_mode TEXT NOT NULL,
  partitions TEXT NOT NULL,       -- those it asks for, '' for all
  lease_us INTEGER NOT NULL,
  lease_until_us INTEGER NOT NULL,
  lost_count INTEGER NOT NULL);

CREATE TABLE member_topic(
  topic_id INTEGER NOT NULL,
  member_id INTEGER NOT NULL,
  PRIMARY KEY(topic_id, member_id)) WITHOUT ROWID;

CREATE TABLE ownership(
  topic_id INTEGER NOT NULL,
  group_id INTEGER NOT NULL,
  partition INTEGER NOT NULL,
  member_id INTEGER NOT NULL,     -- 0: free
  epoch INTEGER NOT NULL,
  revoking INTEGER NOT NULL,
  PRIMARY KEY(topic_id, group_id, partition)) WITHOUT ROWID;

CREATE TABLE claim(               -- one hand-out of messages of one log to one member
  id INTEGER PRIMARY KEY,         -- the lease token; the greatest stays as a mark when it is empty
  group_id INTEGER NOT NULL,
  member_id INTEGER NOT NULL,
  log_id INTEGER NOT NULL,
  first_seq INTEGER NOT NULL,
  count INTEGER NOT NULL,
  remaining INTEGER NOT NULL,
  entries BLOB,                   -- NULL: first_seq and those that follow
  settled BLOB,                   -- one bit each
  lease_us INTEGER NOT NULL,
  lease_until_us INTEGER NOT NULL);

CREATE TABLE redelivery(          -- came back unsettled; handed out before anything newer
  group_id INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  partition INTEGER NOT NULL,
  crashes INTEGER NOT NULL,
  suspect INTEGER NOT NULL,       -- 1: may have killed its process, handed out alone
  redelivered INTEGER NOT NULL,
  PRIMARY KEY(group_id, seq)) WITHOUT ROWID;

-- Columns that mostly are NULL come last: such a tail takes no room. They have no payload to be read through
-- where they matter, but for what is parked.
CREATE TABLE body(                -- waits for its due time, is parked, or was promoted and not removed yet
  body_id INTEGER PRIMARY KEY,    -- never used again: a message may name it after it is gone
  record_id BLOB NOT NULL,
  topic_id INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  partition INTEGER NOT NULL,
  due_us INTEGER NOT NULL,
  version INTEGER NOT NULL,
  group_id INTEGER,
  key TEXT,
  extras BLOB,
  payload BLOB NOT NULL,
  message_id BLOB,                -- NULL: the record id
  published_us INTEGER,           -- NULL: the time in the message's id
  order_key TEXT,                 -- set: parked behind this key, without a due time
  promised_us INTEGER,            -- set while claimed: when it was due
  skip_if_late_by_us INTEGER,
  expires_us INTEGER,
  attempt INTEGER,                -- NULL: 1, as in message
  crashes INTEGER,
  redrives INTEGER,
  heads_key INTEGER);
-- Of an id what tells it apart: the times of the last weeks to a sixteenth of a millisecond, and its end.
CREATE INDEX body_record ON body(substr(record_id, 3, 5) || substr(record_id, 14));
CREATE INDEX body_parked ON body(group_id, topic_id, partition, order_key, body_id)
  WHERE order_key IS NOT NULL;

CREATE TABLE schedule(
  due_us INTEGER NOT NULL,
  body_id INTEGER NOT NULL,
  log_id INTEGER,                 -- NULL: the body has a misfire rule or is claimed, look there
  PRIMARY KEY(due_us, body_id)) WITHOUT ROWID;

CREATE TABLE cancelled(           -- bodies that will never fire; removed with their rows now and then
  body_id INTEGER PRIMARY KEY);

CREATE TABLE fired(               -- ids of delayed messages that fired, for a day
  slot INTEGER NOT NULL,          -- those that fired at about the same time, and go together
  record_id BLOB NOT NULL,
  PRIMARY KEY(slot, record_id)) WITHOUT ROWID;

CREATE TABLE fired_slot(
  slot INTEGER PRIMARY KEY,
  since_us INTEGER NOT NULL,
  count INTEGER NOT NULL);

CREATE TABLE key_block(
  group_id INTEGER NOT NULL,
  topic_id INTEGER NOT NULL,
  partition INTEGER NOT NULL,
  key TEXT NOT NULL,
  head BLOB NOT NULL,
  since_us INTEGER NOT NULL,
  held INTEGER NOT NULL,
  PRIMARY KEY(group_id, topic_id, partition, key)) WITHOUT ROWID;

CREATE TABLE dead_letter(
  entry INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  original_message_id TEXT NOT NULL,
  topic TEXT NOT NULL,
  "group" TEXT NOT NULL,
  key TEXT,
  partition INTEGER NOT NULL,
  headers TEXT NOT NULL,          -- name: value, one a line; \n, \\ and \: are escaped
  content_type TEXT NOT NULL,
  payload BLOB NOT NULL,
  reason TEXT NOT NULL,
  error_type TEXT NOT NULL,
  error_message TEXT NOT NULL,
  error_stack TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  retry_count INTEGER NOT NULL,   -- failures when it came here
  crashes INTEGER NOT NULL,
  published_us INTEGER NOT NULL,
  first_failed_at INTEGER NOT NULL,
  last_failed_at INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  reprocess_count INTEGER NOT NULL,
  status TEXT NOT NULL CHECK(status IN ('pending', 'reprocessing', 'resolved', 'expired', 'discarded')),
  lease_until_us INTEGER NOT NULL,
  metadata TEXT NOT NULL,
  version INTEGER NOT NULL);
CREATE INDEX dead_letter_created ON dead_letter(created_at, id);
CREATE INDEX dead_letter_topic ON dead_letter(topic, created_at, id);
CREATE INDEX dead_letter_status ON dead_letter(status, created_at, id);
CREATE INDEX dead_letter_error_type ON dead_letter(error_type, created_at, id);
CREATE INDEX dead_letter_fingerprint ON dead_letter(fingerprint, created_at, id);
CREATE INDEX dead_letter_last_failed ON dead_letter(last_failed_at);
CREATE INDEX dead_letter_leased ON dead_letter(lease_until_us) WHERE status = 'reprocessing';

CREATE TABLE dead_letter_count(
  status TEXT NOT NULL,
  topic TEXT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY(status, topic)) WITHOUT ROWID;
CREATE TRIGGER dead_letter_count_insert AFTER INSERT ON dead_letter BEGIN
  INSERT INTO dead_letter_count VALUES(new.status, new.topic, 1) ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER dead_letter_count_delete AFTER DELETE ON dead_letter BEGIN
  UPDATE dead_letter_count SET count = count - 1 WHERE status = old.status AND topic = old.topic;
END;
CREATE TRIGGER dead_letter_count_update AFTER UPDATE OF status, topic ON dead_letter BEGIN
  UPDATE dead_letter_count SET count = count - 1 WHERE status = old.status AND topic = old.topic;
  INSERT INTO dead_letter_count VALUES(new.status, new.topic, 1) ON CONFLICT DO UPDATE SET count = count + 1;
END;

CREATE TABLE idempotency(
  scope TEXT NOT NULL,
  key TEXT NOT NULL,
  state TEXT NOT NULL CHECK(state IN ('in_progress', 'done', 'failed')),
  fingerprint TEXT NOT NULL,
  fence INTEGER NOT NULL,
  lease_until_us INTEGER NOT NULL,
  expires_us INTEGER,
  has_result INTEGER NOT NULL,
  content_type TEXT NOT NULL,
  version INTEGER NOT NULL,
  result BLOB NOT NULL,
  PRIMARY KEY(scope, key)) WITHOUT ROWID;

CREATE TABLE inbox(
  group_id INTEGER NOT NULL,
  message_id BLOB NOT NULL,
  expires_us INTEGER NOT NULL,
  PRIMARY KEY(group_id, message_id)) WITHOUT ROWID;

CREATE TABLE dedup(
  topic_id INTEGER NOT NULL,
  dedup_id TEXT NOT NULL,
  expires_us INTEGER,             -- NULL: until the message is finished
  message_id BLOB NOT NULL,
  PRIMARY KEY(topic_id, dedup_id)) WITHOUT ROWID;

CREATE TABLE counter(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counter VALUES('scheduled', 0), ('parked', 0), ('idempotency', 0), ('bodies', 0);
)sql";

/// What was cancelled was one row each, and each on a page of its own when cancelled in no order.
constexpr const char* kVersion2 = R"sql(
DELETE FROM schedule WHERE (due_us, body_id) IN
  (SELECT b.due_us, b.body_id FROM cancelled c JOIN body b ON b.body_id = c.body_id);
DELETE FROM body WHERE body_id IN (SELECT body_id FROM cancelled);
DROP TABLE cancelled;
CREATE TABLE cancelled(           -- bodies that will never fire; removed with their rows in passes
  block INTEGER PRIMARY KEY,      -- body_id >> 12
  bits BLOB NOT NULL);            -- for each of the 4,096
INSERT INTO counter VALUES('cancelled', 0);
)sql";

/// What is in `dedup` stays there; new ids land here.
constexpr const char* kVersion3 = R"sql(
CREATE TABLE dedup_recent(        -- dedup ids in the order they came; older ones are in `dedup`
  number INTEGER PRIMARY KEY,     -- never given out again
  topic_id INTEGER NOT NULL,
  dedup_id TEXT NOT NULL,
  expires_us INTEGER,             -- NULL: until the message is finished
  message_id BLOB NOT NULL);
INSERT INTO counter VALUES('dedup', 0);
)sql";

/// Two spaces of streams with the same columns: events, and the messages of conversations. The newest entry
/// of a stream is never removed, so neither a version nor a position is given out twice.
constexpr const char* kVersion4 = R"sql(
CREATE TABLE event_stream(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

CREATE TABLE event_record(
  position INTEGER PRIMARY KEY,
  stream_id INTEGER NOT NULL,
  version INTEGER NOT NULL,
  recorded_us INTEGER NOT NULL,
  id BLOB NOT NULL,
  type TEXT NOT NULL,
  payload BLOB NOT NULL,
  content_type TEXT,
  headers TEXT);                  -- as in dead_letter
CREATE UNIQUE INDEX event_record_version ON event_record(stream_id, version);
CREATE INDEX event_record_id ON event_record(id);

CREATE TABLE event_snapshot(
  stream_id INTEGER PRIMARY KEY,
  version INTEGER NOT NULL,
  saved_us INTEGER NOT NULL,
  content_type TEXT NOT NULL,
  state BLOB NOT NULL);

CREATE TABLE event_cursor(        -- how far somebody who follows has come
  name TEXT PRIMARY KEY,
  stream TEXT NOT NULL,           -- '': all events
  place INTEGER NOT NULL,
  owner TEXT NOT NULL,            -- whose turn it is, '': nobody's
  lease_until_us INTEGER NOT NULL,
  version INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE conversation_stream(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

CREATE TABLE conversation_record(
  position INTEGER PRIMARY KEY,
  stream_id INTEGER NOT NULL,     -- conversation_stream.id
  version INTEGER NOT NULL,       -- the number of the message in its conversation
  recorded_us INTEGER NOT NULL,
  id BLOB NOT NULL,
  type TEXT NOT NULL,             -- who sent it
  payload BLOB NOT NULL,
  content_type TEXT,
  headers TEXT);
CREATE UNIQUE INDEX conversation_record_version ON conversation_record(stream_id, version);
CREATE INDEX conversation_record_id ON conversation_record(id);
)sql";

/// `saga_stream` and `saga_record` are a space as those of version 4: the logs of sagas. With it comes the
/// contract for SQL of others.
constexpr const char* kVersion5 = R"sql(
CREATE TABLE saga_stream(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

CREATE TABLE saga_record(
  position INTEGER PRIMARY KEY,
  stream_id INTEGER NOT NULL,     -- saga_stream.id
  version INTEGER NOT NULL,
  recorded_us INTEGER NOT NULL,
  id BLOB NOT NULL,
  type TEXT NOT NULL,             -- what happened
  payload BLOB NOT NULL,
  content_type TEXT,
  headers TEXT);
CREATE UNIQUE INDEX saga_record_version ON saga_record(stream_id, version);
CREATE INDEX saga_record_id ON saga_record(id);

CREATE TABLE saga(
  number INTEGER PRIMARY KEY,     -- in order of starting
  type TEXT NOT NULL,
  id TEXT NOT NULL,
  definition_version INTEGER NOT NULL,
  fingerprint TEXT NOT NULL,      -- of the definition it began under
  status TEXT NOT NULL,
  step TEXT NOT NULL,
  error TEXT NOT NULL,
  started_us INTEGER NOT NULL,
  updated_us INTEGER NOT NULL,
  deadline_us INTEGER,            -- NULL: none
  retention_us INTEGER NOT NULL,  -- how long it is kept once it is over
  expires_us INTEGER,             -- NULL: never
  stream TEXT NOT NULL,           -- saga_stream.name
  UNIQUE(type, id));
CREATE INDEX saga_status ON saga(status, number);
CREATE INDEX saga_unfinished ON saga(number) WHERE status NOT IN ('completed', 'compensated');
CREATE INDEX saga_expires ON saga(expires_us) WHERE expires_us IS NOT NULL;

CREATE TABLE client_position(     -- how far a client of a user has read a conversation
  user TEXT NOT NULL,
  client TEXT NOT NULL,
  conversation TEXT NOT NULL,     -- conversation_stream.name
  sequence INTEGER NOT NULL,
  expires_us INTEGER NOT NULL,
  PRIMARY KEY(user, client, conversation)) WITHOUT ROWID;
CREATE INDEX client_position_conversation ON client_position(conversation, sequence);
CREATE INDEX client_position_expires ON client_position(expires_us);

CREATE TABLE missed_message(      -- what a user missed of a conversation
  user TEXT NOT NULL,
  conversation TEXT NOT NULL,
  first_sequence INTEGER NOT NULL,
  last_sequence INTEGER NOT NULL,
  count INTEGER NOT NULL,         -- 0: all was taken
  recent INTEGER NOT NULL,        -- a bit for each of the last 64: it was counted; the lowest is the last one
  taken_sequence INTEGER NOT NULL,
  expires_us INTEGER NOT NULL,
  PRIMARY KEY(user, conversation)) WITHOUT ROWID;
CREATE INDEX missed_message_expires ON missed_message(expires_us);
)sql";

/// What is in `schedule` stays there; new rows land here.
constexpr const char* kVersion6 = R"sql(
CREATE TABLE schedule_recent(     -- as schedule, which has the many (due_rows.cpp)
  due_us INTEGER NOT NULL,
  body_id INTEGER NOT NULL,
  log_id INTEGER,
  PRIMARY KEY(due_us, body_id)) WITHOUT ROWID;
INSERT INTO counter VALUES('due_recent', 0);
)sql";

/// What fired lies at or before the last due time there is: whoever falls due later waits.
constexpr const char* kVersion7 = R"sql(
CREATE TABLE cancelled_recent(    -- as cancelled, which has the many (cancelled.cpp)
  body_id INTEGER PRIMARY KEY);
INSERT INTO counter SELECT 'taken_until_us', coalesce(max(due_us), -9223372036854775808) FROM body;
)sql";

constexpr Migration kMigrations[] = {
    {kVersion1}, {kVersion2}, {kVersion3}, {kVersion4}, {kVersion5, &contract_sql}, {kVersion6}, {kVersion7}};

std::int64_t number(const std::optional<std::string>& text) {
  return text ? std::strtoll(text->c_str(), nullptr, 10) : 0;
}

}  // namespace

std::span<const Migration> migrations() noexcept { return kMigrations; }

SchemaFound inspect_schema(Connection& connection, std::span<const Migration> steps) {
  SchemaFound found;
  const std::int64_t application = number(connection.ask("PRAGMA application_id"));
  found.version = number(connection.ask("PRAGMA user_version"));
  const std::int64_t objects = number(connection.ask("SELECT count(*) FROM sqlite_schema"));
  if (application == 0 && found.version == 0 && objects == 0) return found;
  if (application != kApplicationId) {
    found.state = SchemaState::kForeign;
  } else if (found.version > static_cast<std::int64_t>(steps.size())) {
    found.state = SchemaState::kTooNew;
  } else {
    found.state =
        found.version == static_cast<std::int64_t>(steps.size()) ? SchemaState::kCurrent : SchemaState::kOld;
  }
  return found;
}

bool migrate(Connection& connection, std::span<const Migration> steps, std::int64_t now_us) {
  if (!connection.run("BEGIN IMMEDIATE")) return false;
  const SchemaFound found = inspect_schema(connection, steps);
  if (found.state == SchemaState::kEmpty || found.state == SchemaState::kOld) {
    for (auto version = static_cast<std::size_t>(found.version); version < steps.size(); ++version) {
      connection.run(steps[version].sql);
      if (steps[version].more != nullptr) connection.run(steps[version].more());
    }
    const std::string numbers = "PRAGMA application_id = " + std::to_string(kApplicationId) +
                                "; PRAGMA user_version = " + std::to_string(steps.size()) + ";";
    connection.run(numbers.c_str());
    const std::string stamp = "INSERT OR IGNORE INTO meta VALUES('created_us', " + std::to_string(now_us) +
                              "); INSERT OR REPLACE INTO meta VALUES('schema_us', " + std::to_string(now_us) +
                              ");";
    connection.run(stamp.c_str());
  }
  if (connection.ok()) connection.run("COMMIT");
  if (!connection.ok()) sqlite3_exec(connection.raw(), "ROLLBACK", nullptr, nullptr, nullptr);
  return connection.ok();
}

}  // namespace towline::drivers::sqlite
