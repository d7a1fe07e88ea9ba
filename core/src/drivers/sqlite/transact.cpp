// Handler transactions: the user's SQL, the messages the handler publishes and the settlement of its
// delivery, in one transaction.
//
// The op is alone in its batch, and an op that is alone is taken only by the thread that submitted it, so the
// body runs on the caller's thread. The user's part stands in a savepoint: what fails, in the body or in a
// unit, takes only that back. Units are checked before the first of their writes, because what is known in
// memory of the queues is not part of a savepoint.

#include "drivers/sqlite/transact.hpp"

#include <algorithm>
#include <exception>
#include <initializer_list>

#include "drivers/sqlite/dead_letters.hpp"
#include "drivers/sqlite/ops.hpp"
#include "drivers/sqlite/outbox.hpp"
#include "drivers/sqlite/provider.hpp"
#include "drivers/sqlite/units.hpp"

namespace towline::drivers::sqlite {
namespace {

constexpr std::string_view kOwnTables[] = {"meta",
                                           "topic",
                                           "log",
                                           "message",
                                           "grp",
                                           "interest",
                                           "grp_topic",
                                           "cursor",
                                           "partition_cursor",
                                           "member",
                                           "member_topic",
                                           "ownership",
                                           "claim",
                                           "redelivery",
                                           "body",
                                           "schedule",
                                           "schedule_recent",
                                           "cancelled",
                                           "cancelled_recent",
                                           "fired",
                                           "fired_slot",
                                           "key_block",
                                           "dead_letter",
                                           "dead_letter_count",
                                           "idempotency",
                                           "inbox",
                                           "dedup",
                                           "dedup_recent",
                                           "counter",
                                           "event_stream",
                                           "event_record",
                                           "event_snapshot",
                                           "event_cursor",
                                           "conversation_stream",
                                           "conversation_record",
                                           "client_position",
                                           "missed_message",
                                           "saga",
                                           "saga_stream",
                                           "saga_record",
                                           "outbox",
                                           "towline_outbox_v1",
                                           "towline_inbox_v1",
                                           "sqlite_master"};

bool is_own(const char* table) {
  const std::string_view name = table == nullptr ? std::string_view() : std::string_view(table);
  for (const std::string_view own : kOwnTables) {
    if (name.size() == own.size() &&
        sqlite3_strnicmp(name.data(), own.data(), static_cast<int>(own.size())) == 0)
      return true;
  }
  return false;
}

bool is_any_of(const char* name, std::initializer_list<std::string_view> names) {
  return name != nullptr && std::any_of(names.begin(), names.end(), [&](std::string_view one) {
           return sqlite3_stricmp(name, one.data()) == 0;
         });
}
bool is_view(const char* name) { return is_any_of(name, {"towline_outbox_v1", "towline_inbox_v1"}); }
bool is_contract(const char* name) {
  return is_any_of(name, {"towline_outbox_v1_insert", "towline_inbox_v1_insert"});
}

/// What the user's SQL may do: anything with tables of the user's own, and reading ours. Nothing temporary: a
/// temporary table with the name of one of ours would hide it from the engine, which uses this connection
/// too.
int authorize(void* connection, int action, const char* first, const char* second, const char*,
              const char* trigger) {
  if (!static_cast<const Connection*>(connection)->runs_user_sql()) return SQLITE_OK;
  // What the views of the contract do when they are written to.
  if (is_contract(trigger)) return SQLITE_OK;
  if (action == SQLITE_INSERT && is_view(first)) return SQLITE_OK;
  switch (action) {
    case SQLITE_CREATE_TEMP_TABLE:
    case SQLITE_CREATE_TEMP_INDEX:
    case SQLITE_CREATE_TEMP_TRIGGER:
    case SQLITE_CREATE_TEMP_VIEW:
    case SQLITE_ATTACH:
    case SQLITE_DETACH:
    case SQLITE_PRAGMA:
    case SQLITE_TRANSACTION:
    case SQLITE_SAVEPOINT:
      return SQLITE_DENY;
    case SQLITE_INSERT:
    case SQLITE_UPDATE:
    case SQLITE_DELETE:
      // Creating a table of the user's own writes sqlite_master, which SQLite asks for here as well.
      if (first != nullptr && std::string_view(first) == "sqlite_master") return SQLITE_OK;
      return is_own(first) ? SQLITE_DENY : SQLITE_OK;
    case SQLITE_DROP_TABLE:
    case SQLITE_DROP_VIEW:
    case SQLITE_DROP_INDEX:
    case SQLITE_DROP_TRIGGER:
    case SQLITE_CREATE_TRIGGER:
    case SQLITE_CREATE_INDEX:
      return is_own(first) || is_own(second) ? SQLITE_DENY : SQLITE_OK;
    case SQLITE_ALTER_TABLE:
      return is_own(second) ? SQLITE_DENY : SQLITE_OK;
    default:
      return SQLITE_OK;
  }
}

class UserSql final : public spi::SqlSession {
 public:
  explicit UserSql(Connection& sql) : sql_(sql) {}

  Result<std::vector<std::vector<Value>>> execute(std::string_view text,
                                                  std::span<const Value> parameters) override {
    // Also while it runs: a statement is prepared again when the schema has changed.
    const Connection::UsersTurn turn(sql_);
    return run(text, parameters);
  }

  Result<void> write(const spi::Write& write) override {
    writes.writes.push_back(write);
    return {};
  }

  spi::Unit writes;
  /// The connection failed in a way that is not the user's: the transaction cannot go on.
  int fatal_code = SQLITE_OK;

 private:
  Error failed(std::string_view doing) {
    const int code = sqlite3_extended_errcode(sql_.raw());
    if ((code & 0xff) == SQLITE_AUTH) {
      return {ErrorCode::kInvalidArgument,
              std::string(doing) +
                  ": not allowed here are the engine's own tables, temporary tables, ATTACH, PRAGMA and "
                  "transaction statements (" +
                  sqlite3_errmsg(sql_.raw()) + ")",
              code};
    }
    if ((code & 0xff) == SQLITE_IOERR || (code & 0xff) == SQLITE_FULL || (code & 0xff) == SQLITE_CORRUPT)
      fatal_code = code;
    return {ErrorCode::kInvalidArgument, std::string(doing) + ": " + sqlite3_errmsg(sql_.raw()), code};
  }

  Result<std::vector<std::vector<Value>>> run(std::string_view text, std::span<const Value> parameters) {
    int code = SQLITE_OK;
    sqlite3_stmt* statement = sql_.prepared_for_user(text, code);
    if (code == SQLITE_EMPTY) return Error{ErrorCode::kInvalidArgument, "the statement is empty"};
    if (code == SQLITE_MISUSE) {
      return Error{ErrorCode::kInvalidArgument,
                   "the text has more than one statement; execute them one by one"};
    }
    if (statement == nullptr) return failed("the statement was refused");
    auto rows = bind_and_step(statement, parameters);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return rows;
  }

  Result<std::vector<std::vector<Value>>> bind_and_step(sqlite3_stmt* statement,
                                                        std::span<const Value> parameters) {
    if (static_cast<std::size_t>(sqlite3_bind_parameter_count(statement)) != parameters.size()) {
      return Error{ErrorCode::kInvalidArgument,
                   "the statement has " + std::to_string(sqlite3_bind_parameter_count(statement)) +
                       " parameters, but " + std::to_string(parameters.size()) + " were given"};
    }
    for (std::size_t i = 0; i < parameters.size(); ++i)
      bind(statement, static_cast<int>(i + 1), parameters[i]);
    std::vector<std::vector<Value>> rows;
    int code = SQLITE_ROW;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW)
      rows.push_back(row_of(statement));
    if (code != SQLITE_DONE) return failed("the statement failed");
    return rows;
  }

  static void bind(sqlite3_stmt* statement, int index, const Value& value) {
    if (const auto* whole = std::get_if<std::int64_t>(&value)) {
      sqlite3_bind_int64(statement, index, *whole);
    } else if (const auto* real = std::get_if<double>(&value)) {
      sqlite3_bind_double(statement, index, *real);
    } else if (const auto* text = std::get_if<std::string>(&value)) {
      sqlite3_bind_text64(statement, index, text->data(), text->size(), SQLITE_STATIC, SQLITE_UTF8);
    } else {
      sqlite3_bind_null(statement, index);
    }
  }

  static std::vector<Value> row_of(sqlite3_stmt* statement) {
    std::vector<Value> row;
    for (int i = 0; i < sqlite3_column_count(statement); ++i) {
      switch (sqlite3_column_type(statement, i)) {
        case SQLITE_NULL:
          row.emplace_back(std::monostate{});
          break;
        case SQLITE_INTEGER:
          row.emplace_back(std::int64_t{sqlite3_column_int64(statement, i)});
          break;
        case SQLITE_FLOAT:
          row.emplace_back(sqlite3_column_double(statement, i));
          break;
        default: {
          const auto* data = static_cast<const char*>(sqlite3_column_blob(statement, i));
          const int size = sqlite3_column_bytes(statement, i);
          row.emplace_back(data == nullptr ? std::string()
                                           : std::string(data, static_cast<std::size_t>(size)));
        }
      }
    }
    return row;
  }

  Connection& sql_;
};

/// Of which database this thread runs the body of a transaction, the innermost.
thread_local const Database* t_leads = nullptr;

class Leading {
 public:
  explicit Leading(const Database& database) : before_(std::exchange(t_leads, &database)) {}
  ~Leading() { t_leads = before_; }
  Leading(const Leading&) = delete;
  Leading& operator=(const Leading&) = delete;

 private:
  const Database* before_;
};

class TransactOp final : public Op {
 public:
  TransactOp(Moment moment, const Database& database,
             const std::function<Result<void>(spi::SqlSession&)>& body, std::span<const spi::Unit> units,
             Session* settle)
      : Op(moment), database_(database), body_(body), units_(units.begin(), units.end()), settle_(settle) {
    alone = true;
  }

  void apply(Tx& tx) override {
    end_dead_letter_leases(tx);
    if (!execute(tx.sql, "SAVEPOINT towline_user")) return;
    UserSql session(tx.sql);
    result = call(session);
    if (session.fatal_code != SQLITE_OK) return tx.sql.fail(session.fatal_code);
    if (result) result = add_units(tx, std::move(session.writes));
    tx.outbox_written = result && outbox_holds_any(tx.sql);
    if (!result) execute(tx.sql, "ROLLBACK TO towline_user");
    execute(tx.sql, "RELEASE towline_user");
  }

  void undo(Tx&) override { result = Error{ErrorCode::kInternal, "the transaction was rolled back"}; }

  Result<void> result;

 private:
  Result<void> call(UserSql& session) {
    const Leading leading(database_);
    try {
      return body_(session);
    } catch (const std::exception& thrown) {
      return Error{ErrorCode::kHandlerFailed,
                   std::string("the body of the transaction threw: ") + thrown.what()};
    } catch (...) {
      return Error{ErrorCode::kHandlerFailed, "the body of the transaction threw"};
    }
  }

  Result<void> add_units(Tx& tx, spi::Unit own) {
    units_.push_back(std::move(own));
    for (const spi::Unit& unit : units_) {
      if (full != nullptr && grows(unit)) return *full;
      if (auto checked = check_unit(tx, unit, settle_); !checked) return checked;
    }
    for (const spi::Unit& unit : units_)
      apply_unit(tx, unit, settle_);
    return {};
  }

  const Database& database_;
  const std::function<Result<void>(spi::SqlSession&)>& body_;
  std::vector<spi::Unit> units_;
  Session* settle_;
};

}  // namespace

bool leads_transaction(const Database& database) noexcept { return t_leads == &database; }

void restrict_user_sql(Connection& connection) { connection.authorize_by(&authorize); }

Result<void> SqliteStore::transact(const std::function<Result<void>(spi::SqlSession&)>& body,
                                   std::span<const spi::Unit> units, spi::Subscription* settle) {
  auto* subscription = dynamic_cast<SqliteSubscription*>(settle);
  TransactOp op(handle_.now(), *handle_.database, body, units,
                subscription == nullptr ? nullptr : subscription->session().get());
  handle_.database->run(op);
  if (op.error) return std::move(*op.error);
  return std::move(op.result);
}

}  // namespace towline::drivers::sqlite
