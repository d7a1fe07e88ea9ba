#pragma once
// Looking into a store with SQLite and nothing of the engine.

#include <string>
#include <vector>

namespace towline::faults {

/// One statement on a connection of its own; the first column of every row. Throws std::runtime_error.
std::vector<std::string> ask_sqlite(const std::string& database, const std::string& sql);
/// PRAGMA integrity_check: "ok" or what it found.
[[nodiscard]] std::string integrity_of(const std::string& database);
[[nodiscard]] std::string sqlite_version();

}  // namespace towline::faults
