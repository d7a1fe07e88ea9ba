// Publishing and subscribing. One receive() is one step under the mutex: what the clock ended, settlements,
// units, handing out; then, if nothing came and nothing was settled, it waits for a message, a lease end or a
// wake and hands out again.

#include <algorithm>
#include <mutex>
#include <utility>

#include "drivers/memory/provider.hpp"

namespace towline::drivers::memory {
namespace {

constexpr Duration kEphemeralLease = std::chrono::seconds(30);

Error closed() { return {ErrorCode::kClosed, "the subscription is closed"}; }

}  // namespace

spi::Capabilities MemoryTransport::capabilities() const noexcept {
  spi::Capabilities capabilities;
  capabilities.is_store = true;
  capabilities.deduplicates = true;
  capabilities.assigns_partitions = true;
  capabilities.finds_heads = true;
  capabilities.fences = true;
  return capabilities;
}

Result<void> MemoryTransport::declare(const spi::Topology& topology) {
  const std::lock_guard lock(hub().mutex);
  auto declared = hub().queue.declare(topology);
  hub().queue.deal_partitions();
  return declared;
}

Result<spi::Topology> MemoryTransport::topology(std::string_view topic, std::uint32_t partition_count_default,
                                                spi::Deadline) {
  spi::Topology asked;
  asked.topic = topic;
  asked.partition_count = partition_count_default;
  const std::lock_guard lock(hub().mutex);
  if (const Topic* known = hub().queue.find_topic(topic)) return known->topology;
  if (auto declared = hub().queue.declare(asked); !declared) return std::move(declared).error();
  hub().queue.deal_partitions();
  return asked;
}

Result<std::vector<spi::PublishAnswer>> MemoryTransport::publish(std::span<spi::Envelope> envelopes,
                                                                 spi::Deadline) {
  const Moment now = handle_.now();
  const std::lock_guard lock(hub().mutex);
  return hub().publish(envelopes, now);
}

Result<std::unique_ptr<spi::Subscription>> MemoryTransport::subscribe(const spi::SubscribeOptions& options) {
  if (!options.matches) {
    return Error{ErrorCode::kInvalidArgument,
                 "SubscribeOptions::matches is empty; it decides which topics belong"};
  }
  spi::SubscribeOptions checked = options;
  if (checked.group.empty() && checked.lease <= Duration(0)) checked.lease = kEphemeralLease;
  if (checked.lease <= Duration(0)) {
    return Error{ErrorCode::kInvalidArgument, "lease is " + std::to_string(checked.lease.count()) +
                                                  " us for group \"" + checked.group +
                                                  "\"; it must be positive"};
  }
  const Moment now = handle_.now();
  const std::lock_guard lock(hub().mutex);
  hub().queue.expire(now);
  if (auto clash = hub().queue.check_order(checked); !clash) return std::move(clash).error();
  Session& session = hub().queue.join(checked, now);
  return std::unique_ptr<spi::Subscription>(std::make_unique<MemorySubscription>(handle_, session));
}

Result<std::vector<spi::GroupStatistics>> MemoryTransport::statistics() {
  const Moment now = handle_.now();
  const std::lock_guard lock(hub().mutex);
  hub().queue.expire(now);
  return hub().queue.statistics();
}

MemorySubscription::~MemorySubscription() {
  const std::lock_guard lock(handle_.hub->mutex);
  if (session_ != nullptr) handle_.hub->queue.abandon(*session_);
}

void MemorySubscription::settle(const spi::ReceiveRequest& request, Moment now, spi::Received& received) {
  for (std::uint32_t i = 0; i < request.settlements.size(); ++i) {
    if (!handle_.hub->queue.settle(*session_, request.settlements[i], now)) received.lost.push_back(i);
  }
  if (request.units.empty()) return;
  received.units = handle_.hub->commit(request.units, session_, now);
  const bool all =
      std::all_of(received.units.begin(), received.units.end(), [](const auto& r) { return r.ok(); });
  if (all) received.units.clear();
}

Result<spi::Received> MemorySubscription::receive(const spi::ReceiveRequest& request) {
  spi::Received received;
  Hub& hub = *handle_.hub;
  Moment now = handle_.now();
  std::unique_lock lock(hub.mutex);
  if (session_ == nullptr) return closed();
  Session& session = *session_;
  (void)hub.queue.touch(session, now);
  hub.queue.expire(now);
  settle(request, now, received);
  hub.queue.deal_partitions();
  const bool settled = !request.settlements.empty() || !request.units.empty();
  for (;;) {
    if (session.live) hub.queue.hand_out(session, request, now, received.deliveries);
    if (!received.deliveries.empty() || request.count_max == 0 || settled || !handle_.waits) break;
    if (now.monotonic >= request.deadline || std::exchange(session.woken, false)) break;
    session.waiting = true;
    handle_.clock->wait_until(lock, session.changed, std::min(request.deadline, hub.queue.next_end()));
    session.waiting = false;
    now = handle_.now();
    (void)hub.queue.touch(session, now);
    hub.queue.expire(now);
  }
  return received;
}

void MemorySubscription::wake() noexcept {
  const std::lock_guard lock(handle_.hub->mutex);
  if (session_ == nullptr) return;
  session_->woken = true;
  session_->changed.notify_all();
}

Result<std::vector<std::uint64_t>> MemorySubscription::renew() {
  const Moment now = handle_.now();
  const std::lock_guard lock(handle_.hub->mutex);
  if (session_ == nullptr) return closed();
  handle_.hub->queue.expire(now);
  return handle_.hub->queue.renew(*session_, now);
}

Result<void> MemorySubscription::close() {
  const Moment now = handle_.now();
  const std::lock_guard lock(handle_.hub->mutex);
  if (session_ == nullptr) return {};
  handle_.hub->queue.expire(now);
  handle_.hub->queue.leave(*std::exchange(session_, nullptr), now);
  return {};
}

}  // namespace towline::drivers::memory
