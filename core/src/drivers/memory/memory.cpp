// Opening: parameters, and the one table of the process that says which hub a location names.

#include "drivers/memory/memory.hpp"

#include <charconv>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "drivers/memory/provider.hpp"

namespace towline::drivers {
namespace {

using memory::Hub;

constexpr std::uint64_t kBytesMaxDefault = 1ULL << 30;
constexpr std::uint64_t kBytesMaxLeast = 64ULL << 10;

/// The hubs of named locations. Does not keep them alive.
struct Locations {
  std::mutex mutex;
  std::map<std::string, std::weak_ptr<Hub>> hubs;
};

Locations& locations() {
  static Locations* all = new Locations;  // never destroyed: engines may be closed by destructors of statics
  return *all;
}

Result<std::optional<std::uint64_t>> parse_bytes_max(const spi::DriverOptions& options) {
  std::optional<std::uint64_t> bytes_max;
  for (const auto& [name, value] : options.parameters) {
    if (name != "bytes_max") {
      return Error{ErrorCode::kInvalidConfig,
                   "memory: does not know the parameter \"" + name + "\"; the only one it has is bytes_max"};
    }
    std::uint64_t parsed = 0;
    const auto [end, failed] = std::from_chars(value.data(), value.data() + value.size(), parsed);
    if (failed != std::errc() || end != value.data() + value.size() || parsed < kBytesMaxLeast) {
      return Error{ErrorCode::kInvalidConfig, "bytes_max is \"" + value +
                                                  "\"; it must be a number of bytes of at least " +
                                                  std::to_string(kBytesMaxLeast)};
    }
    bytes_max = parsed;
  }
  return bytes_max;
}

Result<std::shared_ptr<Hub>> find_hub(const std::string& location, std::optional<std::uint64_t> bytes_max) {
  if (location.empty()) return std::make_shared<Hub>(bytes_max.value_or(kBytesMaxDefault));
  const std::lock_guard lock(locations().mutex);
  std::erase_if(locations().hubs, [](const auto& entry) { return entry.second.expired(); });
  std::weak_ptr<Hub>& known = locations().hubs[location];
  if (auto hub = known.lock()) {
    const std::lock_guard hub_lock(hub->mutex);
    if (!bytes_max || *bytes_max == hub->meter.max) return hub;
    return Error{ErrorCode::kInvalidConfig, "memory:" + location +
                                                " is open with bytes_max=" + std::to_string(hub->meter.max) +
                                                "; open it with the same, or with none"};
  }
  auto hub = std::make_shared<Hub>(bytes_max.value_or(kBytesMaxDefault));
  known = hub;
  return hub;
}

}  // namespace

Result<spi::Provider> open_memory(const spi::DriverOptions& options) {
  if (options.clock == nullptr) return Error{ErrorCode::kInvalidArgument, "DriverOptions::clock is null"};
  auto bytes_max = parse_bytes_max(options);
  if (!bytes_max) return std::move(bytes_max).error();
  auto hub = find_hub(options.location, *bytes_max);
  if (!hub) return std::move(hub).error();
  const memory::Handle handle{*hub, options.clock, options.threads};
  spi::Provider provider;
  provider.store = std::make_shared<memory::MemoryStore>(handle);
  provider.transport = std::make_shared<memory::MemoryTransport>(handle);
  return provider;
}

}  // namespace towline::drivers
