#pragma once
// Running seeds: one with its trace, or many with figures; and shrinking the first that fails.

#include <cstdint>
#include <string>

#include "simulation/world.hpp"

namespace towline::simulation {

struct RunnerOptions {
  std::uint64_t from = 1;
  std::uint64_t count = 1000;
  bool single = false;
  bool trace = false;
  bool keep_going = false;
  /// Print which mutants are caught, and after how many seeds.
  bool mutants = false;
  /// Processes that share the seeds.
  std::uint32_t jobs = 1;
  WorldKind world = WorldKind::kMemory;
  Mutant mutant = Mutant::kNone;
  Reduction reduction;
};

/// Empty, or what is wrong with the arguments.
[[nodiscard]] std::string parse(int argc, char** argv, RunnerOptions& options);
/// Prints, and returns the exit code.
[[nodiscard]] int run(const RunnerOptions& options);

[[nodiscard]] Verdict run_seed(std::uint64_t seed, WorldKind world, const Reduction& reduction = {},
                               Mutant mutant = Mutant::kNone, World::Trace trace = {});
/// The first seed in which a mutant does not come out clean.
struct MutantCatch {
  std::uint64_t seeds = 0;  ///< how many it took; 0: it lived through all of them
  std::uint64_t seed = 0;
  std::string checker;
};
[[nodiscard]] MutantCatch catch_mutant(Mutant mutant, WorldKind world, std::uint64_t from,
                                       std::uint64_t count);
/// The smallest reduction of a failing seed that still fails in the same way.
[[nodiscard]] Reduction shrink(std::uint64_t seed, WorldKind world, const Reduction& from, Mutant mutant);
/// What to type to see it again.
[[nodiscard]] std::string replay_command(std::uint64_t seed, WorldKind world, const Reduction& reduction,
                                         Mutant mutant);

}  // namespace towline::simulation
