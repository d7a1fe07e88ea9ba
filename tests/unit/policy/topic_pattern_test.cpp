// Topic patterns: a table of vectors for other languages to share, and equality with a matcher that is
// obviously right.

#include "policy/topic_pattern.hpp"

#include <chrono>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/property.hpp"

namespace towline::policy {
namespace {

struct Vector {
  const char* pattern;
  const char* topic;
  bool matches;
};

constexpr Vector kVectors[] = {
    {"a", "a", true},
    {"a", "b", false},
    {"a", "A", false},
    {"a", "aa", false},
    {"a", "a.a", false},
    {"a.b", "a.b", true},
    {"a.b", "a", false},
    {"a.b", "a.b.c", false},
    {"a.b", "a_b", false},
    {"*", "a", true},
    {"*", "orders-1", true},
    {"*", "a.b", false},
    {"a.*", "a.b", true},
    {"a.*", "a", false},
    {"a.*", "a.b.c", false},
    {"a.*", "b.b", false},
    {"*.b", "a.b", true},
    {"*.b", "b", false},
    {"*.b", "a.c", false},
    {"a.*.c", "a.b.c", true},
    {"a.*.c", "a.c", false},
    {"a.*.c", "a.b.b.c", false},
    {"*.*", "a.b", true},
    {"*.*", "a", false},
    {"*.*", "a.b.c", false},
    {"#", "a", true},
    {"#", "a.b", true},
    {"#", "a.b.c.d.e", true},
    {"a.#", "a", true},
    {"a.#", "a.b", true},
    {"a.#", "a.b.c", true},
    {"a.#", "b", false},
    {"a.#", "ab", false},
    {"a.#", "b.a", false},
    {"#.a", "a", true},
    {"#.a", "b.a", true},
    {"#.a", "a.b", false},
    {"#.a", "a.b.a", true},
    {"a.#.b", "a.b", true},
    {"a.#.b", "a.c.b", true},
    {"a.#.b", "a.c.d.b", true},
    {"a.#.b", "a", false},
    {"a.#.b", "a.b.c", false},
    {"a.#.b", "a.b.b", true},
    {"#.a.#", "a", true},
    {"#.a.#", "b.a.c", true},
    {"#.a.#", "b.c", false},
    {"#.#", "a", true},
    {"*.#", "a", true},
    {"*.#", "a.b", true},
    {"#.*", "a", true},
    {"#.*.b", "b", false},
    {"#.*.b", "a.b", true},
    {"a.#.*", "a", false},
    {"a.#.*", "a.b", true},
    {"*.#.*", "a", false},
    {"*.#.*", "a.b", true},
    {">", "a", true},
    {">", "a.b.c", true},
    {"a.>", "a", false},
    {"a.>", "a.b", true},
    {"a.>", "a.b.c", true},
    {"a.>", "b.a", false},
    {"*.>", "a", false},
    {"*.>", "a.b", true},
    {"#.>", "a", true},
    {"a.#.b.#.c", "a.b.x.b.c", true},
    {"a.#.b.#.c", "a.x.c", false},
    {"#.a.b", "a.a.b", true},
    {"#.a.b", "a.b.a", false},
};

TEST(TopicPattern, GivesTheDocumentedAnswers) {
  for (const Vector& vector : kVectors) {
    const auto pattern = TopicPattern::compile(vector.pattern);
    ASSERT_TRUE(pattern.ok()) << vector.pattern;
    EXPECT_EQ(pattern->matches(vector.topic), vector.matches) << vector.pattern << " on " << vector.topic;
    EXPECT_EQ(pattern->text(), vector.pattern);
  }
}

// ---- the matcher that is obviously right ----------------------------------------------------------------

using Words = std::vector<std::string>;

Words words_of(const std::string& text) {
  Words words{""};
  for (const char c : text) {
    if (c == '.') {
      words.emplace_back();
    } else {
      words.back().push_back(c);
    }
  }
  return words;
}

bool reference(const Words& pattern, std::size_t p, const Words& topic, std::size_t t) {
  if (p == pattern.size()) return t == topic.size();
  const bool word_left = t < topic.size();
  if (pattern[p] == ">") return word_left;
  if (pattern[p] == "#")
    return reference(pattern, p + 1, topic, t) || (word_left && reference(pattern, p, topic, t + 1));
  return word_left && (pattern[p] == "*" || pattern[p] == topic[t]) &&
         reference(pattern, p + 1, topic, t + 1);
}

std::string join(const Words& words) {
  std::string text;
  for (const std::string& word : words)
    text += (text.empty() ? "" : ".") + word;
  return text;
}

std::string any_pattern() {
  Words words = *rc::gen::nonEmpty(
      rc::gen::container<Words>(rc::gen::element<std::string>("a", "b", "ab", "*", "#", "#")));
  if (words.size() > 8) words.resize(8);
  if (*rc::gen::inRange(0, 5) == 0) words.emplace_back(">");
  return join(words);
}

std::string any_topic() {
  Words words = *rc::gen::nonEmpty(rc::gen::container<Words>(rc::gen::element<std::string>("a", "b", "ab")));
  if (words.size() > 10) words.resize(10);
  return join(words);
}

TEST(TopicPattern, EqualsTheRecursiveMatcher) {
  int matched = 0;
  int total = 0;
  support::for_all(
      [&] {
        const std::string text = any_pattern();
        const std::string topic = any_topic();
        const auto pattern = TopicPattern::compile(text);
        RC_ASSERT(pattern.ok());
        RC_LOG() << text << " on " << topic;
        const bool expected = reference(words_of(text), 0, words_of(topic), 0);
        RC_ASSERT(pattern->matches(topic) == expected);
        matched += expected ? 1 : 0;
        ++total;
      },
      20000, 12);
  // Both answers must have been tried often enough for the comparison to mean something.
  EXPECT_GT(matched, total / 10);
  EXPECT_LT(matched, total * 9 / 10);
}

TEST(TopicPattern, RefusesWhatIsNoPattern) {
  for (const char* text : {"", "a..b", "a*", "a.>.b", "$SYS.#", "a b"}) {
    const auto pattern = TopicPattern::compile(text);
    ASSERT_FALSE(pattern.ok()) << text;
    EXPECT_EQ(pattern.error().code, ErrorCode::kInvalidTopic);
  }
}

TEST(TopicPattern, KnowsWhetherItNamesManyTopics) {
  EXPECT_FALSE(TopicPattern::compile("a.b")->has_wildcard());
  for (const char* text : {"*", "a.*", "#", "a.>"}) {
    EXPECT_TRUE(TopicPattern::compile(text)->has_wildcard()) << text;
    EXPECT_TRUE(is_topic_pattern(text)) << text;
  }
  EXPECT_FALSE(is_topic_pattern("a.b"));
}

TEST(TopicPattern, TakesPolynomialTimeForTheWorstPattern) {
  // Trying every way to share the words among the '#' would take longer than the age of the universe.
  std::string pattern, topic;
  for (int i = 0; i < 60; ++i)
    pattern += "#.a.";
  for (int i = 0; i < 124; ++i)
    topic += "a.";
  const auto compiled = TopicPattern::compile(pattern + "b");
  EXPECT_FALSE(compiled->matches(topic + "a"));
  EXPECT_TRUE(compiled->matches(topic + "b"));
}

TEST(TopicPattern, IsSafeForTextThatIsNoTopic) {
  support::for_all([](const std::string& text) {
    for (const char* pattern : {"a", "*", "#", "a.#.b", "*.>"}) {
      const auto compiled = TopicPattern::compile(pattern);
      RC_ASSERT(compiled->matches(text) == reference(words_of(pattern), 0, words_of(text), 0));
    }
  });
}

// ---- sets -----------------------------------------------------------------------------------------------

TEST(TopicPatternSet, MatchesWhatAnyMemberMatches) {
  const auto set = TopicPatternSet::compile({"a.*", "b", "a.b", "c.#"});
  ASSERT_TRUE(set.ok());
  for (const char* topic : {"a.b", "a.x", "b", "c", "c.d.e"})
    EXPECT_TRUE(set->matches(topic)) << topic;
  for (const char* topic : {"a", "a.b.c", "d", "b.c"})
    EXPECT_FALSE(set->matches(topic)) << topic;
}

TEST(TopicPatternSet, SeparatesTopicsFromPatterns) {
  const auto set = TopicPatternSet::compile({"z", "a.*", "b", "z"});
  EXPECT_EQ(set->topics(), (std::vector<std::string>{"b", "z"}));
  ASSERT_EQ(set->patterns().size(), 1u);
  EXPECT_EQ(set->patterns()[0].text(), "a.*");
}

TEST(TopicPatternSet, IsEmptyWithoutMembersAndMatchesNothing) {
  EXPECT_TRUE(TopicPatternSet{}.empty());
  EXPECT_FALSE(TopicPatternSet{}.matches("a"));
  EXPECT_FALSE(TopicPatternSet::compile({"a"})->empty());
  EXPECT_FALSE(TopicPatternSet::compile({"*"})->empty());
}

TEST(TopicPatternSet, NamesTheBadMember) {
  const auto set = TopicPatternSet::compile({"a", "b*", "c"});
  ASSERT_FALSE(set.ok());
  EXPECT_NE(set.error().message.find("'b*'"), std::string::npos) << set.error().message;
}

}  // namespace
}  // namespace towline::policy
