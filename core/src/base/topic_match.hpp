#pragma once
// Which topics a pattern names, for the groups and ephemeral subscribers whose patterns stand in the file.

#include <string_view>

namespace towline::drivers::sqlite {

/// '*' is one word, '#' any number of them, a '>' at the end one or more. Takes at most words(pattern) times
/// words(topic) steps, whatever the pattern: whoever makes a topic holds the writer's place meanwhile.
[[nodiscard]] bool pattern_matches(std::string_view pattern, std::string_view topic) noexcept;

}  // namespace towline::drivers::sqlite
