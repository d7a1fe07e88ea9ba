// Opening: parameters, what the path names, and the one table of the process that says which files are open.

#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "drivers/sqlite/provider.hpp"
#include "drivers/sqlite/sqlite.hpp"

namespace towline::drivers {

using sqlite::Database;
using sqlite::Handle;
using sqlite::Settings;

Result<spi::Provider> open_sqlite(const spi::DriverOptions& options) {
  if (options.clock == nullptr) return Error{ErrorCode::kInvalidArgument, "DriverOptions::clock is null"};
  Settings settings;
  settings.path = options.location;
  settings.threads = options.threads;
  settings.batch_count_max = options.batch_count_max;
  settings.batch_bytes_max = options.batch_bytes_max;
  settings.log = options.log;
  for (const auto& [name, value] : options.parameters) {
    if (name == "synchronous") settings.synchronous_full = value != "normal";
  }
  auto database = std::make_shared<Database>(settings);
  if (auto opened = database->open({options.clock->now(), options.clock->monotonic()}); !opened) {
    return std::move(opened).error();
  }
  const Handle handle{database, options.clock, options.threads};
  spi::Provider provider;
  provider.store = std::make_shared<sqlite::SqliteStore>(handle);
  provider.transport = std::make_shared<sqlite::SqliteTransport>(handle);
  return provider;
}

}  // namespace towline::drivers
