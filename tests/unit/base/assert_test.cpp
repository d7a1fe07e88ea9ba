// TOWLINE_ASSERT: what it does when its condition is false, with and without a handler.

#include "base/assert.hpp"

#include <string>

#include <gtest/gtest.h>

namespace towline::base {
namespace {

int reported_count = 0;
std::string reported_condition;

void note(const AssertionFailure& failure) noexcept {
  ++reported_count;
  reported_condition = failure.condition;
}

class Assert : public ::testing::Test {
 protected:
  void SetUp() override {
    reported_count = 0;
    reported_condition.clear();
  }
  void TearDown() override { set_assertion_handler(nullptr); }
};

TEST_F(Assert, IsTrueAndSilentWhenTheConditionHolds) {
  set_assertion_handler(note);
  EXPECT_TRUE(TOWLINE_ASSERT(1 + 1 == 2));
  EXPECT_EQ(reported_count, 0);
}

TEST_F(Assert, TellsTheHandlerWhichConditionBrokeAndGoesOn) {
  set_assertion_handler(note);
  EXPECT_FALSE(TOWLINE_ASSERT(1 + 1 == 3));
  EXPECT_EQ(reported_count, 1);
  EXPECT_EQ(reported_condition, "1 + 1 == 3");
}

TEST_F(Assert, EvaluatesItsConditionOnce) {
  int evaluated = 0;
  EXPECT_TRUE(TOWLINE_ASSERT(++evaluated == 1));
  EXPECT_EQ(evaluated, 1);
}

TEST_F(Assert, AnswersTheHandlerThatWasInstalledBefore) {
  EXPECT_EQ(set_assertion_handler(note), nullptr);
  EXPECT_EQ(set_assertion_handler(nullptr), &note);
}

TEST_F(Assert, AbortsWithTheConditionAndThePlaceWhenNobodyHandlesIt) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_DEATH((void)TOWLINE_ASSERT(1 + 1 == 4), "assertion failed: 1 \\+ 1 == 4 .*assert_test.cpp:[0-9]+");
}

}  // namespace
}  // namespace towline::base
