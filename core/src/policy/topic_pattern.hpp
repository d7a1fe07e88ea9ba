#pragma once
// Topic patterns. A topic is words between dots: "orders.eu.created". In a pattern a word may also be
//
//     *    exactly one word
//     #    any number of words, also none; anywhere
//     >    one or more words; only as the last (the same as "*.#")
//
//     orders.*    orders.eu, orders.us           not orders, not orders.eu.created
//     orders.#    orders, orders.eu, orders.eu.created
//     #.created   created, orders.created, orders.eu.created
//     #           every topic
//
// A topic without wildcards is a pattern that matches itself alone. Letter case counts. Matching is pure,
// never allocates and takes at most words(pattern) * length(topic) steps; no pattern makes it slow.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <towline/result.hpp>

namespace towline::policy {

/// One compiled pattern. Immutable, so any number of threads may share it.
class TopicPattern {
 public:
  /// Errors: kInvalidTopic for what base::check_topic_pattern refuses.
  [[nodiscard]] static Result<TopicPattern> compile(std::string_view pattern);

  /// `topic` is a valid topic; for other text the answer is only safe, not meaningful.
  [[nodiscard]] bool matches(std::string_view topic) const noexcept;
  /// Whether it holds a wildcard.
  [[nodiscard]] bool has_wildcard() const noexcept { return has_wildcard_; }
  /// As it was given.
  [[nodiscard]] const std::string& text() const noexcept { return text_; }

 private:
  explicit TopicPattern(std::string text) : text_(std::move(text)) {}

  std::string text_;
  bool has_wildcard_ = false;
};

/// The patterns of one subscription. A topic that several of them match is matched once: `matches` is yes or
/// no.
class TopicPatternSet {
 public:
  TopicPatternSet() = default;
  /// Errors: kInvalidTopic naming the first bad pattern.
  [[nodiscard]] static Result<TopicPatternSet> compile(const std::vector<std::string>& patterns);

  /// Whether any pattern matches. An empty set matches nothing.
  [[nodiscard]] bool matches(std::string_view topic) const noexcept;
  [[nodiscard]] bool empty() const noexcept { return topics_.empty() && patterns_.empty(); }
  /// The members without a wildcard, sorted, each once: topics that can be declared before they are seen.
  [[nodiscard]] const std::vector<std::string>& topics() const noexcept { return topics_; }
  /// The members with a wildcard, in the order given.
  [[nodiscard]] const std::vector<TopicPattern>& patterns() const noexcept { return patterns_; }

 private:
  std::vector<std::string> topics_;
  std::vector<TopicPattern> patterns_;
};

/// Whether the text holds a wildcard word, so that it names many topics.
[[nodiscard]] bool is_topic_pattern(std::string_view text) noexcept;

}  // namespace towline::policy
