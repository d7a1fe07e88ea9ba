// Topic patterns against their definition.

#include "drivers/memory/pattern.hpp"

#include <chrono>
#include <random>
#include <string>

#include <gtest/gtest.h>

namespace towline::drivers::memory {
namespace {

/// The definition, without care for time.
bool plainly(std::string_view pattern, std::string_view topic) {
  const auto rest = [](std::string_view text) {
    const std::size_t dot = text.find('.');
    return dot == std::string_view::npos ? std::string_view() : text.substr(dot + 1);
  };
  const auto head = [](std::string_view text) { return text.substr(0, text.find('.')); };
  if (pattern.empty()) return topic.empty();
  const std::string_view word = head(pattern);
  if (word == "#") return plainly(rest(pattern), topic) || (!topic.empty() && plainly(pattern, rest(topic)));
  if (topic.empty()) return false;
  if (pattern == ">") return true;
  return (word == "*" || word == head(topic)) && plainly(rest(pattern), rest(topic));
}

TEST(MemoryPattern, KnowsTheWildcards) {
  EXPECT_TRUE(pattern_matches("orders", "orders"));
  EXPECT_FALSE(pattern_matches("orders", "orders.eu"));
  EXPECT_TRUE(pattern_matches("orders.*", "orders.eu"));
  EXPECT_FALSE(pattern_matches("orders.*", "orders"));
  EXPECT_TRUE(pattern_matches("orders.#", "orders"));
  EXPECT_TRUE(pattern_matches("#.created", "orders.eu.created"));
  EXPECT_TRUE(pattern_matches("orders.>", "orders.eu.created"));
  EXPECT_FALSE(pattern_matches("orders.>", "orders"));
  EXPECT_TRUE(pattern_matches("#", "a"));
}

TEST(MemoryPattern, AgreesWithTheDefinition) {
  std::mt19937_64 random(7);
  const auto words = [&](std::initializer_list<const char*> from) {
    std::string text;
    for (std::size_t n = 1 + random() % 5; n > 0; --n) {
      if (!text.empty()) text += '.';
      text += *(from.begin() + random() % from.size());
    }
    return text;
  };
  int matched = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string pattern = words({"a", "b", "*", "#"});
    if (random() % 5 == 0) pattern += ".>";
    const std::string topic = words({"a", "b", "c"});
    ASSERT_EQ(pattern_matches(pattern, topic), plainly(pattern, topic)) << pattern << " " << topic;
    if (plainly(pattern, topic)) ++matched;
  }
  EXPECT_GT(matched, 1'000);
}

TEST(MemoryPattern, NoPatternTakesLong) {
  std::string pattern = "#";
  std::string topic = "a";
  for (int i = 0; i < 100; ++i) {
    pattern += ".#.a";
    topic += ".a";
  }
  EXPECT_FALSE(pattern_matches(pattern + ".b", topic)) << "ends at all, which naive search would not";
}

}  // namespace
}  // namespace towline::drivers::memory
