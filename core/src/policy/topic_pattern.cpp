// Matching walks topic and pattern word by word. When a word does not fit, the last '#' takes one word more
// and the walk goes on behind it; going back to an earlier '#' is never needed, since the last one can take
// whatever an earlier one could leave.

#include "policy/topic_pattern.hpp"

#include <algorithm>

#include "base/validate.hpp"

namespace towline::policy {
namespace {

constexpr bool is_wildcard(std::string_view word) noexcept {
  return word == "*" || word == "#" || word == ">";
}

// Calls f(word, begin) for each word between dots.
template <typename F>
void for_each_word(std::string_view text, F f) {
  std::size_t begin = 0;
  while (true) {
    const std::size_t end = std::min(text.find('.', begin), text.size());
    f(text.substr(begin, end - begin), begin);
    if (end == text.size()) return;
    begin = end + 1;
  }
}

// The words of a topic from a position on; the position behind the last word is past the end.
struct WordCursor {
  std::string_view text;
  std::size_t begin = 0;

  [[nodiscard]] bool at_end() const noexcept { return begin > text.size(); }
  [[nodiscard]] std::size_t word_end() const noexcept { return std::min(text.find('.', begin), text.size()); }
  [[nodiscard]] std::string_view word() const noexcept { return text.substr(begin, word_end() - begin); }
  void skip() noexcept { begin = word_end() + 1; }
};

}  // namespace

Result<TopicPattern> TopicPattern::compile(std::string_view pattern) {
  if (auto bad = base::check_topic_pattern(pattern); !bad) return std::move(bad).error();
  TopicPattern compiled{std::string(pattern)};
  if (!is_topic_pattern(pattern)) return compiled;
  for_each_word(pattern, [&](std::string_view word, std::size_t begin) {
    if (word == "#") {
      // "#.#" is "#": one less to go through.
      if (compiled.words_.empty() || compiled.words_.back().kind != Kind::kAny)
        compiled.words_.push_back({Kind::kAny});
    } else if (word == "*") {
      compiled.words_.push_back({Kind::kOne});
    } else if (word == ">") {
      compiled.words_.push_back({Kind::kOne});
      compiled.words_.push_back({Kind::kAny});
    } else {
      compiled.words_.push_back(
          {Kind::kWord, static_cast<std::uint16_t>(begin), static_cast<std::uint16_t>(word.size())});
    }
  });
  return compiled;
}

bool TopicPattern::word_fits(const Word& word, std::string_view topic_word) const noexcept {
  return word.kind == Kind::kOne || std::string_view(text_).substr(word.begin, word.length) == topic_word;
}

bool TopicPattern::matches(std::string_view topic) const noexcept {
  if (words_.empty()) return topic == text_;
  WordCursor cursor{topic};
  std::size_t at = 0;
  // Behind the last '#': the pattern position, and the topic position that it is tried from.
  std::size_t retry_at = 0;
  WordCursor retry_cursor{topic};
  bool can_retry = false;
  while (!cursor.at_end()) {
    if (at < words_.size() && words_[at].kind == Kind::kAny) {
      retry_at = ++at;
      retry_cursor = cursor;
      can_retry = true;
    } else if (at < words_.size() && word_fits(words_[at], cursor.word())) {
      ++at;
      cursor.skip();
    } else if (can_retry) {
      at = retry_at;
      retry_cursor.skip();
      cursor = retry_cursor;
    } else {
      return false;
    }
  }
  while (at < words_.size() && words_[at].kind == Kind::kAny)
    ++at;
  return at == words_.size();
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
  bool found = false;
  for_each_word(text, [&](std::string_view word, std::size_t) { found = found || is_wildcard(word); });
  return found;
}

}  // namespace towline::policy
