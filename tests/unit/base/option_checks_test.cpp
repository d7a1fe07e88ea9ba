// Bounds and parsing of options: what is refused, and that the text names the option, the value and the
// bound.

#include "base/option_checks.hpp"

#include <chrono>
#include <cmath>
#include <limits>
#include <string>

#include <gtest/gtest.h>

namespace towline::base {
namespace {

using namespace std::chrono_literals;

void expect_refused(const Result<void>& result, const std::string& text) {
  ASSERT_FALSE(result.ok()) << text;
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidConfig);
  EXPECT_EQ(result.error().message, text);
}

TEST(CheckCount, NamesTheBoundsThatItKeeps) {
  EXPECT_TRUE(check_count("a.b", 1, 1, 5).ok());
  EXPECT_TRUE(check_count("a.b", 5, 1, 5).ok());
  expect_refused(check_count("a.b", 0, 1, 5), "a.b is 0, but must be between 1 and 5");
  expect_refused(check_count("a.b", 6, 1, 5), "a.b is 6, but must be between 1 and 5");
  EXPECT_FALSE(check_count("a.b", std::numeric_limits<std::int64_t>::min(), 0, 5).ok());
}

TEST(CheckRatio, RefusesWhatIsNoNumber) {
  EXPECT_TRUE(check_ratio("a.r", 0.0, 0.0, 1.0).ok());
  EXPECT_TRUE(check_ratio("a.r", 1.0, 0.0, 1.0).ok());
  for (const double bad : {-0.001, 1.001, std::nan(""), std::numeric_limits<double>::infinity()}) {
    EXPECT_FALSE(check_ratio("a.r", bad, 0.0, 1.0).ok()) << bad;
  }
  EXPECT_FALSE(check_ratio("a.r", std::numeric_limits<double>::infinity(), 0.0, 1e308).ok());
}

TEST(CheckDuration, ComparesInMicrosecondsAndSpeaksInMilliseconds) {
  EXPECT_TRUE(check_duration("a.d_ms", 100ms, 100, 200).ok());
  EXPECT_TRUE(check_duration("a.d_ms", 200ms, 100, 200).ok());
  expect_refused(check_duration("a.d_ms", 250ms, 100, 200),
                 "a.d_ms is 250 ms, but must be between 100 ms and 200 ms");
  EXPECT_FALSE(check_duration("a.d_ms", 99'999us, 100, 200).ok());
  EXPECT_FALSE(check_duration("a.d_ms", 200'001us, 100, 200).ok());
  EXPECT_FALSE(check_duration("a.d_ms", Duration::max(), 0, 316224000000).ok());
  EXPECT_FALSE(check_duration("a.d_ms", Duration::min(), 0, 316224000000).ok());
}

TEST(SetCount, TakesWholeNumbersAndNothingElse) {
  std::int64_t field = 7;
  EXPECT_TRUE(set_count("n", "42", field).ok());
  EXPECT_EQ(field, 42);
  EXPECT_TRUE(set_count("n", "-1", field).ok());
  field = 7;
  for (const char* bad : {"", " 1", "1 ", "1.5", "0x10", "one", "99999999999999999999", "+1"}) {
    EXPECT_FALSE(set_count("n", bad, field).ok()) << bad;
  }
  EXPECT_EQ(field, 7) << "a refused value changes nothing";
  expect_refused(set_count("n", "a\nb", field), "n: 'a\\nb' is not a whole number");
}

TEST(SetDuration, TakesMillisecondsThatFit) {
  Duration field = 1s;
  EXPECT_TRUE(set_duration("d_ms", "1500", field).ok());
  EXPECT_EQ(field, 1500ms);
  for (const char* bad :
       {"-1", "-0.5", "1s", "1.2345", "1.", ".5", "1.-5", "1.+5", "", "9223372036854775807"}) {
    EXPECT_FALSE(set_duration("d_ms", bad, field).ok()) << bad;
  }
  EXPECT_EQ(field, 1500ms);
  EXPECT_TRUE(set_duration("d_ms", "9223372036854774", field).ok());
  EXPECT_TRUE(set_duration("d_ms", "0.05", field).ok());
  EXPECT_EQ(field, 50us);
  EXPECT_TRUE(set_duration("d_ms", "2.125", field).ok());
  EXPECT_EQ(field, 2125us);
}

TEST(SetBool, KnowsThreeWordsForEach) {
  bool field = false;
  for (const char* yes : {"true", "1", "on"}) {
    field = false;
    EXPECT_TRUE(set_bool("b", yes, field).ok());
    EXPECT_TRUE(field) << yes;
  }
  for (const char* no : {"false", "0", "off"}) {
    field = true;
    EXPECT_TRUE(set_bool("b", no, field).ok());
    EXPECT_FALSE(field) << no;
  }
  expect_refused(set_bool("b", "yes", field), "b: 'yes' is not true or false");
}

TEST(SetRatio, TakesDecimalNumbers) {
  double field = 0;
  EXPECT_TRUE(set_ratio("r", "0.25", field).ok());
  EXPECT_EQ(field, 0.25);
  for (const char* bad : {"", "x", "0.5x", "1,5"})
    EXPECT_FALSE(set_ratio("r", bad, field).ok()) << bad;
  EXPECT_EQ(field, 0.25);
}

TEST(SetEnum, KnowsTheNamesOfTheEnumerators) {
  EngineOptions options;
  EXPECT_TRUE(set_option(options, "durability", "process").ok());
  EXPECT_EQ(options.durability, Durability::kProcess);
  EXPECT_TRUE(set_option(options, "durability", "host").ok());
  EXPECT_EQ(options.durability, Durability::kHost);
  expect_refused(set_option(options, "durability", "disk"),
                 "durability: 'disk' is not one of default, process, host");
  ConsumerOptions consumer;
  EXPECT_TRUE(set_option(consumer, "order", "key_ordered").ok());
  EXPECT_EQ(consumer.order, Order::kKeyOrdered);
  EXPECT_TRUE(set_option(consumer, "classify.otherwise", "not_a_failure").ok());
}

TEST(CheckEnum, RefusesANumberThatIsNoEnumerator) {
  EngineOptions options;
  options.durability = static_cast<Durability>(9);
  expect_refused(validate(options), "engine.durability is 9, but must be between 0 and 2");
}

TEST(SetStart, KnowsTheFourPlaces) {
  using Kind = spi::StartPosition::Kind;
  ConsumerOptions options;
  EXPECT_TRUE(set_option(options, "start", "latest").ok());
  EXPECT_EQ(options.start.kind, Kind::kLatest);
  EXPECT_TRUE(set_option(options, "start", "at:1700000000000000").ok());
  EXPECT_EQ(options.start.kind, Kind::kAtTime);
  EXPECT_EQ(to_us(options.start.at), 1'700'000'000'000'000);
  EXPECT_TRUE(set_option(options, "start", "after:01890a5d-ac96-774b-bcce-b302099a8057").ok());
  EXPECT_EQ(options.start.after_id.to_string(), "01890a5d-ac96-774b-bcce-b302099a8057");
  for (const char* bad : {"", "at:", "at:x", "after:", "after:1", "now"}) {
    EXPECT_FALSE(set_option(options, "start", bad).ok()) << bad;
  }
  EXPECT_TRUE(set_option(options, "start", "earliest").ok());
  EXPECT_EQ(options.start.kind, Kind::kEarliest);
}

TEST(SetOption, ReachesOptionsWithinOptionsAndAddsToLists) {
  ConsumerOptions options;
  EXPECT_TRUE(set_option(options, "retry.max_attempts", "9").ok());
  EXPECT_TRUE(set_option(options, "retry.sequence_ms", "0.5").ok());
  EXPECT_TRUE(set_option(options, "retry.sequence_ms", "7").ok());
  EXPECT_TRUE(set_option(options, "dead_letters.error_types", "ValueError").ok());
  EXPECT_TRUE(set_option(options, "partitions", "3").ok());
  EXPECT_EQ(options.retry.max_attempts, 9);
  EXPECT_EQ(options.retry.sequence, (std::vector<Duration>{500us, 7ms}));
  EXPECT_EQ(options.dead_letters.error_types, std::vector<std::string>{"ValueError"});
  EXPECT_EQ(options.partitions, std::vector<std::uint32_t>{3});
  expect_refused(set_option(options, "retry.attempts", "9"),
                 "unknown option 'attempts'; did you mean 'max_attempts'?");
  expect_refused(set_option(options, "dead_letter.enabled", "on"),
                 "unknown option 'dead_letter.enabled'; did you mean 'dead_letters.enabled'?");
}

TEST(SetOption, KnowsEveryNameThatIsAnOption) {
  for (const auto& row : detail::option_table()) {
    if (row.group != "Consumer") continue;
    const bool from_text = row.type != "struct" && (row.type != "code" || row.name == "start");
    EXPECT_EQ(is_option("Consumer", row.name), from_text) << row.name;
    ConsumerOptions options;
    const auto set = set_option(options, row.name, "\n");
    EXPECT_EQ(!set.ok() && set.error().message.starts_with("unknown"), !from_text) << row.name;
  }
}

TEST(UnknownOption, SuggestsTheNearestName) {
  expect_refused(unknown_option("Engine", "leese_ms"), "unknown option 'leese_ms'; did you mean 'lease_ms'?");
}

TEST(SetOption, TakesTheNamesOfTheTableAndNoOthers) {
  EngineOptions options;
  EXPECT_TRUE(set_option(options, "lease_ms", "5000").ok());
  EXPECT_EQ(options.lease, 5s);
  EXPECT_FALSE(set_option(options, "Lease_ms", "5000").ok());
  EXPECT_FALSE(set_option(options, "", "5000").ok());
}

TEST(Validate, AcceptsTheDefaultsOfEveryGroup) {
  EXPECT_TRUE(validate(EngineOptions{}).ok());
  EXPECT_TRUE(validate(ConsumerOptions{}).ok());
  EXPECT_TRUE(validate(RetryOptions{}).ok());
  EXPECT_TRUE(validate(TopicOptions{}).ok());
  EXPECT_TRUE(validate(IdempotencyOptions{}).ok());
}

TEST(Validate, NamesTheOptionInsideItsGroup) {
  ConsumerOptions options;
  options.retry.max_attempts = 0;
  expect_refused(validate(options), "retry.max_attempts is 0, but must be between 1 and 1000000");
}

}  // namespace
}  // namespace towline::base
