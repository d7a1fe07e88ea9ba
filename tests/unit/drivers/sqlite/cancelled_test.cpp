// What was cancelled stays away from everybody at once, and its rows go when they are many.

#include "drivers/sqlite/cancelled.hpp"

#include <algorithm>
#include <random>

#include "drivers/sqlite/schedule.hpp"
#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

using Numbers = std::vector<std::uint64_t>;

class SqliteCancelled : public ::testing::Test {
 protected:
  /// Messages first..last, due within an hour, in no order.
  void delay(std::uint64_t first, std::uint64_t last) {
    std::vector<spi::Unit> units;
    for (std::uint64_t n = first; n <= last; ++n) {
      const Duration delay = 1s + std::chrono::milliseconds(chance_() % 3'000'000);
      units.emplace_back().writes.emplace_back(spi::PutSchedule{world.record(n, delay)});
    }
    for (const Result<void>& stored : world.store().commit(units).value())
      ASSERT_TRUE(stored.ok());
  }
  /// Of first..last in no order; those that could be cancelled.
  std::size_t cancel(std::uint64_t first, std::uint64_t last) {
    Numbers numbers = range(first, last);
    std::shuffle(numbers.begin(), numbers.end(), chance_);
    std::vector<spi::Unit> units;
    for (const std::uint64_t n : numbers)
      units.emplace_back().writes.emplace_back(spi::EraseSchedule{make_id(n), 0, true});
    const auto done = world.store().commit(units).value();
    return static_cast<std::size_t>(
        std::count_if(done.begin(), done.end(), [](const Result<void>& one) { return one.ok(); }));
  }
  /// Everything that fires within an hour, sorted.
  Numbers fire_all() {
    world.clock->advance(1h);
    auto subscription = world.subscribe();
    Numbers all;
    for (;;) {
      const std::uint64_t promoted = world.promote().promoted_count;
      const auto deliveries = world.receive(*subscription);
      if (promoted == 0 && deliveries.empty()) break;
      for (const std::uint64_t number : numbers_of(deliveries))
        all.push_back(number);
      EXPECT_TRUE(world.settle(*subscription, deliveries).empty());
    }
    std::sort(all.begin(), all.end());
    return all;
  }
  void sweep_all() {
    while (world.sweep().more) {
    }
  }
  [[nodiscard]] std::int64_t ask(const char* sql) const {
    Connection look;
    EXPECT_TRUE(look.open(world.file(), SQLITE_OPEN_READONLY, nullptr));
    return select_integer(look, sql).value_or(-1);
  }
  [[nodiscard]] std::int64_t bodies() const { return ask("SELECT count(*) FROM body"); }
  [[nodiscard]] std::int64_t rows() const {
    return ask("SELECT (SELECT count(*) FROM schedule) + (SELECT count(*) FROM schedule_recent)");
  }
  [[nodiscard]] std::int64_t noted() const {
    return ask("SELECT value FROM counter WHERE name = 'cancelled'");
  }
  [[nodiscard]] std::size_t listed() const {
    spi::ScheduleQuery query;
    query.topic = "t";
    query.count_max = 1000;
    return world.store().list_schedule(query).value().items.size();
  }

  World world;
  std::mt19937_64 chance_{7};
};

TEST_F(SqliteCancelled, ManyInNoOrderChangeFewRowsAndStayUntilTheyAreAGoodPart) {
  delay(1, 20'000);
  ASSERT_EQ(cancel(1, 3'999), 3'999U);
  EXPECT_LE(ask("SELECT count(*) FROM cancelled"), 6);
  EXPECT_EQ(ask("SELECT count(*) FROM cancelled_recent"), 0) << "so many at once are noted among the many";
  EXPECT_EQ(world.store().statistics()->scheduled, 16'001U);
  sweep_all();
  EXPECT_EQ(bodies(), 20'000);
  EXPECT_EQ(rows(), 20'000);
  ASSERT_EQ(cancel(4'000, 4'000), 1U);
  sweep_all();
  EXPECT_EQ(bodies(), 16'000);
  EXPECT_EQ(rows(), 16'000);
  EXPECT_EQ(noted(), 0);
  EXPECT_EQ(ask("SELECT count(*) FROM cancelled") + ask("SELECT count(*) FROM cancelled_recent"), 0);
  EXPECT_EQ(world.store().statistics()->scheduled, 16'000U);
  EXPECT_EQ(fire_all(), range(4'001, 20'000));
}

TEST_F(SqliteCancelled, NeverFiresAlthoughItsRowsAreStillThere) {
  delay(1, 1'000);
  ASSERT_EQ(cancel(101, 200), 100U);
  sweep_all();
  ASSERT_EQ(rows(), 1'000);
  EXPECT_EQ(listed(), 900U);
  EXPECT_FALSE(world.store().find_schedule(make_id(150)).value());
  EXPECT_FALSE(world.store().has_fired(make_id(150)).value());
  EXPECT_EQ(code_of(world.write(spi::MoveSchedule{make_id(150), 0, world.clock->now()})),
            ErrorCode::kNotFound);
  const Numbers fired = fire_all();
  EXPECT_EQ(fired.size(), 900U);
  EXPECT_TRUE(std::none_of(fired.begin(), fired.end(), [](std::uint64_t n) { return n > 100 && n <= 200; }));
  EXPECT_EQ(rows(), 0);
  EXPECT_EQ(noted(), 0) << "what was passed over is forgotten";
  EXPECT_EQ(ask("SELECT count(*) FROM cancelled") + ask("SELECT count(*) FROM cancelled_recent"), 0);
}

TEST_F(SqliteCancelled, AFewAtATimeAreNotedWhereTheyShareAPageUntilTheyAreMany) {
  delay(1, 20'000);
  std::int64_t recent_max = 0;
  std::uint64_t n = 1;
  for (; recent_max <= ask("SELECT count(*) FROM cancelled_recent"); n += 100) {
    recent_max = ask("SELECT count(*) FROM cancelled_recent");
    ASSERT_EQ(ask("SELECT count(*) FROM cancelled"), 0);
    ASSERT_EQ(cancel(n, n + 99), 100U);
    ASSERT_EQ(cancel(n, n), 0U) << "it is not there any more";
  }
  EXPECT_GT(recent_max, 1'000);
  EXPECT_EQ(ask("SELECT count(*) FROM cancelled_recent"), 0);
  EXPECT_GT(ask("SELECT count(*) FROM cancelled"), 0);
  EXPECT_EQ(cancel(n, n + 49), 50U);
  EXPECT_EQ(cancel(1, n + 49), 0U) << "wherever it is noted";
  EXPECT_EQ(noted(), static_cast<std::int64_t>(n + 49));
  EXPECT_EQ(fire_all(), range(n + 50, 20'000));
  EXPECT_EQ(noted(), 0);
}

TEST_F(SqliteCancelled, WhatFiredIsNotCancelledAlthoughTheClockWasSetBack) {
  const TimePoint before = world.clock->now();
  delay(1, 1'000);
  world.clock->advance(20min);
  while (world.promote().promoted_count > 0) {
  }
  const auto fired = static_cast<std::size_t>(1'000 - rows());
  ASSERT_GT(fired, 0U);
  ASSERT_LT(fired, 1'000U);
  world.clock->step_wall(before - world.clock->now());
  EXPECT_EQ(cancel(1, 1'000), 1'000 - fired);
}

TEST_F(SqliteCancelled, IsAskedForInTheMiddleOfAPassAsBefore) {
  delay(1, 20'000);
  ASSERT_EQ(cancel(1, 10'000), 10'000U);
  int steps = 0;
  while (world.sweep().more) {
    ++steps;
    const std::uint64_t n = 1 + chance_() % 10'000;
    EXPECT_FALSE(world.store().has_fired(make_id(n)).value()) << n;
    EXPECT_FALSE(world.store().find_schedule(make_id(n)).value()) << n;
    EXPECT_EQ(cancel(n, n), 0U) << n;
    EXPECT_EQ(world.store().statistics()->scheduled, static_cast<std::uint64_t>(10'001 - steps));
    const std::uint64_t other = 10'000 + static_cast<std::uint64_t>(steps);
    EXPECT_EQ(cancel(other, other), 1U) << "cancelled while the pass runs, before and behind where it is";
  }
  EXPECT_GT(steps, 10'000 / 512);
  EXPECT_EQ(rows(), bodies());
  EXPECT_EQ(bodies() - noted(), 10'000 - steps);
  EXPECT_EQ(fire_all(), range(10'001 + static_cast<std::uint64_t>(steps), 20'000));
}

TEST_F(SqliteCancelled, GoesOnGoingAfterTheProcessDiedInAPass) {
  for (const int steps : {1, 4, 8}) {
    SCOPED_TRACE(steps);
    const auto first = static_cast<std::uint64_t>(steps) * 100'000;
    delay(first + 1, first + 10'000);
    ASSERT_EQ(cancel(first + 1, first + 9'000), 9'000U);
    for (int i = 0; i < steps; ++i)
      ASSERT_TRUE(world.sweep().more);
    world.shut();
    world.open();
    ASSERT_GT(bodies(), 1'000);
    sweep_all();
    EXPECT_EQ(bodies(), 1'000);
    EXPECT_EQ(rows(), 1'000);
    EXPECT_EQ(noted(), 0);
    EXPECT_EQ(fire_all(), range(first + 9'001, first + 10'000));
    sweep_all();  // bodies of what fired
    sweep_all();
  }
}

TEST_F(SqliteCancelled, AnIdCanBePutAgainBesideWhatIsLeftOfIt) {
  delay(1, 100);
  ASSERT_EQ(cancel(1, 10), 10U);
  delay(1, 5);
  EXPECT_EQ(bodies(), 105);
  EXPECT_TRUE(world.store().find_schedule(make_id(3)).value());
  EXPECT_EQ(cancel(1, 10), 5U) << "once";
  delay(5, 5);
  Numbers left = range(11, 100);
  left.insert(left.begin(), 5);
  EXPECT_EQ(fire_all(), left);
}

TEST_F(SqliteCancelled, TakenBackWithItsTransaction) {
  delay(1, 10);
  // The second write of the unit finds nothing, so that none of it happens.
  EXPECT_EQ(
      code_of(world.write(spi::EraseSchedule{make_id(1), 0, true}, spi::EraseSchedule{make_id(99), 0, true})),
      ErrorCode::kNotFound);
  EXPECT_EQ(code_of(world.write(spi::EraseSchedule{make_id(1), 7, true})), ErrorCode::kConflict);
  EXPECT_EQ(noted(), 0);
  EXPECT_EQ(fire_all(), range(1, 10));
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
