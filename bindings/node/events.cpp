// The calls of the event store; as in calls.cpp.

#include "binding.hpp"

namespace towline::node {
namespace {

using Info = const Napi::CallbackInfo&;

std::size_t count_max_from(const Napi::Value& value) {
  return static_cast<std::size_t>(whole_from(value, "countMax", 0, 1'000'000));
}

/// Of a subscription with a handler.
std::uint64_t number_from(const Napi::Value& value) {
  return static_cast<std::uint64_t>(whole_from(value, "number", 1, INT64_MAX / 1024));
}

void append(Port& port, Info info) {
  run(port, info[0],
      [stream = text_from(info[1], "stream"), events = new_events_from(info[2]),
       expected = optional_place_from(info[3], "expected")](Engine& engine) {
        return engine.event_store().append(stream, events, expected);
      });
}

void read_events(Port& port, Info info) {
  run(port, info[0],
      [stream = text_from(info[1], "stream"), from = place_from(info[2], "from"),
       count_max = count_max_from(info[3])](Engine& engine) {
        return engine.event_store().read(stream, from, count_max);
      });
}

void read_events_backwards(Port& port, Info info) {
  run(port, info[0],
      [stream = text_from(info[1], "stream"), from = place_from(info[2], "from"),
       count_max = count_max_from(info[3])](Engine& engine) {
        return engine.event_store().read_backwards(stream, from, count_max);
      });
}

void read_all_events(Port& port, Info info) {
  run(port, info[0],
      [from = place_from(info[1], "from"), count_max = count_max_from(info[2])](Engine& engine) {
        return engine.event_store().read_all(from, count_max);
      });
}

void find_stream(Port& port, Info info) {
  run(port, info[0], [stream = text_from(info[1], "stream")](Engine& engine) {
    return engine.event_store().find_stream(stream);
  });
}

void streams(Port& port, Info info) {
  run(port, info[0],
      [prefix = text_from(info[1], "prefix"), count_max = count_max_from(info[2]),
       cursor = text_from(info[3], "cursor")](Engine& engine) {
        return engine.event_store().streams(prefix, count_max, cursor);
      });
}

void truncate_stream(Port& port, Info info) {
  run(port, info[0],
      [stream = text_from(info[1], "stream"), before = place_from(info[2], "beforeVersion")](Engine& engine) {
        return engine.event_store().truncate(stream, before);
      });
}

void save_snapshot(Port& port, Info info) {
  run(port, info[0],
      [stream = text_from(info[1], "stream"),
       snapshot = Snapshot{place_from(info[2], "version"), bytes_from(info[3], "state"),
                           text_from(info[4], "contentType")}](Engine& engine) {
        return engine.event_store().save_snapshot(stream, snapshot);
      });
}

void find_snapshot(Port& port, Info info) {
  run(port, info[0], [stream = text_from(info[1], "stream")](Engine& engine) {
    return engine.event_store().find_snapshot(stream);
  });
}

void follow_events(Port& port, Info info) {
  run(port, info[0], [options = options_from<EventSubscriptionOptions>(info[1])](Engine& engine) {
    return engine.event_store().subscribe(options);
  });
}

void handle_events(Port& port, Info info) {
  run(port, info[0],
      [&port, number = number_from(info[1]), options = options_from<EventSubscriptionOptions>(info[2])](
          Engine&) { return port.follow_events(number, options); });
}

/// (number, what it failed with as [type, message] or undefined)
void finish_events(Port& port, Info info) {
  std::optional<ErrorInfo> error;
  if (!info[1].IsUndefined()) {
    const auto fields = info[1].As<Napi::Array>();
    error = ErrorInfo{text_from(fields.Get(std::uint32_t{0}), "type"),
                      text_from(fields.Get(std::uint32_t{1}), "message"),
                      {}};
  }
  port.finish_events(number_from(info[0]), std::move(error));
}

void stream_events(Port& port, Info info) {
  run(port, info[0],
      [topic = text_from(info[1], "topic"), options = options_from<EventSubscriptionOptions>(info[2])](
          Engine& engine) { return engine.event_store().stream_to(topic, options); });
}

void receive_events(Port& port, Info info) {
  run(port, info[0],
      [subscription = held<EventSubscription>(info[1]), count_max = count_max_from(info[2]),
       timeout = duration_from(info[3], "timeoutMs")](Engine&) mutable {
        return subscription.receive(count_max, timeout);
      });
}

void checkpoint_events(Port& port, Info info) {
  run(port, info[0],
      [subscription = held<EventSubscription>(info[1]),
       place = place_from(info[2], "place")](Engine&) mutable { return subscription.checkpoint(place); });
}

void subscription_statistics(Port& port, Info info) {
  run(port, info[0], [subscription = held<EventSubscription>(info[1])](Engine&) {
    return Result<EventSubscriptionStatistics>(subscription.statistics());
  });
}

void close_subscription(Port& port, Info info) {
  run(
      port, info[0],
      [&port, subscription = held<EventSubscription>(info[1]),
       timeout = optional_duration_from(info[2], "timeoutMs"),
       number = info[3].IsUndefined() ? 0 : number_from(info[3])](Engine&) mutable {
        const bool ended = subscription.close(timeout);
        if (number != 0) port.forget_events(number);
        return Result<bool>(ended);
      },
      true);
}

}  // namespace

std::vector<Call> event_calls() {
  return {{"append", append},
          {"readEvents", read_events},
          {"readEventsBackwards", read_events_backwards},
          {"readAllEvents", read_all_events},
          {"findStream", find_stream},
          {"streams", streams},
          {"truncateStream", truncate_stream},
          {"saveSnapshot", save_snapshot},
          {"findSnapshot", find_snapshot},
          {"followEvents", follow_events},
          {"handleEvents", handle_events},
          {"finishEvents", finish_events},
          {"streamEvents", stream_events},
          {"receiveEvents", receive_events},
          {"checkpointEvents", checkpoint_events},
          {"eventSubscriptionStatistics", subscription_statistics},
          {"closeEventSubscription", close_subscription}};
}

}  // namespace towline::node
