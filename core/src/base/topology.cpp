// The differences are listed all at once: whoever mends one of them should not run into the next.

#include "base/topology.hpp"

#include <string>

#include "base/text.hpp"
#include "base/topic_match.hpp"

namespace towline::base {
namespace {

constexpr std::uint32_t kPartitionCountMax = 65'536;
constexpr std::uint8_t kPriorityMax = 9;

std::string in_ms(Duration duration) { return std::to_string(duration.count() / 1000); }

void list(std::string& differences, const char* setting, const std::string& is, const std::string& wanted) {
  differences += (differences.empty() ? "" : ", ") + std::string(setting) + " " + is + " and not " + wanted;
}

}  // namespace

const char* name_of(spi::TopicKind kind) noexcept {
  switch (kind) {
    case spi::TopicKind::kQueue:
      return "queue";
    case spi::TopicKind::kLog:
      return "log";
    case spi::TopicKind::kBus:
      return "bus";
  }
  return "queue";
}

spi::TopicKind topic_kind_of(std::string_view name) noexcept {
  if (name == "log") return spi::TopicKind::kLog;
  return name == "bus" ? spi::TopicKind::kBus : spi::TopicKind::kQueue;
}

Result<void> check_topology(const spi::Topology& topology) {
  if (topology.topic.empty()) return Error{ErrorCode::kInvalidTopic, "the topic to declare has no name"};
  if (topology.partition_count == 0 || topology.partition_count > kPartitionCountMax) {
    return Error{ErrorCode::kInvalidConfig, "partition_count of topic \"" + escape(topology.topic, 64) +
                                                "\" is " + std::to_string(topology.partition_count) +
                                                "; it must be in [1, 65536]"};
  }
  if (topology.retention < Duration(0)) {
    return Error{ErrorCode::kInvalidConfig, "retention_ms of topic \"" + escape(topology.topic, 64) +
                                                "\" is " + in_ms(topology.retention) +
                                                "; it must not be negative"};
  }
  return {};
}

Result<void> check_envelope(const spi::Envelope& envelope, std::uint32_t partition_count) {
  if (envelope.topic.empty()) return Error{ErrorCode::kInvalidTopic, "the envelope has no topic"};
  if (envelope.priority > kPriorityMax) {
    return Error{ErrorCode::kInvalidArgument,
                 "priority is " + std::to_string(envelope.priority) + "; it must be in [0, 9]"};
  }
  if (envelope.partition >= partition_count) {
    return Error{ErrorCode::kInvalidArgument, "partition is " + std::to_string(envelope.partition) +
                                                  "; topic \"" + escape(envelope.topic, 64) + "\" has " +
                                                  std::to_string(partition_count)};
  }
  return {};
}

Error claimed_before(const MessageId& id) {
  return {ErrorCode::kConflict, "schedule record " + id.to_string() + " has been claimed to be fired"};
}

Result<void> check_same_topology(const spi::Topology& existing, const spi::Topology& wanted) {
  std::string differences;
  if (existing.kind != wanted.kind) list(differences, "type", name_of(existing.kind), name_of(wanted.kind));
  if (existing.partition_count != wanted.partition_count) {
    list(differences, "partition_count", std::to_string(existing.partition_count),
         std::to_string(wanted.partition_count));
  }
  if (existing.retention != wanted.retention)
    list(differences, "retention_ms", in_ms(existing.retention), in_ms(wanted.retention));
  if (differences.empty()) return {};
  return Error{ErrorCode::kTopologyMismatch, "topic \"" + escape(wanted.topic, 64) + "\" exists with " +
                                                 differences + "; declare it as it is, or use another topic"};
}

const char* name_of(spi::OrderMode order) noexcept {
  switch (order) {
    case spi::OrderMode::kUnordered:
      return "unordered";
    case spi::OrderMode::kKeyOrdered:
      return "key_ordered";
    case spi::OrderMode::kPartitionOrdered:
      return "partition_ordered";
  }
  return "unordered";
}

spi::OrderMode order_mode_of(std::string_view name) noexcept {
  if (name == "key_ordered") return spi::OrderMode::kKeyOrdered;
  return name == "partition_ordered" ? spi::OrderMode::kPartitionOrdered : spi::OrderMode::kUnordered;
}

Result<void> check_same_order(const spi::SubscribeOptions& existing, const spi::SubscribeOptions& wanted) {
  if (existing.order == wanted.order || existing.group != wanted.group) return {};
  for (const std::string& pattern : wanted.patterns) {
    for (const std::string& other : existing.patterns) {
      if (!patterns_overlap(pattern, other)) continue;
      return Error{ErrorCode::kTopologyMismatch,
                   "consumer.order is " + std::string(name_of(wanted.order)) + " on '" + escape(pattern, 64) +
                       "', but group '" + escape(wanted.group, 64) + "' has the member '" +
                       escape(existing.consumer, 64) + "' that is " + name_of(existing.order) + " on '" +
                       escape(other, 64) +
                       "'; give all members of a group the same order, or close the others first (one that "
                       "died is forgotten when its lease ends)"};
    }
  }
  return {};
}

}  // namespace towline::base
