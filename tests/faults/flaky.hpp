#pragma once
// A provider whose calls fail now and then, in the two ways that a caller cannot tell apart: nothing was
// done, or everything was done and only the answer is lost. Wraps another provider; thread-safe.

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <utility>

#include <towline/spi/store.hpp>
#include <towline/spi/transport.hpp>

namespace towline::faults {

/// Decides which call fails.
class Mischief {
 public:
  Mischief(std::uint64_t seed, double before, double after) : random_(seed), before_(before), after_(after) {}

  enum class Fate { kWell, kBefore, kAfter };
  Fate draw(const char* call, bool may_lose_answer = true) {
    const std::lock_guard guard(mutex_);
    ++calls_;
    if (healed_) return Fate::kWell;
    const double at = std::uniform_real_distribution<>(0, 1)(random_);
    if (at < before_) {
      ++counts_[std::string(call) + "-before"];
      return Fate::kBefore;
    }
    if (at < before_ + after_ && may_lose_answer) {
      ++counts_[std::string(call) + "-after"];
      return Fate::kAfter;
    }
    return Fate::kWell;
  }
  /// No call fails any more.
  void heal() {
    const std::lock_guard guard(mutex_);
    healed_ = true;
  }
  [[nodiscard]] std::uint64_t calls() const {
    const std::lock_guard guard(mutex_);
    return calls_;
  }
  [[nodiscard]] std::map<std::string, std::uint64_t> counts() const {
    const std::lock_guard guard(mutex_);
    return counts_;
  }

 private:
  mutable std::mutex mutex_;
  std::mt19937_64 random_;
  const double before_;
  const double after_;
  bool healed_ = false;
  std::uint64_t calls_ = 0;
  std::map<std::string, std::uint64_t> counts_;
};

/// Runs `call`, or not, and answers its result, or an error.
template <typename Call>
auto with_mischief(Mischief& mischief, const char* name, Call&& call, bool may_lose_answer = true)
    -> decltype(call()) {
  const Mischief::Fate fate = mischief.draw(name, may_lose_answer);
  if (fate == Mischief::Fate::kBefore)
    return Error{ErrorCode::kUnavailable, std::string(name) + ": planned, nothing was done"};
  auto result = call();
  if (fate == Mischief::Fate::kAfter)
    return Error{ErrorCode::kUnavailable, std::string(name) + ": planned, the answer is lost"};
  return result;
}

class FlakySubscription final : public spi::Subscription {
 public:
  FlakySubscription(std::unique_ptr<spi::Subscription> inner, std::shared_ptr<Mischief> mischief)
      : inner_(std::move(inner)), mischief_(std::move(mischief)) {}
  /// An embedded store hands out into the memory of its caller: its answer cannot be lost without the caller.
  /// What can be lost is the answer about settlements, so that is what is lost here.
  Result<spi::Received> receive(const spi::ReceiveRequest& request) override {
    const bool only_settles = request.count_max == 0;
    return with_mischief(
        *mischief_, only_settles ? "settle" : "receive", [&] { return inner_->receive(request); },
        only_settles);
  }
  void wake() noexcept override { inner_->wake(); }
  Result<std::vector<std::uint64_t>> renew() override {
    return with_mischief(*mischief_, "renew", [&] { return inner_->renew(); });
  }
  Result<void> close() override { return inner_->close(); }
  [[nodiscard]] spi::Subscription* inner() const noexcept { return inner_.get(); }

 private:
  std::unique_ptr<spi::Subscription> inner_;
  std::shared_ptr<Mischief> mischief_;
};

class FlakyTransport final : public spi::Transport {
 public:
  FlakyTransport(std::shared_ptr<spi::Transport> inner, std::shared_ptr<Mischief> mischief)
      : inner_(std::move(inner)), mischief_(std::move(mischief)) {}
  [[nodiscard]] spi::Capabilities capabilities() const noexcept override { return inner_->capabilities(); }
  Result<void> declare(const spi::Topology& topology) override { return inner_->declare(topology); }
  Result<spi::Topology> topology(std::string_view topic, std::uint32_t count,
                                 spi::Deadline begin_by) override {
    return inner_->topology(topic, count, begin_by);
  }
  Result<std::vector<spi::PublishAnswer>> publish(std::span<spi::Envelope> envelopes,
                                                  spi::Deadline deadline) override {
    return with_mischief(*mischief_, "publish", [&] { return inner_->publish(envelopes, deadline); });
  }
  Result<std::unique_ptr<spi::Subscription>> subscribe(const spi::SubscribeOptions& options) override {
    auto made = inner_->subscribe(options);
    if (!made.ok()) return made;
    return std::unique_ptr<spi::Subscription>(
        std::make_unique<FlakySubscription>(std::move(*made), mischief_));
  }
  Result<std::vector<spi::GroupStatistics>> statistics() override { return inner_->statistics(); }

 private:
  std::shared_ptr<spi::Transport> inner_;
  std::shared_ptr<Mischief> mischief_;
};

class FlakyStore final : public spi::Store {
 public:
  FlakyStore(std::shared_ptr<spi::Store> inner, std::shared_ptr<Mischief> mischief)
      : inner_(std::move(inner)), mischief_(std::move(mischief)) {}
  Result<std::vector<Result<void>>> commit(std::span<const spi::Unit> units,
                                           spi::Deadline begin_by) override {
    return with_mischief(*mischief_, "commit", [&] { return inner_->commit(units, begin_by); });
  }
  Result<spi::DueBatch> claim_due(const spi::DueRequest& request) override {
    return with_mischief(*mischief_, "claim_due", [&] { return inner_->claim_due(request); });
  }
  Result<spi::DueBatch> promote_due(const spi::DueRequest& request) override {
    return with_mischief(*mischief_, "promote_due", [&] { return inner_->promote_due(request); });
  }
  void wake() noexcept override { inner_->wake(); }
  Result<std::optional<spi::ScheduleRecord>> find_schedule(const MessageId& id) override {
    return with_mischief(*mischief_, "find_schedule", [&] { return inner_->find_schedule(id); });
  }
  Result<Page<spi::ScheduleRecord>> list_schedule(const spi::ScheduleQuery& query) override {
    return with_mischief(*mischief_, "list_schedule", [&] { return inner_->list_schedule(query); });
  }
  Result<bool> has_fired(const MessageId& id) override {
    return with_mischief(*mischief_, "has_fired", [&] { return inner_->has_fired(id); });
  }
  Result<std::vector<spi::KeyBlock>> list_key_blocks(std::string_view group, std::string_view topic,
                                                     std::optional<std::uint32_t> partition) override {
    return with_mischief(*mischief_, "list_key_blocks",
                         [&] { return inner_->list_key_blocks(group, topic, partition); });
  }
  Result<std::optional<DeadLetter>> find_dead_letter(const MessageId& id) override {
    return with_mischief(*mischief_, "find_dead_letter", [&] { return inner_->find_dead_letter(id); });
  }
  Result<Page<DeadLetter>> list_dead_letters(const DeadLetterQuery& query) override {
    return with_mischief(*mischief_, "list_dead_letters", [&] { return inner_->list_dead_letters(query); });
  }
  Result<std::vector<DeadLetterGroup>> group_dead_letters(const DeadLetterQuery& query) override {
    return inner_->group_dead_letters(query);
  }
  Result<std::optional<MessageId>> find_dedup(std::string_view topic, std::string_view dedup_id) override {
    return with_mischief(*mischief_, "find_dedup", [&] { return inner_->find_dedup(topic, dedup_id); });
  }
  Result<std::vector<bool>> inbox_contains(std::string_view group, std::span<const MessageId> ids) override {
    return with_mischief(*mischief_, "inbox_contains", [&] { return inner_->inbox_contains(group, ids); });
  }
  Result<std::optional<spi::IdempotencyRecord>> find_idempotency(std::string_view scope,
                                                                 std::string_view key) override {
    return with_mischief(*mischief_, "find_idempotency",
                         [&] { return inner_->find_idempotency(scope, key); });
  }
  Result<spi::StreamSlice> read_stream(const spi::StreamRead& read) override {
    return with_mischief(*mischief_, "read_stream", [&] { return inner_->read_stream(read); });
  }
  Result<Page<StreamInfo>> list_streams(spi::StreamSpace space, std::string_view prefix,
                                        std::size_t count_max, std::string_view cursor) override {
    return with_mischief(*mischief_, "list_streams",
                         [&] { return inner_->list_streams(space, prefix, count_max, cursor); });
  }
  Result<std::optional<Snapshot>> find_snapshot(std::string_view stream) override {
    return with_mischief(*mischief_, "find_snapshot", [&] { return inner_->find_snapshot(stream); });
  }
  Result<std::optional<spi::EventCursor>> find_event_cursor(std::string_view name) override {
    return with_mischief(*mischief_, "find_event_cursor", [&] { return inner_->find_event_cursor(name); });
  }
  Result<std::uint64_t> wait_for_events(spi::StreamSpace space, std::uint64_t after, spi::Deadline deadline,
                                        const std::stop_token& stop) override {
    return with_mischief(*mischief_, "wait_for_events",
                         [&] { return inner_->wait_for_events(space, after, deadline, stop); });
  }
  Result<std::optional<SagaInfo>> find_saga(std::string_view type, std::string_view id) override {
    return with_mischief(*mischief_, "find_saga", [&] { return inner_->find_saga(type, id); });
  }
  Result<Page<SagaInfo>> list_sagas(const SagaQuery& query) override {
    return with_mischief(*mischief_, "list_sagas", [&] { return inner_->list_sagas(query); });
  }
  Result<std::vector<spi::ClientPosition>> client_positions(std::string_view user, std::string_view client,
                                                            std::string_view from,
                                                            std::size_t count_max) override {
    return with_mischief(*mischief_, "client_positions",
                         [&] { return inner_->client_positions(user, client, from, count_max); });
  }
  Result<std::vector<spi::MissedMessages>> missed_messages(std::string_view user, std::string_view from,
                                                           std::size_t count_max) override {
    return with_mischief(*mischief_, "missed_messages",
                         [&] { return inner_->missed_messages(user, from, count_max); });
  }
  Result<std::vector<spi::OutboxEntry>> read_outbox(std::size_t count_max, spi::Deadline deadline,
                                                    const std::stop_token& stop) override {
    return with_mischief(*mischief_, "read_outbox",
                         [&] { return inner_->read_outbox(count_max, deadline, stop); });
  }
  Result<spi::StoreStatistics> statistics() override { return inner_->statistics(); }
  Result<spi::SweepReport> sweep(const spi::SweepRequest& request) override {
    return with_mischief(*mischief_, "sweep", [&] { return inner_->sweep(request); });
  }
  Result<void> transact(const std::function<Result<void>(spi::SqlSession&)>& body,
                        std::span<const spi::Unit> units, spi::Subscription* settle) override {
    auto* flaky = dynamic_cast<FlakySubscription*>(settle);
    return with_mischief(*mischief_, "transact", [&] {
      return inner_->transact(body, units, flaky == nullptr ? settle : flaky->inner());
    });
  }

 private:
  std::shared_ptr<spi::Store> inner_;
  std::shared_ptr<Mischief> mischief_;
};

}  // namespace towline::faults
