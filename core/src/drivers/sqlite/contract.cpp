// Whoever writes brings his own SQLite, so the triggers use nothing newer than 3.24 and JSON functions: RAISE
// takes a literal, and there is no unhex(). They refuse what SQL can see; what only an engine can see is
// refused by whoever relays it.

#include "drivers/sqlite/contract.hpp"

#include <cstddef>
#include <string>
#include <string_view>

namespace towline::drivers::sqlite {
namespace {

/// What stands in braces is put in below, and a backslash joins a line with the next one.
constexpr const char* kSql = R"sql(
CREATE TABLE outbox(              -- what was written to towline_outbox_v1 and is not published yet
  number INTEGER PRIMARY KEY AUTOINCREMENT,  -- in order of writing, never given out again
  written_us INTEGER NOT NULL,
  topic TEXT NOT NULL,
  payload BLOB NOT NULL,
  key TEXT,
  headers TEXT,                   -- JSON
  content_type TEXT,
  priority INTEGER,
  delay_us INTEGER,
  due_us INTEGER,
  skip_if_late_by_us INTEGER,
  ttl_us INTEGER,
  dedup_id TEXT,
  dedup_mode TEXT,
  message_id,                     -- 16 bytes, or their text
  correlation_id TEXT,
  causation_id TEXT,
  traceparent TEXT);

CREATE VIEW towline_outbox_v1 AS
  SELECT topic, payload, key, headers, content_type, priority, delay_us / 1000 AS delay_ms,
    due_us / 1000 AS due_at_ms, skip_if_late_by_us / 1000 AS skip_if_late_by_ms, ttl_us / 1000 AS ttl_ms,
    dedup_id, dedup_mode, message_id, correlation_id, causation_id, traceparent
  FROM outbox ORDER BY number;

CREATE TRIGGER towline_outbox_v1_insert INSTEAD OF INSERT ON towline_outbox_v1 BEGIN
  SELECT RAISE(ABORT, 'towline_outbox_v1: topic must be text of 1 to 249 letters, digits, - and _, \
                      with single dots between them')
    WHERE typeof(new.topic) <> 'text' OR length(new.topic) NOT BETWEEN 1 AND 249
      OR new.topic GLOB '*[^-A-Za-z0-9._]*' OR '.' || new.topic || '.' LIKE '%..%';
  SELECT RAISE(ABORT, 'towline_outbox_v1: payload must be text or a blob of at most 67108864 bytes; \
                      give JSON as text')
    WHERE typeof(new.payload) NOT IN ('text', 'blob', 'null')
      OR length(CAST(new.payload AS BLOB)) > 67108864;
  SELECT RAISE(ABORT, 'towline_outbox_v1: key must be text of at most 255 bytes, or NULL')
    WHERE typeof(new.key) NOT IN ('text', 'null') OR length(CAST(new.key AS BLOB)) > 255;
  SELECT RAISE(ABORT, 'towline_outbox_v1: headers must be a JSON object of texts, \
                      {"name": "value"}, or NULL')
    WHERE NOT CASE WHEN new.headers IS NULL THEN 1 WHEN typeof(new.headers) <> 'text' THEN 0
      WHEN NOT json_valid(new.headers) THEN 0 WHEN json_type(new.headers) <> 'object' THEN 0
      ELSE NOT EXISTS (SELECT 1 FROM json_each(new.headers) WHERE type <> 'text') END;
  SELECT RAISE(ABORT, 'towline_outbox_v1: content_type must be text of at most 255 bytes, or NULL')
    WHERE typeof(new.content_type) NOT IN ('text', 'null')
      OR length(CAST(new.content_type AS BLOB)) > 255;
  SELECT RAISE(ABORT, 'towline_outbox_v1: priority must be 0 (normal) to 9, or NULL')
    WHERE new.priority IS NOT NULL AND (typeof(new.priority) NOT IN ('integer', 'real')
      OR CAST(new.priority AS INTEGER) <> new.priority OR new.priority NOT BETWEEN 0 AND 9);
  SELECT RAISE(ABORT, 'towline_outbox_v1: delay_ms, due_at_ms, skip_if_late_by_ms and ttl_ms \
                      must be numbers of 0 or more, or NULL')
    WHERE EXISTS (SELECT 1 FROM (SELECT new.delay_ms AS ms UNION ALL SELECT new.due_at_ms
        UNION ALL SELECT new.skip_if_late_by_ms UNION ALL SELECT new.ttl_ms)
      WHERE ms IS NOT NULL AND (typeof(ms) NOT IN ('integer', 'real') OR ms NOT BETWEEN 0 AND 9e12));
  SELECT RAISE(ABORT, 'towline_outbox_v1: delay_ms and due_at_ms are both given; \
                      give at most one of them')
    WHERE new.delay_ms > 0 AND new.due_at_ms IS NOT NULL;
  SELECT RAISE(ABORT, 'towline_outbox_v1: dedup_id, correlation_id and causation_id must be text \
                      of at most 255 visible ASCII characters, or NULL')
    WHERE EXISTS (SELECT 1 FROM (SELECT new.dedup_id AS id UNION ALL SELECT new.correlation_id
        UNION ALL SELECT new.causation_id)
      WHERE id IS NOT NULL AND (typeof(id) <> 'text' OR length(id) > 255 OR id GLOB '*[^!-~]*'));
  SELECT RAISE(ABORT, 'towline_outbox_v1: dedup_mode must be window or while_unfinished, \
                      or NULL for the first')
    WHERE new.dedup_mode IS NOT NULL AND new.dedup_mode NOT IN ('window', 'while_unfinished');
  SELECT RAISE(ABORT, 'towline_outbox_v1: message_id must be a UUID, its 36 characters or its \
                      16 bytes, or NULL')
    WHERE new.message_id IS NOT NULL AND NOT {is_id};
  SELECT RAISE(ABORT, 'towline_outbox_v1: traceparent must be text, or NULL')
    WHERE typeof(new.traceparent) NOT IN ('text', 'null');
  INSERT INTO outbox(written_us, topic, payload, key, headers, content_type, priority, delay_us, due_us,
    skip_if_late_by_us, ttl_us, dedup_id, dedup_mode, message_id, correlation_id, causation_id,
    traceparent)
  VALUES({now_us}, new.topic, CAST(coalesce(new.payload, '') AS BLOB), new.key, new.headers,
    new.content_type, new.priority, CAST(new.delay_ms * 1000 AS INTEGER),
    CAST(new.due_at_ms * 1000 AS INTEGER), CAST(new.skip_if_late_by_ms * 1000 AS INTEGER),
    CAST(new.ttl_ms * 1000 AS INTEGER), new.dedup_id, new.dedup_mode, new.message_id,
    new.correlation_id, new.causation_id, new.traceparent);
END;

CREATE VIEW towline_inbox_v1 AS
  SELECT g.name AS "group", lower(printf('%s-%s-%s-%s-%s', hex(substr(i.message_id, 1, 4)),
      hex(substr(i.message_id, 5, 2)), hex(substr(i.message_id, 7, 2)), hex(substr(i.message_id, 9, 2)),
      hex(substr(i.message_id, 11)))) AS message_id,
    NULL AS window_ms, i.expires_us / 1000 AS expires_at_ms
  FROM inbox i JOIN grp g ON g.id = i.group_id;

CREATE TRIGGER towline_inbox_v1_insert INSTEAD OF INSERT ON towline_inbox_v1 BEGIN
  SELECT RAISE(ABORT, 'towline_inbox_v1: group must be text of 1 to 100 letters, digits, dots, - and _')
    WHERE typeof(new."group") <> 'text' OR length(new."group") NOT BETWEEN 1 AND 100
      OR new."group" GLOB '*[^-A-Za-z0-9._]*';
  SELECT RAISE(ABORT, 'towline_inbox_v1: message_id must be a UUID, its 36 characters or its 16 bytes')
    WHERE new.message_id IS NULL OR NOT {is_id};
  SELECT RAISE(ABORT, 'towline_inbox_v1: window_ms and expires_at_ms must be numbers of 0 or more, \
                      or NULL; give at most one of them')
    WHERE (new.window_ms IS NOT NULL AND new.expires_at_ms IS NOT NULL)
      OR EXISTS (SELECT 1 FROM (SELECT new.window_ms AS ms UNION ALL SELECT new.expires_at_ms)
        WHERE ms IS NOT NULL AND (typeof(ms) NOT IN ('integer', 'real') OR ms NOT BETWEEN 0 AND 9e12));
  INSERT INTO grp(name) SELECT new."group"
    WHERE NOT EXISTS (SELECT 1 FROM grp WHERE name = new."group");
  -- An upsert, because a conflict clause of the caller's cannot overrule it.
  INSERT INTO inbox(group_id, message_id, expires_us)
    SELECT (SELECT id FROM grp WHERE name = new."group"), {id_bytes},
      CAST(coalesce(new.expires_at_ms * 1000, now_us + coalesce(new.window_ms, 604800000) * 1000)
        AS INTEGER)
    FROM (SELECT {now_us} AS now_us, {all_bytes} AS bytes, '0123456789abcdef' AS digits,
      lower(replace(new.message_id, '-', '')) AS hex) WHERE TRUE
    ON CONFLICT DO UPDATE SET expires_us = CASE WHEN expires_us <= {now_us} THEN excluded.expires_us
      ELSE RAISE(ABORT, 'towline_inbox_v1: duplicate: the group has handled this message; \
                        roll back and pass over it') END;
END;
)sql";

constexpr const char* kNow = "(CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)";

constexpr const char* kIsId =
    "CASE typeof(new.message_id) WHEN 'blob' THEN length(new.message_id) = 16 WHEN 'text' THEN"
    " length(new.message_id) = 36 AND new.message_id LIKE '________-____-____-____-____________'"
    " AND length(replace(new.message_id, '-', '')) = 32"
    " AND replace(new.message_id, '-', '') NOT GLOB '*[^0-9A-Fa-f]*' ELSE 0 END";

/// X'000102...ff'.
std::string all_bytes() {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text = "X'";
  for (std::size_t byte = 0; byte < 256; ++byte) {
    text += kDigits[byte / 16];
    text += kDigits[byte % 16];
  }
  return text + "'";
}

/// Of the text of an id its bytes: for each two digits the byte that stands there among all.
std::string id_bytes() {
  std::string text = "CASE typeof(new.message_id) WHEN 'blob' THEN new.message_id ELSE CAST(";
  for (int at = 1; at < 32; at += 2) {
    const auto digit = [](int place) {
      return "instr(digits, substr(hex, " + std::to_string(place) + ", 1))";
    };
    if (at > 1) text += " || ";
    text += "substr(bytes, 16 * " + digit(at) + " + " + digit(at + 1) + " - 16, 1)";
  }
  return text + " AS BLOB) END";
}

void replace_all(std::string& text, std::string_view what, std::string_view by) {
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size()))
    text.replace(at, what.size(), by);
}

std::string make_sql() {
  std::string sql = kSql;
  for (std::size_t at = sql.find("\\\n"); at != std::string::npos; at = sql.find("\\\n", at))
    sql.erase(at, sql.find_first_not_of(' ', at + 2) - at);
  replace_all(sql, "{now_us}", kNow);
  replace_all(sql, "{is_id}", kIsId);
  replace_all(sql, "{id_bytes}", id_bytes());
  replace_all(sql, "{all_bytes}", all_bytes());
  return sql;
}

}  // namespace

const char* contract_sql() {
  static const std::string sql = make_sql();
  return sql.c_str();
}

}  // namespace towline::drivers::sqlite
