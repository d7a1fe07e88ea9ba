// Plain SQLite, on a connection of its own; the engine is not asked.

#include "effects.hpp"

#include <memory>
#include <sqlite3.h>

namespace towline::demo {
namespace {

struct CloseDatabase {
  void operator()(sqlite3* database) const { sqlite3_close(database); }
};
struct Finalize {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Database = std::unique_ptr<sqlite3, CloseDatabase>;
using Statement = std::unique_ptr<sqlite3_stmt, Finalize>;

Error error_of(sqlite3* database, const std::string& path) {
  const char* text = database == nullptr ? "out of memory" : sqlite3_errmsg(database);
  return {ErrorCode::kIoError, path + ": " + text,
          database == nullptr ? 0 : sqlite3_extended_errcode(database)};
}

Result<Database> open_database(const std::string& path, int flags) {
  sqlite3* raw = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &raw, flags | SQLITE_OPEN_FULLMUTEX, nullptr);
  Database database(raw);
  if (code != SQLITE_OK) return error_of(raw, path);
  sqlite3_busy_timeout(raw, 5000);
  return database;
}

std::string text_at(sqlite3_stmt* statement, int column) {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, column));
  return text == nullptr
             ? std::string()
             : std::string(text, static_cast<std::size_t>(sqlite3_column_bytes(statement, column)));
}

EffectRow row_at(sqlite3_stmt* s) {
  EffectRow row;
  row.id = sqlite3_column_int64(s, 0);
  row.number = static_cast<std::uint32_t>(sqlite3_column_int64(s, 1));
  row.order_id = text_at(s, 2);
  row.customer = text_at(s, 3);
  row.total_cents = sqlite3_column_int64(s, 4);
  row.attempt = static_cast<std::uint32_t>(sqlite3_column_int64(s, 5));
  row.payload_hash = sqlite3_column_int64(s, 6);
  row.worker = text_at(s, 7);
  row.at_us = sqlite3_column_int64(s, 8);
  return row;
}

}  // namespace

Result<void> create_effects_table(const std::string& path) {
  auto database = open_database(path, SQLITE_OPEN_READWRITE);
  if (!database.ok()) return database.error();
  const char* sql =
      "CREATE TABLE effects (id INTEGER PRIMARY KEY, order_number INTEGER NOT NULL, order_id TEXT NOT NULL,"
      " customer TEXT NOT NULL, total_cents INTEGER NOT NULL, attempt INTEGER NOT NULL, payload_hash INTEGER "
      "NOT NULL,"
      " worker TEXT NOT NULL, at_us INTEGER NOT NULL)";
  if (sqlite3_exec(database->get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK) {
    return error_of(database->get(), path);
  }
  return {};
}

Result<std::vector<EffectRow>> read_effects(const std::string& path, const std::string& worker) {
  auto database = open_database(path, SQLITE_OPEN_READONLY);
  if (!database.ok()) return database.error();
  const char* sql =
      "SELECT id, order_number, order_id, customer, total_cents, attempt, payload_hash, worker, at_us FROM "
      "effects"
      " WHERE ?1 = '' OR worker = ?1 ORDER BY id";
  sqlite3_stmt* raw = nullptr;
  const int prepared = sqlite3_prepare_v2(database->get(), sql, -1, &raw, nullptr);
  const Statement statement(raw);
  if (prepared != SQLITE_OK) return error_of(database->get(), path);
  sqlite3_bind_text(raw, 1, worker.data(), static_cast<int>(worker.size()), SQLITE_STATIC);
  std::vector<EffectRow> rows;
  int code = 0;
  while ((code = sqlite3_step(raw)) == SQLITE_ROW)
    rows.push_back(row_at(raw));
  if (code != SQLITE_DONE) return error_of(database->get(), path);
  return rows;
}

}  // namespace towline::demo
