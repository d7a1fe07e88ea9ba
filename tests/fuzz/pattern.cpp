// Topics and patterns: the validator lets through only what every provider can carry, and the matcher equals
// one that is obviously right. Two lines: the pattern and the topic.

#include <algorithm>
#include <vector>

#include "base/validate.hpp"
#include "fuzz/input.hpp"
#include "policy/topic_pattern.hpp"

namespace {

using namespace towline;

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words{""};
  for (const char c : text) {
    if (c == '.') {
      words.emplace_back();
    } else {
      words.back().push_back(c);
    }
  }
  return words;
}

// fits[p][t]: the pattern from word p on matches the topic from word t on. Filled from the end, so that no
// pattern takes more than words times words steps.
bool reference(const std::string& pattern_text, const std::string& topic_text) {
  const auto pattern = words_of(pattern_text);
  const auto topic = words_of(topic_text);
  std::vector<std::vector<bool>> fits(pattern.size() + 1, std::vector<bool>(topic.size() + 1, false));
  fits[pattern.size()][topic.size()] = true;
  for (std::size_t p = pattern.size(); p-- > 0;) {
    for (std::size_t t = topic.size() + 1; t-- > 0;) {
      const bool left = t < topic.size();
      if (pattern[p] == "#") {
        fits[p][t] = fits[p + 1][t] || (left && fits[p][t + 1]);
      } else if (pattern[p] == ">") {
        fits[p][t] = left;
      } else {
        fits[p][t] = left && (pattern[p] == "*" || pattern[p] == topic[t]) && fits[p + 1][t + 1];
      }
    }
  }
  return fits[0][0];
}

bool is_portable(const std::string& topic) {
  return topic.size() <= 249 && std::all_of(topic.begin(), topic.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                  c == '-' || c == '_';
         });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const std::string pattern = input.line();
  const std::string topic = input.line();
  const auto topic_check = base::check_topic(topic);
  if (topic_check.ok()) {
    fuzz::require(is_portable(topic), "an accepted topic is portable");
    fuzz::require(base::check_topic_pattern(topic).ok(), "a topic is a pattern");
  } else {
    fuzz::require(fuzz::is_one_line(topic_check.error().message), "the error is one line");
  }
  const auto compiled = policy::TopicPattern::compile(pattern);
  fuzz::require(compiled.ok() == base::check_topic_pattern(pattern).ok(),
                "the validator decides what compiles");
  if (!compiled.ok()) return 0;
  const bool expected = reference(pattern, topic);
  fuzz::require(compiled->matches(topic) == expected, "the matcher equals the reference");
  const auto set = policy::TopicPatternSet::compile({pattern, "zzz.unrelated"});
  fuzz::require(set->matches(topic) == (expected || topic == "zzz.unrelated"),
                "a set matches what a member matches");
  return 0;
}
