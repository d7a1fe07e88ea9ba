#pragma once
// The dead letters of a hub: found by id, listed in the order of their creation, counted by status as they
// change.
//
// Not thread-safe: the hub's mutex is held around every call.

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include <towline/spi/store.hpp>

#include "drivers/memory/cursor.hpp"
#include "drivers/memory/queue.hpp"

namespace towline::drivers::memory {

class DeadLetters {
 public:
  explicit DeadLetters(Meter& meter) : meter_(meter) {}

  /// Entries whose redrive lease has ended count as pending again. Call before anything else.
  void end_leases(TimePoint now);

  [[nodiscard]] const DeadLetter* find(const MessageId& id) const;
  /// Replaces an entry of the same id.
  void put(DeadLetter record);
  void update(const spi::UpdateDeadLetter& write);
  void erase(const MessageId& id);

  [[nodiscard]] Result<Page<DeadLetter>> list(const DeadLetterQuery& query) const;
  [[nodiscard]] Result<std::vector<DeadLetterGroup>> group(const DeadLetterQuery& query) const;
  /// Removes at most `count_max`: those that last failed before the time, and the oldest beyond the number.
  std::uint64_t sweep(const spi::SweepRequest& request, std::size_t count_max);

  [[nodiscard]] const std::array<std::uint64_t, 5>& counts() const noexcept { return counts_; }
  /// Every entry, for inspection.
  template <typename F>
  void each(F&& f) const {
    for (const auto& [key, item] : items_)
      f(*item.letter);
  }

 private:
  /// An entry, and beside it what most filters ask about: a scan touches the entry only when the hashes fit.
  struct Item {
    std::unique_ptr<DeadLetter> letter;
    std::size_t topic = 0;
    std::size_t group = 0;
    std::size_t error_type = 0;
    std::size_t fingerprint = 0;
    DeadLetterStatus status{};
    DeadLetterReason reason{};
  };
  using Items = std::map<PageKey, Item>;
  /// A query with its hashes.
  struct Filter;
  using TimeKey = std::pair<TimePoint, MessageId>;

  [[nodiscard]] static PageKey key_of(const DeadLetter& letter) noexcept;
  [[nodiscard]] static Result<std::uint64_t> check(const DeadLetterQuery& query);
  void link(Item& item);
  void unlink(const Item& item);

  Meter& meter_;
  Items items_;
  std::unordered_map<MessageId, Items::iterator, MessageIdHash> by_id_;
  std::set<TimeKey> by_last_failure_;
  /// Those that are being reprocessed, by the end of their lease.
  std::set<TimeKey> leased_;
  std::array<std::uint64_t, 5> counts_{};
};

}  // namespace towline::drivers::memory
