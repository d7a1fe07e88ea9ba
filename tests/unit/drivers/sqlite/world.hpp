#pragma once
// A World over a file in a folder of its own.

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

}  // namespace towline::drivers::sqlite::testing
