// Escaping, redaction and the nearest name. The rule of redaction: decide what is surely harmless and show
// only that.

#include "base/text.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace towline::base {
namespace {

constexpr char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

constexpr bool is_letter(char c) noexcept { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

// A decoded character and how many bytes it took; length 0: the bytes are not UTF-8.
struct Character {
  std::uint32_t code = 0;
  std::size_t length = 0;
};

Character decode_utf8(std::string_view text) noexcept {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {lead, 1};
  const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length) return {};
  std::uint32_t code = lead & (0x7Fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    const auto next = static_cast<unsigned char>(text[i]);
    if ((next & 0xC0) != 0x80) return {};
    code = code << 6 | (next & 0x3Fu);
  }
  constexpr std::uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kSmallest[length] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return {};
  return {code, length};
}

// Control characters, line and paragraph separators, marks that change the writing direction, the byte order
// mark.
bool is_unsafe(std::uint32_t code) noexcept {
  return code < 0x20 || (code >= 0x7F && code <= 0x9F) || code == 0x200E || code == 0x200F || code == 0x61C ||
         (code >= 0x2028 && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069) || code == 0xFEFF;
}

void append_hex_escape(std::string& out, char byte) {
  constexpr char kDigits[] = "0123456789abcdef";
  const auto value = static_cast<unsigned char>(byte);
  out += "\\x";
  out.push_back(kDigits[value >> 4]);
  out.push_back(kDigits[value & 15]);
}

// Appends the first character of `text` in its shown form; returns the bytes it took.
std::size_t append_escaped(std::string& out, std::string_view text) {
  switch (text[0]) {
    case '\n':
      out += "\\n";
      return 1;
    case '\r':
      out += "\\r";
      return 1;
    case '\t':
      out += "\\t";
      return 1;
    case '\\':
      out += "\\\\";
      return 1;
    default:
      break;
  }
  const Character character = decode_utf8(text);
  if (character.length != 0 && !is_unsafe(character.code)) {
    out += text.substr(0, character.length);
    return character.length;
  }
  const std::size_t length = std::max<std::size_t>(character.length, 1);
  for (std::size_t i = 0; i < length; ++i)
    append_hex_escape(out, text[i]);
  return length;
}

}  // namespace

std::string escape(std::string_view text, std::size_t length_max) {
  length_max = std::max<std::size_t>(length_max, 3);
  std::string out;
  out.reserve(std::min(text.size(), length_max));
  // Where to cut if the rest turns out not to fit: the last end of a character that leaves room for the dots.
  std::size_t cut = 0;
  while (!text.empty()) {
    const std::size_t taken = append_escaped(out, text);
    text.remove_prefix(taken);
    if (out.size() > length_max) {
      out.resize(cut);
      return out + "...";
    }
    if (out.size() <= length_max - 3) cut = out.size();
  }
  return out;
}

std::string duration_text(Duration duration) {
  const std::int64_t us = duration.count();
  const std::int64_t size = us < 0 ? -us : us;
  const std::int64_t unit = size >= 1'000'000 && us % 1'000 == 0 ? 1'000'000 : size >= 1'000 ? 1'000 : 1;
  std::string text = (us < 0 ? "-" : "") + std::to_string(size / unit);
  if (size % unit != 0) {
    std::string rest = std::to_string(unit + size % unit).substr(1);
    rest.erase(rest.find_last_not_of('0') + 1);
    text += "." + rest;
  }
  return text + (unit == 1 ? " us" : unit == 1'000 ? " ms" : " s");
}

bool is_utf8(std::string_view text) noexcept {
  while (!text.empty()) {
    const Character character = decode_utf8(text);
    if (character.length == 0) return false;
    text.remove_prefix(character.length);
  }
  return true;
}

std::string to_lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), lower);
  return out;
}

bool equals_ignoring_case(std::string_view a, std::string_view b) noexcept {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) { return lower(x) == lower(y); });
}

bool starts_with_ignoring_case(std::string_view text, std::string_view prefix) noexcept {
  return text.size() >= prefix.size() && equals_ignoring_case(text.substr(0, prefix.size()), prefix);
}

// ---- redaction ------------------------------------------------------------------------------------------

namespace {

// Length of "scheme:" at the front, 0 when there is none.
std::size_t scheme_length(std::string_view url) noexcept {
  if (url.empty() || !is_letter(url[0])) return 0;
  std::size_t i = 1;
  while (i < url.size() &&
         (is_letter(url[i]) || is_digit(url[i]) || url[i] == '+' || url[i] == '-' || url[i] == '.'))
    ++i;
  return i < url.size() && url[i] == ':' ? i + 1 : 0;
}

int hex_value(char c) noexcept {
  if (is_digit(c)) return c - '0';
  c = lower(c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

std::string decode_percent_leniently(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && hex_value(text[i + 1]) >= 0 && hex_value(text[i + 2]) >= 0) {
      out.push_back(static_cast<char>(hex_value(text[i + 1]) << 4 | hex_value(text[i + 2])));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

bool sounds_secret(std::string_view name) {
  constexpr std::array<std::string_view, 10> kSecretWords = {"pass", "pwd", "secret", "token",  "auth",
                                                             "cred", "key", "sign",   "cookie", "private"};
  const std::string decoded = to_lower(decode_percent_leniently(name));
  return std::any_of(kSecretWords.begin(), kSecretWords.end(),
                     [&](std::string_view word) { return decoded.find(word) != std::string::npos; });
}

// The part after the scheme when it has no '@'. Files and names are shown. In an address, what follows the
// colon must be a port, else somebody forgot the host and this is "user:password". Whatever is neither is
// hidden.
std::string redact_address(std::string_view scheme, std::string_view rest) {
  if (scheme == "sqlite:" || scheme == "memory:" || scheme == "file:") return std::string(rest);
  if (!rest.starts_with("//")) {
    if (scheme.empty() && rest.find(':') == std::string_view::npos) return std::string(rest);
    return scheme.empty() ? std::string(rest.substr(0, rest.find(':'))) + ":***" : "***";
  }
  std::size_t begin = rest.find_first_not_of('/');
  if (begin == std::string_view::npos) return std::string(rest);
  const std::size_t bracket = rest[begin] == '[' ? rest.find(']', begin) : std::string_view::npos;
  if (bracket != std::string_view::npos) begin = bracket;
  const std::size_t end_of_address = std::min(rest.find_first_of("/?#", begin), rest.size());
  // Several hosts may be listed: each part between commas has its own port.
  for (std::size_t at = begin; at < end_of_address;) {
    const std::size_t end = std::min(rest.find(',', at), end_of_address);
    const std::string_view host = rest.substr(at, end - at);
    const std::size_t colon = host.find(':');
    const bool is_port =
        colon == std::string_view::npos ||
        (host.size() - colon <= 6 && std::all_of(host.begin() + colon + 1, host.end(), is_digit));
    if (!is_port) return std::string(rest.substr(0, at + colon + 1)) + "***";
    at = end + 1;
  }
  return std::string(rest);
}

constexpr bool is_name_byte(char c) noexcept {
  return is_letter(c) || is_digit(c) || c == '_' || c == '-' || c == '.' || c == '%';
}

// Hides the value of each `name=value` whose name sounds like a secret, up to the next `&name=` or the end.
std::string redact_parameters(std::string_view text) {
  std::string out;
  bool hiding = false;
  std::size_t at = 0;
  while (at < text.size()) {
    // The next piece reaches to the next separator.
    std::size_t end = text.find_first_of("?&;# \t", at);
    if (end == std::string_view::npos) end = text.size();
    const std::string_view piece = text.substr(at, end - at);
    const std::size_t equals = piece.find('=');
    const bool is_parameter = equals != std::string_view::npos && equals > 0 &&
                              std::all_of(piece.begin(), piece.begin() + equals, is_name_byte);
    if (is_parameter) hiding = sounds_secret(piece.substr(0, equals));
    // A separator that may belong to a hidden value is hidden with it; one that ends a value is shown.
    if (is_parameter && hiding) {
      out += piece.substr(0, equals + 1);
      out += "***";
    } else if (!hiding) {
      out += piece;
    }
    at = end;
    if (at == text.size()) break;
    const std::string_view after = text.substr(at + 1);
    const std::size_t next_equals = after.find_first_of("=?&;# \t");
    const bool parameter_follows = next_equals != std::string_view::npos && next_equals > 0 &&
                                   after[next_equals] == '=' &&
                                   std::all_of(after.begin(), after.begin() + next_equals, is_name_byte);
    if (!hiding || parameter_follows) out.push_back(text[at]);
    ++at;
  }
  return out;
}

}  // namespace

std::string redact_url(std::string_view url) {
  const std::size_t scheme = scheme_length(url);
  std::string shown(url.substr(0, scheme));
  std::string_view rest = url.substr(scheme);
  const std::size_t at = rest.rfind('@');
  if (at == std::string_view::npos) {
    shown += redact_address(url.substr(0, scheme), rest);
  } else {
    if (rest.starts_with("//")) shown += "//";
    shown += "***";
    shown += rest.substr(at);
  }
  return escape(redact_parameters(shown), 256);
}

// ---- the nearest name -----------------------------------------------------------------------------------

namespace {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  // Three rows of the table of distances between prefixes: two above, above, and the current one.
  std::vector<std::size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j)
    above[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const bool same = lower(a[i - 1]) == lower(b[j - 1]);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (same ? 0 : 1)});
      const bool swapped =
          i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1]);
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, above);
    std::swap(above, row);
  }
  return above[b.size()];
}

}  // namespace

constexpr std::size_t kPrefixMin = 3;

std::string_view nearest_name(std::string_view name, std::span<const std::string_view> candidates) {
  // Names are short; a long one is cut so that hostile input costs no more than a misspelling.
  name = name.substr(0, 64);
  std::string_view nearest;
  // Who has written the beginning of a name has left out its end.
  for (const std::string_view candidate : candidates) {
    if (name.size() < kPrefixMin || !candidate.starts_with(name)) continue;
    if (nearest.empty() || candidate.size() < nearest.size()) nearest = candidate;
  }
  if (!nearest.empty()) return nearest;
  std::size_t nearest_distance = SIZE_MAX;
  for (const std::string_view candidate : candidates) {
    const std::size_t distance = edit_distance(name, candidate.substr(0, 64));
    if (distance < nearest_distance) {
      nearest = candidate;
      nearest_distance = distance;
    }
  }
  return nearest;
}

}  // namespace towline::base
