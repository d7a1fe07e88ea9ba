// The transport over one file: handing out, leases, settling, starting places, dedup ids and trimming, each
// as the SPI promises it. Whether the memory driver answers the same is asked in provider_test.cpp.

#include "world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

TEST(SqliteTransport, HandsOutWhatWasPublishedInOrderAndUnchanged) {
  World world;
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

TEST(SqliteTransport, EveryGroupGetsEveryMessageAndMembersShare) {
  World world;
  auto a1 = world.subscribe(member("a"));
  auto a2 = world.subscribe(member("a"));
  auto b = world.subscribe(member("b"));
  world.publish(1, 10);
  EXPECT_EQ(world.take(*a1, 4), range(1, 4));
  EXPECT_EQ(world.take(*a2, 100), range(5, 10));
  EXPECT_EQ(world.take(*b), range(1, 10));
  EXPECT_TRUE(world.take(*a1).empty());
}

TEST(SqliteTransport, AMessageForOneGroupReachesNoOther) {
  World world;
  auto a = world.subscribe(member("a"));
  auto b = world.subscribe(member("b"));
  spi::Envelope e = world.envelope(1);
  e.group = "b";
  world.publish(e);
  world.publish(2, 2);
  EXPECT_EQ(world.group("a").waiting, 1U);
  EXPECT_EQ(world.group("b").waiting, 2U);
  EXPECT_EQ(world.take(*a), range(2, 2));
  const auto got = world.receive(*b);
  EXPECT_EQ(numbers_of(got), range(1, 2));
  EXPECT_EQ(got[0].envelope->group, "b");
}

TEST(SqliteTransport, HigherPrioritiesComeFirst) {
  World world;
  auto subscription = world.subscribe();
  for (std::uint64_t n = 1; n <= 6; ++n) {
    spi::Envelope e = world.envelope(n);
    e.priority = static_cast<std::uint8_t>(n % 3);
    world.publish(e);
  }
  EXPECT_EQ(world.take(*subscription), (std::vector<std::uint64_t>{2, 5, 1, 4, 3, 6}));
}

TEST(SqliteTransport, TopicsOfOnePriorityTakeTurns) {
  World world;
  auto subscription = world.subscribe();
  world.publish(1, 3, "a");
  world.publish(11, 13, "b");
  EXPECT_EQ(world.take(*subscription, 1), range(1, 1));
  EXPECT_EQ(world.take(*subscription, 1), range(11, 11));
  EXPECT_EQ(world.take(*subscription, 1), range(2, 2));
}

TEST(SqliteTransport, PayloadBytesBoundAReceiveButTheFirstAlwaysFits) {
  World world;
  auto subscription = world.subscribe();
  for (std::uint64_t n = 1; n <= 3; ++n) {
    spi::Envelope e = world.envelope(n);
    e.payload.assign(100, 'x');
    world.publish(e);
  }
  spi::ReceiveRequest request;
  request.count_max = 10;
  request.payload_bytes_max = 200;
  EXPECT_EQ(numbers_of(subscription->receive(request).value().deliveries), range(1, 2));
  request.payload_bytes_max = 1;
  EXPECT_EQ(numbers_of(subscription->receive(request).value().deliveries), range(3, 3));
}

TEST(SqliteTransport, ASettledMessageIsGoneAndASecondSettlementIsLost) {
  World world;
  auto subscription = world.subscribe();
  world.publish(1, 3);
  const auto got = world.receive(*subscription);
  EXPECT_TRUE(world.settle(*subscription, got[1]).empty());
  EXPECT_EQ(world.settle(*subscription, got[1]), std::vector<std::uint32_t>{0});
  EXPECT_EQ(world.group().in_flight, 2U);
  EXPECT_TRUE(world.settle(*subscription, {got[0], got[2]}).empty());
  EXPECT_EQ(world.group().in_flight, 0U);
  spi::Delivery forged = got[0];
  forged.token.lease += 17;
  EXPECT_EQ(world.settle(*subscription, forged), std::vector<std::uint32_t>{0});
  world.clock->advance(1h);
  EXPECT_TRUE(world.take(*subscription).empty());
}

TEST(SqliteTransport, OneMembersTokenIsNothingToAnother) {
  World world;
  auto a = world.subscribe();
  auto b = world.subscribe();
  world.publish(1, 1);
  const auto got = world.receive(*a);
  EXPECT_EQ(world.settle(*b, got), std::vector<std::uint32_t>{0});
  EXPECT_TRUE(world.settle(*a, got).empty());
}

TEST(SqliteTransport, WhatIsReleasedComesBackBeforeAnythingNewer) {
  World world;
  auto a = world.subscribe();
  auto b = world.subscribe();
  world.publish(1, 4);
  const auto got = world.receive(*a, 3);
  world.settle(*a, {got[2], got[0]}, spi::Verb::kRelease);
  const auto again = world.receive(*b);
  EXPECT_EQ(numbers_of(again), (std::vector<std::uint64_t>{1, 3, 4}));
  EXPECT_TRUE(again[0].redelivered);
  EXPECT_FALSE(again[2].redelivered);
  EXPECT_EQ(again[0].crashes, 0U);
}

TEST(SqliteTransport, ALeaseThatEndsGivesTheMessageToAnotherAndVoidsTheToken) {
  World world;
  auto a = world.subscribe();
  auto b = world.subscribe();
  world.publish(1, 1);
  const auto got = world.receive(*a);
  world.clock->advance(29s);
  EXPECT_TRUE(world.take(*b).empty());
  world.clock->advance(1s);
  const auto again = world.receive(*b);
  ASSERT_EQ(numbers_of(again), range(1, 1));
  EXPECT_TRUE(again[0].redelivered);
  EXPECT_EQ(again[0].crashes, 1U);
  EXPECT_GT(again[0].token.lease, got[0].token.lease);
  EXPECT_EQ(world.settle(*a, got), std::vector<std::uint32_t>{0});
  EXPECT_EQ(a->renew().value(), std::vector<std::uint64_t>{got[0].token.lease});
  EXPECT_TRUE(world.settle(*b, again).empty());
}

TEST(SqliteTransport, RenewingKeepsEveryLease) {
  World world;
  auto a = world.subscribe();
  auto b = world.subscribe();
  world.publish(1, 2);
  const auto first = world.receive(*a, 1);
  const auto second = world.receive(*a, 1);
  for (int i = 0; i < 5; ++i) {
    world.clock->advance(20s);
    EXPECT_TRUE(a->renew().value().empty());
  }
  EXPECT_TRUE(world.take(*b).empty());
  EXPECT_TRUE(world.settle(*a, {first[0], second[0]}).empty());
}

TEST(SqliteTransport, WhatAClosedMemberHeldIsHandedOutAtOnceAndNotCharged) {
  World world;
  auto a = world.subscribe();
  auto b = world.subscribe();
  world.publish(1, 1);
  const auto got = world.receive(*a);
  EXPECT_TRUE(a->close().ok());
  EXPECT_TRUE(a->close().ok());
  const auto again = world.receive(*b);
  ASSERT_EQ(numbers_of(again), range(1, 1));
  EXPECT_EQ(again[0].crashes, 0U);
  spi::ReceiveRequest request;
  EXPECT_EQ(code_of(a->receive(request)), ErrorCode::kClosed);
  EXPECT_EQ(code_of(a->renew()), ErrorCode::kClosed);
  EXPECT_EQ(world.group().member_count, 1U);
}

TEST(SqliteTransport, ADroppedMemberHoldsWhatItHadUntilItsLeaseEnds) {
  World world;
  auto a = world.subscribe();
  auto b = world.subscribe();
  world.publish(1, 1);
  EXPECT_EQ(world.take(*a), range(1, 1));
  a.reset();
  EXPECT_TRUE(world.take(*b).empty());
  world.clock->advance(30s);
  EXPECT_EQ(world.take(*b), range(1, 1));
}

TEST(SqliteTransport, ADeathWithOneMessageIsChargedToItAndWithSeveralMakesSuspects) {
  World world;
  auto a = world.subscribe();
  world.publish(1, 3);
  EXPECT_EQ(world.take(*a), range(1, 3));
  a.reset();
  world.clock->advance(30s);
  auto b = world.subscribe();
  // Each suspect comes alone, and nothing else meanwhile.
  world.publish(4, 4);
  const auto first = world.receive(*b);
  ASSERT_EQ(numbers_of(first), range(1, 1));
  EXPECT_EQ(first[0].crashes, 0U);
  EXPECT_TRUE(world.take(*b).empty());
  world.settle(*b, first);
  EXPECT_EQ(world.take(*b), range(2, 2));
  b.reset();
  world.clock->advance(30s);
  auto c = world.subscribe();
  const auto again = world.receive(*c);
  ASSERT_EQ(numbers_of(again), range(2, 2));
  EXPECT_EQ(again[0].crashes, 1U);
  world.settle(*c, again);
  const auto third = world.receive(*c);
  ASSERT_EQ(numbers_of(third), range(3, 3));
  EXPECT_EQ(third[0].crashes, 0U);
  world.settle(*c, third);
  EXPECT_EQ(world.take(*c), range(4, 4));
}

TEST(SqliteTransport, ASuspectWaitsUntilTheHandsAreEmpty) {
  World world;
  auto a = world.subscribe();
  auto b = world.subscribe();
  world.publish(1, 2);
  EXPECT_EQ(world.take(*a, 2), range(1, 2));
  world.publish(3, 5);
  const auto held = world.receive(*b, 1);
  EXPECT_EQ(numbers_of(held), range(3, 3));
  world.clock->advance(20s);
  b->renew().value();
  world.clock->advance(10s);
  EXPECT_TRUE(world.take(*b).empty());
  world.settle(*b, held);
  EXPECT_EQ(world.take(*b), range(1, 1));
}

TEST(SqliteTransport, ANewGroupStartsWhereItAsks) {
  World world;
  world.publish(1, 3);
  world.clock->advance(10s);
  const TimePoint middle = world.clock->now();
  world.publish(4, 6);
  auto options = member("earliest");
  EXPECT_EQ(world.take(*world.subscribe(options)), range(1, 6));
  options = member("latest");
  options.start.kind = spi::StartPosition::Kind::kLatest;
  auto latest = world.subscribe(options);
  EXPECT_TRUE(world.take(*latest).empty());
  options = member("time");
  options.start = {spi::StartPosition::Kind::kAtTime, {}, middle};
  EXPECT_EQ(world.take(*world.subscribe(options)), range(4, 6));
  options = member("id");
  options.start = {spi::StartPosition::Kind::kAfterId, make_id(2), {}};
  EXPECT_EQ(world.take(*world.subscribe(options)), range(3, 6));
  // A known group goes on where it was.
  options = member("latest");
  options.start.kind = spi::StartPosition::Kind::kEarliest;
  world.publish(7, 7);
  EXPECT_EQ(world.take(*world.subscribe(options)), range(7, 7));
}

TEST(SqliteTransport, ATopicThatIsMadeLaterIsReadFromItsBeginningByWhoeverAskedForIt) {
  World world;
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

TEST(SqliteTransport, MessagesGoWhenEveryGroupHasSettledThem) {
  World world;
  auto a = world.subscribe(member("a"));
  auto b = world.subscribe(member("b"));
  world.publish(1, 10);
  const auto of_a = world.receive(*a);
  world.settle(*a, of_a);
  EXPECT_EQ(world.sweep().messages, 0U);
  const auto of_b = world.receive(*b);
  world.settle(*b, {of_b.begin() + 4, of_b.end()});
  EXPECT_EQ(world.sweep().messages, 0U);
  world.settle(*b, {of_b.begin(), of_b.begin() + 3});
  EXPECT_EQ(world.sweep().messages, 3U);
  world.settle(*b, of_b[3]);
  EXPECT_EQ(world.sweep(2).messages, 2U);
  EXPECT_TRUE(world.sweep(2).more);
  EXPECT_EQ(world.sweep().messages, 3U);
  // Positions are not used again.
  world.publish(11, 12);
  EXPECT_EQ(world.take(*a), range(11, 12));
}

TEST(SqliteTransport, ATopicThatNoGroupReadsKeepsItsMessages) {
  World world;
  world.publish(1, 5);
  EXPECT_EQ(world.sweep().messages, 0U);
  EXPECT_EQ(world.take(*world.subscribe()), range(1, 5));
}

TEST(SqliteTransport, RetentionKeepsSettledMessagesForGroupsThatComeLater) {
  World world;
  spi::Topology topology;
  topology.topic = "t";
  topology.retention = 1h;
  ASSERT_TRUE(world.transport().declare(topology).ok());
  auto a = world.subscribe(member("a"));
  world.publish(1, 3);
  world.settle(*a, world.receive(*a));
  EXPECT_EQ(world.sweep().messages, 0U);
  EXPECT_EQ(world.take(*world.subscribe(member("b"))), range(1, 3));
  auto c = world.subscribe(member("c"));
  world.settle(*c, world.receive(*c));
  world.clock->advance(2h);
  auto b = world.subscribe(member("b"));
  for (int i = 0; i < 3; ++i)
    world.settle(*b, world.receive(*b));
  EXPECT_EQ(world.sweep().messages, 3U);
}

TEST(SqliteTransport, ATopicKeepsTheSettingsItWasMadeWith) {
  World world;
  spi::Topology topology;
  topology.topic = "t";
  topology.partition_count = 8;
  EXPECT_TRUE(world.transport().declare(topology).ok());
  EXPECT_TRUE(world.transport().declare(topology).ok());
  topology.partition_count = 9;
  EXPECT_EQ(code_of(world.transport().declare(topology)), ErrorCode::kTopologyMismatch);
  topology.partition_count = 0;
  EXPECT_EQ(code_of(world.transport().declare(topology)), ErrorCode::kInvalidConfig);
  EXPECT_EQ(world.transport().topology("t", 64).value().partition_count, 8U);
  EXPECT_EQ(world.transport().topology("u", 16).value().partition_count, 16U);
  EXPECT_EQ(world.transport().topology("u", 64).value().partition_count, 16U);
}

TEST(SqliteTransport, BadEnvelopesAreRejectedOneByOne) {
  World world;
  spi::Envelope no_topic = world.envelope(1, "");
  spi::Envelope priority = world.envelope(2);
  priority.priority = 10;
  spi::Envelope partition = world.envelope(3);
  partition.partition = 64;
  const auto answers = world.publish({no_topic, priority, partition, world.envelope(4)});
  ASSERT_EQ(answers.size(), 4U);
  EXPECT_EQ(answers[0].rejected->code, ErrorCode::kInvalidTopic);
  EXPECT_EQ(answers[1].rejected->code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(answers[2].rejected->code, ErrorCode::kInvalidArgument);
  EXPECT_FALSE(answers[3].rejected);
  EXPECT_EQ(world.take(*world.subscribe()), range(4, 4));
}

TEST(SqliteTransport, ADedupIdKeepsASecondPublishAwayUntilItsWindowEnds) {
  World world;
  spi::Envelope e = world.envelope(1);
  e.dedup_id = "once";
  e.dedup_until = world.clock->now() + 10s;
  EXPECT_TRUE(world.publish(e).empty());
  spi::Envelope second = e;
  second.id = make_id(2);
  const auto answers = world.publish(second);
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_TRUE(answers[0].duplicate);
  EXPECT_EQ(answers[0].original, make_id(1));
  EXPECT_EQ(world.store().find_dedup("t", "once").value(), make_id(1));
  second.topic = "u";
  EXPECT_TRUE(world.publish(second).empty());
  world.clock->advance(10s);
  EXPECT_FALSE(world.store().find_dedup("t", "once").value());
  second.topic = "t";
  EXPECT_TRUE(world.publish(second).empty());
}

TEST(SqliteTransport, EverythingIsThereAfterTheProcessDied) {
  World world;
  auto subscription = world.subscribe();
  world.publish(1, 4);
  const auto got = world.receive(*subscription, 3);
  world.settle(*subscription, got[0]);
  subscription.reset();
  world.shut();
  world.open();
  subscription = world.subscribe();
  EXPECT_EQ(world.take(*subscription), range(4, 4));
  const auto second = world.receive(*subscription);
  EXPECT_TRUE(second.empty());
  world.clock->advance(31s);
  subscription = world.subscribe();
  EXPECT_EQ(world.take(*subscription), range(2, 2));
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
