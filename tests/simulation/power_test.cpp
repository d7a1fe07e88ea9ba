// The SQLite provider over the disk that loses its power: two processes on one file, a disk that is full in
// the middle of a renewal, and a store that is there again after the power was.

#include <algorithm>

#include <gtest/gtest.h>

#include <towline/clock.hpp>

#include "drivers/sqlite/sqlite.hpp"
#include "simulation/crash_vfs.hpp"
#include "simulation/runner.hpp"

namespace towline::simulation {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

/// One process that has the store open.
struct Opened {
  explicit Opened(CrashDisk& disk) : machine(disk, true) {
    spi::DriverOptions options;
    options.location = "store.db";
    options.parameters = {{"vfs", machine.name()}};
    options.clock = clock;
    options.threads = false;
    provider = drivers::open_sqlite(options).value();
  }
  ~Opened() { provider = {}; }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;

  [[nodiscard]] std::unique_ptr<spi::Subscription> subscribe(const std::string& group) const {
    spi::SubscribeOptions options;
    options.patterns = {"#"};
    options.matches = [](std::string_view) { return true; };
    options.group = group;
    options.lease = seconds(1);
    options.order = spi::OrderMode::kKeyOrdered;
    return provider.transport->subscribe(options).value();
  }
  [[nodiscard]] bool publish(std::uint8_t number) const {
    spi::Envelope envelope;
    envelope.id.bytes[15] = number;
    envelope.topic = "t";
    envelope.payload = std::string(200, 'x');
    return provider.transport->publish({&envelope, 1}, clock->monotonic()).ok();
  }
  [[nodiscard]] Result<spi::Received> receive(spi::Subscription& from,
                                              std::span<const spi::Settlement> settlements = {}) const {
    spi::ReceiveRequest request;
    request.count_max = settlements.empty() ? 100 : 0;
    request.settlements = settlements;
    request.deadline = clock->monotonic();
    return from.receive(request);
  }

  CrashMachine machine;
  std::shared_ptr<VirtualClock> clock = std::make_shared<VirtualClock>();
  spi::Provider provider;
};

TEST(SqliteOnACrashDisk, AMemberThatOthersTookForDeadGetsItsPartitionsAgainWhenItRenews) {
  CrashDisk disk(1);
  const Opened one(disk);
  const auto reader = one.subscribe("g");
  ASSERT_TRUE(one.publish(1));
  ASSERT_EQ(one.receive(*reader)->deliveries.size(), 1U);
  {
    // Its clock is ahead, so for this one the lease of the other is over.
    const Opened two(disk);
    two.clock->advance(hours(1));
    const auto other = two.subscribe("another group");
    ASSERT_TRUE(two.receive(*other).ok());
    ASSERT_TRUE(other->close().ok());
  }
  for (std::uint8_t n = 2; n <= 20; ++n)
    ASSERT_TRUE(one.publish(n));
  ASSERT_TRUE(reader->renew().ok());
  // The first one comes again, and alone: its lease was ended by the one whose clock was ahead.
  const auto suspect = one.receive(*reader);
  ASSERT_EQ(suspect->deliveries.size(), 1U);
  const spi::Settlement settlement{suspect->deliveries[0].token, spi::Verb::kAck};
  ASSERT_TRUE(one.receive(*reader, {&settlement, 1})->lost.empty());
  EXPECT_EQ(one.receive(*reader)->deliveries.size(), 19U);
}

TEST(SqliteOnACrashDisk, ARenewalThatTheDiskRefusedMovesNoLease) {
  CrashDisk disk(2);
  const Opened one(disk);
  const auto reader = one.subscribe("g");
  ASSERT_TRUE(one.publish(1));
  const auto received = one.receive(*reader);
  ASSERT_EQ(received->deliveries.size(), 1U);
  one.clock->advance(milliseconds(600));
  disk.set_capacity(0);
  EXPECT_FALSE(reader->renew().ok());
  one.clock->advance(milliseconds(600));
  EXPECT_FALSE(reader->renew().ok()) << "ending the lease needs room as well";
  disk.set_capacity(UINT64_MAX);
  const spi::Settlement settlement{received->deliveries[0].token, spi::Verb::kAck};
  EXPECT_EQ(one.receive(*reader, {&settlement, 1})->lost, std::vector<std::uint32_t>{0});
  EXPECT_EQ(reader->renew().value(), std::vector<std::uint64_t>{settlement.token.lease});
}

TEST(SqliteOnACrashDisk, WhatWasAcknowledgedIsThereAfterALossOfPowerAtAnyMoment) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    CrashDisk disk(seed);
    Dice dice(seed);
    const std::uint64_t count = dice.between(1, 60);
    {
      const Opened one(disk);
      const auto reader = one.subscribe("g");
      for (std::uint64_t n = 1; n <= count; ++n)
        ASSERT_TRUE(one.publish(static_cast<std::uint8_t>(n)));
      disk.begin_recording();
      ASSERT_TRUE(one.publish(200));
      disk.power_loss_after(dice.below(disk.recorded() + 1), dice.next());
      EXPECT_FALSE(one.publish(201));
    }
    const Opened two(disk);
    two.clock->advance(hours(1));
    const auto reader = two.subscribe("g");
    const auto received = two.receive(*reader);
    ASSERT_TRUE(received.ok());
    ASSERT_GE(received->deliveries.size(), count) << "seed " << seed;
    ASSERT_LE(received->deliveries.size(), count + 1) << "seed " << seed;
  }
}

TEST(SqliteOnACrashDisk, SeedsThatLoseThePowerAndFillTheDiskAreCleanAndTheSameEachTime) {
  Figures figures;
  for (std::uint64_t seed = 1; seed <= 25; ++seed) {
    const Verdict verdict = run_seed(seed, WorldKind::kSqlite);
    EXPECT_EQ(verdict.ending, Ending::kClean) << "seed " << seed;
    if (seed <= 5) {
      EXPECT_EQ(run_seed(seed, WorldKind::kSqlite).hash, verdict.hash) << "seed " << seed;
    }
    for (std::size_t i = kFaultOfDisk; i < kFaultCount; ++i)
      figures.faults[i] += verdict.figures.faults[i];
  }
  for (std::size_t i = kFaultOfDisk; i < kFaultCount; ++i)
    EXPECT_GT(figures.faults[i], 0U) << name_of(static_cast<Fault>(i));
}

}  // namespace
}  // namespace towline::simulation
