// The plain programs. Each transaction is what its comment in the header says, with prepared statements.

#include "reference.hpp"

#include <chrono>
#include <cstring>
#include <stdexcept>

#include "harness.hpp"
#include "process.hpp"

namespace towline::bench {
namespace {

constexpr std::int64_t kLeaseUs = 30'000'000;

}  // namespace

// ---- one connection -----------------------------------------------------------------------------

Database::Database(const std::filesystem::path& file) {
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  const int code = sqlite3_open_v2(file.c_str(), &handle_, flags, nullptr);
  if (code != SQLITE_OK) {
    sqlite3_close(handle_);
    throw std::runtime_error("cannot open " + file.string() + ": " + sqlite3_errstr(code));
  }
  sqlite3_busy_timeout(handle_, 10000);
  run("PRAGMA journal_mode=WAL");
  run("PRAGMA synchronous=FULL");
  run("PRAGMA cache_size=-65536");
}

Database::~Database() { sqlite3_close(handle_); }

void Database::run(const char* sql) { require(sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr)); }

void Database::require(int code) const {
  if (code == SQLITE_OK || code == SQLITE_ROW || code == SQLITE_DONE) return;
  throw std::runtime_error(std::string("SQLite: ") + sqlite3_errmsg(handle_));
}

Statement::Statement(Database& database, const char* sql) : database_(database) {
  database_.require(
      sqlite3_prepare_v3(database.handle(), sql, -1, SQLITE_PREPARE_PERSISTENT, &statement_, nullptr));
}

Statement::~Statement() { sqlite3_finalize(statement_); }

Statement& Statement::bind(int place, std::int64_t value) {
  database_.require(sqlite3_bind_int64(statement_, place, value));
  return *this;
}

Statement& Statement::bind(int place, std::string_view bytes) {
  database_.require(
      sqlite3_bind_blob(statement_, place, bytes.data(), static_cast<int>(bytes.size()), SQLITE_STATIC));
  return *this;
}

bool Statement::step() {
  const int code = sqlite3_step(statement_);
  if (code != SQLITE_ROW && code != SQLITE_DONE) {
    sqlite3_reset(statement_);
    database_.require(code);
  }
  return code == SQLITE_ROW;
}

void Statement::run() {
  while (step()) {
  }
  reset();
}

void Statement::reset() { database_.require(sqlite3_reset(statement_)); }

std::int64_t Statement::integer(int column) const { return sqlite3_column_int64(statement_, column); }

std::string_view Statement::bytes(int column) const {
  const void* data = sqlite3_column_blob(statement_, column);
  const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement_, column));
  return {static_cast<const char*>(data), size};
}

// ---- layout A -----------------------------------------------------------------------------------

namespace {

Database& with_tables(Database& database) {
  database.run(
      "CREATE TABLE IF NOT EXISTS message(id INTEGER PRIMARY KEY, queue INTEGER NOT NULL,"
      " due_us INTEGER NOT NULL, attempts INTEGER NOT NULL, payload BLOB NOT NULL);"
      "CREATE INDEX IF NOT EXISTS message_due ON message(queue, due_us)");
  return database;
}

}  // namespace

PlainQueue::PlainQueue(const std::filesystem::path& file)
    : database_(file),
      begin_(with_tables(database_), "BEGIN IMMEDIATE"),
      commit_(database_, "COMMIT"),
      insert_(database_, "INSERT INTO message(queue, due_us, attempts, payload) VALUES(1, ?1, 0, ?2)"),
      claim_(database_,
             "UPDATE message SET due_us = ?1, attempts = attempts + 1 WHERE id IN (SELECT id FROM message"
             " WHERE queue = 1 AND due_us <= ?2 ORDER BY due_us LIMIT ?3) RETURNING id, payload"),
      remove_(database_, "DELETE FROM message WHERE id = ?1"),
      version_(database_, "PRAGMA data_version") {}

void PlainQueue::insert(std::span<const Row> rows) {
  begin_.run();
  for (const Row& row : rows)
    insert_.bind(1, row.due_us).bind(2, row.payload).run();
  commit_.run();
}

std::size_t PlainQueue::claim(std::int64_t now_us, std::size_t count_max, std::vector<std::int64_t>& ids,
                              const std::function<void(std::string_view)>& seen) {
  ids.clear();
  begin_.run();
  claim_.bind(1, now_us + kLeaseUs).bind(2, now_us).bind(3, static_cast<std::int64_t>(count_max));
  while (claim_.step()) {
    ids.push_back(claim_.integer(0));
    seen(claim_.bytes(1));
  }
  claim_.reset();
  commit_.run();
  return ids.size();
}

void PlainQueue::remove(std::span<const std::int64_t> ids) {
  begin_.run();
  for (const std::int64_t id : ids)
    remove_.bind(1, id).run();
  commit_.run();
}

std::int64_t PlainQueue::data_version() {
  const std::int64_t version = version_.step() ? version_.integer(0) : 0;
  version_.reset();
  return version;
}

// ---- group commit -------------------------------------------------------------------------------

void GroupCommit::put(std::string_view payload) {
  std::unique_lock lock(mutex_);
  waiting_.push_back({0, payload});
  const std::uint64_t mine = filling_;
  while (durable_ < mine) {
    if (leading_) {
      committed_.wait(lock);
      continue;
    }
    leading_ = true;
    const std::uint64_t generation = filling_++;
    std::vector<PlainQueue::Row> rows;
    rows.swap(waiting_);
    lock.unlock();
    queue_.insert(rows);
    lock.lock();
    durable_ = generation;
    leading_ = false;
    committed_.notify_all();
  }
}

// ---- a log of batches ---------------------------------------------------------------------------

namespace {

Database& with_log(Database& database) {
  database.run(
      "CREATE TABLE IF NOT EXISTS chunk(first INTEGER PRIMARY KEY, count INTEGER NOT NULL,"
      " messages BLOB NOT NULL);"
      "CREATE TABLE IF NOT EXISTS position(reader INTEGER PRIMARY KEY, next INTEGER NOT NULL);"
      "INSERT OR IGNORE INTO position VALUES(1, 0)");
  return database;
}

}  // namespace

ChunkLog::ChunkLog(const std::filesystem::path& file)
    : database_(file),
      begin_(with_log(database_), "BEGIN IMMEDIATE"),
      commit_(database_, "COMMIT"),
      insert_(database_, "INSERT INTO chunk(first, count, messages) VALUES(?1, ?2, ?3)"),
      next_(database_, "SELECT first, count, messages FROM chunk WHERE first >= ?1 ORDER BY first LIMIT 1"),
      move_(database_, "UPDATE position SET next = ?1 WHERE reader = 1") {}

void ChunkLog::publish(std::span<const std::string_view> payloads) {
  buffer_.clear();
  for (const std::string_view payload : payloads) {
    const auto size = static_cast<std::uint32_t>(payload.size());
    buffer_.append(reinterpret_cast<const char*>(&size), sizeof size);
    buffer_.append(payload);
  }
  begin_.run();
  const auto count = static_cast<std::int64_t>(payloads.size());
  insert_.bind(1, written_).bind(2, count).bind(3, std::string_view(buffer_)).run();
  commit_.run();
  written_ += count;
}

std::size_t ChunkLog::consume(const std::function<void(std::string_view)>& seen) {
  begin_.run();
  next_.bind(1, read_);
  std::int64_t count = 0;
  if (next_.step()) {
    count = next_.integer(1);
    read_ = next_.integer(0) + count;
    std::string_view bytes = next_.bytes(2);
    while (!bytes.empty()) {
      std::uint32_t size = 0;
      std::memcpy(&size, bytes.data(), sizeof size);
      seen(bytes.substr(sizeof size, size));
      bytes.remove_prefix(sizeof size + size);
    }
  }
  next_.reset();
  if (count > 0) move_.bind(1, read_).run();
  commit_.run();
  return static_cast<std::size_t>(count);
}

namespace {

std::int64_t wall_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

FlowRate plain_life(const std::filesystem::path& file, std::size_t count) {
  PlainQueue queue(file);
  const std::string payload = payload_with(0);
  std::vector<PlainQueue::Row> rows(kBatch);
  std::vector<std::int64_t> ids;
  std::size_t bytes = 0;
  std::size_t handled = 0;
  const double cpu_before = cpu_seconds();
  const auto start = Steady::now();
  while (handled < count) {
    const std::int64_t now = wall_us();
    for (PlainQueue::Row& row : rows)
      row = {now, payload};
    queue.insert(rows);
    handled += queue.claim(now, kBatch, ids, [&](std::string_view seen) { bytes += seen.size(); });
    queue.remove(ids);
  }
  const double seconds = seconds_since(start);
  if (bytes != handled * kPayloadBytes) throw std::runtime_error("the plain program lost bytes");
  const auto size = static_cast<double>(handled);
  return {size / seconds, (cpu_seconds() - cpu_before) * 1e6 / size};
}

}  // namespace towline::bench
