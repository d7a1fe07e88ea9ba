#pragma once
// Looking into a store with SQLite and nothing of the engine.

#include <string>
#include <vector>

struct sqlite3;

namespace towline::faults {

/// A connection that stays open. Throws std::runtime_error.
class SqliteSession {
 public:
  explicit SqliteSession(const std::string& database);
  ~SqliteSession();
  SqliteSession(const SqliteSession&) = delete;
  SqliteSession& operator=(const SqliteSession&) = delete;
  /// One statement; the first column of every row.
  std::vector<std::string> ask(const std::string& sql);
  /// The same of the first row; "" when there is none.
  std::string run(const std::string& sql);

 private:
  sqlite3* raw_ = nullptr;
};

/// One statement on a connection of its own; the first column of every row. Throws std::runtime_error.
std::vector<std::string> ask_sqlite(const std::string& database, const std::string& sql);
/// PRAGMA integrity_check: "ok" or what it found.
[[nodiscard]] std::string integrity_of(const std::string& database);
[[nodiscard]] std::string sqlite_version();

}  // namespace towline::faults
