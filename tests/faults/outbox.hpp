#pragma once
// What those who write to the outbox and those who judge them agree on.

#include <cstdint>

namespace towline::faults {

/// Its writer changes its mind.
[[nodiscard]] constexpr bool is_rolled_back(std::int64_t number) noexcept { return number % 5 == 3; }

}  // namespace towline::faults
