// The small sums of the driver's memory: positions, bits of claims, and times that do not run over.

#include "drivers/sqlite/model.hpp"

#include <gtest/gtest.h>

namespace towline::drivers::sqlite {
namespace {

TEST(SqliteModel, APositionNamesItsLog) {
  for (const std::int64_t log : {std::int64_t{1}, std::int64_t{2}, std::int64_t{8'000'000}}) {
    EXPECT_EQ(log_of(log_begin(log)), log);
    EXPECT_EQ(log_of(log_end(log) - 1), log);
    EXPECT_EQ(log_end(log), log_begin(log + 1));
  }
}

TEST(SqliteModel, ADenseClaimCountsOnAndASparseOneSaysWhatItHolds) {
  Claim claim;
  claim.first = 100;
  claim.count = claim.remaining = 20;
  EXPECT_EQ(claim.entry(19).seq, 119);
  EXPECT_FALSE(claim.entry(19).suspect);
  claim.entries = {{7, 3, 2, true}};
  EXPECT_EQ(claim.entry(0).seq, 7);
  EXPECT_EQ(claim.entry(0).crashes, 2U);
  EXPECT_TRUE(claim.entry(0).suspect);
}

TEST(SqliteModel, EachSettlementIsABitOfItsOwn) {
  Claim claim;
  claim.count = claim.remaining = 20;
  for (const std::uint32_t index : {0U, 7U, 8U, 19U})
    claim.mark_settled(index);
  EXPECT_EQ(claim.remaining, 16U);
  EXPECT_EQ(claim.settled.size(), 3U);
  for (std::uint32_t index = 0; index < 20; ++index)
    EXPECT_EQ(claim.is_settled(index), index == 0 || index == 7 || index == 8 || index == 19) << index;
}

TEST(SqliteModel, ATimeFarAwayIsTheEndOfTime) {
  const TimePoint now{Duration(1'000)};
  EXPECT_EQ(after(now, Duration(5)), TimePoint{Duration(1'005)});
  EXPECT_EQ(after(now, Duration::max()), TimePoint::max());
  EXPECT_EQ(after(now, Duration(-5)), TimePoint{Duration(995)});
  EXPECT_EQ(after(MonotonicTime::max(), Duration(1)), MonotonicTime::max());
}

}  // namespace
}  // namespace towline::drivers::sqlite
