// Claims as rows: they come back as they were, their tokens grow for ever, and damaged bytes do no harm.

#include "drivers/sqlite/claim_rows.hpp"

#include "support/property.hpp"
#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

class SqliteClaimRows : public Bare {
 protected:
  [[nodiscard]] Claim claim_of(Seq first, std::uint32_t size) {
    Claim claim;
    claim.group_id = 2;
    claim.member_id = 3;
    claim.log_id = 4;
    claim.first = first;
    claim.count = claim.remaining = size;
    claim.lease_duration = 30s;
    claim.lease_until_wall = clock.now() + 30s;
    return claim;
  }
  std::vector<Claim> all() {
    std::vector<Claim> claims;
    write([&](Tx& tx) { for_each_claim(tx, [&](Claim&& claim) { claims.push_back(std::move(claim)); }); });
    return claims;
  }
};

TEST_F(SqliteClaimRows, AClaimComesBackAsItWasWritten) {
  Claim dense = claim_of(log_begin(4) + 10, 20);
  Claim sparse = claim_of(log_begin(4) + 100, 3);
  sparse.entries = {{log_begin(4) + 100, 0, 0, false},
                    {log_begin(4) + 7, 65'535, 3, true},
                    {log_begin(4) + 1'000'000, 1, 0, true}};
  write([&](Tx& tx) {
    insert_claim(tx, dense);
    insert_claim(tx, sparse);
    sparse.settled = {0b010};
    sparse.remaining = 2;
    update_claim(tx, sparse);
  });
  EXPECT_GT(sparse.lease, dense.lease);
  const std::vector<Claim> back = all();
  ASSERT_EQ(back.size(), 2U);
  EXPECT_EQ(back[0].lease, dense.lease);
  EXPECT_EQ(back[0].first, dense.first);
  EXPECT_EQ(back[0].count, 20U);
  EXPECT_TRUE(back[0].entries.empty());
  EXPECT_EQ(back[0].group_id, 2);
  EXPECT_EQ(back[0].member_id, 3);
  EXPECT_EQ(back[0].log_id, 4);
  EXPECT_EQ(back[0].lease_duration, 30s);
  EXPECT_EQ(back[0].lease_until_wall, dense.lease_until_wall);
  EXPECT_EQ(back[1].remaining, 2U);
  EXPECT_EQ(back[1].settled, sparse.settled);
  ASSERT_EQ(back[1].entries.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(back[1].entries[i].seq, sparse.entries[i].seq);
    EXPECT_EQ(back[1].entries[i].partition, sparse.entries[i].partition);
    EXPECT_EQ(back[1].entries[i].crashes, sparse.entries[i].crashes);
    EXPECT_EQ(back[1].entries[i].suspect, sparse.entries[i].suspect);
  }
}

TEST_F(SqliteClaimRows, TokensGrowAlsoOverARestartWithNothingInHand) {
  std::int64_t last = 0;
  for (int i = 0; i < 5; ++i) {
    write([&](Tx& tx) {
      Claim claim = claim_of(1, 1);
      insert_claim(tx, claim);
      EXPECT_GT(claim.lease, last);
      last = claim.lease;
      EXPECT_TRUE(claim_exists(tx, last));
      claim.remaining = 0;
      update_claim(tx, claim);
      EXPECT_FALSE(claim_exists(tx, last));
    });
    EXPECT_TRUE(all().empty());
    EXPECT_EQ(count("SELECT count(*) FROM claim"), 1) << "the last one stays as a mark";
    forget();
  }
}

TEST_F(SqliteClaimRows, WhatIsEmptyAndNotTheLastIsRemoved) {
  write([&](Tx& tx) {
    Claim first = claim_of(1, 1);
    Claim second = claim_of(2, 1);
    insert_claim(tx, first);
    insert_claim(tx, second);
    first.remaining = 0;
    update_claim(tx, first);
    EXPECT_FALSE(claim_exists(tx, first.lease));
    EXPECT_TRUE(claim_exists(tx, second.lease));
  });
  EXPECT_EQ(count("SELECT count(*) FROM claim"), 1);
}

TEST_F(SqliteClaimRows, DamagedEntriesAreReadAsFarAsTheyGo) {
  support::for_all(
      [&](const std::string& bytes, std::uint16_t declared) {
        write([&](Tx& tx) {
          execute(tx.sql, "DELETE FROM claim");
          execute(tx.sql, "INSERT INTO claim VALUES(1, 1, 1, 1, ?1, ?2, 1, ?3, NULL, 1, 1)", INT64_MAX - 3,
                  declared, Blob{bytes});
        });
        const std::vector<Claim> back = all();
        RC_ASSERT(back.size() == 1U);
        RC_ASSERT(back[0].entries.size() <= declared);
        RC_ASSERT(back[0].count == back[0].entries.size());
      },
      300);
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
