// Shared state of one engine; see the header.

#include "engine/context.hpp"

#include "base/forks.hpp"

namespace towline::engine {

Context::Context(EngineOptions engine_options, spi::Provider provider,
                 std::shared_ptr<spi::Clock> engine_clock, std::uint64_t seed)
    : options(std::move(engine_options)),
      store(std::move(provider.store)),
      transport(std::move(provider.transport)),
      clock(std::move(engine_clock)),
      capabilities(transport->capabilities()),
      findings(std::move(provider.findings)),
      in_flight(options.in_flight_count_max, options.in_flight_bytes_max, counters.in_flight_count,
                counters.in_flight_bytes),
      fork_generation_(base::fork_generation()),
      rng_(seed) {}

bool Context::forked() const noexcept { return fork_generation_ != base::fork_generation(); }

Result<void> Context::check_open() const {
  if (forked()) {
    return Error{ErrorCode::kForked,
                 "this engine was opened before fork(); open one only after fork(), or close it before"};
  }
  if (closed()) return Error{ErrorCode::kClosed, "the engine is closed"};
  if (failed_.load(std::memory_order_acquire)) return *failure();
  return {};
}

void Context::fail(const Error& error) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_ = error;
  }
  failed_.store(true, std::memory_order_release);
  log(LogLevel::kError, "engine", "stopped: " + error.to_string());
}

std::optional<Error> Context::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

MessageId Context::make_id(TimePoint now) {
  MessageId id;
  make_ids({&id, 1}, now);
  return id;
}

void Context::make_ids(std::span<MessageId> ids, TimePoint now) {
  const std::lock_guard lock(mutex_);
  id_source_.fill(ids, now, rng_);
}

base::SeededRng Context::make_rng() {
  const std::lock_guard lock(mutex_);
  return base::SeededRng(rng_.next());
}

Result<std::uint32_t> Context::partition_count(std::string_view topic, spi::Deadline begin_by) {
  {
    const std::lock_guard lock(mutex_);
    const auto it = partition_counts_.find(std::string(topic));
    if (it != partition_counts_.end()) return it->second;
  }
  auto topology = transport->topology(topic, static_cast<std::uint32_t>(options.partition_count), begin_by);
  if (!topology) return std::move(topology).error();
  const std::uint32_t count = std::max<std::uint32_t>(1, topology->partition_count);
  const std::lock_guard lock(mutex_);
  // Only a cache: a program that makes topics without end must not make it grow without end.
  if (partition_counts_.size() >= 10000) partition_counts_.clear();
  partition_counts_.emplace(topic, count);
  return count;
}

void Context::record_lateness(std::span<const Duration> lateness) {
  const std::lock_guard lock(mutex_);
  for (const Duration late : lateness)
    lateness_.add(late.count() > 0 ? static_cast<std::uint64_t>(late.count()) : 0);
}

base::Histogram Context::lateness() const {
  const std::lock_guard lock(mutex_);
  return lateness_;
}

void Context::pause_until(MonotonicTime until) {
  std::mutex mutex;
  std::condition_variable over;
  const std::stop_callback closing(stop_token(), [&] {
    const std::lock_guard lock(mutex);
    over.notify_all();
  });
  std::unique_lock lock(mutex);
  while (!closed() && clock->monotonic() < until)
    clock->wait_until(lock, over, until);
}

void Context::log(LogLevel level, std::string_view station, std::string_view text) const {
  if (options.log) options.log(LogRecord{level, station, text});
}

void Context::tell(const Alert& alert) const {
  if (!options.on_alert) return;
  try {
    options.on_alert(alert);
  } catch (...) {  // the user's; the next alert is tried again
    log(LogLevel::kError, "alerts", "on_alert threw; the alert was not delivered");
  }
}

}  // namespace towline::engine
