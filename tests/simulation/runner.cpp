// See runner.hpp. A crash of the simulator itself (a signal) prints the seed on its way down.

#include "simulation/runner.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

namespace towline::simulation {
namespace {

char g_running[160];

void on_signal(int signal) {
  // Only what is safe inside a signal handler.
  const ssize_t written = ::write(STDERR_FILENO, g_running, std::strlen(g_running));
  (void)written;
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

const char* name_of(WorldKind world) {
  switch (world) {
    case WorldKind::kMemory:
      return "memory";
    case WorldKind::kSqlite:
      return "sqlite";
    case WorldKind::kSplit:
      return "split";
  }
  return "?";
}

bool parse_world(std::string_view text, WorldKind& world) {
  for (const WorldKind kind : {WorldKind::kMemory, WorldKind::kSqlite, WorldKind::kSplit}) {
    if (text != name_of(kind)) continue;
    world = kind;
    return true;
  }
  return false;
}

bool parse_faults(std::string_view text, std::uint32_t& mask) {
  while (!text.empty()) {
    const std::string_view one = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), one.size() + 1));
    bool known = false;
    for (std::size_t i = 0; i < kFaultCount; ++i) {
      if (one != simulation::name_of(static_cast<Fault>(i))) continue;
      mask |= 1u << i;
      known = true;
    }
    if (!known) return false;
  }
  return true;
}

/// Trivially copyable: a child process writes it into a pipe.
struct Totals {
  Figures figures;
  std::uint64_t seeds = 0;
  std::uint64_t failed = 0;
  int worst = 0;

  void add(const Totals& other) {
    add(other.figures);
    seeds += other.seeds - 1;
    failed += other.failed;
    worst = std::max(worst, other.worst);
  }

  void add(const Figures& f) {
    ++seeds;
    figures.actions += f.actions;
    figures.published += f.published;
    figures.hand_outs += f.hand_outs;
    figures.starts += f.starts;
    figures.crashes += f.crashes;
    figures.dead_letters += f.dead_letters;
    figures.redrives += f.redrives;
    figures.sagas += f.sagas;
    figures.deeds += f.deeds;
    figures.events += f.events;
    figures.followed += f.followed;
    figures.once_effects += f.once_effects;
    for (std::size_t i = 0; i < figures.saga_ends.size(); ++i)
      figures.saga_ends[i] += f.saga_ends[i];
    figures.virtual_time += f.virtual_time;
    for (std::size_t i = 0; i < kFaultCount; ++i)
      figures.faults[i] += f.faults[i];
    figures.disk.writes += f.disk.writes;
    figures.disk.syncs += f.disk.syncs;
    figures.disk.power_losses += f.disk.power_losses;
    figures.disk.lost_writes += f.disk.lost_writes;
    figures.disk.torn_writes += f.disk.torn_writes;
    figures.disk.lost_names += f.disk.lost_names;
    figures.disk.full += f.disk.full;
  }

  void print(WorldKind world, double seconds) const {
    std::printf("world %s: %llu seeds in %.1f s (%.0f seeds/min), %.1f virtual hours\n", name_of(world),
                static_cast<unsigned long long>(seeds), seconds, static_cast<double>(seeds) / seconds * 60,
                static_cast<double>(figures.virtual_time.count()) * 1e-6 / 3600);
    std::printf(
        "  steps %llu, published %llu, deliveries %llu, handlers %llu, deaths %llu, dead letters %llu, "
        "redriven %llu\n",
        static_cast<unsigned long long>(figures.actions), static_cast<unsigned long long>(figures.published),
        static_cast<unsigned long long>(figures.hand_outs), static_cast<unsigned long long>(figures.starts),
        static_cast<unsigned long long>(figures.crashes),
        static_cast<unsigned long long>(figures.dead_letters),
        static_cast<unsigned long long>(figures.redrives));
    std::printf("  sagas %llu (completed %llu, compensated %llu, stuck %llu), steps run %llu\n",
                static_cast<unsigned long long>(figures.sagas),
                static_cast<unsigned long long>(figures.saga_ends[0]),
                static_cast<unsigned long long>(figures.saga_ends[1]),
                static_cast<unsigned long long>(figures.saga_ends[2]),
                static_cast<unsigned long long>(figures.deeds));
    std::printf("  events %llu, followed %llu; functions run once %llu\n",
                static_cast<unsigned long long>(figures.events),
                static_cast<unsigned long long>(figures.followed),
                static_cast<unsigned long long>(figures.once_effects));
    std::printf("  faults:");
    for (std::size_t i = 0; i < (world == WorldKind::kSqlite ? kFaultCount : kFaultOfDisk); ++i) {
      std::printf(" %s %llu", simulation::name_of(static_cast<Fault>(i)),
                  static_cast<unsigned long long>(figures.faults[i]));
    }
    std::printf("\n");
    if (world == WorldKind::kSqlite) {
      std::printf(
          "  disk: writes %llu, syncs %llu, losses of power %llu (writes lost %llu, torn %llu, names %llu), "
          "writes without room %llu\n",
          static_cast<unsigned long long>(figures.disk.writes),
          static_cast<unsigned long long>(figures.disk.syncs),
          static_cast<unsigned long long>(figures.disk.power_losses),
          static_cast<unsigned long long>(figures.disk.lost_writes),
          static_cast<unsigned long long>(figures.disk.torn_writes),
          static_cast<unsigned long long>(figures.disk.lost_names),
          static_cast<unsigned long long>(figures.disk.full));
    }
    std::fflush(stdout);
  }
};

void print(const Verdict& verdict) {
  for (const Violation& violation : verdict.violations) {
    std::printf("%s: %s\n", violation.checker.c_str(), violation.text.c_str());
  }
}

int run_one(const RunnerOptions& options) {
  std::fputs(describe(draw_plan(options.from, options.world, options.reduction)).c_str(), stdout);
  World::Trace trace;
  if (options.trace) {
    trace = [](const std::string& line) {
      std::fputs(line.c_str(), stdout);
      std::fputc('\n', stdout);
    };
  }
  const Verdict verdict = run_seed(options.from, options.world, options.reduction, options.mutant, trace);
  print(verdict);
  std::printf("seed %llu: ending %d, hash %016llx\n", static_cast<unsigned long long>(options.from),
              static_cast<int>(verdict.ending), static_cast<unsigned long long>(verdict.hash));
  return static_cast<int>(verdict.ending);
}

int report_failure(const RunnerOptions& options, std::uint64_t seed, const Verdict& verdict) {
  std::printf("seed %llu fails (%d):\n", static_cast<unsigned long long>(seed),
              static_cast<int>(verdict.ending));
  print(verdict);
  if (options.keep_going) return static_cast<int>(verdict.ending);
  const Reduction small = shrink(seed, options.world, options.reduction, options.mutant);
  std::printf("replay: %s\n", replay_command(seed, options.world, small, options.mutant).c_str());
  return static_cast<int>(verdict.ending);
}

/// Every `options.jobs`-th seed, from the `job`-th on.
Totals run_share(const RunnerOptions& options, std::uint32_t job) {
  Totals totals;
  for (std::uint64_t i = job; i < options.count; i += options.jobs) {
    const std::uint64_t seed = options.from + i;
    const Verdict verdict = run_seed(seed, options.world, options.reduction, options.mutant);
    totals.add(verdict.figures);
    if (verdict.ending != Ending::kClean) {
      totals.worst = std::max(totals.worst, report_failure(options, seed, verdict));
      ++totals.failed;
      if (!options.keep_going) break;
      continue;
    }
    if (seed % 100 != 0) continue;
    if (run_seed(seed, options.world, options.reduction, options.mutant).hash == verdict.hash) continue;
    std::printf("seed %llu: two runs differ\n", static_cast<unsigned long long>(seed));
    totals.worst = static_cast<int>(Ending::kNondeterministic);
    ++totals.failed;
    if (!options.keep_going) break;
  }
  return totals;
}

/// In a process of its own, because the simulator is one thread with one world; -1: there is none to be had.
int start_share(const RunnerOptions& options, std::uint32_t job) {
  int ends[2];
  if (::pipe(ends) != 0) return -1;
  std::fflush(stdout);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[0]);
    const Totals totals = run_share(options, job);
    std::fflush(stdout);
    const bool told = ::write(ends[1], &totals, sizeof totals) == static_cast<ssize_t>(sizeof totals);
    ::_exit(told ? 0 : 1);
  }
  ::close(ends[1]);
  if (child > 0) return ends[0];
  ::close(ends[0]);
  return -1;
}

int run_many(const RunnerOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  Totals totals;
  if (options.jobs == 1) {
    totals = run_share(options, 0);
  } else {
    std::vector<int> shares;
    for (std::uint32_t job = 0; job < options.jobs; ++job)
      shares.push_back(start_share(options, job));
    for (const int share : shares) {
      Totals one;
      // A share that says nothing has died: its signal handler has printed the seed.
      const bool told = share >= 0 && ::read(share, &one, sizeof one) == static_cast<ssize_t>(sizeof one);
      if (told) totals.add(one);
      if (!told) totals.worst = std::max(totals.worst, static_cast<int>(Ending::kBroken));
      if (share >= 0) ::close(share);
    }
    while (::wait(nullptr) > 0) {
    }
  }
  const auto seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  totals.print(options.world, seconds);
  std::printf("  %llu failed\n", static_cast<unsigned long long>(totals.failed));
  if (totals.worst == 0 && totals.seeds != options.count) {
    std::printf("  only %llu of %llu seeds were run\n", static_cast<unsigned long long>(totals.seeds),
                static_cast<unsigned long long>(options.count));
    return static_cast<int>(Ending::kBroken);
  }
  return totals.worst;
}

int run_mutants(const RunnerOptions& options) {
  std::printf("%-24s %-8s %-6s %s\n", "mutant", "design", "seeds", "caught by");
  int worst = 0;
  for (std::size_t i = 1; i < kMutantCount; ++i) {
    const auto mutant = static_cast<Mutant>(i);
    const MutantCatch caught = catch_mutant(mutant, options.world, options.from, options.count);
    if (caught.seeds == 0) worst = static_cast<int>(Ending::kUnsafe);
    std::printf("%-24s %-8s %-6s %s\n", simulation::name_of(mutant), origin_of(mutant),
                caught.seeds == 0 ? "-" : std::to_string(caught.seeds).c_str(),
                caught.seeds == 0 ? "LIVES" : caught.checker.c_str());
  }
  return worst;
}

}  // namespace

std::string parse(int argc, char** argv, RunnerOptions& options) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--trace") {
      options.trace = true;
      continue;
    }
    if (name == "--mutants") {
      options.mutants = true;
      continue;
    }
    if (name == "--keep-going") {
      options.keep_going = true;
      continue;
    }
    if (i + 1 >= argc) return std::string(name) + " needs a value, or is unknown";
    const std::string_view value = argv[++i];
    const auto number = [&] { return std::strtoull(value.data(), nullptr, 10); };
    if (name == "--seed") {
      options.single = true;
      options.from = number();
    } else if (name == "--seeds") {
      options.count = number();
    } else if (name == "--from") {
      options.from = number();
    } else if (name == "--halvings") {
      options.reduction.halvings = static_cast<std::uint32_t>(number());
    } else if (name == "--without-part") {
      options.reduction.without_sagas |= value == "sagas";
      options.reduction.without_events |= value == "events";
      options.reduction.without_once |= value == "once";
      if (value != "sagas" && value != "events" && value != "once")
        return "--without-part is sagas, events or once, not \"" + std::string(value) + "\"";
    } else if (name == "--world") {
      if (!parse_world(value, options.world))
        return "--world is memory, sqlite or split, not \"" + std::string(value) + "\"";
    } else if (name == "--jobs") {
      options.jobs = static_cast<std::uint32_t>(number());
      if (options.jobs < 1 || options.jobs > 64) return "--jobs is 1 to 64";
    } else if (name == "--mutant") {
      if (!parse_mutant(value, options.mutant)) return "--mutant names an unknown mutant";
    } else if (name == "--without") {
      if (!parse_faults(value, options.reduction.without)) return "--without names an unknown fault";
    } else {
      return "unknown option " + std::string(name);
    }
  }
  return {};
}

int run(const RunnerOptions& options) {
  if (options.mutants) return run_mutants(options);
  return options.single ? run_one(options) : run_many(options);
}

MutantCatch catch_mutant(Mutant mutant, WorldKind world, std::uint64_t from, std::uint64_t count) {
  for (std::uint64_t seed = from; seed < from + count; ++seed) {
    const Verdict verdict = run_seed(seed, world, {}, mutant);
    if (verdict.ending == Ending::kClean) continue;
    const std::string by = verdict.violations.empty() ? "?" : verdict.violations.front().checker;
    return {seed - from + 1, seed, by};
  }
  return {};
}

Verdict run_seed(std::uint64_t seed, WorldKind world, const Reduction& reduction, Mutant mutant,
                 World::Trace trace) {
  std::snprintf(g_running, sizeof g_running, "\nthe simulator broke in: %s\n",
                replay_command(seed, world, reduction, mutant).c_str());
  static const bool watched = [] {
    for (const int signal : {SIGSEGV, SIGABRT, SIGBUS, SIGFPE})
      std::signal(signal, on_signal);
    return true;
  }();
  (void)watched;
  World simulated(draw_plan(seed, world, reduction), mutant, std::move(trace));
  return simulated.run();
}

Reduction shrink(std::uint64_t seed, WorldKind world, const Reduction& from, Mutant mutant) {
  const Verdict first = run_seed(seed, world, from, mutant);
  const auto fails = [&](const Reduction& reduction) {
    const Verdict verdict = run_seed(seed, world, reduction, mutant);
    if (verdict.ending != first.ending) return false;
    return first.violations.empty() || (!verdict.violations.empty() && verdict.violations.front().checker ==
                                                                           first.violations.front().checker);
  };
  Reduction best = from;
  for (std::size_t i = 0; i < kFaultCount; ++i) {
    Reduction next = best;
    next.without |= 1u << i;
    if (fails(next)) best = next;
  }
  if (Reduction next = best; !std::exchange(next.without_sagas, true) && fails(next)) best = next;
  if (Reduction next = best; !std::exchange(next.without_events, true) && fails(next)) best = next;
  if (Reduction next = best; !std::exchange(next.without_once, true) && fails(next)) best = next;
  for (int i = 0; i < 8; ++i) {
    Reduction next = best;
    ++next.halvings;
    if (!fails(next)) break;
    best = next;
  }
  return best;
}

std::string replay_command(std::uint64_t seed, WorldKind world, const Reduction& reduction, Mutant mutant) {
  std::string command = "sim --seed " + std::to_string(seed) + " --trace --world " + name_of(world);
  std::string without;
  for (std::size_t i = 0; i < kFaultCount; ++i) {
    if ((reduction.without >> i & 1) == 0) continue;
    without += (without.empty() ? "" : ",") + std::string(simulation::name_of(static_cast<Fault>(i)));
  }
  if (!without.empty()) command += " --without " + without;
  if (reduction.without_sagas) command += " --without-part sagas";
  if (reduction.without_events) command += " --without-part events";
  if (reduction.without_once) command += " --without-part once";
  if (reduction.halvings > 0) command += " --halvings " + std::to_string(reduction.halvings);
  if (mutant != Mutant::kNone) command += " --mutant " + std::string(simulation::name_of(mutant));
  return command;
}

}  // namespace towline::simulation
