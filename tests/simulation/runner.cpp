// See runner.hpp. A crash of the simulator itself (a signal) prints the seed on its way down.

#include "simulation/runner.hpp"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

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

struct Totals {
  Figures figures;
  std::uint64_t seeds = 0;

  void add(const Figures& f) {
    ++seeds;
    figures.actions += f.actions;
    figures.published += f.published;
    figures.hand_outs += f.hand_outs;
    figures.starts += f.starts;
    figures.crashes += f.crashes;
    figures.dead_letters += f.dead_letters;
    figures.redrives += f.redrives;
    figures.virtual_time += f.virtual_time;
    for (std::size_t i = 0; i < kFaultCount; ++i)
      figures.faults[i] += f.faults[i];
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
    std::printf("  faults:");
    for (std::size_t i = 0; i < kFaultCount; ++i) {
      std::printf(" %s %llu", simulation::name_of(static_cast<Fault>(i)),
                  static_cast<unsigned long long>(figures.faults[i]));
    }
    std::printf("\n");
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

int run_many(const RunnerOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  Totals totals;
  int worst = 0;
  std::uint64_t failed = 0;
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  for (std::uint64_t seed = options.from; seed < options.from + options.count; ++seed) {
    const Verdict verdict = run_seed(seed, options.world, options.reduction, options.mutant);
    totals.add(verdict.figures);
    if (verdict.ending != Ending::kClean) {
      worst = report_failure(options, seed, verdict);
      ++failed;
      if (!options.keep_going) break;
      continue;
    }
    if (seed % 100 != 0) continue;
    if (run_seed(seed, options.world, options.reduction, options.mutant).hash == verdict.hash) continue;
    std::printf("seed %llu: two runs differ\n", static_cast<unsigned long long>(seed));
    worst = static_cast<int>(Ending::kNondeterministic);
    if (!options.keep_going) break;
  }
  totals.print(options.world, seconds());
  if (options.keep_going) std::printf("%llu failed\n", static_cast<unsigned long long>(failed));
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
    } else if (name == "--world") {
      if (!parse_world(value, options.world)) return "--world is memory, sqlite or split";
    } else if (name == "--without") {
      if (!parse_faults(value, options.reduction.without)) return "--without names an unknown fault";
    } else {
      return "unknown option " + std::string(name);
    }
  }
  return {};
}

int run(const RunnerOptions& options) { return options.single ? run_one(options) : run_many(options); }

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
  if (reduction.halvings > 0) command += " --halvings " + std::to_string(reduction.halvings);
  (void)mutant;
  return command;
}

}  // namespace towline::simulation
