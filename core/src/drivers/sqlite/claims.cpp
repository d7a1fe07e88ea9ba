// The path that every message takes. A receive hands out what came back first, then what is new, log by log:
// higher priorities first, and among the topics of one priority in turn. What one receive takes from one log
// is one row of `claim`.
//
// When a lease ends with one message in the member's hands, this message is charged with the death; with
// several nobody knows which it was, so none is charged and all become suspects. A suspect is handed out only
// to a session that holds nothing, and while it is held the session gets nothing else: so the next death is
// charged to the right one.

#include "drivers/sqlite/claims.hpp"

#include <algorithm>
#include <utility>

#include "drivers/sqlite/claim_rows.hpp"
#include "drivers/sqlite/ownership.hpp"
#include "drivers/sqlite/publish.hpp"
#include "drivers/sqlite/topics.hpp"

namespace towline::drivers::sqlite {
namespace {

constexpr std::size_t kBlockCount = 128;
constexpr const char* kReturnedOf =
    "SELECT seq, partition, crashes, suspect, redelivered FROM redelivery WHERE group_id = ?1 AND seq > ?2 "
    "AND seq < ?3"
    " ORDER BY seq";
constexpr const char* kTakeReturned = "DELETE FROM redelivery WHERE group_id = ?1 AND seq = ?2";
constexpr const char* kAnyReturned = "SELECT 1 FROM redelivery WHERE group_id = ?1 LIMIT 1";
constexpr const char* kReturn = "INSERT OR REPLACE INTO redelivery VALUES(?1, ?2, ?3, ?4, ?5, 1)";
constexpr const char* kMoveCursor = "UPDATE cursor SET read_seq = ?3 WHERE log_id = ?1 AND group_id = ?2";
constexpr const char* kMovePartitionCursor =
    "UPDATE partition_cursor SET read_seq = ?4 WHERE log_id = ?1 AND group_id = ?2 AND partition = ?3";

struct Returned {
  Seq seq = 0;
  std::uint32_t partition = 0;
  std::uint32_t crashes = 0;
  bool suspect = false;
  bool redelivered = false;
};

/// A log that a session may read now.
struct Source {
  GroupTopic* at = nullptr;
  Reader* reader = nullptr;
  std::size_t turn = 0;
};

/// What may still be handed out in this receive. The first message fits whatever its size, so that nothing
/// gets stuck.
struct Budget {
  std::size_t count = 0;
  std::size_t bytes = 0;
  bool untouched = true;

  [[nodiscard]] bool allows(std::size_t size) const noexcept {
    return count > 0 && (untouched || size <= bytes);
  }
  void take(std::size_t size) noexcept {
    --count;
    bytes -= std::min(bytes, size);
    untouched = false;
  }
};

bool returned_of(Tx& tx, GroupState& group) {
  if (group.generation != tx.catalog.generation) {
    group.returned = select_integer(tx.sql, kAnyReturned, group.id).has_value();
    group.generation = tx.catalog.generation;
  }
  return group.returned;
}

/// Whether the log has something that the session has not read.
bool has_new(const GroupTopic& at, const Reader& reader, const Session& session) {
  if (!at.partitioned) return reader.read < reader.log->last;
  for (std::uint32_t p = 0; p < at.partitions.size(); ++p) {
    if (owns(at, session, p) && reader.partition_read[p] < reader.log->last) return true;
  }
  return false;
}

std::vector<Source> sources_of(Tx& tx, Session& session) {
  std::vector<Source> sources;
  const bool returned = returned_of(tx, *session.group);
  const std::size_t size = session.topics.size();
  for (std::size_t k = 0; k < size; ++k) {
    const std::size_t index = (session.turn + k) % size;
    GroupTopic* at = find_group_topic(tx, *session.group, *session.topics[index]);
    if (at == nullptr) continue;
    for (LogState* log : at->topic->logs) {
      if (log == nullptr) continue;
      Reader& reader = reader_of(tx, *at, fresh(tx, *log));
      if (returned || has_new(*at, reader, session)) sources.push_back({at, &reader, index});
    }
  }
  std::stable_sort(sources.begin(), sources.end(), [](const Source& a, const Source& b) {
    return a.reader->log->priority > b.reader->log->priority;
  });
  return sources;
}

/// Makes one claim and its deliveries. A claim stays dense while the entries follow each other and nothing is
/// to be said about any of them.
class ClaimBuilder {
 public:
  ClaimBuilder(Tx& tx, Session& session, const Source& source, std::vector<spi::Delivery>& out)
      : tx_(tx), session_(session), source_(source), out_(out), first_out_(out.size()) {
    sparse_ = source.at->partitioned;
  }

  void add(MessageReader& message, const Entry& entry, bool redelivered) {
    if (claim_.count == 0) claim_.first = entry.seq;
    const bool plain = entry.crashes == 0 && !entry.suspect && claim_.first + claim_.count == entry.seq;
    if (!sparse_ && !plain) {
      for (std::uint32_t i = 0; i < claim_.count; ++i)
        claim_.entries.push_back({claim_.first + i, out_[first_out_ + i].envelope->partition, 0, false});
      sparse_ = true;
    }
    if (sparse_) claim_.entries.push_back(entry);
    if (entry.suspect) suspect_ = true;
    if (block_ == nullptr || block_->size() == kBlockCount) {
      block_ = std::make_shared<std::vector<spi::Envelope>>();
      block_->reserve(kBlockCount);
    }
    spi::Envelope& envelope = block_->emplace_back();
    spi::Delivery& delivery = out_.emplace_back();
    if (!message.read(tx_, envelope)) delivery.undecodable = envelope.payload;
    delivery.token.index = claim_.count++;
    delivery.envelope = std::shared_ptr<const spi::Envelope>(block_, &envelope);
    delivery.crashes = envelope.crashes + entry.crashes;
    delivery.redelivered = redelivered;
    if (source_.at->partitioned) delivery.epoch = source_.at->partitions[envelope.partition].epoch;
  }

  void finish() {
    if (claim_.count == 0) return;
    claim_.group_id = session_.group->id;
    claim_.member_id = session_.member_id;
    claim_.log_id = source_.reader->log->id;
    claim_.remaining = claim_.count;
    claim_.lease_duration = session_.options.lease;
    claim_.lease_until = after(tx_.now.monotonic, session_.options.lease);
    claim_.lease_until_wall = after(tx_.now.wall, session_.options.lease);
    insert_claim(tx_, claim_);
    tx_.note_made(claim_);
    for (std::size_t i = first_out_; i < out_.size(); ++i)
      out_[i].token.lease = static_cast<std::uint64_t>(claim_.lease);
    if (claim_.lease_until < tx_.catalog.next_end) {
      tx_.catalog.next_end = claim_.lease_until;
      tx_.lease_sooner = true;
    }
    session_.unsettled += claim_.count;
    if (suspect_) session_.suspect_lease = claim_.lease;
    session_.claims.emplace(claim_.lease, std::move(claim_));
  }

 private:
  Tx& tx_;
  Session& session_;
  const Source& source_;
  std::vector<spi::Delivery>& out_;
  const std::size_t first_out_;
  Claim claim_;
  std::shared_ptr<std::vector<spi::Envelope>> block_;
  bool sparse_ = false;
  bool suspect_ = false;
};

/// False: nothing more of this subscription may be handed out now.
bool take_returned(Tx& tx, Session& session, const Source& source, Budget& budget, ClaimBuilder& builder) {
  if (!session.group->returned) return true;
  LogState& log = *source.reader->log;
  std::vector<Returned> waiting;
  {
    Query rows(tx.sql, kReturnedOf, session.group->id, log_begin(log.id), log_end(log.id));
    while (waiting.size() < budget.count && rows.row()) {
      const Returned one{rows.integer(0), rows.u32(1), rows.u32(2), rows.integer(3) != 0,
                         rows.integer(4) != 0};
      if (!source.at->partitioned || owns(*source.at, session, one.partition)) waiting.push_back(one);
    }
  }
  bool more = true;
  for (const Returned& one : waiting) {
    if (one.suspect && (session.unsettled > 0 || !budget.untouched)) {
      more = false;
      break;
    }
    MessageReader message(tx.sql, log, one.seq - 1, one.seq);
    const bool found = message.next();
    if (found) {
      const std::size_t size = message.payload_size();
      if (!budget.allows(size)) {
        more = false;
        break;
      }
      budget.take(size);
      builder.add(message, {one.seq, message.partition(), one.crashes, one.suspect}, one.redelivered);
    }
    // Also when the message is gone: a log or bus topic did not keep it so long.
    execute(tx.sql, kTakeReturned, session.group->id, one.seq);
    if (found && one.suspect) {
      more = false;
      break;
    }
  }
  if (!waiting.empty())
    session.group->returned = select_integer(tx.sql, kAnyReturned, session.group->id).has_value();
  return more;
}

void take_fresh(Tx& tx, const Source& source, Budget& budget, ClaimBuilder& builder) {
  Reader& reader = *source.reader;
  const Seq before = reader.read;
  MessageReader message(tx.sql, *reader.log, reader.read, reader.log->last);
  while (budget.count > 0) {
    if (!message.next()) {
      reader.read = reader.log->last;
      break;
    }
    const std::int64_t group_id = message.group_id();
    if (group_id == 0 || group_id == source.at->group->id) {
      const std::size_t size = message.payload_size();
      if (!budget.allows(size)) break;
      budget.take(size);
      builder.add(message, {message.seq(), message.partition(), 0, false}, false);
    }
    reader.read = message.seq();
  }
  if (reader.read != before) execute(tx.sql, kMoveCursor, reader.log->id, source.at->group->id, reader.read);
}

void take_fresh_of_partitions(Tx& tx, Session& session, const Source& source, Budget& budget,
                              ClaimBuilder& builder) {
  GroupTopic& at = *source.at;
  Reader& reader = *source.reader;
  // Everything of these partitions up to `reached` was handed out. What is read once moves all of them on, so
  // they stay together, and only a partition that was just taken over is behind.
  std::vector<char> mine(at.partitions.size(), 0);
  std::vector<char> touched(at.partitions.size(), 0);
  Seq reached = reader.log->last;
  for (std::uint32_t p = 0; p < at.partitions.size(); ++p) {
    if (!owns(at, session, p)) continue;
    mine[p] = 1;
    reached = std::min(reached, reader.partition_read[p]);
  }
  if (reached >= reader.log->last) return;
  MessageReader message(tx.sql, *reader.log, reached, reader.log->last);
  bool full = budget.count == 0;
  while (!full && message.next()) {
    const std::uint32_t partition = message.partition();
    const std::int64_t group_id = message.group_id();
    const bool wanted = mine[partition] != 0 && message.seq() > reader.partition_read[partition] &&
                        (group_id == 0 || group_id == at.group->id);
    if (wanted) {
      const std::size_t size = message.payload_size();
      if (!budget.allows(size)) {
        full = true;
        break;
      }
      budget.take(size);
      builder.add(message, {message.seq(), partition, 0, false}, false);
      touched[partition] = 1;
      full = budget.count == 0;
    }
    reached = message.seq();
  }
  if (!full && tx.sql.ok()) reached = reader.log->last;
  for (std::uint32_t p = 0; p < at.partitions.size(); ++p) {
    if (mine[p] == 0 || reader.partition_read[p] >= reached) continue;
    reader.partition_read[p] = reached;
    // The others are written now and then only: nothing of them was handed out, so reading again finds
    // nothing.
    if (touched[p] == 0) continue;
    execute(tx.sql, kMovePartitionCursor, reader.log->id, at.group->id, p, reached);
    reader.partition_written[p] = reached;
  }
}

GroupTopic* partitioned_at(Tx& tx, const Claim& claim) {
  const auto log = tx.catalog.logs.find(claim.log_id);
  if (log == tx.catalog.logs.end()) return nullptr;
  GroupTopic* at = find_group_topic(tx, group_by_id(tx, claim.group_id), *log->second->topic);
  return at != nullptr && at->partitioned ? at : nullptr;
}

/// What was handed out before the group was partitioned does not say its partition.
std::uint32_t partition_in(Tx& tx, const Claim& claim, std::uint32_t index) {
  return claim.entries.empty() ? partition_of(tx, claim.first + index) : claim.entries[index].partition;
}

void return_entry(Tx& tx, const Claim& claim, std::uint32_t index, bool charged, bool suspect) {
  const Entry entry = claim.entry(index);
  const auto log = tx.catalog.logs.find(claim.log_id);
  // A log or bus topic did not keep it so long.
  if (log != tx.catalog.logs.end() && entry.seq <= fresh(tx, *log->second).trimmed) return;
  GroupState& group = group_by_id(tx, claim.group_id);
  const std::uint32_t partition =
      partitioned_at(tx, claim) != nullptr ? partition_in(tx, claim, index) : entry.partition;
  execute(tx.sql, kReturn, group.id, entry.seq, partition, entry.crashes + (charged ? 1 : 0),
          entry.suspect || suspect ? 1 : 0);
  group.returned = true;
  tx.note_stirred(group);
}

/// Partitions wait for what is in hand before they change theirs.
void left_hands(Tx& tx, const Claim& claim, std::uint32_t index) {
  GroupTopic* at = partitioned_at(tx, claim);
  if (at == nullptr || at->deal_dirty) return;
  const std::uint32_t partition = partition_in(tx, claim, index);
  if (partition >= at->partitions.size()) return;
  const Ownership& one = at->partitions[partition];
  if (one.revoking || one.member_id != claim.member_id) tx.note_deal(*at);
}

void forget_claim(Session& session, const Claim& claim) {
  session.unsettled -= claim.remaining;
  if (session.suspect_lease == claim.lease) session.suspect_lease = 0;
}

}  // namespace

bool still_held(Tx& tx, Session& session, std::map<std::int64_t, Claim>::iterator it) {
  Claim& claim = it->second;
  if (claim.generation == tx.catalog.generation) return true;
  if (claim_exists(tx, claim.lease)) {
    claim.generation = tx.catalog.generation;
    return true;
  }
  if (!tx.sql.ok()) return true;
  tx.remember(session);
  tx.remember(claim);
  forget_claim(session, claim);
  session.lost_leases.push_back(static_cast<std::uint64_t>(claim.lease));
  std::erase(tx.settled, &claim);
  session.claims.erase(it);
  return false;
}

bool may_hand_out(Tx& tx, Session& session) {
  if (session.suspect_lease != 0) {
    const auto held = session.claims.find(session.suspect_lease);
    if (held != session.claims.end() && still_held(tx, session, held)) return false;
  }
  return !sources_of(tx, session).empty();
}

void hand_out(Tx& tx, Session& session, std::size_t count_max, std::size_t payload_bytes_max,
              std::vector<spi::Delivery>& out) {
  if (count_max == 0 || session.suspect_lease != 0) return;
  Budget budget{count_max, payload_bytes_max == 0 ? SIZE_MAX : payload_bytes_max, true};
  for (const Source& source : sources_of(tx, session)) {
    const std::size_t before = out.size();
    ClaimBuilder builder(tx, session, source, out);
    const bool more = take_returned(tx, session, source, budget, builder);
    if (more && budget.count > 0) {
      if (source.at->partitioned) {
        take_fresh_of_partitions(tx, session, source, budget, builder);
      } else {
        take_fresh(tx, source, budget, builder);
      }
    }
    builder.finish();
    if (out.size() > before) session.turn = source.turn + 1;
    if (!more || budget.count == 0) break;
  }
}

bool holds(Tx& tx, Session& session, const spi::Token& token) {
  if (session.ephemeral()) return true;
  const auto it = session.claims.find(static_cast<std::int64_t>(token.lease));
  if (it == session.claims.end() || !still_held(tx, session, it)) return false;
  return token.index < it->second.count && !it->second.is_settled(token.index);
}

bool settle(Tx& tx, Session& session, const spi::Settlement& settlement) {
  if (session.ephemeral()) return true;
  if (!holds(tx, session, settlement.token)) return false;
  Claim& claim = session.claims.find(static_cast<std::int64_t>(settlement.token.lease))->second;
  const std::uint32_t index = settlement.token.index;
  if (settlement.verb == spi::Verb::kRelease) return_entry(tx, claim, index, false, false);
  claim.mark_settled(index);
  --session.unsettled;
  tx.note_settled(claim);
  if (claim.remaining == 0 && session.suspect_lease == claim.lease) session.suspect_lease = 0;
  if (const auto log = tx.catalog.logs.find(claim.log_id); log != tx.catalog.logs.end()) {
    ++log->second->settled_count;
    log->second->busy = true;
    ++tx.settled_count;
    tx.note_read(*log->second);
  }
  left_hands(tx, claim, index);
  return true;
}

void flush_settled(Tx& tx) {
  for (Claim* claim : tx.settled) {
    update_claim(tx, *claim);
    claim->dirty = false;
    if (claim->remaining > 0) continue;
    const auto session = tx.catalog.sessions.find(claim->member_id);
    if (session != tx.catalog.sessions.end()) session->second->claims.erase(claim->lease);
  }
  tx.settled.clear();
}

void end_claim(Tx& tx, Session* session, Claim& claim, bool charged, bool suspect) {
  std::erase(tx.settled, &claim);
  for (std::uint32_t i = 0; i < claim.count; ++i) {
    if (claim.is_settled(i)) continue;
    return_entry(tx, claim, i, charged, suspect);
    left_hands(tx, claim, i);
  }
  if (session != nullptr) {
    tx.remember(claim);
    forget_claim(*session, claim);
  }
  const std::int64_t lease = claim.lease;
  claim.remaining = 0;
  update_claim(tx, claim);
  if (session != nullptr) session->claims.erase(lease);
}

void take_back_leases(Tx& tx, Session& session) {
  const auto session_before = tx.sessions_before.find(session.member_id);
  if (session_before != tx.sessions_before.end())
    static_cast<SessionLease&>(session) = session_before->second;
  for (const auto& [lease, claim] : session.claims)
    tx.remember(claim);
  session.claims.clear();
  session.unsettled = 0;
  session.suspect_lease = 0;
  for_each_claim(tx, [&](Claim&& claim) {
    if (claim.member_id != session.member_id) return;
    const auto before = tx.claims_before.find(claim.lease);
    const bool known = before != tx.claims_before.end() && before->second.member_id != 0;
    claim.lease_until = known ? before->second.lease_until : after(tx.now.monotonic, claim.lease_duration);
    claim.generation = tx.catalog.generation;
    session.unsettled += claim.remaining;
    for (const Entry& entry : claim.entries) {
      if (entry.suspect) session.suspect_lease = claim.lease;
    }
    const std::int64_t lease = claim.lease;
    session.claims.emplace(lease, std::move(claim));
  });
  for (const auto& [lease, before] : tx.claims_before) {
    if (before.member_id != session.member_id || session.claims.contains(lease)) continue;
    session.lost_leases.push_back(static_cast<std::uint64_t>(lease));  // another process has ended it
  }
}

std::unordered_map<std::int64_t, Seq> oldest_in_hand(Tx& tx) {
  std::unordered_map<std::int64_t, Seq> oldest;
  for_each_claim(tx, [&](Claim&& claim) {
    for (std::uint32_t i = 0; i < claim.count; ++i) {
      if (claim.is_settled(i)) continue;
      const Seq seq = claim.entry(i).seq;
      const auto [it, made] = oldest.try_emplace(claim.log_id, seq);
      if (!made) it->second = std::min(it->second, seq);
      if (claim.entries.empty()) break;
    }
  });
  return oldest;
}

}  // namespace towline::drivers::sqlite
