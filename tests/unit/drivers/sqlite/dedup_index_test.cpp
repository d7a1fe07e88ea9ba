// The index of dedup ids knows every row it was told of until that is gone, whatever else it knows.

#include "drivers/sqlite/dedup_index.hpp"

#include <map>
#include <random>
#include <set>
#include <string>

#include <gtest/gtest.h>

namespace towline::drivers::sqlite::testing {
namespace {

using Row = DedupIndex::Row;

std::set<std::int64_t> all_of(DedupIndex& index, std::uint32_t hash, std::int64_t last) {
  std::set<std::int64_t> numbers;
  EXPECT_FALSE(index.find(hash, last, [&](std::int64_t number) {
    EXPECT_TRUE(numbers.insert(number).second) << "twice: " << number;
    return Row::kOther;
  }));
  return numbers;
}

TEST(SqliteDedupIndex, IsEmptyAndTakesNoMemoryAtFirst) {
  DedupIndex index;
  EXPECT_TRUE(all_of(index, 7, 100).empty());
  EXPECT_EQ(index.bytes(), 0U);
  index.drop_before(5, 100);
  EXPECT_EQ(index.bytes(), 0U);
}

TEST(SqliteDedupIndex, KnowsAllRowsOfAHashAndEachOnce) {
  for (const std::uint32_t hash : {0U, 1U, 0xffffffffU}) {
    SCOPED_TRACE(hash);
    DedupIndex own;
    own.add(hash, 1);
    own.add(hash, 2);
    own.add(hash, 1);
    EXPECT_EQ(own.size(), 2U);
    EXPECT_EQ(all_of(own, hash, 2), (std::set<std::int64_t>{1, 2}));
    const auto second = [](std::int64_t number) { return number == 2 ? Row::kIsIt : Row::kOther; };
    EXPECT_TRUE(own.find(hash, 2, second));
  }
}

TEST(SqliteDedupIndex, TellsNumbersBeyondFourThousandMillion) {
  DedupIndex index;
  const std::int64_t base = (std::int64_t{7} << 32) - 2;
  for (std::int64_t n = base; n < base + 5; ++n)
    index.add(9, n);
  EXPECT_EQ(all_of(index, 9, base + 4),
            (std::set<std::int64_t>{base, base + 1, base + 2, base + 3, base + 4}));
  index.drop_before(base + 3, base + 4);
  EXPECT_EQ(all_of(index, 9, base + 4), (std::set<std::int64_t>{base + 3, base + 4}));
}

TEST(SqliteDedupIndex, DoesWhatAMapDoes) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 20; ++round) {
    SCOPED_TRACE(round);
    // Few hashes, many of them next to each other and at the end of the table.
    const std::uint32_t step = round % 2 == 0 ? 1 : 0x01000000;
    DedupIndex index;
    std::map<std::uint32_t, std::set<std::int64_t>> model;
    std::int64_t last = 0;
    std::size_t size = 0;
    for (int i = 0; i < 6'000; ++i) {
      const auto hash = 0xfffffff0U - static_cast<std::uint32_t>(random() % 64) * step;
      if (random() % 3 != 0) {
        index.add(hash, ++last);
        size += model[hash].insert(last).second ? 1U : 0U;
      } else {
        std::set<std::int64_t>& rows = model[hash];
        const auto gone = [&](std::int64_t n) { return (n * 7 + i) % 3 == 0; };
        std::set<std::int64_t> seen;
        EXPECT_FALSE(index.find(hash, last, [&](std::int64_t number) {
          seen.insert(number);
          return gone(number) ? Row::kGone : Row::kOther;
        }));
        ASSERT_EQ(seen, rows);
        size -= std::erase_if(rows, gone);
      }
      ASSERT_EQ(index.size(), size);
      if (random() % 1'000 == 0) {
        const std::int64_t before = last / 2;
        index.drop_before(before, last);
        size = 0;
        for (auto& [known, rows] : model) {
          std::erase_if(rows, [&](std::int64_t n) { return n < before; });
          size += rows.size();
        }
      }
    }
    for (const auto& [hash, rows] : model)
      ASSERT_EQ(all_of(index, hash, last), rows);
  }
}

TEST(SqliteDedupIndex, AMillionTakeLessThanSixteenMegabytesAndGiveThemBack) {
  DedupIndex index;
  for (std::int64_t n = 1; n <= 1'000'000; ++n)
    index.add(hash_of_dedup(1, std::to_string(n)), n);
  EXPECT_LT(index.bytes(), 16U << 20);
  const std::set<std::int64_t> found = all_of(index, hash_of_dedup(1, "4711"), 1'000'000);
  EXPECT_EQ(found.count(4711), 1U);
  EXPECT_LT(found.size(), 5U);
  index.drop_before(999'001, 1'000'000);
  EXPECT_EQ(index.size(), 1'000U);
  EXPECT_LT(index.bytes(), 64U << 10);
}

TEST(SqliteDedupIndex, HashesDifferByTopicAndById) {
  EXPECT_EQ(hash_of_dedup(1, "a"), hash_of_dedup(1, "a"));
  std::set<std::uint32_t> hashes;
  for (std::int64_t topic = 1; topic <= 10; ++topic) {
    for (const char* id : {"", "a", "b", "aa", "order-000000000001", "order-000000000002"})
      hashes.insert(hash_of_dedup(topic, id));
  }
  EXPECT_GE(hashes.size(), 59U);
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
