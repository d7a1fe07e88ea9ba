// Messages are delayed in one order and fall due in another. In one large table each new row would change a
// page of its own, and a commit of a thousand messages would write a thousand pages. So new rows go to a
// small table, `schedule_recent`, of which a page takes many of them at once; and from there rows that are
// neighbours by due time go on to `schedule`, many to a page as well. Whoever reads, reads both.
//
// Rows go on in turns around the small table, so that each stretch of it is as full as it gets. Where the
// next turn begins is known to this process only: any place is right.

#include "drivers/sqlite/due_rows.hpp"

#include <limits>
#include <vector>

namespace towline::drivers::sqlite {
namespace {

constexpr std::int64_t kFirst = std::numeric_limits<std::int64_t>::min();

constexpr const char* kInsertRecent = "INSERT INTO schedule_recent VALUES(?1, ?2, ?3)";
constexpr const char* kInsert = "INSERT INTO schedule VALUES(?1, ?2, ?3)";
constexpr const char* kDeleteRecent = "DELETE FROM schedule_recent WHERE due_us = ?1 AND body_id = ?2";
constexpr const char* kDelete = "DELETE FROM schedule WHERE due_us = ?1 AND body_id = ?2";
constexpr const char* kDeleteRecentUpTo =
    "DELETE FROM schedule_recent WHERE (due_us, body_id) <= (?1, ?2) AND (due_us, body_id) > (?3, ?4)";
constexpr const char* kDeleteUpTo = "DELETE FROM schedule WHERE (due_us, body_id) <= (?1, ?2)";
constexpr const char* kFirstDue =
    "SELECT min(due_us) FROM (SELECT * FROM (SELECT due_us FROM schedule ORDER BY due_us LIMIT 1)"
    " UNION ALL SELECT * FROM (SELECT due_us FROM schedule_recent ORDER BY due_us LIMIT 1))";
constexpr const char* kCounter = "SELECT value FROM counter WHERE name = 'due_recent'";
constexpr const char* kNoteTaken =
    "UPDATE counter SET value = ?1 WHERE name = 'taken_until_us' AND value < ?1";
constexpr const char* kSomeRecent =
    "SELECT due_us, body_id, log_id FROM schedule_recent WHERE (due_us, body_id) > (?1, ?2)"
    " ORDER BY due_us, body_id LIMIT ?3";

struct Row {
  std::int64_t due_us, body_id;
  std::optional<std::int64_t> log_id;
};

}  // namespace

void insert_due_row(Tx& tx, std::int64_t due_us, std::int64_t body_id, std::optional<std::int64_t> log_id) {
  execute(tx.sql, kInsertRecent, due_us, body_id, log_id);
  ++tx.due_recent;
  ++tx.due_recent_new;
}

void delete_due_row(Tx& tx, std::int64_t due_us, std::int64_t body_id) {
  execute(tx.sql, kDeleteRecent, due_us, body_id);
  if (tx.sql.changes() > 0) {
    --tx.due_recent;
  } else {
    execute(tx.sql, kDelete, due_us, body_id);
  }
}

void take_due_rows(Tx& tx, std::int64_t due_us, std::int64_t body_id) {
  execute(tx.sql, kNoteTaken, due_us);
  execute(tx.sql, kDeleteRecentUpTo, due_us, body_id, kFirst, kFirst);
  tx.due_recent -= tx.sql.changes();
  execute(tx.sql, kDeleteUpTo, due_us, body_id);
}

std::optional<std::int64_t> first_due_us(Connection& sql) { return select_integer(sql, kFirstDue); }

void settle_due_rows(Tx& tx) {
  if (tx.due_recent_new == 0) return;
  Catalog& catalog = tx.catalog;
  const std::int64_t count = select_integer(tx.sql, kCounter).value_or(0) + tx.due_recent;
  if (count <= catalog.due_recent_max) return;
  // More than came, or a table that others have filled would stay too large.
  const std::int64_t count_max = tx.due_recent_new + tx.due_recent_new / 4 + 1;
  std::vector<Row> rows;
  {
    Query some(tx.sql, kSomeRecent, catalog.due_moved_us, catalog.due_moved_body, count_max);
    while (some.row()) {
      std::optional<std::int64_t> log_id;
      if (!some.is_null(2)) log_id = some.integer(2);
      rows.push_back({some.integer(0), some.integer(1), log_id});
    }
  }
  if (!rows.empty()) {
    Query insert(tx.sql, kInsert);
    for (const Row& row : rows) {
      insert.bind(row.due_us, row.body_id, row.log_id).run();
      insert.again();
    }
    execute(tx.sql, kDeleteRecentUpTo, rows.back().due_us, rows.back().body_id, catalog.due_moved_us,
            catalog.due_moved_body);
    tx.due_recent -= static_cast<std::int64_t>(rows.size());
  }
  const bool at_end = static_cast<std::int64_t>(rows.size()) < count_max;
  catalog.due_moved_us = at_end ? kFirst : rows.back().due_us;
  catalog.due_moved_body = at_end ? kFirst : rows.back().body_id;
}

}  // namespace towline::drivers::sqlite
