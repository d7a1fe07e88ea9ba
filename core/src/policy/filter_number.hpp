#pragma once
// What the filter language takes for a number, for literals and for values alike: [-] digits [. digits] [e
// [+-] digits], the whole text, nothing else. Not "inf", not "0x10", not "1.", not " 1".

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace towline::policy {

struct FilterNumber {
  bool is_whole = false;  ///< it fits 64 bits and has neither fraction nor exponent
  std::int64_t whole = 0;
  double real = 0;  ///< always set
};

/// How many bytes at the front have the form of a number; 0 when none.
[[nodiscard]] constexpr std::size_t filter_number_length(std::string_view text) noexcept {
  const auto digits_at = [&](std::size_t at) {
    std::size_t end = at;
    while (end < text.size() && text[end] >= '0' && text[end] <= '9')
      ++end;
    return end;
  };
  const std::size_t sign = text.starts_with('-') ? 1 : 0;
  std::size_t end = digits_at(sign);
  if (end == sign) return 0;
  if (end < text.size() && text[end] == '.' && digits_at(end + 1) > end + 1) end = digits_at(end + 1);
  if (end < text.size() && (text[end] == 'e' || text[end] == 'E')) {
    std::size_t exponent = end + 1;
    if (exponent < text.size() && (text[exponent] == '+' || text[exponent] == '-')) ++exponent;
    if (digits_at(exponent) > exponent) end = digits_at(exponent);
  }
  return end;
}

/// nullopt when the text is not a number as a whole, or one beyond the range of doubles.
[[nodiscard]] inline std::optional<FilterNumber> parse_filter_number(std::string_view text) noexcept {
  if (text.empty() || filter_number_length(text) != text.size()) return std::nullopt;
  FilterNumber number;
  const char* const end = text.data() + text.size();
  const auto whole = std::from_chars(text.data(), end, number.whole);
  number.is_whole = whole.ec == std::errc{} && whole.ptr == end;
  const auto real = std::from_chars(text.data(), end, number.real);
  if (real.ec != std::errc{} || real.ptr != end) return std::nullopt;
  return number;
}

}  // namespace towline::policy
