#pragma once
// The tables, and how a file of an older version becomes one of this version.

#include <cstdint>
#include <span>

#include "drivers/sqlite/connection.hpp"

namespace towline::drivers::sqlite {

/// "TOWL" in the header of the file, so that `file` and SQLite's own tools know whose it is.
inline constexpr std::int32_t kApplicationId = 0x544f574c;

/// Makes a file of version `from` one of version `from + 1`. Forward only; each step is its own transaction's
/// part, so a process that dies on the way leaves the file as it was.
struct Migration {
  const char* sql;
  const char* (*more)() = nullptr;  ///< statements that are put together
};

/// The steps from an empty file to the version of this build: the version of the schema is their number.
[[nodiscard]] std::span<const Migration> migrations() noexcept;

enum class SchemaState : std::uint8_t { kEmpty, kCurrent, kOld, kTooNew, kForeign };

struct SchemaFound {
  SchemaState state = SchemaState::kEmpty;
  std::int64_t version = 0;
};

/// Reads, changes nothing. Meaningless when the connection has failed.
[[nodiscard]] SchemaFound inspect_schema(Connection& connection, std::span<const Migration> steps);

/// Runs the steps that are missing in one transaction. Looks again under the write lock, so several processes
/// may try.
bool migrate(Connection& connection, std::span<const Migration> steps, std::int64_t now_us);

}  // namespace towline::drivers::sqlite
