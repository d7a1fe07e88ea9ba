#pragma once
// One writer per file and process. Whoever has something to write and finds no leader becomes the leader: it
// takes what everybody has queued meanwhile, runs it in one transaction, and hands out the results. There is
// no timer and no thread: what arrives while one commit syncs is the next batch.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

enum class Look : std::uint8_t {
  kDone,   ///< answered by reading
  kMaybe,  ///< has nothing to write; joins the transaction when there is one anyway
  kWrite
};

/// Something to do under leadership. Lives on the stack of the caller, who is blocked meanwhile.
class Op {
 public:
  explicit Op(Moment moment) : now(moment) {}
  virtual ~Op() = default;
  Op(const Op&) = delete;
  Op& operator=(const Op&) = delete;

  /// Reads what is committed; no transaction is open.
  virtual Look look(Tx&) { return Look::kWrite; }
  /// Inside the transaction. May be called again after undo().
  virtual void apply(Tx& tx) = 0;
  /// The transaction was rolled back.
  virtual void undo(Tx&) {}

  const Moment now;
  /// Runs after the others of its batch, and sees what they wrote.
  bool late = false;
  /// Wants what the clock has ended to be ended first.
  bool tidies = false;
  /// Shares its transaction with nobody.
  bool alone = false;
  /// How much it counts towards the bounds of a batch.
  std::size_t count = 1;
  std::size_t bytes = 0;
  /// Set: the op did not happen, or nobody knows whether it did.
  std::optional<Error> error;
  /// Set while the disk is nearly full: what would need more room is to be refused with this.
  const Error* full = nullptr;
  /// Filled when done: when some lease may end, so that a waiting receive looks again.
  MonotonicTime next_end = MonotonicTime::max();

 private:
  friend class Writer;
  friend class Database;
  Look looked_ = Look::kWrite;
  enum class State : std::uint8_t { kQueued, kLead, kDone };
  State state_ = State::kQueued;
  std::condition_variable changed_;
};

class Writer {
 public:
  struct Bounds {
    std::size_t count_max = 1'000;
    std::size_t bytes_max = 1 << 20;
  };
  /// `run` is called by one thread at a time.
  Writer(Bounds bounds, std::function<void(std::span<Op* const>)> run)
      : bounds_(bounds), run_(std::move(run)) {}

  /// Returns when the op is done.
  void submit(Op& op);

 private:
  [[nodiscard]] std::vector<Op*> take();

  const Bounds bounds_;
  const std::function<void(std::span<Op* const>)> run_;
  std::mutex mutex_;
  std::deque<Op*> queue_;
  bool led_ = false;
};

}  // namespace towline::drivers::sqlite
