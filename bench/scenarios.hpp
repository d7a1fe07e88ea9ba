#pragma once
// The scenarios, each in the file named after what it measures, and the roles that a child process of a
// scenario can play.

#include <set>
#include <string>
#include <vector>

#include "harness.hpp"

namespace towline::bench {

// life.cpp
void life_on_sqlite(Bench& bench);
void life_in_memory(Bench& bench);
void flat_cost(Bench& bench);
void log_topics(Bench& bench);
/// The engine's side of a life cycle alone, for a profiler.
int run_flow_alone(const std::string& url, const std::string& handling, std::size_t count);
// singles.cpp
void durable_singles(Bench& bench);
void dedup_keys(Bench& bench);
/// The engine's side of durable singles alone, for a profiler.
int run_singles_alone(const std::string& url, int thread_count, double seconds);
// wake.cpp
void wake_up(Bench& bench);
/// Children: tell "ready", read `count` messages, and tell the latencies in microseconds.
int run_wake_consumer(const std::string& url, std::size_t count);
int run_wake_poller(const std::string& file, std::size_t count);
// delayed.cpp: several scenarios that share one large file; `parts` has the ids that were asked for
void delayed(Bench& bench, const std::set<std::string>& parts);
// cancel.cpp
void cancelling(Bench& bench);
/// The engine's side alone, for a profiler.
int run_cancel_alone(const std::string& url, std::size_t count, bool shuffled);
// wheel.cpp
void timing_wheel(Bench& bench);
// dead_letters.cpp
void dead_letters(Bench& bench);
// languages.cpp
void node_on_sqlite(Bench& bench);
void python_to_node(Bench& bench);
void node_in_memory(Bench& bench);
// python.cpp
void python_on_sqlite(Bench& bench);
void python_per_message(Bench& bench);
void python_singles(Bench& bench);
void python_in_memory(Bench& bench);
// blocked.cpp
void blocked_workers(Bench& bench);
// events.cpp
void event_store(Bench& bench);
// sagas.cpp
void sagas(Bench& bench);
void conversations(Bench& bench);
// idle.cpp
void idle_engine(Bench& bench);

/// What run_observed() is told by its parent.
struct Observation {
  std::string url;
  std::string topic;
  std::int64_t wall_start_us = 0;  ///< what the engine's clock says at the start; 0: the true time
  double seconds = 0;              ///< how long the processor time is watched
};
/// A child: opens an engine with one consumer, rests for a moment, tells its resident memory; watches itself
/// for a while, and tells "resident MB, processor time as a share of one core, messages handled".
int run_observed(const Observation& observation);
struct Observed {
  double resident_mb = 0;
  double resident_later_mb = 0;
  double cpu_ratio = 0;
  double handled = 0;
};
[[nodiscard]] Observed observe(const Observation& observation);

}  // namespace towline::bench
