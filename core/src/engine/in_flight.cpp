// See the header.

#include "engine/in_flight.hpp"

#include <algorithm>

namespace towline::engine {

InFlight::Room InFlight::room() const noexcept {
  const std::uint64_t count = count_.load();
  const std::uint64_t bytes = bytes_.load();
  if (count >= count_max_ || bytes >= bytes_max_) return {};
  return {static_cast<std::size_t>(count_max_ - count), static_cast<std::size_t>(bytes_max_ - bytes)};
}

bool InFlight::take(std::size_t bytes) noexcept {
  // The count is the gate: whoever gets a place there adds its bytes.
  std::uint64_t count = count_.load();
  do {
    if (count >= count_max_ || bytes_.load() >= bytes_max_) return false;
  } while (!count_.compare_exchange_weak(count, count + 1));
  bytes_.fetch_add(bytes);
  return true;
}

void InFlight::take_anyway(std::size_t bytes) noexcept {
  count_.fetch_add(1);
  bytes_.fetch_add(bytes);
}

void InFlight::give_back(std::size_t count, std::size_t bytes) {
  count_.fetch_sub(count);
  bytes_.fetch_sub(bytes);
  // Whoever says that it waits looks at the room once more after saying so, so nobody is missed here.
  if (!awaited_.load()) return;
  const std::lock_guard lock(mutex_);
  awaited_.store(false);
  // With the lock held, so that forget() knows that nobody is being called; wake() only rings.
  for (auto& [who, wake] : waiting_)
    wake();
  waiting_.clear();
}

void InFlight::wait(const void* who, std::function<void()> wake) {
  const std::lock_guard lock(mutex_);
  waiting_[who] = std::move(wake);
  awaited_.store(true);
}

void InFlight::forget(const void* who) {
  const std::lock_guard lock(mutex_);
  waiting_.erase(who);
}

}  // namespace towline::engine
