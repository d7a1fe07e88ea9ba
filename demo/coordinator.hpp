#pragma once
// The coordinator: lays out a run, starts the processes, kills some of them on the way, and reads the verdict
// at the end.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace towline::demo {

struct CoordinatorOptions {
  std::string input;      ///< orders to publish as they are; empty: the sample, repeated
  std::string sample;     ///< path of the sample
  std::size_t count = 0;  ///< 0: 10,000 of the sample, or all of the input
  std::uint64_t seed = 7;
  std::string database;  ///< empty: a file in a fresh temporary folder
  bool keep = false;
  std::uint32_t publishers = 2;
  std::uint32_t workers = 3;
  std::vector<std::string> languages;  ///< of the workers, in turn; empty: all that this build has
  std::int64_t concurrency = 16;       ///< handlers at once per worker
  std::int64_t work_ms = 10;
  std::uint32_t worker_kills = 4;
  std::uint32_t publisher_kills = 1;
  double rate_per_second = 0;  ///< orders published per second in all; 0: chosen from the count
  double deadline_s = 0;       ///< 0: chosen from the plan
};

inline constexpr int kExitPass = 0;
inline constexpr int kExitBreach = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitInterrupted = 130;

/// Returns the exit status of the program.
int run_coordinator(const CoordinatorOptions& options);

}  // namespace towline::demo
