#pragma once
// How much all consumers of one engine hold together, and who waits for room.
//
// A lane asks how much room there is, receives no more than that, and then takes a place for each delivery it
// got; two lanes may have seen the same room, so a delivery without a place goes back to the transport at
// once. That order matters: a lane that reserved its places first would keep them while it waits in vain.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>

namespace towline::engine {

/// Thread-safe.
class InFlight {
 public:
  InFlight(std::int64_t count_max, std::int64_t bytes_max, std::atomic<std::uint64_t>& count,
           std::atomic<std::uint64_t>& bytes)
      : count_max_(static_cast<std::uint64_t>(count_max)),
        bytes_max_(static_cast<std::uint64_t>(bytes_max)),
        count_(count),
        bytes_(bytes) {}

  struct Room {
    std::size_t count = 0, bytes = 0;
  };
  /// Both are 0 when one of them is.
  [[nodiscard]] Room room() const noexcept;
  /// Takes a place for one delivery; false: there is none. The last one may go beyond the bytes, so that one
  /// that is larger than all that is left does not wait for ever.
  [[nodiscard]] bool take(std::size_t bytes) noexcept;
  /// Takes it whether there is room or not: for what cannot be given back.
  void take_anyway(std::size_t bytes) noexcept;
  void give_back(std::size_t count, std::size_t bytes);

  /// Calls `wake` once, on any thread, when something was given back. Ask for room() again afterwards: it may
  /// have come meanwhile. Replaces what `who` asked before.
  void wait(const void* who, std::function<void()> wake);
  /// After this `wake` of `who` is not called any more.
  void forget(const void* who);

 private:
  const std::uint64_t count_max_, bytes_max_;
  std::atomic<std::uint64_t>& count_;
  std::atomic<std::uint64_t>& bytes_;
  std::atomic<bool> awaited_{false};
  std::mutex mutex_;
  std::map<const void*, std::function<void()>> waiting_;
};

}  // namespace towline::engine
