#pragma once
// SQLite, as the rest of the driver sees it: a connection that remembers its first failure, and queries that
// do nothing once it has one.
//
// A transaction is all or nothing, so nobody needs to look at every step: after a failure each query behaves
// as if it had no rows, and whoever ends the transaction asks the connection once whether it may be
// committed. Code between must only not loop on the absence of a row.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include <sqlite3.h>

#include <towline/message.hpp>
#include <towline/result.hpp>

namespace towline::drivers::sqlite {

struct Failure {
  int code = SQLITE_OK;  ///< SQLite's extended result code
  int os_error = 0;
  std::string message;
  [[nodiscard]] int primary() const noexcept { return code & 0xff; }
};

/// What the engine is told about it. `doing` completes "while ...".
[[nodiscard]] Error to_error(const Failure& failure, std::string_view doing);

class Connection {
 public:
  Connection() = default;
  ~Connection() { close(); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /// `vfs` null: the default one.
  [[nodiscard]] bool open(const std::string& path, int flags, const char* vfs);
  /// Finalizes what was prepared. Without `checkpoint` the log is left as it is for the next one who opens
  /// the file.
  void close(bool checkpoint = false) noexcept;
  /// Forgets the handle without touching the file; for a forked child.
  void abandon() noexcept;

  [[nodiscard]] sqlite3* raw() const noexcept { return raw_; }
  [[nodiscard]] bool is_open() const noexcept { return raw_ != nullptr; }
  [[nodiscard]] bool ok() const noexcept { return failure_.code == SQLITE_OK; }
  [[nodiscard]] const Failure& failure() const noexcept { return failure_; }
  void forget_failure() { failure_ = {}; }
  /// Remembers `code` unless there is a failure already.
  void fail(int code);

  /// Several statements without parameters.
  bool run(const char* sql);
  /// The first column of the first row.
  [[nodiscard]] std::optional<std::string> ask(const char* sql);
  [[nodiscard]] std::int64_t changes() const noexcept { return sqlite3_changes64(raw_); }

  /// Prepared once per connection. `sql` must be a literal: it is remembered by its address. Null after a
  /// failure.
  [[nodiscard]] sqlite3_stmt* prepared(const char* sql);
  /// The same for a text of the user's, remembered by its content; at most so many. Null: *code says why.
  /// More than one statement is SQLITE_MISUSE, none SQLITE_EMPTY.
  [[nodiscard]] sqlite3_stmt* prepared_for_user(std::string_view sql, int& code);

  /// Lives while SQL of the user's is prepared or run; the authorizer asks for it.
  class UsersTurn {
   public:
    explicit UsersTurn(Connection& connection) : connection_(connection) { connection_.users_turn_ = true; }
    ~UsersTurn() { connection_.users_turn_ = false; }
    UsersTurn(const UsersTurn&) = delete;
    UsersTurn& operator=(const UsersTurn&) = delete;

   private:
    Connection& connection_;
  };
  [[nodiscard]] bool runs_user_sql() const noexcept { return users_turn_; }
  using Authorizer = int (*)(void*, int, const char*, const char*, const char*, const char*);
  /// Once, before anything is prepared: changing an authorizer throws away all prepared statements. The
  /// authorizer gets this connection.
  void authorize_by(Authorizer authorizer) { sqlite3_set_authorizer(raw_, authorizer, this); }

 private:
  sqlite3* raw_ = nullptr;
  bool users_turn_ = false;
  Failure failure_;
  std::unordered_map<const char*, sqlite3_stmt*> prepared_;
  std::unordered_map<std::string, sqlite3_stmt*> user_prepared_;
};

struct Blob {
  std::string_view bytes;
};

[[nodiscard]] inline Blob blob_of(const MessageId& id) noexcept {
  return {std::string_view(reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size())};
}

/// One use of a prepared statement. What is bound must live until the query is run, stepped past or gone.
class Query {
 public:
  Query(Connection& connection, const char* sql)
      : connection_(connection), statement_(connection.prepared(sql)) {}
  template <typename... Values>
  Query(Connection& connection, const char* sql, const Values&... values) : Query(connection, sql) {
    bind(values...);
  }
  ~Query() {
    if (statement_ == nullptr) return;
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
  }
  Query(const Query&) = delete;
  Query& operator=(const Query&) = delete;

  template <typename... Values>
  Query& bind(const Values&... values) {
    int index = 0;
    (set(++index, values), ...);
    return *this;
  }
  void set(int index, std::nullptr_t) { check(statement_ ? sqlite3_bind_null(statement_, index) : 0); }
  template <typename Integer>
    requires std::is_integral_v<Integer>
  void set(int index, Integer value) {
    if (statement_) check(sqlite3_bind_int64(statement_, index, static_cast<sqlite3_int64>(value)));
  }
  void set(int index, std::string_view text) {
    const char* data = text.data() == nullptr ? "" : text.data();
    if (statement_)
      check(sqlite3_bind_text64(statement_, index, data, text.size(), SQLITE_STATIC, SQLITE_UTF8));
  }
  void set(int index, const std::string& text) { set(index, std::string_view(text)); }
  void set(int index, const char* text) { set(index, std::string_view(text)); }
  void set(int index, Blob blob) {
    const char* data = blob.bytes.data() == nullptr ? "" : blob.bytes.data();
    if (statement_) check(sqlite3_bind_blob64(statement_, index, data, blob.bytes.size(), SQLITE_STATIC));
  }
  void set(int index, const MessageId& id) { set(index, blob_of(id)); }
  template <typename Value>
  void set(int index, const std::optional<Value>& value) {
    if (value) {
      set(index, *value);
    } else {
      set(index, nullptr);
    }
  }

  /// Steps; false when there is no further row, or a failure.
  bool row() {
    if (statement_ == nullptr || !connection_.ok()) return false;
    const int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code != SQLITE_DONE) connection_.fail(code);
    return false;
  }
  /// Runs to the end; false after a failure.
  bool run() {
    while (row()) {
    }
    if (statement_ != nullptr) sqlite3_reset(statement_);
    return connection_.ok();
  }
  /// Makes ready to run again; bindings stay.
  void again() {
    if (statement_ != nullptr) sqlite3_reset(statement_);
  }

  [[nodiscard]] std::int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }
  [[nodiscard]] std::uint32_t u32(int column) const { return static_cast<std::uint32_t>(integer(column)); }
  [[nodiscard]] bool is_null(int column) const {
    return sqlite3_column_type(statement_, column) == SQLITE_NULL;
  }
  [[nodiscard]] std::string_view text(int column) const {
    const auto* data = sqlite3_column_text(statement_, column);
    const int size = sqlite3_column_bytes(statement_, column);
    return data == nullptr ? std::string_view() : std::string_view(reinterpret_cast<const char*>(data), size);
  }
  [[nodiscard]] std::string_view blob(int column) const {
    const auto* data = sqlite3_column_blob(statement_, column);
    const int size = sqlite3_column_bytes(statement_, column);
    return data == nullptr ? std::string_view() : std::string_view(static_cast<const char*>(data), size);
  }
  [[nodiscard]] MessageId id(int column) const;

 private:
  void check(int code) {
    if (code != SQLITE_OK) connection_.fail(code);
  }
  Connection& connection_;
  sqlite3_stmt* statement_;
};

/// Runs one statement that returns no rows.
template <typename... Values>
bool execute(Connection& connection, const char* sql, const Values&... values) {
  return Query(connection, sql, values...).run();
}

/// The first column of the first row as an integer; nullopt when there is no row or it is NULL.
template <typename... Values>
std::optional<std::int64_t> select_integer(Connection& connection, const char* sql, const Values&... values) {
  Query query(connection, sql, values...);
  if (!query.row() || query.is_null(0)) return std::nullopt;
  return query.integer(0);
}

}  // namespace towline::drivers::sqlite
