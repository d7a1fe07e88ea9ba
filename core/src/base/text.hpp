#pragma once
// Text that people will read: values in error messages and log lines, URLs without their passwords, and the
// name that a misspelt one probably meant.

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include <towline/time.hpp>

namespace towline::base {

/// `text` on one line and harmless in a terminal: control bytes, backslashes, invalid UTF-8 and characters
/// that break or reverse a line are written as \n, \t, \\ or \xNN. At most `length_max` bytes (at least 3),
/// the end cut off as "...".
[[nodiscard]] std::string escape(std::string_view text, std::size_t length_max = 256);

/// A URL that may be shown: everything before the last '@' of its address and every parameter that sounds
/// like a secret is "***"; then escaped. When the URL is malformed, more is hidden rather than less: what
/// could be a password, is.
///     redis://user:hunter2@host/0?sslpassword=x  ->  redis://***@host/0?sslpassword=***
[[nodiscard]] std::string redact_url(std::string_view url);

/// The candidate with the fewest edits (insert, drop, change, swap neighbours; case is ignored) from `name`,
/// the first of equals; "" when there are no candidates. For "did you mean '...'?".
[[nodiscard]] std::string_view nearest_name(std::string_view name,
                                            std::span<const std::string_view> candidates);

/// "30 s", "1.5 s", "250 ms", "20 us": the largest unit that leaves at most three digits after the point.
[[nodiscard]] std::string duration_text(Duration duration);

/// Whether the bytes are well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing above
/// U+10FFFF).
[[nodiscard]] bool is_utf8(std::string_view text) noexcept;

/// ASCII only; other bytes are left as they are.
[[nodiscard]] std::string to_lower(std::string_view text);
[[nodiscard]] bool equals_ignoring_case(std::string_view a, std::string_view b) noexcept;
[[nodiscard]] bool starts_with_ignoring_case(std::string_view text, std::string_view prefix) noexcept;

}  // namespace towline::base
