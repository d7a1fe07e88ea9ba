// Topics and logs: how messages come in, and when they go.
//
// A message goes when its segment is owed to nobody (every group has settled it) and nothing else keeps it:
// the retention of the topic, or a live ephemeral subscriber that has yet to see it. Settling drops a segment
// at once where that is all there is to ask; what has to wait is remembered in Log::idle and dropped by
// trim(). Log topics and bus topics also drop what is still owed: by age, and for a bus by number.

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/topic_match.hpp"
#include "base/topology.hpp"
#include "drivers/memory/queue.hpp"

namespace towline::drivers::memory {
namespace {

constexpr Duration kBusAge = std::chrono::seconds(10);
constexpr std::uint64_t kBusCount = 10'000;

bool same_log(const spi::Envelope& a, const spi::Envelope& b) noexcept {
  return a.priority == b.priority && a.topic == b.topic;
}

std::uint64_t dynamic_size(const Headers& headers) noexcept {
  std::uint64_t size = 0;
  for (const auto& [name, value] : headers)
    size += sizeof(Headers::value_type) + name.size() + value.size();
  return size;
}

bool older_than(const Segment& segment, Duration age, Moment now) noexcept {
  return now.wall - segment.appended_at >= age;
}

bool far_behind(const Log& log, const Segment& segment) noexcept {
  return log.end - segment.end() >= kBusCount;
}

bool has_live_member(const GroupOnTopic& group) noexcept {
  return std::any_of(group.members.begin(), group.members.end(), [](const Session* s) { return s->live; });
}

}  // namespace

std::uint64_t size_of(const spi::Envelope& envelope) noexcept {
  std::uint64_t size = sizeof(spi::Envelope) + envelope.payload.size() + envelope.topic.size();
  if (envelope.key) size += envelope.key->size();
  if (!envelope.headers.empty()) size += dynamic_size(envelope.headers);
  for (const spi::Failure& failure : envelope.history) {
    size += sizeof(failure) + failure.error_type.size() + failure.error_message.size();
  }
  return size + envelope.content_type.size() + envelope.correlation_id.size() + envelope.causation_id.size() +
         envelope.traceparent.size() + envelope.dedup_id.size();
}

Segment* Log::find(Sequence sequence) noexcept {
  auto it = segments.upper_bound(sequence);
  if (it == segments.begin()) return nullptr;
  --it;
  return sequence < it->second.end() ? &it->second : nullptr;
}

std::map<Sequence, Segment>::iterator Log::at_or_after(Sequence sequence) noexcept {
  auto it = segments.upper_bound(sequence);
  if (it == segments.begin()) return it;
  auto before = std::prev(it);
  return sequence < before->second.end() ? before : it;
}

Result<void> Queue::declare(const spi::Topology& topology) {
  if (auto bad = base::check_topology(topology); !bad) return bad;
  const Topic* known = find_topic(topology.topic);
  if (known == nullptr) {
    topic(topology.topic, topology.partition_count).topology = topology;
    return {};
  }
  return base::check_same_topology(known->topology, topology);
}

const Topic* Queue::find_topic(std::string_view name) const {
  const auto it = topics_.find(name);
  return it == topics_.end() ? nullptr : &it->second;
}

Topic& Queue::topic(std::string_view name, std::uint32_t partition_count) {
  if (const auto it = topics_.find(name); it != topics_.end()) return it->second;
  Topic& made = topics_[std::string(name)];
  made.topology.topic = name;
  made.topology.partition_count = partition_count;
  meter_.used += sizeof(Topic) + name.size();
  for (const auto& [group, patterns] : interests_) {
    const bool wants = std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
      return base::pattern_matches(pattern, name);
    });
    if (wants) add_group(made, group, {});
  }
  for (auto& [id, session] : sessions_) {
    if (!session->dropped && session->options.matches(name)) attach(*session, made);
  }
  return made;
}

Log& Queue::log(Topic& topic, std::uint8_t priority) {
  const auto [it, made] = topic.logs.try_emplace(priority);
  Log& log = it->second;
  if (!made) return log;
  log.topic = &topic;
  log.priority = priority;
  log.ordinal = ++log_last_;
  for (auto& [name, group] : topic.groups) {
    Reader& reader = group.readers[priority];
    reader.log = &log;
    reader.partition_next.assign(group.partitions.size(), 0);
  }
  return log;
}

std::uint32_t Queue::partition_count(std::string_view name) const {
  const Topic* known = find_topic(name);
  return known != nullptr ? known->topology.partition_count : spi::Topology{}.partition_count;
}

void Queue::append(std::vector<spi::Envelope>&& envelopes, Moment now) {
  if (envelopes.empty()) return;
  bool mixed = false;
  for (std::size_t i = 1; i < envelopes.size() && !mixed; ++i)
    mixed = !same_log(envelopes[0], envelopes[i]);
  std::vector<std::pair<Log*, std::size_t>> order;
  auto batch = std::make_shared<Batch>();
  if (!mixed) {
    order.emplace_back(&log(topic(envelopes[0].topic), envelopes[0].priority), 0);
    batch->envelopes = std::move(envelopes);
  } else {
    order.reserve(envelopes.size());
    for (std::size_t i = 0; i < envelopes.size(); ++i) {
      const bool again = i > 0 && same_log(envelopes[i - 1], envelopes[i]);
      order.emplace_back(again ? order.back().first : &log(topic(envelopes[i].topic), envelopes[i].priority),
                         i);
    }
    std::stable_sort(order.begin(), order.end(),
                     [](const auto& a, const auto& b) { return a.first->ordinal < b.first->ordinal; });
    batch->envelopes.reserve(envelopes.size());
    for (const auto& [log, index] : order)
      batch->envelopes.push_back(std::move(envelopes[index]));
  }
  for (std::size_t from = 0; from < batch->envelopes.size();) {
    Log& log = *order[mixed ? from : 0].first;
    std::size_t end = mixed ? from : batch->envelopes.size();
    while (end < order.size() && order[end].first == &log)
      ++end;
    append_run(log, batch, from, end - from, now);
    from = end;
  }
}

void Queue::append_run(Log& log, const std::shared_ptr<const Batch>& batch, std::size_t from,
                       std::size_t count, Moment now) {
  Topic& topic = *log.topic;
  Segment segment;
  segment.first = log.end;
  segment.count = static_cast<std::uint32_t>(count);
  segment.batch = batch;
  segment.envelopes = &batch->envelopes[from];
  segment.appended_at = now.wall;
  std::uint64_t addressed_count = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const spi::Envelope& envelope = segment.envelopes[i];
    segment.bytes += size_of(envelope);
    segment.payload_bytes += envelope.payload.size();
    if (!envelope.group.empty()) ++addressed_count;
  }
  segment.addressed = addressed_count > 0;
  log.end += count;
  meter_.used += segment.bytes;
  count_for_groups(log, segment, addressed_count);
  const bool owed = segment.unsettled > 0;
  const Sequence first = segment.first;
  log.segments.emplace_hint(log.segments.end(), first, std::move(segment));
  for (const Listener& listener : topic.ephemerals)
    notify(*listener.session);
  const bool bus = topic.topology.kind == spi::TopicKind::kBus;
  if (bus && !owed) log.idle.insert(first);
  if (bus || topic.topology.retention > Duration(0) || !topic.ephemerals.empty()) trim_topic(topic, now);
}

void Queue::count_for_groups(Log& log, Segment& segment, std::uint64_t addressed_count) {
  Topic& topic = *log.topic;
  const bool bus = topic.topology.kind == spi::TopicKind::kBus;
  // What is addressed to a group is kept for it even when it has not come yet; a bus keeps nothing for the
  // absent.
  if (!bus) segment.unsettled += addressed_count;
  for (auto& [name, group] : topic.groups) {
    if (bus && !has_live_member(group)) {
      Reader& reader = group.readers[log.priority];
      reader.next = log.end;
      reader.partition_next.assign(group.partitions.size(), log.end);
      continue;
    }
    std::uint64_t mine = 0;
    for (std::uint32_t i = 0; addressed_count > 0 && i < segment.count; ++i) {
      if (segment.envelopes[i].group == name) ++mine;
    }
    const std::uint64_t shared = segment.count - addressed_count;
    segment.unsettled += shared + (bus ? mine : 0);
    group.waiting += shared + mine;
    if (shared + mine > 0) notify(group);
  }
}

void Queue::settle_in(Log& log, Segment& segment, std::uint64_t count, Moment now) {
  segment.unsettled -= count;
  if (segment.unsettled > 0) return;
  if (may_drop(log, segment, now)) {
    drop(log, segment.first);
  } else {
    log.idle.insert(segment.first);
  }
}

bool Queue::must_drop(const Log& log, const Segment& segment, Moment now) const {
  const spi::Topology& topology = log.topic->topology;
  switch (topology.kind) {
    case spi::TopicKind::kQueue:
      return false;
    case spi::TopicKind::kLog:
      return topology.retention > Duration(0) && older_than(segment, topology.retention, now);
    case spi::TopicKind::kBus:
      return older_than(segment, kBusAge, now) || far_behind(log, segment);
  }
  return false;
}

bool Queue::may_drop(const Log& log, const Segment& segment, Moment now) const {
  const Topic& topic = *log.topic;
  if (segment.unsettled > 0) return false;
  if (topic.topology.kind != spi::TopicKind::kBus) {
    if (topic.groups.empty()) return false;
    if (topic.topology.retention > Duration(0) && !older_than(segment, topic.topology.retention, now))
      return false;
  }
  for (const Listener& listener : topic.ephemerals) {
    if (!listener.session->live) continue;
    const auto& positions = listener.session->attachments[listener.attachment].positions;
    const auto position = positions.find(log.priority);
    const bool behind = position == positions.end() || position->second < segment.end();
    if (behind && !older_than(segment, kBusAge, now) && !far_behind(log, segment)) return false;
  }
  return true;
}

void Queue::drop(Log& log, Sequence first) {
  const auto it = log.segments.find(first);
  const Segment& segment = it->second;
  const Sequence end = segment.end();
  for (auto& [name, group] : log.topic->groups) {
    Reader& reader = group.readers[log.priority];
    const auto forget_ahead = [&] {
      reader.ahead.erase(reader.ahead.lower_bound(first), reader.ahead.lower_bound(end));
    };
    if (segment.unsettled == 0) {
      forget_ahead();
      continue;
    }
    for (auto returned = reader.returned.lower_bound(first);
         returned != reader.returned.end() && returned->first < end;) {
      returned = reader.returned.erase(returned);
      --group.waiting;
    }
    for (Sequence sequence = first; sequence < end; ++sequence) {
      const spi::Envelope& envelope = segment.envelopes[sequence - first];
      if (is_unread(group, reader, sequence, envelope.partition) && is_for(envelope, name)) --group.waiting;
    }
    forget_ahead();
    reader.next = std::max(reader.next, end);
    for (Sequence& next : reader.partition_next)
      next = std::max(next, end);
  }
  meter_.used -= segment.bytes;
  log.idle.erase(first);
  log.segments.erase(it);
}

std::uint64_t Queue::trim_log(Log& log, Moment now, std::size_t count_max) {
  std::uint64_t dropped = 0;
  while (dropped < count_max && !log.segments.empty() && must_drop(log, log.segments.begin()->second, now)) {
    dropped += log.segments.begin()->second.count;
    drop(log, log.segments.begin()->first);
  }
  // In order of age: what may not go yet keeps what came after it.
  for (auto it = log.idle.begin(); dropped < count_max && it != log.idle.end();) {
    const Segment& segment = log.segments.find(*it)->second;
    if (segment.unsettled > 0) {
      it = log.idle.erase(it);  // a group has come since
      continue;
    }
    if (!may_drop(log, segment, now)) break;
    ++it;
    dropped += segment.count;
    drop(log, segment.first);
  }
  return dropped;
}

void Queue::trim_topic(Topic& topic, Moment now) {
  for (auto& [priority, log] : topic.logs)
    (void)trim_log(log, now, SIZE_MAX);
}

std::uint64_t Queue::trim(Moment now, std::size_t count_max, bool& more) {
  std::uint64_t dropped = 0;
  for (auto& [name, topic] : topics_) {
    for (auto& [priority, log] : topic.logs) {
      if (dropped >= count_max) {
        more = true;
        return dropped;
      }
      dropped += trim_log(log, now, count_max - dropped);
    }
  }
  if (dropped >= count_max) more = true;
  return dropped;
}

std::vector<spi::GroupStatistics> Queue::statistics() const {
  std::vector<spi::GroupStatistics> all;
  for (const auto& [topic_name, topic] : topics_) {
    for (const auto& [name, group] : topic.groups) {
      spi::GroupStatistics one;
      one.topic = topic_name;
      one.group = name;
      one.waiting = group.waiting;
      one.in_flight = group.in_flight;
      one.member_count = static_cast<std::uint32_t>(std::count_if(group.members.begin(), group.members.end(),
                                                                  [](const Session* s) { return s->live; }));
      all.push_back(std::move(one));
    }
  }
  return all;
}

}  // namespace towline::drivers::memory
