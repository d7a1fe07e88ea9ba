// Topics: settings, what is kept and for how long, where groups start, and ephemeral subscribers.

#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
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

spi::SubscribeOptions ephemeral() { return member(""); }

TEST(SqliteTopics, DeclaringIsIdempotentAndRefusesOtherSettings) {
  World world;
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

TEST(SqliteTopics, DeclaringRefusesBadSettings) {
  World world;
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

TEST(SqliteTopics, TheFirstUseFixesTheSettings) {
  World world;
  EXPECT_EQ(world.transport().topology("asked", 7).value().partition_count, 7U);
  EXPECT_EQ(world.transport().topology("asked", 9).value().partition_count, 7U);
  world.publish(1, 1, "published");
  EXPECT_EQ(world.transport().topology("published", 9).value().partition_count, 64U);
}

TEST(SqliteTopics, ATopicWithoutAnyGroupKeepsItsMessages) {
  World world;
  world.publish(1, 3);
  world.clock->advance(24h * 30);
  (void)world.store().sweep({world.clock->now()});
  auto subscription = world.subscribe();
  EXPECT_EQ(world.take(*subscription), range(1, 3));
}

TEST(SqliteTopics, ANewGroupStartsAtTheEarliestByDefault) {
  World world;
  auto first = world.subscribe(member("first"));
  world.publish(1, 3);
  auto second = world.subscribe(member("second"));
  EXPECT_EQ(world.take(*second), range(1, 3));
}

TEST(SqliteTopics, ANewGroupStartsWhereItAsks) {
  World world;
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

TEST(SqliteTopics, ATopicThatIsMadeLaterIsJoinedFromItsBeginning) {
  World world;
  spi::SubscribeOptions options = member();
  options.matches = [](std::string_view topic) { return topic.starts_with("orders."); };
  options.start.kind = spi::StartPosition::Kind::kLatest;
  auto subscription = world.subscribe(options);
  world.publish(1, 1, "orders.new");
  world.publish(2, 2, "payments");
  EXPECT_EQ(world.take(*subscription), range(1, 1));
}

TEST(SqliteTopics, AGroupGetsTheTopicsThatAreMadeWhileAllItsMembersAreAway) {
  World world;
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

TEST(SqliteTopics, ASubscriptionThatIsGoneIsNotAskedAboutNewTopics) {
  World world;
  auto asked = std::make_unique<int>(0);
  spi::SubscribeOptions options = member();
  options.matches = [&asked](std::string_view) { return ++*asked > 0; };
  auto subscription = world.subscribe(options);
  world.publish(1, 1, "a");
  EXPECT_GT(*asked, 0);
  subscription.reset();
  asked.reset();
  world.publish(2, 2, "b");
  EXPECT_EQ(world.group("g", "b").member_count, 0U);
}

TEST(SqliteTopics, SweepingIsBoundedAndSaysThatThereIsMore) {
  World world;
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

TEST(SqliteTopics, AnEphemeralSubscriberSeesWhatIsPublishedFromNowOn) {
  World world;
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

TEST(SqliteTopics, PublishingRejectsWhatNoLogCouldTake) {
  World world;
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

}  // namespace
}  // namespace towline::drivers::sqlite::testing
