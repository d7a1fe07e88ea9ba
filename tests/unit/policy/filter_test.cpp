// Filters: the published truth table, and equality with a plain evaluator over random expressions.

#include "policy/filter.hpp"

#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/property.hpp"

namespace towline::policy {
namespace {

spi::Envelope envelope() {
  spi::Envelope e;
  e.id = *MessageId::parse("01890a5d-ac96-774b-bcce-b302099a8057");
  e.topic = "orders.eu";
  e.key = "customer-9";
  e.priority = 5;
  e.partition = 42;
  e.attempt = 2;
  e.redrives = 1;
  e.payload = "0123456789";
  e.content_type = "application/json";
  e.correlation_id = "corr";
  e.causation_id = "cause";
  e.dedup_id = "dedup";
  e.headers = {{"region", "eu"},
               {"size", "10"},
               {"price", "1.50"},
               {"empty", ""},
               {"big", "9007199254740993"},
               {"text", "10 apples"},
               {"odd name", "x"},
               {"in", "y"},
               {"quote", "it's"},
               {"huge", "1e999"}};
  return e;
}

bool matches(const std::string& text, const spi::Envelope& e = envelope()) {
  const auto filter = Filter::compile(text);
  EXPECT_TRUE(filter.ok()) << text << ": " << (filter.ok() ? "" : filter.error().message);
  return filter.ok() && filter->matches(e);
}

struct Row {
  const char* filter;
  bool matches;
};

void expect_rows(const std::vector<Row>& rows) {
  for (const Row& row : rows)
    EXPECT_EQ(matches(row.filter), row.matches) << row.filter;
}

TEST(Filter, ComparesTextByteByByte) {
  expect_rows({{"region = 'eu'", true},
               {"region = 'EU'", false},
               {"region != 'us'", true},
               {"region != 'eu'", false},
               {"region < 'ev'", true},
               {"region < 'eu'", false},
               {"region <= 'eu'", true},
               {"region > 'a'", true},
               {"region > 'eu'", false},
               {"region >= 'eu'", true},
               {"region >= 'z'", false},
               {"region prefix 'e'", true},
               {"region prefix ''", true},
               {"region prefix 'eu1'", false},
               {"empty = ''", true},
               {"empty prefix 'a'", false},
               {"region in ('us', 'eu')", true},
               {"region in ('us')", false},
               {"quote = 'it''s'", true}});
}

TEST(Filter, ComparesNumbersAsNumbersWhenBothSidesAreNumbers) {
  expect_rows({{"size = 10", true},
               {"size = 10.0", true},
               {"size = 1e1", true},
               {"size != 10", false},
               {"size < 9", false},
               {"size > 9", true},
               {"size >= 10", true},
               {"size <= 9.99", false},
               {"price = 1.5", true},
               {"price < 2", true},
               {"price > -1", true},
               {"size in (1, 10, 100)", true},
               {"size in (1, 2)", false}});
}

TEST(Filter, ComparesADigitTextWithATextAsText) {
  // In the order of text "10" comes before "9".
  expect_rows(
      {{"size = '10'", true}, {"size = '10.0'", false}, {"size < '9'", true}, {"size prefix '1'", true}});
}

TEST(Filter, NeverTakesATextThatIsNoNumberForOne) {
  expect_rows({{"text = 10", false},
               {"text != 10", true},
               {"text < 11", false},
               {"text > 9", false},
               {"text >= 0", false},
               {"text in (10)", false},
               {"empty = 0", false},
               {"empty != 0", true},
               {"region < 1", false},
               {"huge > 1", false},
               {"huge != 1", true}});
}

TEST(Filter, ComparesLargeWholeNumbersExactly) {
  // As doubles 2^53 and 2^53 + 1 are the same.
  expect_rows({{"big = 9007199254740993", true},
               {"big = 9007199254740992", false},
               {"big > 9007199254740992", true}});
}

TEST(Filter, FindsEveryTestOfAMissingValueFalse) {
  expect_rows({{"nope = 'a'", false},
               {"nope != 'a'", false},
               {"nope < 'a'", false},
               {"nope <= 'a'", false},
               {"nope > 'a'", false},
               {"nope >= ''", false},
               {"nope = 1", false},
               {"nope != 1", false},
               {"nope in ('a')", false},
               {"nope prefix ''", false},
               {"exists nope", false},
               {"not (nope = 'a')", true},
               {"not nope != 'a'", true},
               {"not exists nope", true}});
}

TEST(Filter, ReadsTheFieldsOfTheEnvelope) {
  expect_rows({{"$topic = 'orders.eu'", true},
               {"$topic prefix 'orders.'", true},
               {"$key = 'customer-9'", true},
               {"$id = '01890a5d-ac96-774b-bcce-b302099a8057'", true},
               {"$content_type prefix 'application/'", true},
               {"$correlation_id = 'corr'", true},
               {"$causation_id = 'cause'", true},
               {"$dedup_id = 'dedup'", true},
               {"$priority = 5", true},
               {"$priority >= 6", false},
               {"$priority = '5'", true},
               {"$partition = 42", true},
               {"$attempt > 1", true},
               {"$redrives = 1", true},
               {"$size = 10", true},
               {"$size < 10", false},
               {"exists $key", true},
               {"exists $priority", true}});
}

TEST(Filter, TakesEmptyTextFieldsForMissingAndAnEmptyKeyForAKey) {
  spi::Envelope bare;
  for (const char* field :
       {"$topic", "$key", "$id", "$content_type", "$correlation_id", "$causation_id", "$dedup_id"}) {
    EXPECT_FALSE(matches(std::string("exists ") + field, bare)) << field;
    EXPECT_FALSE(matches(std::string(field) + " = ''", bare)) << field;
  }
  bare.key = "";
  EXPECT_TRUE(matches("exists $key and $key = ''", bare));
  EXPECT_TRUE(matches("$priority = 0 and $attempt = 1 and $size = 0", bare));
}

TEST(Filter, TellsAFieldFromAHeaderOfTheSameName) {
  spi::Envelope e = envelope();
  e.headers.emplace_back("priority", "1");
  EXPECT_TRUE(matches("priority = 1 and $priority = 5", e));
}

TEST(Filter, ReachesAnyHeaderInDoubleQuotes) {
  expect_rows({{"\"odd name\" = 'x'", true},
               {"\"in\" = 'y'", true},
               {"exists \"region\"", true},
               {"exists Region", false}});
}

TEST(Filter, JoinsTestsWithTheUsualPrecedence) {
  const char* t = "region = 'eu'";
  const char* f = "region = 'us'";
  const auto eval = [&](std::string pattern) {
    std::string text;
    for (const char c : pattern)
      text += c == 'T' ? t : c == 'F' ? f : std::string(1, c);
    return matches(text);
  };
  EXPECT_TRUE(eval("T or F and F"));
  EXPECT_FALSE(eval("(T or F) and F"));
  EXPECT_TRUE(eval("F and F or T"));
  EXPECT_FALSE(eval("not T or F"));
  EXPECT_TRUE(eval("not (T and F)"));
  EXPECT_TRUE(eval("not not T"));
  EXPECT_FALSE(eval("not not not T"));
  EXPECT_TRUE(eval("Not F And T oR F"));
  EXPECT_TRUE(eval("((((T))))"));
  EXPECT_TRUE(eval("T and T and T or F"));
  EXPECT_FALSE(eval("F or F or F"));
}

TEST(Filter, LetsEverythingThroughWhenItSaysNothing) {
  EXPECT_TRUE(Filter{}.matches(envelope()));
  EXPECT_TRUE(Filter{}.empty());
  EXPECT_TRUE(Filter::compile("")->empty());
  EXPECT_TRUE(matches(""));
  EXPECT_FALSE(Filter::compile("exists a")->empty());
}

// ---- random expressions ---------------------------------------------------------------------------------

// An expression as text, and its value found by plain C++ as it was built. Headers: a is missing, b is "x", c
// is "5".
struct Expression {
  std::string text;
  bool value;
};

Expression any_expression(int depth) {
  const int kind = *rc::gen::inRange(0, depth > 0 ? 7 : 4);
  static const Expression kTests[] = {{"a = 'x'", false}, {"a != 'x'", false},  {"exists a", false},
                                      {"b = 'x'", true},  {"b != 'x'", false},  {"b prefix 'x'", true},
                                      {"c > 4", true},    {"c in (1,2)", false}};
  if (kind < 4) return kTests[*rc::gen::inRange(0, 8)];
  Expression left = any_expression(depth - 1);
  if (kind == 4) return {"not (" + left.text + ")", !left.value};
  const Expression right = any_expression(depth - 1);
  if (kind == 5) return {"(" + left.text + ") and (" + right.text + ")", left.value && right.value};
  return {"(" + left.text + ") or (" + right.text + ")", left.value || right.value};
}

TEST(Filter, EqualsPlainEvaluationForRandomExpressions) {
  spi::Envelope e;
  e.headers = {{"b", "x"}, {"c", "5"}};
  int holding = 0;
  support::for_all(
      [&] {
        const Expression expression = any_expression(5);
        const auto filter = Filter::compile(expression.text);
        RC_LOG() << expression.text;
        // Deep ones can be longer than a filter may be.
        RC_PRE(expression.text.size() <= kFilterLengthMax);
        RC_ASSERT(filter.ok());
        RC_ASSERT(filter->matches(e) == expression.value);
        holding += expression.value ? 1 : 0;
      },
      3000);
  EXPECT_GT(holding, 300);
  EXPECT_LT(holding, 2700);
}

}  // namespace
}  // namespace towline::policy
