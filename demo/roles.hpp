#pragma once
// The two kinds of child process. Each runs to its end and returns the exit status of the process: 0 done, 1
// not.

#include "common.hpp"

#include <cstdint>
#include <string>

namespace towline::demo {

struct PublisherOptions {
  Place place;
  std::string name;         ///< of this life, e.g. "publisher-0.2"
  std::uint32_t index = 0;  ///< whose share of the plan
  double rate_per_second = 0;
};

/// Publishes its share of the plan that its own ledgers do not show as acknowledged, then ends.
int run_publisher(const PublisherOptions& options);

struct WorkerOptions {
  Place place;
  std::string name;  ///< of this life, e.g. "worker-2.1"
  std::int64_t concurrency = 0;
  std::int64_t work_ms = 0;  ///< how long a handler works, about
  std::uint64_t seed = 0;
};

/// Handles orders until SIGTERM, then drains and ends.
int run_worker(const WorkerOptions& options);

}  // namespace towline::demo
