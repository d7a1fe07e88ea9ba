// What a topic may be made like and what it takes; and declaring it once more: the same settings are fine,
// and each one that differs is named.

#include "base/topology.hpp"

#include <chrono>
#include <string>

#include <gtest/gtest.h>

namespace towline::base {
namespace {

using namespace std::chrono_literals;

spi::Topology topic_of(spi::TopicKind kind, std::uint32_t partition_count, Duration retention) {
  spi::Topology topology;
  topology.topic = "orders";
  topology.kind = kind;
  topology.partition_count = partition_count;
  topology.retention = retention;
  return topology;
}

TEST(Topology, TheSameSettingsAreTheSameTopic) {
  const spi::Topology topic = topic_of(spi::TopicKind::kLog, 8, 1h);
  EXPECT_TRUE(check_same_topology(topic, topic).ok());
}

TEST(Topology, EachSettingThatDiffersIsNamedAsItIsAndAsItWasAskedFor) {
  const spi::Topology existing = topic_of(spi::TopicKind::kLog, 8, 1h);
  const auto one = check_same_topology(existing, topic_of(spi::TopicKind::kLog, 16, 1h));
  ASSERT_FALSE(one.ok());
  EXPECT_EQ(one.error().code, ErrorCode::kTopologyMismatch);
  EXPECT_EQ(one.error().message,
            "topic \"orders\" exists with partition_count 8 and not 16; declare it as it is, or use another "
            "topic");
  const auto all = check_same_topology(existing, topic_of(spi::TopicKind::kQueue, 64, 0h));
  ASSERT_FALSE(all.ok());
  EXPECT_EQ(all.error().message,
            "topic \"orders\" exists with type log and not queue, partition_count 8 and not 64, retention_ms "
            "3600000 and not 0; declare it as it is, or use another topic");
}

TEST(Topology, MembersOfAGroupKeepOneOrderOnATopic) {
  const auto member = [](const char* pattern, spi::OrderMode order, const char* group = "g") {
    spi::SubscribeOptions options;
    options.patterns = {pattern};
    options.group = group;
    options.order = order;
    options.consumer = "first";
    return options;
  };
  const auto key = spi::OrderMode::kKeyOrdered;
  const auto none = spi::OrderMode::kUnordered;
  EXPECT_TRUE(check_same_order(member("a.*", key), member("a.b", key)).ok());
  EXPECT_TRUE(check_same_order(member("a", key), member("b", none)).ok());
  EXPECT_TRUE(check_same_order(member("a", key), member("a", none, "h")).ok());
  const auto clash = check_same_order(member("a.*", key), member("#.b", none));
  ASSERT_FALSE(clash.ok());
  EXPECT_EQ(clash.error().code, ErrorCode::kTopologyMismatch);
  for (const char* part : {"unordered on '#.b'", "group 'g'", "'first' that is key_ordered on 'a.*'"})
    EXPECT_NE(clash.error().message.find(part), std::string::npos) << clash.error().message;
}

TEST(Topology, EveryOrderHasANameAndIsFoundByIt) {
  for (const auto order :
       {spi::OrderMode::kUnordered, spi::OrderMode::kKeyOrdered, spi::OrderMode::kPartitionOrdered})
    EXPECT_EQ(order_mode_of(name_of(order)), order);
}

TEST(Topology, EveryKindHasANameAndIsFoundByIt) {
  for (const auto kind : {spi::TopicKind::kQueue, spi::TopicKind::kLog, spi::TopicKind::kBus})
    EXPECT_EQ(topic_kind_of(name_of(kind)), kind);
  EXPECT_EQ(topic_kind_of("stream"), spi::TopicKind::kQueue);
}

void expect_refused(const Result<void>& checked, ErrorCode code, const std::string& part) {
  ASSERT_FALSE(checked.ok()) << part;
  EXPECT_EQ(checked.error().code, code);
  EXPECT_NE(checked.error().message.find(part), std::string::npos) << checked.error().message;
}

TEST(Topology, ATopicThatCannotBeIsRefusedNamingTheSetting) {
  EXPECT_TRUE(check_topology(topic_of(spi::TopicKind::kQueue, 1, 0s)).ok());
  EXPECT_TRUE(check_topology(topic_of(spi::TopicKind::kLog, 65'536, 1h)).ok());
  spi::Topology nameless = topic_of(spi::TopicKind::kQueue, 1, 0s);
  nameless.topic.clear();
  expect_refused(check_topology(nameless), ErrorCode::kInvalidTopic, "has no name");
  expect_refused(check_topology(topic_of(spi::TopicKind::kQueue, 0, 0s)), ErrorCode::kInvalidConfig,
                 "partition_count of topic \"orders\" is 0; it must be in [1, 65536]");
  expect_refused(check_topology(topic_of(spi::TopicKind::kQueue, 65'537, 0s)), ErrorCode::kInvalidConfig,
                 "65537");
  expect_refused(check_topology(topic_of(spi::TopicKind::kLog, 1, -1s)), ErrorCode::kInvalidConfig,
                 "retention_ms of topic \"orders\" is -1000");
}

TEST(Topology, AnEnvelopeMustFitItsTopic) {
  spi::Envelope envelope;
  envelope.topic = "orders";
  envelope.priority = 9;
  envelope.partition = 3;
  EXPECT_TRUE(check_envelope(envelope, 4).ok());
  expect_refused(check_envelope(envelope, 3), ErrorCode::kInvalidArgument,
                 "partition is 3; topic \"orders\" has 3");
  envelope.priority = 10;
  expect_refused(check_envelope(envelope, 4), ErrorCode::kInvalidArgument, "priority is 10");
  envelope.topic.clear();
  expect_refused(check_envelope(envelope, 4), ErrorCode::kInvalidTopic, "has no topic");
}

TEST(Topology, OnlyWhatIsForEveryGroupIsDeduplicated) {
  spi::Envelope envelope;
  EXPECT_FALSE(deduplicates(envelope));
  envelope.dedup_id = "d";
  EXPECT_TRUE(deduplicates(envelope));
  envelope.group = "g";
  EXPECT_FALSE(deduplicates(envelope)) << "a retry has its dedup id already";
}

}  // namespace
}  // namespace towline::base
