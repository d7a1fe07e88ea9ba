#pragma once
// Relay: publishes what SQL of others wrote to the outbox of the store.
//
// Publishing an entry and erasing it are one unit, so a crash anywhere leaves it either waiting or published,
// and of two relays one finds it gone and goes on. Entries are taken in the order they were written in; one
// that cannot be published for now holds up those behind it, and one that never can be becomes a dead letter.
//
// Where the transport is not the store an entry becomes a record of the schedule, due now: the scheduler has
// the one way from the store to such a transport.

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <towline/options.hpp>
#include <towline/spi/store.hpp>

#include "engine/context.hpp"
#include "engine/publisher.hpp"

namespace towline::engine {

/// step() is driven by one thread; busy() may be called from any.
class Relay {
 public:
  Relay(std::shared_ptr<Context> context, Publisher& publisher);

  /// One round, waiting until `wait_until` for something to be written. Returns when it wants to be called
  /// again: at once, or later after a failure.
  MonotonicTime step(MonotonicTime wait_until);
  /// Whether something is written and not relayed.
  [[nodiscard]] bool busy() const;

 private:
  struct Plan {
    spi::Unit unit;
    std::uint64_t relayed = 0;
    std::uint64_t refused = 0;
  };
  /// Errors: those of the store, which say nothing about the entry.
  [[nodiscard]] Result<void> relay(std::vector<spi::OutboxEntry>& entries);
  [[nodiscard]] Result<void> relay_each(std::span<const spi::OutboxEntry> entries);
  /// Adds what is to become of the entry.
  [[nodiscard]] Result<void> add(Plan& plan, const spi::OutboxEntry& entry);
  void add_dead_letter(Plan& plan, const spi::OutboxEntry& entry, const Error& error);
  /// Whether a message that is there already has its dedup id, so that publishing it stores nothing.
  [[nodiscard]] Result<bool> is_known(const Plan& plan, const spi::Envelope& envelope);
  /// The outer error is the store's and leaves open what became of the unit; the inner one refuses the unit.
  [[nodiscard]] Result<Result<void>> commit(const Plan& plan);
  MonotonicTime fail(const Error& error);

  const std::shared_ptr<Context> context_;
  Publisher& publisher_;
  const RetryOptions retry_;
  std::uint32_t failures_ = 0;
  Duration backoff_{0};
  MonotonicTime not_before_{};
  std::optional<base::SeededRng> rng_;  ///< made when it is needed: most engines never relay
};

}  // namespace towline::engine
