#pragma once
// memory: messages and records in this process, for tests and as the executable specification of what a
// provider does.
//
// Nothing survives the process. README.md lists the capabilities, the parameters and the quirks.

#include <towline/spi/driver.hpp>

namespace towline::drivers {

/// `location` "" is private to the caller; any other name is shared by everybody in this process who opens
/// it, for as long as one of them keeps what was returned. Parameters: `bytes_max` (default 1 GiB), how much
/// a location may keep; publishing and scheduling beyond it answer kOverloaded, settling never does. Errors:
/// kInvalidConfig.
Result<spi::Provider> open_memory(const spi::DriverOptions& options);

}  // namespace towline::drivers
