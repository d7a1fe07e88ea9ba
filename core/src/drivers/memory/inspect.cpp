// Walks over everything under the mutex; meant for small worlds.

#include "drivers/memory/inspect.hpp"

#include <algorithm>
#include <mutex>

#include "drivers/memory/provider.hpp"

namespace towline::drivers::memory {
namespace {

using Places = std::map<MessageId, std::vector<Place>>;

void add_kept(const Topic& topic, Places& places) {
  for (const auto& [priority, log] : topic.logs) {
    for (const auto& [first, segment] : log.segments) {
      for (std::uint32_t i = 0; i < segment.count; ++i) {
        const spi::Envelope& envelope = segment.envelopes[i];
        const bool nobodys = envelope.group.empty() ? topic.groups.empty()
                                                    : topic.groups.find(envelope.group) == topic.groups.end();
        if (nobodys) places[envelope.id].push_back({PlaceKind::kKept, topic.topology.topic, envelope.group});
      }
    }
  }
}

void add_waiting(const GroupOnTopic& group, Places& places) {
  for (const auto& [priority, reader] : group.readers) {
    for (const auto& [first, segment] : reader.log->segments) {
      for (std::uint32_t i = 0; i < segment.count; ++i) {
        const spi::Envelope& envelope = segment.envelopes[i];
        const bool unread =
            is_unread(group, reader, first + i, envelope.partition) && is_for(envelope, group.name);
        if (!unread && !reader.returned.contains(first + i)) continue;
        places[envelope.id].push_back({PlaceKind::kWaiting, group.topic->topology.topic, group.name});
      }
    }
  }
}

void add_in_flight(const Session& session, Places& places) {
  for (const auto& [lease, claim] : session.claims) {
    for (std::uint32_t i = 0; i < claim.count; ++i) {
      if (claim.is_settled(i)) continue;
      const Sequence sequence = claim.sequence_of(i);
      const Segment* segment = claim.reader->log->find(sequence);
      if (segment == nullptr) continue;
      places[segment->envelopes[sequence - segment->first].id].push_back(
          {PlaceKind::kInFlight, claim.at->topic->topology.topic, claim.at->name});
    }
  }
}

}  // namespace

std::optional<Places> inspect(const spi::Transport& transport) {
  const auto* of_memory = dynamic_cast<const MemoryTransport*>(&transport);
  if (of_memory == nullptr) return std::nullopt;
  Hub& hub = of_memory->hub();
  const std::lock_guard lock(hub.mutex);
  Places places;
  for (const auto& [name, topic] : hub.queue.topics()) {
    add_kept(topic, places);
    for (const auto& [group_name, group] : topic.groups)
      add_waiting(group, places);
  }
  for (const auto& [id, session] : hub.queue.sessions())
    add_in_flight(*session, places);
  hub.schedule.each([&](const spi::ScheduleRecord& record) {
    const PlaceKind kind = record.parked ? PlaceKind::kParked : PlaceKind::kScheduled;
    places[record.envelope.id].push_back({kind, record.envelope.topic, record.envelope.group});
  });
  hub.dead_letters.each([&](const DeadLetter& letter) {
    places[letter.message_id].push_back({PlaceKind::kDeadLetter, letter.topic, letter.group});
  });
  for (auto& [id, list] : places)
    std::sort(list.begin(), list.end());
  return places;
}

}  // namespace towline::drivers::memory
