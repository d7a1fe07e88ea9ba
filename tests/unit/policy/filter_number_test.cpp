// What the filter language takes for a number.

#include "policy/filter_number.hpp"

#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include "support/property.hpp"

namespace towline::policy {
namespace {

TEST(FilterNumber, HasTheDocumentedForm) {
  for (const char* text : {"0", "-0", "7", "007", "-12", "1.5", "-0.25", "1e3", "1E3", "1.5e-3", "2e+2",
                           "9223372036854775808"}) {
    EXPECT_TRUE(parse_filter_number(text).has_value()) << text;
  }
  for (const char* text : {"",    "-",    "+1",  ".5",  "1.",   "1e", "1e+", "e1",    " 1",    "1 ",
                           "1,0", "0x10", "inf", "nan", "-inf", "1-", "--1", "1.2.3", "1e400", "\xd9\xa1"}) {
    EXPECT_FALSE(parse_filter_number(text).has_value()) << text;
  }
}

TEST(FilterNumber, IsWholeWithoutFractionAndExponentWithin64Bits) {
  EXPECT_TRUE(parse_filter_number("9223372036854775807")->is_whole);
  EXPECT_TRUE(parse_filter_number("-9223372036854775808")->is_whole);
  EXPECT_FALSE(parse_filter_number("9223372036854775808")->is_whole);
  EXPECT_FALSE(parse_filter_number("1.0")->is_whole);
  EXPECT_FALSE(parse_filter_number("1e1")->is_whole);
  EXPECT_EQ(parse_filter_number("-42")->whole, -42);
  EXPECT_EQ(parse_filter_number("-42")->real, -42.0);
  EXPECT_EQ(parse_filter_number("9223372036854775808")->real, 9223372036854775808.0);
}

TEST(FilterNumber, FindsWhereANumberEndsInLongerText) {
  EXPECT_EQ(filter_number_length("12)"), 2u);
  EXPECT_EQ(filter_number_length("1.5,"), 3u);
  EXPECT_EQ(filter_number_length("1.x"), 1u);
  EXPECT_EQ(filter_number_length("1ex"), 1u);
  EXPECT_EQ(filter_number_length("x1"), 0u);
}

TEST(FilterNumber, ReadsBackEveryWholeNumber) {
  support::for_all([](std::int64_t value) {
    const auto number = parse_filter_number(std::to_string(value));
    RC_ASSERT(number.has_value());
    RC_ASSERT(number->is_whole);
    RC_ASSERT(number->whole == value);
  });
}

TEST(FilterNumber, IsNeverInfiniteOrNotANumber) {
  support::for_all(
      [](const std::string& digits) {
        std::string text;
        for (const char c : digits)
          text.push_back("0123456789.e-"[static_cast<unsigned char>(c) % 13]);
        if (const auto number = parse_filter_number(text)) RC_ASSERT(std::isfinite(number->real));
      },
      5000, 30);
}

}  // namespace
}  // namespace towline::policy
