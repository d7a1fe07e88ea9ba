// Normalising is one pass that looks at each position for the longest changing part that begins there.

#include "policy/fingerprint.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

namespace towline::policy {
namespace {

constexpr std::size_t kMessageBytesMax = 4 * 1024;
constexpr std::size_t kStackBytesMax = 64 * 1024;
constexpr std::size_t kFrameCountMax = 5;
constexpr std::size_t kFrameBytesMax = 512;

constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
constexpr bool is_letter(char c) noexcept { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
constexpr bool is_hex(char c) noexcept {
  return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}
constexpr bool is_word(char c) noexcept { return is_letter(c) || is_digit(c) || c == '_'; }
constexpr bool is_blank(char c) noexcept { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

std::size_t hex_run(std::string_view text) noexcept {
  return static_cast<std::size_t>(std::find_if_not(text.begin(), text.end(), is_hex) - text.begin());
}

// 8-4-4-4-12 hex digits.
std::size_t uuid_length(std::string_view text) noexcept {
  constexpr std::size_t kGroups[] = {8, 4, 4, 4, 12};
  std::size_t at = 0;
  for (const std::size_t group : kGroups) {
    if (at != 0 && (at >= text.size() || text[at++] != '-')) return 0;
    if (hex_run(text.substr(at, group)) != group) return 0;
    at += group;
  }
  return at;
}

// A quoted string that ends on its line. An apostrophe inside a word is none.
std::size_t quoted_length(std::string_view text, char before) noexcept {
  const char quote = text[0];
  if ((quote != '\'' && quote != '"' && quote != '`') || is_word(before)) return 0;
  const std::size_t end = text.find_first_of(std::string_view(quote == '\''  ? "'\n"
                                                              : quote == '"' ? "\"\n"
                                                                             : "`\n"),
                                             1);
  return end != std::string_view::npos && text[end] == quote ? end + 1 : 0;
}

// "0x1f", eight or more hex digits with a digit among them standing alone, or digits with dots between them.
std::size_t number_length(std::string_view text, char before) noexcept {
  if (text.size() > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X') && is_hex(text[2])) {
    return 2 + hex_run(text.substr(2));
  }
  if (!is_word(before)) {
    const std::size_t hex = hex_run(text);
    const bool stands_alone = hex == text.size() || !is_word(text[hex]);
    if (hex >= 8 && stands_alone &&
        std::any_of(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(hex), is_digit)) {
      return hex;
    }
  }
  std::size_t end = 0;
  while (end < text.size() && (is_digit(text[end]) || (text[end] == '.' && end > 0 && end + 1 < text.size() &&
                                                       is_digit(text[end + 1])))) {
    ++end;
  }
  return end;
}

std::size_t changing_length(std::string_view text, char before, bool quotes) noexcept {
  if (!is_word(before)) {
    if (const std::size_t length = uuid_length(text); length != 0) return length;
  }
  if (quotes) {
    if (const std::size_t length = quoted_length(text, before); length != 0) return length;
  }
  return number_length(text, before);
}

std::string normalize(std::string_view text, bool quotes) {
  std::string out;
  char before = ' ';
  for (std::size_t at = 0; at < text.size();) {
    if (is_blank(text[at])) {
      if (!out.empty() && out.back() != ' ') out.push_back(' ');
      before = text[at++];
      continue;
    }
    const std::size_t length = changing_length(text.substr(at), before, quotes);
    if (length != 0) {
      out.push_back('#');
      at += length;
    } else {
      out.push_back(text[at++]);
    }
    before = text[at - 1];
  }
  if (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

// ---- stacks ---------------------------------------------------------------------------------------------

std::string_view trim(std::string_view line) noexcept {
  while (!line.empty() && is_blank(line.front()))
    line.remove_prefix(1);
  while (!line.empty() && is_blank(line.back()))
    line.remove_suffix(1);
  return line;
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (const std::string_view line = trim(text.substr(0, end)); !line.empty()) lines.push_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

template <typename Predicate>
std::vector<std::string_view> keep(const std::vector<std::string_view>& lines, Predicate predicate) {
  std::vector<std::string_view> kept;
  std::copy_if(lines.begin(), lines.end(), std::back_inserter(kept), predicate);
  return kept;
}

// Innermost first.
std::vector<std::string_view> top_frames(std::string_view stack) {
  if (stack.size() > kStackBytesMax) stack.remove_prefix(stack.size() - kStackBytesMax);
  const std::vector<std::string_view> lines = lines_of(stack);
  std::vector<std::string_view> frames =
      keep(lines, [](std::string_view line) { return line.starts_with("File \""); });
  if (!frames.empty()) {
    std::reverse(frames.begin(), frames.end());
  } else {
    frames =
        keep(lines, [](std::string_view line) { return line.starts_with("at ") || line.starts_with('#'); });
    if (frames.empty()) frames = lines;
  }
  if (frames.size() > kFrameCountMax) frames.resize(kFrameCountMax);
  return frames;
}

// Folders differ between machines: of "/usr/lib/python3.11/shop/orders.py" the last part is kept.
std::string without_folders(std::string_view frame) {
  constexpr auto ends_path = [](char c) {
    return is_blank(c) || c == '(' || c == '"' || c == '\'' || c == '<';
  };
  std::string out;
  for (const char c : frame) {
    if (c == '/' || c == '\\') {
      while (!out.empty() && !ends_path(out.back()))
        out.pop_back();
    } else {
      out.push_back(c);
    }
  }
  return out;
}

std::string hex16(std::uint64_t value) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text(16, '0');
  for (std::size_t i = 16; i-- > 0; value >>= 4)
    text[i] = kDigits[value & 15];
  return text;
}

}  // namespace

std::string normalize_message(std::string_view message) {
  return normalize(message.substr(0, kMessageBytesMax), true);
}

std::string fingerprint(const ErrorInfo& error) {
  std::string material = error.type;
  material.push_back('\0');
  const std::vector<std::string_view> frames = top_frames(error.stack);
  if (frames.empty()) {
    material += normalize_message(error.message);
  } else {
    for (const std::string_view frame : frames) {
      material.push_back('\n');
      material += normalize(without_folders(frame.substr(0, kFrameBytesMax)), false);
    }
  }
  return hex16(XXH3_64bits(material.data(), material.size()));
}

}  // namespace towline::policy
