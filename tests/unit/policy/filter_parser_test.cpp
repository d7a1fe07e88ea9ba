// What the filter parser refuses, and that it says where.

#include <string>

#include <gtest/gtest.h>

#include "policy/filter.hpp"
#include "support/property.hpp"

namespace towline::policy {
namespace {

struct Refusal {
  const char* text;
  int offset;
  const char* part;
};

TEST(FilterParser, SaysWhereItStoppedAndWhatItExpected) {
  const Refusal refusals[] = {
      {"region", 6, "expected one of = != < <= > >= in prefix, found the end"},
      {"region =", 8, "expected a text in single quotes or a number, found the end"},
      {"region = eu", 9, "expected a text in single quotes or a number, found 'eu'"},
      {"region == 'eu'", 8, "expected a text"},
      {"region <> 'eu'", 8, "expected a text"},
      {"region ~ 'eu'", 7, "expected one of ="},
      {"region = 'eu", 9, "the quote is not closed"},
      {"\"region = 'eu'", 0, "the double quote is not closed"},
      {"\"\" = 'eu'", 0, "the header name is empty"},
      {"= 'eu'", 0, "expected a header name"},
      {"a = 1 b = 2", 6, "expected 'and', 'or' or the end"},
      {"a = 1 and", 9, "expected a header name"},
      {"a = 1 or or b = 2", 9, "'or' is a word of the language"},
      {"and = 1", 0, "'and' is a word of the language"},
      {"exists", 6, "expected a header name"},
      {"exists 'a'", 7, "expected a header name"},
      {"not", 3, "expected a header name"},
      {"(a = 1", 6, "expected 'and', 'or' or ')', found the end"},
      {"a = 1)", 5, "expected 'and', 'or' or the end, found ')'"},
      {"()", 1, "expected a header name"},
      {"a in 'x'", 5, "expected '(' and a list"},
      {"a in ()", 6, "expected a text in single quotes or a number"},
      {"a in ('x'", 9, "expected ',' or ')'"},
      {"a in ('x',)", 10, "expected a text in single quotes or a number"},
      {"a prefix 5", 9, "expected a text in quotes"},
      {"a = 12x", 4, "not a number that can be compared"},
      {"a = 1e999", 4, "not a number that can be compared"},
      {"a = 1and b = 2", 4, "not a number that can be compared"},
      {"$prioritty = 1", 0, "there is no field '$prioritty'; did you mean '$priority'?"},
      {"$ = 1", 0, "there is no field '$'"},
      {"a = 'x' and \xc3\xa4 = 1", 12, "expected a header name"},
      {"a\n=\t'x' %", 8, "expected 'and'"},
  };
  for (const Refusal& refusal : refusals) {
    const auto filter = Filter::compile(refusal.text);
    ASSERT_FALSE(filter.ok()) << refusal.text;
    EXPECT_EQ(filter.error().code, ErrorCode::kInvalidFilter);
    const std::string& message = filter.error().message;
    EXPECT_NE(message.find("at offset " + std::to_string(refusal.offset) + ": "), std::string::npos)
        << message;
    EXPECT_NE(message.find(refusal.part), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST(FilterParser, AcceptsBlanksAnywhereAndNoneWhereNoneAreNeeded) {
  for (const char* text : {"a='x'", "a in('x','y')", "not(a=1)", "(a=1)and(b=2)or not(c=3)", " a\t=\n'x' ",
                           "a='x'and b='y'", "a in ( 'x' , 1 )", "exists\"a\"", "$size>=10"}) {
    EXPECT_TRUE(Filter::compile(text).ok()) << text;
  }
}

TEST(FilterParser, DoesNotTakeALongerNameForAWord) {
  for (const char* text : {"android = 1", "notes = 1", "order = 1 or oregon = 2", "inner = 1", "existsx = 1",
                           "in-x = 1", "or.x = 1"}) {
    EXPECT_TRUE(Filter::compile(text).ok()) << text;
  }
}

TEST(FilterParser, RefusesWhatIsTooLongOrTooDeep) {
  const std::string longest = "a = '" + std::string(kFilterLengthMax - 6, 'x') + "'";
  EXPECT_TRUE(Filter::compile(longest).ok());
  const auto too_long = Filter::compile(longest + " ");
  ASSERT_FALSE(too_long.ok());
  EXPECT_NE(too_long.error().message.find("4097 bytes; at most 4096"), std::string::npos);

  const auto nested = [](const std::string& open, std::size_t depth, const std::string& close) {
    std::string text;
    for (std::size_t i = 0; i < depth; ++i)
      text += open;
    text += "a = 1";
    for (std::size_t i = 0; i < depth; ++i)
      text += close;
    return Filter::compile(text);
  };
  EXPECT_TRUE(nested("(", 64, ")").ok());
  EXPECT_TRUE(nested("not ", 64, "").ok());
  EXPECT_FALSE(nested("(", 65, ")").ok());
  EXPECT_FALSE(nested("not ", 65, "").ok());
  EXPECT_FALSE(nested("not (", 33, ")").ok());
  EXPECT_NE(nested("(", 2000, ")").error().message.find("64 levels"), std::string::npos);
}

TEST(FilterParser, RefusesBlanksAndSuggestsTheFieldThatAWordBegins) {
  EXPECT_TRUE(Filter::compile("").ok());
  EXPECT_FALSE(Filter::compile("  ").ok());
  const auto prefix = Filter::compile("$prio > 3");
  ASSERT_FALSE(prefix.ok());
  EXPECT_NE(prefix.error().message.find("did you mean '$priority'"), std::string::npos);
}

TEST(FilterParser, GivesTheLevelsBackAfterAParenthesis) {
  std::string text = "(a = 1)";
  for (int i = 0; i < 200; ++i)
    text += " and (a = 1)";
  EXPECT_TRUE(Filter::compile(text).ok());
}

TEST(FilterParser, SurvivesAnyText) {
  const std::string words[] = {"a",     "=", "!=",  "<",   "'x'", "'",  "\"",     "(",
                               ")",     " ", "and", "or",  "not", "in", "prefix", "exists",
                               "$size", "$", "12",  "1.5", "-",   ",",  "\n",     "\xff"};
  int accepted = 0;
  support::for_all(
      [&](const std::vector<std::uint8_t>& choices) {
        std::string text;
        for (const std::uint8_t choice : choices)
          text += words[choice % std::size(words)] + " ";
        const auto filter = Filter::compile(text);
        if (filter.ok()) {
          (void)filter->matches({});
          ++accepted;
        } else {
          RC_ASSERT(filter.error().code == ErrorCode::kInvalidFilter);
          RC_ASSERT(filter.error().message.find("at offset ") != std::string::npos);
        }
      },
      20000, 12);
  EXPECT_GT(accepted, 20);
}

}  // namespace
}  // namespace towline::policy
