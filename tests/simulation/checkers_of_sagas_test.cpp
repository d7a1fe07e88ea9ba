// K8 finds what is planted in a clean history of a saga, and finds nothing in clean ones.

#include <gtest/gtest.h>

#include "simulation/story.hpp"

namespace towline::simulation {
namespace {

/// A saga of the steps a, b and c, told entry by entry.
class SagaStory : public Story {
 public:
  SagaStory() : Story(0) {
    SagaDefinition definition;
    definition.type = "saga0";
    for (const char* name : {"a", "b", "c"}) {
      SagaStep step;
      step.name = name;
      step.options.retry.max_attempts = 1;
      step.options.compensation_retry.max_attempts = 2;
      definition.stages.push_back({step});
    }
    facts.saga_types.push_back(definition);
    facts.sagas.emplace_back().steps.resize(3);
    end.sagas.emplace_back().is_there = true;
    saga().status = SagaStatus::kCompleted;
    Record& r = note(Event::kSagaStart);
    r.index = 1;
    log(SagaMark::kBegun, "");
  }
  SagaRemains& saga() { return end.sagas[0]; }

  void log(SagaMark mark, const std::string& step, std::uint32_t attempt = 0) {
    Record& r = note(Event::kSagaLog);
    r.index = step.empty() ? kNobody : static_cast<std::uint32_t>(step[0] - 'a');
    r.attempt = attempt;
    r.reason = static_cast<std::uint8_t>(mark);
    SagaEntry entry;
    entry.mark = mark;
    entry.step = step;
    entry.attempt = attempt;
    saga().log.push_back(entry);
  }
  void begin_deed(const std::string& step, std::uint8_t phase, std::uint32_t attempt = 1,
                  bool output = false) {
    Record& r = note(Event::kDeed);
    r.index = static_cast<std::uint32_t>(step[0] - 'a');
    r.group = phase;
    r.attempt = attempt;
    r.redrives = output ? 1 : 0;
    r.lease = ++call_last_;
  }
  void end_deed(Verb verb = Verb::kAck) {
    Record& r = note(Event::kDeedEnd);
    r.lease = call_last_;
    r.verb = verb;
  }
  void run(const std::string& step) {
    log(SagaMark::kStarted, step, 1);
    begin_deed(step, 0);
    end_deed();
    log(SagaMark::kDone, step, 1);
  }
  void fail(const std::string& step) {
    log(SagaMark::kStarted, step, 1);
    begin_deed(step, 0);
    end_deed(Verb::kFail);
    log(SagaMark::kGivenUp, step, 1);
    saga().status = SagaStatus::kCompensated;
  }
  void undo(const std::string& step, bool output = true) {
    log(SagaMark::kCompensating, step, 1);
    begin_deed(step, 1, 1, output);
    end_deed();
    log(SagaMark::kCompensated, step, 1);
  }

 private:
  std::uint64_t call_last_ = 0;
};

TEST(SagaChecker, FindsNothingInCleanSagas) {
  SagaStory completed;
  for (const char* step : {"a", "b", "c"})
    completed.run(step);
  EXPECT_EQ(completed.findings(), "");
  SagaStory undone;
  undone.run("a");
  undone.run("b");
  undone.fail("c");
  undone.undo("c", false);
  undone.undo("b");
  undone.undo("a");
  EXPECT_EQ(undone.findings(), "");
}

TEST(SagaChecker, FindsSagasThatDoNotEndAreGoneOrWereBegunTwice) {
  SagaStory open;
  open.run("a");
  open.saga().status = SagaStatus::kRunning;
  EXPECT_EQ(open.finds("K8", "still running"), 1U);
  SagaStory gone;
  gone.saga() = {};
  EXPECT_EQ(gone.finds("K8", "and it is gone"), 1U);
  SagaStory twice;
  for (const char* step : {"a", "b", "c"})
    twice.run(step);
  Record& again = twice.note(Event::kSagaStart);
  again.index = 1;
  EXPECT_EQ(twice.finds("K8", "begun 2 times"), 1U);
  SagaStory early;
  for (const char* step : {"a", "b"})
    early.run(step);
  EXPECT_EQ(early.finds("K8", "completed without step c"), 1U);
  SagaStory cancelled;
  cancelled.note(Event::kSagaCancel);
  for (const char* step : {"a", "b", "c"})
    cancelled.run(step);
  EXPECT_EQ(cancelled.finds("K8", "its cancel() was acknowledged"), 1U);
}

TEST(SagaChecker, FindsStepsThatAreNotUndoneOrUndoneForwards) {
  SagaStory half;
  half.run("a");
  half.fail("b");
  half.undo("a");
  EXPECT_EQ(half.finds("K8", "what step b did is not undone"), 1U);
  SagaStory forwards;
  forwards.run("a");
  forwards.run("b");
  forwards.fail("c");
  forwards.undo("c", false);
  forwards.undo("a");
  forwards.undo("b");
  EXPECT_EQ(forwards.finds("K8", "its log undoes the steps in a wrong order"), 1U);
  EXPECT_EQ(forwards.finds("K8", "was undone out of order"), 1U);
  SagaStory again;
  again.fail("a");
  again.undo("a", false);
  again.log(SagaMark::kStarted, "a", 2);
  EXPECT_EQ(again.finds("K8", "begun while it was undone"), 1U);
}

TEST(SagaChecker, FindsDeedsThatWereNotAnnouncedOrDoneTwice) {
  SagaStory unannounced;
  unannounced.begin_deed("a", 0);
  unannounced.end_deed();
  for (const char* step : {"a", "b", "c"})
    unannounced.run(step);
  EXPECT_EQ(unannounced.finds("K8", "was run before the log said so"), 1U);
  EXPECT_EQ(unannounced.finds("K8", "step a, attempt 1 was run twice"), 1U);
  SagaStory late;
  late.fail("a");
  late.begin_deed("a", 0, 1);
  late.undo("a", false);
  EXPECT_EQ(late.finds("K8", "was run when the log had ended it"), 1U);
  late.facts.may_stand_still = true;
  EXPECT_EQ(late.finds("K8", "was run when the log had ended it"), 0U);
}

TEST(SagaChecker, FindsWhatTheLogOnlySays) {
  SagaStory story;
  story.run("a");
  story.run("b");
  story.log(SagaMark::kStarted, "c", 1);
  story.begin_deed("c", 0);
  story.end_deed(Verb::kFail);
  story.log(SagaMark::kDone, "c", 1);
  EXPECT_EQ(story.finds("K8", "step c, attempt 1 did not succeed"), 1U);
  SagaStory lost;
  for (const char* step : {"a", "b", "c"})
    lost.run(step);
  lost.saga().log.pop_back();
  EXPECT_EQ(lost.finds("K8", "its log is not what was committed"), 1U);
}

TEST(SagaChecker, FindsWhatIsGivenUpTooEarlyAndWrongOutputs) {
  SagaStory story;
  story.facts.saga_types[0].stages[1][0].options.retry.max_attempts = 2;
  story.run("a");
  story.fail("b");
  story.undo("b", true);
  story.undo("a", false);
  EXPECT_EQ(story.finds("K8", "step b, attempt 1 was given up too early"), 1U);
  EXPECT_EQ(story.finds("K8", "got an output of a step that failed"), 1U);
  EXPECT_EQ(story.finds("K8", "did not get the step's output"), 1U);
}

}  // namespace
}  // namespace towline::simulation
