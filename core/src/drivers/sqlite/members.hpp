#pragma once
// Subscriptions as members of groups: joining, staying alive, leaving, and dying.

#include <memory>
#include <string_view>
#include <vector>

#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

/// Whether patterns as they stand in the file, one a line, name the topic. Empty: all topics.
[[nodiscard]] bool asks_for(std::string_view patterns, std::string_view topic);
/// Whether the session keeps the same order as the members that its group has. Errors: kTopologyMismatch.
[[nodiscard]] Result<void> check_order(Tx& tx, const Session& session);
/// Registers the session, attaches its group to every topic it matches, and leaves its patterns in the file.
void join(Tx& tx, const std::shared_ptr<Session>& session);
/// Releases everything and leaves the group.
void leave(Tx& tx, Session& session);
/// Whether touch() or attach_topics() would write.
[[nodiscard]] bool needs_attention(Tx& tx, Session& session);
/// A sign of life, in memory only.
void note_alive(Tx& tx, Session& session);
/// Tells the file that the session lives, where that is due. One that was taken for dead stays so while
/// members keep another order than it does.
void touch(Tx& tx, Session& session);
/// Attaches the session to topics that are new since the last time.
void attach_topics(Tx& tx, Session& session);
/// Extends all leases of the session. Returns those that were lost since the last time. Errors:
/// check_order(), of one that was taken for dead.
[[nodiscard]] Result<std::vector<std::uint64_t>> renew(Tx& tx, Session& session);

/// Whether some lease may have ended; looks at those of other processes now and then.
[[nodiscard]] bool lease_ended(Tx& tx);
/// Ends what the clock has ended.
void expire(Tx& tx);

/// Members of the group on the topic that are alive, by id. `partitions`: those it asks for; empty: all.
struct LiveMember {
  std::int64_t id = 0;
  std::vector<std::uint32_t> partitions;
};
[[nodiscard]] std::vector<LiveMember> live_members(Tx& tx, const GroupTopic& at);

}  // namespace towline::drivers::sqlite
