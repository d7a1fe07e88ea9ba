// The command line of the benchmarks: which scenarios there are, and which are run. With --role it is a child
// of a scenario instead.

#include <algorithm>
#include <exception>
#include <functional>
#include <set>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "scenarios.hpp"

namespace {

using namespace towline::bench;

struct Row {
  const char* id;
  const char* title;
  std::function<void(Bench&, const std::set<std::string>&)> run;
};

template <void (*F)(Bench&)>
void plain(Bench& bench, const std::set<std::string>&) {
  F(bench);
}

// Rows that share a function and follow each other are run in one go.
const std::vector<Row>& table() {
  static const std::vector<Row> rows = {
      {"P01", "life cycle on SQLite: publish, hand out, handle, acknowledge", plain<life_on_sqlite>},
      {"P02", "life cycle on SQLite in Python, batch handlers, beside its peers", plain<python_on_sqlite>},
      {"P03", "life cycle on SQLite in Python, one call or one task per message", plain<python_per_message>},
      {"P04", "blocking durable publishes in Python, one after the other", plain<python_singles>},
      {"P05", "durable publishes, one message a call, from many threads", plain<durable_singles>},
      {"P06", "life cycle on SQLite in Node, beside the engine alone and its peers", plain<node_on_sqlite>},
      {"P07", "published in Python and handled in Node, over one file", plain<python_to_node>},
      {"P08", "from publish to the handler in another process that was idle", plain<wake_up>},
      {"P09", "delayed messages: lateness at 1,000 due a second with a million pending", delayed},
      {"P10", "delayed messages: lateness at 16,000 due a second, and what is overdue at once", delayed},
      {"P11", "delayed messages: memory and disk with a million pending", delayed},
      {"CANCEL", "cancelling delayed messages while a million wait", plain<cancelling>},
      {"P12", "timers that are cancelled: the wheel beside an ordered set", plain<timing_wheel>},
      {"P13", "publishing with random dedup ids while a million are live", plain<dedup_keys>},
      {"P14", "log topics beside queue topics", plain<log_topics>},
      {"P70", "life cycle in memory in Node", plain<node_in_memory>},
      {"P70-PY", "life cycle in memory in Python", plain<python_in_memory>},
      {"P71", "life cycle in memory", plain<life_in_memory>},
      {"FLAT", "cost per message while a thousand, a hundred thousand or a million wait", plain<flat_cost>},
      {"BLOCKED", "a blocked event loop, a held GIL: what the other language's workers on the file notice",
       plain<blocked_workers>},
      {"IDLE", "memory and processor time of an engine that does nothing", plain<idle_engine>},
      {"EVENT", "the event store: appends, and a reader that catches up", plain<event_store>},
      {"SAGA", "sagas of five steps", plain<sagas>},
      {"TALK", "messages of conversations", plain<conversations>},
      {"DEAD", "a hundred thousand dead letters: pages and redrive", plain<dead_letters>},
  };
  return rows;
}

bool is_delayed(const std::string& id) { return id == "P09" || id == "P10" || id == "P11"; }

int run_all(const Settings& settings, const std::set<std::string>& ids) {
  Bench bench(settings);
  if (!bench.may_start()) return 3;
  bool delayed_done = false;
  for (const Row& row : table()) {
    if (ids.count(row.id) == 0 || (is_delayed(row.id) && delayed_done)) continue;
    std::string title = row.title;
    std::string id = row.id;
    if (is_delayed(id)) {
      delayed_done = true;
      id = "P09-P11";
      title = "delayed messages, a million pending: lateness, memory, disk, schedule";
    }
    try {
      bench.begin(id, title);
      row.run(bench, ids);
      bench.end();
    } catch (const std::exception& error) {
      bench.fail(id, error.what());
    }
  }
  return bench.finish();
}

struct Role {
  std::string name, file, handling;
  Observation observation;
  std::size_t count = 200'000;
  int thread_count = 32;
};

int play(const Role& role) {
  try {
    const std::string& url = role.observation.url;
    if (role.name == "wake-consumer") return run_wake_consumer(url, role.count);
    if (role.name == "wake-poller") return run_wake_poller(role.file, role.count);
    if (role.name == "observed") return run_observed(role.observation);
    if (role.name == "flow") return run_flow_alone(url, role.handling, role.count);
    if (role.name == "singles") return run_singles_alone(url, role.thread_count, role.observation.seconds);
    if (role.name == "cancel") return run_cancel_alone(url, role.count, role.handling == "shuffled");
    fmt::print(stderr, "bench: there is no role {}\n", role.name);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench: {}: {}\n", role.name, error.what());
  }
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Measures the engine beside the limits it is held to; docs/BENCHMARKS.md says how to read it.");
  Settings settings;
  std::vector<std::string> wanted;
  Role role;
  bool list = false;
  app.add_option("scenario", wanted, "Which scenarios, by id (default: all)");
  app.add_flag("--list", list, "Print the scenarios and do nothing");
  app.add_flag("--quick", settings.quick, "One small round of everything: shows that it runs");
  app.add_flag("--busy-ok", settings.busy_ok, "Start although the machine is busy");
  app.add_flag("--strict", settings.strict, "Exit with 2 when a bar is not met");
  app.add_flag("--keep", settings.keep, "Keep the stores that were written");
  app.add_option("--rounds", settings.round_count, "Rounds; the medians are of this many")
      ->check(CLI::Range(5, 100))
      ->capture_default_str();
  app.add_option("--wait-quiet", settings.wait_quiet_s,
                 "Seconds to wait for a quiet machine at the start and before each measurement")
      ->check(CLI::Range(0.0, 3600.0));
  app.add_option("--samples", settings.samples, "Where every sample is appended, as JSON Lines")
      ->capture_default_str();
  app.add_option("--folder", settings.folder, "Where the stores are written; on the disk that is meant")
      ->capture_default_str();
  const char* const inner = "Roles: what the program starts itself as; flow, singles, cancel: for a profiler";
  app.add_option("--role", role.name, "flow, singles, cancel, observed, wake-consumer, wake-poller")
      ->group(inner);
  app.add_option("--url", role.observation.url, "The store")->group(inner);
  app.add_option("--handling", role.handling, "flow: batch, each, dedup or log; cancel: shuffled")
      ->group(inner);
  app.add_option("--count", role.count, "flow, cancel: how many messages")->group(inner);
  app.add_option("--threads", role.thread_count, "singles: how many threads")->group(inner);
  app.add_option("--seconds", role.observation.seconds, "singles, observed: how long")->group(inner);
  app.add_option("--topic", role.observation.topic, "observed: the topic")->group(inner);
  app.add_option("--file", role.file, "wake-poller: the file")->group(inner);
  app.add_option("--wall-start-us", role.observation.wall_start_us, "observed: the engine's time")
      ->group(inner);
  CLI11_PARSE(app, argc, argv);
  if (!role.name.empty()) return play(role);
  std::set<std::string> ids;
  for (const Row& row : table()) {
    if (list) fmt::print("{:5} {}\n", row.id, row.title);
    if (wanted.empty()) ids.insert(row.id);
  }
  if (list) return 0;
  for (const std::string& id : wanted) {
    const bool known =
        std::any_of(table().begin(), table().end(), [&](const Row& row) { return id == row.id; });
    if (!known) {
      fmt::print(stderr, "bench: there is no scenario {}; --list prints them\n", id);
      return 2;
    }
    ids.insert(id);
  }
  try {
    return run_all(settings, ids);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench: {}\n", error.what());
    return 1;
  }
}
