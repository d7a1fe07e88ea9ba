// Which flows are refused, and which way through one is the way without failures.

#include "saga/flow.hpp"

#include <gtest/gtest.h>

namespace towline::saga {
namespace {

Step on(std::string listen_to, std::string on_success, std::string on_failure = {}) {
  Step step;
  step.name = on_success;
  step.compensates = false;
  step.listen_to = std::move(listen_to);
  step.on_success = std::move(on_success);
  step.on_failure = std::move(on_failure);
  return step;
}

Shape flow_of(std::vector<Step> steps) {
  Shape shape;
  shape.begins_with = "placed";
  shape.stages.push_back(std::move(steps));
  return shape;
}

std::string refusal(const Shape& shape) {
  const auto checked = check_shape(shape);
  return checked.ok() ? "" : checked.error().message;
}

TEST(Flow, KnowsTheWayWithoutFailuresAndItsEnds) {
  const Shape shape = flow_of({on("placed", "reserved", "refused"), on("reserved", "paid", "unpaid"),
                               on("unpaid", "released"), on("paid", "shipped"), on("paid", "mailed")});
  ASSERT_EQ(refusal(shape), "");
  const Flow flow(shape);
  const std::vector<bool> forward = {true, true, false, true, true}, ends = {false, false, false, true, true};
  for (std::size_t i = 0; i < forward.size(); ++i) {
    EXPECT_EQ(flow.is_forward(i), forward[i]) << i;
    EXPECT_EQ(flow.is_end(i), ends[i]) << i;
  }
  EXPECT_TRUE(flow.listens_to("placed"));
  EXPECT_FALSE(flow.listens_to("refused"));
  EXPECT_FALSE(flow.listens_to(""));
}

TEST(Flow, ThatGoesRoundEndsAllTheSame) {
  // Each event counts once, so nothing is run without end.
  const Shape shape = flow_of({on("placed", "a"), on("a", "b"), on("b", "c"), on("c", "d", "a")});
  EXPECT_EQ(refusal(shape), "");
  EXPECT_TRUE(Flow(shape).is_end(3));
}

TEST(Flow, ThatCannotFlowIsRefusedAndTheErrorNamesTheStep) {
  EXPECT_EQ(
      refusal(flow_of({on("placed", "a"), on("b", "c")})),
      "step 'c' listens to 'b', to which nothing leads from 'placed'; name the step that publishes it, or "
      "expect() it from somebody else");
  EXPECT_EQ(refusal(flow_of({on("placed", "a", "a")})),
            "step 'a' has one event for success and failure; give each its own");
  EXPECT_EQ(refusal(flow_of({on("placed", "a", "placed")})),
            "step 'a' publishes 'placed', with which the saga begins");
  EXPECT_NE(refusal(flow_of({on("placed", "a", "b c")})).find("on_failure"), std::string::npos);
  EXPECT_NE(refusal(flow_of({on("*", "a")})).find("listen_to"), std::string::npos);
  Step awaited = on("placed", "a");
  awaited.is_awaited = true;
  EXPECT_NE(refusal(flow_of({awaited})).find("is awaited, but has no on_failure"), std::string::npos);
  Step undone = on("placed", "a");
  undone.compensates = true;
  EXPECT_NE(refusal(flow_of({undone})).find("has a compensation"), std::string::npos);
  Shape shape = flow_of({on("placed", "a")});
  shape.pivot = "a";
  EXPECT_NE(refusal(shape).find("is a pivot"), std::string::npos);
  shape = flow_of({on("placed", "a")});
  shape.stages.push_back({on("a", "b")});
  EXPECT_EQ(refusal(shape), "all steps of a choreography are in one stage");
  Step round = on("b", "a");
  round.name = "round";
  EXPECT_EQ(refusal(flow_of({on("placed", "a"), on("a", "b"), round})),
            "the way from 'placed' has no end: each event on it leads to another step; leave one that nobody "
            "listens to");
  shape = flow_of({on("placed", "a")});
  shape.begins_with = "not a topic";
  EXPECT_NE(refusal(shape).find("begins_with"), std::string::npos);
}

TEST(Flow, IsPartOfTheFingerprint) {
  const Shape shape = flow_of({on("placed", "a", "b"), on("a", "c")});
  Shape other = shape;
  other.stages[0][1].listen_to = "b";
  EXPECT_NE(fingerprint_of(other), fingerprint_of(shape));
  other = shape;
  other.stages[0][0].is_awaited = true;
  EXPECT_NE(fingerprint_of(other), fingerprint_of(shape));
  other = shape;
  other.stages[0][0].on_failure = "d";
  EXPECT_NE(fingerprint_of(other), fingerprint_of(shape));
}

}  // namespace
}  // namespace towline::saga
