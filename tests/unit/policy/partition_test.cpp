// Partitions of keys: the fixed vectors that every language shares, an even spread, and independence of the
// two levels.

#include "policy/partition.hpp"

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/ids.hpp"
#include "base/random.hpp"
#include "support/property.hpp"

namespace towline::policy {
namespace {

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

TEST(PartitionOf, GivesTheVectorsThatAllLanguagesShare) {
  std::ifstream file(std::string(TOWLINE_SOURCE_DIR) + "/tests/vectors/partitions.txt");
  ASSERT_TRUE(file.is_open());
  int count = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) continue;
    // "<key as hex, or - for the empty key> <partition of 64>"
    const std::size_t blank = line.find(' ');
    ASSERT_NE(blank, std::string::npos) << line;
    const std::string hex = line.substr(0, blank);
    const auto expected = static_cast<std::uint32_t>(std::stoul(line.substr(blank + 1)));
    ASSERT_EQ(partition_of(hex == "-" ? "" : from_hex(hex), 64), expected) << line;
    ++count;
  }
  EXPECT_EQ(count, 1000);
}

TEST(PartitionOf, NeverChangesItsSeedsAndHash) {
  EXPECT_EQ(kPartitionSeed, 0x746F776C696E6531u);
  EXPECT_EQ(kLaneSeed, 0x746F776C696E6532u);
  EXPECT_EQ(partition_of("customer-9", 64), 17u);
  EXPECT_EQ(partition_of("", 64), 38u);
  EXPECT_EQ(lane_of("customer-9", 64), 27u);
}

TEST(PartitionOf, SpreadsKeysEvenlyForAnyCount) {
  for (const std::uint32_t partition_count : {2u, 3u, 7u, 64u, 1024u}) {
    std::vector<int> counts(partition_count);
    const int keys = static_cast<int>(partition_count) * 1000;
    for (int i = 0; i < keys; ++i)
      ++counts[partition_of("customer-" + std::to_string(i), partition_count)];
    // Six standard deviations of a count of 1,000.
    for (const int count : counts)
      EXPECT_NEAR(count, 1000, 190) << partition_count;
  }
}

TEST(PartitionOf, IsWithinTheCountAndDependsOnNothingButKeyAndCount) {
  support::for_all([](const std::string& key, std::uint16_t any_count) {
    const std::uint32_t count = std::max<std::uint32_t>(1, any_count);
    const std::string copy = key;
    RC_ASSERT(partition_of(key, count) < count);
    RC_ASSERT(partition_of(copy, count) == partition_of(key, count));
    RC_ASSERT(lane_of(key, count) < count);
  });
}

TEST(PartitionOf, EveryByteOfAKeyMatters) {
  int moved = 0, tried = 0;
  support::for_all([&](std::string key) {
    if (key.empty()) key = "k";
    const std::uint32_t before = partition_of(key, 1u << 16);
    const auto at = *rc::gen::inRange<std::size_t>(0, key.size());
    key[at] = static_cast<char>(key[at] ^ (1 << *rc::gen::inRange(0, 8)));
    moved += partition_of(key, 1u << 16) != before ? 1 : 0;
    ++tried;
  });
  EXPECT_GE(moved, tried - 3) << "one of 65,536 may stay by chance";
}

TEST(PartitionOf, AnswersZeroForCountsZeroAndOne) {
  EXPECT_EQ(partition_of("a", 0), 0u);
  EXPECT_EQ(partition_of("a", 1), 0u);
  EXPECT_EQ(lane_of("a", 0), 0u);
}

TEST(LaneOf, UsesEveryLaneForTheKeysOfOnePartition) {
  // With one hash for both levels the keys of partition 5 of 64 would all fall into one lane of 8.
  std::vector<int> counts(8);
  for (int i = 0; i < 512'000; ++i) {
    const std::string key = "customer-" + std::to_string(i);
    if (partition_of(key, 64) == 5) ++counts[lane_of(key, 8)];
  }
  for (const int count : counts)
    EXPECT_NEAR(count, 1000, 190);
}

TEST(PartitionOf, TakesTheIdOfAMessageWithoutAKey) {
  base::IdSource source;
  base::SeededRng rng(1);
  std::vector<int> counts(64);
  for (int i = 0; i < 64'000; ++i) {
    const MessageId id = source.next(from_us(1'767'225'600'000'000), rng);
    const std::uint32_t partition = partition_of(std::nullopt, id, 64);
    ASSERT_EQ(partition, partition_of(std::nullopt, id, 64));
    ++counts[partition];
  }
  for (const int count : counts)
    EXPECT_NEAR(count, 1000, 190);
}

TEST(PartitionOf, PrefersTheKeyAlsoAnEmptyOne) {
  MessageId id;
  id.bytes.fill(7);
  EXPECT_EQ(partition_of(std::optional<std::string>("customer-9"), id, 64), partition_of("customer-9", 64));
  EXPECT_EQ(partition_of(std::optional<std::string>(""), id, 64), partition_of("", 64));
}

}  // namespace
}  // namespace towline::policy
