#pragma once
// One store file, open in this process. Engines of this process that name the same file share it.

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <towline/spi/driver.hpp>

#include "drivers/sqlite/connection.hpp"
#include "drivers/sqlite/disk_room.hpp"
#include "drivers/sqlite/model.hpp"
#include "drivers/sqlite/records.hpp"
#include "drivers/sqlite/shared_page.hpp"
#include "drivers/sqlite/writer.hpp"

namespace towline::drivers::sqlite {

struct Settings {
  std::string path;
  std::string vfs;
  bool synchronous_full = true;
  bool threads = true;
  std::size_t batch_count_max = 1'000;
  std::size_t batch_bytes_max = 1 << 20;
  std::int64_t page_size = 8'192;
  std::uint64_t disk_reserve_bytes = 8 << 20;
  std::int64_t cache_bytes = 8 << 20;
  std::int64_t due_recent_max = 32'768;
  /// Messages behind one that is unsettled; beyond them those of them that are settled are removed, too.
  std::int64_t settled_behind_max = 20'000;
};

/// What is told of a file that is somebody else's, and of one that a newer build has written.
[[nodiscard]] Error foreign_file(const std::string& path);
[[nodiscard]] Error newer_file(const std::string& path, std::int64_t version);

/// Where incidents go, as long as the engine that gave it is there.
using Log = std::function<void(std::string_view)>;

/// Somebody who waits for records to come due, for events, or for the outbox.
struct DueWaiter {
  std::mutex mutex;
  std::condition_variable changed;
  bool signalled = false;
  bool woken = false;
};

class Database {
 public:
  explicit Database(Settings settings);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  /// Connects, makes or migrates the schema, and sets what durability needs.
  [[nodiscard]] Result<void> open(Moment now);

  void add_log(std::weak_ptr<const Log> log);

  /// Runs the op, together with what other threads run; its error is in Op::error.
  void run(Op& op);
  /// Runs `read` on a connection of its own.
  template <typename T>
  [[nodiscard]] Result<T> read(const std::function<Result<T>(Connection&)>& read);

  /// The same for a single statement, which is a transaction by itself.
  template <typename T>
  [[nodiscard]] Result<T> read_alone(const std::function<T(Connection&)>& read);

  /// Before looking a last time and then waiting: what other processes commit after that look wakes.
  void want_ring() noexcept {
    if (page_ != nullptr) page_->want_ring();
  }
  void add_due_waiter(DueWaiter& waiter);
  void remove_due_waiter(DueWaiter& waiter);
  /// Is told of what this process wrote to the outbox.
  void add_outbox_waiter(DueWaiter& waiter);
  void remove_outbox_waiter(DueWaiter& waiter);
  /// From before want_ring() until it waits no longer.
  class Waiting {
   public:
    Waiting(Database& database, Session& session);
    ~Waiting();
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

   private:
    Database& database_;
    Session& session_;
  };

  [[nodiscard]] const Settings& settings() const noexcept { return settings_; }
  [[nodiscard]] std::uint64_t bytes_on_disk() const noexcept;
  /// What open() noticed and the user should know, a line each.
  [[nodiscard]] const std::vector<std::string>& findings() const noexcept { return findings_; }
  /// Whether this is the child of the process that opened it.
  [[nodiscard]] bool forked() const noexcept;
  SweepPlaces sweep_places;  ///< under leadership

 private:
  static constexpr int kBusyTimeoutMs = 5'000;
  class ReaderLease;
  class HearOp;
  class StopOp;
  [[nodiscard]] Result<void> connect(bool first);
  [[nodiscard]] Result<void> check_after_crash();
  void note_findings();

  void run_batch(Writer::Batch& batch, const Op& own);
  [[nodiscard]] bool look_at(const Writer::Batch& batch);
  void write(Writer::Batch& batch, const Op& own);
  /// Begins a transaction when it is this process's turn; false: somebody else writes, or it failed.
  [[nodiscard]] bool try_begin();
  /// False: the batch is answered, without a transaction.
  [[nodiscard]] bool begin(Writer::Batch& batch, const Op& own);
  /// Ends what has lost patience or was answered by reading; false: so was the leader's own.
  [[nodiscard]] bool give_up_impatient(Writer::Batch& batch, const Op& own);
  void end_turn() noexcept;
  /// One transaction, begun already; false: it was rolled back.
  [[nodiscard]] bool run_transaction(std::span<Op* const> ops, Failure& failure);
  void write_each(const Writer::Batch& batch);
  void finish(Tx& tx);
  void roll_back(Tx& tx, std::span<Op* const> ops);
  void fail(std::span<Op* const> ops, const Error& error);
  /// After an I/O error nothing of this file is touched any more.
  void stop(const Failure& failure);
  void stop(Error error);
  /// False: it has stopped.
  [[nodiscard]] bool knows_schema();
  void publish_effects(Tx& tx);
  void wake_due_waiters();
  void wake_all(const std::vector<DueWaiter*>& waiters);
  /// A failure that leaves open what the disk holds; others are left for the next time.
  [[nodiscard]] static Failure checkpoint(Connection& connection, int mode, int* in_log, int* done);
  [[nodiscard]] static Failure sync_file(Connection& connection);
  /// For a full disk: the log keeps its size there, also when nothing in it is needed any more.
  [[nodiscard]] Failure give_log_back();
  void note_failure(Failure failure);
  void take_in_failure();
  void checkpoint_if_large();
  void checkpoint_loop();
  void hear_loop();
  void hear();

  [[nodiscard]] Result<Connection*> take_reader();
  void give_back(Connection* reader) noexcept;
  [[nodiscard]] bool configure(Connection& connection);

  const Settings settings_;
  Connection sql_;
  std::unique_ptr<SharedPage> page_;  ///< null: nobody else can have the file open
  bool has_turn_ = false;
  DiskRoom room_;
  std::vector<std::string> findings_;
  Catalog catalog_;
  Writer writer_;
  std::optional<Error> stopped_;  ///< written by the leader, with `failure_mutex_`
  std::atomic<bool> has_stopped_{false};
  std::mutex failure_mutex_;
  Failure failure_;  ///< of a checkpoint, not taken in yet
  std::chrono::steady_clock::time_point next_give_back_{};
  std::atomic<std::int64_t> wal_frames_{0};
  std::atomic<bool> tail_left_{false};  ///< by the checkpoint thread, of a log that is not small

  std::mutex readers_mutex_;
  std::condition_variable reader_free_;
  std::vector<std::unique_ptr<Connection>> readers_;
  std::vector<Connection*> free_readers_;

  void report(std::string_view line);
  std::mutex logs_mutex_;
  std::vector<std::weak_ptr<const Log>> logs_;

  std::mutex due_mutex_;
  std::vector<DueWaiter*> due_waiters_;
  std::vector<DueWaiter*> outbox_waiters_;
  std::mutex waiting_mutex_;
  std::vector<Session*> waiting_;

  const std::uint64_t fork_generation_;
  std::thread ear_;
  std::thread checkpointer_;
  std::mutex checkpoint_mutex_;
  std::condition_variable checkpoint_changed_;
  bool closing_ = false;
};

class Database::ReaderLease {
 public:
  ReaderLease(Database& database, Connection* reader) : database_(database), reader_(reader) {}
  ~ReaderLease() { database_.give_back(reader_); }
  ReaderLease(const ReaderLease&) = delete;
  ReaderLease& operator=(const ReaderLease&) = delete;

 private:
  Database& database_;
  Connection* reader_;
};

template <typename T>
Result<T> Database::read(const std::function<Result<T>(Connection&)>& read) {
  auto reader = take_reader();
  if (!reader) return std::move(reader).error();
  const ReaderLease lease(*this, *reader);
  Connection& sql = **reader;
  // One read transaction, so that what is read in several steps fits together.
  sql.run("BEGIN");
  Result<T> result = read(sql);
  if (!sql.ok()) {
    Error error = to_error(sql.failure(), "reading");
    sql.forget_failure();
    sqlite3_exec(sql.raw(), "ROLLBACK", nullptr, nullptr, nullptr);
    return error;
  }
  sql.run("COMMIT");
  return result;
}

template <typename T>
Result<T> Database::read_alone(const std::function<T(Connection&)>& read) {
  auto reader = take_reader();
  if (!reader) return std::move(reader).error();
  const ReaderLease lease(*this, *reader);
  T result = read(**reader);
  if ((*reader)->ok()) return result;
  Error error = to_error((*reader)->failure(), "reading");
  (*reader)->forget_failure();
  return error;
}

}  // namespace towline::drivers::sqlite
