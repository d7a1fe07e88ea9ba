#pragma once
// One page of memory that all processes with the same store share: the doorbell, and the place to wait for
// the writer's turn. It is a small file beside the store, mapped, and the turn is a lock on it.
//
// Everything in the page is a hint. A process that dies leaves at worst a stale slot; nobody relies on a
// ring, because whoever waits also looks by himself once a second; and what the turn protects is protected by
// SQLite as well. The turn is there because SQLite's own waiting is a back-off of milliseconds that can
// starve one of the writers; the kernel frees it when its holder dies.

#include <cstdint>
#include <memory>
#include <string>

#include <towline/result.hpp>

#include "drivers/sqlite/futex.hpp"

namespace towline::drivers::sqlite {

class SharedPage {
 public:
  /// Makes the file when it is not there. Errors: kIoError, kStorageFull.
  [[nodiscard]] static Result<std::unique_ptr<SharedPage>> open(const std::string& path);
  ~SharedPage();
  SharedPage(const SharedPage&) = delete;
  SharedPage& operator=(const SharedPage&) = delete;

  /// Whether another process uses the store now. Thread-safe, as the two below.
  [[nodiscard]] bool has_company() const noexcept;
  /// Wakes the other processes that want it. Call it after the commit.
  void ring() noexcept;
  /// This process wants the next ring. Call it before looking at the store a last time, then wait: so
  /// whatever is committed after that look rings.
  void want_ring() noexcept;

  /// Waits for a ring of another process, at most `timeout_us`; false: there was none. One thread.
  [[nodiscard]] bool listen(std::int64_t timeout_us) noexcept;
  /// Makes listen() of this process return.
  void stop_listening() noexcept;
  /// Frees the slots of processes that have died. The thread that listens.
  void sweep() noexcept;

  /// The turn, for the leader: false when another process has it.
  [[nodiscard]] bool try_turn() noexcept;
  void end_turn() noexcept;
  /// Waits until somebody ends his turn, at most `timeout_us`.
  void wait_for_turn(std::int64_t timeout_us) noexcept;

 private:
  struct Layout;
  struct Slot;
  SharedPage(Layout* layout, int file);
  void take_slot() noexcept;
  /// While others wait: lets one of them have the turn before it is taken again.
  void be_fair() noexcept;

  const std::uint64_t fork_generation_;
  const int file_;
  Layout* layout_;
  Slot* slot_ = nullptr;
  std::uint32_t heard_ = 0;       // of the listening thread
  std::uint32_t turns_seen_ = 0;  // of the leader, as the next
  bool had_turn_ = false;  // and others waited for its end
};

}  // namespace towline::drivers::sqlite
