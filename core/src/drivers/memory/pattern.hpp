#pragma once
// Whether a pattern that a group subscribed with names a topic. Subscriptions bring their own rule
// (`matches`); this one serves groups whose members are all away.

#include <string_view>

namespace towline::drivers::memory {

/// Words are between dots. `*` is one word, `#` any number of words, a last `>` one or more. Takes at most
/// words(pattern) * words(topic) steps.
[[nodiscard]] bool pattern_matches(std::string_view pattern, std::string_view topic);

}  // namespace towline::drivers::memory
