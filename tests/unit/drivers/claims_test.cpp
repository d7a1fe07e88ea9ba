// Handing out and settling, and what becomes of messages whose holder closes, is late or dies.

#include "unit/drivers/world.hpp"

namespace towline::drivers::testing {
namespace {

using Numbers = std::vector<std::uint64_t>;

class Claims : public OverDrivers {};

TEST_P(Claims, HandsOutInTheOrderOfPublishing) {
  auto subscription = world.subscribe();
  world.publish(1, 5);
  world.publish(6, 6);
  EXPECT_EQ(world.take(*subscription), range(1, 6));
  EXPECT_EQ(world.take(*subscription), Numbers{});
}

TEST_P(Claims, DeliversExactlyWhatWasPublished) {
  spi::Envelope full = world.envelope(1);
  full.key = "customer 7";
  full.partition = 13;
  full.headers = {{"a", "1"}, {"b", ""}};
  full.content_type = "application/json";
  full.payload = std::string("\0\xff\n", 3);
  full.expires_at = world.clock->now() + 1h;
  full.correlation_id = "c";
  full.causation_id = "d";
  full.traceparent = "00-x";
  full.attempt = 3;
  full.crashes = 2;
  full.redrives = 1;
  full.heads_key = true;
  full.history = {{world.clock->now(), 1, "E", "m"}};
  full.first_failed_at = world.clock->now();
  spi::Envelope plain = world.envelope(2);
  plain.key = "";
  plain.payload = "";
  world.publish({full, plain});
  auto subscription = world.subscribe();
  const auto got = world.receive(*subscription);
  ASSERT_EQ(got.size(), 2U);
  const spi::Envelope& e = *got[0].envelope;
  EXPECT_EQ(e.id, full.id);
  EXPECT_EQ(e.topic, "t");
  EXPECT_EQ(e.key, full.key);
  EXPECT_EQ(e.partition, 13U);
  EXPECT_EQ(e.headers, full.headers);
  EXPECT_EQ(e.content_type, full.content_type);
  EXPECT_EQ(e.payload, full.payload);
  EXPECT_EQ(e.expires_at, full.expires_at);
  EXPECT_EQ(e.published_at, full.published_at);
  EXPECT_EQ(e.correlation_id, "c");
  EXPECT_EQ(e.causation_id, "d");
  EXPECT_EQ(e.traceparent, "00-x");
  EXPECT_EQ(e.attempt, 3U);
  EXPECT_EQ(e.crashes, 2U);
  EXPECT_EQ(e.redrives, 1U);
  EXPECT_TRUE(e.heads_key);
  ASSERT_EQ(e.history.size(), 1U);
  EXPECT_EQ(e.history[0].error_message, "m");
  EXPECT_EQ(e.first_failed_at, full.first_failed_at);
  EXPECT_EQ(got[1].envelope->key, "");
  EXPECT_EQ(got[1].envelope->payload, "");
  EXPECT_EQ(got[1].envelope->expires_at, kNever);
  EXPECT_FALSE(got[1].envelope->first_failed_at);
}

TEST_P(Claims, HandsOutAtMostCountMaxAndGoesOnWhereItStopped) {
  auto subscription = world.subscribe();
  world.publish(1, 5);
  EXPECT_EQ(world.take(*subscription, 2), range(1, 2));
  EXPECT_EQ(world.take(*subscription, 2), range(3, 4));
  EXPECT_EQ(world.take(*subscription, 2), range(5, 5));
}

TEST_P(Claims, StopsAtThePayloadBudgetButAlwaysHandsOutOne) {
  auto subscription = world.subscribe();
  for (std::uint64_t n = 1; n <= 4; ++n) {
    spi::Envelope envelope = world.envelope(n);
    envelope.payload.assign(100, 'x');
    world.publish(envelope);
  }
  spi::ReceiveRequest request;
  request.count_max = 10;
  request.payload_bytes_max = 250;
  EXPECT_EQ(numbers_of(subscription->receive(request).value().deliveries), range(1, 2));
  request.payload_bytes_max = 1;
  EXPECT_EQ(numbers_of(subscription->receive(request).value().deliveries), range(3, 3));
}

TEST_P(Claims, SharesAmongTheMembersOfAGroupWithoutOverlap) {
  auto a = world.subscribe();
  auto b = world.subscribe();
  world.publish(1, 6);
  EXPECT_EQ(world.take(*a, 3), range(1, 3));
  EXPECT_EQ(world.take(*b, 3), range(4, 6));
}

TEST_P(Claims, GivesEveryGroupEveryMessage) {
  auto a = world.subscribe(member("a"));
  auto b = world.subscribe(member("b"));
  world.publish(1, 3);
  EXPECT_EQ(world.take(*a), range(1, 3));
  EXPECT_EQ(world.take(*b), range(1, 3));
}

TEST_P(Claims, HandsAnAddressedMessageToItsGroupOnly) {
  auto a = world.subscribe(member("a"));
  auto b = world.subscribe(member("b"));
  spi::Envelope addressed = world.envelope(2);
  addressed.group = "b";
  world.publish({world.envelope(1), addressed, world.envelope(3)});
  EXPECT_EQ(world.group("a").waiting, 2U);
  EXPECT_EQ(world.group("b").waiting, 3U);
  const auto of_a = world.receive(*a);
  const auto of_b = world.receive(*b);
  EXPECT_EQ(numbers_of(of_a), (Numbers{1, 3}));
  EXPECT_EQ(numbers_of(of_b), range(1, 3));
  EXPECT_TRUE(world.settle(*a, of_a).empty());
  EXPECT_TRUE(world.settle(*b, of_b).empty());
  EXPECT_EQ(world.group("a").in_flight, 0U);
}

TEST_P(Claims, KeepsWhatIsAddressedToAGroupThatHasNotComeYet) {
  auto a = world.subscribe(member("a"));
  spi::Envelope addressed = world.envelope(1);
  addressed.group = "late";
  world.publish({addressed, world.envelope(2)});
  world.settle(*a, world.receive(*a));
  spi::SubscribeOptions options = member("late");
  options.start.kind = spi::StartPosition::Kind::kLatest;
  auto late = world.subscribe(options);
  const auto deliveries = world.receive(*late);
  EXPECT_EQ(numbers_of(deliveries), range(1, 1));
  EXPECT_FALSE(deliveries[0].redelivered);
}

TEST_P(Claims, HigherPrioritiesComeFirst) {
  auto subscription = world.subscribe();
  world.publish(1, 2);
  spi::Envelope urgent = world.envelope(3);
  urgent.priority = 9;
  spi::Envelope soon = world.envelope(4);
  soon.priority = 5;
  world.publish({soon, urgent});
  EXPECT_EQ(world.take(*subscription, 3), (Numbers{3, 4, 1}));
  EXPECT_EQ(world.take(*subscription), (Numbers{2}));
}

TEST_P(Claims, TopicsOfOnePriorityTakeTurns) {
  auto subscription = world.subscribe();
  world.publish(1, 4, "a");
  world.publish(11, 14, "b");
  EXPECT_EQ(world.take(*subscription, 2), (Numbers{1, 2}));
  EXPECT_EQ(world.take(*subscription, 2), (Numbers{11, 12}));
  EXPECT_EQ(world.take(*subscription, 2), (Numbers{3, 4}));
  EXPECT_EQ(world.take(*subscription, 2), (Numbers{13, 14}));
}

TEST_P(Claims, KeepsTheOrderWithinEachLogOfAMixedBatch) {
  auto subscription = world.subscribe();
  world.publish(
      {world.envelope(1, "a"), world.envelope(2, "b"), world.envelope(3, "a"), world.envelope(4, "b")});
  EXPECT_EQ(world.take(*subscription), (Numbers{1, 3, 2, 4}));
}

TEST_P(Claims, ASettledMessageNeverComesAgain) {
  auto subscription = world.subscribe();
  world.publish(1, 3);
  EXPECT_TRUE(world.settle(*subscription, world.receive(*subscription)).empty());
  world.clock->advance(1h);
  EXPECT_EQ(world.take(*subscription), Numbers{});
  EXPECT_EQ(world.group().waiting, 0U);
  EXPECT_EQ(world.group().in_flight, 0U);
}

TEST_P(Claims, SettlingTwiceIsReportedAndChangesNothing) {
  auto subscription = world.subscribe();
  world.publish(1, 3);
  const auto deliveries = world.receive(*subscription);
  EXPECT_TRUE(world.settle(*subscription, deliveries[1]).empty());
  EXPECT_EQ(world.settle(*subscription, deliveries[1], spi::Verb::kRelease), std::vector<std::uint32_t>{0});
  EXPECT_EQ(world.settle(*subscription, deliveries), std::vector<std::uint32_t>{1});
  EXPECT_EQ(world.group().waiting, 0U);
  EXPECT_EQ(world.settle(*subscription, deliveries), (std::vector<std::uint32_t>{0, 1, 2}));
}

TEST_P(Claims, AnUnknownTokenIsLost) {
  auto subscription = world.subscribe();
  world.publish(1, 1);
  spi::Delivery made_up = world.receive(*subscription).at(0);
  made_up.token.index = 7;
  EXPECT_EQ(world.settle(*subscription, made_up), std::vector<std::uint32_t>{0});
  made_up.token = {made_up.token.lease + 1, 0};
  EXPECT_EQ(world.settle(*subscription, made_up), std::vector<std::uint32_t>{0});
}

TEST_P(Claims, ATokenOfAnotherMemberIsLost) {
  auto a = world.subscribe();
  auto b = world.subscribe();
  world.publish(1, 1);
  const auto deliveries = world.receive(*a);
  EXPECT_EQ(world.settle(*b, deliveries), std::vector<std::uint32_t>{0});
  EXPECT_TRUE(world.settle(*a, deliveries).empty());
}

TEST_P(Claims, ReleasedMessagesComeBackFirstAndInOrder) {
  auto subscription = world.subscribe();
  world.publish(1, 4);
  const auto deliveries = world.receive(*subscription, 3);
  world.settle(*subscription, deliveries[2], spi::Verb::kRelease);
  world.settle(*subscription, deliveries[0], spi::Verb::kRelease);
  EXPECT_EQ(world.group().waiting, 3U);
  const auto again = world.receive(*subscription);
  EXPECT_EQ(numbers_of(again), (Numbers{1, 3, 4}));
  EXPECT_TRUE(again[0].redelivered);
  EXPECT_EQ(again[0].crashes, 0U);
  EXPECT_FALSE(again[2].redelivered);
  EXPECT_GT(again[0].token.lease, deliveries[0].token.lease);
  EXPECT_EQ(world.settle(*subscription, deliveries[0]), std::vector<std::uint32_t>{0});
  EXPECT_TRUE(world.settle(*subscription, again).empty());
  EXPECT_TRUE(world.settle(*subscription, deliveries[1]).empty());
  EXPECT_EQ(world.group().in_flight, 0U);
}

TEST_P(Claims, SettlesBeforeItHandsOutInOneReceive) {
  auto subscription = world.subscribe();
  world.publish(1, 2);
  const auto first = world.receive(*subscription, 1);
  const spi::Settlement release{first[0].token, spi::Verb::kRelease};
  spi::ReceiveRequest request;
  request.count_max = 1;
  request.settlements = {&release, 1};
  EXPECT_EQ(numbers_of(subscription->receive(request).value().deliveries), range(1, 1));
}

TEST_P(Claims, AChargedMessageIsTheOneThatWasAloneInDeadHands) {
  world.publish(1, 2);
  {
    auto dies = world.subscribe();
    EXPECT_EQ(world.take(*dies, 1), range(1, 1));
  }
  auto survivor = world.subscribe();
  EXPECT_EQ(world.take(*survivor, 1), range(2, 2));
  world.clock->advance(30s - 1us);
  EXPECT_EQ(world.take(*survivor), Numbers{});
  // The survivor lost its own message too, at the same moment, and it was alone with it.
  world.clock->advance(1us);
  const auto again = world.receive(*survivor);
  ASSERT_EQ(numbers_of(again), range(1, 1));
  EXPECT_TRUE(again[0].redelivered);
  EXPECT_EQ(again[0].crashes, 1U);
}

TEST_P(Claims, SeveralInDeadHandsAreSuspectsAndHandedOutAlone) {
  world.publish(1, 3);
  {
    auto dies = world.subscribe();
    EXPECT_EQ(world.take(*dies), range(1, 3));
  }
  world.publish(4, 4);
  world.clock->advance(30s);
  auto next = world.subscribe();
  for (std::uint64_t n = 1; n <= 3; ++n) {
    const auto alone = world.receive(*next);
    ASSERT_EQ(numbers_of(alone), range(n, n));
    EXPECT_EQ(alone[0].crashes, 0U) << "nobody knows which of them it was";
    EXPECT_EQ(world.take(*next), Numbers{}) << "a suspect is held";
    world.settle(*next, alone);
  }
  EXPECT_EQ(world.take(*next), range(4, 4));
}

TEST_P(Claims, TheNextDeathOfASuspectIsChargedToItAlone) {
  world.publish(1, 3);
  const auto die_with = [&](std::vector<std::uint64_t> expected, std::uint32_t crashes) {
    auto dies = world.subscribe();
    const auto got = world.receive(*dies);
    EXPECT_EQ(numbers_of(got), expected);
    EXPECT_EQ(got.at(0).crashes, crashes);
    dies.reset();
    world.clock->advance(30s);
  };
  die_with({1, 2, 3}, 0);
  die_with({1}, 0);
  die_with({1}, 1);
  die_with({1}, 2);
  auto next = world.subscribe();
  auto alone = world.receive(*next);
  EXPECT_EQ(alone.at(0).crashes, 3U);
  world.settle(*next, alone);
  alone = world.receive(*next);
  EXPECT_EQ(numbers_of(alone), range(2, 2));
  EXPECT_EQ(alone[0].crashes, 0U);
}

TEST_P(Claims, NobodyIsChargedWhenSeveralClaimsOfOneDeadSessionEnd) {
  world.publish(1, 2);
  {
    auto dies = world.subscribe();
    EXPECT_EQ(world.take(*dies, 1), range(1, 1));
    world.clock->advance(10s);
    EXPECT_EQ(world.take(*dies, 1), range(2, 2));
  }
  auto next = world.subscribe();
  world.clock->advance(20s);
  auto alone = world.receive(*next);
  EXPECT_EQ(numbers_of(alone), range(1, 1));
  EXPECT_EQ(alone[0].crashes, 0U);
  world.settle(*next, alone);
  world.clock->advance(10s);
  alone = world.receive(*next);
  EXPECT_EQ(numbers_of(alone), range(2, 2));
  EXPECT_EQ(alone[0].crashes, 0U) << "it may have been the other one";
}

TEST_P(Claims, ASuspectWaitsUntilTheHandsAreEmpty) {
  auto survivor = world.subscribe();
  world.publish(1, 1);
  const auto held = world.receive(*survivor);
  world.publish(2, 3);
  {
    auto dies = world.subscribe();
    EXPECT_EQ(world.take(*dies), range(2, 3));
  }
  world.publish(4, 4);
  world.clock->advance(20s);
  EXPECT_TRUE(survivor->renew().value().empty());
  world.clock->advance(10s);
  EXPECT_EQ(world.take(*survivor), Numbers{});
  world.settle(*survivor, held);
  EXPECT_EQ(world.take(*survivor), range(2, 2));
}

TEST_P(Claims, ALateSettlementOfALostLeaseChangesNothing) {
  auto slow = world.subscribe();
  world.publish(1, 1);
  const auto held = world.receive(*slow);
  world.clock->advance(30s);
  auto other = world.subscribe();
  const auto again = world.receive(*other);
  ASSERT_EQ(numbers_of(again), range(1, 1));
  EXPECT_EQ(world.settle(*slow, held), std::vector<std::uint32_t>{0});
  EXPECT_EQ(world.group().in_flight, 1U);
  EXPECT_TRUE(world.settle(*other, again).empty());
}

TEST_P(Claims, RenewingKeepsALease) {
  auto slow = world.subscribe();
  world.publish(1, 1);
  const auto held = world.receive(*slow);
  for (int i = 0; i < 10; ++i) {
    world.clock->advance(20s);
    EXPECT_TRUE(slow->renew().value().empty());
  }
  auto other = world.subscribe();
  EXPECT_EQ(world.take(*other), Numbers{});
  EXPECT_TRUE(world.settle(*slow, held).empty());
}

TEST_P(Claims, RenewNamesTheLostLeasesOnce) {
  auto slow = world.subscribe();
  world.publish(1, 2);
  const auto first = world.receive(*slow, 1);
  world.clock->advance(20s);
  const auto second = world.receive(*slow, 1);
  world.clock->advance(10s);
  EXPECT_EQ(slow->renew().value(), std::vector<std::uint64_t>{first[0].token.lease});
  EXPECT_TRUE(slow->renew().value().empty());
  world.clock->advance(20s);
  EXPECT_TRUE(world.settle(*slow, second).empty());
}

TEST_P(Claims, ClosingHandsBackWithoutACharge) {
  auto closes = world.subscribe();
  world.publish(1, 3);
  const auto held = world.receive(*closes);
  world.settle(*closes, held[1]);
  EXPECT_TRUE(closes->close().ok());
  EXPECT_TRUE(closes->close().ok());
  EXPECT_EQ(code_of(closes->receive({})), ErrorCode::kClosed);
  EXPECT_EQ(code_of(closes->renew()), ErrorCode::kClosed);
  EXPECT_EQ(world.group().member_count, 0U);
  auto next = world.subscribe();
  const auto again = world.receive(*next);
  EXPECT_EQ(numbers_of(again), (Numbers{1, 3}));
  EXPECT_TRUE(again[0].redelivered);
  EXPECT_EQ(again[0].crashes, 0U);
}

TEST_P(Claims, ManyClaimsSettledInAnyOrderLeaveNothing) {
  auto subscription = world.subscribe();
  world.publish(1, 100);
  std::vector<spi::Delivery> held;
  while (held.size() < 100) {
    for (spi::Delivery& delivery : world.receive(*subscription, 7))
      held.push_back(std::move(delivery));
  }
  std::reverse(held.begin(), held.end());
  EXPECT_TRUE(world.settle(*subscription, held).empty());
  EXPECT_EQ(world.group().in_flight, 0U);
}

TOWLINE_OVER_DRIVERS(Claims);

}  // namespace
}  // namespace towline::drivers::testing
