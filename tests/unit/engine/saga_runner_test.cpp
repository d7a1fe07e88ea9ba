// Sagas whose driver loses answers, loses its life, loses the saga, or runs out of time; stepped by hand. At
// each write of a saga's whole life, one after the other.

#include "engine/saga_runner.hpp"

#include "engine/saga_workers.hpp"
#include "unit/engine/world.hpp"

namespace towline::engine::testing {
namespace {

using Names = std::vector<std::string>;

/// What the steps of all lives did.
struct Effects {
  Names names;
  SagaHandler note() {
    return [this](SagaCall& call) { add(call); };
  }
  SagaHandler fail() {
    return [this](SagaCall& call) {
      add(call);
      throw HandlerError("Never");
    };
  }
  void add(const SagaCall& call) {
    names.push_back((call.phase() == SagaPhase::kCompensate ? "-" : "") + call.step());
  }
  /// Each for the first time.
  [[nodiscard]] Names firsts() const {
    Names firsts;
    for (const std::string& name : names) {
      if (std::find(firsts.begin(), firsts.end(), name) == firsts.end()) firsts.push_back(name);
    }
    return firsts;
  }
};

SagaStepOptions failing_for_good() {
  SagaStepOptions options;
  options.classify.permanent_types = {"Never"};
  return options;
}

/// Steps a, b and c; c fails for good.
Saga doomed(Effects& effects) {
  Saga saga("order");
  saga.step("a", effects.note(), effects.note())
      .step("b", effects.note(), effects.note())
      .step("c", effects.fail(), effects.note(), failing_for_good());
  return saga;
}
const Names kUndone = {"a", "b", "c", "-c", "-b", "-a"};

/// One process that runs a saga.
struct Life {
  explicit Life(const Saga& saga, WorldOptions options = {}) : world(std::move(options)) {
    workers = std::make_shared<SagaWorkers>(saga, world.core->context_ptr());
    SagaRemote remote;
    remote.deliver = [this](std::span<SagaCall> calls) {
      if (hold) {
        held.insert(held.end(), calls.begin(), calls.end());
      } else {
        workers->run(calls);
      }
    };
    remote.stop = [this](const SagaCall& call) { stopped.push_back(call.key()); };
    runner = world.core->run_saga(saga.definition(), std::move(remote), nullptr).value();
    const auto consumers = world.core->consumers();
    consumer = consumers.back();
    if (consumers.size() > 1) listener = consumers.front();
    handler = runner->handler();
  }
  void step() {
    world.core->step_scheduler();
    world.step(*consumer);
    while (auto delivery = consumer->take_one())
      handler.deliver({&*delivery, 1});
    if (listener != nullptr) world.play(*listener);
    runner->step(world.clock->monotonic());
  }
  /// Until nothing happens for a while; time passes when nothing else does.
  Life& play(Duration patience = 2min) {
    for (Duration idle{0}; idle < patience && !dead;) {
      step();
      bool ran = false;
      while (!dead && workers->run_one())
        ran = true;
      if (ran) continue;
      world.clock->advance(1s);
      idle += 1s;
    }
    return *this;
  }
  [[nodiscard]] SagaInfo info(const std::string& id = "o") {
    return world.inner.store->find_saga("order", id).value().value_or(SagaInfo{});
  }
  void start(const Saga& saga, const std::string& id = "o") {
    ASSERT_TRUE(world.core->sagas().start(saga.definition(), id, "context").ok());
  }

  World world;
  std::shared_ptr<SagaWorkers> workers;
  std::shared_ptr<SagaRunner> runner;
  std::shared_ptr<ConsumerCore> consumer, listener;
  RemoteHandler handler;
  bool hold = false, dead = false;
  std::vector<SagaCall> held;
  Names stopped;
};

/// Where several lives go on one after the other: what one has left the next finds.
struct Place {
  explicit Place(const std::string& location, bool is_store = true) {
    options.location = location;
    options.clock = clock;
    options.is_store = is_store;
    spi::DriverOptions driver;
    driver.location = location;
    driver.clock = clock;
    keeper = drivers::open_memory(driver).value();
  }
  const std::shared_ptr<StillClock> clock = std::make_shared<StillClock>();
  WorldOptions options;
  spi::Provider keeper;
};

/// The n-th commit answers kUnavailable, with its work done or not.
void lose_answer(World& world, int n, bool executed, std::function<void()> then = {}) {
  auto seen = std::make_shared<int>(0);
  world.script->before("commit", [&world, n, executed, seen, then = std::move(then)] {
    // What is planned here is for the call after this one.
    if (++*seen == n - 1) world.script->fail("commit", {ErrorCode::kUnavailable, "lost"}, 1, executed);
    if (*seen == n && then) then();
  });
}

TEST(SagaRunner, WhoseAnswersAreLostRunsNothingTwice) {
  int disturbed = 0;
  for (const bool is_store : {true, false}) {
    for (const bool executed : {false, true}) {
      for (int n = 2; n < 12; ++n) {
        Effects effects;
        const Saga saga = doomed(effects);
        WorldOptions options;
        options.is_store = is_store;
        Life life(saga, options);
        lose_answer(life.world, n, executed, [&] { ++disturbed; });
        life.start(saga);
        life.play();
        EXPECT_EQ(life.info().status, SagaStatus::kCompensated) << n << executed << is_store;
        EXPECT_EQ(effects.names, kUndone) << n << executed << is_store;
        EXPECT_EQ(life.runner->statistics().taken_over, 0U);
        EXPECT_FALSE(life.runner->busy());
      }
    }
  }
  EXPECT_GT(disturbed, 24);
}

TEST(SagaRunner, KilledAtEachWriteOfItsLifeItIsGoneOnWith) {
  int killed = 0;
  for (const bool is_store : {true, false}) {
    for (const bool executed : {false, true}) {
      for (int n = 2; n < 9; ++n) {
        const std::string name =
            "saga-" + std::to_string(n) + (executed ? "-done" : "-not") + (is_store ? "-one" : "-two");
        Place place(name, is_store);
        Effects effects;
        const Saga saga = doomed(effects);
        {
          Life first(saga, place.options);
          lose_answer(first.world, n, executed, [&] {
            first.dead = true;
            ++killed;
          });
          first.start(saga);
          first.play(3s);
          first.world.core->abandon();
        }
        Life second(saga, place.options);
        second.play();
        EXPECT_EQ(second.info().status, SagaStatus::kCompensated) << name;
        EXPECT_EQ(effects.firsts(), kUndone) << name;
      }
    }
  }
  EXPECT_GE(killed, 24);
}

TEST(SagaRunner, ACallWhoseProcessDiedIsRunAgainUnderTheSameKey) {
  Place place("saga-again");
  std::vector<std::pair<std::string, std::uint32_t>> calls;
  Saga saga("order");
  saga.step(
      "a", [&](SagaCall& call) { calls.emplace_back(call.key(), call.attempt()); }, [](SagaCall&) {});
  {
    Life first(saga, place.options);
    first.hold = true;
    first.start(saga);
    while (first.held.empty())
      first.step();
    EXPECT_EQ(first.held.front().attempt(), 1U);
    first.world.core->abandon();
  }
  Life second(saga, place.options);
  second.play();
  EXPECT_EQ(second.info().status, SagaStatus::kCompleted);
  EXPECT_EQ(second.runner->statistics().taken_over, 1U);
  EXPECT_EQ(calls, (std::vector<std::pair<std::string, std::uint32_t>>{{"order/o/a/execute", 2}}));
}

TEST(SagaRunner, WhatOfItsProcessDiedCanBeUndoneInsteadOfRunAgain) {
  Place place("saga-undo");
  Effects effects;
  SagaStepOptions options;
  options.undo_unknown = true;
  Saga saga("order");
  saga.step("a", effects.note(), effects.note(), options);
  {
    Life first(saga, place.options);
    first.hold = true;
    first.start(saga);
    while (first.held.empty())
      first.step();
    first.world.core->abandon();
  }
  Life second(saga, place.options);
  second.play();
  EXPECT_EQ(second.info().status, SagaStatus::kCompensated);
  EXPECT_EQ(effects.names, Names{"-a"});
}

TEST(SagaRunner, WhatReturnsTooLateDoesNotCount) {
  Effects effects;
  SagaStepOptions options;
  options.timeout = 10s;
  options.retry.max_attempts = 1;
  Saga saga("order");
  saga.step("a", effects.note(), effects.note(), options);
  Life life(saga);
  life.hold = true;
  life.start(saga);
  while (life.held.empty())
    life.step();
  SagaCall late = life.held.front();
  life.hold = false;
  life.world.clock->advance(10s);
  life.step();
  EXPECT_EQ(life.stopped, Names{"order/o/a/execute"});
  EXPECT_TRUE(late.stop_token().stop_requested());
  SagaRunner::finish(late, Outcome::ack());
  life.play();
  EXPECT_EQ(life.info().status, SagaStatus::kCompensated);
  EXPECT_EQ(effects.names, Names{"-a"});
}

TEST(SagaRunner, WhoChangesASagaWhileItsStepRunsIsHeard) {
  Effects effects;
  Saga saga("order");
  saga.step("a", effects.note(), effects.note()).step("b", effects.note(), effects.note());
  Life life(saga);
  life.hold = true;
  life.start(saga);
  while (life.held.empty())
    life.step();
  ASSERT_TRUE(life.world.core->sagas()
                  .change("order", "o", [](const SagaRecord& one) { return one.state.cancel("stop"); })
                  .ok());
  life.hold = false;
  life.workers->run(life.held);
  life.play();
  EXPECT_EQ(life.info().status, SagaStatus::kCompensated);
  EXPECT_EQ(effects.names, (Names{"a", "-a"}));
}

TEST(SagaRunner, TheTransactionOfTheOutcomeCarriesWhatTheStepPublishes) {
  Saga saga("order");
  saga.step(
      "a",
      [](SagaCall& call) {
        Message message;
        message.topic = "t";
        message.payload = "once";
        ASSERT_TRUE(call.publish(std::move(message)).ok());
      },
      [](SagaCall&) {});
  Life life(saga);
  // The outcome is the third commit: start, intent, outcome. It fails before it is done.
  lose_answer(life.world, 3, false);
  life.start(saga);
  ConsumerOptions member;
  member.group = "g";
  const auto consumer = life.world.consume(member);
  life.play();
  life.world.play(*consumer);
  EXPECT_EQ(life.world.handled, Names{"once"});
  EXPECT_EQ(life.info().status, SagaStatus::kCompleted);
}

TEST(SagaRunner, ARetiredOneLeavesWhatGoesOnToOthers) {
  Effects effects;
  Saga saga("order");
  saga.step("a", effects.note(), effects.note()).step("b", effects.note(), effects.note());
  Place place("saga-retire");
  Life first(saga, place.options);
  first.hold = true;
  first.start(saga);
  while (first.held.empty())
    first.step();
  first.runner->retire();
  first.hold = false;
  first.workers->run(first.held);
  ASSERT_TRUE(first.workers->run_one());
  first.step();
  first.step();
  EXPECT_FALSE(first.runner->busy());
  EXPECT_EQ(effects.names, Names{"a"});
  EXPECT_EQ(first.info().status, SagaStatus::kRunning);
  EXPECT_EQ(first.info().step, "b");
  first.world.core->abandon();
  Life second(saga, place.options);
  second.play();
  EXPECT_EQ(effects.names, (Names{"a", "b"}));
  EXPECT_EQ(second.info().status, SagaStatus::kCompleted);
}

TEST(SagaRunner, AStepThatKillsItsProcessesIsUndoneWhenItsAttemptsAreThrough) {
  Place place("saga-killer");
  Effects effects;
  SagaStepOptions options;
  options.retry.max_attempts = 5;
  Saga saga("order");
  saga.step("a", effects.note(), effects.note(), options);
  for (int life = 0; life < 5; ++life) {
    Life killed(saga, place.options);
    killed.hold = true;
    if (life == 0) killed.start(saga);
    for (int i = 0; i < 200 && killed.held.empty(); ++i) {
      killed.step();
      place.clock->advance(1s);
    }
    ASSERT_EQ(killed.held.size(), 1U) << life;
    EXPECT_EQ(killed.held.front().attempt(), static_cast<std::uint32_t>(life) + 1);
    killed.world.core->abandon();
  }
  Life last(saga, place.options);
  last.play();
  EXPECT_EQ(last.info().status, SagaStatus::kCompensated);
  EXPECT_EQ(effects.names, Names{"-a"});
  EXPECT_TRUE(last.world.dead_letters().empty());
}

/// Two steps side by side, and then the end.
Saga pair(Effects& effects, SagaStepOptions options = {}) {
  Saga saga("order");
  saga.parallel(
      {{"a", effects.note(), effects.note(), options}, {"b", effects.note(), effects.note(), options}});
  return saga;
}

TEST(SagaRunner, WhatReturnsWhileTheFateOfACommitIsUnknownIsWritten) {
  Effects effects;
  const Saga saga = pair(effects);
  Life life(saga);
  life.hold = true;
  life.start(saga);
  while (life.held.size() < 2)
    life.step();
  life.world.script->fail("commit", {ErrorCode::kUnavailable, "lost"}, 1, true);
  SagaRunner::finish(life.held[1], Outcome::ack());
  life.runner->step(life.world.clock->monotonic());
  SagaRunner::finish(life.held[0], Outcome::ack());
  life.runner->step(life.world.clock->monotonic());
  life.play();
  EXPECT_EQ(life.info().status, SagaStatus::kCompleted);
  EXPECT_EQ(life.runner->statistics().calls, 2U);
  EXPECT_EQ(life.runner->statistics().taken_over, 0U);
}

TEST(SagaRunner, AFailedBranchIsTriedAgainWhileTheOtherRuns) {
  Effects effects;
  SagaStepOptions options;
  options.timeout = 1h;
  const Saga saga = pair(effects, options);
  Life life(saga);
  life.hold = true;
  life.start(saga);
  while (life.held.size() < 2)
    life.step();
  SagaRunner::finish(life.held[0], Outcome::nak(1s));
  life.step();
  life.world.clock->advance(2s);
  life.step();
  ASSERT_EQ(life.held.size(), 3U);
  EXPECT_EQ(life.held[2].step(), "a");
  EXPECT_EQ(life.held[2].attempt(), 2U);
}

TEST(SagaRunner, WhatCannotBeStoredBesideWhatIsThereFailsItsStep) {
  Effects effects;
  SagaStepOptions options;
  options.retry.max_attempts = 2;
  Saga saga("order");
  saga.step(
      "a",
      [&](SagaCall& call) {
        effects.add(call);
        Message message;
        message.topic = "t";
        message.delay = 1h;
        message.dedup_id = "taken";
        ASSERT_TRUE(call.publish(std::move(message)).ok());
      },
      effects.note(), options);
  Life life(saga);
  Message first;
  first.topic = "t";
  first.delay = 2h;
  first.dedup_id = "taken";
  (void)life.world.publish(std::move(first));
  life.start(saga);
  life.play();
  EXPECT_EQ(life.info().status, SagaStatus::kCompensated);
  EXPECT_NE(life.info().error.find("ERR_CONFLICT"), std::string::npos);
  EXPECT_EQ(effects.names, (Names{"a", "a", "-a"}));
}

TEST(SagaRunner, AReplyThatCameInTimeCountsHoweverLateItIsLookedAt) {
  Effects effects;
  SagaStepOptions command;
  command.command = "payments";
  command.timeout = 10s;
  command.retry.max_attempts = 1;
  Saga saga("order");
  saga.step("charge", {}, effects.note(), command);
  Place place("saga-late");
  Message reply;
  {
    Life first(saga, place.options);
    first.start(saga);
    ConsumerOptions member;
    member.group = "payments";
    const auto service = first.world.consume_as(
        member, Handler([&](Delivery& delivery) { reply = Sagas::reply(delivery, "receipt").value(); }),
        {"payments"});
    first.play(1s);
    first.world.play(*service);
    first.world.core->abandon();
  }
  World other(place.options);
  ASSERT_TRUE(other.core->sagas()
                  .change("order", "o", [](const SagaRecord&) -> Result<SagaEntry> { return SagaEntry{}; })
                  .ok());
  (void)other.publish(reply);
  place.clock->advance(1h);
  Life second(saga, place.options);
  second.play();
  EXPECT_EQ(second.info().status, SagaStatus::kCompleted) << second.info().error;
}

TEST(SagaRunner, WhatAClockAheadHasWokenIsDue) {
  Effects effects;
  SagaStepOptions options;
  options.retry.kind = BackoffKind::kFixed;
  options.retry.initial_delay = 50s;
  Saga saga("order");
  saga.step(
      "a",
      [&](SagaCall& call) {
        effects.add(call);
        if (call.attempt() == 1) throw HandlerError("Trouble");
      },
      effects.note(), options);
  Place place("saga-skew");
  Life life(saga, place.options);
  life.start(saga);
  life.play(1s);
  ASSERT_EQ(effects.names, Names{"a"});
  WorldOptions elsewhere = place.options;
  elsewhere.clock = std::make_shared<StillClock>();
  elsewhere.clock->advance(2h);
  World ahead(elsewhere);
  for (int round = 0; round < 10; ++round) {
    ahead.core->step_scheduler();
    life.step();
    (void)life.workers->run_one();
  }
  EXPECT_EQ(effects.names, (Names{"a", "a"}));
  EXPECT_EQ(life.info().status, SagaStatus::kCompleted);
}

TEST(SagaRunner, WhatBeganUnderOtherStepsOfTheSameVersionWaitsForThem) {
  Effects effects;
  Saga saga("order"), other("order");
  saga.step("a", effects.note(), effects.note());
  other.step("b", effects.note(), effects.note());
  Place place("saga-mismatch");
  {
    Life wrong(other, place.options);
    wrong.start(saga);
    wrong.play(5s);
    EXPECT_EQ(wrong.runner->statistics().mismatched, 1U);
    EXPECT_EQ(wrong.info().status, SagaStatus::kRunning);
    (void)wrong.runner->close(MonotonicTime::max());
  }
  Life right(saga, place.options);
  right.play();
  EXPECT_EQ(right.info().status, SagaStatus::kCompleted);
  EXPECT_EQ(effects.names, Names{"a"});
}

// ---- choreographies -----------------------------------------------------------------------------

/// Reserves, waits for the payment of somebody else, and ships, or gives back what it reserved.
Choreography paid_elsewhere(Effects& effects) {
  Choreography saga("order", "placed");
  saga.on("placed", effects.note(), "reserved", {}, {}, "reserve")
      .expect("reserved", "paid", "unpaid", 1h)
      .on("paid", effects.note(), "shipped", {}, {}, "ship")
      .on("unpaid", effects.note(), "released", {}, {}, "release");
  return saga;
}

TEST(SagaRunner, OfAChoreographyKilledAtEachWriteItIsGoneOnWithAndPublishesOnce) {
  int killed = 0;
  for (const bool is_store : {true, false}) {
    for (const bool executed : {false, true}) {
      for (int n = 2; n < 9; ++n) {
        const std::string name =
            "flow-" + std::to_string(n) + (executed ? "-done" : "-not") + (is_store ? "-one" : "-two");
        Place place(name, is_store);
        Effects effects;
        const Choreography saga = paid_elsewhere(effects);
        {
          Life first(saga, place.options);
          lose_answer(first.world, n, executed, [&] {
            first.dead = true;
            ++killed;
          });
          first.world.publish(Sagas::event("placed", "o", "books"));
          first.world.publish(Sagas::event("paid", "o", "9 EUR"));
          first.play(3s);
          first.world.core->abandon();
        }
        Life second(saga, place.options);
        second.play();
        EXPECT_EQ(second.info().status, SagaStatus::kCompleted) << name;
        EXPECT_EQ(effects.firsts(), (Names{"reserve", "ship"})) << name;
        ConsumerOptions member;
        member.group = "g";
        const auto mail = second.world.consume_as(
            member, Handler([&](Delivery& delivery) { second.world.handled.emplace_back(delivery.topic()); }),
            {"shipped", "released"});
        second.world.play(*mail);
        EXPECT_EQ(second.world.handled, Names{"shipped"}) << name;
      }
    }
  }
  EXPECT_GE(killed, 16);
}

TEST(SagaRunner, OfAChoreographyWhoseAnswersAreLostRunsNothingTwice) {
  int disturbed = 0;
  for (const bool is_store : {true, false}) {
    for (const bool executed : {false, true}) {
      for (int n = 2; n < 12; ++n) {
        Effects effects;
        const Choreography saga = paid_elsewhere(effects);
        WorldOptions options;
        options.is_store = is_store;
        Life life(saga, options);
        lose_answer(life.world, n, executed, [&] { ++disturbed; });
        life.world.publish(Sagas::event("placed", "o", "books"));
        life.play(10s);
        life.world.publish(Sagas::event("paid", "o", "9 EUR"));
        life.play();
        EXPECT_EQ(life.info().status, SagaStatus::kCompleted) << n << executed << is_store;
        EXPECT_EQ(effects.names, (Names{"reserve", "ship"})) << n << executed << is_store;
        EXPECT_FALSE(life.runner->busy());
      }
    }
  }
  EXPECT_GT(disturbed, 24);
}

TEST(SagaRunner, OfAChoreographyEndsWhatDoesNotComeAtItsTime) {
  Effects effects;
  const Choreography saga = paid_elsewhere(effects);
  Life life(saga);
  life.start(saga);
  life.play(59min);
  EXPECT_EQ(effects.names, Names{"reserve"});
  life.play(5min);
  EXPECT_EQ(effects.names, (Names{"reserve", "release"}));
  EXPECT_EQ(life.info().status, SagaStatus::kCompensated);
  life.world.publish(Sagas::event("paid", "o", "too late"));
  life.play();
  EXPECT_EQ(life.runner->statistics().late, 1U);
}

TEST(SagaRunner, OfAChoreographyHearsWhatCameWhileNobodyRanBeforeItMissesIt) {
  for (const bool listens : {true, false}) {
    Place place(listens ? "flow-listens" : "flow-deaf");
    Effects effects;
    const Choreography saga = paid_elsewhere(effects);
    {
      Life first(saga, place.options);
      first.start(saga);
      first.play(5s);
      (void)first.runner->close(MonotonicTime::max());
      first.world.publish(Sagas::event("paid", "o", "9 EUR"));
    }
    place.clock->advance(2h);
    Life second(saga, place.options);
    // The saga is looked at before the listener has got anything.
    const auto listener = std::exchange(second.listener, nullptr);
    second.play(20s);
    EXPECT_EQ(effects.names, Names{"reserve"});
    if (listens) second.listener = listener;
    second.play();
    const Names wanted = listens ? Names{"reserve", "ship"} : Names{"reserve", "release"};
    EXPECT_EQ(effects.names, wanted) << "who hears nothing at all does not hold it up";
  }
}

TEST(SagaRunner, AnEventThatWaitsForItsSagaComesBackBeforeItIsMissed) {
  Effects effects;
  Choreography saga("order", "placed");
  saga.on("placed", effects.note(), "reserved", {}, {}, "reserve")
      .expect("reserved", "paid", "unpaid", 12s)
      .on("paid", effects.note(), "shipped", {}, {}, "ship")
      .on("unpaid", effects.note(), "released", {}, {}, "release");
  Life life(saga);
  life.world.publish(Sagas::event("paid", "o", "9 EUR"));
  life.play(10min);  // by now it would look twice a minute
  life.start(saga);
  life.play();
  EXPECT_EQ(effects.names, (Names{"reserve", "ship"}));
}

TEST(SagaRunner, AnEventOfTheSagaItselfThatComesLateChangesNothing) {
  Effects effects;
  Choreography saga("order", "placed");
  saga.on("placed", effects.fail(), "paid", "unpaid", failing_for_good(), "charge")
      .expect("unpaid", "refunded", "unrefunded", 1h)
      .on("paid", effects.note(), "shipped", {}, {}, "ship")
      .on("refunded", effects.note(), "told", {}, {}, "tell");
  Life life(saga);
  life.start(saga);
  life.play(50min);
  const auto listener = std::exchange(life.listener, nullptr);
  life.play(20min);
  ASSERT_EQ(life.info().status, SagaStatus::kStuck) << "its own `unrefunded` is on the way to its listener";
  ASSERT_TRUE(life.world.core->sagas()
                  .change("order", "o", [](const SagaRecord& one) { return one.state.retry("refunded"); })
                  .ok());
  life.listener = listener;
  life.play(10min);
  EXPECT_EQ(life.info().status, SagaStatus::kCompensating) << "it waits for another hour";
  EXPECT_EQ(life.info().step, "refunded");
}

TEST(SagaRunner, OfAChoreographyEndsWhatDoesNotComeAlsoWhileAStepRuns) {
  Effects effects;
  SagaStepOptions slow;
  slow.timeout = 3h;
  Choreography saga("order", "placed");
  saga.on("placed", effects.note(), "packed", {}, slow, "pack")
      .expect("placed", "paid", "unpaid", 1h)
      .on("unpaid", effects.note(), "told", {}, slow, "tell")
      .on("packed", effects.note(), "shipped", {}, {}, "ship");
  Life life(saga);
  life.hold = true;
  life.start(saga);
  while (life.held.empty())
    life.step();
  for (int minutes = 0; minutes < 62; ++minutes) {
    life.world.clock->advance(1min);
    life.step();
  }
  ASSERT_EQ(life.held.size(), 2U);
  EXPECT_EQ(life.held.back().step(), "tell");
}

TEST(SagaRunner, OfAnOldChoreographyTakesItsSagasToTheirEndBesideTheNewOne) {
  Effects effects;
  Place place("flow-versions");
  const auto version = [&](std::uint32_t number, bool begins) {
    const std::string n = std::to_string(number);
    SagaOptions options;
    options.begins = begins;
    Choreography saga("order", "placed", number, options);
    saga.on("placed", effects.note(), "reserved", {}, {}, "reserve" + n)
        .expect("reserved", "paid" + n, "unpaid" + n, 1h)
        .on("paid" + n, effects.note(), "shipped", {}, {}, "ship" + n);
    return saga;
  };
  {
    Life first(version(1, true), place.options);
    first.world.publish(Sagas::event("placed", "o", ""));
    first.play(5s);
    (void)first.runner->close(MonotonicTime::max());
  }
  Life old(version(1, false), place.options), next(version(2, true), place.options);
  next.world.publish(Sagas::event("placed", "p", ""));
  next.world.publish(Sagas::event("paid1", "o", ""));
  next.world.publish(Sagas::event("paid2", "p", ""));
  for (int i = 0; i < 10; ++i) {
    old.play(3s);
    next.play(3s);
  }
  EXPECT_EQ(old.info("o").status, SagaStatus::kCompleted);
  EXPECT_EQ(old.info("p").status, SagaStatus::kCompleted);
  EXPECT_EQ(old.info("p").definition_version, 2U);
  std::sort(effects.names.begin(), effects.names.end());
  EXPECT_EQ(effects.names, (Names{"reserve1", "reserve2", "ship1", "ship2"}));
}

TEST(SagaRunner, OfAChoreographyHearsWhatCarriesCopiedHeaders) {
  Effects effects;
  const Choreography saga = paid_elsewhere(effects);
  Life life(saga);
  life.start(saga);
  life.play(5s);
  Message copied = Sagas::event("paid", "o", "9 EUR");
  copied.headers.emplace_back("saga-type", "order");
  life.world.publish(std::move(copied));
  life.play();
  EXPECT_EQ(life.info().status, SagaStatus::kCompleted);
}

}  // namespace
}  // namespace towline::engine::testing
