#pragma once
// The embedded provider: a store and a transport in one SQLite file. README.md says what the URL may hold.

#include <towline/spi/driver.hpp>

namespace towline::drivers {

/// Opens the file that DriverOptions::location names, making it when it does not exist. Engines of one
/// process that name the same file share it.
[[nodiscard]] Result<spi::Provider> open_sqlite(const spi::DriverOptions& options);

}  // namespace towline::drivers
