#pragma once
// What a user's function threw, as an outcome.

#include <towline/consumer.hpp>

namespace towline::engine {

/// Of the exception that is being handled, whatever it is.
[[nodiscard]] Outcome outcome_of_thrown();

}  // namespace towline::engine
