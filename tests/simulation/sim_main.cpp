// sim: runs the simulated world over many seeds, or replays one.
//
//   sim --seeds N [--from S] [--world memory|sqlite|split] [--jobs n]  many; prints figures
//   sim --seeds N --mutants                                   which wrong designs are caught within N seeds
//   sim --seed S [--trace] [--without a,b] [--halvings n]     one, with its trace
//   ... --without-part sagas|events|once                      without those; may be given several times
//
// Exit codes: 0 clean, 1 crash or assertion, 2 safety, 3 liveness, 4 nondeterminism, 64 wrong arguments.

#include <cstdio>
#include <string>

#include "simulation/runner.hpp"

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);
  towline::simulation::RunnerOptions options;
  if (auto problem = towline::simulation::parse(argc, argv, options); !problem.empty()) {
    std::fprintf(stderr, "sim: %s\n", problem.c_str());
    return 64;
  }
  return towline::simulation::run(options);
}
