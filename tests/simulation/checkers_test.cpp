// Each checker finds the anomaly that is planted in a history, names it, and stays silent over the history
// without it. A checker that cannot find anything would make every seed green.

#include <gtest/gtest.h>

#include "simulation/story.hpp"

namespace towline::simulation {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

Story clean(std::size_t count = 4) {
  Story story(count);
  for (std::uint32_t m = 0; m < count; ++m)
    story.publish(m);
  return story;
}

Story clean_and_handled(std::size_t count = 4) {
  Story story = clean(count);
  for (std::uint32_t m = 0; m < count; ++m)
    story.handle(m);
  return story;
}

// ---- K1 -----------------------------------------------------------------------------------------

TEST(CheckerK1, ACleanHistoryHasNoFindings) {
  const Story story = clean_and_handled();
  EXPECT_EQ(story.findings(), "");
}

TEST(CheckerK1, AnAcknowledgedMessageThatNobodyHandledIsLost) {
  Story story = clean();
  for (const std::uint32_t m : {0u, 1u, 3u})
    story.handle(m);
  EXPECT_EQ(story.finds("K1", "m2/g0 is lost"), 1U) << story.findings();
}

TEST(CheckerK1, WhatIsStillStoredOrDeadIsNotLost) {
  Story story = clean();
  for (const std::uint32_t m : {0u, 1u})
    story.handle(m);
  story.end.remainders.push_back({EndPlace::kScheduled, 2, 0});
  story.facts.messages[3].behaviour[0] = {Mood::kPermanent, kAlways, {}};
  const std::uint64_t lease = story.hand_out(3);
  story.start(3, lease);
  story.finish(3, lease, Verb::kPermanent);
  story.dead(3, DeadLetterReason::kPermanent);
  story.settle(lease, Verb::kDeadLetter);
  EXPECT_EQ(story.finds("K1", "lost"), 0U) << story.findings();
}

TEST(CheckerK1, AMessageWhoseFailureWasAcknowledgedIsLost) {
  Story story = clean(1);
  const std::uint64_t lease = story.hand_out(0);
  story.start(0, lease);
  story.finish(0, lease, Verb::kFail);
  story.settle(lease);
  EXPECT_EQ(story.finds("K1", "m0/g0 is lost"), 1U) << story.findings();
}

TEST(CheckerK1, AHandledMessageThatNobodyPublishedIsMadeUp) {
  Story story(2);
  story.publish(0);
  story.handle(0);
  story.handle(1);
  EXPECT_EQ(story.finds("K1", "m1/g0 was handled, and nobody published it"), 1U) << story.findings();
}

TEST(CheckerK1, ARejectedPublishMustNotBeHandled) {
  Story story(1);
  story.publish(0, Answer::kRejected);
  story.handle(0);
  EXPECT_EQ(story.finds("K1", "surely rejected"), 1U) << story.findings();
}

TEST(CheckerK1, AnUnknownPublishMayBeHandledOrNot) {
  Story story(2);
  story.publish(0, Answer::kUnknown);
  story.publish(1, Answer::kUnknown);
  story.handle(0);
  EXPECT_EQ(story.findings(), "");
}

TEST(CheckerK1, ACancelledMessageMustNotBeHandled) {
  Story story(1);
  story.facts.messages[0].delay = seconds(1);
  story.publish(0);
  story.note(Event::kCancel, 0);
  story.wait(seconds(2));
  EXPECT_EQ(story.findings(), "");
  story.handle(0);
  EXPECT_EQ(story.finds("K1", "cancel() said that it never fires"), 1U) << story.findings();
}

TEST(CheckerK1, CancelHasOneWinner) {
  Story story(1);
  story.facts.messages[0].delay = seconds(1);
  story.publish(0);
  story.note(Event::kCancel, 0);
  story.note(Event::kCancel, 0);
  EXPECT_EQ(story.finds("K1", "cancelled twice"), 1U) << story.findings();
}

TEST(CheckerK1, CancelMustFindWhatIsScheduled) {
  Story story(1);
  story.facts.messages[0].delay = seconds(1);
  story.publish(0);
  story.note(Event::kCancel, 0).answer = Answer::kNotFound;
  story.wait(seconds(2));
  story.handle(0);
  EXPECT_EQ(story.finds("K1", "answered that it does not exist"), 1U) << story.findings();
}

// ---- K2 -----------------------------------------------------------------------------------------

TEST(CheckerK2, ASecondHandlingWithoutACauseIsFound) {
  Story story = clean_and_handled();
  story.handle(2);
  EXPECT_EQ(story.finds("K2", "m2/g0 was handled well and acknowledged, and handled again"), 1U)
      << story.findings();
}

TEST(CheckerK2, ALostLeaseExplainsASecondHandling) {
  Story story = clean(1);
  const std::uint64_t lease = story.hand_out(0);
  story.start(0, lease);
  story.wait(seconds(6));
  const std::uint64_t again = story.hand_out(0, 1, 1);
  story.start(0, again, 1, 1);
  story.finish(0, again);
  story.settle(again);
  story.finish(0, lease);
  story.settle(lease, Verb::kAck, Answer::kLost);
  EXPECT_EQ(story.findings(), "");
}

TEST(CheckerK2, AHandlerThatStartsAfterItsLeaseIsAZombieAndExplained) {
  Story story = clean(1);
  const std::uint64_t lease = story.hand_out(0);
  story.wait(seconds(6));
  story.handle(0);
  story.start(0, lease);
  story.finish(0, lease);
  EXPECT_EQ(story.findings(), "");
}

TEST(CheckerK2, ARedriveExplainsASecondHandling) {
  Story story = clean(1);
  story.facts.messages[0].behaviour[0] = {Mood::kRejects, kAlways, {}};
  story.facts.healed_by_redrive = 1.0;
  const std::uint64_t lease = story.hand_out(0);
  story.start(0, lease);
  story.finish(0, lease, Verb::kReject);
  story.dead(0, DeadLetterReason::kManual);
  story.settle(lease, Verb::kDeadLetter);
  story.note(Event::kRedrive, 0).redrives = 1;
  story.redrives = 1;
  story.handle(0);
  EXPECT_EQ(story.findings(), "");
}

TEST(CheckerK2, AMessageThatIsAcknowledgedFirstIsHandledOnce) {
  Story story = clean(1);
  story.facts.groups[0].options.ack = AckPolicy::kFirst;
  story.facts.groups[0].options.order = Order::kUnordered;
  const std::uint64_t lease = story.hand_out(0);
  story.settle(lease);
  story.start(0, lease);
  story.note(Event::kCrash);
  EXPECT_EQ(story.findings(), "");
  story.handle(0);
  EXPECT_EQ(story.finds("K2", "although it is acknowledged first"), 1U) << story.findings();
}

TEST(CheckerK2, OneDedupIdLetsOneMessageThroughWithinItsWindow) {
  Story story(2);
  for (MessagePlan& message : story.facts.messages)
    message.dedup = 0;
  story.publish(0);
  story.publish(1, Answer::kDuplicate);
  story.handle(0);
  EXPECT_EQ(story.findings(), "");
  story.handle(1);
  EXPECT_EQ(story.finds("K2", "dedup id 0 let m0 and m1 through"), 1U) << story.findings();
}

TEST(CheckerK2, ADedupIdWhileUnfinishedIsFreeWhenItsMessageIsDone) {
  Story early(2);
  Story late(2);
  for (Story* story : {&early, &late}) {
    for (MessagePlan& message : story->facts.messages) {
      message.dedup = 1;
      message.dedup_mode = DedupMode::kWhileUnfinished;
    }
  }
  late.publish(0);
  late.handle(0);
  late.publish(1);
  late.handle(1);
  EXPECT_EQ(late.findings(), "");
  early.publish(0);
  early.publish(1);
  early.handle(0);
  early.handle(1);
  EXPECT_EQ(early.finds("K2", "through while m0 was unfinished"), 1U) << early.findings();
}

TEST(CheckerK2, OfTwoThatAreAnsweredTogetherTheOneThatWasHandedOutBeforeCameFirst) {
  Story story(2);
  for (MessagePlan& message : story.facts.messages) {
    message.dedup = 1;
    message.dedup_mode = DedupMode::kWhileUnfinished;
  }
  story.handle(1);
  story.publish(0);
  story.publish(1);
  story.handle(0);
  EXPECT_EQ(story.finds("K2", "while m0 was unfinished"), 0U) << story.findings();
}

// ---- K3 -----------------------------------------------------------------------------------------

TEST(CheckerK3, AMessageThatOvertakesAnotherOfItsKeyIsFound) {
  Story story = clean();
  for (const std::uint32_t m : {0u, 2u, 1u, 3u})
    story.handle(m);
  EXPECT_EQ(story.finds("K3", "m2/g0 was handled before m1"), 1U) << story.findings();
}

TEST(CheckerK3, OtherKeysMayOvertake) {
  Story story = clean();
  story.facts.messages[1].key = 7;
  for (const std::uint32_t m : {0u, 2u, 1u, 3u})
    story.handle(m);
  EXPECT_EQ(story.findings(), "");
}

TEST(CheckerK3, AKeyThatAnOperatorLetGoOnBeforeItsHeadWasDoneProvesNothing) {
  Story story = clean();
  story.handle(0);
  story.note(Event::kHandRelease).lease = 1;  // key 0, not held
  for (const std::uint32_t m : {2u, 1u, 3u})
    story.handle(m);
  EXPECT_EQ(story.findings(), "");
}

TEST(CheckerK3, WhatWasOvertakenBeforeAnOperatorLetTheKeyGoOnIsFound) {
  Story story = clean();
  story.handle(1);
  story.note(Event::kHandRelease).lease = 1;
  for (const std::uint32_t m : {0u, 3u, 2u})
    story.handle(m);
  EXPECT_EQ(story.finds("K3", "m1/g0 was handled before m0"), 1U) << story.findings();
  EXPECT_EQ(story.finds("K3", "handled before"), 1U) << story.findings();
}

TEST(CheckerK3, TwoHandlersOfOneKeyAtOnceAreFound) {
  Story story = clean(2);
  const std::uint64_t first = story.hand_out(0);
  const std::uint64_t second = story.hand_out(1);
  story.start(0, first);
  story.wait(milliseconds(1));
  story.start(1, second);
  story.wait(milliseconds(1));
  story.finish(0, first);
  story.finish(1, second);
  story.settle(first);
  story.settle(second);
  EXPECT_EQ(story.finds("K3", "handlers of m0 and m1 of one key ran at the same time"), 1U)
      << story.findings();
}

TEST(CheckerK3, WhatOvertakesAFailedMessageThatWaitsForItsNextAttemptIsFound) {
  Story story = clean(3);
  story.facts.messages[0].behaviour[0] = {Mood::kFails, 1, {}};
  story.facts.messages[2].key = 7;
  story.handle(0, Verb::kFail);
  story.handle(2);
  EXPECT_EQ(story.finds("K3", "waited for its next attempt"), 0U) << story.findings();
  Story late = story;
  late.handle(0, Verb::kAck, 2);
  late.handle(1);
  EXPECT_EQ(late.findings(), "");
  story.handle(1);
  story.handle(0, Verb::kAck, 2);
  EXPECT_EQ(story.finds("K3", "m1/g0 was handled while m0 of the same key waited for its next attempt"), 1U)
      << story.findings();
}

TEST(CheckerK3, WhatIsGivenUpWhileItWaitsHoldsItsKeyNoLonger) {
  Story story = clean(2);
  story.facts.messages[0].behaviour[0] = {Mood::kFails, 1, {}};
  story.facts.messages[0].ttl = milliseconds(1);
  story.handle(0, Verb::kFail);
  story.dead(0, DeadLetterReason::kExpired);
  story.handle(1);
  EXPECT_EQ(story.finds("K3", ""), 0U) << story.findings();
}

TEST(CheckerK3, AHandlerWhoseSubscriptionClosedDoesNotCountAsRunning) {
  Story story = clean(1);
  const std::uint64_t first = story.hand_out(0);
  story.start(0, first);
  story.note(Event::kClose);
  const std::uint64_t second = story.hand_out(0);
  story.start(0, second);
  story.finish(0, second);
  story.settle(second);
  story.finish(0, first);
  EXPECT_EQ(story.findings(), "");
}

// ---- K4 -----------------------------------------------------------------------------------------

TEST(CheckerK4, TwoLiveLeasesOnOneMessageAreFound) {
  Story story = clean(1);
  (void)story.hand_out(0);
  story.wait(seconds(1));
  story.handle(0);
  EXPECT_EQ(story.finds("K4", "m0/g0 was handed out while an earlier lease on it was live"), 1U)
      << story.findings();
}

TEST(CheckerK4, ARenewedLeaseIsLiveForLonger) {
  Story story = clean(1);
  (void)story.hand_out(0);
  story.wait(seconds(4));
  story.note(Event::kRenew).until = story.now.monotonic + seconds(5);
  story.wait(seconds(2));
  story.handle(0);
  EXPECT_EQ(story.finds("K4", "live"), 1U) << story.findings();
}

TEST(CheckerK4, ASettlementThatIsAcceptedAfterTheEndOfItsLeaseIsFound) {
  Story story = clean(1);
  const std::uint64_t lease = story.hand_out(0);
  story.start(0, lease);
  story.finish(0, lease);
  story.wait(seconds(6));
  story.settle(lease);
  EXPECT_EQ(story.finds("K4", "was accepted after its end"), 1U) << story.findings();
}

// ---- K5 -----------------------------------------------------------------------------------------

TEST(CheckerK5, AttemptsThatGrowWithFailuresAreClean) {
  Story story = clean(1);
  story.facts.messages[0].behaviour[0] = {Mood::kFails, 2, {}};
  story.handle(0, Verb::kFail, 1);
  story.handle(0, Verb::kFail, 2);
  story.handle(0, Verb::kAck, 3);
  EXPECT_EQ(story.findings(), "");
}

TEST(CheckerK5, MoreAttemptsThanAllowedAreFound) {
  Story story = clean(1);
  for (std::uint32_t attempt = 1; attempt <= 3; ++attempt)
    story.handle(0, Verb::kFail, attempt);
  story.handle(0, Verb::kAck, 4);
  EXPECT_EQ(story.finds("K5", "more often than max_attempts"), 1U) << story.findings();
}

TEST(CheckerK5, AFailureThatNeverWasIsFound) {
  Story story = clean(1);
  story.handle(0, Verb::kAck, 2);
  EXPECT_EQ(story.finds("K5", "charged with a failure that never was"), 1U) << story.findings();
}

TEST(CheckerK5, AttemptsThatGoBackAreFound) {
  Story story = clean(1);
  story.handle(0, Verb::kFail, 1);
  story.handle(0, Verb::kFail, 1);
  story.handle(0, Verb::kFail, 2);
  story.handle(0, Verb::kAck, 1);
  EXPECT_GE(story.finds("K5", "its attempts went back"), 1U) << story.findings();
}

TEST(CheckerK5, AnAttemptThatTheNextDeliveryDoesNotKnowIsFound) {
  Story story = clean(1);
  story.handle(0, Verb::kFail, 1);
  story.handle(0, Verb::kAck, 1);
  EXPECT_EQ(story.finds("K5", "was stored with attempt 2 and came back with attempt 1"), 1U)
      << story.findings();
}

TEST(CheckerK5, ADeathThatNeverWasIsFound) {
  Story story = clean(1);
  const std::uint64_t lease = story.hand_out(0, 1, 1);
  story.start(0, lease, 1, 1);
  story.finish(0, lease);
  story.settle(lease);
  EXPECT_EQ(story.finds("K5", "charged with a death that never was"), 1U) << story.findings();
}

TEST(CheckerK5, ACrashLoopWithoutDeathsIsFound) {
  Story story = clean(1);
  const std::uint64_t lease = story.hand_out(0, 1, 2);
  story.dead(0, DeadLetterReason::kCrashLoop, 2);
  story.settle(lease, Verb::kDeadLetter);
  EXPECT_EQ(story.finds("K5", "its process did not die so often"), 1U) << story.findings();
}

TEST(CheckerK5, AMessageThatKillsForEverIsFound) {
  Story story = clean(1);
  story.facts.messages[0].behaviour[0] = {Mood::kKills, kAlways, {}};
  for (std::uint32_t life = 0; life < 5; ++life) {
    const std::uint64_t lease = story.hand_out(0, 1, life);
    story.start(0, lease, 1, life);
    story.finish(0, lease, Verb::kCrash);
    story.note(Event::kCrash);
    story.wait(seconds(6));
  }
  EXPECT_EQ(story.finds("K5", "killed its process 5 times, max_crashes is 2"), 1U) << story.findings();
}

TEST(CheckerK5, ADeathBesideALostLeaseIsNobodys) {
  Story story = clean(2);
  story.facts.messages[0].behaviour[0] = {Mood::kKills, kAlways, {}};
  for (std::uint32_t life = 0; life < 5; ++life) {
    const std::uint64_t lost = story.hand_out(1);
    if (life > 0) story.settle(lost, Verb::kAck, Answer::kLost);
    const std::uint64_t lease = story.hand_out(0, 1, life);
    story.start(0, lease, 1, life);
    story.finish(0, lease, Verb::kCrash);
    story.note(Event::kCrash);
    story.wait(seconds(6));
  }
  EXPECT_EQ(story.finds("K5", "killed its process"), 0U) << story.findings();
}

// ---- K6 -----------------------------------------------------------------------------------------

TEST(CheckerK6, WhatIsLeftAtTheEndIsFoundWithItsPlace) {
  Story story = clean_and_handled();
  story.end.remainders.push_back({EndPlace::kParked, 1, 0});
  EXPECT_EQ(story.finds("K6", "m1/g0 is still parked at the end"), 1U) << story.findings();
}

TEST(CheckerK6, TwoPendingDeadLettersOfOneMessageAndAReprocessingOneAreFound) {
  Story story = clean_and_handled();
  DeadLetter letter;
  letter.group = "g0";
  letter.status = DeadLetterStatus::kPending;
  story.end.dead_letters = {letter};
  EXPECT_EQ(story.findings(), "");
  story.end.dead_letters.push_back(letter);
  EXPECT_EQ(story.finds("K6", "has two pending dead letters"), 1U) << story.findings();
  story.end.dead_letters.back().status = DeadLetterStatus::kReprocessing;
  EXPECT_EQ(story.finds("K6", "still being reprocessed"), 1U) << story.findings();
}

// ---- K7 -----------------------------------------------------------------------------------------

TEST(CheckerK7, AHandlerBeforeTheDueTimeIsFound) {
  Story story(1);
  story.facts.messages[0].delay = seconds(3);
  story.publish(0);
  story.wait(seconds(2));
  story.handle(0);
  EXPECT_EQ(story.finds("K7", "before its due time"), 1U) << story.findings();
}

TEST(CheckerK7, ARescheduleMovesTheDueTime) {
  Story story(1);
  story.facts.messages[0].delay = seconds(3);
  story.publish(0);
  story.note(Event::kReschedule, 0).until_wall = story.now.wall + seconds(1);
  story.wait(seconds(2));
  story.handle(0);
  EXPECT_EQ(story.findings(), "");
}

TEST(CheckerK7, ARetryBeforeItsWaitIsOverIsFound) {
  Story story = clean(1);
  story.facts.messages[0].behaviour[0] = {Mood::kFails, 1, {}};
  story.handle(0, Verb::kFail, 1);
  for (Record& r : story.history) {
    if (r.event == Event::kStored) r.until_wall = story.now.wall + seconds(1);
  }
  story.handle(0, Verb::kAck, 2);
  EXPECT_EQ(story.finds("K7", "tried again before its wait was over"), 1U) << story.findings();
}

// ---- K8 -----------------------------------------------------------------------------------------

TEST(CheckerK8, ADeadLetterBeforeItsAttemptsWereUsedUpIsFound) {
  Story story = clean(1);
  story.facts.messages[0].behaviour[0] = {Mood::kFails, kAlways, {}};
  const std::uint64_t lease = story.hand_out(0);
  story.start(0, lease);
  story.finish(0, lease, Verb::kFail);
  story.dead(0, DeadLetterReason::kExhausted);
  story.settle(lease, Verb::kDeadLetter);
  EXPECT_EQ(story.finds("K8", "became a dead letter"), 1U) << story.findings();
}

TEST(CheckerK8, ADeadLetterWithAReasonThatItsHandlerNeverGaveIsFound) {
  for (const DeadLetterReason reason :
       {DeadLetterReason::kPermanent, DeadLetterReason::kManual, DeadLetterReason::kExpired}) {
    Story story = clean(1);
    const std::uint64_t lease = story.hand_out(0);
    story.dead(0, reason);
    story.settle(lease, Verb::kDeadLetter);
    EXPECT_EQ(story.finds("K8", "m0/g0 (fine) became a dead letter"), 1U) << story.findings();
  }
}

TEST(CheckerK8, ADeadLetterThatIsNowhereInTheDumpIsFound) {
  Story story = clean(1);
  story.facts.messages[0].behaviour[0] = {Mood::kRejects, kAlways, {}};
  const std::uint64_t lease = story.hand_out(0);
  story.start(0, lease);
  story.finish(0, lease, Verb::kReject);
  story.dead(0, DeadLetterReason::kManual);
  story.settle(lease, Verb::kDeadLetter);
  EXPECT_EQ(story.findings(), "");
  story.end.dead_letters.clear();
  EXPECT_EQ(story.finds("K8", "the dead letter of m0/g0 is gone"), 1U) << story.findings();
}

TEST(CheckerK8, DeadLettersBeyondWhatMayBeKeptAreFoundInEveryStatus) {
  for (const DeadLetterStatus status : {DeadLetterStatus::kPending, DeadLetterStatus::kResolved}) {
    Story story = clean_and_handled();
    story.end.wall = story.now.wall;
    story.end.dead_letters.resize(3);
    for (DeadLetter& letter : story.end.dead_letters) {
      letter.id.bytes[0] = static_cast<std::uint8_t>(&letter - story.end.dead_letters.data());
      letter.message_id = letter.id;
      letter.status = status;
      letter.last_failed_at = story.now.wall;
    }
    story.facts.dead_letter_count_max = 3;
    story.facts.dead_letter_age_max = seconds(30);
    EXPECT_EQ(story.findings(), "");
    story.facts.dead_letter_count_max = 2;
    EXPECT_EQ(story.finds("K8", "3 dead letters are kept, at most 2"), 1U) << story.findings();
    story.facts.dead_letter_count_max = 3;
    story.end.wall += seconds(60);
    EXPECT_EQ(story.finds("K8", "older than may be"), 3U) << story.findings();
  }
}

// ---- K9 -----------------------------------------------------------------------------------------

TEST(CheckerK9, HoldersOneAfterAnotherAreClean) {
  Story story(0);
  story.begin(1, 1);
  story.wait(seconds(2));
  story.begin(2, 2);
  story.complete(2, 2, 77);
  story.read(3, 77);
  EXPECT_EQ(story.findings(), "");
}

TEST(CheckerK9, TwoHoldersAreFound) {
  Story story(0);
  story.begin(1, 1);
  story.begin(2, 2);
  EXPECT_EQ(story.finds("K9", "has two holders"), 1U) << story.findings();
}

TEST(CheckerK9, AFenceThatDoesNotGrowIsFound) {
  Story story(0);
  story.begin(1, 5);
  story.wait(seconds(2));
  story.begin(2, 4);
  EXPECT_EQ(story.finds("K9", "its fence did not grow"), 1U) << story.findings();
  story.wait(seconds(2));
  story.begin(3, 5);
  EXPECT_EQ(story.finds("K9", "one fence was given twice"), 1U) << story.findings();
}

TEST(CheckerK9, AnAnswerThatComesLateIsNotAFenceThatWentBack) {
  Story story(0);
  story.note(Event::kBeginning).session = 1;  // its call stalls
  story.wait(seconds(2));
  story.begin(2, 2);
  Record& late = story.note(Event::kBegin);
  late.session = 1;
  late.number = 1;
  EXPECT_EQ(story.findings(), "");
}

TEST(CheckerK9, AResultThatChangesOrThatNobodyStoredIsFound) {
  Story changed(0);
  changed.begin(1, 1);
  changed.complete(1, 1, 77);
  changed.read(2, 78);
  EXPECT_EQ(changed.finds("K9", "its result changed"), 1U) << changed.findings();
  Story invented(0);
  invented.read(2, 78);
  EXPECT_EQ(invented.finds("K9", "a result that nobody stored"), 1U) << invented.findings();
}

TEST(CheckerK9, ACompletionWithoutAnAnswerMayHaveTakenEffect) {
  Story story(0);
  story.begin(1, 1);
  story.complete(1, 1, 77, Answer::kUnknown);
  story.read(2, 77);
  EXPECT_EQ(story.findings(), "");
}

TEST(CheckerK9, AKeyThatIsGivenOutAgainAfterItsResultIsFound) {
  Story story(0);
  story.begin(1, 1);
  story.complete(1, 1, 77);
  story.wait(seconds(2));
  story.begin(2, 2);
  EXPECT_EQ(story.finds("K9", "given out again although it has a result"), 1U) << story.findings();
}

TEST(CheckerK9, AHolderThatLostItsKeyMustNotStoreAResult) {
  Story story(0);
  story.begin(1, 1);
  story.wait(seconds(2));
  story.begin(2, 2);
  story.complete(1, 1, 77);
  EXPECT_EQ(story.finds("K9", "a holder that had lost it stored a result"), 1U) << story.findings();
}

// ---- all of them --------------------------------------------------------------------------------

TEST(Checkers, OneAnomalyInAHundredThousandRecordsIsFoundAndNothingElse) {
  constexpr std::uint32_t kCount = 20'000;
  Story story = clean(kCount);
  for (std::uint32_t m = 0; m < kCount; ++m)
    story.facts.messages[m].key = static_cast<std::int32_t>(m % 1000);
  for (std::uint32_t m = 0; m < kCount; ++m)
    story.handle(m);
  ASSERT_GE(story.history.size(), 100'000U);
  EXPECT_EQ(story.findings(), "");
  story.handle(kCount / 2);
  EXPECT_EQ(story.check().size(), 1U) << story.findings();
}

}  // namespace
}  // namespace towline::simulation
