// Reads the topic word by word and keeps which beginnings of the pattern fit what was read so far.

#include "drivers/memory/pattern.hpp"

#include <vector>

namespace towline::drivers::memory {
namespace {

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> words;
  for (;;) {
    const std::size_t dot = text.find('.');
    words.push_back(text.substr(0, dot));
    if (dot == std::string_view::npos) return words;
    text.remove_prefix(dot + 1);
  }
}

}  // namespace

bool pattern_matches(std::string_view pattern, std::string_view topic) {
  std::vector<std::string_view> wanted = words_of(pattern);
  if (wanted.back() == ">") {
    wanted.back() = "*";
    wanted.push_back("#");
  }
  // fits[i]: the first i words of the pattern fit.
  std::vector<char> fits(wanted.size() + 1, 0);
  fits[0] = 1;
  for (std::size_t i = 0; i < wanted.size() && wanted[i] == "#"; ++i)
    fits[i + 1] = 1;
  for (const std::string_view word : words_of(topic)) {
    std::vector<char> next(fits.size(), 0);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (wanted[i] == "#") {
        next[i + 1] = static_cast<char>(fits[i + 1] | fits[i] | next[i]);
      } else if (wanted[i] == "*" || wanted[i] == word) {
        next[i + 1] = fits[i];
      }
    }
    fits.swap(next);
  }
  return fits.back() != 0;
}

}  // namespace towline::drivers::memory
