// What opening notices: a file that was not closed in order, one that is damaged, and what the user should
// know of one that is fine.

#include <fstream>
#include <string>
#include <vector>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "drivers/sqlite/database.hpp"
#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

class SqliteDatabaseOpen : public ::testing::Test {
 protected:
  [[nodiscard]] Settings settings() const {
    Settings settings;
    settings.path = folder.file("store.db");
    settings.disk_reserve_bytes = 0;
    return settings;
  }
  [[nodiscard]] Result<std::vector<std::string>> open(const Settings& with) {
    Database database{with};
    if (auto opened = database.open({clock.now(), clock.monotonic()}); !opened) return opened.error();
    return database.findings();
  }
  /// A process opens the store, writes to it, and is gone without closing it.
  void crash() {
    const pid_t child = ::fork();
    if (child == 0) {
      spi::DriverOptions options;
      options.location = settings().path;
      options.parameters = {{"disk_reserve_bytes", "0"}};
      options.clock = std::make_shared<VirtualClock>();
      const spi::Provider provider = open_sqlite(options).value();
      std::vector<spi::Envelope> envelopes(50);
      for (std::size_t i = 0; i < envelopes.size(); ++i) {
        envelopes[i].id = make_id(i + 1);
        envelopes[i].topic = "t";
        envelopes[i].payload.assign(1'000, 'x');
      }
      const auto answers = provider.transport->publish(envelopes, MonotonicTime::max());
      ::_exit(answers.ok() && answers->empty() ? 0 : 1);
    }
    int state = -1;
    ASSERT_EQ(::waitpid(child, &state, 0), child);
    ASSERT_EQ(state, 0);
  }

  support::TempDir folder;
  VirtualClock clock;
};

using Findings = std::vector<std::string>;

TEST_F(SqliteDatabaseOpen, ProcessesThatOpenANewFileAtOnceAllOpenIt) {
  for (int round = 0; round < 60; ++round) {
    Settings fresh = settings();
    fresh.path = folder.file("store" + std::to_string(round) + ".db");
    int gate[2];
    ASSERT_EQ(::pipe(gate), 0);
    std::vector<pid_t> children;
    for (int i = 0; i < 4; ++i) {
      const pid_t child = ::fork();
      if (child == 0) {
        ::close(gate[1]);
        char none = 0;
        (void)!::read(gate[0], &none, 1);  // until all are there
        _exit(open(fresh).ok() ? 0 : 1);
      }
      children.push_back(child);
    }
    ::close(gate[0]);
    ::close(gate[1]);
    for (const pid_t child : children) {
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      EXPECT_EQ(status, 0) << "round " << round;
    }
  }
}

TEST_F(SqliteDatabaseOpen, OfAFileThatWasClosedInOrderThereIsNothingToSay) {
  EXPECT_EQ(open(settings()).value(), Findings{settings().path + " can be read or written by other users; "
                                                                 "`chmod 600` it"})
      << "whoever opens it through the provider has made it for himself alone";
  ASSERT_EQ(::chmod(settings().path.c_str(), 0600), 0);
  EXPECT_EQ(open(settings()).value(), Findings{});
}

TEST_F(SqliteDatabaseOpen, AfterACrashTheFileIsLookedOverOnceAndNothingIsLost) {
  crash();
  struct stat log {};
  ASSERT_EQ(::stat((settings().path + "-wal").c_str(), &log), 0);
  ASSERT_GT(log.st_size, 0);
  const Findings found = open(settings()).value();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_NE(found[0].find("was not closed in order; it was looked over and is whole"), std::string::npos);
  EXPECT_EQ(open(settings()).value(), Findings{}) << "then it was closed in order";
  Connection look;
  ASSERT_TRUE(look.open(settings().path, SQLITE_OPEN_READWRITE, nullptr));
  EXPECT_EQ(select_integer(look, "SELECT sum(coalesce(count, 1)) FROM message"), 50);
}

TEST_F(SqliteDatabaseOpen, ADamagedFileIsRefusedAfterACrashAndNamesTheWayOut) {
  crash();
  ASSERT_TRUE(open(settings()).ok()) << "now it is all in the file";
  crash();
  {
    std::fstream file(settings().path, std::ios::in | std::ios::out | std::ios::binary);
    for (int page = 1; page < 8; ++page) {
      file.seekp(page * 8'192);
      file << std::string(512, static_cast<char>(0xee));
    }
  }
  // What the log has of these pages is right, so it must not be there.
  std::ofstream(settings().path + "-wal", std::ios::binary | std::ios::trunc) << std::string(1'000, 'x');
  const auto refused = open(settings());
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kCorruptStore) << refused.error().to_string();
}

TEST_F(SqliteDatabaseOpen, WhatMayBeLostIsSaid) {
  Settings quick = settings();
  quick.synchronous_full = false;
  quick.disk_reserve_bytes = std::uint64_t{1} << 60;
  const Findings found = open(quick).value();
  const auto said = [&](const std::string& part) {
    return std::any_of(found.begin(), found.end(), [&](const std::string& line) {
      return line.find(part) != std::string::npos && line.find(quick.path) == 0;
    });
  };
  EXPECT_TRUE(said("synchronous=normal: a power loss may take the last acknowledged messages"));
  EXPECT_TRUE(said("the disk has no room for disk_reserve_bytes=1152921504606846976"));
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
