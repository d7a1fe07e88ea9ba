#pragma once
// Headers as text for people: "name: value", one a line. Line breaks, backslashes and colons of names are
// escaped with a backslash, so that any headers come back as they were.

#include <string>
#include <string_view>

#include <towline/message.hpp>

namespace towline::drivers::sqlite {

[[nodiscard]] std::string headers_to_text(const Headers& headers);
[[nodiscard]] Headers headers_from_text(std::string_view text);

}  // namespace towline::drivers::sqlite
