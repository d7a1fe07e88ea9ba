// What a choreography does: each event counts once, in whatever order they come, and from every point at
// which whoever drove it can have died.
//
// The player drives a state as the engine does; `effects` is what ran.

#include <algorithm>
#include <map>

#include <gtest/gtest.h>

#include "saga/record.hpp"
#include "saga/state.hpp"
#include "support/property.hpp"

namespace towline::saga {
namespace {

using namespace std::chrono_literals;
using Names = std::vector<std::string>;

Step on(std::string name, std::string listen_to, std::string on_success, std::string on_failure = {}) {
  Step step;
  step.name = std::move(name);
  step.compensates = false;
  step.listen_to = std::move(listen_to);
  step.on_success = std::move(on_success);
  step.on_failure = std::move(on_failure);
  return step;
}

Step expect(std::string listen_to, std::string on_success, std::string on_failure) {
  Step step = on(on_success, std::move(listen_to), on_success, std::move(on_failure));
  step.is_awaited = true;
  return step;
}

Shape flow_of(std::vector<Step> steps) {
  Shape shape;
  shape.begins_with = "placed";
  shape.stages.push_back(std::move(steps));
  return shape;
}

const Shape kOrder =
    flow_of({on("reserve", "placed", "reserved", "refused"), on("charge", "reserved", "paid", "unpaid"),
             on("release", "unpaid", "released"), on("ship", "paid", "shipped", "unshipped"),
             on("refund", "unshipped", "refunded")});
const Shape kAwaiting = flow_of({on("reserve", "placed", "reserved"), expect("reserved", "paid", "unpaid"),
                                 on("release", "unpaid", "released"), on("ship", "paid", "shipped")});

struct Player {
  explicit Player(const Shape& of) : shape(&of), state(of) {
    Entry begun;
    begun.mark = Mark::kBegun;
    begun.context = "order";
    write(begun);
  }
  Player(const Shape& of, std::vector<Entry> written)
      : shape(&of), state(State::replay(of, written).value()) {
    log = std::move(written);
  }
  void write(Entry entry) {
    entry.at = now;
    const auto applied = state.apply(entry);
    ASSERT_TRUE(applied.ok()) << applied.error().to_string();
    log.push_back(std::move(entry));
  }
  void hear(const std::string& event) { write(state.hear(event, "of " + event).value()); }
  /// What begins now is run; who is in `failing` fails for good.
  Player& play(const Names& failing = {}) {
    for (int rounds = 0; rounds < 100 && step(failing); ++rounds) {
    }
    return *this;
  }
  bool step(const Names& failing) {
    const auto unwanted = state.unwanted();
    for (const Call& call : unwanted)
      write(state.failed(call, std::nullopt, "cancelled"));
    const auto ready = state.ready(now);
    for (const Call& call : ready)
      write(state.begin(call));
    bool ran = false;
    for (const Call& call : state.running()) {
      const Step& one = shape->stages.front()[call.step];
      if (one.is_awaited) continue;
      ran = true;
      effects.push_back(one.name);
      const bool fails = std::find(failing.begin(), failing.end(), one.name) != failing.end();
      write(fails ? state.failed(call, std::nullopt, "no")
                  : state.succeeded(call, state.input(call.step) + ">" + one.name, std::nullopt));
    }
    return ran || !unwanted.empty() || !ready.empty();
  }

  const Shape* shape;
  State state;
  TimePoint now{};
  std::vector<Entry> log;
  Names effects;
};

TEST(StateOfFlow, EachStepRunsOnItsEvent) {
  Player player(kOrder);
  EXPECT_EQ(player.state.status(), Status::kRunning);
  EXPECT_EQ(player.state.at(), "reserve");
  player.play();
  EXPECT_EQ(player.state.status(), Status::kCompleted);
  EXPECT_EQ(player.effects, (Names{"reserve", "charge", "ship"}));
  EXPECT_EQ(*player.state.heard("shipped"), "order>reserve>charge>ship");
  EXPECT_EQ(player.state.heard("unpaid"), nullptr);
  EXPECT_EQ(player.state.at(), "");
}

TEST(StateOfFlow, AFailureLeadsToWhatListensToIt) {
  EXPECT_EQ(Player(kOrder).play({"charge"}).effects, (Names{"reserve", "charge", "release"}));
  EXPECT_EQ(Player(kOrder).play({"charge"}).state.status(), Status::kCompensated);
  EXPECT_EQ(Player(kOrder).play({"ship"}).effects, (Names{"reserve", "charge", "ship", "refund"}));
  EXPECT_EQ(Player(kOrder).play({"reserve"}).state.status(), Status::kCompensated) << "nobody listens";
  const Player player = Player(kOrder).play({"charge"});
  EXPECT_EQ(*player.state.heard("unpaid"), "order>reserve") << "what the failed step got";
  EXPECT_EQ(player.state.cause(), "charge: no");
}

TEST(StateOfFlow, AnotherWayToTheEndCompletesIt) {
  const Shape shape = flow_of({on("card", "placed", "paid", "declined"), on("invoice", "declined", "paid"),
                               on("ship", "paid", "shipped")});
  const Player player = Player(shape).play({"card"});
  EXPECT_EQ(player.effects, (Names{"card", "invoice", "ship"}));
  EXPECT_EQ(player.state.status(), Status::kCompleted);
}

TEST(StateOfFlow, WhatUndoesAndFailsUnheardIsStuckUntilAPersonHelps) {
  Player player(kOrder);
  player.play({"charge", "release"});
  EXPECT_EQ(player.state.status(), Status::kStuck);
  EXPECT_EQ(player.state.at(), "release");
  EXPECT_EQ(player.state.stuck_steps(), Names{"release"});
  EXPECT_FALSE(player.state.retry("charge").ok());
  Player skipped = player;
  skipped.write(skipped.state.skip("release").value());
  EXPECT_EQ(skipped.state.status(), Status::kCompensated);
  EXPECT_NE(skipped.state.heard("released"), nullptr);
  EXPECT_EQ(skipped.log.back().event, "released");
  player.write(player.state.retry("release").value());
  EXPECT_EQ(player.state.status(), Status::kCompensating);
  player.play();
  EXPECT_EQ(player.state.status(), Status::kCompensated);
}

TEST(StateOfFlow, WhatIsAwaitedEndsByEitherEventOrBothWaysOfFailing) {
  Player player(kAwaiting);
  player.play();
  EXPECT_EQ(player.effects, Names{"reserve"});
  EXPECT_EQ(player.state.status(), Status::kRunning);
  EXPECT_EQ(player.state.at(), "paid");
  Player paid = player;
  paid.hear("paid");
  EXPECT_EQ(paid.play().effects, (Names{"reserve", "ship"}));
  EXPECT_EQ(paid.state.status(), Status::kCompleted);
  Player unpaid = player;
  unpaid.hear("unpaid");
  EXPECT_EQ(unpaid.state.cause(), "paid: 'unpaid' was heard");
  EXPECT_EQ(unpaid.play().effects, (Names{"reserve", "release"}));
  EXPECT_EQ(unpaid.state.status(), Status::kCompensated);
  Player missing = player;
  missing.write(missing.state.failed(missing.state.running().front(), std::nullopt, "late"));
  EXPECT_EQ(missing.log.back().event, "unpaid");
  EXPECT_EQ(missing.play().effects, (Names{"reserve", "release"}));
  EXPECT_FALSE(missing.state.hear("paid", "").ok()) << "it is over";
}

TEST(StateOfFlow, WhatIsAwaitedMayComeBeforeWhatItFollows) {
  Player player(kAwaiting);
  player.hear("paid");
  EXPECT_EQ(player.play().effects.size(), 2U);
  EXPECT_EQ(player.state.status(), Status::kCompleted);
  EXPECT_TRUE(player.state.running().empty());
}

TEST(StateOfFlow, WhatUndoesAStepWaitsForIt) {
  // The shop gives up while the bank is still at it.
  const Shape bank = flow_of({on("charge", "placed", "paid", "unpaid"), expect("paid", "shipped", "released"),
                              on("refund", "released", "refunded")});
  Player player(bank);
  player.hear("released");
  ASSERT_EQ(player.state.ready(player.now).size(), 1U) << "charge alone";
  EXPECT_EQ(player.play().effects, (Names{"charge", "refund"}));
  EXPECT_EQ(player.state.status(), Status::kCompensated);
  Player declined(bank);
  declined.hear("released");
  EXPECT_EQ(declined.play({"charge"}).effects, Names{"charge"}) << "there is nothing to give back";
  EXPECT_EQ(declined.state.status(), Status::kCompensated);
}

TEST(StateOfFlow, AnEventThatSeveralLeadToHasItsTurnByEither) {
  const Shape shape = flow_of({on("charge", "placed", "paid", "cancelled"),
                               expect("paid", "shipped", "cancelled"), on("undo", "cancelled", "undone")});
  for (const Names& failing : {Names{}, Names{"charge"}}) {
    Player player(shape);
    player.hear("cancelled");
    EXPECT_EQ(player.play(failing).effects, (Names{"charge", "undo"}));
    EXPECT_EQ(player.state.status(), Status::kCompensated);
  }
}

TEST(StateOfFlow, OnlyWhatHasItsTurnDecides) {
  const Shape bank = flow_of({on("charge", "placed", "paid", "unpaid"), expect("paid", "shipped", "released"),
                              on("refund", "released", "refunded")});
  Player shipped(bank);
  shipped.hear("shipped");
  shipped.play({"charge"});
  EXPECT_EQ(shipped.state.status(), Status::kCompensated) << "it was never paid";
  Player released(bank);
  released.hear("released");
  EXPECT_EQ(released.state.status(), Status::kRunning);
  EXPECT_EQ(released.state.cause(), "");
  EXPECT_FALSE(released.state.hear("shipped", "").ok()) << "the first counts, whenever it has its turn";
  released.play();
  EXPECT_EQ(released.state.cause(), "shipped: 'released' was heard");
  const Shape refunding =
      flow_of({on("charge", "placed", "paid", "unpaid"), expect("unpaid", "refunded", "unrefunded"),
               on("tell", "refunded", "told")});
  Player unrefunded(refunding);
  unrefunded.hear("unrefunded");
  unrefunded.play();
  EXPECT_EQ(unrefunded.state.status(), Status::kCompleted) << "nothing was to be given back";
}

TEST(StateOfFlow, WhatWasBegunUnderAnotherRuleIsRead) {
  const Shape bank = flow_of({on("charge", "placed", "paid", "unpaid"), expect("paid", "shipped", "released"),
                              on("refund", "released", "refunded")});
  Player player(bank);
  player.hear("released");
  Entry early;  // once it did not wait for the charge
  early.mark = Mark::kStarted;
  early.step = "refund";
  early.attempt = 1;
  player.write(early);
  EXPECT_EQ(player.state.running().size(), 1U);
  player.play();
  EXPECT_EQ(player.state.status(), Status::kCompensated);
  early.attempt = 2;
  EXPECT_FALSE(player.state.apply(early).ok());
}

TEST(StateOfFlow, HearsAnEventOnceAndOnlyWhatItListensTo) {
  Player player(kAwaiting);
  EXPECT_FALSE(player.state.hear("placed", "again").ok());
  EXPECT_FALSE(player.state.hear("shipped", "").ok()) << "nobody listens";
  player.hear("paid");
  EXPECT_FALSE(player.state.hear("paid", "").ok());
  Entry entry;
  entry.mark = Mark::kHeard;
  entry.event = "paid";
  entry.context = "again";
  EXPECT_TRUE(player.state.apply(entry).ok()) << "a log that has it was written under another rule";
  EXPECT_EQ(*player.state.heard("paid"), "of paid");
  EXPECT_FALSE(State(Shape{{{{"a"}}}, {}}).hear("paid", "").ok()) << "a saga with a conductor";
}

TEST(StateOfFlow, OfTheTwoEventsOfWhatIsAwaitedTheFirstCounts) {
  Player player(kAwaiting);
  player.play();
  player.write(player.state.failed(player.state.running().front(), std::nullopt, "late"));
  ASSERT_EQ(player.state.ready(player.now).size(), 1U) << "release";
  EXPECT_FALSE(player.state.hear("paid", "").ok());
  Player paid(kAwaiting);
  paid.hear("paid");
  EXPECT_FALSE(paid.state.hear("unpaid", "").ok());
}

TEST(StateOfFlow, WhatIsStuckStillHears) {
  const Shape shape = flow_of({on("charge", "placed", "paid", "unpaid"),
                               expect("unpaid", "refunded", "unrefunded"), on("tell", "refunded", "told")});
  Player player(shape);
  player.play({"charge"});
  player.hear("unrefunded");
  EXPECT_EQ(player.state.status(), Status::kStuck);
  Player again = player;
  again.write(again.state.retry("refunded").value());
  again.play();
  again.hear("unrefunded");
  EXPECT_EQ(again.state.status(), Status::kStuck) << "a second failure is heard after a retry";
  player.hear("refunded");
  EXPECT_EQ(player.state.status(), Status::kCompensating);
  EXPECT_EQ(player.play().effects, (Names{"charge", "tell"}));
  EXPECT_EQ(player.state.status(), Status::kCompensated);
}

TEST(StateOfFlow, CancelledItBeginsNothingOfTheWayAndUndoes) {
  Player player(kOrder);
  player.step({});  // reserved
  player.write(player.state.cancel("the customer left").value());
  EXPECT_EQ(player.state.unwanted().size(), 1U);
  EXPECT_TRUE(player.state.ready(player.now).empty());
  player.play();
  EXPECT_EQ(player.effects, (Names{"reserve", "release"}));
  EXPECT_EQ(player.state.status(), Status::kCompensated);
  EXPECT_EQ(player.state.cause(), "the customer left");
  EXPECT_FALSE(player.state.cancel("again").ok());
  // Others may be at what is awaited: it is waited for.
  Player waits(kAwaiting);
  waits.step({});
  waits.write(waits.state.cancel("the customer left").value());
  waits.play();
  EXPECT_EQ(waits.state.at(), "paid");
  waits.hear("paid");
  EXPECT_EQ(waits.play().effects, Names{"reserve"}) << "it does not ship any more";
  EXPECT_EQ(waits.state.status(), Status::kCompensated);
}

TEST(StateOfFlow, ALogIsReplayedFromEachOfItsPoints) {
  for (const Names& failing : {Names{}, Names{"charge"}, Names{"ship"}, Names{"charge", "release"}}) {
    const Player whole = Player(kOrder).play(failing);
    for (std::size_t count = 1; count <= whole.log.size(); ++count) {
      // As it is stored.
      std::vector<Entry> half;
      for (std::size_t i = 0; i < count; ++i)
        half.push_back(from_event(to_event(whole.log[i])).value());
      const Shape read = shape_of(to_text(kOrder)).value();
      Player next(read, std::move(half));
      next.play(failing);
      EXPECT_EQ(next.state.status(), whole.state.status()) << count;
      EXPECT_EQ(next.state.heard("shipped") == nullptr, whole.state.heard("shipped") == nullptr);
    }
  }
}

TEST(StateOfFlow, InEveryOrderOfEventsItComesToAnEnd) {
  support::for_all([](const std::vector<std::uint8_t>& numbers) {
    Player player(kAwaiting);
    const char* const events[] = {"paid", "unpaid", "placed", "reserved"};
    for (const std::uint8_t number : numbers) {
      if (is_final(player.state.status())) break;
      const std::string event = events[number % 4];
      if (player.state.hear(event, "").ok()) player.hear(event);
      if (number % 3 == 0 && player.state.cancel("").ok()) player.write(player.state.cancel("no").value());
      if (number % 5 != 0) player.step({});
    }
    player.play();
    if (player.state.hear("unpaid", "").ok()) player.hear("unpaid");
    player.play();
    RC_ASSERT(is_final(player.state.status()));
    const auto ran = [&](const char* name) {
      return std::find(player.effects.begin(), player.effects.end(), name) != player.effects.end();
    };
    RC_ASSERT(!(ran("ship") && ran("release")));
    for (const std::string& name : player.effects)
      RC_ASSERT(std::count(player.effects.begin(), player.effects.end(), name) == 1);
  });
}

}  // namespace
}  // namespace towline::saga
