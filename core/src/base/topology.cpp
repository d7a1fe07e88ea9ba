// The differences are listed all at once: whoever mends one of them should not run into the next.

#include "base/topology.hpp"

#include <string>

#include "base/text.hpp"

namespace towline::base {
namespace {

constexpr const char* name_of(spi::TopicKind kind) noexcept {
  switch (kind) {
    case spi::TopicKind::kQueue:
      return "queue";
    case spi::TopicKind::kLog:
      return "log";
    case spi::TopicKind::kBus:
      return "bus";
  }
  return "unknown";
}

std::string in_ms(Duration duration) { return std::to_string(duration.count() / 1000); }

void list(std::string& differences, const char* setting, const std::string& is, const std::string& wanted) {
  differences += (differences.empty() ? "" : ", ") + std::string(setting) + " " + is + " and not " + wanted;
}

}  // namespace

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
                                                 differences +
                                                 "; declare it as it is, or use another topic"};
}

}  // namespace towline::base
