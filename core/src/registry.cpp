// Engine::open: the only place where drivers and engine meet. A new provider is a row in the table below.

#include <random>
#include <string>

#include <towline/engine.hpp>
#include <towline/spi/driver.hpp>

#include "base/option_checks.hpp"
#include "base/text.hpp"
#include "base/validate.hpp"
#include "codec/url.hpp"
#include "drivers/memory/memory.hpp"
#include "drivers/sqlite/sqlite.hpp"
#include "engine/core.hpp"

namespace towline {
namespace {

using OpenDriver = Result<spi::Provider> (*)(const spi::DriverOptions&);

struct DriverRow {
  std::string_view scheme;
  OpenDriver open;
};

constexpr DriverRow kDrivers[] = {
    {"memory", drivers::open_memory},
    {"sqlite", drivers::open_sqlite},
};

const DriverRow* find_driver(std::string_view scheme) {
  for (const DriverRow& row : kDrivers) {
    if (row.scheme == scheme) return &row;
  }
  return nullptr;
}

std::uint64_t seed_of(const EngineOptions& options) {
  if (options.seed != 0) return static_cast<std::uint64_t>(options.seed);
  std::random_device device;
  return (static_cast<std::uint64_t>(device()) << 32) ^ device();
}

/// The driver refuses a parameter that it does not know; perhaps an engine option was meant.
Error explained(Error error, const spi::DriverOptions& request) {
  if (error.code != ErrorCode::kInvalidConfig ||
      error.message.find("does not know the parameter") == std::string::npos)
    return error;
  for (const auto& [name, value] : request.parameters) {
    if (error.message.find(name) == std::string::npos) continue;
    const Result<void> unknown = base::unknown_option("Engine", name);
    return {error.code, error.message + " (as an engine option: " + unknown.error().message + ")"};
  }
  return error;
}

/// Durability is a promise about the whole store, so it is checked against what the driver says it can keep.
Result<void> check_durability(Durability wanted, const spi::Capabilities& capabilities,
                              std::string_view scheme) {
  if (wanted == Durability::kProcess && !capabilities.durable) {
    return Error{ErrorCode::kDurabilityUnavailable,
                 std::string(scheme) +
                     ": keeps messages in memory only and cannot give durability=process; use sqlite:"};
  }
  if (wanted == Durability::kHost && !capabilities.survives_power_loss) {
    return Error{ErrorCode::kDurabilityUnavailable,
                 std::string(scheme) +
                     ": does not sync before it acknowledges and cannot give durability=host; use "
                     "sqlite: with synchronous=full"};
  }
  return {};
}

}  // namespace

Result<Engine> Engine::open(std::string_view text, EngineOptions options) {
  auto url = codec::parse_url(text);
  if (!url) return std::move(url).error();
  const DriverRow* driver = find_driver(url->scheme);
  if (driver == nullptr) {
    return Error{ErrorCode::kInvalidUrl, "the provider '" + base::escape(url->scheme, 32) +
                                             "' is not part of this build; memory: and sqlite: are"};
  }
  spi::DriverOptions request;
  request.location = url->location;
  for (auto& [name, value] : url->parameters) {
    if (base::is_option("Engine", name)) {
      if (auto bad = set_option(options, name, value); !bad) return std::move(bad).error();
    } else {
      request.parameters.emplace_back(name, value);
    }
  }
  if (auto bad = validate(options); !bad) return std::move(bad).error();
  if (options.clock == nullptr) options.clock = system_clock();
  const std::uint64_t seed = seed_of(options);
  request.clock = options.clock;
  request.seed = seed;
  if (options.log) {
    request.log = [log = options.log](std::string_view line) {
      log(LogRecord{LogLevel::kWarning, "driver", line});
    };
  }
  if (!options.name.empty()) {
    if (auto bad = base::check_name(options.name, "engine.name"); !bad) return std::move(bad).error();
  }
  if (!options.conversations.fanout_topic.empty()) {
    if (auto bad = base::check_topic(options.conversations.fanout_topic, "conversations.fanout_topic"); !bad)
      return std::move(bad).error();
  }
  auto provider = driver->open(request);
  if (!provider) return explained(std::move(provider).error(), request);
  if (auto bad = check_durability(options.durability, provider->transport->capabilities(), url->scheme);
      !bad) {
    return std::move(bad).error();
  }
  auto clock = options.clock;
  auto core = engine::Core::create(std::move(options), std::move(*provider), std::move(clock), seed, true);
  // Whoever drops the last handle closes the engine, also from inside a handler.
  engine::Core* raw = core.get();
  return Engine(std::shared_ptr<engine::Core>(raw, [core = std::move(core)](engine::Core*) mutable {
    auto closed = core->close(std::nullopt);
    // In the child of a fork() it can neither be closed nor destroyed: its threads and its files are the
    // parent's. So the child leaves the memory as it is.
    if (!closed && closed.error().code == ErrorCode::kForked) (void)new std::shared_ptr(std::move(core));
    core.reset();
  }));
}

}  // namespace towline
