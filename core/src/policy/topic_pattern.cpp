// Patterns are checked once, so that matching need not look for what no pattern may hold.

#include "policy/topic_pattern.hpp"

#include <algorithm>

#include "base/topic_match.hpp"
#include "base/validate.hpp"

namespace towline::policy {

Result<TopicPattern> TopicPattern::compile(std::string_view pattern) {
  if (auto bad = base::check_topic_pattern(pattern); !bad) return std::move(bad).error();
  TopicPattern compiled{std::string(pattern)};
  compiled.has_wildcard_ = is_topic_pattern(pattern);
  return compiled;
}

bool TopicPattern::matches(std::string_view topic) const noexcept {
  return has_wildcard_ ? base::pattern_matches(text_, topic) : topic == text_;
}

Result<TopicPatternSet> TopicPatternSet::compile(const std::vector<std::string>& patterns) {
  TopicPatternSet set;
  for (const std::string& text : patterns) {
    Result<TopicPattern> pattern = TopicPattern::compile(text);
    if (!pattern) return std::move(pattern).error();
    if (pattern->has_wildcard()) {
      set.patterns_.push_back(*std::move(pattern));
    } else {
      set.topics_.push_back(text);
    }
  }
  std::sort(set.topics_.begin(), set.topics_.end());
  set.topics_.erase(std::unique(set.topics_.begin(), set.topics_.end()), set.topics_.end());
  return set;
}

bool TopicPatternSet::matches(std::string_view topic) const noexcept {
  if (std::binary_search(topics_.begin(), topics_.end(), topic, std::less<>{})) return true;
  return std::any_of(patterns_.begin(), patterns_.end(),
                     [&](const TopicPattern& p) { return p.matches(topic); });
}

bool is_topic_pattern(std::string_view text) noexcept {
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('.', begin), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    if (word == "*" || word == "#" || word == ">") return true;
    begin = end + 1;
  }
  return false;
}

}  // namespace towline::policy
