#pragma once
// Records that wait: delayed messages, retries, deferrals and what is parked behind a blocked key; and the
// key blocks.
//
// A record is found by id, by due time (then the order of putting), or, when parked, by its key in the order
// of putting. Not thread-safe: the hub's mutex is held around every call. The bound of the meter is the
// caller's business.

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include <towline/spi/store.hpp>

#include "drivers/memory/queue.hpp"

namespace towline::drivers::memory {

class Schedule {
 public:
  explicit Schedule(Meter& meter) : meter_(meter) {}

  [[nodiscard]] const spi::ScheduleRecord* find(const MessageId& id) const;
  /// Whether it has been handed out to be fired since it was put or moved last.
  [[nodiscard]] bool is_claimed(const MessageId& id) const;
  /// The id must be new.
  void put(spi::ScheduleRecord record);
  /// `version`: the one the caller named; erasing a claimed record by its version means that it has fired.
  void erase(const MessageId& id, spi::Version version, Moment now);
  void move(const MessageId& id, TimePoint due_at);

  /// Claims due records, or with `promoted` moves those that are not too late there instead, in due order.
  void take_due(const spi::DueRequest& request, Moment now, std::vector<spi::Envelope>* promoted,
                spi::DueBatch& out);
  [[nodiscard]] std::optional<TimePoint> next_due_at() const;
  [[nodiscard]] bool has_fired(const MessageId& id) const { return fired_.contains(id); }
  /// Forgets what fired more than a day ago.
  void forget_fired(Moment now);

  [[nodiscard]] Result<Page<spi::ScheduleRecord>> list(const spi::ScheduleQuery& query) const;

  [[nodiscard]] bool is_blocked(const std::string& group, const std::string& topic, std::uint32_t partition,
                                const std::string& key) const;
  void put_block(spi::KeyBlock block);
  /// See spi::UnparkNext; the block must exist.
  void unpark_next(const spi::UnparkNext& write);
  [[nodiscard]] std::vector<spi::KeyBlock> list_blocks(std::string_view group, std::string_view topic,
                                                       std::optional<std::uint32_t> partition) const;

  [[nodiscard]] std::uint64_t scheduled_count() const noexcept { return due_.size(); }
  [[nodiscard]] std::uint64_t parked_count() const noexcept { return parked_.size(); }
  /// Every record, for inspection.
  template <typename F>
  void each(F&& f) const {
    for (const auto& [key, entry] : due_)
      f(entry->record);
    for (const auto& [key, entry] : parked_)
      f(entry->record);
  }

 private:
  struct Entry {
    spi::ScheduleRecord record;
    std::uint64_t bytes = 0;
    bool claimed = false;
    /// When it was to fire; `record.due_at` moves with each claim.
    TimePoint promised_at{};
  };
  using DueKey = std::pair<TimePoint, std::uint64_t>;
  /// Group, topic, partition and order key; then the sequence. Views into the entry.
  using ParkedKey =
      std::tuple<std::string_view, std::string_view, std::uint32_t, std::string_view, std::uint64_t>;
  using BlockKey = std::tuple<std::string, std::string, std::uint32_t, std::string>;

  void link(Entry& entry);
  void unlink(Entry& entry);
  void remove(Entry& entry);
  void remember_fired(const spi::ScheduleRecord& record, Moment now);
  [[nodiscard]] Entry* first_parked(const BlockKey& block) const;
  [[nodiscard]] std::uint64_t count_parked(const BlockKey& block) const;
  [[nodiscard]] static ParkedKey parked_key(const spi::ScheduleRecord& record) noexcept;

  Meter& meter_;
  std::unordered_map<MessageId, Entry, MessageIdHash> entries_;
  std::map<DueKey, Entry*> due_;
  std::map<ParkedKey, Entry*> parked_;
  std::map<BlockKey, spi::KeyBlock> blocks_;
  std::uint64_t sequence_last_ = 0;
  std::unordered_set<MessageId, MessageIdHash> fired_;
  std::deque<std::pair<TimePoint, MessageId>> fired_order_;
};

}  // namespace towline::drivers::memory
