#pragma once
// A desk: one dispatcher without a consumer around it, stepped by hand. The test plays the lane and, if it
// likes, the workers; deliveries are named by their payloads.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/dispatcher.hpp"
#include "unit/engine/world.hpp"

namespace towline::engine::testing {

/// A dispatcher without a consumer around it. The test plays the lane, and workers if it likes.
class Desk {
 public:
  explicit Desk(Dispatcher::Limits limits) : dispatcher(clock, with_timeout(limits)) {}
  explicit Desk(Order order = Order::kUnordered) : Desk(limits_of(order)) {}
  ~Desk() {
    dispatcher.stop_workers();
    (void)dispatcher.close_all();
  }

  static Dispatcher::Limits limits_of(Order order, std::int64_t concurrency = 1) {
    Dispatcher::Limits limits;
    limits.concurrency = concurrency;
    limits.prefetch_count = 1000;
    limits.order = order;
    return limits;
  }
  static Dispatcher::Limits with_timeout(Dispatcher::Limits limits) {
    if (limits.handler_timeout.count() == 0) limits.handler_timeout = 30s;
    return limits;
  }

  /// Deliveries of one receive, named by their payloads: "A1" has the key "A". A '*' at the end: heads its
  /// key.
  std::vector<DeliveryPtr> receive(const std::vector<std::string>& names, std::uint64_t epoch = 1) {
    auto hand_out = std::make_shared<HandOut>(names.size(), std::make_shared<ConsumerLink>());
    ++lease;
    std::vector<DeliveryPtr> fresh;
    for (std::size_t i = 0; i < names.size(); ++i) {
      auto envelope = std::make_shared<spi::Envelope>();
      envelope->topic = "t";
      envelope->payload = names[i];
      envelope->key = names[i].substr(0, 1);
      envelope->heads_key = names[i].back() == '*';
      if (names[i].front() == '-') envelope->key.reset();
      DeliveryState& state = hand_out->states[i];
      state.hand_out = hand_out.get();
      state.delivery.token = {lease, static_cast<std::uint32_t>(i)};
      state.delivery.envelope = std::move(envelope);
      state.delivery.epoch = epoch;
      fresh.emplace_back(hand_out, &state);
    }
    dispatcher.attach(fresh);
    return fresh;
  }
  /// Receives and admits; returns what must be parked.
  std::vector<std::string> admit(const std::vector<std::string>& names) {
    return names_of(dispatcher.admit(receive(names)));
  }
  static std::vector<std::string> names_of(const std::vector<DeliveryPtr>& states) {
    std::vector<std::string> names;
    for (const DeliveryPtr& state : states)
      names.push_back(state->envelope().payload);
    return names;
  }

  /// Takes up to `count` deliveries as a worker would, and begins with them.
  std::vector<DeliveryPtr> take(std::size_t count = 1) {
    std::vector<DeliveryPtr> chunk;
    dispatcher.try_take(count, chunk);
    for (const DeliveryPtr& state : chunk) {
      EXPECT_TRUE(state->move_to(Phase::kRunning, {Phase::kTaken}));
      state->occupies_worker = true;
    }
    return chunk;
  }
  /// The next one that may start, by name; "" when none may.
  std::string start() {
    auto chunk = take();
    if (chunk.empty()) return {};
    const std::string name = chunk.front()->envelope().payload;
    running[name] = chunk.front();
    return name;
  }
  /// The handler of this one returns.
  void finish(const std::string& name) {
    std::vector<DeliveryPtr> acked{running.at(name)};
    std::vector<Decided> others;
    running.erase(name);
    acked.front()->occupies_worker = false;
    EXPECT_TRUE(acked.front()->move_to(Phase::kDecided, {Phase::kRunning}));
    dispatcher.hand_back(SIZE_MAX, acked, others, 1, 1ms);
  }
  void fail(const std::string& name) {
    std::vector<DeliveryPtr> acked;
    std::vector<Decided> others{{running.at(name), Outcome::fail({"E", "", {}})}};
    running.erase(name);
    others.front().state->occupies_worker = false;
    EXPECT_TRUE(others.front().state->move_to(Phase::kDecided, {Phase::kRunning}));
    dispatcher.hand_back(SIZE_MAX, acked, others, 1, 1ms);
  }
  /// What was decided since the last call, by name.
  struct Round {
    std::vector<std::string> acked, others;
  };
  Round collect() {
    collected = dispatcher.collect(clock->monotonic());
    Round round{names_of(collected.acked), {}};
    for (const Decided& decided : collected.others)
      round.others.push_back(decided.state->envelope().payload);
    return round;
  }

  const std::shared_ptr<StillClock> clock = std::make_shared<StillClock>();
  Dispatcher dispatcher;
  Dispatcher::Collected collected;
  std::map<std::string, DeliveryPtr> running;
  std::uint64_t lease = 0;
};

using Names = std::vector<std::string>;

}  // namespace towline::engine::testing
