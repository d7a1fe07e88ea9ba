#pragma once
// How a driver is opened. One function per driver, called by registry.cpp alone:
//   Result<spi::Provider> open_memory(const DriverOptions&);   (core/src/drivers/memory/memory.hpp)
//   Result<spi::Provider> open_sqlite(const DriverOptions&);   (core/src/drivers/sqlite/sqlite.hpp)

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <towline/spi/clock.hpp>
#include <towline/spi/store.hpp>
#include <towline/spi/transport.hpp>

namespace towline::spi {

struct DriverOptions {
  /// What follows the scheme: a path for sqlite, a name for memory ("" is private to this engine; engines of
  /// one process that name the same one share it).
  std::string location;
  /// Parameters of the URL, decoded. A driver refuses those it does not know, naming the nearest one.
  std::vector<std::pair<std::string, std::string>> parameters;
  std::shared_ptr<Clock> clock;
  /// Seeds the driver's own generator (lease tokens need none; back-off between writers does).
  std::uint64_t seed = 0;
  /// False in the simulator: the driver starts no thread and never waits.
  bool threads = true;
  /// Rows of one batch; also how many units share one transaction at most.
  std::size_t batch_count_max = 1000;
  std::size_t batch_bytes_max = 1 << 20;
  /// Findings and incidents, one line each, without secrets. May be called from any driver thread; may be
  /// empty.
  std::function<void(std::string_view line)> log;
};

}  // namespace towline::spi
