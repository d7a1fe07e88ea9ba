// Looking at the store from outside, past all faults: is everything done, is every message in one place, are
// the limits kept.

#include <algorithm>
#include <utility>

#include "simulation/world.hpp"

namespace towline::simulation {
namespace {

using drivers::memory::PlaceKind;

std::vector<DeadLetter> all_dead_letters(spi::Store& store, std::optional<DeadLetterStatus> status) {
  std::vector<DeadLetter> all;
  DeadLetterQuery query;
  query.status = status;
  query.count_max = 1000;
  do {
    auto page = store.list_dead_letters(query);
    if (!page.ok()) break;
    std::move(page->items.begin(), page->items.end(), std::back_inserter(all));
    query.cursor = page->cursor;
  } while (!query.cursor.empty());
  return all;
}

EndPlace end_place(PlaceKind kind) {
  switch (kind) {
    case PlaceKind::kKept:
    case PlaceKind::kWaiting:
      return EndPlace::kWaiting;
    case PlaceKind::kInFlight:
      return EndPlace::kInFlight;
    case PlaceKind::kScheduled:
      return EndPlace::kScheduled;
    case PlaceKind::kParked:
      return EndPlace::kParked;
    case PlaceKind::kDeadLetter:
      return EndPlace::kDeadLetter;
  }
  return EndPlace::kWaiting;
}

const char* name_of(PlaceKind kind) {
  switch (kind) {
    case PlaceKind::kKept:
      return "kept";
    case PlaceKind::kWaiting:
      return "waiting";
    case PlaceKind::kInFlight:
      return "in flight";
    case PlaceKind::kScheduled:
      return "scheduled";
    case PlaceKind::kParked:
      return "parked";
    case PlaceKind::kDeadLetter:
      return "dead letter";
  }
  return "?";
}

}  // namespace

bool World::is_quiet(std::string* why) {
  const auto no = [&](std::string reason) {
    if (why != nullptr) *why = std::move(reason);
    return false;
  };
  if (!running_.empty()) return no(std::to_string(running_.size()) + " handlers run");
  if (!saga_running_.empty()) return no(std::to_string(saga_running_.size()) + " steps of sagas run");
  auto groups = bench_.transport->statistics();
  auto stored = bench_.store->statistics();
  if (!groups.ok() || !stored.ok()) return no("the store does not answer");
  for (const spi::GroupStatistics& group : *groups) {
    if (group.waiting == 0 && group.in_flight == 0) continue;
    std::string held;
    for (const Process& process : processes_) {
      if (!process.life) continue;
      const auto count = process.life->core->context().counters.in_flight_count.load();
      held += ", p" + std::to_string(process.index) + " counts " + std::to_string(count);
    }
    return no(group.topic + "/" + group.group + " has " + std::to_string(group.waiting) + " waiting and " +
              std::to_string(group.in_flight) + " in flight, " + std::to_string(group.member_count) +
              " members" + held);
  }
  if (std::string behind; !are_followers_done(&behind)) return no(behind);
  if (stored->scheduled > 0)
    return no(std::to_string(stored->scheduled) + " records wait for their due time");
  if (stored->parked > 0)
    return no(std::to_string(stored->parked) + " records are parked" + blocks_in_words());
  for (const Process& process : processes_) {
    if (!process.life) return no("a process is down");
    for (const auto& slot : process.life->slots) {
      if (!slot->consumer) return no("a consumer could not subscribe");
      if (!slot->consumer->idle()) return no("a consumer believes that it holds something");
    }
    for (const auto& slot : process.life->saga_slots) {
      if (!slot->runner) return no("a runner of sagas could not begin");
      if (!slot->consumer->idle() || slot->runner->busy()) return no("a runner of sagas has one in hand");
    }
    if (process.life->service &&
        (!process.life->service->consumer || !process.life->service->consumer->idle()))
      return no("the service of the sagas' commands is not idle");
    if (process.life->core->context().counters.in_flight_count.load() != 0)
      return no("an engine counts something in flight");
  }
  for (const Client& client : clients_) {
    if (client.holds) return no("a client holds an idempotency key");
  }
  return true;
}

std::string World::blocks_in_words() const {
  std::string text;
  for (std::uint32_t g = 0; g < plan_.groups.size(); ++g) {
    for (const std::uint32_t topic : plan_.groups[g].topics) {
      auto blocks = bench_.store->list_key_blocks(group_name(g), topic_name(topic), std::nullopt);
      if (!blocks.ok()) continue;
      for (const spi::KeyBlock& block : *blocks) {
        const auto head = numbers_.find(block.head);
        text += ", " + block.topic + "/" + block.group + " key " + block.key + " waits for m" +
                (head == numbers_.end() ? "?" : std::to_string(head->second)) + " with " +
                std::to_string(block.parked_count) + " behind it" + (block.held ? ", held" : "");
      }
    }
  }
  return text;
}

Places World::places() const {
  Places all;
  for (const spi::Transport* transport : {bench_.transport.get(), beside_records_.get()}) {
    if (transport == nullptr) continue;
    const auto found = drivers::memory::inspect(*transport);
    if (!found) continue;
    for (const auto& [id, list] : *found)
      std::copy(list.begin(), list.end(), std::back_inserter(all[id]));
  }
  return all;
}

void World::look() { check_places(false); }

void World::check_places(bool at_end) {
  // Between two systems a message may be in both for a while, and what a fault made two of remains two.
  if (plan_.world == WorldKind::kSplit && (!at_end || facts_.may_copy)) return;
  if (plan_.world == WorldKind::kSqlite) return;
  std::map<std::pair<MessageId, std::string>, std::string> found;
  const auto put = [&](const MessageId& id, const std::string& group, const char* place) {
    std::string& known = found[{id, group}];
    if (!known.empty()) {
      const auto number = numbers_.find(id);
      violate("K6", "m" + (number == numbers_.end() ? "?" : std::to_string(number->second)) + "/" + group +
                        " is " + known + " and " + place);
    }
    known = place;
  };
  for (const auto& [id, list] : places()) {
    if (!numbers_.contains(id)) continue;  // of a saga: it may wait for its next wake while it is woken
    for (const drivers::memory::Place& place : list) {
      if (place.kind == PlaceKind::kDeadLetter) continue;
      if (!place.group.empty()) {
        put(id, place.group, name_of(place.kind));
        continue;
      }
      for (std::uint32_t g = 0; g < plan_.groups.size(); ++g)
        put(id, group_name(g), name_of(place.kind));
    }
  }
  for (const DeadLetter& letter : all_dead_letters(*bench_.store, DeadLetterStatus::kPending)) {
    if (is_of_messages(letter.group)) put(letter.message_id, letter.group, "a pending dead letter");
  }
  if (!violations_.empty() && ending_ == Ending::kClean) ending_ = Ending::kUnsafe;
}

void World::check_limits() {
  for (const Process& process : processes_) {
    if (!process.life) continue;
    const auto in_flight = static_cast<std::int64_t>(
        process.life->core->context().counters.in_flight_count.load(std::memory_order_relaxed));
    if (in_flight > plan_.engine.in_flight_count_max) {
      violate("K10", "an engine holds " + std::to_string(in_flight) + " deliveries, its limit is " +
                         std::to_string(plan_.engine.in_flight_count_max));
      ending_ = Ending::kUnsafe;
    }
    for (const auto& slot : process.life->slots) {
      const ConsumerOptions& options = plan_.groups[slot->group].options;
      if (!slot->consumer || options.prefetch_count == 0 || slot->concurrency != options.concurrency)
        continue;
      const ConsumerStatistics statistics = slot->consumer->statistics();
      const auto limit = static_cast<std::uint64_t>(options.concurrency + options.prefetch_count);
      if (statistics.in_flight <= limit) continue;
      // After the operator has lowered the limit what is in flight stays for a while.
      if (plan_.operator_active) continue;
      violate("K10", "a consumer holds " + std::to_string(statistics.in_flight) +
                         " deliveries, its limit is " + std::to_string(limit));
      ending_ = Ending::kUnsafe;
    }
  }
}

FinalState World::survey() {
  FinalState end;
  if (bench_.store == nullptr) return end;  // the store could not be opened any more
  if (ending_ == Ending::kClean) check_places(true);
  for (const auto& [id, list] : places()) {
    const auto number = numbers_.find(id);
    if (number == numbers_.end() && !plan_.sagas.empty()) continue;
    for (const drivers::memory::Place& place : list) {
      if (place.kind == PlaceKind::kKept) continue;  // of a topic that no group reads
      end.remainders.push_back({end_place(place.kind), number == numbers_.end() ? kNobody : number->second,
                                place.group.empty() ? std::uint8_t{UINT8_MAX}
                                                    : static_cast<std::uint8_t>(number_in(place.group))});
    }
  }
  end.dead_letters = all_dead_letters(*bench_.store, std::nullopt);
  for (const DeadLetter& letter : end.dead_letters) {
    if (letter.group == engine::kSagaGroup) violate("K8", "a saga's message is a dead letter");
  }
  std::erase_if(end.dead_letters, [](const DeadLetter& letter) { return !is_of_messages(letter.group); });
  end.sagas = survey_sagas();
  end.events = survey_events();
  end.pages = pages_;
  end.effects_in_tx = survey_effects();
  end.wall = time_.wall;
  return end;
}

void World::publish_probes() {
  std::int32_t key_max = -1;
  for (const MessagePlan& message : plan_.messages)
    key_max = std::max(key_max, message.key);
  std::vector<std::uint32_t> numbers;
  for (std::uint32_t topic = 0; topic < plan_.topic_count; ++topic) {
    for (std::int32_t key = -1; key <= std::min(key_max, 40); ++key) {
      MessagePlan probe;
      probe.topic = topic;
      probe.key = key;
      numbers.push_back(static_cast<std::uint32_t>(facts_.messages.size()));
      facts_.messages.push_back(probe);
    }
  }
  if (processes_[0].life) publish(processes_[0].life, numbers, 0);
}

}  // namespace towline::simulation
