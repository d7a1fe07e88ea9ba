#pragma once
// What every process of the demo agrees on: names, times, the retry policy, and how an engine is opened.
//
// They share nothing but files. Whatever two of them must agree on is written here once, and workers, which
// are written in several languages, are told it on their command line.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include <towline/towline.hpp>

namespace towline::demo {

inline constexpr std::string_view kTopic = "orders";
inline constexpr std::string_view kGroup = "billing";
/// How each message says which order it is and how often its handler must fail.
inline constexpr std::string_view kNumberHeader = "order-number";
inline constexpr std::string_view kFailuresHeader = "planned-failures";
/// What its saga begins with. An order without it has no saga.
inline constexpr std::string_view kSagaHeader = "saga-context";

/// How long a killed process keeps what it held. Short, so that the demo shows recovery within its half
/// minute.
inline constexpr auto kLease = std::chrono::milliseconds(2000);
inline constexpr std::uint32_t kAttemptsMax = 5;
inline constexpr auto kRetryFirst = std::chrono::milliseconds(100);
inline constexpr auto kRetryMax = std::chrono::milliseconds(1000);

/// Wall-clock time in microseconds since 1970: the only clock that processes of one machine share and people
/// can read.
[[nodiscard]] inline std::int64_t wall_us() {
  using namespace std::chrono;
  return duration_cast<microseconds>(system_clock::now().time_since_epoch()).count();
}

/// FNV-1a, 64 bit: tells whether a payload arrived as it was sent. As int64 because that is what SQLite
/// stores.
[[nodiscard]] inline std::int64_t hash_of(std::string_view bytes) {
  std::uint64_t hash = 14695981039346656037ULL;
  for (const char c : bytes) {
    hash ^= static_cast<std::uint8_t>(c);
    hash *= 1099511628211ULL;
  }
  return static_cast<std::int64_t>(hash);
}

/// Where one run keeps its files.
struct Place {
  std::string database;  ///< the SQLite file that all processes share
  std::string folder;    ///< plan, ledgers and logs

  [[nodiscard]] std::string plan() const { return folder + "/plan.jsonl"; }
  [[nodiscard]] std::string ledgers() const { return folder + "/ledgers"; }
  [[nodiscard]] std::string ledger_of(std::string_view name) const {
    return ledgers() + "/" + std::string(name) + ".jsonl";
  }
  /// What the steps of sagas change.
  [[nodiscard]] std::string world() const { return folder + "/world"; }
  [[nodiscard]] std::string url() const { return "sqlite:" + database; }
  [[nodiscard]] std::string log_of(std::string_view name) const {
    return folder + "/" + std::string(name) + ".log";
  }
};

/// Opens the shared file; warnings and errors of the engine go to standard error, which is a log file in the
/// children.
[[nodiscard]] inline Result<Engine> open_engine(const std::string& url, std::string_view name,
                                                std::chrono::milliseconds lease = kLease) {
  EngineOptions options;
  options.name = std::string(name);
  options.lease = lease;
  options.log = [](const LogRecord& record) {
    if (record.level < LogLevel::kWarning) return;
    std::fprintf(stderr, "%.*s: %.*s\n", static_cast<int>(record.station.size()), record.station.data(),
                 static_cast<int>(record.text.size()), record.text.data());
  };
  return Engine::open(url, std::move(options));
}

}  // namespace towline::demo
