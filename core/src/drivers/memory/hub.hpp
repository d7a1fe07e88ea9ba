#pragma once
// A hub: everything that the engines which opened one memory location share, behind one mutex.
//
// The engines of one process that name the same location have one hub; it goes with the last of them. Every
// member function expects the caller to hold `mutex`. The times are the caller's, because each engine brings
// its own clock.

#include <array>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <towline/spi/store.hpp>
#include <towline/spi/transport.hpp>

#include "base/topology.hpp"
#include "drivers/memory/clients.hpp"
#include "drivers/memory/dead_letters.hpp"
#include "drivers/memory/queue.hpp"
#include "drivers/memory/records.hpp"
#include "drivers/memory/sagas.hpp"
#include "drivers/memory/schedule.hpp"
#include "drivers/memory/streams.hpp"

namespace towline::drivers::memory {

/// One engine's claim_due() or promote_due() while it waits.
struct DueWaiter {
  std::condition_variable changed;
  bool waiting = false;
  bool woken = false;
};

class Hub {
 public:
  explicit Hub(std::uint64_t bytes_max) { meter.max = bytes_max; }
  Hub(const Hub&) = delete;
  Hub& operator=(const Hub&) = delete;

  /// Moves from the envelopes unless it fails. kOverloaded.
  [[nodiscard]] Result<std::vector<spi::PublishAnswer>> publish(std::span<spi::Envelope> envelopes,
                                                                Moment now);
  /// One result per unit. `settle`: the session that `Settle` writes refer to; may be null.
  [[nodiscard]] std::vector<Result<void>> commit(std::span<const spi::Unit> units, Session* settle,
                                                 Moment now);
  /// Moves what is due to the queue.
  void promote_due(const spi::DueRequest& request, Moment now, spi::DueBatch& out);
  [[nodiscard]] std::optional<MessageId> find_dedup(std::string_view topic, std::string_view dedup_id,
                                                    TimePoint now) const;
  [[nodiscard]] spi::SweepReport sweep(const spi::SweepRequest& request, Moment now);

  std::mutex mutex;
  Meter meter;
  Queue queue{meter};
  Schedule schedule{meter};
  DeadLetters dead_letters{meter};
  Expiring<spi::IdempotencyRecord> idempotency{meter};
  Expiring<char> inbox{meter};
  Expiring<MessageId> dedup_ids{meter};
  Streams events{meter};
  Streams conversations{meter};
  Streams saga_logs{meter};
  [[nodiscard]] Streams& streams(spi::StreamSpace space) noexcept;
  Sagas sagas{meter};
  Clients clients{meter};
  std::unordered_map<std::string, spi::EventCursor> event_cursors;
  std::condition_variable streams_changed;
  std::vector<DueWaiter*> due_waiters;

 private:
  class UnitCheck;
  class UnitApply;

  [[nodiscard]] bool make_room(std::uint64_t bytes, Moment now);
  void hold_dedup(const spi::Envelope& envelope);

  // Published by the units of the running commit; appended together at its end.
  std::vector<spi::Envelope> outbox_;
  std::uint64_t outbox_bytes_ = 0;
};

using base::deduplicates;

}  // namespace towline::drivers::memory
