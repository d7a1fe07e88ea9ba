// Dead letters as an operator meets them: sending back is one unit that happens once, whoever else is at
// it, and alerts begin and end with what they tell of.

#include "engine/dead_letters.hpp"

#include "unit/engine/world.hpp"

namespace towline::engine {
namespace {

using namespace testing;
using Names = std::vector<std::string>;
using Kind = Alert::Kind;

/// A world whose consumer fails while `broken`.
class Ward {
 public:
  explicit Ward(WorldOptions options = {}, DeadLettersOptions policy = {})
      : world(with_alerts(std::move(options))) {
    ConsumerOptions member = group_options();
    member.retry.max_attempts = 1;
    member.prefetch_count = 1000;
    member.dead_letters = policy;
    consumer = world.consume(member, [this](Delivery&) {
      if (broken) throw HandlerError(error_type, "at " + std::to_string(world.handled.size()));
    });
  }
  WorldOptions with_alerts(WorldOptions options) {
    options.engine.on_alert = [this](const Alert& alert) {
      alerts.push_back(alert);
      if (listener_throws) throw alert.kind;
    };
    return options;
  }
  /// `count` messages that die; their entries, oldest first.
  std::vector<DeadLetter> bury(int count) {
    const std::size_t before = world.dead_letters().size();
    broken = true;
    for (int i = 0; i < count; ++i)
      world.publish("m" + std::to_string(i));
    world.play(*consumer);
    broken = false;
    auto all = world.dead_letters();
    EXPECT_EQ(all.size(), before + static_cast<std::size_t>(count));
    return {all.begin() + static_cast<std::ptrdiff_t>(before), all.end()};
  }
  DeadLetters& letters() { return world.core->dead_letters(); }
  DeadLetterStatus status(const DeadLetter& entry) { return letters().find(entry.id).value()->status; }
  [[nodiscard]] std::vector<std::pair<Kind, bool>> told() {
    std::vector<std::pair<Kind, bool>> out;
    for (const Alert& alert : alerts)
      out.emplace_back(alert.kind, alert.recovered);
    alerts.clear();
    return out;
  }

  std::vector<Alert> alerts;
  World world;
  std::shared_ptr<ConsumerCore> consumer;
  bool broken = false;
  bool listener_throws = false;
  std::string error_type = "Broken";
};
using Told = std::vector<std::pair<Kind, bool>>;

// ---- sending back -------------------------------------------------------------------------------

TEST(DeadLetters, ARedriveIsOneUnitThatSendsTheMessageAndResolvesTheEntry) {
  Ward ward;
  const DeadLetter entry = ward.bury(1).at(0);
  ward.world.script->forget_events();
  ASSERT_TRUE(ward.letters().redrive(entry.id, {}).ok());
  EXPECT_EQ(ward.world.script->count("commit UpdateDeadLetter+Publish"), 1);
  EXPECT_EQ(ward.status(entry), DeadLetterStatus::kResolved);
  ward.world.play(*ward.consumer);
  EXPECT_EQ(ward.world.handled.size(), 2U);
  EXPECT_EQ(ward.consumer->statistics().acked, 1U);
}

TEST(DeadLetters, WithADelayOrAnotherTransportItGoesThroughTheSchedule) {
  Ward ward;
  const auto entries = ward.bury(1);
  ward.world.script->forget_events();
  ASSERT_TRUE(ward.letters().redrive(entries[0].id, {.delay = 10s}).ok());
  EXPECT_EQ(ward.world.script->count("commit UpdateDeadLetter+PutSchedule"), 1);
  ward.world.play(*ward.consumer);
  EXPECT_EQ(ward.world.handled.size(), 1U);
  ward.world.clock->advance(10s);
  ward.world.play(*ward.consumer);
  EXPECT_EQ(ward.world.handled.size(), 2U);
}

TEST(DeadLetters, WhatIsSentBackIsTheSameMessageAtItsFirstAttempt) {
  Ward ward;
  const DeadLetter entry = ward.bury(1).at(0);
  ASSERT_TRUE(ward.letters().redrive(entry.id, {}).ok());
  ward.world.step(*ward.consumer);
  const auto delivery = ward.consumer->take_one();
  ASSERT_TRUE(delivery.has_value());
  EXPECT_EQ(delivery->id(), entry.message_id);
  EXPECT_EQ(delivery->attempt(), 1U);
  EXPECT_EQ(delivery->redrives(), 1U);
  EXPECT_EQ(delivery->payload(), "m0");
}

TEST(DeadLetters, OfTwoRedrivesOfOneEntryOneWins) {
  Ward ward;
  const DeadLetter entry = ward.bury(1).at(0);
  // The second operator commits between the first one's look and his commit.
  bool raced = false;
  ward.world.script->before("commit", [&] {
    if (std::exchange(raced, true)) return;
    EXPECT_TRUE(ward.letters().redrive(entry.id, {}).ok());
  });
  const auto first = ward.letters().redrive(entry.id, {});
  EXPECT_EQ(code_of(first), ErrorCode::kConflict);
  ward.world.play(*ward.consumer);
  EXPECT_EQ(ward.world.handled.size(), 2U) << "it re-entered once";
}

TEST(DeadLetters, ARedriveThatTheStoreRefusesLeavesTheEntryPending) {
  Ward ward;
  const DeadLetter entry = ward.bury(1).at(0);
  ward.world.script->refuse_units([](const spi::Unit& unit) {
    return find_write<spi::UpdateDeadLetter>(unit) ? std::optional(storage_full()) : std::nullopt;
  });
  EXPECT_EQ(code_of(ward.letters().redrive(entry.id, {})), ErrorCode::kStorageFull);
  EXPECT_EQ(ward.status(entry), DeadLetterStatus::kPending);
  ward.world.script->refuse_units({});
  ward.world.play(*ward.consumer);
  EXPECT_EQ(ward.world.handled.size(), 1U);
  EXPECT_TRUE(ward.letters().redrive(entry.id, {}).ok());
}

TEST(DeadLetters, OnlyPendingEntriesAreSentBackAndOnlySoOften) {
  Ward ward;
  const auto entries = ward.bury(2);
  ASSERT_TRUE(ward.letters().discard(entries[0].id).ok());
  EXPECT_EQ(code_of(ward.letters().redrive(entries[0].id, {})), ErrorCode::kConflict);
  EXPECT_EQ(code_of(ward.letters().redrive(entries[1].id, {.redrive_max = 0})), ErrorCode::kLimitExceeded);
  EXPECT_EQ(code_of(ward.letters().redrive(MessageId{{9, 9}}, {})), ErrorCode::kNotFound);
  EXPECT_TRUE(ward.letters().redrive(entries[1].id, {.dry_run = true}).ok());
  EXPECT_EQ(ward.status(entries[1]), DeadLetterStatus::kPending) << "a dry run changes nothing";
}

TEST(DeadLetters, AllThatMatchAreSentBackPageByPageAndWhatDiesAgainMeanwhileIsNot) {
  Ward ward;
  (void)ward.bury(900);
  ward.world.clock->advance(1s);
  ward.broken = true;
  // The consumer is at work while the redrive goes on: what it fails again must not be sent back for ever.
  ward.world.script->before("list_dead_letters", [&] {
    ward.world.clock->advance(1ms);
    ward.world.play(*ward.consumer);
  });
  const RedriveReport report = ward.letters().redrive_all({}, {.redrive_max = 1000}).value();
  ward.world.script->before("list_dead_letters", [] {});
  EXPECT_EQ(report.matched, 900U);
  EXPECT_EQ(report.redriven, 900U);
  EXPECT_EQ(report.passed_over, 0U);
  ward.world.play(*ward.consumer);
  EXPECT_EQ(ward.world.handled.size(), 1800U);
}

TEST(DeadLetters, WhatDiesAgainIsNotSentBackAgainWhileTheClockStandsStillOrGoesBack) {
  for (const Duration step : {Duration(0), Duration(-1s)}) {
    Ward ward;
    (void)ward.bury(900);
    ward.broken = true;
    ward.world.script->before("list_dead_letters", [&] {
      ward.world.clock->step_wall(step);
      ward.world.play(*ward.consumer);
    });
    const RedriveReport report = ward.letters().redrive_all({}, {.redrive_max = 1000}).value();
    EXPECT_EQ(report.matched, 900U);
    EXPECT_EQ(report.redriven, 900U);
  }
}

TEST(DeadLetters, ARateIsKeptByWaitingBetweenPages) {
  Ward ward;
  (void)ward.bury(50);
  const MonotonicTime begin = ward.world.clock->monotonic();
  ward.world.clock->on_wait = [&](MonotonicTime until) {
    ward.world.clock->advance(until - ward.world.clock->monotonic());
  };
  EXPECT_EQ(ward.letters().redrive_all({}, {.rate_per_second = 10}).value().redriven, 50U);
  EXPECT_GE(ward.world.clock->monotonic() - begin, 4s);
  EXPECT_LE(ward.world.clock->monotonic() - begin, 6s);
}

TEST(DeadLetters, SentElsewhereAMessageReachesEveryGroupThere) {
  Ward ward;
  const DeadLetter entry = ward.bury(1).at(0);
  const auto other = ward.world.consume_as(group_options("elsewhere"), Handler([&](Delivery& delivery) {
                                             ward.world.handled.emplace_back("other " +
                                                                             std::string(delivery.payload()));
                                           }),
                                           {"repair"});
  ASSERT_TRUE(ward.letters().redrive(entry.id, {.destination = "repair", .payload = "mended"}).ok());
  ward.world.play(*other);
  ward.world.play(*ward.consumer);
  EXPECT_EQ(ward.world.handled, (Names{"m0", "other mended"}));
}

TEST(DeadLetters, AQueryIsWrittenDownByTheConditionsThatItHas) {
  Ward ward;
  (void)ward.bury(2);
  EXPECT_EQ(ward.letters().list({.error_type = "Broken", .count_max = 1}).value().items.size(), 1U);
  const DeadLetterQuery of_topic{.topic = "t", .status = DeadLetterStatus::kPending};
  EXPECT_EQ(ward.letters().list(of_topic).value().items.size(), 2U);
  EXPECT_EQ(ward.letters().list({.text = "at 2"}).value().items.size(), 1U);
  EXPECT_TRUE(ward.letters().list({.group = "other"}).value().items.empty());
  EXPECT_EQ(code_of(ward.letters().list({.count_max = 0})), ErrorCode::kInvalidArgument);
}

// ---- automatic redrives -------------------------------------------------------------------------

TEST(DeadLetters, APolicyMaySendEntriesBackByItselfAfterAWhileAndOnlySoOften) {
  DeadLettersOptions policy;
  policy.redrive_after = 1h;
  policy.redrive_max = 2;
  Ward ward({}, policy);
  (void)ward.bury(1);
  ward.broken = true;
  std::size_t expected = 1;
  for (int round = 1; round <= 4; ++round) {
    ward.world.clock->advance(59min);
    ward.letters().watch(ward.world.clock->monotonic());
    ward.world.play(*ward.consumer);
    EXPECT_EQ(ward.world.handled.size(), expected) << "not before its time, in round " << round;
    ward.world.clock->advance(2min);
    ward.letters().watch(ward.world.clock->monotonic());
    ward.world.play(*ward.consumer);
    if (round <= 2) ++expected;
    EXPECT_EQ(ward.world.handled.size(), expected) << "in round " << round;
  }
}

// ---- alerts -------------------------------------------------------------------------------------

TEST(DeadLetters, AnAlertOnTheirNumberBeginsAndEndsWithIt) {
  WorldOptions options;
  options.engine.alert.depth_count = 3;
  options.engine.alert.cooldown = 0s;
  Ward ward(std::move(options));
  const auto watch = [&] { ward.letters().watch(ward.world.clock->monotonic()); };
  (void)ward.bury(2);
  watch();
  EXPECT_TRUE(ward.told().empty());
  const auto third = ward.bury(1);
  watch();
  watch();
  EXPECT_EQ(ward.told(), (Told{{Kind::kDepth, false}})) << "told once";
  ASSERT_TRUE(ward.letters().discard(third[0].id).ok());
  watch();
  EXPECT_EQ(ward.told(), (Told{{Kind::kDepth, true}}));
}

TEST(DeadLetters, AListenerThatThrowsHarmsNothingAndHearsTheNextAlert) {
  WorldOptions options;
  options.engine.alert.depth_count = 1;
  options.engine.alert.cooldown = 0s;
  Ward ward(std::move(options));
  ward.listener_throws = true;
  const auto entry = ward.bury(1);
  ward.letters().watch(ward.world.clock->monotonic());
  ASSERT_TRUE(ward.letters().discard(entry[0].id).ok());
  ward.letters().watch(ward.world.clock->monotonic());
  EXPECT_EQ(ward.told(), (Told{{Kind::kDepth, false}, {Kind::kDepth, true}}));
}

TEST(DeadLetters, BetweenTwoAlertsOfAKindACooldownPasses) {
  WorldOptions options;
  options.engine.alert.depth_count = 1;
  options.engine.alert.cooldown = 1min;
  Ward ward(std::move(options));
  const auto watch = [&] { ward.letters().watch(ward.world.clock->monotonic()); };
  for (int round = 0; round < 2; ++round) {
    const auto entry = ward.bury(1);
    watch();
    ASSERT_TRUE(ward.letters().discard(entry[0].id).ok());
    watch();
  }
  EXPECT_EQ(ward.told(), (Told{{Kind::kDepth, false}, {Kind::kDepth, true}}));
  ward.world.clock->advance(1min);
  (void)ward.bury(1);
  watch();
  EXPECT_EQ(ward.told(), (Told{{Kind::kDepth, false}}));
}

TEST(DeadLetters, AnAlertOnTheirAgeLooksAtTheOldestPendingOne) {
  WorldOptions options;
  options.engine.alert.age = 1h;
  options.engine.alert.cooldown = 0s;
  Ward ward(std::move(options));
  const auto entry = ward.bury(1);
  ward.world.clock->advance(1h - 1ms);
  ward.letters().watch(ward.world.clock->monotonic());
  EXPECT_TRUE(ward.told().empty());
  ward.world.clock->advance(1ms);
  ward.letters().watch(ward.world.clock->monotonic());
  EXPECT_EQ(ward.told(), (Told{{Kind::kAge, false}}));
  ASSERT_TRUE(ward.letters().redrive(entry[0].id, {}).ok());
  ward.letters().watch(ward.world.clock->monotonic());
  EXPECT_EQ(ward.told(), (Told{{Kind::kAge, true}}));
}

TEST(DeadLetters, AnAlertOnTheirRateLooksAtTheLastMinute) {
  WorldOptions options;
  options.engine.alert.rate_per_minute = 3;
  options.engine.alert.cooldown = 0s;
  Ward ward(std::move(options));
  (void)ward.bury(2);
  ward.world.clock->advance(2min);
  (void)ward.bury(2);
  ward.letters().watch(ward.world.clock->monotonic());
  EXPECT_TRUE(ward.told().empty()) << "four, but not within a minute";
  (void)ward.bury(1);
  ward.letters().watch(ward.world.clock->monotonic());
  EXPECT_EQ(ward.told(), (Told{{Kind::kRate, false}}));
  ward.world.clock->advance(2min);
  ward.letters().watch(ward.world.clock->monotonic());
  EXPECT_EQ(ward.told(), (Told{{Kind::kRate, true}}));
}

TEST(DeadLetters, TheFirstOfAFingerprintAndEveryOneOfAPolicyCanBeTold) {
  WorldOptions options;
  options.engine.alert.new_fingerprint = true;
  DeadLettersOptions policy;
  policy.alert_on_entry = true;
  Ward ward(std::move(options), policy);
  (void)ward.bury(2);
  ward.error_type = "Other";
  (void)ward.bury(1);
  ward.letters().watch(ward.world.clock->monotonic());
  int entries = 0, fingerprints = 0;
  for (const auto& [kind, recovered] : ward.told()) {
    entries += kind == Kind::kEntry ? 1 : 0;
    fingerprints += kind == Kind::kNewFingerprint ? 1 : 0;
  }
  EXPECT_EQ(entries, 3);
  EXPECT_EQ(fingerprints, 2);
}

}  // namespace
}  // namespace towline::engine
