// Plain SQLite.

#include "faults/sqlite_probe.hpp"

#include <stdexcept>

#include <sqlite3.h>

namespace towline::faults {

SqliteSession::SqliteSession(const std::string& database) {
  if (sqlite3_open_v2(database.c_str(), &raw_, SQLITE_OPEN_READWRITE, nullptr) != SQLITE_OK) {
    const std::string why = raw_ == nullptr ? "no memory" : sqlite3_errmsg(raw_);
    sqlite3_close(raw_);
    throw std::runtime_error(database + ": " + why);
  }
  sqlite3_busy_timeout(raw_, 30'000);
}

SqliteSession::~SqliteSession() { sqlite3_close(raw_); }

std::vector<std::string> SqliteSession::ask(const std::string& sql) {
  std::vector<std::string> rows;
  sqlite3_stmt* statement = nullptr;
  int code = sqlite3_prepare_v2(raw_, sql.c_str(), -1, &statement, nullptr);
  if (code == SQLITE_OK) {
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
      const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, 0));
      rows.emplace_back(text == nullptr ? "" : text);
    }
  }
  const std::string why = sqlite3_errmsg(raw_);
  sqlite3_finalize(statement);
  if (code != SQLITE_DONE) throw std::runtime_error(sql + ": " + why);
  return rows;
}

std::string SqliteSession::run(const std::string& sql) {
  const auto rows = ask(sql);
  return rows.empty() ? std::string() : rows.front();
}

std::vector<std::string> ask_sqlite(const std::string& database, const std::string& sql) {
  return SqliteSession(database).ask(sql);
}

std::string integrity_of(const std::string& database) {
  std::string all;
  for (const std::string& row : ask_sqlite(database, "PRAGMA integrity_check"))
    all += (all.empty() ? "" : "; ") + row;
  return all;
}

std::string sqlite_version() { return sqlite3_libversion(); }

}  // namespace towline::faults
