// Opening and closing handles, preparing statements, and what SQLite's failures are called in towline.

#include "drivers/sqlite/connection.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "drivers/sqlite/file_locks.hpp"

namespace towline::drivers::sqlite {
namespace {

ErrorCode code_of(const Failure& failure) noexcept {
  switch (failure.primary()) {
    case SQLITE_FULL:
      return ErrorCode::kStorageFull;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
      return ErrorCode::kStoreLocked;
    case SQLITE_CORRUPT:
      return ErrorCode::kCorruptStore;
    case SQLITE_NOTADB:
      return ErrorCode::kNotAStore;
    case SQLITE_IOERR:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
      return ErrorCode::kIoError;
    case SQLITE_NOMEM:
      return ErrorCode::kOverloaded;
    case SQLITE_TOOBIG:
      return ErrorCode::kPayloadTooLarge;
    default:
      return ErrorCode::kInternal;
  }
}

}  // namespace

Error to_error(const Failure& failure, std::string_view doing) {
  Error error;
  error.code = code_of(failure);
  error.message = "SQLite reported \"" + failure.message + "\" (" + std::to_string(failure.code) + ") while ";
  error.message += doing;
  if (failure.os_error != 0) error.message += std::string(": ") + std::strerror(failure.os_error);
  error.native_code = failure.code;
  return error;
}

bool Connection::open(const std::string& path, int flags, const char* vfs) {
  close();
  own_file_locks();
  const int code =
      sqlite3_open_v2(path.c_str(), &raw_, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, vfs);
  if (code != SQLITE_OK) fail(code);
  if (code != SQLITE_OK && raw_ != nullptr) {
    sqlite3_close_v2(raw_);
    raw_ = nullptr;
  }
  return code == SQLITE_OK;
}

void Connection::close(bool checkpoint) noexcept {
  for (const auto& [sql, statement] : prepared_)
    sqlite3_finalize(statement);
  prepared_.clear();
  for (const auto& [sql, statement] : user_prepared_)
    sqlite3_finalize(statement);
  user_prepared_.clear();
  if (raw_ == nullptr) return;
  sqlite3_db_config(raw_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, checkpoint ? 0 : 1, nullptr);
  sqlite3_close_v2(raw_);
  raw_ = nullptr;
}

void Connection::abandon() noexcept {
  prepared_.clear();
  user_prepared_.clear();
  raw_ = nullptr;
}

void Connection::fail(int code) {
  if (!ok()) return;
  failure_.code = code;
  if (raw_ == nullptr) {
    failure_.message = sqlite3_errstr(code);
    return;
  }
  const int extended = sqlite3_extended_errcode(raw_);
  if ((extended & 0xff) == (code & 0xff)) {
    failure_.code = extended;
    failure_.message = sqlite3_errmsg(raw_);
    const int primary = extended & 0xff;
    if (primary == SQLITE_IOERR || primary == SQLITE_FULL || primary == SQLITE_CANTOPEN) {
      failure_.os_error = sqlite3_system_errno(raw_);
    }
  } else {
    failure_.message = sqlite3_errstr(code);
  }
}

bool Connection::run(const char* sql) {
  if (!ok()) return false;
  const int code = sqlite3_exec(raw_, sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) fail(code);
  return code == SQLITE_OK;
}

std::optional<std::string> Connection::ask(const char* sql) {
  if (!ok()) return std::nullopt;
  sqlite3_stmt* statement = nullptr;
  int code = sqlite3_prepare_v2(raw_, sql, -1, &statement, nullptr);
  std::optional<std::string> answer;
  if (code == SQLITE_OK) {
    code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
      const auto* text = sqlite3_column_text(statement, 0);
      if (text != nullptr) answer = reinterpret_cast<const char*>(text);
      while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
      }
    }
  }
  if (code != SQLITE_DONE && code != SQLITE_OK) fail(code);
  sqlite3_finalize(statement);
  return answer;
}

sqlite3_stmt* Connection::prepared(const char* sql) {
  if (!ok()) return nullptr;
  if (const auto known = prepared_.find(sql); known != prepared_.end()) return known->second;
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v3(raw_, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (code != SQLITE_OK) {
    fail(code);
    return nullptr;
  }
  prepared_.emplace(sql, statement);
  return statement;
}

sqlite3_stmt* Connection::prepared_for_user(std::string_view sql, int& code) {
  constexpr std::size_t kRememberedMax = 64;
  code = SQLITE_OK;
  std::string text(sql);
  if (const auto known = user_prepared_.find(text); known != user_prepared_.end()) return known->second;
  sqlite3_stmt* statement = nullptr;
  const char* tail = nullptr;
  code = sqlite3_prepare_v3(raw_, text.c_str(), -1, SQLITE_PREPARE_PERSISTENT, &statement, &tail);
  if (code != SQLITE_OK) return nullptr;
  if (statement == nullptr) {
    code = SQLITE_EMPTY;
    return nullptr;
  }
  // What follows may be blanks and comments only.
  sqlite3_stmt* second = nullptr;
  const bool ends = sqlite3_prepare_v2(raw_, tail, -1, &second, nullptr) == SQLITE_OK && second == nullptr;
  sqlite3_finalize(second);
  if (!ends) {
    sqlite3_finalize(statement);
    code = SQLITE_MISUSE;
    return nullptr;
  }
  if (user_prepared_.size() >= kRememberedMax) {
    for (const auto& [old, forgotten] : user_prepared_)
      sqlite3_finalize(forgotten);
    user_prepared_.clear();
  }
  user_prepared_.emplace(std::move(text), statement);
  return statement;
}

MessageId Query::id(int column) const {
  MessageId id;
  const std::string_view bytes = blob(column);
  std::memcpy(id.bytes.data(), bytes.data() == nullptr ? "" : bytes.data(),
              std::min(bytes.size(), id.bytes.size()));
  return id;
}

}  // namespace towline::drivers::sqlite
