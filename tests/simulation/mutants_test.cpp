// Every mutant is caught within a bounded number of seeds, and the same seeds are clean without it. The table
// is printed by `sim --mutants`.

#include <gtest/gtest.h>

#include "simulation/runner.hpp"

namespace towline::simulation {
namespace {

constexpr std::uint64_t kSeedsMax = 400;

class EveryMutant : public testing::TestWithParam<Mutant> {};

TEST_P(EveryMutant, IsCaughtWithinABoundedNumberOfSeeds) {
  const MutantCatch caught = catch_mutant(GetParam(), WorldKind::kMemory, 1, kSeedsMax);
  ASSERT_NE(caught.seeds, 0U) << name_of(GetParam()) << " lived through " << kSeedsMax << " seeds";
  const std::uint64_t seed = caught.seed;
  EXPECT_EQ(run_seed(seed, WorldKind::kMemory).ending, Ending::kClean) << "seed " << seed;
}

std::vector<Mutant> all_mutants() {
  std::vector<Mutant> all;
  for (std::size_t i = 1; i < kMutantCount; ++i)
    all.push_back(static_cast<Mutant>(i));
  return all;
}

INSTANTIATE_TEST_SUITE_P(Simulation, EveryMutant, testing::ValuesIn(all_mutants()), [](const auto& tested) {
  std::string name = name_of(tested.param);
  std::erase(name, '-');
  return name;
});

TEST(Simulator, RunsTheSameSeedTheSameWay) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    EXPECT_EQ(run_seed(seed, WorldKind::kMemory).hash, run_seed(seed, WorldKind::kMemory).hash) << seed;
  }
}

TEST(Simulator, HasSagasEventsAndFunctionsThatRunOnceInEachWorld) {
  for (const WorldKind world : {WorldKind::kMemory, WorldKind::kSqlite, WorldKind::kSplit}) {
    Figures all;
    for (std::uint64_t seed = 1; seed <= 25; ++seed) {
      const Verdict verdict = run_seed(seed, world);
      EXPECT_EQ(verdict.ending, Ending::kClean) << "seed " << seed;
      all.sagas += verdict.figures.sagas;
      for (std::size_t i = 0; i < all.saga_ends.size(); ++i)
        all.saga_ends[i] += verdict.figures.saga_ends[i];
      all.events += verdict.figures.events;
      all.followed += verdict.figures.followed;
      all.once_effects += verdict.figures.once_effects;
    }
    EXPECT_GT(all.saga_ends[0], 10U) << "completed";
    EXPECT_GT(all.saga_ends[1], 10U) << "compensated";
    EXPECT_GT(all.events, 100U);
    EXPECT_GT(all.followed, 100U);
    EXPECT_GT(all.once_effects, 20U);
  }
}

TEST(Simulator, RefusesAWorldThatItCannotRun) {
  for (const char* world : {"postgres", "memor", ""}) {
    std::string arguments[] = {"sim", "--world", world};
    char* argv[] = {arguments[0].data(), arguments[1].data(), arguments[2].data()};
    RunnerOptions options;
    EXPECT_NE(parse(3, argv, options), "") << "'" << world << "'";
  }
}

}  // namespace
}  // namespace towline::simulation
