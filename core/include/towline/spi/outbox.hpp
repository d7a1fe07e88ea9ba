#pragma once
// The outbox: messages that the user's own transactions wrote with SQL, until the engine relays them.

#include <cstdint>

#include <towline/message.hpp>
#include <towline/time.hpp>

namespace towline::spi {

struct OutboxEntry {
  /// In order of writing; grows, with gaps.
  std::uint64_t number = 0;
  Message message;
  /// By the clock of its writer: delays and the time to live count from then.
  TimePoint written_at{};
};

/// In the unit that publishes it. Errors: kNotFound: somebody else has relayed it.
struct EraseOutboxEntry {
  std::uint64_t number = 0;
};

}  // namespace towline::spi
