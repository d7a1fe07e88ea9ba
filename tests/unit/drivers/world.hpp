#pragma once
// What the tests of the drivers stand on: a provider over a virtual clock, and short ways to make envelopes,
// to receive and to settle. Nothing here waits: the provider is opened without threads unless a test asks for
// them. What every driver must do is written once, in the tests beside this file, and run over each of them
// (OverDrivers); what concerns one of them is in its own folder, on a World of its own.

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <towline/clock.hpp>
#include <towline/spi/driver.hpp>

#include "drivers/memory/memory.hpp"
#include "drivers/sqlite/sqlite.hpp"
#include "support/temp_dir.hpp"

namespace towline::drivers::testing {

using namespace std::chrono_literals;

[[nodiscard]] inline MessageId make_id(std::uint64_t number) {
  MessageId id;
  for (std::size_t i = 0; i < 8; ++i)
    id.bytes[8 + i] = static_cast<std::uint8_t>(number >> (56 - 8 * i));
  return id;
}

[[nodiscard]] inline std::uint64_t number_of(const MessageId& id) {
  std::uint64_t number = 0;
  for (std::size_t i = 0; i < 8; ++i)
    number = number << 8 | id.bytes[8 + i];
  return number;
}

/// Numbers of the messages, in order.
[[nodiscard]] inline std::vector<std::uint64_t> numbers_of(const std::vector<spi::Delivery>& deliveries) {
  std::vector<std::uint64_t> numbers;
  for (const spi::Delivery& delivery : deliveries)
    numbers.push_back(number_of(delivery.envelope->id));
  return numbers;
}

[[nodiscard]] inline std::vector<std::uint64_t> range(std::uint64_t first, std::uint64_t last) {
  std::vector<std::uint64_t> numbers;
  for (std::uint64_t n = first; n <= last; ++n)
    numbers.push_back(n);
  return numbers;
}

[[nodiscard]] inline spi::SubscribeOptions member(std::string group = "g") {
  spi::SubscribeOptions options;
  options.patterns = {"#"};
  options.matches = [](std::string_view) { return true; };
  options.group = std::move(group);
  options.lease = 30s;
  return options;
}

[[nodiscard]] inline spi::SubscribeOptions ordered(std::string group = "g") {
  spi::SubscribeOptions options = member(std::move(group));
  options.order = spi::OrderMode::kKeyOrdered;
  return options;
}

[[nodiscard]] inline spi::SubscribeOptions ephemeral() { return member(""); }

using Parameters = std::vector<std::pair<std::string, std::string>>;

/// Whoever derives from it opens the provider.
class World {
 public:
  [[nodiscard]] spi::Store& store() const { return *provider.store; }
  [[nodiscard]] spi::Transport& transport() const { return *provider.transport; }

  [[nodiscard]] spi::Envelope envelope(std::uint64_t number, const std::string& topic = "t") const {
    spi::Envelope envelope;
    envelope.id = make_id(number);
    envelope.topic = topic;
    envelope.payload = "payload " + std::to_string(number);
    envelope.published_at = clock->now();
    return envelope;
  }

  std::vector<spi::PublishAnswer> publish(std::vector<spi::Envelope> envelopes) {
    return transport().publish(envelopes, clock->monotonic()).value();
  }
  std::vector<spi::PublishAnswer> publish(spi::Envelope envelope) {
    std::vector<spi::Envelope> one;
    one.push_back(std::move(envelope));
    return publish(std::move(one));
  }
  /// Messages first..last in one batch.
  void publish(std::uint64_t first, std::uint64_t last, const std::string& topic = "t") {
    std::vector<spi::Envelope> envelopes;
    for (std::uint64_t n = first; n <= last; ++n)
      envelopes.push_back(envelope(n, topic));
    ASSERT_TRUE(publish(std::move(envelopes)).empty());
  }

  [[nodiscard]] std::unique_ptr<spi::Subscription> subscribe(
      const spi::SubscribeOptions& options = member()) const {
    return transport().subscribe(options).value();
  }
  [[nodiscard]] std::vector<spi::Delivery> receive(spi::Subscription& subscription,
                                                   std::size_t count_max = 1000) const {
    spi::ReceiveRequest request;
    request.count_max = count_max;
    request.deadline = clock->monotonic();
    return subscription.receive(request).value().deliveries;
  }
  /// The numbers of what a receive hands out.
  [[nodiscard]] std::vector<std::uint64_t> take(spi::Subscription& subscription,
                                                std::size_t count_max = 1000) const {
    return numbers_of(receive(subscription, count_max));
  }
  /// Settles and receives nothing; returns the indexes that were lost.
  std::vector<std::uint32_t> settle(spi::Subscription& subscription,
                                    const std::vector<spi::Delivery>& deliveries,
                                    spi::Verb verb = spi::Verb::kAck) const {
    std::vector<spi::Settlement> settlements;
    for (const spi::Delivery& delivery : deliveries)
      settlements.push_back({delivery.token, verb});
    spi::ReceiveRequest request;
    request.settlements = settlements;
    return subscription.receive(request).value().lost;
  }
  std::vector<std::uint32_t> settle(spi::Subscription& subscription, const spi::Delivery& delivery,
                                    spi::Verb verb = spi::Verb::kAck) const {
    return settle(subscription, std::vector<spi::Delivery>{delivery}, verb);
  }

  /// Commits one unit of the given writes.
  template <typename... Writes>
  Result<void> write(Writes... writes) {
    spi::Unit unit;
    (unit.writes.emplace_back(std::move(writes)), ...);
    return store().commit({&unit, 1}).value().at(0);
  }
  [[nodiscard]] spi::ScheduleRecord record(std::uint64_t number, Duration delay,
                                           const std::string& topic = "t") const {
    spi::ScheduleRecord record;
    record.id = make_id(number);
    record.envelope = envelope(number, topic);
    record.due_at = clock->now() + delay;
    return record;
  }
  spi::DueBatch promote(std::size_t count_max = 1000) {
    spi::DueRequest request;
    request.count_max = count_max;
    request.lease = 30s;
    return store().promote_due(request).value();
  }
  [[nodiscard]] spi::GroupStatistics group(const std::string& name = "g",
                                           const std::string& topic = "t") const {
    for (const spi::GroupStatistics& one : transport().statistics().value()) {
      if (one.group == name && one.topic == topic) return one;
    }
    return {};
  }
  [[nodiscard]] spi::SweepReport sweep(std::size_t count_max = 100'000) const {
    spi::SweepRequest request;
    request.now = clock->now();
    request.count_max = count_max;
    return store().sweep(request).value();
  }

  std::shared_ptr<VirtualClock> clock = std::make_shared<VirtualClock>();
  spi::Provider provider;

 protected:
  World() = default;
  [[nodiscard]] spi::DriverOptions options(std::string location, bool threads, Parameters parameters) const {
    spi::DriverOptions options;
    options.location = std::move(location);
    options.parameters = std::move(parameters);
    options.clock = clock;
    options.threads = threads;
    return options;
  }
};

template <typename T>
[[nodiscard]] ErrorCode code_of(const Result<T>& result) {
  return result.ok() ? ErrorCode{} : result.error().code;
}

// ---- over every driver --------------------------------------------------------------------------

enum class Driver { kMemory, kSqlite };

/// A provider of this driver; `folder` has its file, if it has one.
[[nodiscard]] inline spi::Provider open_driver(Driver driver, const support::TempDir& folder,
                                               spi::DriverOptions options) {
  if (driver == Driver::kMemory) return open_memory(options).value();
  options.location = folder.file("store.db");
  return open_sqlite(options).value();
}

class AnyWorld final : public World {
 public:
  explicit AnyWorld(Driver driver) { provider = open_driver(driver, folder_, options({}, false, {})); }
  ~AnyWorld() { provider = {}; }  // before its folder

 private:
  support::TempDir folder_;
};

/// The base of a suite that is run once for each driver.
class OverDrivers : public ::testing::TestWithParam<Driver> {
 protected:
  AnyWorld world{GetParam()};
};

#define TOWLINE_OVER_DRIVERS(suite)                                        \
  INSTANTIATE_TEST_SUITE_P(                                                \
      Drivers, suite, ::testing::Values(Driver::kMemory, Driver::kSqlite), \
      [](const auto& chosen) { return chosen.param == Driver::kMemory ? "memory" : "sqlite"; })

}  // namespace towline::drivers::testing
