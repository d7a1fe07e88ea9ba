// Drawing who appends events, who follows them and how.

#include "base/random.hpp"
#include "simulation/dice.hpp"
#include "simulation/plan.hpp"

namespace towline::simulation {
namespace {

constexpr double kHasEvents = 0.35;

}  // namespace

void draw_events(Plan& plan, const Reduction& reduction) {
  Dice dice(base::derive_seed(plan.seed, 8));
  if (!dice.chance(kHasEvents) || reduction.without_events) return;
  EventsPlan& events = plan.events;
  events.client_count = static_cast<std::uint32_t>(dice.between(1, 3));
  events.append_count = static_cast<std::uint32_t>(dice.between(10, 80) >> reduction.halvings);
  events.stream_count = static_cast<std::uint32_t>(dice.pick({1, 2, 5}));
  events.batch_count_max = static_cast<std::uint32_t>(dice.pick({1, 4}));
  const std::uint64_t followers = dice.between(0, 2);
  for (std::uint64_t i = 0; i < followers; ++i) {
    FollowerPlan& follower = events.followers.emplace_back();
    if (dice.chance(0.3)) follower.stream = stream_name(0);
    if (dice.chance(0.3)) follower.type = type_of_event(0);
    follower.by_hand = dice.chance(0.5);
    follower.batch_count_max = dice.pick<std::int64_t>({1, 3, 100});
    follower.takes_max = dice.pick<Duration>({Duration(0), std::chrono::milliseconds(30)});
  }
}

std::string stream_name(std::uint32_t stream) { return "stream-" + std::to_string(stream); }
std::string type_of_event(std::uint32_t event) { return event % 3 == 0 ? "third" : "other"; }
std::string follower_name(std::uint32_t follower) { return "follower-" + std::to_string(follower); }

MessageId id_of_event(std::uint32_t event) {
  MessageId id;
  id.bytes[0] = 2;
  id.bytes[6] = 0x70;
  id.bytes[8] = 0x80;
  for (std::size_t i = 0; i < 4; ++i)
    id.bytes[12 + i] = static_cast<std::uint8_t>(event >> (24 - 8 * i));
  return id;
}

}  // namespace towline::simulation
