// The public handles EventStore and EventSubscription hand on to the stations.

#include <algorithm>
#include <utility>

#include <towline/clock.hpp>
#include <towline/engine.hpp>

#include "base/validate.hpp"
#include "engine/core.hpp"
#include "engine/event_follower.hpp"
#include "engine/events.hpp"
#include "engine/waits.hpp"

namespace towline {
namespace {

Error not_open() {
  return Error{ErrorCode::kClosed, "this handle holds no engine; use Engine::event_store()"};
}

constexpr std::string_view kTypeMark = "{type}";

std::string topic_of(std::string topic, std::string_view type) {
  if (const auto at = topic.find(kTypeMark); at != std::string::npos)
    topic.replace(at, kTypeMark.size(), type);
  return topic;
}

/// The handle's copies share this pointer. With a handler the last one to go waits for it, since it may use
/// what goes next; without one nobody has to wait.
std::shared_ptr<engine::EventFollower> closing(std::shared_ptr<engine::EventFollower> follower,
                                               Duration timeout) {
  engine::EventFollower* raw = follower.get();
  return {raw, [follower = std::move(follower), timeout](engine::EventFollower*) mutable {
            (void)follower->close(system_clock()->monotonic() + timeout);
            follower.reset();
          }};
}

std::shared_ptr<engine::EventFollower> leaving(std::shared_ptr<engine::EventFollower> follower) {
  engine::EventFollower* raw = follower.get();
  return {raw, [follower = std::move(follower)](engine::EventFollower*) { follower->leave(); }};
}

}  // namespace

#define TOWLINE_REQUIRE_CORE()             \
  if (core_ == nullptr) return not_open(); \
  if (auto open = core_->context().check_open(); !open) return std::move(open).error()

EventStore Engine::event_store() const { return EventStore(core_); }

Result<Appended> EventStore::append(std::string_view stream, std::vector<NewEvent> events,
                                    std::optional<std::uint64_t> expected) {
  TOWLINE_REQUIRE_CORE();
  return core_->events().append(stream, std::move(events), expected);
}

Result<EventPage> EventStore::read(std::string_view stream, std::uint64_t from, std::size_t count_max) {
  TOWLINE_REQUIRE_CORE();
  if (auto bad = engine::check_stream(stream); !bad) return std::move(bad).error();
  spi::StreamRead read;
  read.stream = std::string(stream);
  read.from = std::max<std::uint64_t>(from, 1);
  read.count_max = count_max;
  return core_->events().read(read);
}

Result<EventPage> EventStore::read_backwards(std::string_view stream, std::uint64_t from,
                                             std::size_t count_max) {
  TOWLINE_REQUIRE_CORE();
  if (auto bad = engine::check_stream(stream); !bad) return std::move(bad).error();
  spi::StreamRead read;
  read.stream = std::string(stream);
  read.from = from;
  read.backwards = true;
  read.count_max = count_max;
  return core_->events().read(read);
}

Result<EventPage> EventStore::read_all(std::uint64_t from, std::size_t count_max) {
  TOWLINE_REQUIRE_CORE();
  spi::StreamRead read;
  read.from = std::max<std::uint64_t>(from, 1);
  read.count_max = count_max;
  return core_->events().read(read);
}

Result<std::optional<StreamInfo>> EventStore::find_stream(std::string_view stream) {
  TOWLINE_REQUIRE_CORE();
  return core_->events().find_stream(stream);
}

Result<Page<StreamInfo>> EventStore::streams(std::string_view prefix, std::size_t count_max,
                                             std::string_view cursor) {
  TOWLINE_REQUIRE_CORE();
  return core_->events().streams(prefix, count_max, cursor);
}

Result<void> EventStore::truncate(std::string_view stream, std::uint64_t before_version) {
  TOWLINE_REQUIRE_CORE();
  return core_->events().truncate(stream, before_version);
}

Result<void> EventStore::save_snapshot(std::string_view stream, Snapshot snapshot) {
  TOWLINE_REQUIRE_CORE();
  return core_->events().save_snapshot(stream, std::move(snapshot));
}

Result<std::optional<Snapshot>> EventStore::find_snapshot(std::string_view stream) {
  TOWLINE_REQUIRE_CORE();
  return core_->events().find_snapshot(stream);
}

Result<EventSubscription> EventStore::subscribe(const EventSubscriptionOptions& options,
                                                EventHandler handler) {
  TOWLINE_REQUIRE_CORE();
  if (!handler) {
    return Error{ErrorCode::kInvalidArgument,
                 "the handler is empty; give a function, or subscribe without one"};
  }
  auto work = [handler = std::move(handler)](
                  std::span<const RecordedEvent> events) -> Result<std::vector<spi::Write>> {
    handler(events);
    return std::vector<spi::Write>{};
  };
  auto follower = core_->follow(options, std::move(work), false);
  if (!follower) return std::move(follower).error();
  return EventSubscription(closing(std::move(*follower), core_->context().options.drain_timeout));
}

Result<EventSubscription> EventStore::subscribe(const EventSubscriptionOptions& options) {
  TOWLINE_REQUIRE_CORE();
  auto follower = core_->follow(options, {}, false);
  if (!follower) return std::move(follower).error();
  return EventSubscription(leaving(std::move(*follower)));
}

Result<EventSubscription> EventStore::stream_to(std::string_view topic,
                                                const EventSubscriptionOptions& options) {
  TOWLINE_REQUIRE_CORE();
  const std::string pattern(topic);
  if (auto bad = base::check_topic(topic_of(pattern, "x")); !bad) return std::move(bad).error();
  // The core keeps the follower, so this must not keep the core.
  auto work = [weak = core_->weak_from_this(),
               pattern](std::span<const RecordedEvent> events) -> Result<std::vector<spi::Write>> {
    const auto core = weak.lock();
    if (core == nullptr) return Error{ErrorCode::kClosed, "the engine is gone"};
    const auto route = [&](const RecordedEvent& event) { return topic_of(pattern, event.type); };
    return core->publisher().as_writes(events, route);
  };
  auto follower = core_->follow(options, std::move(work), true);
  if (!follower) return std::move(follower).error();
  return EventSubscription(leaving(std::move(*follower)));
}

// ---- EventSubscription --------------------------------------------------------------------------

namespace {

Error no_subscription() {
  return Error{ErrorCode::kClosed, "this handle holds no subscription; use EventStore::subscribe"};
}

}  // namespace

Result<std::vector<RecordedEvent>> EventSubscription::receive(std::size_t count_max, Duration timeout) {
  if (follower_ == nullptr) return no_subscription();
  return follower_->receive(count_max, timeout);
}

Result<void> EventSubscription::checkpoint(std::uint64_t place) {
  if (follower_ == nullptr) return no_subscription();
  return follower_->checkpoint(place);
}

EventSubscriptionStatistics EventSubscription::statistics() const {
  return follower_ == nullptr ? EventSubscriptionStatistics{} : follower_->statistics();
}

bool EventSubscription::close(std::optional<Duration> timeout) {
  if (follower_ == nullptr) return true;
  const Duration longest = timeout.value_or(follower_->drain_timeout());
  return !follower_->close(engine::deadline_in(*system_clock(), longest));
}

}  // namespace towline
