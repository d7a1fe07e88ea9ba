// Engines and consumers of the experiments: short waits, no breaker, and what the orders say.

#include "faults/child.hpp"

namespace towline::faults {

Engine open_engine(const Orders& orders) {
  EngineOptions options;
  options.name = orders.name;
  options.lease = std::chrono::milliseconds(orders.number("lease_ms", 1000));
  options.sweep_interval = std::chrono::milliseconds(50);
  options.publish_timeout = std::chrono::milliseconds(orders.number("publish_timeout_ms", 10'000));
  options.drain_timeout = std::chrono::seconds(5);
  return Engine::open(orders.url, options).value();
}

ConsumerOptions member_options(const Orders& orders) {
  ConsumerOptions options;
  options.group = orders.text("group", kGroup);
  options.concurrency = orders.number("concurrency", 4);
  options.prefetch_count = orders.number("prefetch", 0);
  options.order = orders.number("key_ordered", 0) != 0 ? Order::kKeyOrdered : Order::kUnordered;
  options.handler_timeout = std::chrono::milliseconds(orders.number("handler_timeout_ms", 30'000));
  options.retry.kind = BackoffKind::kFixed;
  options.retry.initial_delay = std::chrono::milliseconds(orders.number("retry_ms", 20));
  options.retry.jitter = JitterKind::kNone;
  options.retry.max_attempts = orders.number("attempts_max", 6);
  options.breaker.enabled = false;
  options.dead_letters.max_crashes = orders.number("crashes_max", 1000);
  options.classify.permanent_types = {"Permanent"};
  return options;
}

Receipt publish_noted(Engine& engine, Notebook& notes, const Item& item, Message message,
                      std::size_t bytes_min) {
  notes.note("invoke", item.number, item.kind);
  if (message.topic.empty()) message.topic = kTopic;
  if (item.key != "-") message.key = item.key;
  message.payload = to_payload(item, bytes_min);
  Receipt receipt = engine.publish(std::move(message));
  if (receipt.acked()) {
    notes.note("acked", item.number, receipt.id.to_string());
  } else {
    notes.note(receipt.outcome == PublishOutcome::kRejected ? "rejected" : "unknown", item.number,
               receipt.error.to_string());
  }
  return receipt;
}

}  // namespace towline::faults
