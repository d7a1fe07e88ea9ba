// Waits between attempts, for options as nobody would write them: never negative, never above the cap, never
// shrinking as failures grow, and the same for the same seed.

#include "policy/backoff.hpp"

#include <algorithm>
#include <bit>

#include "base/random.hpp"
#include "fuzz/input.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace towline;
  fuzz::Input input(data, size);
  RetryOptions options;
  options.kind = static_cast<BackoffKind>(input.byte() % 6);
  options.jitter = static_cast<JitterKind>(input.byte() % 5);
  options.initial_delay = Duration(static_cast<std::int64_t>(input.number()));
  options.delay_max = Duration(static_cast<std::int64_t>(input.number()));
  options.multiplier = std::bit_cast<double>(input.number());
  options.jitter_ratio = std::bit_cast<double>(input.number());
  const auto failures = static_cast<std::uint32_t>(input.number());
  const Duration previous(static_cast<std::int64_t>(input.number()));
  const std::uint64_t seed = input.number();
  while (!input.rest().empty() && options.sequence.size() < 16) {
    options.sequence.push_back(Duration(static_cast<std::int64_t>(input.number())));
  }
  base::SeededRng rng(seed), again(seed);
  const Duration wait = policy::delay_after(options, failures, previous, rng);
  fuzz::require(wait >= Duration::zero(), "a wait is not negative");
  fuzz::require(wait <= std::max(options.delay_max, Duration::zero()), "a wait is not above the cap");
  fuzz::require(wait == policy::delay_after(options, failures, previous, again),
                "the same seed gives the same wait");
  if (options.kind != BackoffKind::kSequence && failures < UINT32_MAX) {
    fuzz::require(policy::delay_without_jitter(options, failures) <=
                      policy::delay_without_jitter(options, failures + 1),
                  "waits do not shrink");
  }
  (void)policy::check_retry(options);
  return 0;
}
