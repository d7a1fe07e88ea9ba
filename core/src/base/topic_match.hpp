#pragma once
// Which topics a pattern names: asked by the engine of what a user subscribed with, and by the stores of the
// patterns that groups have left with them.

#include <string_view>

namespace towline::base {

/// Words are between dots. '*' is one word, '#' any number of them, a '>' at the end one or more. Takes at
/// most words(pattern) * words(topic) steps, whatever the pattern; never allocates.
[[nodiscard]] bool pattern_matches(std::string_view pattern, std::string_view topic) noexcept;

/// Whether some topic is named by both. Takes words(a) * words(b) steps.
[[nodiscard]] bool patterns_overlap(std::string_view a, std::string_view b);

}  // namespace towline::base
