// Subscriptions: joining groups, staying alive, leaving, and dying.
//
// A session that closes hands everything back and is gone. One that is merely dropped behaves like a process
// that died: it stays until its leases end by the clock. When a lease ends with one message in the session's
// hands, this message is charged with the death; with several nobody knows which it was, so none is charged
// and all become suspects, which are handed out alone from then on.

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/topology.hpp"
#include "drivers/memory/queue.hpp"

namespace towline::drivers::memory {
namespace {

// Leases that a session lost and never asked about.
constexpr std::size_t kLostLeaseCountMax = 10'000;

/// Where a group that is new to the log begins.
Sequence start_in(const Log& log, const spi::StartPosition& start) {
  using Kind = spi::StartPosition::Kind;
  if (log.topic->topology.kind == spi::TopicKind::kBus || start.kind == Kind::kLatest) return log.end;
  if (start.kind == Kind::kEarliest) return 0;
  // Ids grow with time, so where the id itself is not kept in this log the first greater one comes after it.
  Sequence greater = log.end;
  for (const auto& [first, segment] : log.segments) {
    for (std::uint32_t i = 0; i < segment.count; ++i) {
      const spi::Envelope& envelope = segment.envelopes[i];
      if (!envelope.group.empty()) continue;
      if (start.kind == Kind::kAtTime) {
        if (envelope.published_at >= start.at) return first + i;
      } else if (envelope.id == start.after_id) {
        return first + i + 1;
      } else if (envelope.id > start.after_id) {
        greater = std::min(greater, first + i);
      }
    }
  }
  return greater;
}

}  // namespace

Result<void> Queue::check_order(const spi::SubscribeOptions& options) const {
  if (options.group.empty()) return {};
  for (const auto& [id, session] : sessions_) {
    if (!session->live) continue;
    if (auto clash = base::check_same_order(session->options, options); !clash) return clash;
  }
  return {};
}

Session& Queue::join(const spi::SubscribeOptions& options, Moment now) {
  auto made = std::make_unique<Session>();
  Session& session = *made;
  session.id = ++session_last_;
  session.options = options;
  std::sort(session.options.partitions.begin(), session.options.partitions.end());
  sessions_.emplace(session.id, std::move(made));
  (void)touch(session, now);  // it was checked
  if (!session.ephemeral()) {
    for (const std::string& pattern : options.patterns) {
      if (interests_[options.group].insert(pattern).second) meter_.used += pattern.size();
    }
  }
  for (auto& [name, topic] : topics_) {
    if (session.options.matches(name)) attach(session, topic);
  }
  deal_partitions();
  return session;
}

void Queue::attach(Session& session, Topic& topic) {
  Attachment attachment;
  attachment.topic = &topic;
  if (session.ephemeral()) {
    for (const auto& [priority, log] : topic.logs)
      attachment.positions[priority] = log.end;
    topic.ephemerals.push_back({&session, session.attachments.size()});
    session.attachments.push_back(std::move(attachment));
    return;
  }
  GroupOnTopic& group = add_group(topic, session.options.group, session.options.start);
  group.members.push_back(&session);
  if (session.ordered() && !group.partitioned) make_partitioned(group);
  mark_dirty(group);
  attachment.group = &group;
  session.attachments.push_back(std::move(attachment));
}

GroupOnTopic& Queue::add_group(Topic& topic, const std::string& name, const spi::StartPosition& start) {
  const auto [it, made] = topic.groups.try_emplace(name);
  GroupOnTopic& group = it->second;
  if (!made) return group;
  group.name = name;
  group.topic = &topic;
  meter_.used += sizeof(GroupOnTopic);
  for (auto& [priority, log] : topic.logs) {
    Reader& reader = group.readers[priority];
    reader.log = &log;
    start_reader(group, reader, start);
  }
  return group;
}

void Queue::start_reader(GroupOnTopic& group, Reader& reader, const spi::StartPosition& start) {
  Log& log = *reader.log;
  reader.next = start_in(log, start);
  for (auto& [first, segment] : log.segments) {
    const Sequence from = std::min(std::max(reader.next, first), segment.end());
    if (!segment.addressed) {
      segment.unsettled += segment.end() - from;
      group.waiting += segment.end() - from;
    } else {
      for (Sequence sequence = first; sequence < segment.end(); ++sequence) {
        const spi::Envelope& envelope = segment.envelopes[sequence - first];
        if (!is_for(envelope, group.name)) continue;
        const bool mine = !envelope.group.empty();
        if (!mine && sequence < from) continue;
        ++group.waiting;
        if (!mine) ++segment.unsettled;
        // What was addressed to this group is not passed over, wherever it starts.
        if (sequence < from) reader.returned[sequence] = {0, envelope.partition, false, false};
      }
    }
    if (segment.unsettled == 0) log.idle.insert(first);
  }
}

void Queue::make_partitioned(GroupOnTopic& group) {
  group.partitioned = true;
  group.partitions.resize(group.topic->topology.partition_count);
  for (auto& [priority, reader] : group.readers)
    reader.partition_next.assign(group.partitions.size(), reader.next);
  for (Session* member : group.members) {
    for (auto& [lease, claim] : member->claims) {
      if (claim.at != &group) continue;
      if (claim.held.empty()) {
        claim.held.resize(claim.count);
        for (std::uint32_t i = 0; i < claim.count; ++i)
          claim.held[i].sequence = claim.first + i;
      }
      for (std::uint32_t i = 0; i < claim.count; ++i) {
        Held& held = claim.held[i];
        const Segment* segment = claim.reader->log->find(held.sequence);
        if (segment != nullptr) held.partition = segment->envelopes[held.sequence - segment->first].partition;
        if (!claim.is_settled(i)) ++group.partitions[held.partition].in_flight;
      }
    }
  }
}

Result<void> Queue::touch(Session& session, Moment now) {
  if (!session.live) {
    // While it was taken for dead, one that keeps another order may have come.
    if (auto clash = check_order(session.options); !clash) return clash;
  }
  session.lost_count = 0;
  session.lease_until = after(now.monotonic, session.options.lease);
  next_end_ = std::min(next_end_, session.lease_until);
  if (session.live) return {};
  session.live = true;
  for (const Attachment& attachment : session.attachments) {
    if (attachment.group != nullptr) mark_dirty(*attachment.group);
  }
  return {};
}

Result<std::vector<std::uint64_t>> Queue::renew(Session& session, Moment now) {
  if (auto clash = touch(session, now); !clash) {
    if (session.lost_leases.empty()) return std::move(clash).error();
    return std::exchange(session.lost_leases, {});
  }
  for (auto& [lease, claim] : session.claims)
    claim.lease_until = session.lease_until;
  deal_partitions();
  return std::exchange(session.lost_leases, {});
}

void Queue::detach(Session& session, Moment now) {
  for (const Attachment& attachment : session.attachments) {
    if (attachment.group == nullptr) {
      auto& listeners = attachment.topic->ephemerals;
      std::erase_if(listeners, [&](const Listener& l) { return l.session == &session; });
      trim_topic(*attachment.topic, now);
      continue;
    }
    std::erase(attachment.group->members, &session);
    mark_dirty(*attachment.group);
    leave_if_nobody_is_left(*attachment.group, now);
  }
}

void Queue::leave(Session& session, Moment now) {
  while (!session.claims.empty())
    end_claim(session, session.claims.begin(), false, false, now);
  detach(session, now);
  deal_partitions();
  sessions_.erase(session.id);
}

void Queue::abandon(Session& session) {
  session.dropped = true;
  // They may refer to what the subscriber has destroyed.
  session.options.matches = nullptr;
}

void Queue::leave_if_nobody_is_left(GroupOnTopic& group, Moment now) {
  if (group.topic->topology.kind != spi::TopicKind::kBus) return;
  const bool anybody = std::any_of(group.members.begin(), group.members.end(),
                                   [](const Session* member) { return member->live; });
  if (!anybody) forget_backlog(group, now);
}

void Queue::forget_backlog(GroupOnTopic& group, Moment now) {
  for (auto& [priority, reader] : group.readers) {
    Log& log = *reader.log;
    for (auto it = reader.returned.begin(); it != reader.returned.end(); it = reader.returned.erase(it)) {
      if (Segment* segment = log.find(it->first)) settle_in(log, *segment, 1, now);
    }
    for (auto it = log.at_or_after(group.partitioned ? 0 : reader.next); it != log.segments.end();) {
      Segment& segment = it->second;
      ++it;
      std::uint64_t unread = 0;
      for (Sequence sequence = segment.first; sequence < segment.end(); ++sequence) {
        const spi::Envelope& envelope = segment.envelopes[sequence - segment.first];
        const bool mine = is_for(envelope, group.name);
        if (mine && is_unread(group, reader, sequence, envelope.partition)) ++unread;
      }
      if (unread > 0) settle_in(log, segment, unread, now);
    }
    reader.next = log.end;
    reader.partition_next.assign(group.partitions.size(), log.end);
    reader.ahead.clear();
  }
  group.waiting = 0;
}

void Queue::expire_session(Session& session, Moment now) {
  std::uint64_t ended_count = 0;
  for (const auto& [lease, claim] : session.claims) {
    if (claim.lease_until <= now.monotonic) ended_count += claim.remaining;
  }
  if (ended_count > 0) {
    const bool charged = session.unsettled + session.lost_count == 1;
    session.lost_count += ended_count;
    for (auto it = session.claims.begin(); it != session.claims.end();) {
      const auto claim = it++;
      if (claim->second.lease_until > now.monotonic) continue;
      if (!session.dropped && session.lost_leases.size() < kLostLeaseCountMax) {
        session.lost_leases.push_back(claim->first);
      }
      end_claim(session, claim, charged, true, now);
    }
  }
  if (!session.live || session.lease_until > now.monotonic) return;
  session.live = false;
  for (const Attachment& attachment : session.attachments) {
    if (attachment.group == nullptr) continue;
    mark_dirty(*attachment.group);
    leave_if_nobody_is_left(*attachment.group, now);
  }
}

void Queue::expire(Moment now) {
  if (now.monotonic >= next_end_) {
    next_end_ = MonotonicTime::max();
    for (auto it = sessions_.begin(); it != sessions_.end();) {
      Session& session = *it->second;
      expire_session(session, now);
      if (session.dropped && !session.live && session.claims.empty()) {
        detach(session, now);
        it = sessions_.erase(it);
        continue;
      }
      if (session.live) next_end_ = std::min(next_end_, session.lease_until);
      for (const auto& [lease, claim] : session.claims)
        next_end_ = std::min(next_end_, claim.lease_until);
      ++it;
    }
  }
  deal_partitions();
}

void Queue::notify(Session& session) {
  if (session.waiting) session.changed.notify_all();
}

void Queue::notify(const GroupOnTopic& group) {
  for (Session* member : group.members)
    notify(*member);
}

}  // namespace towline::drivers::memory
