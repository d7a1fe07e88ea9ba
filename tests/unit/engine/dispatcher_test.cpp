// The meeting place of a consumer's lane and its workers: who may start when, who comes back, and that the
// books of what is in hand are right at every moment. Stepped by hand on a virtual clock; what needs time or
// threads is in dispatcher_workers_test.cpp.

#include "engine/dispatcher.hpp"

#include "unit/engine/desk.hpp"

namespace towline::engine {
namespace {

using namespace testing;

// ---- order --------------------------------------------------------------------------------------

TEST(Dispatcher, WithoutOrderEverythingMayStartInTheOrderOfItsComing) {
  Desk desk;
  EXPECT_TRUE(desk.admit({"A1", "A2", "B1"}).empty());
  EXPECT_EQ(desk.start(), "A1");
  EXPECT_EQ(desk.start(), "A2");
  EXPECT_EQ(desk.start(), "B1");
  EXPECT_EQ(desk.start(), "");
}

TEST(Dispatcher, TheNextOfAKeyStartsOnlyAfterTheOneBefore) {
  Desk desk(Order::kKeyOrdered);
  desk.admit({"A1", "A2", "A3"});
  EXPECT_EQ(desk.start(), "A1");
  EXPECT_EQ(desk.start(), "");
  desk.finish("A1");
  EXPECT_EQ(desk.start(), "A2");
  EXPECT_EQ(desk.start(), "");
  desk.finish("A2");
  EXPECT_EQ(desk.start(), "A3");
}

TEST(Dispatcher, OtherKeysGoOnWhileOneWaits) {
  Desk desk(Order::kKeyOrdered);
  desk.admit({"A1", "A2", "B1", "C1"});
  EXPECT_EQ(desk.start(), "A1");
  EXPECT_EQ(desk.start(), "B1");
  EXPECT_EQ(desk.start(), "C1");
  EXPECT_EQ(desk.start(), "");
}

TEST(Dispatcher, MessagesWithoutAKeyHaveNoOrderAmongKeys) {
  Desk desk(Order::kKeyOrdered);
  desk.admit({"-1", "-2"});
  EXPECT_EQ(desk.start(), "-1");
  EXPECT_EQ(desk.start(), "-2");
}

TEST(Dispatcher, InPartitionOrderKeysMakeNoDifference) {
  Desk desk(Order::kPartitionOrdered);
  desk.admit({"A1", "B1", "-1"});
  EXPECT_EQ(desk.start(), "A1");
  EXPECT_EQ(desk.start(), "");
  desk.finish("A1");
  EXPECT_EQ(desk.start(), "B1");
  desk.finish("B1");
  EXPECT_EQ(desk.start(), "-1");
}

TEST(Dispatcher, WhatComesLaterQueuesBehindWhatWaits) {
  Desk desk(Order::kKeyOrdered);
  desk.admit({"A1", "A2"});
  EXPECT_EQ(desk.start(), "A1");
  desk.admit({"A3"});
  desk.finish("A1");
  desk.admit({"A4"});
  EXPECT_EQ(desk.start(), "A2");
  desk.finish("A2");
  EXPECT_EQ(desk.start(), "A3");
}

TEST(Dispatcher, AFailedOneHoldsItsKeyUntilTheLaneSaysWhatBecomesOfIt) {
  Desk desk(Order::kKeyOrdered);
  desk.admit({"A1", "A2"});
  ASSERT_EQ(desk.start(), "A1");
  desk.fail("A1");
  EXPECT_EQ(desk.start(), "");
  EXPECT_EQ(desk.collect().others, Names{"A1"});
  EXPECT_EQ(desk.start(), "");
  desk.dispatcher.release_lane(*desk.collected.others.front().state);
  EXPECT_EQ(desk.start(), "A2");
}

// ---- blocked keys -------------------------------------------------------------------------------

TEST(Dispatcher, BlockingAKeyHandsOverWhatWaitsBehindItsHeadInOrder) {
  Desk desk(Order::kKeyOrdered);
  desk.admit({"A1", "A2", "A3", "B1"});
  ASSERT_EQ(desk.start(), "A1");
  desk.fail("A1");
  desk.collect();
  DeliveryState& head = *desk.collected.others.front().state;
  EXPECT_EQ(Desk::names_of(desk.dispatcher.block(head, false)), (Names{"A2", "A3"}));
  EXPECT_EQ(desk.dispatcher.blocked_key_count(), 1U);
  EXPECT_EQ(desk.start(), "B1") << "other keys are not concerned";
  EXPECT_EQ(desk.start(), "");
}

TEST(Dispatcher, ABlockedKeyLetsOnlyItsHeadThrough) {
  Desk desk(Order::kKeyOrdered);
  desk.admit({"A1"});
  ASSERT_EQ(desk.start(), "A1");
  desk.fail("A1");
  desk.collect();
  (void)desk.dispatcher.block(*desk.collected.others.front().state, false);
  EXPECT_EQ(desk.admit({"A2", "B1", "A3"}), (Names{"A2", "A3"}));
  EXPECT_EQ(desk.start(), "B1");
  EXPECT_TRUE(desk.admit({"A1*"}).empty());
  EXPECT_EQ(desk.start(), "A1*");
  EXPECT_EQ(desk.admit({"A4"}), Names{"A4"}) << "also while the head runs";
}

TEST(Dispatcher, TheHeadOfABlockedKeyIsAcknowledgedByTheLaneWhichMustLiftTheBlockFirst) {
  Desk desk(Order::kKeyOrdered);
  spi::KeyBlock block;
  block.topic = "t";
  block.key = "A";
  (void)desk.dispatcher.install_blocks("t", 0, 1, {block});
  ASSERT_TRUE(desk.admit({"A1*"}).empty());
  ASSERT_EQ(desk.start(), "A1*");
  desk.finish("A1*");
  const Desk::Round round = desk.collect();
  EXPECT_TRUE(round.acked.empty());
  ASSERT_EQ(round.others, Names{"A1*"});
  DeliveryState& head = *desk.collected.others.front().state;
  EXPECT_TRUE(desk.dispatcher.is_blocked(head));
  desk.dispatcher.unparked(head, std::nullopt);
  EXPECT_EQ(desk.dispatcher.blocked_key_count(), 0U);
  EXPECT_TRUE(desk.admit({"A2"}).empty());
  EXPECT_EQ(desk.start(), "A2");
}

TEST(Dispatcher, AKeyThatHasMoreParkedStaysBlockedAndCountsThem) {
  Desk desk(Order::kKeyOrdered);
  spi::KeyBlock block;
  block.topic = "t";
  block.key = "A";
  block.parked_count = 7;
  (void)desk.dispatcher.install_blocks("t", 0, 1, {block});
  EXPECT_EQ(desk.dispatcher.parked_total(), 7U);
  ASSERT_TRUE(desk.admit({"A1*"}).empty());
  ASSERT_EQ(desk.start(), "A1*");
  desk.finish("A1*");
  desk.collect();
  block.parked_count = 6;
  desk.dispatcher.unparked(*desk.collected.others.front().state, block);
  EXPECT_EQ(desk.dispatcher.parked_total(), 6U);
  EXPECT_EQ(desk.dispatcher.blocked_key_count(), 1U);
  EXPECT_EQ(desk.admit({"A3"}), Names{"A3"});
  EXPECT_TRUE(desk.admit({"A2*"}).empty());
  EXPECT_EQ(desk.start(), "A2*");
}

TEST(Dispatcher, ASecondHeadThatSomebodyReleasedByHandStartsAfterTheFirst) {
  Desk desk(Order::kKeyOrdered);
  spi::KeyBlock block;
  block.topic = "t";
  block.key = "A";
  (void)desk.dispatcher.install_blocks("t", 0, 1, {block});
  ASSERT_TRUE(desk.admit({"A2*", "A1*"}).empty());
  ASSERT_EQ(desk.start(), "A2*");
  EXPECT_EQ(desk.start(), "");
  desk.finish("A2*");
  desk.collect();
  desk.dispatcher.unparked(*desk.collected.others.front().state, block);  // the block stands
  EXPECT_EQ(desk.start(), "A1*");
}

TEST(Dispatcher, WhatIsParkedLeavesItsKeyAndIsCountedThere) {
  Desk desk(Order::kKeyOrdered);
  spi::KeyBlock block;
  block.topic = "t";
  block.key = "A";
  (void)desk.dispatcher.install_blocks("t", 0, 1, {block});
  auto fresh = desk.receive({"A2", "A3"});
  const auto to_park = desk.dispatcher.admit(fresh);
  ASSERT_EQ(to_park.size(), 2U);
  for (const DeliveryPtr& state : to_park)
    desk.dispatcher.leave_key(*state);
  EXPECT_EQ(fresh.front()->lane, nullptr);
  EXPECT_EQ(desk.dispatcher.parked_total(), 0U) << "the store has not said yet that they are";
  desk.dispatcher.count_parked("t", 0, "A");
  desk.dispatcher.count_parked("t", 0, "A");
  EXPECT_EQ(desk.dispatcher.parked_total(), 2U);
  desk.dispatcher.count_parked("t", 0, "B");
  EXPECT_EQ(desk.dispatcher.parked_total(), 2U) << "nothing is parked behind a key that is free";
  desk.dispatcher.unblock("t", 0, "A");
  EXPECT_EQ(desk.dispatcher.parked_total(), 0U);
  EXPECT_EQ(desk.dispatcher.blocked_key_count(), 0U);
  EXPECT_TRUE(desk.admit({"A4"}).empty());
}

TEST(Dispatcher, APassedOverHeadHoldsItsKeyUntilItsBlockIsLifted) {
  Desk desk(Order::kKeyOrdered);
  spi::KeyBlock block;
  block.topic = "t";
  block.key = "A";
  (void)desk.dispatcher.install_blocks("t", 0, 1, {block});
  const auto head = desk.receive({"A1*"});
  desk.dispatcher.pass(*head.front());
  EXPECT_TRUE(desk.dispatcher.is_blocked(*head.front()));
  // Another head cannot overtake it.
  ASSERT_TRUE(desk.admit({"A2*"}).empty());
  EXPECT_EQ(desk.start(), "");
  desk.dispatcher.unparked(*head.front(), block);
  EXPECT_EQ(desk.start(), "A2*");
}

TEST(Dispatcher, APassedOverMessageThatHeadsNothingLeavesItsKeyAlone) {
  Desk desk(Order::kKeyOrdered);
  desk.admit({"A1"});
  ASSERT_EQ(desk.start(), "A1");
  const auto filtered = desk.receive({"A2"});
  desk.dispatcher.pass(*filtered.front());
  EXPECT_EQ(filtered.front()->lane, nullptr);
  desk.admit({"A3"});
  EXPECT_EQ(desk.start(), "") << "A1 still runs";
  desk.finish("A1");
  EXPECT_EQ(desk.start(), "A3");
}

TEST(Dispatcher, ANewOwnerForgetsOldKeysButNotAHandlerThatStillRuns) {
  Desk desk(Order::kKeyOrdered);
  spi::KeyBlock old;
  old.topic = "t";
  old.key = "B";
  old.parked_count = 3;
  (void)desk.dispatcher.install_blocks("t", 0, 1, {old});
  desk.admit({"A1", "A2"});
  ASSERT_EQ(desk.start(), "A1");
  spi::KeyBlock now;
  now.topic = "t";
  now.key = "C";
  now.parked_count = 1;
  (void)desk.dispatcher.install_blocks("t", 0, 2, {now});
  EXPECT_EQ(desk.dispatcher.epoch_of("t", 0), 2U);
  EXPECT_EQ(desk.dispatcher.blocked_key_count(), 1U);
  EXPECT_EQ(desk.dispatcher.parked_total(), 1U);
  // A2 was handed out to the old owner: it goes back, and its book stays open until the store has said so.
  EXPECT_EQ(desk.collect().others, Names{"A2"});
  EXPECT_EQ(desk.collected.others.front().outcome.kind, Outcome::Kind::kRelease);
  EXPECT_TRUE(desk.admit({"B9"}).empty()) << "B is blocked no more";
  EXPECT_EQ(desk.admit({"C1"}), Names{"C1"});
  desk.admit({"A2"});
  EXPECT_EQ(desk.start(), "B9");
  EXPECT_EQ(desk.start(), "") << "A1's handler still runs";
  desk.finish("A1");
  EXPECT_EQ(desk.start(), "A2");
}

TEST(Dispatcher, ADoubtedPartitionIsLoadedAgain) {
  Desk desk(Order::kKeyOrdered);
  (void)desk.dispatcher.install_blocks("t", 3, 5, {});
  (void)desk.dispatcher.install_blocks("t", 4, 6, {});
  desk.dispatcher.doubt("t", 3);
  EXPECT_EQ(desk.dispatcher.epoch_of("t", 3), 0U);
  EXPECT_EQ(desk.dispatcher.epoch_of("t", 4), 6U);
}

TEST(Dispatcher, WhatWaitsBehindAReleasedOneIsTakenOutInOrder) {
  Desk desk(Order::kKeyOrdered);
  desk.admit({"A1", "A2", "A3"});
  ASSERT_EQ(desk.start(), "A1");
  EXPECT_EQ(Desk::names_of(desk.dispatcher.take_waiting(*desk.running["A1"])), (Names{"A2", "A3"}));
  desk.finish("A1");
  EXPECT_EQ(desk.start(), "");
}

// ---- taking back --------------------------------------------------------------------------------

TEST(Dispatcher, TakeBackReturnsWhatNobodyStartedInTheOrderOfItsHandingOut) {
  Desk desk(Order::kKeyOrdered);
  desk.admit({"B1", "A1", "A2"});
  desk.admit({"B2", "A3"});
  ASSERT_EQ(desk.start(), "B1");
  const auto back = desk.dispatcher.take_back();
  EXPECT_EQ(Desk::names_of(back), (Names{"A1", "A2", "B2", "A3"}));
  for (const DeliveryPtr& state : back)
    EXPECT_EQ(state->phase.load(), Phase::kDecided);
  EXPECT_EQ(desk.start(), "");
  EXPECT_EQ(desk.dispatcher.gauge().in_hand, 5U) << "their books are open until they are settled";
  desk.finish("B1");
  EXPECT_EQ(desk.collect().acked, Names{"B1"});
  // The keys are free again.
  desk.admit({"A1", "B2"});
  EXPECT_EQ(desk.start(), "A1");
  EXPECT_EQ(desk.start(), "B2");
}

TEST(Dispatcher, TakeBackReachesIntoTheChunkOfABusyWorker) {
  Desk desk;
  desk.admit({"A1", "A2", "A3"});
  std::vector<DeliveryPtr> chunk;
  desk.dispatcher.try_take(3, chunk);  // not recorded: as if there were no worker
  ASSERT_EQ(chunk.size(), 3U);
  EXPECT_TRUE(desk.dispatcher.take_back().empty());

  Desk other(Desk::limits_of(Order::kUnordered, 2));
  other.admit({"A1"});
  std::vector<DeliveryPtr> taken;
  ASSERT_TRUE(other.dispatcher.take(0, taken));
  const auto back = other.dispatcher.take_back();
  EXPECT_EQ(Desk::names_of(back), Names{"A1"});
  EXPECT_FALSE(taken.front()->move_to(Phase::kRunning, {Phase::kTaken})) << "the worker finds it gone";
}

TEST(Dispatcher, AnIdleWorkerStealsWhatABusyOneHasNotStarted) {
  Desk desk(Desk::limits_of(Order::kUnordered, 2));
  // Quick handlers so far, so that chunks are long.
  desk.admit({"w"});
  std::vector<DeliveryPtr> first;
  ASSERT_TRUE(desk.dispatcher.take(0, first));
  first.front()->move_to(Phase::kRunning, {Phase::kTaken});
  first.front()->move_to(Phase::kDecided, {Phase::kRunning});
  std::vector<Decided> none;
  desk.dispatcher.hand_back(0, first, none, 1, Duration{1});
  desk.admit({"A1", "A2", "A3", "A4"});
  std::vector<DeliveryPtr> busy;
  ASSERT_TRUE(desk.dispatcher.take(0, busy));
  ASSERT_EQ(Desk::names_of(busy), (Names{"A1", "A2", "A3"})) << "half of it and one";
  ASSERT_TRUE(busy[0]->move_to(Phase::kRunning, {Phase::kTaken}));
  std::vector<DeliveryPtr> thief;
  ASSERT_TRUE(desk.dispatcher.take(1, thief));
  EXPECT_EQ(Desk::names_of(thief), (Names{"A4"}));
  std::vector<DeliveryPtr> done = thief;
  done.front()->move_to(Phase::kRunning, {Phase::kTaken});
  done.front()->move_to(Phase::kDecided, {Phase::kRunning});
  desk.dispatcher.hand_back(1, done, none, 1, Duration{1});
  ASSERT_TRUE(desk.dispatcher.take(1, thief)) << "nothing is ready, so it steals";
  EXPECT_EQ(Desk::names_of(thief), Names{"A2"});
  EXPECT_TRUE(thief.front()->move_to(Phase::kRunning, {Phase::kTaken}));
  EXPECT_FALSE(busy[1]->move_to(Phase::kRunning, {Phase::kTaken})) << "it runs once";
  EXPECT_FALSE(busy[2]->move_to(Phase::kRunning, {Phase::kTaken})) << "A3 is ready for anybody";
}

// ---- lost leases --------------------------------------------------------------------------------

TEST(Dispatcher, ALostLeaseStopsItsOwnDeliveriesAndNoOthers) {
  Desk desk;
  // One receive, two logs: each has a lease of its own.
  auto fresh = desk.receive({"A1", "B1", "B2"});
  fresh[1]->delivery.token.lease = fresh[2]->delivery.token.lease = 77;
  (void)desk.dispatcher.admit(fresh);
  ASSERT_EQ(desk.start(), "A1");
  ASSERT_EQ(desk.start(), "B1");
  const std::stop_token of_a = desk.dispatcher.stop_token(*fresh[0]);
  const std::stop_token of_b = desk.dispatcher.stop_token(*fresh[1]);
  const std::vector<std::uint64_t> lost{77};
  EXPECT_EQ(desk.dispatcher.mark_lost(lost), 2U);
  EXPECT_FALSE(of_a.stop_requested());
  EXPECT_TRUE(of_b.stop_requested());
  EXPECT_EQ(desk.start(), "") << "B2 is somebody else's now";
  EXPECT_EQ(desk.collect().others, (Names{"B1", "B2"}));
  EXPECT_TRUE(desk.collected.others.front().lost);
  EXPECT_FALSE(fresh[1]->move_to(Phase::kDecided, {Phase::kRunning}));
  EXPECT_EQ(desk.dispatcher.mark_lost(lost), 0U);
}

TEST(Dispatcher, WhatWaitsBehindALostDeliveryGoesBackWithItAndTheKeyIsFree) {
  Desk desk(Order::kKeyOrdered);
  desk.admit({"A1", "A2"});
  const std::uint64_t first_lease = desk.lease;
  desk.admit({"A3"});
  ASSERT_EQ(desk.start(), "A1");
  EXPECT_EQ(desk.dispatcher.mark_lost(std::vector<std::uint64_t>{first_lease}), 2U);
  desk.collect();
  Names behind;
  for (const Decided& decided : desk.collected.others) {
    for (const std::string& name : Desk::names_of(desk.dispatcher.drop(*decided.state)))
      behind.push_back(name);
  }
  EXPECT_EQ(behind, Names{"A3"}) << "started now it would overtake those that were lost";
  EXPECT_EQ(desk.start(), "");
  desk.admit({"A1", "A2"});
  EXPECT_EQ(desk.start(), "A1");
}

// ---- the books ----------------------------------------------------------------------------------

TEST(Dispatcher, InHandAndItsBytesAreCountedFromTheReceiveToTheEndOfTheBook) {
  Desk desk;
  auto fresh = desk.receive({"A1", "B22"});
  EXPECT_EQ(desk.dispatcher.gauge().in_hand, 2U);
  EXPECT_EQ(desk.dispatcher.bytes_in_hand(), 5U);
  (void)desk.dispatcher.admit(fresh);
  ASSERT_EQ(desk.start(), "A1");
  desk.finish("A1");
  desk.collect();
  EXPECT_EQ(desk.dispatcher.gauge().in_hand, 2U) << "decided is not settled";
  desk.dispatcher.finished(desk.collected.acked, true);
  EXPECT_EQ(desk.dispatcher.gauge().in_hand, 1U);
  EXPECT_EQ(desk.dispatcher.bytes_in_hand(), 3U);
}

TEST(Dispatcher, RunningCountsHandlersAndRemembersTheMost) {
  Desk desk;
  desk.admit({"A1", "A2", "A3"});
  ASSERT_EQ(desk.start(), "A1");
  ASSERT_EQ(desk.start(), "A2");
  EXPECT_EQ(desk.dispatcher.gauge().running, 2U);
  desk.finish("A1");
  EXPECT_EQ(desk.dispatcher.gauge().running, 1U);
  ASSERT_EQ(desk.start(), "A3");
  desk.finish("A2");
  desk.finish("A3");
  EXPECT_EQ(desk.dispatcher.gauge().running, 0U);
  EXPECT_EQ(desk.dispatcher.gauge().running_max, 2U);
}

TEST(Dispatcher, AChunkOfABatchHandlerCountsAllItsMessages) {
  Dispatcher::Limits limits = Desk::limits_of(Order::kUnordered);
  limits.batch_count_max = 3;
  Desk desk(limits);
  desk.admit({"A1", "A2", "A3", "A4"});
  std::vector<DeliveryPtr> chunk;
  ASSERT_TRUE(desk.dispatcher.take(0, chunk));
  EXPECT_EQ(chunk.size(), 3U);
  EXPECT_EQ(desk.dispatcher.gauge().running, 3U);
  for (const DeliveryPtr& state : chunk)
    state->phase = Phase::kDecided;
  std::vector<Decided> none;
  desk.dispatcher.hand_back(0, chunk, none, 3, 1ms);
  EXPECT_EQ(desk.dispatcher.gauge().running, 0U);
}

TEST(Dispatcher, CloseAllLetsGoOfEverythingAndSaysHowMuchItWas) {
  Desk desk(Order::kKeyOrdered);
  desk.admit({"A1", "A2", "B1"});
  ASSERT_EQ(desk.start(), "A1");
  const DeliveryPtr state = desk.running["A1"];
  const std::stop_token token = desk.dispatcher.stop_token(*state);
  const Dispatcher::LeftOver left = desk.dispatcher.close_all();
  EXPECT_EQ(left.count, 3U);
  EXPECT_EQ(left.bytes, 6U);
  EXPECT_TRUE(token.stop_requested());
  EXPECT_EQ(state->phase.load(), Phase::kLost);
  EXPECT_EQ(desk.dispatcher.next_timer(), std::nullopt);
  EXPECT_EQ(desk.dispatcher.gauge().in_hand, 0U);
  EXPECT_EQ(desk.start(), "");
}

TEST(Dispatcher, WhoWaitsForASettlementIsToldWhenTheConsumerCloses) {
  Desk desk;
  desk.admit({"A1", "A2"});
  ASSERT_EQ(desk.start(), "A1");
  ASSERT_EQ(desk.start(), "A2");
  const auto decide = [&](const std::string& name) {
    const DeliveryPtr state = desk.running[name];
    state->move_to(Phase::kDecided, {Phase::kRunning});
    Decided decided{state, Outcome::ack()};
    decided.completion = std::make_shared<Completion>();
    const auto completion = decided.completion;
    desk.dispatcher.decide(std::move(decided));
    return completion;
  };
  const auto before = decide("A1");
  // This one is decided just when the consumer closes: after the last look at what was decided.
  desk.running["A2"]->move_to(Phase::kDecided, {Phase::kRunning});
  (void)desk.dispatcher.close_all();
  EXPECT_EQ(code_of(before->wait()), ErrorCode::kClosed);
  EXPECT_EQ(code_of(decide("A2")->wait()), ErrorCode::kClosed);
}

// ---- credit -------------------------------------------------------------------------------------

TEST(Dispatcher, CreditIsWhatConcurrencyAndPrefetchLeaveFree) {
  Dispatcher::Limits limits = Desk::limits_of(Order::kUnordered, 2);
  limits.prefetch_count = 3;
  Desk desk(limits);
  EXPECT_EQ(desk.dispatcher.credit(), 5U);
  const auto fresh = desk.receive({"A1", "A2", "A3", "A4"});
  EXPECT_EQ(desk.dispatcher.credit(), 1U);
  desk.receive({"A5", "A6"});
  EXPECT_EQ(desk.dispatcher.credit(), 0U);
  desk.dispatcher.finished(fresh, true);
  EXPECT_EQ(desk.dispatcher.credit(), 3U);
}

TEST(Dispatcher, ABatchHandlerHasTwoBatchesPerWorkerInHand) {
  Dispatcher::Limits limits = Desk::limits_of(Order::kUnordered, 2);
  limits.prefetch_count = 0;
  limits.batch_count_max = 10;
  Desk desk(limits);
  EXPECT_EQ(desk.dispatcher.credit(), 40U);
}

TEST(Dispatcher, AdaptivePrefetchStartsSlowAndDoublesWithCleanRounds) {
  Dispatcher::Limits limits = Desk::limits_of(Order::kUnordered, 1);
  limits.prefetch_count = 0;
  Desk desk(limits);
  EXPECT_EQ(desk.dispatcher.credit(), 2U);
  std::vector<std::size_t> credits;
  for (int round = 0; round < 12; ++round) {
    const auto fresh = desk.receive({"A1"});
    desk.dispatcher.finished(fresh, true);
    credits.push_back(desk.dispatcher.credit());
  }
  EXPECT_EQ((std::vector<std::size_t>(credits.begin(), credits.begin() + 4)),
            (std::vector<std::size_t>{4, 8, 16, 32}));
  EXPECT_EQ(credits.back(), 4000U) << "and no further";
}

TEST(Dispatcher, AdaptivePrefetchDoesNotWidenWithFailures) {
  Dispatcher::Limits limits = Desk::limits_of(Order::kUnordered, 1);
  limits.prefetch_count = 0;
  Desk desk(limits);
  for (int round = 0; round < 5; ++round)
    desk.dispatcher.finished(desk.receive({"A1"}), false);
  EXPECT_EQ(desk.dispatcher.credit(), 2U);
}

TEST(Dispatcher, AdaptivePrefetchHoldsNoMoreThanSlowHandlersNeedForAMoment) {
  Dispatcher::Limits limits = Desk::limits_of(Order::kUnordered, 4);
  limits.prefetch_count = 0;
  Desk desk(limits);
  const auto round = [&](Duration each) {
    desk.admit({"A1"});
    EXPECT_EQ(desk.start(), "A1");
    std::vector<DeliveryPtr> acked{desk.running["A1"]};
    std::vector<Decided> none;
    acked.front()->move_to(Phase::kDecided, {Phase::kRunning});
    desk.dispatcher.hand_back(SIZE_MAX, acked, none, 1, each);
    desk.collect();
    desk.dispatcher.finished(desk.collected.acked, true);
  };
  for (int i = 0; i < 12; ++i)
    round(10ms);
  // 50 ms of work for 4 handlers of 10 ms.
  EXPECT_EQ(desk.dispatcher.credit(), 20U);
  for (int i = 0; i < 40; ++i)
    round(1s);
  EXPECT_EQ(desk.dispatcher.credit(), 8U) << "two per worker at least";
  for (int i = 0; i < 60; ++i)
    round(1us);
  EXPECT_EQ(desk.dispatcher.credit(), 4000U);
}

}  // namespace
}  // namespace towline::engine
