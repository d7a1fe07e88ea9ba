// A session that closes hands everything back and is gone. One that is merely dropped behaves like a process
// that died: it stays until its leases end by the clock.
//
// Time: a lease of a subscription of this process ends by the monotonic clock. Of another process's lease
// only the stored wall-clock time is known; it also ends when it was seen unchanged for its whole duration,
// so that a clock that was set back does not keep a dead process's messages.

#include "drivers/sqlite/members.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <string>
#include <utility>

#include <unistd.h>

#include "base/topic_match.hpp"
#include "base/topology.hpp"
#include "drivers/sqlite/claim_rows.hpp"
#include "drivers/sqlite/claims.hpp"
#include "drivers/sqlite/ownership.hpp"
#include "drivers/sqlite/topics.hpp"

namespace towline::drivers::sqlite {
namespace {

/// How often the leases of other processes are looked at while these processes are busy.
constexpr Duration kScanInterval = std::chrono::milliseconds(50);
/// Leases that a session lost and never asked about.
constexpr std::size_t kLostLeaseCountMax = 10'000;

constexpr const char* kInsertMember =
    "INSERT INTO member(group_id, consumer, pid, patterns, order_mode, partitions, lease_us, lease_until_us,"
    " lost_count) VALUES(0, '', 0, '', 'unordered', '', 0, 0, 0)";
constexpr const char* kWriteMember =
    "INSERT OR REPLACE INTO member VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0)";
constexpr const char* kIsMember = "SELECT 1 FROM member WHERE id = ?1";
constexpr const char* kDeleteMember = "DELETE FROM member WHERE id = ?1";
constexpr const char* kDeleteMemberTopics = "DELETE FROM member_topic WHERE member_id = ?1";
constexpr const char* kTopicsOfMember = "SELECT topic_id FROM member_topic WHERE member_id = ?1";
constexpr const char* kInsertMemberTopic = "INSERT OR IGNORE INTO member_topic VALUES(?1, ?2)";
constexpr const char* kInsertInterest = "INSERT OR IGNORE INTO interest VALUES(?1, ?2)";
constexpr const char* kRenewClaims =
    "UPDATE claim SET lease_until_us = ?2 WHERE member_id = ?1 AND remaining > 0";
constexpr const char* kMembers = "SELECT id, group_id, lease_us, lease_until_us, lost_count FROM member";
constexpr const char* kLost = "UPDATE member SET lost_count = lost_count + ?2 WHERE id = ?1";
constexpr const char* kOrdersOfGroup =
    "SELECT order_mode, patterns, consumer, pid, id FROM member WHERE group_id = ?1 AND order_mode <> ?2";
constexpr const char* kMembersOfTopic =
    "SELECT m.id, m.partitions, m.lease_us, m.lease_until_us FROM member_topic t JOIN member m ON m.id = "
    "t.member_id"
    " WHERE t.topic_id = ?1 AND m.group_id = ?2 ORDER BY m.id";

std::string join_lines(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines)
    text.append(line).append("\n");
  return text;
}

std::vector<std::string> split_lines(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    lines.emplace_back(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  }
  return lines;
}

std::string join_numbers(const std::vector<std::uint32_t>& numbers) {
  std::string text;
  for (const std::uint32_t number : numbers)
    text.append(std::to_string(number)).append(" ");
  return text;
}

std::vector<std::uint32_t> parse_numbers(std::string_view text) {
  std::vector<std::uint32_t> numbers;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at < end) {
    std::uint32_t number = 0;
    const auto [next, failed] = std::from_chars(at, end, number);
    if (failed == std::errc()) numbers.push_back(number);
    at = next + 1;
  }
  return numbers;
}

/// When a lease of another process ends, on this process's monotonic clock.
MonotonicTime end_of(Tx& tx, Observations& seen, std::int64_t id, Duration lease, TimePoint until) {
  const auto [it, made] = seen.known.try_emplace(id, Observation{until, tx.now.monotonic, 0});
  if (it->second.until != until) it->second = {until, tx.now.monotonic, 0};
  it->second.round = seen.round;
  const MonotonicTime unchanged = after(it->second.since, lease);
  if (until <= tx.now.wall) return tx.now.monotonic;
  return std::min(unchanged, after(tx.now.monotonic, until - tx.now.wall));
}

void forget_unseen(Observations& seen) {
  std::erase_if(seen.known, [&](const auto& entry) { return entry.second.round != seen.round; });
}

bool is_own(const Catalog& catalog, std::int64_t member_id) { return catalog.sessions.contains(member_id); }

/// The partitions of everything that the member reads have to be dealt out again.
void deal_topics_of(Tx& tx, std::int64_t member_id, std::int64_t group_id) {
  std::vector<std::int64_t> topics;
  {
    Query rows(tx.sql, kTopicsOfMember, member_id);
    while (rows.row())
      topics.push_back(rows.integer(0));
  }
  for (const std::int64_t id : topics) {
    const auto topic = tx.catalog.topics.find(id);
    if (group_id == 0 || topic == tx.catalog.topics.end()) continue;
    if (GroupTopic* at = find_group_topic(tx, group_by_id(tx, group_id), *topic->second)) tx.note_deal(*at);
  }
}

void delete_member(Tx& tx, std::int64_t member_id, std::int64_t group_id) {
  deal_topics_of(tx, member_id, group_id);
  execute(tx.sql, kDeleteMemberTopics, member_id);
  execute(tx.sql, kDeleteMember, member_id);
}

void write_member(Tx& tx, Session& session) {
  tx.remember(session);
  session.lease_until = after(tx.now.monotonic, session.options.lease);
  session.lease_written = session.lease_until;
  session.lease_until_wall = after(tx.now.wall, session.options.lease);
  session.lost_count = 0;
  execute(tx.sql, kWriteMember, session.member_id, session.group == nullptr ? 0 : session.group->id,
          session.options.consumer, getpid(), join_lines(session.options.patterns),
          base::name_of(session.options.order), join_numbers(session.options.partitions),
          session.options.lease.count(), to_us(session.lease_until_wall));
  tx.catalog.next_end = std::min(tx.catalog.next_end, session.lease_until);
}

void mark_groups_dirty(Tx& tx, Session& session) {
  if (session.group == nullptr) return;
  for (TopicState* topic : session.topics) {
    if (GroupTopic* at = find_group_topic(tx, *session.group, *topic)) tx.note_deal(*at);
  }
}

/// Others may have taken this session for dead, removed it and dealt without it: they saw the wall clock
/// jump, or it stood still for longer than its lease. Nothing else would ever deal again, so whoever renews
/// comes back to its topics and looks whether partitions have no owner or it has none.
void come_back(Tx& tx, Session& session) {
  for (TopicState* topic : session.topics)
    execute(tx.sql, kInsertMemberTopic, topic->id, session.member_id);
  if (session.group == nullptr) return;
  for (TopicState* topic : session.topics) {
    GroupTopic* at = find_group_topic(tx, *session.group, *topic);
    if (at == nullptr || !at->partitioned) continue;
    const auto& partitions = at->partitions;
    const auto has_owner = [](std::int64_t member_id) {
      return [member_id](const Ownership& one) { return one.member_id == member_id; };
    };
    const bool some_are_free = std::any_of(partitions.begin(), partitions.end(), has_owner(0));
    const bool has_some = std::any_of(partitions.begin(), partitions.end(), has_owner(session.member_id));
    if (some_are_free || !has_some) tx.note_deal(*at);
  }
}

/// Writes that it lives. Whom others have taken for dead is no member until it is let in again: one that
/// keeps another order may have come meanwhile.
Result<void> stay(Tx& tx, Session& session) {
  const bool was_live = session.live;
  if (!was_live || !select_integer(tx.sql, kIsMember, session.member_id)) {
    session.live = false;
    if (auto clash = check_order(tx, session); !clash) return clash;
  }
  session.live = true;
  write_member(tx, session);
  if (!was_live) mark_groups_dirty(tx, session);
  come_back(tx, session);
  return {};
}

/// Recomputes when the next lease ends.
void scan(Tx& tx) {
  Catalog& catalog = tx.catalog;
  MonotonicTime next = MonotonicTime::max();
  for (const auto& [id, session] : catalog.sessions) {
    if (session->live) next = std::min(next, session->lease_until);
    for (const auto& [lease, claim] : session->claims)
      next = std::min(next, claim.lease_until);
  }
  ++catalog.claims_seen.round;
  ++catalog.members_seen.round;
  std::vector<std::int64_t> holding;
  for_each_claim(tx, [&](Claim&& claim) {
    if (is_own(catalog, claim.member_id)) return;
    holding.push_back(claim.member_id);
    next = std::min(
        next, end_of(tx, catalog.claims_seen, claim.lease, claim.lease_duration, claim.lease_until_wall));
  });
  Query members(tx.sql, kMembers);
  while (members.row()) {
    const std::int64_t id = members.integer(0);
    if (is_own(catalog, id)) continue;
    const MonotonicTime end =
        end_of(tx, catalog.members_seen, id, Duration(members.integer(2)), from_us(members.integer(3)));
    // One that is dead already and still holds something goes when its last claim ends.
    const bool holds_something = std::find(holding.begin(), holding.end(), id) != holding.end();
    if (end > tx.now.monotonic || !holds_something) next = std::min(next, end);
  }
  forget_unseen(catalog.claims_seen);
  forget_unseen(catalog.members_seen);
  catalog.next_end = next;
  catalog.scanned_at = tx.now.monotonic;
  catalog.scanned_generation = catalog.generation;
}

void expire_own(Tx& tx, Session& session) {
  tx.remember(session);
  std::uint64_t ended_count = 0;
  for (auto it = session.claims.begin(); it != session.claims.end();) {
    const auto claim = it++;
    if (claim->second.lease_until > tx.now.monotonic || !still_held(tx, session, claim)) continue;
    ended_count += claim->second.remaining;
  }
  if (ended_count > 0) {
    const bool charged = session.unsettled + session.lost_count == 1;
    session.lost_count += ended_count;
    for (auto it = session.claims.begin(); it != session.claims.end();) {
      const auto claim = it++;
      if (claim->second.lease_until > tx.now.monotonic) continue;
      if (!session.dropped && session.lost_leases.size() < kLostLeaseCountMax) {
        session.lost_leases.push_back(static_cast<std::uint64_t>(claim->first));
      }
      end_claim(tx, &session, claim->second, charged, true);
    }
  }
  if (!session.live || session.lease_until > tx.now.monotonic) return;
  session.live = false;
  mark_groups_dirty(tx, session);
}

void expire_others(Tx& tx) {
  Catalog& catalog = tx.catalog;
  struct Of {
    std::uint64_t unsettled = 0;
    std::vector<Claim> ended;
  };
  std::map<std::int64_t, Of> members;
  for_each_claim(tx, [&](Claim&& claim) {
    if (is_own(catalog, claim.member_id)) return;
    Of& of = members[claim.member_id];
    of.unsettled += claim.remaining;
    const MonotonicTime end =
        end_of(tx, catalog.claims_seen, claim.lease, claim.lease_duration, claim.lease_until_wall);
    if (end <= tx.now.monotonic) of.ended.push_back(std::move(claim));
  });
  struct Gone {
    std::int64_t id, group_id;
  };
  std::vector<Gone> gone;
  std::unordered_map<std::int64_t, std::uint64_t> lost_before;
  {
    Query rows(tx.sql, kMembers);
    while (rows.row()) {
      const std::int64_t id = rows.integer(0);
      if (is_own(catalog, id)) continue;
      lost_before[id] = static_cast<std::uint64_t>(rows.integer(4));
      const MonotonicTime end =
          end_of(tx, catalog.members_seen, id, Duration(rows.integer(2)), from_us(rows.integer(3)));
      if (end <= tx.now.monotonic) gone.push_back({id, rows.integer(1)});
    }
  }
  for (auto& [id, of] : members) {
    std::uint64_t ended_count = 0;
    for (const Claim& claim : of.ended)
      ended_count += claim.remaining;
    const bool charged = of.unsettled + lost_before[id] == 1;
    for (Claim& claim : of.ended)
      end_claim(tx, nullptr, claim, charged, true);
    if (ended_count > 0) execute(tx.sql, kLost, id, ended_count);
    of.unsettled -= ended_count;
  }
  for (const Gone& one : gone) {
    const auto of = members.find(one.id);
    if (of == members.end() || of->second.unsettled == 0) {
      delete_member(tx, one.id, one.group_id);
    } else {
      deal_topics_of(tx, one.id, one.group_id);
    }
  }
}

}  // namespace

bool asks_for(std::string_view patterns, std::string_view topic) {
  if (patterns.empty()) return true;
  while (!patterns.empty()) {
    const std::size_t end = patterns.find('\n');
    if (base::pattern_matches(patterns.substr(0, end), topic)) return true;
    patterns = end == std::string_view::npos ? std::string_view() : patterns.substr(end + 1);
  }
  return false;
}

Result<void> check_order(Tx& tx, const Session& session) {
  const spi::SubscribeOptions& options = session.options;
  if (options.group.empty()) return {};
  const GroupState* group = find_group(tx, options.group);
  if (group == nullptr) return {};
  Query members(tx.sql, kOrdersOfGroup, group->id, base::name_of(options.order));
  while (members.row()) {
    const auto own = tx.catalog.sessions.find(members.integer(4));
    if (own != tx.catalog.sessions.end() && !own->second->live) continue;
    spi::SubscribeOptions other;
    other.group = options.group;
    other.order = base::order_mode_of(members.text(0));
    other.patterns = split_lines(members.text(1));
    other.consumer = std::string(members.text(2)) + " of process " + std::to_string(members.integer(3));
    if (auto clash = base::check_same_order(other, options); !clash) return clash;
  }
  return {};
}

void join(Tx& tx, const std::shared_ptr<Session>& session) {
  const spi::SubscribeOptions& options = session->options;
  if (!options.group.empty()) session->group = &group_of(tx, options.group);
  session->topic_last_at_join = tx.catalog.topics.empty() ? 0 : tx.catalog.topics.rbegin()->first;
  execute(tx.sql, kInsertMember);
  session->member_id = sqlite3_last_insert_rowid(tx.sql.raw());
  tx.catalog.sessions[session->member_id] = session;
  write_member(tx, *session);
  if (session->group != nullptr) {
    for (const std::string& pattern : options.patterns) {
      execute(tx.sql, kInsertInterest, session->group->id, pattern);
    }
  } else {
    for (auto& [id, log] : tx.catalog.logs) {
      if (options.matches(log->topic->name)) session->positions[id] = fresh(tx, *log).last;
    }
  }
  attach_topics(tx, *session);
}

void leave(Tx& tx, Session& session) {
  flush_settled(tx);
  while (!session.claims.empty()) {
    const auto first = session.claims.begin();
    if (still_held(tx, session, first)) end_claim(tx, &session, first->second, false, false);
  }
  sync_partition_cursors(tx, session);
  delete_member(tx, session.member_id, session.group == nullptr ? 0 : session.group->id);
  tx.catalog.sessions.erase(session.member_id);
}

bool needs_attention(Tx& tx, Session& session) {
  if (session.shape != tx.catalog.shape && !session.ephemeral()) return true;
  return !session.live || session.lease_written - tx.now.monotonic < session.options.lease / 2;
}

void note_alive(Tx& tx, Session& session) {
  if (session.live) session.lease_until = after(tx.now.monotonic, session.options.lease);
  session.lost_count = 0;
}

void touch(Tx& tx, Session& session) {
  const bool written = session.live && session.lease_written - tx.now.monotonic >= session.options.lease / 2;
  if (written) return;
  tx.remember(session);
  (void)stay(tx, session);
}

void attach_topics(Tx& tx, Session& session) {
  if (session.shape == tx.catalog.shape) return;
  session.topics.clear();
  std::vector<TopicState*> wanted;
  for (auto& [id, topic] : tx.catalog.topics) {
    if (session.options.matches(topic->name)) wanted.push_back(topic.get());
  }
  for (TopicState* topic : wanted) {
    if (session.group != nullptr) {
      const bool newer = topic->id > session.topic_last_at_join;
      GroupTopic& at =
          attach_group(tx, *session.group, *topic, newer ? spi::StartPosition{} : session.options.start);
      if (session.ordered() && !at.partitioned) make_partitioned(tx, at);
      if (execute(tx.sql, kInsertMemberTopic, topic->id, session.member_id) && tx.sql.changes() > 0)
        tx.note_deal(at);
    }
    session.topics.push_back(topic);
  }
  session.shape = tx.catalog.shape;
}

Result<std::vector<std::uint64_t>> renew(Tx& tx, Session& session) {
  tx.remember(session);
  session.live = session.live && session.lease_until > tx.now.monotonic;
  if (auto clash = stay(tx, session); !clash) {
    if (session.lost_leases.empty()) return std::move(clash).error();
    return std::exchange(session.lost_leases, {});
  }
  for (auto it = session.claims.begin(); it != session.claims.end();) {
    const auto claim = it++;
    if (!still_held(tx, session, claim)) continue;
    tx.remember(claim->second);
    claim->second.lease_until = session.lease_until;
    claim->second.lease_until_wall = session.lease_until_wall;
  }
  if (!session.claims.empty())
    execute(tx.sql, kRenewClaims, session.member_id, to_us(session.lease_until_wall));
  return std::exchange(session.lost_leases, {});
}

bool lease_ended(Tx& tx) {
  const Catalog& catalog = tx.catalog;
  const bool stale = catalog.scanned_generation != catalog.generation &&
                     (catalog.scanned_generation == kNoGeneration ||
                      tx.now.monotonic >= after(catalog.scanned_at, kScanInterval));
  if (stale) scan(tx);
  return tx.now.monotonic >= catalog.next_end;
}

void expire(Tx& tx) {
  if (!lease_ended(tx)) return;
  flush_settled(tx);
  Catalog& catalog = tx.catalog;
  for (auto it = catalog.sessions.begin(); it != catalog.sessions.end();) {
    const std::shared_ptr<Session> session = it->second;
    ++it;
    expire_own(tx, *session);
    if (!session->dropped || session->live || !session->claims.empty()) continue;
    delete_member(tx, session->member_id, session->group == nullptr ? 0 : session->group->id);
    catalog.sessions.erase(session->member_id);
  }
  expire_others(tx);
  scan(tx);
}

std::vector<LiveMember> live_members(Tx& tx, const GroupTopic& at) {
  std::vector<LiveMember> members;
  Query rows(tx.sql, kMembersOfTopic, at.topic->id, at.group->id);
  while (rows.row()) {
    const std::int64_t id = rows.integer(0);
    const auto own = tx.catalog.sessions.find(id);
    const bool live = own != tx.catalog.sessions.end()
                          ? own->second->live
                          : end_of(tx, tx.catalog.members_seen, id, Duration(rows.integer(2)),
                                   from_us(rows.integer(3))) > tx.now.monotonic;
    if (live) members.push_back({id, parse_numbers(rows.text(1))});
  }
  return members;
}

}  // namespace towline::drivers::sqlite
