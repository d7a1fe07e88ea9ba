// The store half: waiting for what comes due, being woken, and reads that change
// nothing.

#include <atomic>
#include <thread>

#include "support/eventually.hpp"
#include "unit/drivers/world.hpp"

namespace towline::drivers::testing {
namespace {

using support::eventually;

/// Over the machine's clock, with waiting.
class StoreWaits : public ::testing::TestWithParam<Driver> {
 protected:
  StoreWaits() {
    spi::DriverOptions options;
    options.clock = system_clock();
    provider = open_driver(GetParam(), folder, options);
  }
  [[nodiscard]] spi::DueRequest for_long() const {
    spi::DueRequest request;
    request.lease = 30s;
    request.deadline = system_clock()->monotonic() + 20s;
    return request;
  }
  Result<void> put(std::uint64_t number, Duration delay) {
    spi::ScheduleRecord record;
    record.id = make_id(number);
    record.envelope.id = record.id;
    record.envelope.topic = "t";
    record.due_at = system_clock()->now() + delay;
    const spi::Unit unit{{spi::PutSchedule{record}}};
    return provider.store->commit({&unit, 1}).value().at(0);
  }

  support::TempDir folder;
  spi::Provider provider;
};

class Store : public OverDrivers {};

TEST_P(StoreWaits, ARecordThatIsPutMeanwhileEndsTheWaitWhenItComesDue) {
  std::atomic<bool> found{false};
  std::thread waiter([&] {
    const spi::DueBatch batch = provider.store->claim_due(for_long()).value();
    EXPECT_EQ(batch.records.size(), 1U);
    found = true;
  });
  const support::Stopwatch watch;
  ASSERT_TRUE(put(1, 50ms).ok());
  EXPECT_TRUE(eventually([&] { return found.load(); }));
  EXPECT_GE(watch.elapsed(), 45ms) << "never early";
  EXPECT_LT(watch.elapsed(), 900ms * support::slack()) << "it was found by a poll and not by its time";
  waiter.join();
}

TEST_P(StoreWaits, AnEarlierRecordShortensTheWait) {
  ASSERT_TRUE(put(1, 1h).ok());
  std::atomic<bool> found{false};
  std::thread waiter([&] {
    EXPECT_EQ(number_of(provider.store->claim_due(for_long()).value().records.at(0).id), 2U);
    found = true;
  });
  ASSERT_TRUE(put(2, 0s).ok());
  EXPECT_TRUE(eventually([&] { return found.load(); }));
  waiter.join();
}

TEST_P(StoreWaits, WakingEndsTheWaitOrTheNextOne) {
  std::atomic<int> returned{0};
  std::thread waiter([&] {
    for (int i = 0; i < 3; ++i) {
      EXPECT_TRUE(provider.store->promote_due(for_long()).value().records.empty());
      ++returned;
    }
  });
  for (int i = 1; i <= 3; ++i) {
    provider.store->wake();
    EXPECT_TRUE(eventually([&] { return returned >= i; }));
  }
  waiter.join();
}

TEST_P(Store, TheDeadlineEndsTheWaitWithNothing) {
  ASSERT_TRUE(world.write(spi::PutSchedule{world.record(1, 5s)}).ok());
  spi::DueRequest request;
  request.deadline = world.clock->monotonic();
  const spi::DueBatch batch = world.store().claim_due(request).value();
  EXPECT_TRUE(batch.records.empty());
  EXPECT_EQ(batch.next_due_at, world.clock->now() + 5s);
}

TEST_P(Store, AskingForNoneTellsOnlyWhenTheNextIsDue) {
  ASSERT_TRUE(world.write(spi::PutSchedule{world.record(1, 0s)}).ok());
  spi::DueRequest request;
  request.count_max = 0;
  const spi::DueBatch batch = world.store().promote_due(request).value();
  EXPECT_EQ(batch.promoted_count, 0U);
  EXPECT_EQ(batch.next_due_at, world.clock->now());
}

TEST_P(Store, ReadsOfWhatIsNotThereAreEmptyAndNoErrors) {
  EXPECT_EQ(world.store().find_schedule(make_id(1)).value(), std::nullopt);
  EXPECT_FALSE(world.store().has_fired(make_id(1)).value());
  EXPECT_TRUE(world.store().list_key_blocks("g", "t", std::nullopt).value().empty());
  EXPECT_FALSE(world.store().find_dead_letter(make_id(1)).value().has_value());
  EXPECT_EQ(world.store().find_dedup("t", "d").value(), std::nullopt);
  EXPECT_TRUE(world.store().inbox_contains("g", {}).value().empty());
  EXPECT_FALSE(world.store().find_idempotency("s", "k").value().has_value());
  EXPECT_EQ(world.store().statistics().value().scheduled, 0U);
}

TOWLINE_OVER_DRIVERS(StoreWaits);
TOWLINE_OVER_DRIVERS(Store);

}  // namespace
}  // namespace towline::drivers::testing
