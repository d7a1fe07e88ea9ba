#pragma once
// The sagas in the self-test of the verdict: what a clean run leaves of them, and the breaches that are
// planted.

#include <functional>
#include <string>
#include <vector>

#include "verdict.hpp"

namespace towline::demo {

/// One planted breach: what is changed, and what must then be named.
struct Case {
  const char* name;
  Breach breach;
  std::function<std::string(Evidence&)> plant;  ///< returns the id of the order that must be named
};

/// What a faultless run of this order's saga leaves, begun at `at_us` by `worker`. `killed`: dies before it
/// can write down the first effect, and `worker` goes on.
void run_saga_cleanly(Evidence& evidence, const PlannedOrder& planned, std::int64_t at_us,
                      const std::string& worker, const std::string& killed = {});
[[nodiscard]] std::vector<Case> saga_cases();

}  // namespace towline::demo
