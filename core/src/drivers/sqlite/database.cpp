// The order of events of one batch: look (read only; most idle polls end here) - begin - notice what other
// processes did - end what the clock ended - the ops - write what was only noted - commit - tell whoever
// waits. Results leave this process only after the commit.
//
// A failure that may have touched the disk stops the database for good: what the file holds then is not
// known, and trying again on the same handles is how data is lost. Everything else rolls back, and memory is
// read again from the file.

#include "drivers/sqlite/database.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/sqlite/claims.hpp"
#include "drivers/sqlite/members.hpp"
#include "drivers/sqlite/ownership.hpp"
#include "drivers/sqlite/schema.hpp"
#include "drivers/sqlite/topics.hpp"
#include "drivers/sqlite/trim.hpp"

namespace towline::drivers::sqlite {
namespace {

constexpr std::size_t kReaderCountMax = 4;
constexpr int kBusyTimeoutMs = 5'000;
constexpr std::int64_t kWalBytesMax = 64 << 20;
constexpr auto kCheckpointInterval = std::chrono::milliseconds(100);
/// Frames that make a checkpoint worthwhile where there is no thread for it.
constexpr std::int64_t kInlineCheckpointFrames = 1'000;
/// How much is removed on the way at most; the janitor does the rest.
constexpr std::size_t kTrimCountMax = 4'000;

constexpr const char* kBegin = "BEGIN IMMEDIATE";
constexpr const char* kCommit = "COMMIT";
constexpr const char* kCount = "UPDATE counter SET value = value + ?2 WHERE name = ?1";

int note_wal(void* frames, sqlite3*, const char*, int count) {
  static_cast<std::atomic<std::int64_t>*>(frames)->store(count, std::memory_order_relaxed);
  return SQLITE_OK;
}

/// Whether the failure leaves open what the disk holds.
bool is_fatal(const Failure& failure) noexcept {
  switch (failure.primary()) {
    case SQLITE_IOERR:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
      return true;
    default:
      return false;
  }
}

void signal(Session& session) {
  const std::lock_guard lock(session.mutex);
  session.signalled = true;
  session.changed.notify_all();
}

bool reads(const Session& session, const TopicState* topic) {
  return std::binary_search(session.topics.begin(), session.topics.end(), topic,
                            [](const TopicState* a, const TopicState* b) { return a->id < b->id; });
}

}  // namespace

Database::Database(Settings settings)
    : settings_(std::move(settings)),
      writer_({settings_.batch_count_max, settings_.batch_bytes_max},
              [this](std::span<Op* const> ops) { run_batch(ops); }) {}

Database::~Database() {
  if (checkpointer_.joinable()) {
    {
      const std::lock_guard lock(checkpoint_mutex_);
      closing_ = true;
    }
    checkpoint_changed_.notify_all();
    checkpointer_.join();
  }
  readers_.clear();
  // After a failure the log stays as it is: what it holds may be more than the disk has.
  sql_.close(!has_stopped_.load());
  if (lock_file_ >= 0) ::close(lock_file_);
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
  const char* vfs = settings_.vfs.empty() ? nullptr : settings_.vfs.c_str();
  if (!sql_.open(settings_.path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs)) {
    return to_error(sql_.failure(), "opening " + settings_.path);
  }
  if (!configure(sql_)) return to_error(sql_.failure(), "configuring " + settings_.path);
  const SchemaFound found = inspect_schema(sql_, migrations());
  if (!sql_.ok()) return to_error(sql_.failure(), "reading the schema of " + settings_.path);
  if (found.state == SchemaState::kForeign) {
    return Error{ErrorCode::kNotAStore,
                 settings_.path + " is a database of another program; name another file"};
  }
  if (found.state == SchemaState::kTooNew) {
    return Error{ErrorCode::kSchemaTooNew, settings_.path + " has schema version " +
                                               std::to_string(found.version) + ", this build knows " +
                                               std::to_string(migrations().size()) +
                                               "; use the newer version of towline"};
  }
  if (found.state == SchemaState::kEmpty) {
    sql_.run(("PRAGMA page_size = " + std::to_string(settings_.page_size)).c_str());
  }
  const auto mode = sql_.ask("PRAGMA journal_mode = WAL");
  const auto synchronous = sql_.ask("PRAGMA synchronous");
  if (!sql_.ok()) return to_error(sql_.failure(), "switching " + settings_.path + " to a write-ahead log");
  if (mode != "wal" || synchronous != (settings_.synchronous_full ? "2" : "1")) {
    return Error{ErrorCode::kDurabilityUnavailable,
                 settings_.path + ": SQLite answers journal_mode=" + mode.value_or("?") +
                     " and synchronous=" + synchronous.value_or("?") +
                     "; the file system may not support shared memory"};
  }
  if (found.state != SchemaState::kCurrent && !migrate(sql_, migrations(), to_us(now.wall))) {
    return to_error(sql_.failure(), "making the tables of " + settings_.path);
  }
  sql_.run(("PRAGMA cache_size = -" + std::to_string(settings_.cache_bytes / 1024)).c_str());
  sqlite3_wal_hook(sql_.raw(), &note_wal, &wal_frames_);
  Tx tx{sql_, catalog_, now};
  refresh(tx);
  if (!sql_.ok()) return to_error(sql_.failure(), "reading " + settings_.path);
  if (settings_.vfs.empty()) {
    lock_file_ = ::open((settings_.path + "-lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock_file_ >= 0) (void)::fchmod(lock_file_, 0600);
  }
  if (settings_.threads) checkpointer_ = std::thread([this] { checkpoint_loop(); });
  return {};
}

void Database::run(Op& op) { writer_.submit(op); }

void Database::fail(std::span<Op* const> ops, const Error& error) {
  for (Op* op : ops)
    op->error = error;
}

void Database::stop(const Failure& failure) {
  Error error = to_error(failure, "writing; the store stopped and must be opened again");
  if (error.code != ErrorCode::kCorruptStore) error.code = ErrorCode::kIoError;
  if (settings_.log) settings_.log(error.message);
  stopped_ = std::move(error);
  has_stopped_.store(true);
}

void Database::run_batch(std::span<Op* const> ops) {
  if (stopped_) return fail(ops, *stopped_);
  if (look_at(ops)) write(ops);
  for (Op* op : ops)
    op->next_end = catalog_.next_end;
}

bool Database::look_at(std::span<Op* const> ops) {
  bool writes = false;
  Tx tx{sql_, catalog_, ops.front()->now};
  refresh(tx);
  for (Op* op : ops) {
    tx.now = op->now;
    const Look look = op->look(tx);
    op->looked_ = look;
    if (look == Look::kWrite) writes = true;
  }
  if (!sql_.ok()) {
    const Failure failure = sql_.failure();
    sql_.forget_failure();
    if (is_fatal(failure)) stop(failure);
    fail(ops, stopped_ ? *stopped_ : to_error(failure, "reading"));
    return false;
  }
  if (tx.shape_changed) publish_effects(tx);
  return writes;
}

class Database::Turn {
 public:
  explicit Turn(int file) : file_(file) {
    while (file_ >= 0 && ::flock(file_, LOCK_EX) != 0 && errno == EINTR) {
    }
  }
  ~Turn() {
    if (file_ >= 0) ::flock(file_, LOCK_UN);
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  const int file_;
};

bool Database::begin(Tx& tx, bool tidies) {
  if (!execute(sql_, kBegin)) return false;
  refresh(tx);
  if (tidies) {
    expire(tx);
    deal_partitions(tx);
  }
  return sql_.ok();
}

void Database::finish(Tx& tx) {
  flush_settled(tx);
  deal_partitions(tx);
  trim_settled(tx, kTrimCountMax);
  flush_logs(tx);
  if (tx.scheduled != 0) execute(sql_, kCount, "scheduled", tx.scheduled);
  if (tx.parked != 0) execute(sql_, kCount, "parked", tx.parked);
  if (tx.idempotency != 0) execute(sql_, kCount, "idempotency", tx.idempotency);
}

void Database::write(std::span<Op* const> ops, bool nested) {
  const Turn turn(nested ? -1 : lock_file_);
  Tx tx{sql_, catalog_, ops.front()->now};
  const bool tidies = std::any_of(ops.begin(), ops.end(), [](const Op* op) { return op->tidies; });
  if (begin(tx, tidies)) {
    for (const bool late : {false, true}) {
      for (Op* op : ops) {
        if (op->late != late || op->looked_ == Look::kDone) continue;
        tx.now = op->now;
        op->apply(tx);
      }
    }
    finish(tx);
    if (sql_.ok()) execute(sql_, kCommit);
  }
  if (sql_.ok()) {
    publish_effects(tx);
    checkpoint_if_large();
    return;
  }
  const Failure failure = sql_.failure();
  roll_back(tx, ops);
  if (is_fatal(failure)) {
    stop(failure);
    return fail(ops, *stopped_);
  }
  if (ops.size() == 1 || failure.primary() == SQLITE_BUSY) return fail(ops, to_error(failure, "writing"));
  // One of them is to blame: alone, each gets its own answer.
  for (Op* op : ops) {
    if (op->looked_ != Look::kDone) write({&op, 1}, true);
    if (stopped_) return fail(ops, *stopped_);
  }
}

void Database::roll_back(Tx& tx, std::span<Op* const> ops) {
  const Failure failure = sql_.failure();
  sql_.forget_failure();
  if (sqlite3_get_autocommit(sql_.raw()) == 0)
    sqlite3_exec(sql_.raw(), "ROLLBACK", nullptr, nullptr, nullptr);
  tx.settled.clear();
  for (Op* op : ops)
    op->undo(tx);
  if (is_fatal(failure)) return;
  rebuild(tx);
  for (auto& [id, session] : catalog_.sessions)
    reload_claims(tx, *session);
  if (!sql_.ok()) {
    const Failure second = sql_.failure();
    sql_.forget_failure();
    stop(second);
  }
}

void Database::publish_effects(Tx& tx) {
  for (auto& [id, session] : catalog_.sessions) {
    bool wake = tx.shape_changed;
    for (const LogState* log : tx.appended)
      wake = wake || reads(*session, log->topic);
    for (const GroupState* group : tx.stirred)
      wake = wake || session->group == group;
    if (!wake && tx.lease_sooner) {
      const std::lock_guard lock(session->mutex);
      wake = catalog_.next_end < session->waits_until;
    }
    if (wake) signal(*session);
  }
  if (!tx.due_earlier) return;
  const std::lock_guard lock(due_mutex_);
  for (DueWaiter* waiter : due_waiters_) {
    const std::lock_guard own(waiter->mutex);
    waiter->signalled = true;
    waiter->changed.notify_all();
  }
}

void Database::checkpoint_if_large() {
  const std::int64_t frames = wal_frames_.load(std::memory_order_relaxed);
  if (!settings_.threads) {
    if (frames < kInlineCheckpointFrames) return;
    sqlite3_wal_checkpoint_v2(sql_.raw(), nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
    wal_frames_.store(0);
    return;
  }
  if (frames * settings_.page_size < kWalBytesMax) return;
  // Waits for nobody: a reader that is in the way now will be gone a few batches later.
  sqlite3_busy_timeout(sql_.raw(), 0);
  sqlite3_wal_checkpoint_v2(sql_.raw(), nullptr, SQLITE_CHECKPOINT_RESTART, nullptr, nullptr);
  sqlite3_busy_timeout(sql_.raw(), kBusyTimeoutMs);
}

void Database::checkpoint_loop() {
  Connection own;
  const char* vfs = settings_.vfs.empty() ? nullptr : settings_.vfs.c_str();
  if (!own.open(settings_.path, SQLITE_OPEN_READWRITE, vfs) || !configure(own)) {
    if (settings_.log)
      settings_.log("the checkpoint thread could not open the store: " + own.failure().message);
    return;
  }
  std::unique_lock lock(checkpoint_mutex_);
  while (!closing_) {
    checkpoint_changed_.wait_for(lock, kCheckpointInterval, [this] { return closing_; });
    if (closing_ || has_stopped_.load() || wal_frames_.load(std::memory_order_relaxed) == 0) continue;
    lock.unlock();
    int in_log = 0;
    int done = 0;
    const int code = sqlite3_wal_checkpoint_v2(own.raw(), nullptr, SQLITE_CHECKPOINT_PASSIVE, &in_log, &done);
    if (code == SQLITE_OK && in_log == done) {
      std::int64_t expected = in_log;
      wal_frames_.compare_exchange_strong(expected, 0);
    }
    lock.lock();
  }
}

Result<Connection*> Database::take_reader() {
  if (has_stopped_.load()) {
    return Error{ErrorCode::kIoError, "the store stopped after a disk error and must be opened again"};
  }
  std::unique_lock lock(readers_mutex_);
  for (;;) {
    if (!free_readers_.empty()) {
      Connection* reader = free_readers_.back();
      free_readers_.pop_back();
      return reader;
    }
    if (readers_.size() < kReaderCountMax) break;
    reader_free_.wait(lock);
  }
  auto reader = std::make_unique<Connection>();
  const char* vfs = settings_.vfs.empty() ? nullptr : settings_.vfs.c_str();
  if (!reader->open(settings_.path, SQLITE_OPEN_READWRITE, vfs) || !configure(*reader) ||
      !reader->run("PRAGMA query_only = ON; PRAGMA cache_size = -2048")) {
    return to_error(reader->failure(), "opening " + settings_.path + " for reading");
  }
  readers_.push_back(std::move(reader));
  return readers_.back().get();
}

void Database::give_back(Connection* reader) noexcept {
  const std::lock_guard lock(readers_mutex_);
  free_readers_.push_back(reader);
  reader_free_.notify_one();
}

void Database::add_due_waiter(DueWaiter& waiter) {
  const std::lock_guard lock(due_mutex_);
  due_waiters_.push_back(&waiter);
}

void Database::remove_due_waiter(DueWaiter& waiter) {
  const std::lock_guard lock(due_mutex_);
  std::erase(due_waiters_, &waiter);
}

std::uint64_t Database::bytes_on_disk() const noexcept {
  std::uint64_t bytes = 0;
  for (const char* suffix : {"", "-wal"}) {
    struct stat info {};
    if (::stat((settings_.path + suffix).c_str(), &info) == 0)
      bytes += static_cast<std::uint64_t>(info.st_size);
  }
  return bytes;
}

}  // namespace towline::drivers::sqlite
