#pragma once
// A store with a plain connection of somebody who knows nothing of the driver.

#include <string>
#include <utility>
#include <vector>

#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {

using Entries = std::vector<spi::OutboxEntry>;

/// A plain connection of somebody who knows nothing of the driver.
class Plain {
 public:
  explicit Plain(const std::string& path) {
    EXPECT_EQ(sqlite3_open(path.c_str(), &raw_), SQLITE_OK);
    sqlite3_busy_timeout(raw_, 30'000);
  }
  ~Plain() { sqlite3_close(raw_); }
  Plain(const Plain&) = delete;
  Plain& operator=(const Plain&) = delete;
  /// What SQLite says, "" when all is well.
  std::string run(const std::string& sql) {
    char* text = nullptr;
    sqlite3_exec(raw_, sql.c_str(), nullptr, nullptr, &text);
    const std::string said = text == nullptr ? "" : text;
    sqlite3_free(text);
    return said;
  }
  [[nodiscard]] int code() const { return sqlite3_extended_errcode(raw_); }

 private:
  sqlite3* raw_ = nullptr;
};

struct Contract : ::testing::Test {
  Entries read(std::size_t count_max = 100) {
    return world.store().read_outbox(count_max, MonotonicTime::min(), {}).value();
  }
  Result<void> commit(std::vector<spi::Write> writes) {
    const spi::Unit unit{std::move(writes)};
    auto done = world.store().commit({&unit, 1});
    if (!done) return std::move(done).error();
    return done->empty() ? Result<void>{} : done->front();
  }
  World world;
  Plain plain{world.file()};
};

inline constexpr const char* kId = "01890a5d-ac96-774b-bcce-b302099a8057";

}  // namespace towline::drivers::sqlite::testing
