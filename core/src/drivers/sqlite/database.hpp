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
#include "drivers/sqlite/model.hpp"
#include "drivers/sqlite/records.hpp"
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
  std::int64_t cache_bytes = 32 << 20;
  std::function<void(std::string_view)> log;
};

/// Somebody who waits for records to come due.
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

  /// Runs the op, together with what other threads run; its error is in Op::error.
  void run(Op& op);
  /// Runs `read` on a connection of its own.
  template <typename T>
  [[nodiscard]] Result<T> read(const std::function<Result<T>(Connection&)>& read);

  void add_due_waiter(DueWaiter& waiter);
  void remove_due_waiter(DueWaiter& waiter);

  [[nodiscard]] const Settings& settings() const noexcept { return settings_; }
  [[nodiscard]] std::uint64_t bytes_on_disk() const noexcept;
  SweepPlaces sweep_places;  ///< under leadership

 private:
  class ReaderLease;
  /// Turns of writers of all processes, ended by the kernel when a holder dies: SQLite's own waiting is a
  /// back-off that can starve one of them.
  class Turn;
  void run_batch(std::span<Op* const> ops);
  [[nodiscard]] bool look_at(std::span<Op* const> ops);
  void write(std::span<Op* const> ops, bool nested = false);
  [[nodiscard]] bool begin(Tx& tx, bool tidies);
  void finish(Tx& tx);
  void roll_back(Tx& tx, std::span<Op* const> ops);
  void fail(std::span<Op* const> ops, const Error& error);
  /// After an I/O error nothing of this file is touched any more.
  void stop(const Failure& failure);
  void publish_effects(Tx& tx);
  void checkpoint_if_large();
  void checkpoint_loop();

  [[nodiscard]] Result<Connection*> take_reader();
  void give_back(Connection* reader) noexcept;
  [[nodiscard]] bool configure(Connection& connection);

  const Settings settings_;
  Connection sql_;
  int lock_file_ = -1;
  Catalog catalog_;
  Writer writer_;
  std::optional<Error> stopped_;  ///< written by the leader
  std::atomic<bool> has_stopped_{false};
  std::atomic<std::int64_t> wal_frames_{0};

  std::mutex readers_mutex_;
  std::condition_variable reader_free_;
  std::vector<std::unique_ptr<Connection>> readers_;
  std::vector<Connection*> free_readers_;

  std::mutex due_mutex_;
  std::vector<DueWaiter*> due_waiters_;

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

}  // namespace towline::drivers::sqlite
