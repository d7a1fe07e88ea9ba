// What asking whether a delayed message has fired costs, what is remembered of those that have, and when
// their bodies go.

#include "drivers/sqlite/fired.hpp"

#include <algorithm>
#include <random>

#include "drivers/sqlite/topics.hpp"
#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

class SqliteFired : public Bare {
 protected:
  /// Ids first..last have fired.
  void fire(std::uint64_t first, std::uint64_t last) {
    std::string ids;
    for (std::uint64_t n = first; n <= last; ++n) {
      const MessageId id = make_id(n);
      ids += blob_of(id).bytes;
    }
    write([&](Tx& tx) { remember_fired(tx, ids); });
  }
  /// How often forgetting found something.
  int forget() {
    int rounds = 0;
    write([&](Tx& tx) {
      while (forget_fired(tx))
        ++rounds;
    });
    return rounds;
  }
  /// Pages of the file that asking for an id that nobody knows looks at.
  std::int64_t pages_for_unknown() {
    int hit = 0;
    int miss = 0;
    int highest = 0;
    sqlite3_db_status(sql.raw(), SQLITE_DBSTATUS_CACHE_HIT, &hit, &highest, 1);
    sqlite3_db_status(sql.raw(), SQLITE_DBSTATUS_CACHE_MISS, &miss, &highest, 1);
    EXPECT_FALSE(has_fired(sql, make_id(UINT64_MAX)));
    sqlite3_db_status(sql.raw(), SQLITE_DBSTATUS_CACHE_HIT, &hit, &highest, 1);
    sqlite3_db_status(sql.raw(), SQLITE_DBSTATUS_CACHE_MISS, &miss, &highest, 1);
    return std::int64_t{hit} + miss;
  }
};

TEST_F(SqliteFired, AnUnknownIdIsLookedUpAndNotSearchedFor) {
  for (std::uint64_t n = 0; n < 200; ++n) {
    fire(1'000 * n + 1, 1'000 * n + 1'000);
    clock.advance(1min);
  }
  EXPECT_TRUE(has_fired(sql, make_id(1)));
  EXPECT_TRUE(has_fired(sql, make_id(200'000)));
  EXPECT_LT(pages_for_unknown(), 100) << "200,000 ids lie on some 600 pages";
}

TEST_F(SqliteFired, WhatIsOldIsForgottenInPartsAndWhatIsNewerStays) {
  fire(1, 10);
  clock.advance(2h);
  fire(11, 20);
  clock.advance(23h);
  EXPECT_EQ(forget(), 0) << "the younger of the first hour may be younger than a day";
  clock.advance(1h);
  EXPECT_EQ(forget(), 1);
  EXPECT_FALSE(has_fired(sql, make_id(1)));
  EXPECT_TRUE(has_fired(sql, make_id(11)));
  EXPECT_TRUE(has_fired(sql, make_id(20)));
}

TEST_F(SqliteFired, BeyondSomeTwoMillionTheOldestAreForgotten) {
  for (std::uint64_t n = 0; n < 105; ++n)
    fire(20'000 * n + 1, 20'000 * n + 20'000);
  EXPECT_EQ(forget(), 5);
  EXPECT_FALSE(has_fired(sql, make_id(100'000)));
  EXPECT_TRUE(has_fired(sql, make_id(100'001)));
}

TEST_F(SqliteFired, AnIdThatFiresTwiceIsRememberedOnce) {
  fire(1, 2);
  fire(2, 3);
  EXPECT_TRUE(has_fired(sql, make_id(2)));
  EXPECT_EQ(count("SELECT count(*) FROM fired"), 3);
}

// ---- bodies -------------------------------------------------------------------------------------

class SqliteFiredBodies : public ::testing::Test {
 protected:
  /// Messages first..last, due in another order than they are put, by `within`.
  void delay(std::uint64_t first, std::uint64_t last, Duration within = 1s) {
    std::vector<spi::Unit> units;
    for (std::uint64_t n = first; n <= last; ++n) {
      const Duration delay(1 +
                           static_cast<std::int64_t>(chance_() % static_cast<std::uint64_t>(within.count())));
      units.emplace_back().writes.emplace_back(spi::PutSchedule{world.record(n, delay)});
    }
    for (const Result<void>& stored : world.store().commit(units).value())
      ASSERT_TRUE(stored.ok());
  }
  /// Everything due is fired, handed out and acknowledged; their numbers, sorted.
  std::vector<std::uint64_t> handle_all(spi::Subscription& subscription) {
    std::vector<std::uint64_t> all;
    for (;;) {
      const std::uint64_t promoted = world.promote().promoted_count;
      const auto deliveries = world.receive(subscription);
      if (promoted == 0 && deliveries.empty()) break;
      for (const std::uint64_t number : numbers_of(deliveries))
        all.push_back(number);
      EXPECT_TRUE(world.settle(subscription, deliveries).empty());
    }
    std::sort(all.begin(), all.end());
    return all;
  }
  /// Sweeps until nothing is left to do; how often.
  int sweep_all() {
    for (int rounds = 1;; ++rounds) {
      if (!world.sweep().more) return rounds;
    }
  }
  [[nodiscard]] std::int64_t count(const char* table) const {
    Connection look;
    EXPECT_TRUE(look.open(world.file(), SQLITE_OPEN_READONLY, nullptr));
    return select_integer(look, ("SELECT count(*) FROM " + std::string(table)).c_str()).value_or(-1);
  }

  World world;
  std::mt19937_64 chance_{7};
};

TEST_F(SqliteFiredBodies, StayUntilTheirLogRestsAndThenGoALittleAtATime) {
  auto subscription = world.subscribe();
  delay(1, 3'000);
  world.clock->advance(1s);
  EXPECT_EQ(handle_all(*subscription), range(1, 3'000));
  EXPECT_EQ(world.group().waiting, 0U);
  EXPECT_EQ(count("body"), 3'000) << "few, and the log was busy a moment ago";
  EXPECT_TRUE(world.store().has_fired(make_id(1'234)).value());
  EXPECT_FALSE(world.sweep().more) << "the first sweep finds it busy";
  EXPECT_GE(sweep_all(), 3'000 / 256);
  EXPECT_EQ(count("body"), 0);
  EXPECT_EQ(count("message"), 0);
  for (const std::uint64_t n : {1U, 1'234U, 3'000U})
    EXPECT_TRUE(world.store().has_fired(make_id(n)).value()) << n;
  EXPECT_FALSE(world.store().has_fired(make_id(3'001)).value());
}

TEST_F(SqliteFiredBodies, ThatAreManyGoWithWhatIsSettledAndWhatWaitsIsNotTouched) {
  auto subscription = world.subscribe();
  delay(1, 22'000);
  delay(22'001, 22'100, 1h);
  world.clock->advance(1s);
  EXPECT_GE(handle_all(*subscription).size(), 22'000U);
  EXPECT_LT(count("body"), 22'000);
  EXPECT_GT(count("body"), 0);
  delay(30'001, 60'000);
  world.clock->advance(1s);
  EXPECT_GE(handle_all(*subscription).size(), 30'000U);
  EXPECT_LT(count("body"), 42'000) << "what is left behind is bounded, however busy the log is";
  EXPECT_EQ(static_cast<std::uint64_t>(count("schedule") + count("schedule_recent")),
            world.store().statistics()->scheduled);
  world.clock->advance(1h);
  const auto late = handle_all(*subscription);
  EXPECT_FALSE(late.empty());
  for (const std::uint64_t n : late)
    EXPECT_TRUE(n > 22'000 && n <= 22'100) << n;
}

TEST_F(SqliteFiredBodies, GoOnGoingAfterTheProcessDied) {
  {
    auto subscription = world.subscribe();
    delay(1, 1'000);
    delay(1'001, 1'001, 1us);
    world.clock->advance(1s);
    EXPECT_EQ(handle_all(*subscription).size(), 1'001U);
    EXPECT_FALSE(world.sweep().more);
    EXPECT_TRUE(world.sweep().more);
    EXPECT_LT(count("body"), 1'001);
  }
  world.shut();
  world.open();
  (void)sweep_all();
  EXPECT_EQ(count("body"), 0);
  EXPECT_EQ(count("message"), 0);
  EXPECT_TRUE(world.store().has_fired(make_id(1'001)).value());
  // Positions go on where they were.
  auto subscription = world.subscribe();
  delay(2'001, 2'002);
  world.clock->advance(1s);
  EXPECT_EQ(handle_all(*subscription), range(2'001, 2'002));
}

TEST_F(SqliteFiredBodies, GiveTheirIdsToNoOthersAlsoWhenRowsThatNameThemAreLeft) {
  {
    auto subscription = world.subscribe();
    delay(1, 5'000);
    world.clock->advance(1s);
    EXPECT_EQ(handle_all(*subscription).size(), 5'000U);
    (void)world.sweep();
    while (count("body") > 0)
      EXPECT_TRUE(world.sweep().more);
    ASSERT_GT(count("message"), 0) << "rows that name bodies are still there";
    delay(6'001, 11'000, 1h);
  }
  world.shut();  // and with it what was gathered
  world.open();
  (void)sweep_all();
  EXPECT_EQ(count("body"), 5'000);
  world.clock->advance(1h);
  auto subscription = world.subscribe();
  EXPECT_EQ(handle_all(*subscription), range(6'001, 11'000));
}

TEST_F(SqliteFiredBodies, ThatAreLeftBehindAreReadByNobodyAnyMore) {
  auto first = world.subscribe();
  delay(1, 1'500);
  world.clock->advance(1s);
  EXPECT_EQ(handle_all(*first).size(), 1'500U);
  EXPECT_EQ(count("body"), 1'500);
  (void)world.sweep();  // trims the last of them, too
  spi::SubscribeOptions late = member("late");
  late.start.kind = spi::StartPosition::Kind::kEarliest;
  auto second = world.subscribe(late);
  EXPECT_TRUE(world.take(*second).empty());
  world.publish(world.envelope(9'000));
  EXPECT_EQ(world.take(*second), range(9'000, 9'000));
}

TEST_F(SqliteFiredBodies, OfALogAreNotReadBeyondItsRetentionByAGroupThatLags) {
  spi::Topology topology;
  topology.topic = "t";
  topology.kind = spi::TopicKind::kLog;
  topology.partition_count = 1;
  topology.retention = 1min;
  ASSERT_TRUE(world.transport().declare(topology).ok());
  spi::SubscribeOptions options = member("lags");
  options.start.kind = spi::StartPosition::Kind::kEarliest;
  auto lags = world.subscribe(options);
  delay(1, 10);
  world.clock->advance(1s);
  EXPECT_EQ(world.promote().promoted_count, 10U);
  world.clock->advance(2min);
  EXPECT_EQ(world.sweep().messages, 10U);
  world.publish(world.envelope(11));
  EXPECT_EQ(world.take(*lags), range(11, 11));
  (void)sweep_all();
  EXPECT_EQ(count("body"), 0);
}

class SqliteFiredOfALog : public Bare {};

TEST_F(SqliteFiredOfALog, DoNotSetBackTheLogThatAnotherProcessHasSweptMeanwhile) {
  LogState* log = nullptr;
  write([&](Tx& tx) { log = &log_of(tx, topic_of(tx, "t"), 4); });
  // Here a pass has one body to go...
  log->trimmed = log->last = log_begin(log->id) + 100;
  log->fired.gathered = log->fired.pass_until = log->trimmed;
  log->fired.pass = {7};
  // ...when another process has done all of it and more, and this one hears of it now.
  const Seq ahead = log_begin(log->id) + 500;
  execute(sql, "UPDATE log SET trimmed_seq = ?1, swept_seq = ?1, body_seq = ?1", ahead);
  ++catalog.generation;
  write([&](Tx& tx) {
    tx.note_read(*log);
    remove_fired(tx, 100);
  });
  EXPECT_EQ(count("SELECT trimmed_seq FROM log"), ahead);
  EXPECT_EQ(count("SELECT swept_seq FROM log"), ahead);
  EXPECT_EQ(count("SELECT body_seq FROM log"), ahead);
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
