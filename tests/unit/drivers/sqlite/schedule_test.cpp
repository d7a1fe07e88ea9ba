// What asking whether a delayed message has fired costs, and what is remembered of those that have.

#include "drivers/sqlite/schedule.hpp"

#include "drivers/sqlite/schema.hpp"
#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

class SqliteFired : public ::testing::Test {
 protected:
  SqliteFired() {
    EXPECT_TRUE(sql.open(folder.file("a.db"), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr));
    EXPECT_TRUE(migrate(sql, migrations(), 0));
  }
  /// Ids first..last have fired.
  void fire(std::uint64_t first, std::uint64_t last) {
    std::string ids;
    for (std::uint64_t n = first; n <= last; ++n) {
      const MessageId id = make_id(n);
      ids += blob_of(id).bytes;
    }
    Tx tx{sql, catalog, {clock.now(), clock.monotonic()}};
    ASSERT_TRUE(sql.run("BEGIN"));
    remember_fired(tx, ids);
    ASSERT_TRUE(sql.run("COMMIT"));
  }
  /// How often forgetting found something.
  int forget() {
    Tx tx{sql, catalog, {clock.now(), clock.monotonic()}};
    int rounds = 0;
    while (forget_fired(tx))
      ++rounds;
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

  support::TempDir folder;
  Connection sql;
  Catalog catalog;
  VirtualClock clock;
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
  EXPECT_EQ(select_integer(sql, "SELECT count(*) FROM fired"), 3);
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
