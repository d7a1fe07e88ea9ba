#pragma once
// The driver interfaces over a hub. Each engine has its own transport and store object, with its own clock;
// all calls take the hub's mutex, and a call that waits does so on a condition variable of its own through
// its clock.

#include <memory>
#include <utility>

#include <towline/spi/clock.hpp>
#include <towline/spi/store.hpp>
#include <towline/spi/transport.hpp>

#include "drivers/memory/hub.hpp"

namespace towline::drivers::memory {

/// What an engine's objects share.
struct Handle {
  std::shared_ptr<Hub> hub;
  std::shared_ptr<spi::Clock> clock;
  /// False: no call waits.
  bool waits = true;

  [[nodiscard]] Moment now() const noexcept { return {clock->now(), clock->monotonic()}; }
};

class MemoryTransport final : public spi::Transport {
 public:
  explicit MemoryTransport(Handle handle) : handle_(std::move(handle)) {}

  [[nodiscard]] spi::Capabilities capabilities() const noexcept override;
  Result<void> declare(const spi::Topology& topology) override;
  Result<spi::Topology> topology(std::string_view topic, std::uint32_t partition_count_default,
                                 spi::Deadline begin_by) override;
  Result<std::vector<spi::PublishAnswer>> publish(std::span<spi::Envelope> envelopes,
                                                  spi::Deadline deadline) override;
  Result<std::unique_ptr<spi::Subscription>> subscribe(const spi::SubscribeOptions& options) override;
  Result<std::vector<spi::GroupStatistics>> statistics() override;

  [[nodiscard]] Hub& hub() const noexcept { return *handle_.hub; }

 private:
  Handle handle_;
};

class MemorySubscription final : public spi::Subscription {
 public:
  MemorySubscription(Handle handle, Session& session) : handle_(std::move(handle)), session_(&session) {}
  ~MemorySubscription() override;
  MemorySubscription(const MemorySubscription&) = delete;
  MemorySubscription& operator=(const MemorySubscription&) = delete;

  Result<spi::Received> receive(const spi::ReceiveRequest& request) override;
  void wake() noexcept override;
  Result<std::vector<std::uint64_t>> renew() override;
  Result<void> close() override;

 private:
  void settle(const spi::ReceiveRequest& request, Moment now, spi::Received& received);

  Handle handle_;
  /// Null once closed. Guarded by the hub's mutex.
  Session* session_;
};

class MemoryStore final : public spi::Store {
 public:
  explicit MemoryStore(Handle handle);
  ~MemoryStore() override;
  MemoryStore(const MemoryStore&) = delete;
  MemoryStore& operator=(const MemoryStore&) = delete;

  Result<std::vector<Result<void>>> commit(std::span<const spi::Unit> units, spi::Deadline begin_by) override;
  Result<spi::DueBatch> claim_due(const spi::DueRequest& request) override;
  Result<spi::DueBatch> promote_due(const spi::DueRequest& request) override;
  void wake() noexcept override;

  Result<std::optional<spi::ScheduleRecord>> find_schedule(const MessageId& id) override;
  Result<Page<spi::ScheduleRecord>> list_schedule(const spi::ScheduleQuery& query) override;
  Result<bool> has_fired(const MessageId& id) override;
  Result<std::vector<spi::KeyBlock>> list_key_blocks(std::string_view group, std::string_view topic,
                                                     std::optional<std::uint32_t> partition) override;
  Result<std::optional<DeadLetter>> find_dead_letter(const MessageId& id) override;
  Result<Page<DeadLetter>> list_dead_letters(const DeadLetterQuery& query) override;
  Result<std::vector<DeadLetterGroup>> group_dead_letters(const DeadLetterQuery& query) override;
  Result<std::optional<MessageId>> find_dedup(std::string_view topic, std::string_view dedup_id) override;
  Result<std::vector<bool>> inbox_contains(std::string_view group, std::span<const MessageId> ids) override;
  Result<std::optional<spi::IdempotencyRecord>> find_idempotency(std::string_view scope,
                                                                 std::string_view key) override;
  Result<spi::StreamSlice> read_stream(const spi::StreamRead& read) override;
  Result<Page<StreamInfo>> list_streams(spi::StreamSpace space, std::string_view prefix,
                                        std::size_t count_max, std::string_view cursor) override;
  Result<std::optional<Snapshot>> find_snapshot(std::string_view stream) override;
  Result<std::optional<spi::EventCursor>> find_event_cursor(std::string_view name) override;
  Result<std::uint64_t> wait_for_events(spi::StreamSpace space, std::uint64_t after, spi::Deadline deadline,
                                        const std::stop_token& stop) override;
  Result<std::optional<SagaInfo>> find_saga(std::string_view type, std::string_view id) override;
  Result<Page<SagaInfo>> list_sagas(const SagaQuery& query) override;
  Result<std::vector<spi::ClientPosition>> client_positions(std::string_view user, std::string_view client,
                                                            std::string_view from,
                                                            std::size_t count_max) override;
  Result<std::vector<spi::MissedMessages>> missed_messages(std::string_view user, std::string_view from,
                                                           std::size_t count_max) override;
  Result<std::vector<spi::OutboxEntry>> read_outbox(std::size_t count_max, spi::Deadline deadline,
                                                    const std::stop_token& stop) override;
  Result<spi::StoreStatistics> statistics() override;
  Result<spi::SweepReport> sweep(const spi::SweepRequest& request) override;
  Result<void> transact(const std::function<Result<void>(spi::SqlSession&)>& body,
                        std::span<const spi::Unit> units, spi::Subscription* settle) override;

 private:
  Result<spi::DueBatch> wait_for_due(const spi::DueRequest& request, bool promote);

  Handle handle_;
  DueWaiter waiter_;
};

}  // namespace towline::drivers::memory
