// What is a saga and what is not, and what makes two definitions the same.

#include "saga/shape.hpp"

#include <gtest/gtest.h>

namespace towline::saga {
namespace {

Shape three() { return {{{{"reserve"}}, {{"charge"}}, {{"ship"}}}, {}}; }

TEST(Shape, ASagaOfStepsThatCanBeUndoneIsGood) {
  EXPECT_TRUE(check_shape(three()).ok());
  EXPECT_TRUE(check_shape({{{{"a"}, {"b"}}, {{"c"}}}, {}}).ok()) << "side by side";
}

TEST(Shape, ABadOneIsRefusedAndTheErrorNamesTheStep) {
  const auto refusal = [](const Shape& shape) { return check_shape(shape).error(); };
  EXPECT_EQ(refusal({}).message, "the saga has no steps");
  EXPECT_EQ(refusal({{{}}, {}}).message, "a branch of the saga has no steps");
  EXPECT_EQ(refusal({{{{"a"}}, {{"a"}}}, {}}).code, ErrorCode::kInvalidSaga);
  EXPECT_EQ(refusal({{{{"a"}, {"a"}}}, {}}).message, "two steps are named 'a'; each needs a name of its own");
  EXPECT_EQ(refusal({{{{"a b"}}}, {}}).code, ErrorCode::kInvalidName);
  EXPECT_EQ(
      refusal({{{{"a", false}}}, {}}).message,
      "step 'a' has no compensation; give it one, say that it changes nothing, or put it behind the pivot");
  Shape large;
  for (std::size_t i = 0; i <= kStepCountMax; ++i)
    large.stages.push_back({{"s" + std::to_string(i)}});
  EXPECT_EQ(refusal(large).message, "the saga has 10001 steps, but at most 10000 are allowed");
  large.stages.pop_back();
  EXPECT_TRUE(check_shape(large).ok());
}

TEST(Shape, FromThePivotOnNoCompensationIsNeeded) {
  const Shape shape{{{{"reserve"}}, {{"charge", false}}, {{"ship", false}}}, "charge"};
  EXPECT_TRUE(check_shape(shape).ok());
  EXPECT_EQ(shape.pivot_stage(), 1U);
  EXPECT_EQ(check_shape({{{{"a"}}}, "b"}).error().code, ErrorCode::kInvalidSaga) << "no such step";
  EXPECT_EQ(check_shape({{{{"a"}, {"b"}}}, "b"}).error().code, ErrorCode::kInvalidSaga) << "not alone";
  EXPECT_TRUE(check_shape({{{{"look", false, true}}, {{"a"}}}, {}}).ok()) << "it changes nothing";
}

TEST(Shape, TheFingerprintSaysWhatAStoredSagaReliesOn) {
  const std::string print = fingerprint_of(three());
  EXPECT_EQ(print.size(), 16U);
  EXPECT_EQ(fingerprint_of(three()), print);
  Shape other = three();
  std::swap(other.stages[0], other.stages[1]);
  EXPECT_NE(fingerprint_of(other), print) << "another order";
  other = three();
  other.stages[2][0].name = "send";
  EXPECT_NE(fingerprint_of(other), print) << "another name";
  other = three();
  other.pivot = "ship";
  EXPECT_NE(fingerprint_of(other), print) << "a pivot";
  other = {{{{"reserve"}, {"charge"}}, {{"ship"}}}, {}};
  EXPECT_NE(fingerprint_of(other), print) << "side by side";
  other = three();
  other.stages[0][0] = {"reserve", false, true};
  EXPECT_NE(fingerprint_of(other), print) << "nothing to undo";
}

}  // namespace
}  // namespace towline::saga
