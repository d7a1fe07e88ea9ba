#pragma once
// The two kinds of child process that this executable can be; workers in other languages take the same
// options as this one (README.md). Each runs to its end and returns the exit status of the process: 0 done, 1
// not.

#include <cstdint>
#include <string>

#include "common.hpp"

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
  std::string store;   ///< URL
  std::string ledger;  ///< the file to make and to write
  std::string world;   ///< the folder that the steps of sagas change
  std::string name;    ///< of this life, e.g. "cpp-2.1"
  std::string topic;
  std::string group;
  std::int64_t lease_ms = 0;
  std::int64_t concurrency = 0;
  std::uint32_t attempts = 0;  ///< handlings of an order in all, then it becomes a dead letter
  std::int64_t retry_ms = 0;   ///< the first wait; each further one is twice as long
  std::int64_t retry_max_ms = 0;
  std::int64_t work_ms = 0;  ///< how long a handler works, about
  std::uint64_t seed = 0;
};

/// Half to one and a half of `work_ms`, from the seed: what a call to a payment service would take.
void pretend_to_work(const WorkerOptions& options, std::uint32_t number, std::uint32_t attempt);

/// Handles orders, and runs the steps of their sagas, until SIGTERM, then drains and ends.
int run_worker(const WorkerOptions& options);

}  // namespace towline::demo
