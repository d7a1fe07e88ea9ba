#pragma once
// A World over a file in a folder of its own, and such a file without anything around it.

#include "drivers/sqlite/schema.hpp"
#include "drivers/sqlite/trim.hpp"
#include "drivers/sqlite/tx.hpp"
#include "unit/drivers/world.hpp"

namespace towline::drivers::sqlite::testing {

using namespace drivers::testing;

class World : public drivers::testing::World {
 public:
  explicit World(bool threads = false, Parameters parameters = {})
      : threads_(threads), parameters_(std::move(parameters)) {
    open();
  }
  ~World() { shut(); }  // before its folder
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  /// Another process's view of the same file would be the same here: engines of one process share it.
  void open() { provider = open_sqlite(options()).value(); }
  /// Everything goes as in a process that ends without closing anything.
  void shut() { provider = {}; }

  [[nodiscard]] spi::DriverOptions options() const {
    return drivers::testing::World::options(file(), threads_, parameters_);
  }
  [[nodiscard]] std::string file() const { return folder.file("store.db"); }

  support::TempDir folder;

 private:
  const bool threads_;
  const Parameters parameters_;
};

/// A new file without a database around it, for parts that work inside a transaction.
class Bare : public ::testing::Test {
 protected:
  Bare() {
    EXPECT_TRUE(sql.open(folder.file("bare.db"), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr));
    EXPECT_TRUE(migrate(sql, migrations(), 0));
  }
  /// Runs `f(Tx&)` in a transaction of its own.
  template <typename F>
  void write(F f) {
    Tx tx{sql, catalog, {clock.now(), clock.monotonic()}};
    ASSERT_TRUE(sql.run("BEGIN"));
    f(tx);
    flush_logs(tx);
    ASSERT_TRUE(sql.run("COMMIT"));
  }
  /// What a process knows that opens the file now: nothing.
  void forget() { catalog = {}; }
  [[nodiscard]] std::int64_t count(const char* query) { return select_integer(sql, query).value_or(-1); }

  support::TempDir folder;
  Connection sql;
  Catalog catalog;
  VirtualClock clock;
};

}  // namespace towline::drivers::sqlite::testing
