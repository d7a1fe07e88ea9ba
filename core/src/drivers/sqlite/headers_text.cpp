// A name ends at its first unescaped colon, a value at its line's end.

#include "drivers/sqlite/headers_text.hpp"

#include <utility>

namespace towline::drivers::sqlite {
namespace {

void append_escaped(std::string& to, std::string_view text, bool name) {
  for (const char c : text) {
    if (c == '\\' || (name && c == ':')) to.push_back('\\');
    if (c == '\n') {
      to.append("\\n");
    } else {
      to.push_back(c);
    }
  }
}

/// Takes text up to the first unescaped `end` (which goes too) or to the end of the text.
std::string take_escaped(std::string_view& text, char end) {
  std::string out;
  while (!text.empty()) {
    const char c = text.front();
    text.remove_prefix(1);
    if (c == end) break;
    if (c != '\\' || text.empty()) {
      out.push_back(c);
      continue;
    }
    out.push_back(text.front() == 'n' ? '\n' : text.front());
    text.remove_prefix(1);
  }
  return out;
}

}  // namespace

std::string headers_to_text(const Headers& headers) {
  std::string text;
  for (const auto& [name, value] : headers) {
    append_escaped(text, name, true);
    text.append(": ");
    append_escaped(text, value, false);
    text.push_back('\n');
  }
  return text;
}

Headers headers_from_text(std::string_view text) {
  Headers headers;
  while (!text.empty()) {
    std::string name = take_escaped(text, ':');
    if (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    std::string value = take_escaped(text, '\n');
    headers.emplace_back(std::move(name), std::move(value));
  }
  return headers;
}

}  // namespace towline::drivers::sqlite
