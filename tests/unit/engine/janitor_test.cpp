// What must happen now and then whether or not messages flow, in steps that are bounded.

#include "engine/janitor.hpp"

#include "unit/engine/world.hpp"

namespace towline::engine {
namespace {

using namespace testing;

struct Household : World {
  explicit Household(EngineOptions options = {})
      : World({.engine = std::move(options)}),
        letters(context()),
        janitor(context(), letters, core->conversations(), core->sagas()) {}
  std::shared_ptr<Context> context() { return {core, &core->context()}; }
  MonotonicTime step() { return janitor.step(clock->monotonic()); }
  void put_dead_letter(std::uint8_t number) {
    DeadLetter letter;
    letter.id.bytes[15] = number;
    letter.message_id = letter.id;
    letter.topic = "t";
    letter.group = "g";
    letter.created_at = letter.first_failed_at = letter.last_failed_at = clock->now();
    const spi::Unit unit{{spi::PutDeadLetter{letter}}};
    ASSERT_TRUE(inner.store->commit({&unit, 1}).ok());
  }

  DeadLetters letters;
  Janitor janitor;
};

TEST(Janitor, DeadLettersGoWhenTheyAreTooOldAndAreCounted) {
  EngineOptions options;
  options.dead_letter_age_max = 1h;
  Household house(options);
  house.put_dead_letter(1);
  house.clock->advance(30min);
  house.put_dead_letter(2);
  house.step();
  EXPECT_EQ(house.dead_letters().size(), 2U);
  house.clock->advance(30min + 1s);
  house.step();
  ASSERT_EQ(house.dead_letters().size(), 1U);
  EXPECT_EQ(house.dead_letters().front().id.bytes[15], 2);
  EXPECT_EQ(house.counters().swept.load(), 1U);
  EXPECT_EQ(house.log, std::vector<std::string>{"janitor: removed 1 dead letters by age or count"});
}

TEST(Janitor, TheOldestDeadLettersGoWhenThereAreTooMany) {
  EngineOptions options;
  options.dead_letter_count_max = 2;
  Household house(options);
  for (std::uint8_t number = 1; number <= 5; ++number) {
    house.put_dead_letter(number);
    house.clock->advance(1s);
  }
  house.step();
  ASSERT_EQ(house.dead_letters().size(), 2U);
  EXPECT_EQ(house.dead_letters().front().id.bytes[15], 4);
}

TEST(Janitor, AResultWhoseTimeIsOverIsRemoved) {
  Household house;
  IdempotencyOptions options;
  options.ttl = 5s;
  const auto token = house.core->idempotency().begin("k", options).value().token;
  ASSERT_TRUE(house.core->idempotency().complete(token, "r", options, {}).ok());
  EXPECT_EQ(house.inner.store->statistics().value().idempotency_records, 1U);
  house.step();
  EXPECT_EQ(house.inner.store->statistics().value().idempotency_records, 1U);
  house.clock->advance(6s);
  house.step();
  EXPECT_EQ(house.inner.store->statistics().value().idempotency_records, 0U);
  EXPECT_EQ(house.counters().swept.load(), 1U);
}

TEST(Janitor, OneStepIsBoundedAndComesBackSoonForTheRest) {
  EngineOptions options;
  options.dead_letter_age_max = 1s;
  options.sweep_interval = 1min;
  Household house(options);
  std::vector<spi::Unit> units;
  for (std::uint32_t i = 0; i < 2500; ++i) {
    DeadLetter letter;
    letter.id.bytes[14] = static_cast<std::uint8_t>(i >> 8);
    letter.id.bytes[15] = static_cast<std::uint8_t>(i);
    letter.topic = "t";
    letter.created_at = letter.last_failed_at = house.clock->now();
    units.push_back({{spi::PutDeadLetter{letter}}});
  }
  ASSERT_TRUE(house.inner.store->commit(units).ok());
  house.clock->advance(1h);
  EXPECT_EQ(house.step() - house.clock->monotonic(), 10ms);
  EXPECT_EQ(house.store->last_sweep.count_max, 2000U);
  EXPECT_EQ(house.counters().swept.load(), 2000U);
  EXPECT_EQ(house.step() - house.clock->monotonic(), 1min);
  EXPECT_EQ(house.counters().swept.load(), 2500U);
}

TEST(Janitor, AStoreThatIsAwayIsLoggedAndTriedAgainAtTheNextTime) {
  EngineOptions options;
  options.sweep_interval = 5s;
  Household house(options);
  house.script->fail("sweep", unavailable());
  EXPECT_EQ(house.step() - house.clock->monotonic(), 5s);
  EXPECT_EQ(house.log, std::vector<std::string>{"janitor: ERR_UNAVAILABLE: the provider is away"});
  EXPECT_TRUE(house.core->context().check_open().ok());
}

TEST(Janitor, ADiskErrorStopsTheEngine) {
  Household house;
  house.script->fail("sweep", {ErrorCode::kIoError, "broken"});
  house.step();
  EXPECT_EQ(code_of(house.core->context().check_open()), ErrorCode::kIoError);
}

TEST(Janitor, EachStepLooksAfterTheDeadLetters) {
  EngineOptions options;
  options.alert.depth_count = 1;
  std::vector<Alert> alerts;
  options.on_alert = [&](const Alert& alert) { alerts.push_back(alert); };
  Household house(options);
  house.put_dead_letter(1);
  house.step();
  ASSERT_EQ(alerts.size(), 1U);
  EXPECT_EQ(alerts.front().kind, Alert::Kind::kDepth);
}

}  // namespace
}  // namespace towline::engine
