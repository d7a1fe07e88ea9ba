// Opening a store: what it is, what durability needs (set, and read back), and what the user should know.
//
// The order matters. The page is mapped first, so that of several processes that open the file at the same
// time all but one see company; whoever is alone and finds a log that nobody has emptied comes after a crash
// and looks the file over before anything is written to it.

#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>

#include <sys/stat.h>

#include "drivers/sqlite/database.hpp"
#include "drivers/sqlite/schema.hpp"
#include "drivers/sqlite/topics.hpp"
#include "drivers/sqlite/transact.hpp"

namespace towline::drivers::sqlite {
namespace {

/// A larger file is not looked over after a crash; it would take seconds a gigabyte.
constexpr std::int64_t kCheckedBytesMax = std::int64_t{1} << 30;

int note_wal(void* frames, sqlite3*, const char*, int count) {
  static_cast<std::atomic<std::int64_t>*>(frames)->store(count, std::memory_order_relaxed);
  return SQLITE_OK;
}

std::int64_t size_of(const std::string& path) {
  struct stat found {};
  return ::stat(path.c_str(), &found) == 0 ? found.st_size : 0;
}

Error differs(const std::string& path, const std::string& what) {
  return {ErrorCode::kDurabilityUnavailable,
          path + ": SQLite answers " + what + "; the file system may not support shared memory"};
}

}  // namespace

Error foreign_file(const std::string& path) {
  return {ErrorCode::kNotAStore, path + " is a database of another program; name another file"};
}

Error newer_file(const std::string& path, std::int64_t version) {
  return {ErrorCode::kSchemaTooNew, path + " has schema version " + std::to_string(version) +
                                        ", this build knows " + std::to_string(migrations().size()) +
                                        "; use the newer version of towline"};
}

bool Database::configure(Connection& connection) {
  sqlite3_busy_timeout(connection.raw(), kBusyTimeoutMs);
  sqlite3_extended_result_codes(connection.raw(), 1);
  sqlite3_db_config(connection.raw(), SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(connection.raw(), SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(connection.raw(), SQLITE_DBCONFIG_ENABLE_TRIGGER, 1, nullptr);
  connection.run(
      "PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 0;"
      " PRAGMA cell_size_check = ON;");
  connection.run(settings_.synchronous_full ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL");
  return connection.ok();
}

Result<void> Database::open(Moment now) {
  bool first = false;
  if (settings_.vfs.empty()) {
    auto page = SharedPage::open(settings_.path + "-lock");
    if (!page) return std::move(page).error();
    page_ = std::move(*page);
    first = !page_->has_company();
  }
  if (auto connected = connect(first); !connected) return connected;
  Tx tx{sql_, catalog_, now};
  const SchemaFound found = inspect_schema(sql_, migrations());
  if (found.state != SchemaState::kCurrent && !migrate(sql_, migrations(), to_us(now.wall))) {
    return to_error(sql_.failure(), "making the tables of " + settings_.path);
  }
  sql_.run(("PRAGMA cache_size = -" + std::to_string(settings_.cache_bytes / 1024)).c_str());
  sqlite3_wal_hook(sql_.raw(), &note_wal, &wal_frames_);
  refresh(tx);
  if (!sql_.ok()) return to_error(sql_.failure(), "reading " + settings_.path);
  note_findings();
  if (settings_.threads) checkpointer_ = std::thread([this] { checkpoint_loop(); });
  if (settings_.threads && page_ != nullptr) ear_ = std::thread([this] { hear_loop(); });
  return {};
}

namespace {

/// Answers the journal mode. Of processes that open a new file at once each wants to be alone for this, and
/// then SQLite does not wait: it says at once that the file is locked.
std::string switch_to_log(Connection& sql, std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (;;) {
    const std::string mode = sql.ask("PRAGMA journal_mode = WAL").value_or("?");
    const bool busy = !sql.ok() && sql.failure().primary() == SQLITE_BUSY;
    if (!busy || std::chrono::steady_clock::now() >= deadline) return mode;
    sql.forget_failure();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

}  // namespace

Result<void> Database::connect(bool first) {
  const std::string& path = settings_.path;
  const char* vfs = settings_.vfs.empty() ? nullptr : settings_.vfs.c_str();
  const bool crashed = first && size_of(path + "-wal") > 0;
  if (!sql_.open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs)) {
    return to_error(sql_.failure(), "opening " + path);
  }
  restrict_user_sql(sql_);
  if (!configure(sql_)) return to_error(sql_.failure(), "configuring " + path);
  const SchemaFound found = inspect_schema(sql_, migrations());
  if (!sql_.ok()) return to_error(sql_.failure(), "reading the schema of " + path);
  if (found.state == SchemaState::kForeign) return foreign_file(path);
  if (found.state == SchemaState::kTooNew) return newer_file(path, found.version);
  if (found.state == SchemaState::kEmpty) {
    sql_.run(("PRAGMA page_size = " + std::to_string(settings_.page_size)).c_str());
  }
  const std::string mode = switch_to_log(sql_, std::chrono::milliseconds(kBusyTimeoutMs));
  const std::string synchronous = sql_.ask("PRAGMA synchronous").value_or("?");
  const std::string mapped = sql_.ask("PRAGMA mmap_size").value_or("0");
  if (!sql_.ok()) return to_error(sql_.failure(), "switching " + path + " to a write-ahead log");
  if (mode != "wal") return differs(path, "journal_mode=" + mode);
  if (synchronous != (settings_.synchronous_full ? "2" : "1"))
    return differs(path, "synchronous=" + synchronous);
  if (mapped != "0") return differs(path, "mmap_size=" + mapped);
  return crashed ? check_after_crash() : Result<void>{};
}

Result<void> Database::check_after_crash() {
  const std::string& path = settings_.path;
  if (size_of(path) > kCheckedBytesMax) {
    findings_.push_back(path + " was not closed in order; it is too large to be looked over at every start");
    return {};
  }
  const std::string answer = sql_.ask("PRAGMA quick_check(1)").value_or("?");
  if (!sql_.ok())
    return to_error(sql_.failure(), "looking over " + path + " after it was not closed in order");
  if (answer != "ok") {
    return Error{ErrorCode::kCorruptStore, path + " was not closed in order and is damaged: " + answer +
                                               "; nothing was changed; restore it, or take what `sqlite3 " +
                                               path + " .recover` gives"};
  }
  findings_.push_back(path + " was not closed in order; it was looked over and is whole");
  return {};
}

void Database::note_findings() {
  const std::string& path = settings_.path;
  if (!settings_.synchronous_full) {
    findings_.push_back(path + ": synchronous=normal: a power loss may take the last acknowledged messages");
  }
  if (!room_.keep()) {
    findings_.push_back(path + ": the disk has no room for disk_reserve_bytes=" +
                        std::to_string(settings_.disk_reserve_bytes) +
                        "; when it is full, settling will fail as well");
  }
  struct stat found {};
  const bool readable =
      settings_.vfs.empty() && ::stat(path.c_str(), &found) == 0 && (found.st_mode & 077) != 0;
  if (readable) findings_.push_back(path + " can be read or written by other users; `chmod 600` it");
}

}  // namespace towline::drivers::sqlite
