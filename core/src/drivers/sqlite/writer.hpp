#pragma once
// One writer per file and process. Whoever has something to write and finds no leader becomes the leader: it
// takes what everybody has queued meanwhile, runs it in one transaction, and hands out the results. There is
// no timer and no thread: what arrives while one commit syncs is the next batch.

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "drivers/sqlite/futex.hpp"
#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

enum class Look : std::uint8_t {
  kDone,   ///< answered by reading
  kMaybe,  ///< has nothing to write; joins the transaction when there is one anyway
  kWrite
};

/// How long an op waits for its turn, or for a file that another program has locked, unless it says
/// otherwise.
inline constexpr Duration kPatience = std::chrono::seconds(5);
/// For what must happen because somebody's memory is about to go.
inline constexpr Duration kEndlessPatience = Duration::max();

/// Something to do under leadership. Lives on the stack of the caller, who is blocked meanwhile.
class Op {
 public:
  explicit Op(Moment moment) : now(moment) {}
  virtual ~Op() = default;
  Op(const Op&) = delete;
  Op& operator=(const Op&) = delete;

  /// Reads what is committed; no transaction is open. Called when `looks` is set.
  virtual Look look(Tx&) { return Look::kWrite; }
  /// Inside the transaction. May be called again after undo().
  virtual void apply(Tx& tx) = 0;
  /// The transaction was rolled back.
  virtual void undo(Tx&) {}

  /// spi::kPatient: as long as any other.
  void be_patient_until(MonotonicTime begin_by) {
    if (begin_by != MonotonicTime::max()) patience = begin_by - now.monotonic;
  }

  const Moment now;
  /// How long it waits for its turn and for the write lock; then it surely did not happen.
  Duration patience = kPatience;
  /// Has a look() of its own.
  bool looks = false;
  /// Runs after the others of its batch, and sees what they wrote.
  bool late = false;
  /// Wants what the clock has ended to be ended first.
  bool tidies = false;
  /// Shares its transaction with nobody, and runs on the thread that submitted it.
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
  std::chrono::steady_clock::time_point patient_until_{};
  static constexpr std::uint32_t kQueued = 0;
  static constexpr std::uint32_t kMayLead = 1;  ///< queued, and told to look whether it can lead
  static constexpr std::uint32_t kTaken = 2;    ///< in somebody's batch
  static constexpr std::uint32_t kDone = 3;
  Word state_{kQueued};
};

class Writer {
 public:
  struct Bounds {
    std::size_t count_max = 1'000;
    std::size_t bytes_max = 1 << 20;
  };
  /// What a batch leaves undone: it could not begin in time, and those that have patience left go to the
  /// front of the queue again.
  using Batch = std::vector<Op*>;
  /// `run` is called by one thread at a time. Ops that it takes out of the batch must have been given to
  /// finish(); the others are done when it returns.
  Writer(Bounds bounds, std::function<void(Batch&, const Op& own)> run)
      : bounds_(bounds), run_(std::move(run)) {}

  /// Returns when the op is done.
  void submit(Op& op);

  /// For the leader, who waits for the write lock: ends what waits behind it and has lost patience.
  void give_up_queued(std::chrono::steady_clock::time_point now, const Error& error);
  /// For the leader: the op, which is not the leader's own, is done.
  static void finish(Op& op) noexcept;
  /// For the leader: puts these back to the front.
  void put_back(std::span<Op* const> ops);

 private:
  void lead(std::unique_lock<std::mutex>& lock, Op& own);
  static void let_lead(Op& op) noexcept;
  [[nodiscard]] Batch take(const Op& own);
  /// Whether its patience has ended and it is out of the queue: it surely did not happen.
  [[nodiscard]] bool withdraw(Op& op);
  void wait_for_company(std::unique_lock<std::mutex>& lock);

  const Bounds bounds_;
  const std::function<void(Batch&, const Op&)> run_;
  std::mutex mutex_;
  std::deque<Op*> queue_;
  bool led_ = false;
  std::size_t batch_size_last_ = 0;
};

}  // namespace towline::drivers::sqlite
