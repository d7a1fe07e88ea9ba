// Opening a file: what its parameters may say, what they do to the file, and that what is not a store is
// left as it was.

#include <atomic>
#include <fstream>
#include <iterator>
#include <optional>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include "drivers/sqlite/connection.hpp"
#include "support/eventually.hpp"
#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

class SqliteOpen : public ::testing::Test {
 protected:
  [[nodiscard]] Result<spi::Provider> open(Parameters parameters = {}, bool threads = false) const {
    spi::DriverOptions options;
    options.location = file();
    options.parameters = std::move(parameters);
    options.clock = std::make_shared<VirtualClock>();
    options.threads = threads;
    return open_sqlite(options);
  }
  [[nodiscard]] std::string file() const { return folder.file("store.db"); }
  void write(const std::string& text) const { std::ofstream(file(), std::ios::binary) << text; }
  [[nodiscard]] std::string bytes() const {
    std::ifstream in(file(), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  support::TempDir folder;
};

TEST_F(SqliteOpen, MakesAFileThatSurvivesALossOfPowerUnlessItIsToldOtherwise) {
  const auto safe = open();
  ASSERT_TRUE(safe.ok()) << safe.error().to_string();
  EXPECT_TRUE(safe->transport->capabilities().durable);
  EXPECT_TRUE(safe->transport->capabilities().survives_power_loss);
  EXPECT_TRUE(safe->transport->capabilities().is_store);
  EXPECT_TRUE(safe->transport->capabilities().runs_sql);
}

TEST_F(SqliteOpen, WithoutSyncingEachCommitItSaysThatPowerMayCostSomething) {
  const auto quick = open({{"synchronous", "normal"}});
  ASSERT_TRUE(quick.ok()) << quick.error().to_string();
  EXPECT_TRUE(quick->transport->capabilities().durable);
  EXPECT_FALSE(quick->transport->capabilities().survives_power_loss);
}

TEST_F(SqliteOpen, AForkedChildIsRefusedTheFileThatItInheritedAlsoWhenItHasLetGoOfIt) {
  std::optional<spi::Provider> inherited = open({}, true).value();
  const pid_t child = ::fork();
  if (child == 0) {
    const auto refused = [&] {
      const auto again = open({}, true);
      return !again.ok() && again.error().code == ErrorCode::kForked;
    };
    int wrong = refused() ? 0 : 1;
    inherited.reset();
    if (!refused()) wrong |= 2;
    ::_exit(wrong);
  }
  int state = -1;
  ASSERT_EQ(::waitpid(child, &state, 0), child);
  EXPECT_EQ(state, 0);
}

TEST_F(SqliteOpen, AForkedChildOpensWhatItsParentHasClosed) {
  ASSERT_TRUE(open({}, true).ok());
  const pid_t child = ::fork();
  if (child == 0) ::_exit(open().ok() ? 0 : 1);
  int state = -1;
  ASSERT_EQ(::waitpid(child, &state, 0), child);
  EXPECT_EQ(state, 0);
}

TEST_F(SqliteOpen, ParametersThatItDoesNotKnowOrCannotReadAreRefusedAndNoFileIsMade) {
  for (const auto& [name, value] : Parameters{
           {"mode", "memory"}, {"synchronous", "off"}, {"synchronous", ""}, {"journal_mode", "delete"}}) {
    const auto refused = open({{name, value}});
    ASSERT_FALSE(refused.ok()) << name << "=" << value;
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidConfig) << refused.error().to_string();
    EXPECT_NE(refused.error().message.find(name), std::string::npos) << refused.error().message;
  }
  EXPECT_FALSE(std::ifstream(file()).good());
}

TEST_F(SqliteOpen, WhatIsNotAStoreIsLeftAsItWas) {
  for (const std::string& text : {std::string("x"), std::string("hello, this is a letter"),
                                  std::string("SQLite format 3\0", 16), std::string(8192, '\0')}) {
    write(text);
    const auto refused = open();
    ASSERT_FALSE(refused.ok()) << text.size() << " bytes";
    EXPECT_EQ(refused.error().code, ErrorCode::kNotAStore) << refused.error().to_string();
    EXPECT_EQ(bytes(), text);
  }
}

TEST_F(SqliteOpen, AnEmptyFileBecomesAStore) {
  write("");
  EXPECT_TRUE(open().ok());
}

TEST_F(SqliteOpen, AFileThatTakesLongToOpenKeepsNobodyFromAnother) {
  // Whoever holds an empty file keeps the opener waiting for it, but not for long.
  write("");
  Connection holder;
  ASSERT_TRUE(holder.open(file(), SQLITE_OPEN_READWRITE, nullptr));
  ASSERT_TRUE(holder.run("BEGIN EXCLUSIVE"));
  std::atomic<bool> opened = false;
  std::thread slow([&] {
    EXPECT_TRUE(open({}, true).ok());
    opened = true;
  });
  EXPECT_TRUE(support::eventually([&] { return std::ifstream(file() + "-lock").good(); }));
  spi::DriverOptions other;
  other.location = folder.file("other.db");
  other.clock = std::make_shared<VirtualClock>();
  EXPECT_TRUE(open_sqlite(other).ok());
  EXPECT_FALSE(opened);
  EXPECT_TRUE(holder.run("COMMIT"));
  slow.join();
}

TEST_F(SqliteOpen, TwoThreadsThatOpenOneFileShareIt) {
  Result<spi::Provider> sides[2] = {Error{}, Error{}};
  std::thread one([&] { sides[0] = open({}, true); });
  std::thread two([&] { sides[1] = open({}, true); });
  one.join();
  two.join();
  ASSERT_TRUE(sides[0].ok() && sides[1].ok());
  EXPECT_EQ(open({{"synchronous", "normal"}}, true).error().code, ErrorCode::kInvalidConfig)
      << "who shares a file shares its settings";
  sides[0] = Error{};
  EXPECT_EQ(open({{"synchronous", "normal"}}, true).error().code, ErrorCode::kInvalidConfig);
  sides[1] = Error{};
  EXPECT_TRUE(open({{"synchronous", "normal"}}, true).ok()) << "nobody has it open any more";
}

TEST_F(SqliteOpen, ANewerFileAndOneOfAnotherProgramAreNamedAndLeftAsTheyWere) {
  for (const bool newer : {true, false}) {
    {
      Connection maker;
      ASSERT_TRUE(maker.open(file(), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr));
      ASSERT_TRUE(maker.run(newer ? "PRAGMA application_id = 0x544f574c; PRAGMA user_version = 99"
                                  : "PRAGMA application_id = 7; CREATE TABLE IF NOT EXISTS a(b)"));
    }
    const std::string before = bytes();
    const auto refused = open();
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, newer ? ErrorCode::kSchemaTooNew : ErrorCode::kNotAStore);
    EXPECT_NE(refused.error().message.find(newer ? "version 99" : "another program"), std::string::npos);
    EXPECT_EQ(bytes(), before);
  }
}

TEST_F(SqliteOpen, TheSettingsThatDurabilityRestsOnAreInTheFile) {
  ASSERT_TRUE(open().ok());
  Connection look;
  ASSERT_TRUE(look.open(file(), SQLITE_OPEN_READWRITE, nullptr));
  EXPECT_EQ(look.ask("PRAGMA journal_mode"), "wal");
  EXPECT_EQ(look.ask("PRAGMA integrity_check"), "ok");
}

TEST_F(SqliteOpen, WhatOneEngineStoredAnotherOneFinds) {
  {
    World world;
    world.publish(1, 3);
    auto subscription = world.subscribe();
    world.shut();
    subscription.reset();
    world.open();
    auto again = world.subscribe();
    EXPECT_EQ(world.take(*again), range(1, 3));
  }
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
