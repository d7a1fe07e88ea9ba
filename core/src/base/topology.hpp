#pragma once
// What drivers that keep topics themselves hold a topic and its messages to, so that all of them refuse the
// same in the same words.

#include <string_view>

#include <towline/result.hpp>
#include <towline/spi/envelope.hpp>
#include <towline/spi/transport.hpp>

namespace towline::base {

/// As it is written in files and errors: "queue", "log", "bus".
[[nodiscard]] const char* name_of(spi::TopicKind kind) noexcept;
/// What is no such name is a queue.
[[nodiscard]] spi::TopicKind topic_kind_of(std::string_view name) noexcept;

/// Whether a topic may be made like this. Errors: kInvalidTopic, kInvalidConfig.
[[nodiscard]] Result<void> check_topology(const spi::Topology& topology);

/// Whether a topic with so many partitions can take the envelope. Errors: kInvalidTopic, kInvalidArgument.
[[nodiscard]] Result<void> check_envelope(const spi::Envelope& envelope, std::uint32_t partition_count);

/// Whether a dedup id decides about this envelope. What is addressed to one group is a retry, a deferral or a
/// redrive of a message that has its dedup id already.
[[nodiscard]] inline bool deduplicates(const spi::Envelope& envelope) noexcept {
  return !envelope.dedup_id.empty() && envelope.group.empty();
}

/// The kConflict of whoever would change a record without naming its version: it has been claimed, so its
/// claimer may have published it already, and only the version that the claimer knows still changes it.
[[nodiscard]] Error claimed_before(const MessageId& id);

/// kTopologyMismatch that lists each setting that differs, as it is and as it was asked for. A topic keeps
/// the settings that it was made with.
[[nodiscard]] Result<void> check_same_topology(const spi::Topology& existing, const spi::Topology& wanted);

/// As it is written in files and errors: "unordered", "key_ordered", "partition_ordered".
[[nodiscard]] const char* name_of(spi::OrderMode order) noexcept;
/// What is no such name is unordered.
[[nodiscard]] spi::OrderMode order_mode_of(std::string_view name) noexcept;
/// Whether a member as `wanted` may work beside the one that lives as `existing` in the same group. Where
/// some topic may come to both, only in the same order mode, since otherwise what one of them keeps the other
/// one breaks. Errors: kTopologyMismatch.
[[nodiscard]] Result<void> check_same_order(const spi::SubscribeOptions& existing,
                                            const spi::SubscribeOptions& wanted);

}  // namespace towline::base
