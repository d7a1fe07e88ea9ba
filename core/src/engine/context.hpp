#pragma once
// What every station of one engine shares: its provider, its options, its counters, and whether it is still
// open.

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <unordered_map>

#include <towline/options.hpp>
#include <towline/spi/store.hpp>
#include <towline/spi/transport.hpp>

#include "base/histogram.hpp"
#include "base/ids.hpp"
#include "base/random.hpp"
#include "engine/in_flight.hpp"

namespace towline::engine {

/// Counted since opening; any thread.
struct Counters {
  std::atomic<std::uint64_t> published{0}, duplicates{0}, rejected{0}, unknown{0};
  std::atomic<std::uint64_t> fired{0}, redriven{0}, swept{0}, relayed{0}, refused{0};
  std::atomic<std::uint64_t> in_flight_count{0}, in_flight_bytes{0};
};

/// Thread-safe unless a member says otherwise. Outlives every station.
class Context {
 public:
  Context(EngineOptions engine_options, spi::Provider provider, std::shared_ptr<spi::Clock> engine_clock,
          std::uint64_t seed);

  const EngineOptions options;
  const std::shared_ptr<spi::Store> store;
  const std::shared_ptr<spi::Transport> transport;
  const std::shared_ptr<spi::Clock> clock;
  const spi::Capabilities capabilities;
  const std::vector<std::string> findings;
  Counters counters;
  InFlight in_flight;

  /// kClosed after close() began, kForked in a child process, the first fatal error after fail().
  [[nodiscard]] Result<void> check_open() const;
  void mark_closed() noexcept {
    closed_.store(true, std::memory_order_release);
    closing_.request_stop();
  }
  /// From now on closing leaves what handlers have in hand as a death would.
  void mark_dying() noexcept { dying_.store(true, std::memory_order_release); }
  [[nodiscard]] bool dying() const noexcept { return dying_.load(std::memory_order_acquire); }
  /// Stops when the engine closes: ends the waits of callers.
  [[nodiscard]] std::stop_token stop_token() const noexcept { return closing_.get_token(); }
  /// True in the child of a fork(): our threads are not there, and the parent's files are not ours.
  [[nodiscard]] bool forked() const noexcept;
  [[nodiscard]] bool closed() const noexcept { return closed_.load(std::memory_order_acquire); }
  /// Fail-stop: every later call answers this error. The first one wins.
  void fail(const Error& error);
  [[nodiscard]] std::optional<Error> failure() const;

  [[nodiscard]] MessageId make_id() { return make_id(clock->now()); }
  [[nodiscard]] MessageId make_id(TimePoint now);
  /// Fills `ids` under one lock.
  void make_ids(std::span<MessageId> ids, TimePoint now);
  /// A generator of its own for one station; the n-th call gives the n-th stream of the engine's seed.
  [[nodiscard]] base::SeededRng make_rng();

  /// The partition count of a topic; asked of the transport once.
  [[nodiscard]] Result<std::uint32_t> partition_count(std::string_view topic,
                                                      spi::Deadline begin_by = spi::kPatient);

  void record_lateness(std::span<const Duration> lateness);
  [[nodiscard]] base::Histogram lateness() const;

  /// Makes a caller wait until then; closing the engine ends it.
  void pause_until(MonotonicTime until);

  void log(LogLevel level, std::string_view station, std::string_view text) const;
  /// Hands an alert to whoever listens.
  void tell(const Alert& alert) const;

 private:
  std::stop_source closing_;
  std::atomic<bool> closed_{false};
  std::atomic<bool> failed_{false};
  std::atomic<bool> dying_{false};
  const std::uint64_t fork_generation_;
  mutable std::mutex mutex_;
  std::optional<Error> failure_;
  base::IdSource id_source_;
  base::SeededRng rng_;
  std::unordered_map<std::string, std::uint32_t> partition_counts_;
  base::Histogram lateness_;
};

}  // namespace towline::engine
