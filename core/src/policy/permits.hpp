#pragma once
// Who may run: a limit with a queue, first come, first served. A pure state machine; the caller holds its own
// lock around each call, and wakes the tickets that a call answers as granted.
//
// A release hands the freed permits to the waiters at the head inside the same call. Nobody who comes later
// can slip in between, which is what makes `in_use <= limit` hold at every moment. (Only after a shrink
// in_use may be above the new limit; then nothing is granted until enough came back.)
//
// Strictly in order: a head that needs more than is free makes those behind it wait, so a heavy waiter is
// never starved. A newcomer queues when anybody waits, even if there would be room for it.
//
//     acquire -> granted                       release
//             -> queued  -> granted (by a release, cancel or set_limit of somebody else)
//                        -> cancelled (the caller gave up: exactly one of granted and cancelled happens)
//                        -> evicted (the limit was shrunk below its weight)
//             -> refused (the queue is full, or weight is 0 or above the limit)

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace towline::policy {

class PermitQueue {
 public:
  /// Names one waiter. Never reused.
  using Ticket = std::uint64_t;

  enum class Answer : std::uint8_t {
    kGranted,
    kQueued,
    kQueueFull,     ///< waiting_max others wait already
    kInvalidWeight  ///< 0, or more than the limit
  };
  struct Acquired {
    Answer answer = Answer::kGranted;
    Ticket ticket = 0;  ///< kQueued
  };
  struct Changes {
    std::vector<Ticket> granted;  ///< in the order they came
    std::vector<Ticket>
        evicted;  ///< set_limit: their weight is above the new limit, they can never be granted
  };

  explicit PermitQueue(std::uint64_t limit, std::size_t waiting_max)
      : limit_(limit), waiting_max_(waiting_max) {}

  [[nodiscard]] Acquired acquire(std::uint64_t weight = 1);
  /// Granted or not, never queued. False also when there is room but others wait.
  [[nodiscard]] bool try_acquire(std::uint64_t weight = 1);
  /// Gives `weight` back and answers who may go on. Giving back more than is out is a bug of the caller
  /// (asserted).
  [[nodiscard]] Changes release(std::uint64_t weight = 1);
  /// The ticket gives up. `cancelled` is false when it was granted, evicted or cancelled before: a granted
  /// one then holds permits and must release them. Others may move up.
  struct Cancelled {
    bool cancelled = false;
    Changes changes;
  };
  [[nodiscard]] Cancelled cancel(Ticket ticket);
  /// Takes effect at once. Nobody who holds permits is stopped.
  [[nodiscard]] Changes set_limit(std::uint64_t limit);

  [[nodiscard]] std::uint64_t limit() const noexcept { return limit_; }
  [[nodiscard]] std::uint64_t in_use() const noexcept { return in_use_; }
  /// 0 while more is out than the limit allows, or while somebody waits.
  [[nodiscard]] std::uint64_t available() const noexcept;
  [[nodiscard]] std::size_t waiting_count() const noexcept { return waiting_.size(); }
  [[nodiscard]] std::uint64_t in_use_max() const noexcept { return in_use_max_; }
  [[nodiscard]] std::uint64_t granted_count() const noexcept { return granted_count_; }
  [[nodiscard]] std::uint64_t refused_count() const noexcept { return refused_count_; }

 private:
  [[nodiscard]] bool fits(std::uint64_t weight) const noexcept;
  void grant(std::uint64_t weight) noexcept;
  void grant_heads(std::vector<Ticket>& granted);

  std::uint64_t limit_;
  std::size_t waiting_max_;
  std::uint64_t in_use_ = 0;
  std::uint64_t in_use_max_ = 0;
  std::uint64_t granted_count_ = 0;
  std::uint64_t refused_count_ = 0;
  Ticket last_ticket_ = 0;
  std::map<Ticket, std::uint64_t> waiting_;  // to weight; tickets grow, so the first is the oldest
};

}  // namespace towline::policy
