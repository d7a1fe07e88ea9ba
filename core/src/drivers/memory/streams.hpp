#pragma once
// The streams of one space. Not thread-safe: the hub's mutex is held around every call.

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include <towline/spi/conversations.hpp>
#include <towline/spi/streams.hpp>

#include "drivers/memory/queue.hpp"

namespace towline::drivers::memory {

class Streams {
 public:
  explicit Streams(Meter& meter) : meter_(meter) {}

  /// Whether it is new, or all of it is there already, one behind the other. kConflict.
  [[nodiscard]] Result<void> check(const spi::AppendEvents& write) const;
  /// After check(): the place of a repeated batch, or nullopt when it is new. Looks for the first event
  /// alone, which is there if all of them are.
  [[nodiscard]] std::optional<Appended> repeated(const spi::AppendEvents& write) const;
  /// After repeated() said that it is new.
  Appended append(const spi::AppendEvents& write);
  [[nodiscard]] bool contains(std::string_view stream, std::uint64_t version = 1) const;
  void truncate(const spi::TruncateStream& write);
  /// `unread`: the first message that has to stay whatever else; nullopt: none has to.
  void trim(const spi::TrimConversation& write, std::optional<std::uint64_t> unread);
  /// With all of it; its positions are not given out again.
  void erase(std::string_view stream);
  void put_snapshot(const spi::PutSnapshot& write);
  [[nodiscard]] std::optional<Snapshot> find_snapshot(std::string_view stream) const;
  [[nodiscard]] Result<spi::StreamSlice> read(const spi::StreamRead& read) const;
  [[nodiscard]] Page<StreamInfo> list(std::string_view prefix, std::size_t count_max,
                                      std::string_view cursor) const;
  [[nodiscard]] std::uint64_t position_last() const noexcept { return position_last_; }

 private:
  using EventPtr = std::shared_ptr<const RecordedEvent>;
  struct Stream {
    std::uint64_t oldest = 1;
    std::deque<EventPtr> events;                                           ///< never empty
    std::unordered_map<MessageId, std::uint64_t, MessageIdHash> versions;  ///< by id
    std::optional<Snapshot> snapshot;
    [[nodiscard]] std::uint64_t newest() const noexcept { return oldest + events.size() - 1; }
  };
  [[nodiscard]] const Stream* find(std::string_view name) const;

  Meter& meter_;
  std::map<std::string, Stream, std::less<>> streams_;
  std::map<std::uint64_t, EventPtr> all_;  ///< by position
  std::uint64_t position_last_ = 0;
};

/// What the events of an append cost the meter.
[[nodiscard]] std::uint64_t size_of(const spi::AppendEvents& write) noexcept;

}  // namespace towline::drivers::memory
