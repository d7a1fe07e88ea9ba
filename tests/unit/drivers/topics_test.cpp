// Topics: settings, what is kept and for how long, where groups start, and ephemeral subscribers.

#include "unit/drivers/world.hpp"

namespace towline::drivers::testing {
namespace {

using Numbers = std::vector<std::uint64_t>;
using Kind = spi::TopicKind;

spi::Topology topology(Kind kind, Duration retention = Duration(0)) {
  spi::Topology topology;
  topology.topic = "t";
  topology.kind = kind;
  topology.retention = retention;
  return topology;
}

class Topics : public OverDrivers {};

TEST_P(Topics, DeclaringIsIdempotentAndRefusesOtherSettings) {
  const spi::Topology declared = topology(Kind::kQueue, 5s);
  EXPECT_TRUE(world.transport().declare(declared).ok());
  EXPECT_TRUE(world.transport().declare(declared).ok());
  spi::Topology other = declared;
  other.partition_count = 8;
  EXPECT_EQ(code_of(world.transport().declare(other)), ErrorCode::kTopologyMismatch);
  other = declared;
  other.kind = Kind::kLog;
  EXPECT_EQ(code_of(world.transport().declare(other)), ErrorCode::kTopologyMismatch);
  other = declared;
  other.retention = 6s;
  EXPECT_EQ(code_of(world.transport().declare(other)), ErrorCode::kTopologyMismatch);
  EXPECT_EQ(world.transport().topology("t", 3).value().retention, declared.retention);
}

TEST_P(Topics, DeclaringRefusesBadSettings) {
  spi::Topology bad = topology(Kind::kQueue);
  bad.partition_count = 0;
  EXPECT_EQ(code_of(world.transport().declare(bad)), ErrorCode::kInvalidConfig);
  bad.partition_count = 1'000'000;
  EXPECT_EQ(code_of(world.transport().declare(bad)), ErrorCode::kInvalidConfig);
  bad = topology(Kind::kLog, -1s);
  EXPECT_EQ(code_of(world.transport().declare(bad)), ErrorCode::kInvalidConfig);
  bad = topology(Kind::kQueue);
  bad.topic = "";
  EXPECT_EQ(code_of(world.transport().declare(bad)), ErrorCode::kInvalidTopic);
}

TEST_P(Topics, TheFirstUseFixesTheSettings) {
  EXPECT_EQ(world.transport().topology("asked", 7).value().partition_count, 7U);
  EXPECT_EQ(world.transport().topology("asked", 9).value().partition_count, 7U);
  world.publish(1, 1, "published");
  EXPECT_EQ(world.transport().topology("published", 9).value().partition_count, 64U);
}

TEST_P(Topics, ATopicWithoutAnyGroupKeepsItsMessages) {
  world.publish(1, 3);
  world.clock->advance(24h * 30);
  (void)world.store().sweep({world.clock->now()});
  auto subscription = world.subscribe();
  EXPECT_EQ(world.take(*subscription), range(1, 3));
}

TEST_P(Topics, ANewGroupStartsAtTheEarliestByDefault) {
  auto first = world.subscribe(member("first"));
  world.publish(1, 3);
  auto second = world.subscribe(member("second"));
  EXPECT_EQ(world.take(*second), range(1, 3));
}

TEST_P(Topics, ANewGroupStartsWhereItAsks) {
  world.publish(1, 3);
  world.clock->advance(1s);
  const TimePoint middle = world.clock->now();
  world.publish(4, 6);
  const auto starting = [&](const std::string& group, spi::StartPosition start) {
    spi::SubscribeOptions options = member(group);
    options.start = start;
    auto subscription = world.subscribe(options);
    return world.take(*subscription);
  };
  using Start = spi::StartPosition::Kind;
  EXPECT_EQ(starting("latest", {Start::kLatest, {}, {}}), Numbers{});
  EXPECT_EQ(starting("after", {Start::kAfterId, make_id(2), {}}), range(3, 6));
  EXPECT_EQ(starting("after the last", {Start::kAfterId, make_id(6), {}}), Numbers{});
  EXPECT_EQ(starting("after one that is gone", {Start::kAfterId, make_id(0), {}}), range(1, 6));
  EXPECT_EQ(starting("at", {Start::kAtTime, {}, middle}), range(4, 6));
  EXPECT_EQ(starting("in the future", {Start::kAtTime, {}, middle + 1h}), Numbers{});
  EXPECT_EQ(starting("earliest", {}), range(1, 6));
  world.publish(7, 7);
  EXPECT_EQ(starting("latest", {Start::kEarliest, {}, {}}), range(7, 7)) << "a known group goes on";
}

TEST_P(Topics, ATopicThatIsMadeLaterIsJoinedFromItsBeginning) {
  spi::SubscribeOptions options = member();
  options.matches = [](std::string_view topic) { return topic.starts_with("orders."); };
  options.start.kind = spi::StartPosition::Kind::kLatest;
  auto subscription = world.subscribe(options);
  world.publish(1, 1, "orders.new");
  world.publish(2, 2, "payments");
  EXPECT_EQ(world.take(*subscription), range(1, 1));
}

TEST_P(Topics, AGroupGetsTheTopicsThatAreMadeWhileAllItsMembersAreAway) {
  spi::SubscribeOptions options = member();
  options.patterns = {"orders.*"};
  options.matches = [](std::string_view topic) { return topic.starts_with("orders."); };
  options.start.kind = spi::StartPosition::Kind::kLatest;
  EXPECT_TRUE(world.subscribe(options)->close().ok());
  world.publish(1, 1, "orders.new");
  world.publish(2, 2, "payments.new");
  EXPECT_EQ(world.group("g", "orders.new").waiting, 1U);
  auto subscription = world.subscribe(options);
  EXPECT_EQ(world.take(*subscription), range(1, 1));
}

TEST_P(Topics, WhatAnotherGroupHasReadIsKeptForAGroupThatHadAskedForTheTopicBeforeItWasMade) {
  auto options = member("g");
  options.patterns = {"orders.*"};
  options.matches = [](std::string_view topic) { return topic.starts_with("orders."); };
  options.start.kind = spi::StartPosition::Kind::kLatest;
  auto subscription = world.subscribe(options);
  EXPECT_TRUE(subscription->close().ok());
  // Nobody of the group is there, and another group has read everything.
  auto other = world.subscribe(member("other"));
  world.publish(1, 3, "orders.eu");
  world.settle(*other, world.receive(*other));
  (void)world.sweep();
  subscription = world.subscribe(options);
  EXPECT_EQ(world.take(*subscription), range(1, 3));
}

TEST_P(Topics, ASubscriptionThatIsGoneIsNotAskedAboutNewTopics) {
  auto asked = std::make_unique<int>(0);
  spi::SubscribeOptions options = member();
  options.matches = [&asked](std::string_view) { return ++*asked > 0; };
  auto subscription = world.subscribe(options);
  world.publish(1, 1, "a");
  EXPECT_GT(*asked, 0);
  subscription.reset();
  asked.reset();
  world.publish(2, 2, "b");
  world.clock->advance(31s);
  EXPECT_EQ(world.group("g", "b").member_count, 0U);
}

TEST_P(Topics, RetentionKeepsSettledMessagesForGroupsThatStartLater) {
  ASSERT_TRUE(world.transport().declare(topology(Kind::kQueue, 60s)).ok());
  auto a = world.subscribe(member("a"));
  world.publish(1, 2);
  world.settle(*a, world.receive(*a));
  world.clock->advance(59s);
  EXPECT_EQ(world.store().sweep({world.clock->now()}).value().messages, 0U);
  auto b = world.subscribe(member("b"));
  EXPECT_EQ(world.take(*b), range(1, 2));
  EXPECT_TRUE(b->close().ok());
  world.clock->advance(2s);
  EXPECT_EQ(world.store().sweep({world.clock->now()}).value().messages, 0U)
      << "the second group has not settled";
  b = world.subscribe(member("b"));
  world.settle(*b, world.receive(*b));
  (void)world.sweep();
  auto c = world.subscribe(member("c"));
  EXPECT_EQ(world.take(*c), Numbers{});
}

TEST_P(Topics, SweepingIsBoundedAndSaysThatThereIsMore) {
  ASSERT_TRUE(world.transport().declare(topology(Kind::kQueue, 60s)).ok());
  auto subscription = world.subscribe();
  for (std::uint64_t n = 1; n <= 10; ++n)
    world.publish(n, n);
  world.settle(*subscription, world.receive(*subscription));
  world.clock->advance(61s);
  spi::SweepRequest request;
  request.now = world.clock->now();
  request.count_max = 4;
  spi::SweepReport report = world.store().sweep(request).value();
  EXPECT_EQ(report.messages, 4U);
  EXPECT_TRUE(report.more);
  request.count_max = 100;
  report = world.store().sweep(request).value();
  EXPECT_EQ(report.messages, 6U);
  EXPECT_FALSE(report.more);
}

TEST_P(Topics, ALogKeepsForItsRetentionWhetherSettledOrNot) {
  ASSERT_TRUE(world.transport().declare(topology(Kind::kLog, 60s)).ok());
  auto reads = world.subscribe(member("reads"));
  auto lags = world.subscribe(member("lags"));
  world.publish(1, 2);
  world.settle(*reads, world.receive(*reads));
  const auto held = world.receive(*lags, 1);
  world.clock->advance(30s - 1us);
  EXPECT_TRUE(lags->renew().value().empty());
  world.publish(3, 3);
  world.clock->advance(30s);
  auto late = world.subscribe(member("late"));
  EXPECT_EQ(world.take(*late), range(1, 3));
  world.clock->advance(1us);
  world.settle(*late, world.receive(*late));
  EXPECT_EQ(world.store().sweep({world.clock->now()}).value().messages, 2U);
  EXPECT_EQ(world.group("lags").waiting, 1U);
  EXPECT_EQ(world.take(*lags), range(3, 3))
      << "what it had not read is gone, and what it held cannot come back";
  EXPECT_EQ(world.group("lags").waiting, 0U);
}

TEST_P(Topics, AnEphemeralSubscriberSeesWhatIsPublishedFromNowOn) {
  auto group = world.subscribe();
  world.publish(1, 2);
  auto a = world.subscribe(ephemeral());
  auto b = world.subscribe(ephemeral());
  spi::Envelope retry = world.envelope(4);
  retry.group = "g";
  world.publish({world.envelope(3), retry});
  world.publish(5, 5, "made later");
  auto of_a = world.receive(*a);
  EXPECT_EQ(numbers_of(of_a), (Numbers{3, 5}));
  EXPECT_EQ(of_a[0].token, spi::Token{});
  EXPECT_TRUE(world.settle(*a, of_a, spi::Verb::kRelease).empty());
  EXPECT_EQ(world.take(*a), Numbers{});
  EXPECT_EQ(world.take(*b), (Numbers{3, 5}));
  EXPECT_EQ(world.take(*group), (Numbers{1, 2, 3, 4, 5}));
}

TEST_P(Topics, AnEphemeralSubscriberIsWaitedForWithinABound) {
  auto group = world.subscribe();
  world.publish(1, 1);
  world.settle(*group, world.receive(*group));
  auto listener = world.subscribe(ephemeral());
  world.publish(2, 2);
  world.settle(*group, world.receive(*group));
  EXPECT_EQ(world.take(*listener), range(2, 2));
  world.publish(3, 3);
  world.settle(*group, world.receive(*group));
  world.clock->advance(10s);
  world.publish(4, 4);
  (void)world.sweep();
  EXPECT_EQ(world.take(*listener), range(4, 4)) << "it was more than ten seconds behind";
}

TEST_P(Topics, ABusDropsWhatItsSubscribersAreTooSlowFor) {
  ASSERT_TRUE(world.transport().declare(topology(Kind::kBus)).ok());
  auto group = world.subscribe();
  auto listener = world.subscribe(ephemeral());
  world.publish(1, 1);
  world.clock->advance(10s);
  world.publish(2, 2);
  (void)world.sweep();
  EXPECT_EQ(world.group().waiting, 1U);
  EXPECT_EQ(world.take(*group), range(2, 2));
  EXPECT_EQ(world.take(*listener), range(2, 2));
  world.publish(3, 3);
  world.publish(10, 10'009);
  (void)world.sweep();
  EXPECT_EQ(world.group().waiting, 10'000U);
  EXPECT_EQ(world.take(*group, 1), range(10, 10));
}

TEST_P(Topics, PublishingRejectsWhatNoLogCouldTake) {
  spi::Envelope bad_priority = world.envelope(1);
  bad_priority.priority = 10;
  spi::Envelope bad_partition = world.envelope(2);
  bad_partition.partition = 64;
  spi::Envelope no_topic = world.envelope(3, "");
  const auto answers = world.publish({bad_priority, world.envelope(4), bad_partition, no_topic});
  ASSERT_EQ(answers.size(), 4U);
  EXPECT_EQ(answers[0].rejected->code, ErrorCode::kInvalidArgument);
  EXPECT_FALSE(answers[1].rejected);
  EXPECT_EQ(answers[2].rejected->code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(answers[3].rejected->code, ErrorCode::kInvalidTopic);
  auto subscription = world.subscribe();
  EXPECT_EQ(world.take(*subscription), range(4, 4));
}

TOWLINE_OVER_DRIVERS(Topics);

}  // namespace
}  // namespace towline::drivers::testing
