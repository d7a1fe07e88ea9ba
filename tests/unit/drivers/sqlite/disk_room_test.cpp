// The reserve of a disk: made where it fits, given up when the disk is full, and publishing refused until
// there is room again.

#include "drivers/sqlite/disk_room.hpp"

#include <fstream>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "support/temp_dir.hpp"

namespace towline::drivers::sqlite {
namespace {

using namespace std::chrono_literals;

class SqliteDiskRoom : public ::testing::Test {
 protected:
  [[nodiscard]] std::string store() const { return folder.file("store.db"); }
  /// Of the reserve; -1: there is none.
  [[nodiscard]] std::int64_t reserve_bytes() const {
    struct stat found {};
    return ::stat((store() + "-reserve").c_str(), &found) == 0 ? found.st_size : -1;
  }
  support::TempDir folder;
  std::chrono::steady_clock::time_point now = std::chrono::steady_clock::now();
};

TEST_F(SqliteDiskRoom, KeepsAFileThatReallyTakesItsBytes) {
  DiskRoom room(store(), 100'000);
  EXPECT_TRUE(room.keep());
  EXPECT_EQ(reserve_bytes(), 100'000);
  struct stat found {};
  ASSERT_EQ(::stat((store() + "-reserve").c_str(), &found), 0);
  EXPECT_GE(found.st_blocks * 512, 100'000) << "a file with holes reserves nothing";
  EXPECT_EQ(found.st_mode & 0777, 0600U);
  EXPECT_EQ(room.full(now), nullptr);
}

TEST_F(SqliteDiskRoom, TwoOfOneStoreShareOneReserve) {
  DiskRoom one(store(), 100'000), two(store(), 100'000);
  EXPECT_TRUE(one.keep());
  EXPECT_TRUE(two.keep());
  EXPECT_EQ(reserve_bytes(), 100'000);
}

TEST_F(SqliteDiskRoom, GivenUpItIsGoneAndPublishingIsRefusedUntilItFitsAgain) {
  DiskRoom room(store(), 100'000);
  ASSERT_TRUE(room.keep());
  room.give_up();
  EXPECT_EQ(reserve_bytes(), -1) << "its room is for what must be settled";
  const Error* full = room.full(now);
  ASSERT_NE(full, nullptr);
  EXPECT_EQ(full->code, ErrorCode::kStorageFull);
  EXPECT_NE(full->message.find("publishing is refused"), std::string::npos) << full->message;
  // This disk has room, so with the next look the reserve is made again.
  EXPECT_EQ(room.full(std::chrono::steady_clock::now() + 1s), nullptr);
  EXPECT_EQ(reserve_bytes(), 100'000);
}

TEST_F(SqliteDiskRoom, MoreThanTheDiskHasCountsAsFullAndIsNotTried) {
  DiskRoom room(store(), std::uint64_t{1} << 60);
  EXPECT_FALSE(room.keep());
  EXPECT_EQ(reserve_bytes(), -1);
  const Error* full = room.full(now);
  ASSERT_NE(full, nullptr);
  EXPECT_EQ(full->code, ErrorCode::kStorageFull);
  EXPECT_NE(full->message.find("disk_reserve_bytes"), std::string::npos) << full->message;
}

TEST_F(SqliteDiskRoom, WhatTheFileMayHaveToGrowByIsNotFree) {
  DiskRoom room(store(), 100'000);
  ASSERT_TRUE(room.keep());
  const Error* full = room.full(now, std::uint64_t{1} << 60);
  ASSERT_NE(full, nullptr);
  EXPECT_NE(full->message.find("what the log still holds"), std::string::npos) << full->message;
  EXPECT_TRUE(room.is_full());
  EXPECT_NE(room.full(now), nullptr) << "not in turns with every call";
  EXPECT_EQ(room.full(now + 1s), nullptr) << "it has been taken in";
}

TEST_F(SqliteDiskRoom, TheReserveNeedsRoomOnTheDiskHoweverMuchTheStoreHasFree) {
  DiskRoom room(store(), std::uint64_t{1} << 50);
  EXPECT_FALSE(room.keep(std::uint64_t{1} << 60));
}

TEST_F(SqliteDiskRoom, WithoutAReserveNothingIsKeptAndNothingIsLookedAt) {
  DiskRoom room(store(), 0);
  EXPECT_TRUE(room.keep());
  EXPECT_EQ(reserve_bytes(), -1);
  EXPECT_EQ(room.full(now), nullptr);
}

TEST_F(SqliteDiskRoom, WithoutAReserveAFullDiskRefusesWhatGrowsOnlyWhenATransactionIsTriedAgain) {
  DiskRoom room(store(), 0);
  room.give_up();
  const Error* full = room.full(now);
  ASSERT_NE(full, nullptr);
  EXPECT_EQ(full->code, ErrorCode::kStorageFull);
  EXPECT_EQ(room.full(now), nullptr) << "or nothing could be published ever again";
}

}  // namespace
}  // namespace towline::drivers::sqlite
