#pragma once
// Topics, logs and groups: finding them, making them on first use, and keeping what is known of them current.

#include <string_view>

#include "base/topology.hpp"
#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

/// Notices what other processes have committed. Cheap when nothing was.
void refresh(Tx& tx);
/// Forgets everything that was derived from the file and reads it again; after a rollback.
void rebuild(Tx& tx);

[[nodiscard]] TopicState* find_topic(Catalog& catalog, std::string_view name);
/// Made when it is new; then every group that has asked for such names is attached to it.
TopicState& topic_of(Tx& tx, std::string_view name, const spi::Topology& settings = {});
/// Brought up to date, made when it is new.
LogState& log_of(Tx& tx, TopicState& topic, std::uint8_t priority);
/// Brings `last`, `trimmed` and `body_last` up to date.
LogState& fresh(Tx& tx, LogState& log);
[[nodiscard]] GroupState* find_group(Tx& tx, std::string_view name);
GroupState& group_of(Tx& tx, std::string_view name);
[[nodiscard]] GroupState& group_by_id(Tx& tx, std::int64_t id);

/// The group on the topic, brought up to date; null when it is not attached.
[[nodiscard]] GroupTopic* find_group_topic(Tx& tx, GroupState& group, TopicState& topic);
/// Attaches the group at `start` unless it is attached already.
GroupTopic& attach_group(Tx& tx, GroupState& group, TopicState& topic, const spi::StartPosition& start);
/// Brought up to date. `log` must be of the topic.
Reader& reader_of(Tx& tx, GroupTopic& at, LogState& log);

[[nodiscard]] Result<void> declare_topic(Tx& tx, const spi::Topology& topology);
using base::check_envelope;
[[nodiscard]] std::uint32_t partition_count_of(Catalog& catalog, std::string_view topic);

}  // namespace towline::drivers::sqlite
