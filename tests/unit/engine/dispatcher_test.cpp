// The meeting place of a consumer's lane and its workers: who may start when, who comes back, and that the
// books of what is in hand are right at every moment. Most of it is stepped by hand on a virtual clock; where
// threads matter, a test starts them.

#include "engine/dispatcher.hpp"

#include <atomic>
#include <set>
#include <thread>

#include "support/eventually.hpp"
#include "unit/engine/world.hpp"

namespace towline::engine {
namespace {

using namespace testing;
using support::eventually;

/// A dispatcher without a consumer around it. The test plays the lane, and workers if it likes.
class Desk {
 public:
  explicit Desk(Dispatcher::Limits limits) : dispatcher(clock, with_timeout(limits)) {}
  explicit Desk(Order order = Order::kUnordered) : Desk(limits_of(order)) {}
  ~Desk() {
    dispatcher.stop_workers();
    (void)dispatcher.close_all();
  }

  static Dispatcher::Limits limits_of(Order order, std::int64_t concurrency = 1) {
    Dispatcher::Limits limits;
    limits.concurrency = concurrency;
    limits.prefetch_count = 1000;
    limits.order = order;
    return limits;
  }
  static Dispatcher::Limits with_timeout(Dispatcher::Limits limits) {
    if (limits.handler_timeout.count() == 0) limits.handler_timeout = 30s;
    return limits;
  }

  /// Deliveries of one receive, named by their payloads: "A1" has the key "A". A '*' at the end: heads its
  /// key.
  std::vector<DeliveryPtr> receive(const std::vector<std::string>& names, std::uint64_t epoch = 1) {
    auto hand_out = std::make_shared<HandOut>(names.size(), std::make_shared<ConsumerLink>());
    ++lease;
    std::vector<DeliveryPtr> fresh;
    for (std::size_t i = 0; i < names.size(); ++i) {
      auto envelope = std::make_shared<spi::Envelope>();
      envelope->topic = "t";
      envelope->payload = names[i];
      envelope->key = names[i].substr(0, 1);
      envelope->heads_key = names[i].back() == '*';
      if (names[i].front() == '-') envelope->key.reset();
      DeliveryState& state = hand_out->states[i];
      state.hand_out = hand_out.get();
      state.delivery.token = {lease, static_cast<std::uint32_t>(i)};
      state.delivery.envelope = std::move(envelope);
      state.delivery.epoch = epoch;
      fresh.emplace_back(hand_out, &state);
    }
    dispatcher.attach(fresh);
    return fresh;
  }
  /// Receives and admits; returns what must be parked.
  std::vector<std::string> admit(const std::vector<std::string>& names) {
    return names_of(dispatcher.admit(receive(names)));
  }
  static std::vector<std::string> names_of(const std::vector<DeliveryPtr>& states) {
    std::vector<std::string> names;
    for (const DeliveryPtr& state : states)
      names.push_back(state->envelope().payload);
    return names;
  }

  /// Takes up to `count` deliveries as a worker would, and begins with them.
  std::vector<DeliveryPtr> take(std::size_t count = 1) {
    std::vector<DeliveryPtr> chunk;
    dispatcher.try_take(count, chunk);
    for (const DeliveryPtr& state : chunk) {
      EXPECT_TRUE(state->move_to(Phase::kRunning, {Phase::kTaken}));
      state->occupies_worker = true;
    }
    return chunk;
  }
  /// The next one that may start, by name; "" when none may.
  std::string start() {
    auto chunk = take();
    if (chunk.empty()) return {};
    const std::string name = chunk.front()->envelope().payload;
    running[name] = chunk.front();
    return name;
  }
  /// The handler of this one returns.
  void finish(const std::string& name) {
    std::vector<DeliveryPtr> acked{running.at(name)};
    std::vector<Decided> others;
    running.erase(name);
    acked.front()->occupies_worker = false;
    EXPECT_TRUE(acked.front()->move_to(Phase::kDecided, {Phase::kRunning}));
    dispatcher.hand_back(SIZE_MAX, acked, others, 1, 1ms);
  }
  void fail(const std::string& name) {
    std::vector<DeliveryPtr> acked;
    std::vector<Decided> others{{running.at(name), Outcome::fail({"E", "", {}})}};
    running.erase(name);
    others.front().state->occupies_worker = false;
    EXPECT_TRUE(others.front().state->move_to(Phase::kDecided, {Phase::kRunning}));
    dispatcher.hand_back(SIZE_MAX, acked, others, 1, 1ms);
  }
  /// What was decided since the last call, by name.
  struct Round {
    std::vector<std::string> acked, others;
  };
  Round collect() {
    collected = dispatcher.collect(clock->monotonic());
    Round round{names_of(collected.acked), {}};
    for (const Decided& decided : collected.others)
      round.others.push_back(decided.state->envelope().payload);
    return round;
  }

  const std::shared_ptr<StillClock> clock = std::make_shared<StillClock>();
  Dispatcher dispatcher;
  Dispatcher::Collected collected;
  std::map<std::string, DeliveryPtr> running;
  std::uint64_t lease = 0;
};

using Names = std::vector<std::string>;

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
    desk.dispatcher.count_parked(*state);
  EXPECT_EQ(desk.dispatcher.parked_total(), 2U);
  EXPECT_EQ(fresh.front()->lane, nullptr);
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

// ---- time ---------------------------------------------------------------------------------------

TEST(Dispatcher, AHandlerPastItsTimeHasFailedAndItsLateResultIsVoid) {
  Desk desk;
  desk.admit({"A1"});
  ASSERT_EQ(desk.start(), "A1");
  const DeliveryPtr state = desk.running["A1"];
  const std::stop_token token = desk.dispatcher.stop_token(*state);
  desk.clock->advance(29s);
  EXPECT_TRUE(desk.collect().others.empty());
  desk.clock->advance(1s);
  ASSERT_EQ(desk.collect().others, Names{"A1"});
  EXPECT_EQ(desk.collected.others.front().outcome.error.type, "HandlerTimeout");
  EXPECT_TRUE(token.stop_requested());
  EXPECT_FALSE(state->move_to(Phase::kDecided, {Phase::kRunning})) << "the handler's return decides nothing";
  EXPECT_EQ(desk.dispatcher.gauge().stuck, 1U);
  desk.dispatcher.returned_late(*state);
  EXPECT_EQ(desk.dispatcher.gauge().stuck, 0U);
  desk.dispatcher.returned_late(*state);
  EXPECT_EQ(desk.dispatcher.gauge().stuck, 0U);
}

TEST(Dispatcher, AStopTokenThatIsAskedForAfterTheTimeWasUpIsStopped) {
  Desk desk;
  desk.admit({"A1"});
  ASSERT_EQ(desk.start(), "A1");
  desk.clock->advance(30s);
  desk.collect();
  EXPECT_TRUE(desk.dispatcher.stop_token(*desk.running["A1"]).stop_requested());
}

TEST(Dispatcher, AStopTokenThatIsAskedForWhileClosingIsStopped) {
  Desk desk;
  desk.admit({"A1"});
  ASSERT_EQ(desk.start(), "A1");
  EXPECT_FALSE(desk.dispatcher.stop_token(*desk.running["A1"]).stop_requested());
  desk.admit({"A2"});
  ASSERT_EQ(desk.start(), "A2");
  desk.dispatcher.request_stop_of_running();
  EXPECT_TRUE(desk.dispatcher.stop_token(*desk.running["A1"]).stop_requested());
  EXPECT_TRUE(desk.dispatcher.stop_token(*desk.running["A2"]).stop_requested());
}

TEST(Dispatcher, ExtendMovesTheEndOfTheHandlersTime) {
  Desk desk;
  desk.admit({"A1"});
  ASSERT_EQ(desk.start(), "A1");
  desk.clock->advance(29s);
  desk.dispatcher.extend(*desk.running["A1"], desk.clock->monotonic() + 10s);
  desk.clock->advance(9s);
  EXPECT_TRUE(desk.collect().others.empty());
  EXPECT_EQ(desk.dispatcher.gauge().stuck, 0U);
  desk.clock->advance(1s);
  EXPECT_EQ(desk.collect().others, Names{"A1"});
}

TEST(Dispatcher, ExtendDoesNothingForAHandlerWhoseTimeIsUp) {
  Desk desk;
  desk.admit({"A1"});
  ASSERT_EQ(desk.start(), "A1");
  desk.clock->advance(30s);
  desk.collect();
  desk.dispatcher.extend(*desk.running["A1"], desk.clock->monotonic() + 10s);
  EXPECT_EQ(desk.dispatcher.next_timer(), std::nullopt);
}

TEST(Dispatcher, TheNextTimerSaysWhenTheLaneMustLookAgain) {
  Desk desk;
  EXPECT_EQ(desk.dispatcher.next_timer(), std::nullopt);
  desk.admit({"A1"});
  EXPECT_EQ(desk.dispatcher.next_timer(), std::nullopt) << "nothing runs yet";
  ASSERT_EQ(desk.start(), "A1");
  ASSERT_TRUE(desk.dispatcher.next_timer());
  EXPECT_LE(*desk.dispatcher.next_timer(), desk.clock->monotonic() + 30s);
  EXPECT_GT(*desk.dispatcher.next_timer(), desk.clock->monotonic());
  desk.finish("A1");
  EXPECT_EQ(desk.dispatcher.next_timer(), std::nullopt);
}

TEST(Dispatcher, TheTimeOfAnUnstartedOneInAChunkHasNotBegun) {
  Desk desk;
  desk.admit({"A1"});
  std::vector<DeliveryPtr> chunk;
  desk.dispatcher.try_take(1, chunk);
  desk.clock->advance(31s);
  EXPECT_TRUE(desk.collect().others.empty());
  EXPECT_EQ(chunk.front()->phase.load(), Phase::kTaken);
  ASSERT_TRUE(chunk.front()->move_to(Phase::kRunning, {Phase::kTaken}));
  desk.clock->advance(30s);
  EXPECT_EQ(desk.collect().others, Names{"A1"});
}

TEST(Dispatcher, AManualDeliveryWhoseHandlerHasReturnedTimesOutWithoutBeingStuck) {
  Desk desk;
  desk.admit({"A1"});
  ASSERT_EQ(desk.start(), "A1");
  desk.running["A1"]->occupies_worker = false;
  desk.clock->advance(30s);
  EXPECT_EQ(desk.collect().others, Names{"A1"});
  EXPECT_EQ(desk.dispatcher.gauge().stuck, 0U);
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

TEST(Dispatcher, AKeyGoesOnAfterALostDeliveryWasDropped) {
  Desk desk(Order::kKeyOrdered);
  desk.admit({"A1", "A2"});
  const std::uint64_t first_lease = desk.lease;
  desk.admit({"A3"});
  ASSERT_EQ(desk.start(), "A1");
  EXPECT_EQ(desk.dispatcher.mark_lost(std::vector<std::uint64_t>{first_lease}), 2U);
  desk.collect();
  for (const Decided& decided : desk.collected.others)
    desk.dispatcher.drop(*decided.state);
  EXPECT_EQ(desk.start(), "A3");
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

// ---- rate ---------------------------------------------------------------------------------------

TEST(Dispatcher, TheRateLimitsHowManyStart) {
  Dispatcher::Limits limits = Desk::limits_of(Order::kUnordered);
  limits.rate_per_second = 20;  // a burst of two, then one every 50 ms
  Desk desk(limits);
  desk.admit({"A1", "A2", "A3", "A4"});
  EXPECT_EQ(desk.start(), "A1");
  EXPECT_EQ(desk.start(), "A2");
  EXPECT_EQ(desk.start(), "");
  desk.clock->advance(49ms);
  EXPECT_EQ(desk.start(), "");
  desk.clock->advance(1ms);
  EXPECT_EQ(desk.start(), "A3");
  EXPECT_EQ(desk.start(), "");
}

TEST(Dispatcher, AWorkerUnderARateLimitWaitsUntilTheNextMayStart) {
  Dispatcher::Limits limits = Desk::limits_of(Order::kUnordered);
  limits.rate_per_second = 10;
  Desk desk(limits);
  desk.admit({"A1", "A2"});
  ASSERT_EQ(desk.start(), "A1");
  const MonotonicTime begin = desk.clock->monotonic();
  desk.clock->on_wait = [&](MonotonicTime until) { desk.clock->advance(until - desk.clock->monotonic()); };
  std::vector<DeliveryPtr> chunk;
  ASSERT_TRUE(desk.dispatcher.take(0, chunk));
  EXPECT_EQ(Desk::names_of(chunk), Names{"A2"});
  EXPECT_EQ(desk.clock->monotonic() - begin, 100ms);
}

TEST(Dispatcher, AThiefUnderARateLimitWaitsForItsTurnInsteadOfSleeping) {
  Dispatcher::Limits limits = Desk::limits_of(Order::kUnordered, 2);
  limits.rate_per_second = 30;  // a burst of three
  Desk desk(limits);
  desk.admit({"w"});
  std::vector<DeliveryPtr> chunk;
  std::vector<Decided> none;
  ASSERT_TRUE(desk.dispatcher.take(0, chunk));
  chunk.front()->phase = Phase::kDecided;
  desk.dispatcher.hand_back(0, chunk, none, 1, Duration{1});
  desk.admit({"A1", "A2"});
  ASSERT_TRUE(desk.dispatcher.take(0, chunk));
  ASSERT_EQ(chunk.size(), 2U);
  chunk.front()->move_to(Phase::kRunning, {Phase::kTaken});  // and it does not return for long
  desk.clock->on_wait = [&](MonotonicTime until) { desk.clock->advance(until - desk.clock->monotonic()); };
  std::vector<DeliveryPtr> stolen;
  ASSERT_TRUE(desk.dispatcher.take(1, stolen));
  EXPECT_EQ(Desk::names_of(stolen), Names{"A2"});
}

// ---- threads ------------------------------------------------------------------------------------

TEST(Dispatcher, AfterTheConcurrencyShrankThoseThatStayAreWoken) {
  Dispatcher::Limits limits = Desk::limits_of(Order::kKeyOrdered, 8);
  Desk desk(limits);
  std::atomic<int> taken = 0;
  std::vector<std::thread> workers;
  for (std::size_t i = 0; i < 8; ++i) {
    workers.emplace_back([&, i] {
      std::vector<DeliveryPtr> chunk;
      while (desk.dispatcher.take(i, chunk)) {
        taken += static_cast<int>(chunk.size());
        for (const DeliveryPtr& state : chunk) {
          state->move_to(Phase::kRunning, {Phase::kTaken});
          state->move_to(Phase::kDecided, {Phase::kRunning});
        }
        std::vector<DeliveryPtr> none;
        std::vector<Decided> others;
        for (const DeliveryPtr& state : chunk)
          others.push_back({state, Outcome::fail({})});
        desk.dispatcher.hand_back(i, none, others, chunk.size(), 1ms);
      }
    });
  }
  // The one worker that stays must hear of each message, although seven that may not take it sleep, too.
  desk.dispatcher.set_concurrency(1);
  int expected = 0;
  for (int round = 0; round < support::scaled(50); ++round) {
    desk.admit({"A1", "A2"});
    ASSERT_TRUE(eventually([&] { return taken == expected + 1; })) << "in round " << round;
    // Everybody is asleep again, then the lane lets the next of the key start.
    ASSERT_TRUE(eventually([&] { return !desk.collect().others.empty(); }));
    desk.dispatcher.release_lane(*desk.collected.others.front().state);
    ASSERT_TRUE(eventually([&] { return taken == expected + 2; })) << "in round " << round;
    ASSERT_TRUE(eventually([&] { return !desk.collect().others.empty(); }));
    desk.dispatcher.release_lane(*desk.collected.others.front().state);
    expected += 2;
  }
  desk.dispatcher.stop_workers();
  for (std::thread& worker : workers)
    worker.join();
}

TEST(Dispatcher, MoreConcurrencyLetsSleepingWorkersTakePart) {
  Desk desk(Desk::limits_of(Order::kUnordered, 1));
  std::atomic<int> at_once = 0;
  Gate gate;
  std::vector<std::thread> workers;
  for (std::size_t i = 0; i < 2; ++i) {
    workers.emplace_back([&, i] {
      std::vector<DeliveryPtr> chunk;
      if (!desk.dispatcher.take(i, chunk)) return;
      ++at_once;
      gate.wait();
    });
  }
  desk.admit({"A1", "A2"});
  ASSERT_TRUE(eventually([&] { return at_once == 1; }));
  EXPECT_TRUE(support::holds_for([&] { return at_once == 1; }, 20ms));
  desk.dispatcher.set_concurrency(2);
  EXPECT_TRUE(eventually([&] { return at_once == 2; }));
  gate.open();
  for (std::thread& worker : workers)
    worker.join();
}

TEST(Dispatcher, TheLaneIsRungOnceForManyOutcomesAndLeavesItsReceive) {
  Desk desk;
  std::atomic<int> wakes = 0;
  desk.dispatcher.set_waker([&] { ++wakes; });
  desk.admit({"A1", "A2", "A3"});
  for (const char* name : {"A1", "A2", "A3"})
    ASSERT_EQ(desk.start(), name);
  ASSERT_TRUE(desk.dispatcher.enter_receive());
  desk.finish("A1");
  desk.finish("A2");
  EXPECT_EQ(wakes, 1);
  desk.dispatcher.leave_receive();
  EXPECT_FALSE(desk.dispatcher.enter_receive()) << "outcomes wait already";
  desk.finish("A3");
  EXPECT_EQ(wakes, 1) << "the lane does not wait, so nobody has to wake it";
  EXPECT_EQ(desk.collect().acked.size(), 3U);
  EXPECT_TRUE(desk.dispatcher.enter_receive());
}

TEST(Dispatcher, WaitingForOutcomesEndsAtOnceWhenSomeCameBefore) {
  Desk desk;
  desk.dispatcher.wait_for_outcomes(desk.clock->monotonic() + 1h);
  EXPECT_EQ(desk.clock->last_wait, desk.clock->monotonic() + 1h);
  desk.clock->last_wait.reset();
  desk.dispatcher.wake_lane();
  desk.dispatcher.wait_for_outcomes(desk.clock->monotonic() + 1h);
  EXPECT_EQ(desk.clock->last_wait, std::nullopt);
}

TEST(Dispatcher, NoKeyRunsTwiceAtOnceAndNothingIsLostWhateverTheThreadsDo) {
  constexpr int kKeys = 7;
  const int messages = support::scaled(4000);
  Desk desk(Desk::limits_of(Order::kKeyOrdered, 4));
  std::array<std::atomic<int>, kKeys> running{};
  std::array<std::vector<int>, kKeys> order;
  std::atomic<int> overlaps = 0;
  std::vector<std::thread> workers;
  for (std::size_t i = 0; i < 4; ++i) {
    workers.emplace_back([&, i] {
      std::vector<DeliveryPtr> chunk;
      while (desk.dispatcher.take(i, chunk)) {
        std::vector<DeliveryPtr> acked;
        std::vector<Decided> others;
        std::size_t ran = 0;
        for (const DeliveryPtr& state : chunk) {
          if (!state->move_to(Phase::kRunning, {Phase::kTaken})) continue;
          ++ran;
          const std::string& name = state->envelope().payload;
          const auto key = static_cast<std::size_t>(name[0] - 'A');
          if (running[key].fetch_add(1) != 0) ++overlaps;
          order[key].push_back(std::stoi(name.substr(1)));
          running[key].fetch_sub(1);
          if (state->move_to(Phase::kDecided, {Phase::kRunning})) acked.push_back(state);
        }
        desk.dispatcher.hand_back(i, acked, others, ran, 10us);
      }
    });
  }
  std::size_t settled = 0;
  for (int sent = 0; settled < static_cast<std::size_t>(messages);) {
    std::vector<std::string> names;
    for (int i = 0; i < 16 && sent < messages; ++i, ++sent)
      names.push_back(std::string(1, static_cast<char>('A' + sent % kKeys)) + std::to_string(sent));
    if (!names.empty()) {
      const auto to_park = desk.admit(names);
      ASSERT_TRUE(to_park.empty());
    } else {
      desk.dispatcher.wait_for_outcomes(desk.clock->monotonic());
      std::this_thread::yield();
    }
    auto round = desk.dispatcher.collect(desk.clock->monotonic());
    ASSERT_TRUE(round.others.empty());
    desk.dispatcher.finished(round.acked, true);
    settled += round.acked.size();
  }
  desk.dispatcher.stop_workers();
  for (std::thread& worker : workers)
    worker.join();
  EXPECT_EQ(overlaps, 0);
  for (const std::vector<int>& one : order)
    EXPECT_TRUE(std::is_sorted(one.begin(), one.end()));
  EXPECT_EQ(desk.dispatcher.gauge().in_hand, 0U);
  EXPECT_EQ(desk.dispatcher.gauge().running, 0U);
}

}  // namespace
}  // namespace towline::engine
