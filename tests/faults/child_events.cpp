// The modes of the event store: who appends, who follows with a ledger, who streams to topics. All are killed
// at any moment and started again.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include <signal.h>

#include "faults/child.hpp"

namespace towline::faults {
namespace {

using namespace std::chrono_literals;

/// Whether SIGTERM, which is blocked, has come.
bool told_to_stop() {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  const timespec none{};
  return ::sigtimedwait(&stop, nullptr, &none) == SIGTERM;
}

MessageId event_id(std::int64_t number) {
  MessageId id;
  for (std::size_t i = 0; i < 8; ++i)
    id.bytes[15 - i] = static_cast<std::uint8_t>(static_cast<std::uint64_t>(number + 1) >> (8 * i));
  return id;
}

}  // namespace

/// Appends the numbers from `from` to `to` in batches of one to three; the size follows from the number, so a
/// later life repeats the append that its predecessor died in.
int run_appender(const Orders& orders) {
  Notebook notes(orders.folder, orders.name);
  Engine engine = open_engine(orders);
  EventStore events = engine.event_store();
  const std::int64_t to = orders.number("to", 0);
  const std::int64_t stream_count = orders.number("streams", 5);
  say("ready");
  for (std::int64_t number = orders.number("from", 0); number < to && !told_to_stop();) {
    std::vector<NewEvent> batch;
    for (std::int64_t n = number; n <= number + number % 3; ++n) {
      NewEvent event{"order.k" + std::to_string(n % 3), std::to_string(n)};
      event.id = event_id(n);
      batch.push_back(std::move(event));
    }
    const std::int64_t count = static_cast<std::int64_t>(batch.size());
    notes.note("invoke", number);
    const auto appended =
        events.append("stream-" + std::to_string(number % stream_count), std::move(batch)).value();
    notes.note(appended.duplicate ? "repeated" : "appended", number);
    number += count;
    notes.note("next", number);
  }
  return engine.close().ok() ? 0 : 3;
}

/// Notes each event that it is given, in batches, and then moves the checkpoint.
int run_follower(const Orders& orders) {
  Notebook notes(orders.folder, orders.name);
  Engine engine = open_engine(orders);
  EventSubscriptionOptions options;
  options.name = "follower";
  options.batch_count_max = 7;
  EventSubscription subscription =
      engine.event_store()
          .subscribe(options,
                     [&](std::span<const RecordedEvent> events) {
                       for (const RecordedEvent& event : events)
                         notes.note("seen", static_cast<std::int64_t>(event.position), event.payload);
                     })
          .value();
  say("ready");
  wait_for_term();
  return engine.close(5s).value() == 0 ? 0 : 3;
}

int run_relay(const Orders& orders) {
  Engine engine = open_engine(orders);
  EventSubscriptionOptions options;
  options.name = "relay";
  options.batch_count_max = 10;
  options.interval = 5ms;
  EventSubscription relay = engine.event_store().stream_to("events.{type}", options).value();
  say("ready");
  wait_for_term();
  return engine.close(5s).value() == 0 ? 0 : 3;
}

}  // namespace towline::faults
