// The process that the fault experiments start, kill, stop and start again; see child.hpp for its arguments.
// Modes: work, publish, mixed, script, redrive, full_disk, stuck, slow, append, follow, relay, sagas,
// write_sql, engine.

#include <cstdio>
#include <exception>
#include <string_view>

#include <signal.h>
#include <sys/resource.h>

#include "faults/child.hpp"
#include "faults/syscalls.hpp"
#include "support/child_process.hpp"

namespace towline::faults {
namespace {

struct Mode {
  std::string_view name;
  int (*run)(const Orders&);
};
constexpr Mode kModes[] = {
    {"work", run_worker},           {"publish", run_publisher},  {"script", run_script},
    {"mixed", run_mixed_publisher}, {"redrive", run_redrive},    {"full_disk", run_full_disk},
    {"stuck", run_stuck},           {"slow", run_slow_consumer}, {"append", run_appender},
    {"follow", run_follower},       {"relay", run_relay},        {"sagas", run_sagas},
    {"write_sql", run_sql_writer},  {"engine", run_engine},
    {"talk", run_talker},           {"serve", run_service},      {"client", run_client},
    {"race", run_racers},           {"book", run_booker}};

Orders orders_of(int argc, char** argv) {
  Orders orders{argv[1], argv[2], argv[3], argv[4], {}};
  for (int i = 5; i < argc; ++i) {
    const std::string word = argv[i];
    const std::size_t at = word.find('=');
    orders.options[word.substr(0, at)] = at == std::string::npos ? "1" : word.substr(at + 1);
  }
  return orders;
}

int run(const Orders& orders) {
  if (orders.options.contains("plan")) set_plan(parse_plan(orders.text("plan", "")));
  for (const Mode& mode : kModes) {
    if (mode.name == orders.mode) return mode.run(orders);
  }
  return 2;
}

}  // namespace

void say(const std::string& line) {
  std::puts(line.c_str());
  std::fflush(stdout);
}

void wait_for_term() {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  int signal = 0;
  ::sigwait(&stop, &signal);
}

}  // namespace towline::faults

int main(int argc, char** argv) {
  using namespace towline::faults;
  towline::support::die_with_parent();
  if (argc < 5) return 2;
  // Processes that are meant to die leave no memory images behind.
  const rlimit none{0, 0};
  (void)::setrlimit(RLIMIT_CORE, &none);
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  const Orders orders = orders_of(argc, argv);
  try {
    return run(orders);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "fault_child %s %s: %s\n", argv[1], argv[4], error.what());
    return 3;
  }
}
