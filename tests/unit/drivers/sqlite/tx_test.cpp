// What a transaction notes for its end is noted once.

#include "drivers/sqlite/tx.hpp"

#include <gtest/gtest.h>

namespace towline::drivers::sqlite {
namespace {

TEST(SqliteTx, WhatIsNotedAgainIsNotedOnceAndInOrder) {
  Connection sql;
  Catalog catalog;
  Tx tx{sql, catalog, {}};
  LogState a, b;
  for (LogState* log : {&a, &b, &a, &a, &b}) {
    tx.note_written(*log);
    tx.note_appended(*log);
    tx.note_read(*log);
  }
  EXPECT_EQ(tx.written, (std::vector<LogState*>{&a, &b}));
  EXPECT_EQ(tx.appended, tx.written);
  EXPECT_EQ(tx.read, tx.written);
}

TEST(SqliteTx, OnlyPartitionsThatAreOwnedAreDealtAgainAndAClaimIsWrittenOnce) {
  Connection sql;
  Catalog catalog;
  Tx tx{sql, catalog, {}};
  GroupTopic plain, partitioned;
  partitioned.partitioned = true;
  tx.note_deal(plain);
  tx.note_deal(partitioned);
  tx.note_deal(partitioned);
  EXPECT_EQ(tx.to_deal, std::vector<GroupTopic*>{&partitioned});
  Claim claim;
  tx.note_settled(claim);
  tx.note_settled(claim);
  EXPECT_EQ(tx.settled, std::vector<Claim*>{&claim});
}

}  // namespace
}  // namespace towline::drivers::sqlite
