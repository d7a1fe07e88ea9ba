#pragma once
// What the engine is compared to: the programs that somebody would write on SQLite without it. They use the
// copy of SQLite that the engine uses, with the same durability, and do as little as their task allows: no
// identity, no retry, no groups, no second process unless it is the point.
//
// A PlainQueue is "layout A": one table with payload and due time and one index. Not thread-safe unless a
// class says so. All of them throw std::runtime_error when SQLite reports an error.

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <sqlite3.h>

#include "flow.hpp"

namespace towline::bench {

/// One connection: WAL, synchronous=FULL, a cache of 64 MiB, checkpoints by SQLite's own rule.
class Database {
 public:
  explicit Database(const std::filesystem::path& file);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  void run(const char* sql);
  [[nodiscard]] sqlite3* handle() const noexcept { return handle_; }
  /// What to do with an error code: nothing when it is one of success.
  void require(int code) const;

 private:
  sqlite3* handle_ = nullptr;
};

/// A prepared statement, used again and again.
class Statement {
 public:
  Statement(Database& database, const char* sql);
  ~Statement();
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& bind(int place, std::int64_t value);
  /// The bytes must stay where they are until the statement was run.
  Statement& bind(int place, std::string_view bytes);
  /// True: there is a row.
  [[nodiscard]] bool step();
  /// Runs a statement that answers no rows.
  void run();
  void reset();
  [[nodiscard]] std::int64_t integer(int column) const;
  [[nodiscard]] std::string_view bytes(int column) const;

 private:
  Database& database_;
  sqlite3_stmt* statement_ = nullptr;
};

/// Layout A.
class PlainQueue {
 public:
  explicit PlainQueue(const std::filesystem::path& file);

  struct Row {
    std::int64_t due_us = 0;
    std::string_view payload;
  };
  /// One transaction.
  void insert(std::span<const Row> rows);
  /// One transaction: leases what is due, and hands the payloads to `seen`. `ids` is what remove() wants.
  std::size_t claim(std::int64_t now_us, std::size_t count_max, std::vector<std::int64_t>& ids,
                    const std::function<void(std::string_view)>& seen);
  /// One transaction.
  void remove(std::span<const std::int64_t> ids);
  /// Changes when another connection has committed.
  [[nodiscard]] std::int64_t data_version();

 private:
  Database database_;
  Statement begin_, commit_, insert_, claim_, remove_, version_;
};

/// The life cycle on a PlainQueue: insert, claim and delete in transactions of 1,000, on one thread.
[[nodiscard]] FlowRate plain_life(const std::filesystem::path& file, std::size_t count);

/// Many threads that each wait until their own row is durable: whoever finds nobody at it commits all that
/// waits, and what comes meanwhile waits for the next commit. Thread-safe.
class GroupCommit {
 public:
  explicit GroupCommit(const std::filesystem::path& file) : queue_(file) {}
  /// Returns after the commit.
  void put(std::string_view payload);

 private:
  PlainQueue queue_;
  std::mutex mutex_;
  std::condition_variable committed_;
  std::vector<PlainQueue::Row> waiting_;
  std::uint64_t filling_ = 1;  // the generation that put() joins
  std::uint64_t durable_ = 0;  // the last generation that was committed
  bool leading_ = false;
};

/// A log of published batches: one row each, and one row with the position of the reader.
class ChunkLog {
 public:
  explicit ChunkLog(const std::filesystem::path& file);
  /// One transaction.
  void publish(std::span<const std::string_view> payloads);
  /// One transaction: reads the next batch and moves the position behind it. 0: there is none.
  std::size_t consume(const std::function<void(std::string_view)>& seen);

 private:
  Database database_;
  Statement begin_, commit_, insert_, next_, move_;
  std::int64_t written_ = 0;
  std::int64_t read_ = 0;
  std::string buffer_;
};

}  // namespace towline::bench
