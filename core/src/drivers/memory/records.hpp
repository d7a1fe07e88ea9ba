#pragma once
// Records that are found by a name and forgotten after a while: idempotency records, inbox entries and dedup
// ids.
//
// Not thread-safe: the hub's mutex is held around every call.

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>

#include <towline/message.hpp>

#include "drivers/memory/queue.hpp"

namespace towline::drivers::memory {

/// One name of two parts that cannot be mistaken for another pair.
[[nodiscard]] inline std::string joined(std::string_view first, std::string_view second) {
  std::string name;
  name.reserve(first.size() + second.size() + 8);
  for (std::size_t size = first.size(), i = 0; i < 8; ++i, size >>= 8)
    name.push_back(static_cast<char>(size & 0xff));
  return name.append(first).append(second);
}

[[nodiscard]] inline std::string_view bytes_of(const MessageId& id) noexcept {
  return {reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size()};
}

/// A map whose values expire. What has expired is not found, whether it was swept yet or not.
template <typename Value>
class Expiring {
 public:
  explicit Expiring(Meter& meter) : meter_(meter) {}

  [[nodiscard]] const Value* find(const std::string& name, TimePoint now) const {
    const auto it = slots_.find(name);
    return it == slots_.end() || it->second.expires_at <= now ? nullptr : &it->second.value;
  }

  /// Replaces. `bytes`: what the value holds outside of itself.
  void put(const std::string& name, Value value, TimePoint expires_at, std::uint64_t bytes = 0) {
    const auto [it, made] = slots_.try_emplace(name);
    Slot& slot = it->second;
    if (!made) unlink(it);
    slot.value = std::move(value);
    slot.expires_at = expires_at;
    slot.stamp = ++stamp_last_;
    slot.bytes = bytes + 2 * sizeof(Slot) + name.size();
    meter_.used += slot.bytes;
    if (expires_at != kNever) ends_.emplace(expires_at, slot.stamp, &it->first);
  }

  void erase(const std::string& name) {
    const auto it = slots_.find(name);
    if (it == slots_.end()) return;
    unlink(it);
    slots_.erase(it);
  }

  /// Removes at most `count_max` of those that have expired.
  std::uint64_t sweep(TimePoint now, std::size_t count_max) {
    std::uint64_t removed = 0;
    for (; removed < count_max && !ends_.empty() && std::get<0>(*ends_.begin()) <= now; ++removed) {
      erase(std::string(*std::get<2>(*ends_.begin())));
    }
    return removed;
  }

  [[nodiscard]] std::size_t size() const noexcept { return slots_.size(); }

 private:
  struct Slot {
    Value value{};
    TimePoint expires_at = kNever;
    std::uint64_t stamp = 0;
    std::uint64_t bytes = 0;
  };
  using Slots = std::unordered_map<std::string, Slot>;

  void unlink(typename Slots::iterator it) {
    ends_.erase({it->second.expires_at, it->second.stamp, &it->first});
    meter_.used -= it->second.bytes;
  }

  Meter& meter_;
  Slots slots_;
  /// End, then the order of putting (which makes entries unique), and whose it is.
  std::set<std::tuple<TimePoint, std::uint64_t, const std::string*>> ends_;
  std::uint64_t stamp_last_ = 0;
};

}  // namespace towline::drivers::memory
