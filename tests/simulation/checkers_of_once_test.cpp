// K9 finds what is planted in a clean history of functions that run once, and finds nothing in a clean one.

#include <gtest/gtest.h>

#include "simulation/story.hpp"

namespace towline::simulation {
namespace {

/// Calls of one key, each in a process of its own.
class OnceStory : public Story {
 public:
  OnceStory() : Story(0) {}
  void ask(std::uint64_t call) {
    Record& r = say(Event::kOnceAsked, call);
    r.until = now.monotonic + std::chrono::seconds(1);
  }
  void effect(std::uint64_t call) { say(Event::kOnceEffect, call).number = call; }
  void return_from(std::uint64_t call) { say(Event::kOnceReturn, call); }
  void answer(std::uint64_t call, std::uint64_t result, Answer answer = Answer::kOk) {
    Record& r = say(Event::kOnce, call);
    r.number = result;
    r.answer = answer;
  }
  void die(std::uint64_t call) { say(Event::kCrash, call); }
  void run(std::uint64_t call, Answer answered = Answer::kOk) {
    ask(call);
    effect(call);
    return_from(call);
    answer(call, call, answered);
  }

 private:
  Record& say(Event event, std::uint64_t call) {
    Record& r = note(event);
    r.lease = call;
    r.process = static_cast<std::uint32_t>(call);
    return r;
  }
};

TEST(OnceChecker, FindsNothingWhereEachRepetitionIsExplained) {
  OnceStory story;
  story.run(1, Answer::kUnknown);
  story.ask(2);
  story.effect(2);
  story.die(2);
  story.run(3, Answer::kLost);
  story.run(4);
  story.ask(5);
  story.answer(5, 4);
  EXPECT_EQ(story.findings(), "");
}

TEST(OnceChecker, FindsWhatRunsAgainAndResultsThatDiffer) {
  OnceStory story;
  story.run(1);
  story.run(2);
  EXPECT_EQ(story.finds("K9", "run again although its result was known"), 1U);
  EXPECT_GE(story.finds("K9", "two results were given"), 1U);
  OnceStory invented;
  invented.ask(1);
  invented.answer(1, 7);
  EXPECT_EQ(invented.finds("K9", "a result was given that no function made"), 1U);
  OnceStory swapped;
  swapped.ask(1);
  swapped.effect(1);
  swapped.run(2, Answer::kUnknown);
  swapped.answer(1, 2);
  EXPECT_EQ(swapped.finds("K9", "ran it and got another result"), 1U);
}

TEST(OnceChecker, FindsTwoThatRunAtOnceUnderTheirLeases) {
  OnceStory story;
  story.ask(1);
  story.effect(1);
  story.ask(2);
  story.effect(2);
  EXPECT_EQ(story.finds("K9", "two functions ran at once"), 1U);
  OnceStory later;
  later.ask(1);
  later.effect(1);
  later.wait(std::chrono::seconds(2));
  later.ask(2);
  later.effect(2);
  EXPECT_EQ(later.findings(), "");
  OnceStory dead;
  dead.ask(1);
  dead.effect(1);
  dead.die(1);
  dead.ask(2);
  dead.effect(2);
  EXPECT_EQ(dead.findings(), "");
}

TEST(OnceChecker, FindsEffectsOfTransactionsThatAreTwiceOrGone) {
  OnceStory story;
  story.note(Event::kOnceInTx).number = 1;
  story.end.effects_in_tx[0] = {1};
  EXPECT_EQ(story.findings(), "");
  story.end.effects_in_tx[0] = {1, 2};
  EXPECT_EQ(story.finds("K9", "transactions left 2 effects"), 1U);
  story.end.effects_in_tx.clear();
  EXPECT_EQ(story.finds("K9", "was committed is gone"), 1U);
  story.note(Event::kOnceInTx).number = 2;
  EXPECT_EQ(story.finds("K9", "two transactions were told"), 1U);
}

}  // namespace
}  // namespace towline::simulation
