// What the dispatcher does with time and with threads: timeouts of handlers, the rate limit, workers that
// sleep, steal and are woken. Where only time matters the clock is virtual; where threads matter, a test
// starts them and waits for what they do.

#include <array>
#include <atomic>
#include <thread>

#include "engine/dispatcher.hpp"
#include "support/eventually.hpp"
#include "unit/engine/desk.hpp"

namespace towline::engine {
namespace {

using namespace testing;
using support::eventually;

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

TEST(Dispatcher, MoreConcurrencyIsMoreCreditAtOnce) {
  Desk desk;
  desk.dispatcher.set_concurrency(100);
  EXPECT_GE(desk.dispatcher.credit(), 100U) << "before anything of the old places has ended";
}

TEST(Dispatcher, TheLaneIsRungOnceForManyOutcomesAndLeavesItsReceive) {
  Desk desk;
  std::atomic<int> wakes = 0;
  desk.dispatcher.set_waker([&] { ++wakes; });
  desk.admit({"A1", "A2", "A3"});
  for (const char* name : {"A1", "A2", "A3"})
    ASSERT_EQ(desk.start(), name);
  ASSERT_TRUE(desk.dispatcher.enter_receive(desk.clock->monotonic() + 1h));
  desk.finish("A1");
  desk.finish("A2");
  EXPECT_EQ(wakes, 1);
  desk.dispatcher.leave_receive();
  EXPECT_FALSE(desk.dispatcher.enter_receive(desk.clock->monotonic() + 1h)) << "outcomes wait already";
  desk.finish("A3");
  EXPECT_EQ(wakes, 1) << "the lane does not wait, so nobody has to wake it";
  EXPECT_EQ(desk.collect().acked.size(), 3U);
  EXPECT_TRUE(desk.dispatcher.enter_receive(desk.clock->monotonic() + 1h));
}

TEST(Dispatcher, AHandlerThatStartsWhileTheLaneWaitsIsTimedOutInTime) {
  Desk desk;
  std::atomic<int> wakes = 0;
  desk.dispatcher.set_waker([&] { ++wakes; });
  desk.admit({"A1", "B1"});
  const MonotonicTime begin = desk.clock->monotonic();
  ASSERT_EQ(desk.dispatcher.enter_receive(begin + 1h), begin + 1h);
  ASSERT_EQ(desk.start(), "A1");
  EXPECT_EQ(wakes, 1) << "its time is up before the lane would look";
  desk.dispatcher.leave_receive();
  desk.collect();
  const auto until = desk.dispatcher.enter_receive(begin + 1h);
  ASSERT_TRUE(until.has_value());
  EXPECT_LE(*until, begin + 31s);
  ASSERT_EQ(desk.start(), "B1");
  EXPECT_EQ(wakes, 1) << "the lane looks early enough";
  desk.dispatcher.leave_receive();
  desk.clock->on_wait = [&](MonotonicTime wait_until) { EXPECT_LE(wait_until, begin + 31s); };
  desk.dispatcher.wait_for_outcomes(begin + 1h);
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
