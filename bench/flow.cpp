// The flow of messages through one engine.

#include "flow.hpp"

#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>

#include <fmt/format.h>

#include "harness.hpp"
#include "process.hpp"

namespace towline::bench {
namespace {

constexpr const char* kTopic = "flow";
/// How far the publisher may be ahead of the handlers, beyond the backlog that is asked for.
constexpr std::uint64_t kAheadMax = 100'000;
constexpr std::uint64_t kAheadOfBacklogMax = 4'000;
constexpr std::uint64_t kSlack = 2 * kBatch;
constexpr auto kLook = std::chrono::microseconds(50);

}  // namespace

std::string sqlite_url(const std::filesystem::path& file) { return "sqlite:" + file.string(); }

std::string payload_with(std::int64_t number, std::size_t bytes) {
  std::string payload(std::max(bytes, sizeof number), 'p');
  std::memcpy(payload.data(), &number, sizeof number);
  return payload;
}

std::int64_t number_in(std::string_view payload) {
  std::int64_t number = 0;
  if (payload.size() < sizeof number) throw std::runtime_error("a payload lost bytes");
  std::memcpy(&number, payload.data(), sizeof number);
  return number;
}

std::vector<Receipt> publish_all(Engine& engine, std::vector<Message> messages) {
  std::vector<Receipt> receipts = engine.publish_batch(std::move(messages)).value();
  for (const Receipt& receipt : receipts) {
    (void)receipt.value();
    if (receipt.duplicate) throw std::runtime_error("a new message was taken for a duplicate");
  }
  return receipts;
}

Flow::Flow(Plan plan) : plan_(std::move(plan)), engine_(Engine::open(plan_.url).value()) {
  engine_.declare_topic(kTopic, {.type = plan_.type}).value();
  if (plan_.backlog > 0) publish(plan_.backlog);
  consume();
}

Flow::~Flow() { close(); }

void Flow::close() {
  closing_.store(true);
  if (auto closed = engine_.close(); !closed) fmt::print(stderr, "{}\n", closed.error().to_string());
}

// With a backlog to keep, the handlers must not be faster than the publisher, or the backlog would be gone.
void Flow::hold_back(std::size_t count) const {
  if (plan_.backlog == 0) return;
  const auto too_fast = [&] {
    return handled_.load(std::memory_order_relaxed) + plan_.backlog + count >
           published_.load(std::memory_order_relaxed) + slack_.load(std::memory_order_relaxed);
  };
  while (too_fast() && !closing_.load(std::memory_order_relaxed))
    std::this_thread::sleep_for(kLook);
}

void Flow::on_handled(std::size_t count) {
  hold_back(count);
  handled_.fetch_add(count, std::memory_order_relaxed);
}

void Flow::consume() {
  ConsumerOptions options{.group = "bench"};
  if (plan_.handling == Handling::kWhole) {
    consumer_ = engine_
                    .consume_batches({kTopic}, options,
                                     [this](std::span<Delivery> batch) { on_handled(batch.size()); })
                    .value();
    return;
  }
  if (plan_.handling == Handling::kEach) options.prefetch_count = kBatch;
  consumer_ = engine_.consume(kTopic, options, [this](Delivery&) { on_handled(1); }).value();
}

void Flow::publish(std::size_t count) {
  const std::uint64_t ahead_max = plan_.backlog > 0 ? plan_.backlog + kAheadOfBacklogMax : kAheadMax;
  for (std::size_t done = 0; done < count;) {
    const std::uint64_t first = published_.load(std::memory_order_relaxed);
    while (first > handled_.load(std::memory_order_relaxed) + ahead_max)
      std::this_thread::sleep_for(kLook);
    std::vector<Message> batch(std::min(kBatch, count - done));
    for (std::size_t i = 0; i < batch.size(); ++i) {
      batch[i].topic = kTopic;
      batch[i].payload.assign(kPayloadBytes, 'p');
      if (plan_.dedup) batch[i].dedup_id = fmt::format("order-{:012}", first + i);
    }
    done += batch.size();
    const std::size_t size = batch.size();
    publish_all(engine_, std::move(batch));
    published_.store(first + size, std::memory_order_relaxed);
  }
}

FlowRate Flow::run(std::size_t count) {
  const std::uint64_t acked_before = consumer_.statistics().acked;
  const double cpu_before = cpu_seconds();
  const auto start = Steady::now();
  slack_.store(kSlack, std::memory_order_relaxed);
  publish(count);
  // The handlers may end a little beyond what was asked for, or the last batch would wait for ever.
  slack_.store(2 * kSlack, std::memory_order_relaxed);
  const auto acked = [&] { return consumer_.statistics().acked - acked_before; };
  while (acked() < count) {
    if (seconds_since(start) > 600) throw std::runtime_error("messages were not acknowledged in 10 minutes");
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  const auto size = static_cast<double>(count);
  return {size / seconds_since(start), (cpu_seconds() - cpu_before) * 1e6 / size};
}

FlowRate run_flow(Flow::Plan plan, std::size_t count) {
  Flow flow(std::move(plan));
  const FlowRate rate = flow.run(count);
  flow.close();
  return rate;
}

}  // namespace towline::bench
