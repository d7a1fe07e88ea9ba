#pragma once
// What the tests of the engine stand on: one engine over the memory provider, stepped by hand on a virtual
// clock. No thread runs unless a test starts one, nothing waits, and time stands still until it is advanced.

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <towline/clock.hpp>

#include "drivers/memory/inspect.hpp"
#include "drivers/memory/memory.hpp"
#include "engine/core.hpp"
#include "unit/engine/fake_provider.hpp"

namespace towline::engine::testing {

using namespace std::chrono_literals;
using drivers::memory::Place;
using drivers::memory::PlaceKind;

/// A virtual clock that never waits: whoever would wait comes back at once, as in a simulation.
class StillClock final : public spi::Clock {
 public:
  TimePoint now() noexcept override { return clock_.now(); }
  MonotonicTime monotonic() noexcept override { return clock_.monotonic(); }
  void wait_until(std::unique_lock<std::mutex>&, std::condition_variable&, MonotonicTime until) override {
    last_wait = until;
    if (on_wait) on_wait(until);
  }
  void advance(Duration by) { clock_.advance(by); }
  void step_wall(Duration by) { clock_.step_wall(by); }

  /// Until when the last one would have waited.
  std::optional<MonotonicTime> last_wait;
  /// What happens instead of waiting.
  std::function<void(MonotonicTime until)> on_wait;

 private:
  VirtualClock clock_;
};

struct WorldOptions {
  EngineOptions engine = {};
  bool is_store = true;  ///< false: the transport is not the store, so outcomes are committed first
  bool runs_sql = false;
  std::string location = {};               ///< engines with the same one share everything
  std::shared_ptr<StillClock> clock = {};  ///< null: its own
  std::uint64_t seed = 7;
};

class World {
 public:
  explicit World(WorldOptions options = {})
      : clock(options.clock ? options.clock : std::make_shared<StillClock>()) {
    spi::DriverOptions driver;
    driver.location = options.location;
    driver.clock = clock;
    driver.threads = false;
    inner = drivers::open_memory(driver).value();
    store = std::make_shared<FakeStore>(inner.store, script);
    transport = std::make_shared<FakeTransport>(inner.transport, script, options.is_store, options.runs_sql);
    options.engine.log = [this](const LogRecord& record) {
      log.push_back(std::string(record.station) + ": " + std::string(record.text));
    };
    core = Core::create(options.engine, spi::Provider{store, transport, {}}, clock, options.seed, false);
  }
  ~World() {
    for (const auto& consumer : core->consumers())
      consumer->abandon();
  }

  MessageId publish(std::string payload, std::optional<std::string> key = std::nullopt,
                    const std::string& topic = "t") {
    Message message;
    message.topic = topic;
    message.payload = std::move(payload);
    message.key = std::move(key);
    return publish(std::move(message));
  }
  MessageId publish(Message message) { return core->publisher().publish(std::move(message)).value(); }

  [[nodiscard]] std::shared_ptr<ConsumerCore> consume_as(ConsumerOptions options, AnyHandler handler,
                                                         std::vector<std::string> patterns = {"t"}) {
    return core->consume(std::move(patterns), std::move(options), std::move(handler)).value();
  }
  /// A consumer whose handler notes the payloads, and then does what `then` says.
  [[nodiscard]] std::shared_ptr<ConsumerCore> consume(ConsumerOptions options,
                                                      std::function<void(Delivery&)> then = {}) {
    return consume_as(std::move(options), Handler([this, then = std::move(then)](Delivery& delivery) {
                        handled.emplace_back(delivery.payload());
                        if (then) then(delivery);
                      }));
  }

  /// One round of the lane, which waits for nothing.
  void step(ConsumerCore& consumer) { consumer.step(clock->monotonic()); }
  /// Rounds of the lane, of one worker and of the scheduler, until none of them has anything to do.
  void play(ConsumerCore& consumer) {
    for (int quiet = 0; quiet < 3; ++quiet) {
      core->step_scheduler();
      step(consumer);
      while (auto delivery = consumer.take_one()) {
        consumer.run_one(*delivery);
        step(consumer);
        quiet = 0;
      }
    }
  }

  [[nodiscard]] std::vector<DeadLetter> dead_letters(DeadLetterQuery query = {}) {
    query.count_max = 1000;
    return inner.store->list_dead_letters(query).value().items;
  }
  [[nodiscard]] std::vector<spi::KeyBlock> blocks(const std::string& group = "g",
                                                  const std::string& topic = "t") {
    return inner.store->list_key_blocks(group, topic, std::nullopt).value();
  }
  [[nodiscard]] std::vector<spi::ScheduleRecord> scheduled(const std::string& group = {}) {
    spi::ScheduleQuery query;
    query.group = group;
    query.count_max = 1000;
    return inner.store->list_schedule(query).value().items;
  }
  [[nodiscard]] std::vector<spi::ScheduleRecord> parked(const std::string& group = "g") {
    spi::ScheduleQuery query;
    query.group = group;
    query.parked = true;
    query.count_max = 1000;
    return inner.store->list_schedule(query).value().items;
  }
  [[nodiscard]] std::vector<Place> places(const MessageId& id) {
    auto all = *drivers::memory::inspect(*inner.transport);
    return all.contains(id) ? all[id] : std::vector<Place>{};
  }
  /// Whether the message is nowhere any more: everybody is done with it.
  [[nodiscard]] bool is_done(const MessageId& id) { return places(id).empty(); }
  [[nodiscard]] spi::GroupStatistics group(const std::string& name = "g", const std::string& topic = "t") {
    for (const spi::GroupStatistics& one : inner.transport->statistics().value()) {
      if (one.group == name && one.topic == topic) return one;
    }
    return {};
  }
  [[nodiscard]] const Counters& counters() { return core->context().counters; }

  const std::shared_ptr<StillClock> clock;
  const std::shared_ptr<Script> script = std::make_shared<Script>();
  spi::Provider inner;
  std::shared_ptr<FakeStore> store;
  std::shared_ptr<FakeTransport> transport;
  std::vector<std::string> log;
  std::vector<std::string> handled;
  std::shared_ptr<Core> core;
};

/// An engine with its threads, over the same provider. Its clock is the machine's or a virtual one.
class RunningWorld {
 public:
  explicit RunningWorld(EngineOptions options = {}, std::shared_ptr<spi::Clock> its_clock = system_clock(),
                        const std::string& location = {}, bool is_store = true)
      : clock(std::move(its_clock)) {
    spi::DriverOptions driver;
    driver.location = location;
    driver.clock = clock;
    inner = drivers::open_memory(driver).value();
    store = std::make_shared<FakeStore>(inner.store, script);
    transport = std::make_shared<FakeTransport>(inner.transport, script, is_store, false);
    options.drain_timeout = std::min<Duration>(options.drain_timeout, 20s);
    core = Core::create(std::move(options), spi::Provider{store, transport, {}}, clock, 7, true);
  }
  ~RunningWorld() { (void)core->close(std::nullopt); }
  RunningWorld(const RunningWorld&) = delete;
  RunningWorld& operator=(const RunningWorld&) = delete;

  MessageId publish(std::string payload, std::optional<std::string> key = std::nullopt,
                    const std::string& topic = "t") {
    Message message;
    message.topic = topic;
    message.payload = std::move(payload);
    message.key = std::move(key);
    return core->publisher().publish(std::move(message)).value();
  }
  std::shared_ptr<ConsumerCore> consume(ConsumerOptions options, Handler handler,
                                        std::vector<std::string> patterns = {"t"}) {
    return core->consume(std::move(patterns), std::move(options), AnyHandler(std::move(handler))).value();
  }
  [[nodiscard]] spi::GroupStatistics group(const std::string& name = "g", const std::string& topic = "t") {
    for (const spi::GroupStatistics& one : inner.transport->statistics().value()) {
      if (one.group == name && one.topic == topic) return one;
    }
    return {};
  }

  const std::shared_ptr<spi::Clock> clock;
  const std::shared_ptr<Script> script = std::make_shared<Script>();
  spi::Provider inner;
  std::shared_ptr<FakeStore> store;
  std::shared_ptr<FakeTransport> transport;
  std::shared_ptr<Core> core;
};

/// Something that one thread waits for and another one opens. It goes only when everybody has left it: the
/// thread of a stuck handler may outlive its consumer, and must not wake up in the memory of the next test.
class Gate {
 public:
  Gate() = default;
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  ~Gate() {
    open();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_ == 0; });
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_; });
    --waiting_;
    changed_.notify_all();
  }
  /// Until so many wait at once.
  void await_waiting(int count = 1) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return open_ || waiting_ >= count; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
  int waiting_ = 0;
};

[[nodiscard]] inline Error unavailable() { return {ErrorCode::kUnavailable, "the provider is away"}; }
[[nodiscard]] inline Error storage_full() { return {ErrorCode::kStorageFull, "the disk is full"}; }

template <typename T>
[[nodiscard]] std::optional<ErrorCode> code_of(const Result<T>& result) {
  return result.ok() ? std::nullopt : std::optional(result.error().code);
}

/// A retry policy whose waits are exactly `delay`.
[[nodiscard]] inline RetryOptions retry_after(Duration delay, std::int64_t max_attempts = 6) {
  RetryOptions retry;
  retry.kind = BackoffKind::kFixed;
  retry.jitter = JitterKind::kNone;
  retry.initial_delay = delay;
  retry.delay_max = std::max<Duration>(delay, retry.delay_max);
  retry.max_attempts = max_attempts;
  return retry;
}

[[nodiscard]] inline ConsumerOptions group_options(std::string group = "g") {
  ConsumerOptions options;
  options.group = std::move(group);
  options.retry = retry_after(10s);
  options.breaker.enabled = false;
  return options;
}
[[nodiscard]] inline ConsumerOptions key_ordered(KeyFailure on_failure = KeyFailure::kBlockKey) {
  ConsumerOptions options = group_options();
  options.order = Order::kKeyOrdered;
  options.on_key_failure = on_failure;
  options.prefetch_count = 100;
  return options;
}

}  // namespace towline::engine::testing
