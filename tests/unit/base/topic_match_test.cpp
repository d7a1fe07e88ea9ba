// Which topics a pattern names: the wildcards, equality with a matcher that is obviously right, and
// that no pattern makes matching slow.

#include "base/topic_match.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/property.hpp"

namespace towline::base {
namespace {

using Words = std::vector<std::string>;

std::string join(const Words& words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i)
    text += (i == 0 ? "" : ".") + words[i];
  return text;
}

/// The definition, without care for time.
bool plainly(const Words& pattern, std::size_t p, const Words& topic, std::size_t t) {
  if (p == pattern.size()) return t == topic.size();
  const bool is_left = t < topic.size();
  if (pattern[p] == ">" && p + 1 == pattern.size()) return is_left;
  if (pattern[p] == "#")
    return plainly(pattern, p + 1, topic, t) || (is_left && plainly(pattern, p, topic, t + 1));
  return is_left && (pattern[p] == "*" || pattern[p] == topic[t]) && plainly(pattern, p + 1, topic, t + 1);
}

TEST(TopicMatch, KnowsTheWildcards) {
  EXPECT_TRUE(pattern_matches("orders", "orders"));
  EXPECT_FALSE(pattern_matches("orders", "orders.eu"));
  EXPECT_FALSE(pattern_matches("orders.eu", "orders"));
  EXPECT_TRUE(pattern_matches("orders.*", "orders.eu"));
  EXPECT_FALSE(pattern_matches("orders.*", "orders"));
  EXPECT_FALSE(pattern_matches("orders.*", "orders.eu.created"));
  EXPECT_TRUE(pattern_matches("orders.#", "orders"));
  EXPECT_TRUE(pattern_matches("#.created", "orders.eu.created"));
  EXPECT_FALSE(pattern_matches("#.created", "orders.created.eu"));
  EXPECT_TRUE(pattern_matches("orders.>", "orders.eu.created"));
  EXPECT_FALSE(pattern_matches("orders.>", "orders"));
  EXPECT_TRUE(pattern_matches("#.>", "a"));
  EXPECT_TRUE(pattern_matches("#", "a"));
}

TEST(TopicMatch, EqualsTheMatcherThatTriesEverything) {
  int matched = 0, total = 0;
  support::for_all(
      [&] {
        const auto words = [](auto word) { return *rc::gen::nonEmpty(rc::gen::container<Words>(word)); };
        Words pattern = words(rc::gen::element<std::string>("a", "b", "*", "#", "#"));
        Words topic = words(rc::gen::element<std::string>("a", "b", "ab"));
        if (pattern.size() > 8) pattern.resize(8);
        if (topic.size() > 10) topic.resize(10);
        if (*rc::gen::inRange(0, 5) == 0) pattern.emplace_back(">");
        const bool expected = plainly(pattern, 0, topic, 0);
        RC_LOG() << join(pattern) << " on " << join(topic);
        RC_ASSERT(pattern_matches(join(pattern), join(topic)) == expected);
        matched += expected ? 1 : 0;
        ++total;
      },
      20'000, 12);
  EXPECT_GT(matched, total / 10);
  EXPECT_LT(matched, total * 9 / 10);
}

TEST(TopicMatch, NoPatternTakesLong) {
  // Trying every way to share the words among the '#' would not end before the machine does.
  std::string pattern = "#";
  std::string topic = "a";
  for (int i = 0; i < 60; ++i) {
    pattern += ".a.#";
    topic += ".a.a";
    EXPECT_TRUE(pattern_matches(pattern, topic));
    EXPECT_FALSE(pattern_matches(pattern + ".b", topic));
    EXPECT_TRUE(pattern_matches(pattern + ".b", topic + ".b"));
  }
}

TEST(PatternsOverlap, WhereSomeTopicIsNamedByBoth) {
  EXPECT_TRUE(patterns_overlap("orders", "orders"));
  EXPECT_FALSE(patterns_overlap("orders", "emails"));
  EXPECT_TRUE(patterns_overlap("orders.*", "*.eu"));
  EXPECT_FALSE(patterns_overlap("orders.*", "*.eu.x"));
  EXPECT_TRUE(patterns_overlap("#.eu", "orders.#"));
  EXPECT_TRUE(patterns_overlap("orders.>", "orders.#"));
  EXPECT_FALSE(patterns_overlap("orders.>", "orders"));
  EXPECT_TRUE(patterns_overlap("orders.#", "orders"));
  EXPECT_FALSE(patterns_overlap("orders.#", "emails.#"));
}

TEST(PatternsOverlap, IsWhatTryingAllTopicsSays) {
  std::vector<std::string> topics;
  for (int length = 1; length <= 7; ++length) {
    for (int bits = 0; bits < 1 << length; ++bits) {
      Words topic;
      for (int i = 0; i < length; ++i)
        topic.emplace_back((bits >> i & 1) != 0 ? "a" : "b");
      topics.push_back(join(topic));
    }
  }
  int overlapping = 0;
  int total = 0;
  support::for_all(
      [&] {
        const auto draw = [] {
          Words pattern = *rc::gen::container<Words>(rc::gen::element<std::string>("a", "b", "*", "#"));
          if (pattern.empty()) pattern.emplace_back("a");
          if (pattern.size() > 3) pattern.resize(3);
          if (pattern.size() < 3 && *rc::gen::inRange(0, 5) == 0) pattern.emplace_back(">");
          return join(pattern);
        };
        const std::string one = draw();
        const std::string two = draw();
        const bool expected = std::any_of(topics.begin(), topics.end(), [&](const std::string& topic) {
          return pattern_matches(one, topic) && pattern_matches(two, topic);
        });
        RC_LOG() << one << " and " << two;
        RC_ASSERT(patterns_overlap(one, two) == expected);
        RC_ASSERT(patterns_overlap(two, one) == expected);
        overlapping += expected ? 1 : 0;
        ++total;
      },
      3'000, 12);
  EXPECT_GT(overlapping, total / 10);
  EXPECT_LT(overlapping, total * 9 / 10);
}

}  // namespace
}  // namespace towline::base
