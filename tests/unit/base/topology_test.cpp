// Declaring a topic once more: the same settings are fine, and each one that differs is named.

#include "base/topology.hpp"

#include <chrono>

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

}  // namespace
}  // namespace towline::base
