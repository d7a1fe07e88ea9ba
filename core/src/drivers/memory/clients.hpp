#pragma once
// How far the clients of conversations have read, and what their users missed. Not thread-safe: the hub's
// mutex is held around every call.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <towline/spi/conversations.hpp>

#include "drivers/memory/queue.hpp"

namespace towline::drivers::memory {

[[nodiscard]] std::uint64_t size_of(const spi::ClientPosition& position) noexcept;
[[nodiscard]] std::uint64_t size_of(const spi::MissedMessages& missed) noexcept;

class Clients {
 public:
  explicit Clients(Meter& meter) : meter_(meter) {}

  void put(const spi::ClientPosition& position, TimePoint now);
  void add_missed(const spi::AddMissed& write, TimePoint now);
  void clear_missed(const spi::ClearMissed& write);
  [[nodiscard]] std::vector<spi::ClientPosition> positions(std::string_view user, std::string_view client,
                                                           std::string_view from, std::size_t count_max,
                                                           TimePoint now) const;
  [[nodiscard]] std::vector<spi::MissedMessages> missed(std::string_view user, std::string_view from,
                                                        std::size_t count_max, TimePoint now) const;
  /// The first message that some client has not acknowledged; nullopt: no client has a position.
  [[nodiscard]] std::optional<std::uint64_t> first_unread(const std::string& conversation,
                                                          TimePoint now) const;
  [[nodiscard]] std::uint64_t sweep_positions(TimePoint now, std::size_t count_max);
  [[nodiscard]] std::uint64_t sweep_missed(TimePoint now, std::size_t count_max);

 private:
  using PositionKey = std::tuple<std::string, std::string, std::string>;  ///< user, client, conversation
  using MissedKey = std::pair<std::string, std::string>;                  ///< user, conversation

  Meter& meter_;
  std::map<PositionKey, spi::ClientPosition> positions_;
  std::map<std::string, std::set<PositionKey>> readers_;  ///< by conversation
  std::set<std::pair<TimePoint, PositionKey>> position_ends_;
  std::map<MissedKey, spi::MissedMessages> missed_;
  std::set<std::pair<TimePoint, MissedKey>> missed_ends_;
};

}  // namespace towline::drivers::memory
