// The order of events of one batch: look (read only; most idle polls end here) - wait for this process's turn
// and begin - notice what other processes did - end what the clock ended - the ops - write what was only
// noted - commit - tell whoever waits, here and in other processes. Results leave this process only after the
// commit.
//
// While another program holds the write lock nobody is kept longer than he has patience: what was only read
// is answered, and a write that did not begin in time surely did not happen.
//
// A failure that may have touched the disk stops the database for good: what the file holds then is not
// known, and trying again on the same handles is how data is lost. Everything else rolls back, and memory is
// read again from the file.

#include "drivers/sqlite/database.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include <sys/stat.h>

#include "base/forks.hpp"
#include "drivers/sqlite/claims.hpp"
#include "drivers/sqlite/due_rows.hpp"
#include "drivers/sqlite/fired.hpp"
#include "drivers/sqlite/members.hpp"
#include "drivers/sqlite/ownership.hpp"
#include "drivers/sqlite/schema.hpp"
#include "drivers/sqlite/topics.hpp"
#include "drivers/sqlite/transact.hpp"
#include "drivers/sqlite/trim.hpp"

namespace towline::drivers::sqlite {
namespace {

constexpr std::size_t kReaderCountMax = 4;
constexpr std::int64_t kTurnLookUs = 1'000;
constexpr std::int64_t kHearLookUs = 1'000'000;
constexpr std::int64_t kWalBytesMax = 64 << 20;
/// From here on the leader ends what the checkpoint thread left, so that the log begins anew: while it grows,
/// each sync has the new size of the file to write as well, and takes nearly twice as long.
constexpr std::int64_t kWalBytesUsual = 4 << 20;
constexpr auto kCheckpointInterval = std::chrono::milliseconds(100);
/// Frames that make a checkpoint worthwhile where there is no thread for it.
constexpr std::int64_t kInlineCheckpointFrames = 1'000;
/// How much is removed on the way at most; the janitor does the rest.
constexpr std::size_t kTrimCountMax = 4'000;

constexpr const char* kBegin = "BEGIN IMMEDIATE";
constexpr const char* kCommit = "COMMIT";
/// So few subscriptions are all told at once, and look themselves.
constexpr std::size_t kWaitingFew = 4;
constexpr const char* kCount = "UPDATE counter SET value = value + ?2 WHERE name = ?1";

/// Whether the disk had no room, and nothing was written that counts.
bool is_full(const Failure& failure) noexcept {
  return failure.primary() == SQLITE_FULL || failure.code == SQLITE_IOERR_SHMSIZE;
}

/// Whether the failure leaves open what the disk holds.
bool is_fatal(const Failure& failure) noexcept {
  if (is_full(failure)) return false;
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

/// The time of a transaction. An op of the driver's own may have none, and must never set the clock back:
/// what is first seen at time zero has run out by the next look.
Moment latest(std::span<Op* const> ops) {
  Moment now = ops.front()->now;
  for (const Op* op : ops) {
    if (op->now.monotonic > now.monotonic) now = op->now;
  }
  return now;
}

Error inherited() {
  return {ErrorCode::kForked, "the store was opened before fork(); open it only after fork()"};
}

/// What can be told of those who are kept from writing: they did not write.
Error locked() {
  return {ErrorCode::kTimeout,
          "another program holds the write lock of the store, and the time for waiting is over; nothing was "
          "changed"};
}

Error stopped_by(const Failure& failure) {
  Error error = to_error(failure, "writing; the store stopped and must be opened again");
  if (error.code != ErrorCode::kCorruptStore) error.code = ErrorCode::kIoError;
  return error;
}

}  // namespace

/// Another process has committed: those who wait for what it brought are told. Looking first who they are
/// takes a turn at the writer, but wakes nobody for nothing.
class Database::HearOp final : public Op {
 public:
  explicit HearOp(Database& database) : Op({}), database_(database) {
    looks = true;
    patience = kEndlessPatience;
  }
  Look look(Tx& tx) override {
    for (auto& [id, session] : tx.catalog.sessions) {
      if (session->dropped || session->closed) continue;
      if (session->ephemeral() || may_hand_out(tx, *session)) signal(*session);
    }
    database_.wake_due_waiters();
    return Look::kDone;
  }
  void apply(Tx&) override {}

 private:
  Database& database_;
};

Database::Database(Settings settings)
    : settings_(std::move(settings)),
      room_(settings_.path, settings_.vfs.empty() ? settings_.disk_reserve_bytes : 0),
      writer_({settings_.batch_count_max, settings_.batch_bytes_max},
              [this](Writer::Batch& batch, const Op& own) { run_batch(batch, own); }),
      fork_generation_(base::fork_generation()) {
  catalog_.due_recent_max = settings_.due_recent_max;
  catalog_.settled_behind_max = settings_.settled_behind_max;
}

Database::~Database() {
  if (forked()) {
    // The threads are the parent's, and so are the locks: closing a file here could give them up.
    if (ear_.joinable()) ear_.detach();
    if (checkpointer_.joinable()) checkpointer_.detach();
    sql_.abandon();
    for (auto& reader : readers_)
      reader->abandon();
    return;
  }
  {
    const std::lock_guard lock(checkpoint_mutex_);
    closing_ = true;
  }
  checkpoint_changed_.notify_all();
  if (page_ != nullptr) page_->stop_listening();
  if (ear_.joinable()) ear_.join();
  if (checkpointer_.joinable()) checkpointer_.join();
  readers_.clear();
  // After a failure the log stays as it is: what it holds may be more than the disk has.
  sql_.close(!has_stopped_.load());
}

bool Database::forked() const noexcept { return base::fork_generation() != fork_generation_; }

void Database::run(Op& op) {
  if (forked()) {
    op.error = inherited();
    return;
  }
  if (leads_transaction(*this)) {
    op.error = Error{ErrorCode::kInvalidArgument,
                     "called inside the body of a handler transaction, which holds the store; use the "
                     "SqlTransaction (publish, complete, execute), or call after the transaction"};
    return;
  }
  writer_.submit(op);
}

void Database::fail(std::span<Op* const> ops, const Error& error) {
  for (Op* op : ops)
    op->error = error;
}

void Database::stop(const Failure& failure) { stop(stopped_by(failure)); }

void Database::stop(Error error) {
  report(error.message);
  {
    const std::lock_guard lock(failure_mutex_);
    stopped_ = std::move(error);
  }
  has_stopped_.store(true);
}

/// A process of a newer build may have opened the file meanwhile and changed its tables: what this one would
/// write, it would write in the wrong place.
bool Database::knows_schema() {
  const auto known = static_cast<std::int64_t>(migrations().size());
  if (catalog_.schema_version <= known) return true;
  stop(newer_file(settings_.path, catalog_.schema_version));
  return false;
}

void Database::run_batch(Writer::Batch& batch, const Op& own) {
  take_in_failure();
  if (stopped_) return fail(batch, *stopped_);
  if (look_at(batch)) write(batch, own);
  for (Op* op : batch)
    op->next_end = catalog_.next_end;
}

bool Database::look_at(const Writer::Batch& batch) {
  bool writes = false;
  bool looks = false;
  for (const Op* op : batch)
    (op->looks ? looks : writes) = true;
  if (!looks) return true;
  Tx tx{sql_, catalog_, latest(batch)};
  refresh(tx);
  if (sql_.ok() && !knows_schema()) {
    fail(batch, *stopped_);
    return false;
  }
  for (Op* op : batch) {
    if (!op->looks) continue;
    tx.now = op->now;
    op->looked_ = op->look(tx);
    if (op->looked_ == Look::kWrite) writes = true;
  }
  if (!sql_.ok()) {
    const Failure failure = sql_.failure();
    sql_.forget_failure();
    if (is_fatal(failure)) stop(failure);
    fail(batch, stopped_ ? *stopped_ : to_error(failure, "reading"));
    return false;
  }
  if (tx.shape_changed) publish_effects(tx);
  return writes;
}

bool Database::try_begin() {
  // Alone, SQLite's own lock is enough; a process that has just come is met by it as well.
  if (page_ != nullptr && page_->has_company()) {
    if (!page_->try_turn()) return false;
    has_turn_ = true;
  }
  sqlite3_busy_timeout(sql_.raw(), 0);
  execute(sql_, kBegin);
  sqlite3_busy_timeout(sql_.raw(), kBusyTimeoutMs);
  if (sql_.ok()) return true;
  end_turn();
  if (sql_.failure().primary() == SQLITE_BUSY) sql_.forget_failure();
  return false;
}

void Database::end_turn() noexcept {
  if (std::exchange(has_turn_, false)) page_->end_turn();
}

bool Database::begin(Writer::Batch& batch, const Op& own) {
  while (!try_begin()) {
    if (!sql_.ok()) {
      const Failure failure = sql_.failure();
      sql_.forget_failure();
      if (is_fatal(failure)) stop(failure);
      fail(batch, stopped_ ? *stopped_ : to_error(failure, "beginning to write"));
      return false;
    }
    if (settings_.threads) {
      if (page_ != nullptr) page_->wait_for_turn(kTurnLookUs);
    } else {
      fail(batch, locked());
      return false;
    }
    if (!give_up_impatient(batch, own)) return false;
  }
  return true;
}

bool Database::give_up_impatient(Writer::Batch& batch, const Op& own) {
  const auto now = std::chrono::steady_clock::now();
  writer_.give_up_queued(now, locked());
  Writer::Batch stays;
  Writer::Batch waits;
  bool own_is_done = false;
  for (Op* op : batch) {
    const bool answered = op->looked_ != Look::kWrite;
    const bool late = !answered && op->patient_until_ <= now;
    if (late) op->error = locked();
    if (op == &own) {
      stays.push_back(op);
      own_is_done = answered || late;
    } else if (answered || late) {
      op->next_end = catalog_.next_end;
      Writer::finish(*op);
    } else {
      waits.push_back(op);
    }
  }
  if (own_is_done) {
    // Whoever of them is next goes on waiting.
    writer_.put_back(waits);
  } else {
    stays.insert(stays.end(), waits.begin(), waits.end());
  }
  batch = std::move(stays);
  // It is empty when the leader's own op did not fit into it and the others have all been ended.
  return !own_is_done && !batch.empty();
}

void Database::finish(Tx& tx) {
  flush_settled(tx);
  deal_partitions(tx);
  trim_settled(tx, kTrimCountMax);
  remove_fired(tx, tx.settled_count);
  flush_logs(tx);
  settle_due_rows(tx);
  settle_cancelled(tx);
  if (tx.scheduled != 0) execute(sql_, kCount, "scheduled", tx.scheduled);
  if (tx.cancelled != 0) execute(sql_, kCount, "cancelled", tx.cancelled);
  if (tx.parked != 0) execute(sql_, kCount, "parked", tx.parked);
  if (tx.bodies != 0) execute(sql_, kCount, "bodies", tx.bodies);
  if (tx.due_recent != 0) execute(sql_, kCount, "due_recent", tx.due_recent);
  if (tx.dedup_ids != 0) execute(sql_, kCount, "dedup", tx.dedup_ids);
  if (tx.idempotency != 0) execute(sql_, kCount, "idempotency", tx.idempotency);
}

bool Database::run_transaction(std::span<Op* const> ops, Failure& failure) {
  Tx tx{sql_, catalog_, latest(ops)};
  refresh(tx);
  if (sql_.ok() && !knows_schema()) {
    roll_back(tx, ops);
    return false;
  }
  if (std::any_of(ops.begin(), ops.end(), [](const Op* op) { return op->tidies; })) {
    expire(tx);
    deal_partitions(tx);
  }
  const auto growth = wal_frames_.load(std::memory_order_relaxed) * settings_.page_size;
  const auto free_inside = [this] {
    const std::int64_t pages = select_integer(sql_, "PRAGMA freelist_count").value_or(0);
    return static_cast<std::uint64_t>(pages * settings_.page_size);
  };
  const Error* full =
      room_.full(std::chrono::steady_clock::now(), static_cast<std::uint64_t>(growth), free_inside);
  for (const bool late : {false, true}) {
    for (Op* op : ops) {
      if (op->late != late || op->looked_ == Look::kDone || !sql_.ok()) continue;
      tx.now = op->now;
      op->full = full;
      op->apply(tx);
    }
  }
  finish(tx);
  if (sql_.ok()) execute(sql_, kCommit);
  if (sql_.ok()) {
    publish_effects(tx);
    return true;
  }
  failure = sql_.failure();
  roll_back(tx, ops);
  return false;
}

void Database::write(Writer::Batch& batch, const Op& own) {
  if (!begin(batch, own)) return;
  Failure failure;
  bool done = run_transaction(batch, failure);
  if (!done && is_full(failure) && !stopped_) {
    // Again, with what was kept for this, and without what would grow.
    room_.give_up();
    if (sql_.run(kBegin)) done = run_transaction(batch, failure);
  }
  if (!done) {
    if (is_fatal(failure) && !stopped_) stop(failure);
    if (stopped_) {
      fail(batch, *stopped_);
    } else if (batch.size() == 1) {
      fail(batch, to_error(failure, "writing"));
    } else {
      write_each(batch);
    }
  }
  if (!stopped_) checkpoint_if_large();
  end_turn();
}

void Database::write_each(const Writer::Batch& batch) {
  // One of them is to blame: alone, each gets its own answer.
  for (Op* op : batch) {
    if (stopped_) {
      op->error = *stopped_;
      continue;
    }
    if (op->looked_ == Look::kDone) continue;
    Failure failure;
    if (!sql_.run(kBegin)) {
      failure = sql_.failure();
      sql_.forget_failure();
    } else if (run_transaction({&op, 1}, failure)) {
      continue;
    }
    if (is_fatal(failure) && !stopped_) stop(failure);
    op->error = stopped_ ? *stopped_ : to_error(failure, "writing");
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
  if (is_fatal(failure) || stopped_) return;
  rebuild(tx);
  for (auto& [id, session] : catalog_.sessions)
    take_back_leases(tx, *session);
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
  if (tx.due_earlier || tx.events_appended) wake_due_waiters();
  if (tx.outbox_written) wake_all(outbox_waiters_);
  // What others may wait for; a commit that only settles is news to nobody.
  const bool news = tx.due_earlier || tx.events_appended || !tx.appended.empty() || !tx.stirred.empty();
  if (news && page_ != nullptr) page_->ring();
}

void Database::wake_due_waiters() { wake_all(due_waiters_); }

void Database::wake_all(const std::vector<DueWaiter*>& waiters) {
  const std::lock_guard lock(due_mutex_);
  for (DueWaiter* waiter : waiters) {
    const std::lock_guard own(waiter->mutex);
    waiter->signalled = true;
    waiter->changed.notify_all();
  }
}

/// Asks nothing: whoever runs the batch of it takes in that the store has failed.
class Database::StopOp final : public Op {
 public:
  StopOp() : Op({}) {
    looks = true;
    patience = kEndlessPatience;
  }
  Look look(Tx&) override { return Look::kDone; }
  void apply(Tx&) override {}
};

/// The disk refused part of a checkpoint: what the file holds is not known, and a second sync would be
/// answered well although the pages are gone. Only the log has everything, so nobody may empty it any more.
void Database::note_failure(Failure failure) {
  {
    const std::lock_guard lock(failure_mutex_);
    failure_ = std::move(failure);
  }
  has_stopped_.store(true);
  StopOp op;
  run(op);
}

/// Before anything more is written: from the moment on that one call was refused, none is acknowledged.
void Database::take_in_failure() {
  if (stopped_ || !has_stopped_.load()) return;
  Failure failure;
  {
    const std::lock_guard lock(failure_mutex_);
    failure = failure_;
  }
  stop(failure);
}

Failure Database::checkpoint(Connection& connection, int mode, int* in_log, int* done) {
  const int code = sqlite3_wal_checkpoint_v2(connection.raw(), nullptr, mode, in_log, done);
  connection.forget_failure();
  if (code == SQLITE_OK || (code & 0xff) == SQLITE_BUSY || (code & 0xff) == SQLITE_LOCKED) return {};
  connection.fail(code);
  Failure failure = connection.failure();
  connection.forget_failure();
  return is_fatal(failure) ? failure : Failure{};
}

Failure Database::sync_file(Connection& connection) {
  sqlite3_file* file = nullptr;
  sqlite3_file_control(connection.raw(), nullptr, SQLITE_FCNTL_FILE_POINTER, &file);
  const int code = file->pMethods->xSync(file, SQLITE_SYNC_NORMAL);
  if (code == SQLITE_OK) return {};
  connection.fail(code);
  Failure failure = connection.failure();
  connection.forget_failure();
  return failure;
}

Failure Database::give_log_back() {
  const auto now = std::chrono::steady_clock::now();
  if (now < next_give_back_) return {};
  next_give_back_ = now + kCheckpointInterval;
  int in_log = -1;
  sqlite3_busy_timeout(sql_.raw(), 0);
  Failure failure = checkpoint(sql_, SQLITE_CHECKPOINT_TRUNCATE, &in_log, nullptr);
  sqlite3_busy_timeout(sql_.raw(), kBusyTimeoutMs);
  if (in_log == 0) wal_frames_.store(0);
  return failure;
}

void Database::checkpoint_if_large() {
  // After a checkpoint has failed only the log has everything.
  if (has_stopped_.load()) return;
  const std::int64_t frames = wal_frames_.load(std::memory_order_relaxed);
  Failure failure;
  if (room_.is_full() && settings_.vfs.empty()) {
    failure = give_log_back();
  } else if (!settings_.threads) {
    if (frames < kInlineCheckpointFrames) return;
    failure = checkpoint(sql_, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
    wal_frames_.store(0);
  } else if (tail_left_.exchange(false) && frames * settings_.page_size >= kWalBytesUsual) {
    failure = checkpoint(sql_, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
  } else {
    if (frames * settings_.page_size < kWalBytesMax) return;
    // Waits for nobody: a reader that is in the way now will be gone a few batches later.
    sqlite3_busy_timeout(sql_.raw(), 0);
    failure = checkpoint(sql_, SQLITE_CHECKPOINT_RESTART, nullptr, nullptr);
    sqlite3_busy_timeout(sql_.raw(), kBusyTimeoutMs);
  }
  if (failure.code != SQLITE_OK) stop(failure);
}

void Database::checkpoint_loop() {
  Connection own;
  const char* vfs = settings_.vfs.empty() ? nullptr : settings_.vfs.c_str();
  if (!own.open(settings_.path, SQLITE_OPEN_READWRITE, vfs) || !configure(own)) {
    report("the checkpoint thread could not open the store: " + own.failure().message);
    return;
  }
  std::unique_lock lock(checkpoint_mutex_);
  while (!closing_) {
    checkpoint_changed_.wait_for(lock, kCheckpointInterval, [this] { return closing_; });
    if (closing_ || has_stopped_.load() || wal_frames_.load(std::memory_order_relaxed) == 0) continue;
    lock.unlock();
    int in_log = 0;
    int done = 0;
    Failure failure = checkpoint(own, SQLITE_CHECKPOINT_PASSIVE, &in_log, &done);
    if (failure.code != SQLITE_OK) {
      note_failure(std::move(failure));
    } else {
      std::int64_t expected = in_log;
      const bool all = in_log == done && wal_frames_.compare_exchange_strong(expected, 0);
      const bool large = in_log * settings_.page_size >= kWalBytesUsual;
      if (!all && large && settings_.synchronous_full) {
        // A checkpoint that does not reach the end of the log leaves its pages unsynced. The leader, for whom
        // others wait, shall have few of them to sync.
        failure = sync_file(own);
        if (failure.code == SQLITE_OK) {
          tail_left_.store(true);
        } else {
          note_failure(std::move(failure));
        }
      }
    }
    lock.lock();
  }
}

void Database::hear_loop() {
  while (true) {
    const bool rang = page_->listen(kHearLookUs);
    {
      const std::lock_guard lock(checkpoint_mutex_);
      if (closing_) return;
    }
    page_->sweep();
    if (rang) hear();
  }
}

void Database::hear() {
  {
    const std::lock_guard lock(waiting_mutex_);
    if (waiting_.size() <= kWaitingFew) {
      for (Session* session : waiting_)
        signal(*session);
      wake_due_waiters();
      return;
    }
  }
  HearOp op(*this);
  run(op);
}

Database::Waiting::Waiting(Database& database, Session& session) : database_(database), session_(session) {
  const std::lock_guard lock(database_.waiting_mutex_);
  database_.waiting_.push_back(&session_);
}

Database::Waiting::~Waiting() {
  const std::lock_guard lock(database_.waiting_mutex_);
  std::erase(database_.waiting_, &session_);
}

Result<Connection*> Database::take_reader() {
  if (forked()) return inherited();
  if (has_stopped_.load()) {
    const std::lock_guard lock(failure_mutex_);
    return stopped_ ? *stopped_ : stopped_by(failure_);
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

void Database::add_log(std::weak_ptr<const Log> log) {
  const std::lock_guard lock(logs_mutex_);
  std::erase_if(logs_, [](const auto& known) { return known.expired(); });
  logs_.push_back(std::move(log));
}

void Database::report(std::string_view line) {
  std::vector<std::shared_ptr<const Log>> logs;
  {
    const std::lock_guard lock(logs_mutex_);
    for (const auto& log : logs_)
      logs.push_back(log.lock());
  }
  for (const auto& log : logs) {
    if (log != nullptr && *log) (*log)(line);
  }
}

void Database::add_due_waiter(DueWaiter& waiter) {
  const std::lock_guard lock(due_mutex_);
  due_waiters_.push_back(&waiter);
}

void Database::remove_due_waiter(DueWaiter& waiter) {
  const std::lock_guard lock(due_mutex_);
  std::erase(due_waiters_, &waiter);
}

void Database::add_outbox_waiter(DueWaiter& waiter) {
  const std::lock_guard lock(due_mutex_);
  outbox_waiters_.push_back(&waiter);
}

void Database::remove_outbox_waiter(DueWaiter& waiter) {
  const std::lock_guard lock(due_mutex_);
  std::erase(outbox_waiters_, &waiter);
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
