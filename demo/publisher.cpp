// A publisher. For every order: the intention is written to the ledger, then the order is published with its
// dedup id, then the receipt is written. A publisher that was killed in between finds the intention without a
// receipt and publishes again; the dedup id makes that harmless. The due time of a delayed order is drawn
// once, with the first intention.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <deque>
#include <span>
#include <thread>
#include <unordered_map>
#include <vector>

#include "ledger.hpp"
#include "plan.hpp"
#include "roles.hpp"

namespace towline::demo {
namespace {

constexpr std::size_t kBatchMax = 100;
constexpr auto kTick = std::chrono::milliseconds(5);
constexpr int kTriesMax = 100;
constexpr auto kTryAgainAfter = std::chrono::milliseconds(50);

/// What earlier lives of this publisher wrote about an order.
struct Known {
  bool acked = false;
  bool again = false;
  std::int64_t due_us = 0;
};

Result<std::unordered_map<std::uint32_t, Known>> read_own_ledgers(const PublisherOptions& options) {
  std::unordered_map<std::uint32_t, Known> known;
  const std::string own = "publisher-" + std::to_string(options.index) + ".";
  LedgerReader reader(options.place.ledgers());
  auto result = reader.poll([&](const std::string& source, const Record& record) {
    if (!source.starts_with(own)) return;
    auto& entry = known[record.number];
    if (record.what == What::kPublish && record.due_us != 0) entry.due_us = record.due_us;
    if (record.what == What::kAcked) entry.acked = true;
    if (record.what == What::kAgain) entry.again = true;
  });
  if (!result.ok()) return result.error();
  return known;
}

class Publisher {
 public:
  Publisher(const PublisherOptions& options, Engine engine, Ledger ledger)
      : options_(options), engine_(std::move(engine)), ledger_(std::move(ledger)) {}

  /// Takes from the plan what is this publisher's and not done yet.
  Result<void> prepare();
  Result<void> run();

 private:
  [[nodiscard]] Message message_of(std::uint32_t number) const;
  void note_intention(std::uint32_t number);
  void note_ack(std::uint32_t number, const Receipt& receipt) const;
  Result<void> publish(std::span<const std::uint32_t> numbers);
  Result<void> publish_again(std::uint32_t number);

  PublisherOptions options_;
  Engine engine_;
  Ledger ledger_;
  Plan plan_;
  std::vector<std::uint32_t> first_;  ///< to be published, in the order of the plan
  std::deque<std::uint32_t> second_;  ///< acknowledged, and to be published a second time
  std::unordered_map<std::uint32_t, std::int64_t> due_us_;
};

Result<void> Publisher::prepare() {
  auto plan = read_plan(options_.place.plan());
  if (!plan.ok()) return plan.error();
  plan_ = std::move(*plan);
  auto known = read_own_ledgers(options_);
  if (!known.ok()) return known.error();
  for (const auto& planned : plan_.orders) {
    if (planned.publisher != options_.index) continue;
    const Known& entry = (*known)[planned.number];
    if (entry.due_us != 0) due_us_[planned.number] = entry.due_us;
    if (!entry.acked) {
      first_.push_back(planned.number);
    } else if (planned.fate.twice && !entry.again) {
      second_.push_back(planned.number);
    }
  }
  return {};
}

Message Publisher::message_of(std::uint32_t number) const {
  const auto& planned = plan_.orders[number];
  Message message;
  message.topic = std::string(kTopic);
  message.payload = planned.order.line;
  message.key = planned.order.customer;
  message.headers = {{std::string(kNumberHeader), std::to_string(number)},
                     {std::string(kFailuresHeader), std::to_string(planned.fate.failure_count)}};
  if (!planned.saga_context.empty()) message.headers.emplace_back(kSagaHeader, planned.saga_context);
  message.content_type = "application/json";
  message.dedup_id = planned.order.id;
  const auto due = due_us_.find(number);
  if (due != due_us_.end()) message.due_at = from_us(due->second);
  return message;
}

void Publisher::note_intention(std::uint32_t number) {
  Record record{.what = What::kPublish, .number = number, .at_us = wall_us()};
  const auto delay = plan_.orders[number].fate.delay;
  if (delay.count() != 0) {
    const auto [due, is_new] =
        due_us_.try_emplace(number, record.at_us + std::chrono::microseconds(delay).count());
    record.due_us = due->second;
  }
  ledger_.append(record);
}

void Publisher::note_ack(std::uint32_t number, const Receipt& receipt) const {
  const auto& planned = plan_.orders[number];
  ledger_.append({.what = What::kAcked,
                  .number = number,
                  .at_us = wall_us(),
                  .duplicate = receipt.duplicate,
                  .message_id = receipt.id.to_string(),
                  .customer = planned.order.customer,
                  .sequence = planned.sequence});
}

/// Until all of them are acknowledged. What is not is published again, in order, before anything newer.
Result<void> Publisher::publish(std::span<const std::uint32_t> numbers) {
  std::vector<std::uint32_t> open(numbers.begin(), numbers.end());
  for (int tries = 0; tries < kTriesMax; ++tries) {
    std::vector<Message> messages;
    for (const auto number : open) {
      note_intention(number);
      messages.push_back(message_of(number));
    }
    auto receipts = engine_.publish_batch(std::move(messages));
    if (!receipts.ok()) return receipts.error();
    std::vector<std::uint32_t> refused;
    for (std::size_t i = 0; i < open.size(); ++i) {
      const Receipt& receipt = (*receipts)[i];
      if (receipt.acked()) {
        note_ack(open[i], receipt);
        if (plan_.orders[open[i]].fate.twice) second_.push_back(open[i]);
        continue;
      }
      ledger_.append(
          {.what = What::kRefused, .number = open[i], .at_us = wall_us(), .text = receipt.error.to_string()});
      if (receipt.outcome == PublishOutcome::kRejected && !receipt.error.retryable()) return receipt.error;
      refused.push_back(open[i]);
    }
    if (refused.empty()) return {};
    open = std::move(refused);
    // sleeps: backs off from a store that refused; nothing announces that it would take more
    std::this_thread::sleep_for(kTryAgainAfter);
  }
  return Error{ErrorCode::kTimeout,
               "an order was not acknowledged in " + std::to_string(kTriesMax) + " tries"};
}

/// The mistake that many publishers make: the same order is sent once more.
Result<void> Publisher::publish_again(std::uint32_t number) {
  for (int tries = 0; tries < kTriesMax; ++tries) {
    Receipt receipt = engine_.publish(message_of(number));
    if (receipt.acked()) {
      ledger_.append({.what = What::kAgain,
                      .number = number,
                      .at_us = wall_us(),
                      .duplicate = receipt.duplicate,
                      .message_id = receipt.id.to_string()});
      return {};
    }
    if (receipt.outcome == PublishOutcome::kRejected && !receipt.error.retryable()) return receipt.error;
    // sleeps: backs off from a store that refused; nothing announces that it would take more
    std::this_thread::sleep_for(kTryAgainAfter);
  }
  return Error{ErrorCode::kTimeout, "an order was not acknowledged a second time"};
}

/// Keeps to the rate: at each tick it publishes what should have been published by now, as one batch.
Result<void> Publisher::run() {
  using Clock = std::chrono::steady_clock;
  const auto began = Clock::now();
  std::size_t done = 0;
  while (done < first_.size() || !second_.empty()) {
    const std::chrono::duration<double> elapsed = Clock::now() - began;
    const auto allowed = static_cast<std::size_t>(elapsed.count() * options_.rate_per_second) + 1;
    const std::size_t count =
        std::min({kBatchMax, first_.size() - done, allowed > done ? allowed - done : 0});
    if (count > 0) {
      auto result = publish(std::span(first_).subspan(done, count));
      if (!result.ok()) return result;
      done += count;
    }
    while (!second_.empty()) {
      auto result = publish_again(second_.front());
      if (!result.ok()) return result;
      second_.pop_front();
    }
    // sleeps: keeps the pace that the plan asks for
    if (done < first_.size()) std::this_thread::sleep_for(kTick);
  }
  return {};
}

int fail(const Error& error) {
  std::fprintf(stderr, "%s\n", error.to_string().c_str());
  return 1;
}

}  // namespace

int run_publisher(const PublisherOptions& options) {
  auto ledger = Ledger::create(options.place.ledger_of(options.name));
  if (!ledger.ok()) return fail(ledger.error());
  auto engine = open_engine(options.place.url(), options.name);
  if (!engine.ok()) return fail(engine.error());
  Publisher publisher(options, *engine, std::move(*ledger));
  auto result = publisher.prepare();
  if (result.ok()) result = publisher.run();
  if (!result.ok()) return fail(result.error());
  auto closed = engine->close();
  if (!closed.ok()) return fail(closed.error());
  return 0;
}

}  // namespace towline::demo
