// Handing out and settling: the path that every message takes.
//
// A receive hands out what came back first, then what is new, log by log: higher priorities first, and among
// the topics of one priority in turn. What one receive takes from one log is one claim under one lease. In
// the usual case a claim is a range of the log with a count of what remains, and settling in order moves a
// number: no per-message state exists.
//
// A suspect (see queue_members.cpp) is handed out only to a session that holds nothing, and while it is held
// the session gets nothing else. A session whose turn has come to a suspect therefore waits until its hands
// are empty.

#include <algorithm>
#include <utility>

#include "drivers/memory/queue.hpp"

namespace towline::drivers::memory {

void Claim::mark_settled(std::uint32_t index) {
  --remaining;
  if (settled.empty() && index == settled_prefix) {
    ++settled_prefix;
    return;
  }
  if (settled.empty()) settled.resize(count);
  settled[index] = true;
}

/// What may still be handed out in this receive. The first message fits whatever its size, so that nothing
/// gets stuck.
struct Queue::Budget {
  std::size_t count = 0;
  std::size_t bytes = 0;
  bool heads_only = false;
  bool empty = true;

  [[nodiscard]] bool allows(const spi::Envelope& envelope) const noexcept {
    return count > 0 && (empty || envelope.payload.size() <= bytes);
  }
  void take(std::size_t taken, std::size_t taken_bytes) noexcept {
    count -= taken;
    bytes -= std::min(bytes, taken_bytes);
    empty = false;
  }
};

/// Makes one claim and its deliveries. A claim stays dense while the entries follow each other.
class Queue::ClaimBuilder {
 public:
  ClaimBuilder(Queue& queue, Session& session, const Source& source, std::vector<spi::Delivery>& out)
      : queue_(queue), session_(session), source_(source), out_(out) {
    claim_.lease = queue.lease_last_ + 1;
    claim_.at = source.group;
    claim_.reader = source.reader;
    sparse_ = source.group->partitioned;
  }

  [[nodiscard]] bool empty() const noexcept { return claim_.count == 0; }

  /// New entries, `count` of them from `first` on, all of one segment.
  void add_new(const Segment& segment, Sequence first, std::uint32_t count) {
    if (claim_.count == 0) claim_.first = first;
    if (sparse_ || claim_.first + claim_.count != first) {
      for (std::uint32_t i = 0; i < count; ++i)
        add(segment, first + i, {0, 0, false, false});
      return;
    }
    for (std::uint32_t i = 0; i < count; ++i)
      deliver(segment, first + i, {0, 0, false, false});
  }

  void add(const Segment& segment, Sequence sequence, const Returned& entry) {
    if (claim_.held.empty()) {
      claim_.held.reserve(claim_.count + 1);
      for (std::uint32_t i = 0; i < claim_.count; ++i)
        claim_.held.push_back({claim_.first + i, 0, 0, false});
      sparse_ = true;
    }
    const std::uint32_t partition = segment.envelopes[sequence - segment.first].partition;
    claim_.held.push_back({sequence, entry.crashes, partition, entry.suspect});
    if (entry.suspect) suspect_ = true;
    if (source_.group->partitioned) ++source_.group->partitions[partition].in_flight;
    deliver(segment, sequence, entry);
  }

  void finish(Moment now) {
    if (claim_.count == 0) return;
    ++queue_.lease_last_;
    claim_.remaining = claim_.count;
    claim_.lease_until = after(now.monotonic, session_.options.lease);
    queue_.next_end_ = std::min(queue_.next_end_, claim_.lease_until);
    source_.group->waiting -= claim_.count;
    source_.group->in_flight += claim_.count;
    session_.unsettled += claim_.count;
    if (suspect_) session_.suspect_lease = claim_.lease;
    session_.claims.emplace_hint(session_.claims.end(), claim_.lease, std::move(claim_));
  }

 private:
  void deliver(const Segment& segment, Sequence sequence, const Returned& entry) {
    const spi::Envelope& envelope = segment.envelopes[sequence - segment.first];
    spi::Delivery& delivery = out_.emplace_back();
    delivery.token = {claim_.lease, claim_.count++};
    delivery.envelope = std::shared_ptr<const spi::Envelope>(segment.batch, &envelope);
    delivery.crashes = envelope.crashes + entry.crashes;
    delivery.redelivered = entry.redelivered;
    if (source_.group->partitioned) delivery.epoch = source_.group->partitions[envelope.partition].epoch;
  }

  Queue& queue_;
  Session& session_;
  const Source& source_;
  std::vector<spi::Delivery>& out_;
  Claim claim_;
  bool sparse_ = false;
  bool suspect_ = false;
};

void Queue::hand_out(Session& session, const spi::ReceiveRequest& request, Moment now,
                     std::vector<spi::Delivery>& out) {
  const std::size_t count_max = request.count_max;
  if (count_max == 0 || session.suspect_lease != 0) return;
  const std::size_t bytes_max = request.payload_bytes_max;
  Budget budget{count_max, bytes_max == 0 ? SIZE_MAX : bytes_max, request.heads_only};
  if (session.ephemeral()) return hand_out_ephemeral(session, budget, now, out);
  sources_.clear();
  std::uint64_t waiting = 0;
  const std::size_t size = session.attachments.size();
  for (std::size_t k = 0; k < size; ++k) {
    const std::size_t index = session.turn + k < size ? session.turn + k : session.turn + k - size;
    GroupOnTopic& group = *session.attachments[index].group;
    if (group.waiting == 0) continue;
    waiting += group.waiting;
    for (auto& [priority, reader] : group.readers) {
      const bool nothing = !group.partitioned && reader.returned.empty() && reader.next >= reader.log->end;
      if (!nothing) sources_.push_back({&group, &reader, index});
    }
  }
  if (sources_.size() > 1) {
    std::stable_sort(sources_.begin(), sources_.end(), [](const Source& a, const Source& b) {
      return a.reader->log->priority > b.reader->log->priority;
    });
  }
  out.reserve(static_cast<std::size_t>(std::min<std::uint64_t>(count_max, waiting)));
  for (const Source& source : sources_) {
    const std::size_t before = out.size();
    const bool more = take(session, source, budget, now, out);
    if (out.size() > before) session.turn = source.attachment + 1 < size ? source.attachment + 1 : 0;
    if (!more || budget.count == 0) break;
  }
}

void Queue::hand_out_ephemeral(Session& session, Budget& budget, Moment now,
                               std::vector<spi::Delivery>& out) {
  const std::size_t size = session.attachments.size();
  const std::size_t turn = session.turn;
  for (std::size_t k = 0; k < size && budget.count > 0; ++k) {
    const std::size_t index = (turn + k) % size;
    Attachment& attachment = session.attachments[index];
    const std::size_t before = out.size();
    bool moved = false;
    for (auto& [priority, log] : attachment.topic->logs) {
      Sequence& position = attachment.positions[priority];
      const Sequence start = position;
      for (auto it = log.at_or_after(position); it != log.segments.end(); ++it) {
        const Segment& segment = it->second;
        for (position = std::max(position, segment.first); position < segment.end(); ++position) {
          const spi::Envelope& envelope = segment.envelopes[position - segment.first];
          if (!envelope.group.empty()) continue;
          if (!budget.allows(envelope)) break;
          budget.take(1, envelope.payload.size());
          spi::Delivery& delivery = out.emplace_back();
          delivery.envelope = std::shared_ptr<const spi::Envelope>(segment.batch, &envelope);
          delivery.crashes = envelope.crashes;
        }
        if (position < segment.end()) break;
      }
      if (position > start) moved = true;
    }
    if (out.size() > before) session.turn = (index + 1) % size;
    if (moved) trim_topic(*attachment.topic, now);
  }
}

bool Queue::take(Session& session, const Source& source, Budget& budget, Moment now,
                 std::vector<spi::Delivery>& out) {
  ClaimBuilder builder(*this, session, source, out);
  const bool more = take_returned(session, source, budget, builder);
  if (more && budget.count > 0) {
    if (budget.heads_only) {
      take_heads_ahead(session, source, budget, builder);
    } else if (source.group->partitioned) {
      take_fresh_of_partitions(session, source, budget, builder);
    } else {
      take_fresh(source, budget, builder);
    }
  }
  builder.finish(now);
  return more;
}

bool Queue::take_returned(const Session& session, const Source& source, Budget& budget,
                          ClaimBuilder& builder) {
  GroupOnTopic& group = *source.group;
  Log& log = *source.reader->log;
  auto& returned = source.reader->returned;
  for (auto it = returned.begin(); it != returned.end();) {
    const Returned& entry = it->second;
    if (group.partitioned) {
      const Ownership& partition = group.partitions[entry.partition];
      if (partition.owner != session.id || partition.revoking) {
        ++it;
        continue;
      }
    }
    const Segment& segment = *log.find(it->first);
    const spi::Envelope& envelope = segment.envelopes[it->first - segment.first];
    if (budget.heads_only && !envelope.heads_key) {
      ++it;
      continue;
    }
    const bool busy = session.unsettled > 0 || !budget.empty;
    if (entry.suspect && busy) return false;
    if (!budget.allows(envelope)) return false;
    budget.take(1, envelope.payload.size());
    const bool suspect = entry.suspect;
    builder.add(segment, it->first, entry);
    it = returned.erase(it);
    if (suspect) return false;
  }
  return true;
}

void Queue::take_fresh(const Source& source, Budget& budget, ClaimBuilder& builder) {
  Reader& reader = *source.reader;
  Log& log = *reader.log;
  for (auto it = log.at_or_after(reader.next); it != log.segments.end() && budget.count > 0; ++it) {
    const Segment& segment = it->second;
    reader.next = std::max(reader.next, segment.first);
    if (!segment.addressed && segment.payload_bytes <= budget.bytes) {
      const auto count =
          static_cast<std::uint32_t>(std::min<std::uint64_t>(segment.end() - reader.next, budget.count));
      builder.add_new(segment, reader.next, count);
      reader.next += count;
      budget.take(count, segment.payload_bytes);
      continue;
    }
    for (; reader.next < segment.end(); ++reader.next) {
      const spi::Envelope& envelope = segment.envelopes[reader.next - segment.first];
      if (!is_for(envelope, source.group->name)) continue;
      if (!budget.allows(envelope)) return;
      budget.take(1, envelope.payload.size());
      builder.add_new(segment, reader.next, 1);
    }
  }
}

void Queue::take_fresh_of_partitions(const Session& session, const Source& source, Budget& budget,
                                     ClaimBuilder& builder) {
  GroupOnTopic& group = *source.group;
  Reader& reader = *source.reader;
  Log& log = *reader.log;
  // Everything of these partitions before `from` was handed out. What is read once moves all of them on, so
  // they stay together, and only a partition that was just taken over is behind.
  Sequence from = log.end;
  mine_.assign(group.partitions.size(), 0);
  for (std::uint32_t p = 0; p < group.partitions.size(); ++p) {
    if (group.partitions[p].owner != session.id || group.partitions[p].revoking) continue;
    mine_[p] = 1;
    from = std::min(from, reader.partition_next[p]);
  }
  Sequence reached = from;
  bool full = false;
  for (auto it = log.at_or_after(from); it != log.segments.end() && !full; ++it) {
    const Segment& segment = it->second;
    for (reached = std::max(from, segment.first); reached < segment.end(); ++reached) {
      const spi::Envelope& envelope = segment.envelopes[reached - segment.first];
      if (mine_[envelope.partition] == 0 || reached < reader.partition_next[envelope.partition]) continue;
      if (!reader.ahead.empty() && reader.ahead.erase(reached) > 0) continue;
      if (!is_for(envelope, group.name)) continue;
      full = !budget.allows(envelope);
      if (full) break;
      budget.take(1, envelope.payload.size());
      builder.add(segment, reached, {0, 0, false, false});
    }
  }
  if (!full) reached = log.end;
  for (std::uint32_t p = 0; p < group.partitions.size(); ++p) {
    if (mine_[p] != 0) reader.partition_next[p] = std::max(reader.partition_next[p], reached);
  }
}

void Queue::take_heads_ahead(const Session& session, const Source& source, Budget& budget,
                             ClaimBuilder& builder) {
  GroupOnTopic& group = *source.group;
  if (!group.partitioned) return;  // without an order there are no heads
  Reader& reader = *source.reader;
  for (auto& [first, segment] : reader.log->segments) {
    if (!segment.addressed) continue;
    for (std::uint32_t i = 0; i < segment.count; ++i) {
      const spi::Envelope& envelope = segment.envelopes[i];
      if (!envelope.heads_key || envelope.group != group.name) continue;
      const Ownership& partition = group.partitions[envelope.partition];
      const bool mine = partition.owner == session.id && !partition.revoking;
      if (!mine || !is_unread(group, reader, first + i, envelope.partition)) continue;
      if (!budget.allows(envelope)) return;
      budget.take(1, envelope.payload.size());
      builder.add(segment, first + i, {0, envelope.partition, false, false});
      reader.ahead.insert(first + i);
    }
  }
}

bool Queue::holds(const Session& session, const spi::Token& token) const {
  if (session.ephemeral()) return true;
  const auto it = session.claims.find(token.lease);
  return it != session.claims.end() && token.index < it->second.count && !it->second.is_settled(token.index);
}

bool Queue::settle(Session& session, const spi::Settlement& settlement, Moment now) {
  if (session.ephemeral()) return true;
  const auto it = session.claims.find(settlement.token.lease);
  if (it == session.claims.end()) return false;
  Claim& claim = it->second;
  const std::uint32_t index = settlement.token.index;
  if (index >= claim.count || claim.is_settled(index)) return false;
  if (settlement.verb == spi::Verb::kRelease) {
    return_entry(session, claim, index, false, false);
    notify(*claim.at);
  } else {
    left_hands(session, claim, index);
  }
  claim.mark_settled(index);
  if (claim.remaining == 0) finish_claim(session, it, now);
  return true;
}

void Queue::left_hands(Session& session, const Claim& claim, std::uint32_t index) {
  GroupOnTopic& group = *claim.at;
  --session.unsettled;
  --group.in_flight;
  if (!group.partitioned) return;
  Ownership& partition = group.partitions[claim.held[index].partition];
  --partition.in_flight;
  if (partition.in_flight == 0 && (partition.revoking || partition.owner == 0)) mark_dirty(group);
}

void Queue::return_entry(Session& session, Claim& claim, std::uint32_t index, bool charged, bool suspect) {
  left_hands(session, claim, index);
  const Sequence sequence = claim.sequence_of(index);
  Segment* segment = claim.reader->log->find(sequence);
  if (segment == nullptr) return;  // a log or bus topic did not keep it so long
  // finish_claim() takes every entry of the claim off what is owed; this one is owed again.
  ++segment->unsettled;
  Returned entry;
  entry.partition = segment->envelopes[sequence - segment->first].partition;
  if (!claim.held.empty()) {
    entry.crashes = claim.held[index].crashes;
    entry.suspect = claim.held[index].suspect;
  }
  if (charged) ++entry.crashes;
  if (suspect) entry.suspect = true;
  claim.reader->returned[sequence] = entry;
  ++claim.at->waiting;
}

void Queue::end_claim(Session& session, std::map<std::uint64_t, Claim>::iterator it, bool charged,
                      bool suspect, Moment now) {
  Claim& claim = it->second;
  for (std::uint32_t i = 0; i < claim.count; ++i) {
    if (!claim.is_settled(i)) return_entry(session, claim, i, charged, suspect);
  }
  notify(*claim.at);
  finish_claim(session, it, now);
}

void Queue::finish_claim(Session& session, std::map<std::uint64_t, Claim>::iterator it, Moment now) {
  Claim& claim = it->second;
  Log& log = *claim.reader->log;
  if (claim.held.empty()) {
    const Sequence end = claim.first + claim.count;
    for (auto at = log.at_or_after(claim.first); at != log.segments.end() && at->first < end;) {
      Segment& segment = at->second;
      ++at;
      settle_in(log, segment, std::min(end, segment.end()) - std::max(claim.first, segment.first), now);
    }
  } else {
    Segment* segment = nullptr;
    std::uint64_t count = 0;
    for (const Held& held : claim.held) {
      if (segment == nullptr || held.sequence < segment->first || held.sequence >= segment->end()) {
        if (count > 0) settle_in(log, *segment, count, now);
        segment = log.find(held.sequence);
        count = 0;
      }
      if (segment != nullptr) ++count;
    }
    if (count > 0) settle_in(log, *segment, count, now);
  }
  if (session.suspect_lease == claim.lease) session.suspect_lease = 0;
  session.claims.erase(it);
}

}  // namespace towline::drivers::memory
