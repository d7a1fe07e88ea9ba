// What a saga does: forwards, backwards, by hand, and from every point at which whoever drove it can have
// died.
//
// The player below drives a state as the engine does: it writes what begins a call, runs it, writes its
// outcome. What it ran is in `effects`, a compensation with a minus before it.

#include "saga/state.hpp"

#include <functional>
#include <map>

#include <gtest/gtest.h>

#include "support/property.hpp"

namespace towline::saga {
namespace {

using namespace std::chrono_literals;
using Names = std::vector<std::string>;

enum class Answer : std::uint8_t { kOk, kAgain, kNever };
/// What becomes of a call, by "step" or "-step" and attempt.
using Fate = std::function<Answer(const std::string& effect, std::uint32_t attempt)>;

Answer always(const std::string&, std::uint32_t) { return Answer::kOk; }
Fate fails(Names effects, Answer result = Answer::kNever) {
  return [effects = std::move(effects), result](const std::string& effect, std::uint32_t) {
    return std::find(effects.begin(), effects.end(), effect) == effects.end() ? Answer::kOk : result;
  };
}

Shape shape_of(const std::vector<Names>& stages, std::string pivot = {}) {
  Shape shape;
  shape.pivot = std::move(pivot);
  for (const Names& names : stages) {
    std::vector<Step>& stage = shape.stages.emplace_back();
    for (const std::string& name : names)
      stage.push_back({name});
  }
  return shape;
}
const Shape kFour = shape_of({{"a"}, {"b"}, {"c"}, {"d"}});

struct Player {
  explicit Player(const Shape& of) : shape(&of), state(of) { write(begun()); }
  Player(const Shape& of, std::vector<Entry> written)
      : shape(&of), state(State::replay(of, written).value()) {
    log = std::move(written);
  }
  static Entry begun() {
    Entry entry;
    entry.mark = Mark::kBegun;
    entry.context = "context";
    return entry;
  }
  void write(Entry entry) {
    entry.at = now;
    const auto applied = state.apply(entry);
    ASSERT_TRUE(applied.ok()) << applied.error().to_string();
    log.push_back(std::move(entry));
  }
  [[nodiscard]] std::string effect(const Call& call) const {
    return (call.phase == Phase::kCompensate ? "-" : "") + state.name_of_step(call.step);
  }
  void end(const Call& call, Answer result) {
    if (result == Answer::kOk) {
      write(state.succeeded(call, "output of " + effect(call), std::nullopt));
    } else {
      const auto again = result == Answer::kAgain ? std::optional(now + 1s) : std::nullopt;
      write(state.failed(call, again, "no"));
    }
  }
  /// One round; false: there is nothing to do.
  bool round(const Fate& fate) {
    const auto calls = state.ready(now);
    for (const Call& call : calls)
      write(state.begin(call));
    for (const Call& call : calls) {
      effects.push_back(effect(call));
      end(call, fate(effects.back(), call.attempt));
    }
    if (!calls.empty()) return true;
    const auto due = state.next_due();
    if (due) now = std::max(now, *due);
    return due.has_value();
  }
  Player& play(const Fate& fate) {
    for (int i = 0; i < 1'000 && round(fate); ++i) {
    }
    return *this;
  }
  /// Whoever drove it has died: nobody knows what became of what ran.
  Player& resume(bool run_again) {
    for (const Call& call : state.running())
      write(state.failed(call, run_again ? std::optional(now) : std::nullopt, "the process died"));
    return *this;
  }

  const Shape* shape;
  State state;
  TimePoint now = from_us(1'000'000);
  std::vector<Entry> log;
  Names effects;
};

/// The compensations that a log has, in their order.
Names compensated(const std::vector<Entry>& log) {
  Names names;
  for (const Entry& entry : log) {
    if (entry.mark == Mark::kCompensated) names.push_back(entry.step);
  }
  return names;
}

/// What must have been compensated, in which order: first what was started without success, the last first,
/// then what succeeded, in reverse.
Names expected_compensations(const std::vector<Entry>& log) {
  Names done, open;
  for (const Entry& entry : log) {
    const auto is = [&](const std::string& name) { return name == entry.step; };
    if (entry.mark == Mark::kStarted && std::none_of(open.begin(), open.end(), is))
      open.push_back(entry.step);
    if (entry.mark == Mark::kDone) {
      std::erase_if(open, is);
      done.push_back(entry.step);
    }
  }
  Names names(open.rbegin(), open.rend());
  names.insert(names.end(), done.rbegin(), done.rend());
  return names;
}

TEST(Saga, StepsRunOnceEachInTheirOrder) {
  Player player(kFour);
  player.play(always);
  EXPECT_EQ(player.effects, (Names{"a", "b", "c", "d"}));
  EXPECT_EQ(player.state.status(), Status::kCompleted);
  EXPECT_EQ(player.state.output(1), "output of b");
  EXPECT_EQ(player.state.context(), "context");
}

TEST(Saga, WhatWasStartedIsUndoneInReverseOrder) {
  Player player(kFour);
  player.play(fails({"c"}));
  EXPECT_EQ(player.effects, (Names{"a", "b", "c", "-c", "-b", "-a"}));
  EXPECT_EQ(player.state.status(), Status::kCompensated);
  EXPECT_EQ(player.state.cause(), "c: no");
  EXPECT_EQ(player.state.output(2), std::nullopt) << "its compensation is told that nothing is known";
  EXPECT_EQ(player.state.output(1), "output of b");
  const std::size_t count = player.log.size();
  player.play(always);
  EXPECT_EQ(player.log.size(), count) << "and nothing more happens";
}

TEST(Saga, AFailedAttemptIsTriedAgainWhenItIsDue) {
  Player player(kFour);
  const Fate twice = [](const std::string& effect, std::uint32_t attempt) {
    return effect == "b" && attempt < 3 ? Answer::kAgain : Answer::kOk;
  };
  while (player.effects.size() < 2)
    ASSERT_TRUE(player.round(twice));
  EXPECT_TRUE(player.state.ready(player.now).empty());
  EXPECT_EQ(player.state.next_due(), player.now + 1s);
  player.play(twice);
  EXPECT_EQ(player.effects, (Names{"a", "b", "b", "b", "c", "d"}));
  EXPECT_EQ(player.state.status(), Status::kCompleted);
}

TEST(Saga, ACompensationThatKeepsFailingIsStuckAndTheOthersStillRun) {
  Player player(kFour);
  player.play(fails({"d", "-b"}));
  EXPECT_EQ(player.effects, (Names{"a", "b", "c", "d", "-d", "-c", "-b", "-a"}));
  EXPECT_EQ(player.state.status(), Status::kStuck);
  EXPECT_EQ(player.state.stuck_steps(), Names{"b"});
}

TEST(Saga, APersonCanHelpAStuckOne) {
  Player player(kFour);
  player.play(fails({"d", "-b", "-c"}));
  EXPECT_EQ(player.state.retry("a").error().code, ErrorCode::kNotFound);
  player.write(player.state.retry("b").value());
  EXPECT_EQ(player.state.status(), Status::kCompensating);
  EXPECT_EQ(player.state.retry("c").error().code, ErrorCode::kConflict) << "it is not stuck now";
  player.play(always);
  EXPECT_EQ(player.effects.back(), "-b");
  EXPECT_EQ(player.state.status(), Status::kStuck);
  player.write(player.state.skip("c").value());
  EXPECT_EQ(player.state.status(), Status::kCompensated);
  EXPECT_EQ(player.state.skip("c").error().code, ErrorCode::kConflict);
}

TEST(Saga, AStuckOneCanBeForcedAndOthersCannot) {
  Player player(kFour);
  EXPECT_EQ(player.state.force(Status::kCompleted).error().code, ErrorCode::kConflict);
  player.play(fails({"d", "-b"}));
  EXPECT_EQ(player.state.force(Status::kRunning).error().code, ErrorCode::kInvalidArgument);
  player.write(player.state.force(Status::kCompensated).value());
  EXPECT_EQ(player.state.status(), Status::kCompensated);
  EXPECT_EQ(player.state.retry("b").error().code, ErrorCode::kConflict);
  EXPECT_TRUE(player.state.ready(player.now).empty());
}

TEST(Saga, BehindThePivotItOnlyGoesForward) {
  const Shape shape = shape_of({{"a"}, {"b"}, {"c"}}, "b");
  Player player(shape);
  player.play(fails({"c"}));
  EXPECT_EQ(player.effects, (Names{"a", "b", "c"})) << "nothing is undone";
  EXPECT_EQ(player.state.status(), Status::kStuck);
  EXPECT_EQ(player.state.stuck_steps(), Names{"c"});
  EXPECT_EQ(player.state.cancel("why").error().code, ErrorCode::kConflict);
  player.write(player.state.retry("c").value());
  player.play(always);
  EXPECT_EQ(player.state.status(), Status::kCompleted);

  Player before(shape);
  before.play(fails({"b"}));
  EXPECT_EQ(before.effects, (Names{"a", "b", "-b", "-a"})) << "the pivot itself has not been passed";

  Player skipped(shape);
  skipped.play(fails({"c"}));
  skipped.write(skipped.state.skip("c").value());
  EXPECT_EQ(skipped.state.status(), Status::kCompleted);
}

TEST(Saga, CancellingUndoesFromHereOnceWhatRunsHasEnded) {
  Player player(kFour);
  while (player.effects.size() < 2)
    ASSERT_TRUE(player.round(always));
  const auto calls = player.state.ready(player.now);
  ASSERT_EQ(calls.size(), 1U);
  player.write(player.state.begin(calls[0]));
  player.write(player.state.cancel("the customer left").value());
  EXPECT_EQ(player.state.status(), Status::kRunning);
  EXPECT_TRUE(player.state.ready(player.now).empty());
  player.end(calls[0], Answer::kOk);
  player.play(always);
  EXPECT_EQ(player.effects, (Names{"a", "b", "-c", "-b", "-a"}));
  EXPECT_EQ(player.state.status(), Status::kCompensated);
  EXPECT_EQ(player.state.cause(), "the customer left");
  EXPECT_EQ(player.state.cancel("again").error().code, ErrorCode::kConflict);
}

TEST(Saga, OneThatIsCancelledBeforeItsFirstStepIsCompensatedAtOnce) {
  Player player(kFour);
  player.write(player.state.cancel("early").value());
  EXPECT_EQ(player.state.status(), Status::kCompensated);
}

TEST(Saga, BranchesRunSideBySideAndAreUndoneInReverseOrderOfSuccess) {
  const Shape shape = shape_of({{"a"}, {"b", "c", "d"}, {"e"}});
  Player player(shape);
  ASSERT_TRUE(player.round(always));
  const auto calls = player.state.ready(player.now);
  ASSERT_EQ(calls.size(), 3U);
  for (const Call& call : calls)
    player.write(player.state.begin(call));
  player.end(calls[2], Answer::kOk);     // d
  player.end(calls[1], Answer::kNever);  // c
  EXPECT_EQ(player.state.status(), Status::kRunning) << "b runs still";
  EXPECT_TRUE(player.state.ready(player.now).empty());
  player.end(calls[0], Answer::kOk);  // b
  player.effects.clear();
  player.play(always);
  EXPECT_EQ(player.effects, (Names{"-c", "-b", "-d", "-a"}));

  Player changer(shape);
  ASSERT_TRUE(changer.round(always));
  const Call branch = changer.state.ready(changer.now)[0];
  changer.write(changer.state.begin(branch));
  EXPECT_FALSE(changer.state.apply(changer.state.succeeded(branch, "", "changed")).ok())
      << "whose change would count?";
}

TEST(Saga, AStepThatOnlyReadsIsNotUndone) {
  Shape shape = shape_of({{"a"}, {"look"}, {"b"}});
  shape.stages[1][0] = {"look", false, true};
  Player player(shape);
  player.play(fails({"b"}));
  EXPECT_EQ(player.effects, (Names{"a", "look", "b", "-b", "-a"}));
}

TEST(Saga, TheContextIsCarriedFromStepToStep) {
  Player player(kFour);
  const Call call = player.state.ready(player.now)[0];
  player.write(player.state.begin(call));
  player.write(player.state.succeeded(call, "output", "context 2"));
  EXPECT_EQ(player.state.context(), "context 2");
  EXPECT_EQ(State::replay(kFour, player.log).value().context(), "context 2");
}

// ---- whoever drives it may die at any moment ------------------------------------------------------

void expect_well_ended(const Player& player, const std::string& what) {
  ASSERT_TRUE(is_final(player.state.status())) << what;
  if (player.state.status() == Status::kCompensated) {
    EXPECT_EQ(compensated(player.log), expected_compensations(player.log)) << what;
  } else if (player.state.status() == Status::kCompleted) {
    EXPECT_TRUE(compensated(player.log).empty()) << what;
  }
  const auto again = State::replay(*player.shape, player.log);
  ASSERT_TRUE(again.ok()) << what;
  EXPECT_EQ(again->status(), player.state.status()) << what;
}

TEST(Saga, KilledAfterAnyEntryItComesToTheSameEnd) {
  const std::vector<Shape> shapes = {kFour, shape_of({{"a"}, {"b", "c"}, {"d"}}),
                                     shape_of({{"a"}, {"b"}, {"c"}, {"d"}}, "c")};
  const std::vector<Fate> fates = {always,
                                   fails({"d"}),
                                   fails({"b"}),
                                   fails({"d", "-a"}),
                                   fails({"c"}),
                                   [](const std::string& effect, std::uint32_t attempt) {
                                     if (effect == "d") return Answer::kNever;
                                     return attempt < 3 ? Answer::kAgain : Answer::kOk;
                                   }};
  int kills = 0;
  for (std::size_t s = 0; s < shapes.size(); ++s) {
    for (std::size_t f = 0; f < fates.size(); ++f) {
      Player whole(shapes[s]);
      whole.play(fates[f]);
      for (std::size_t cut = 1; cut <= whole.log.size(); ++cut) {
        Player heir(shapes[s], {whole.log.begin(), whole.log.begin() + static_cast<std::ptrdiff_t>(cut)});
        heir.now = whole.now;
        heir.resume(true).play(fates[f]);
        const std::string what = std::to_string(s) + "/" + std::to_string(f) + "/" + std::to_string(cut);
        expect_well_ended(heir, what);
        EXPECT_EQ(heir.state.status(), whole.state.status()) << what;
        ++kills;
      }
    }
  }
  EXPECT_GT(kills, 250);
}

TEST(Saga, WhatNobodyKnowsTheOutcomeOfIsUndoneToo) {
  Player player(kFour);
  while (player.effects.size() < 2)
    ASSERT_TRUE(player.round(always));
  player.write(player.state.begin(player.state.ready(player.now)[0]));
  Player heir(kFour, player.log);
  heir.resume(false).play(always);
  EXPECT_EQ(heir.effects, (Names{"-c", "-b", "-a"}));
  EXPECT_EQ(heir.state.status(), Status::kCompensated);
}

TEST(Saga, WhateverHappensItEndsAndNothingIsForgotten) {
  support::for_all([](const std::vector<std::uint8_t>& dice) {
    std::size_t at = 0;
    const auto roll = [&](std::uint8_t sides) -> std::uint8_t {
      return dice.empty() ? 0 : static_cast<std::uint8_t>(dice[at++ % dice.size()] % sides);
    };
    std::vector<Names> stages;
    char name = 'a';
    for (std::uint8_t stage = 0, count = static_cast<std::uint8_t>(1 + roll(5)); stage < count; ++stage) {
      stages.emplace_back();
      for (std::uint8_t branch = 0, width = static_cast<std::uint8_t>(1 + roll(4) / 2); branch < width;
           ++branch)
        stages.back().emplace_back(1, name++);
    }
    const Names& chosen = stages[roll(static_cast<std::uint8_t>(stages.size()))];
    const Shape shape = shape_of(stages, chosen.size() == 1 && roll(3) == 0 ? chosen[0] : std::string());
    RC_ASSERT(check_shape(shape).ok());
    Player player(shape);
    const Fate fate = [&](const std::string&, std::uint32_t attempt) {
      const std::uint8_t luck = roll(8);
      if (luck == 0) return Answer::kNever;
      return luck < 3 && attempt < 4 ? Answer::kAgain : Answer::kOk;
    };
    for (int i = 0; i < 200 && !is_final(player.state.status()); ++i) {
      if (roll(6) == 0) {
        // Begun, and then the process died; another one goes on from the log.
        for (const Call& call : player.state.ready(player.now))
          player.write(player.state.begin(call));
        player.resume(roll(2) == 0);
      }
      if (roll(12) == 0) {
        if (auto entry = player.state.cancel("somebody"); entry.ok()) player.write(std::move(*entry));
      }
      (void)player.round(fate);
    }
    RC_ASSERT(is_final(player.state.status()));
    if (player.state.status() == Status::kCompensated)
      RC_ASSERT(compensated(player.log) == expected_compensations(player.log));
    const auto again = State::replay(shape, player.log);
    RC_ASSERT(again.ok());
    RC_ASSERT(again->status() == player.state.status());
  });
}

TEST(Saga, ALogThatCannotBeIsRefused) {
  Player player(kFour);
  player.play(fails({"c"}));
  for (std::size_t i = 0; i + 1 < player.log.size(); ++i) {
    std::vector<Entry> swapped = player.log;
    std::swap(swapped[i], swapped[i + 1]);
    EXPECT_EQ(State::replay(kFour, swapped).error().code, ErrorCode::kConflict) << i;
    std::vector<Entry> missing = player.log;
    missing.erase(missing.begin() + static_cast<std::ptrdiff_t>(i));
    EXPECT_EQ(State::replay(kFour, missing).error().code, ErrorCode::kConflict) << i;
    std::vector<Entry> twice = player.log;
    twice.insert(twice.begin() + static_cast<std::ptrdiff_t>(i), player.log[i]);
    EXPECT_EQ(State::replay(kFour, twice).error().code, ErrorCode::kConflict) << i;
  }
  std::vector<Entry> unknown = player.log;
  unknown[1].step = "nobody";
  EXPECT_EQ(State::replay(kFour, unknown).error().message,
            "entry 2 of the saga's log, 'started' of step 'nobody', cannot follow those before it");
}

}  // namespace
}  // namespace towline::saga
