#pragma once
// A look inside a memory provider, for checkers: where every message is.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <towline/message.hpp>
#include <towline/spi/transport.hpp>

namespace towline::drivers::memory {

enum class PlaceKind : std::uint8_t {
  kKept,  ///< in a log, for no group so far: the topic has none, or the one it is addressed to has not come
  kWaiting,     ///< published, or came back, and not handed out to `group`
  kInFlight,    ///< handed out to `group` and not settled
  kScheduled,   ///< waits for its due time; `group` empty: for every group
  kParked,      ///< waits behind a blocked key of `group`
  kDeadLetter,  ///< of `group`, in any status
};

struct Place {
  PlaceKind kind = PlaceKind::kKept;
  std::string topic;
  std::string group;
  friend auto operator<=>(const Place&, const Place&) = default;
};

/// The places of every message by message id (not by the id of a record), sorted. A message that every group
/// has settled is in none, even while its retention keeps it. Leases count as they were left by the last call
/// that looked at the clock. `transport` must be the one that open_memory() made; nullopt for any other.
[[nodiscard]] std::optional<std::map<MessageId, std::vector<Place>>> inspect(const spi::Transport& transport);

}  // namespace towline::drivers::memory
