#pragma once
// The two interfaces of the SPI over one Database.

#include <memory>

#include <towline/spi/driver.hpp>

#include "drivers/sqlite/database.hpp"

namespace towline::drivers::sqlite {

/// What every interface object of one engine shares. Engines of a process may have different clocks on one
/// file.
struct Handle {
  std::shared_ptr<Database> database;
  std::shared_ptr<spi::Clock> clock;
  bool waits = true;
  std::shared_ptr<const Log> log;

  [[nodiscard]] Moment now() const { return {clock->now(), clock->monotonic()}; }
};

class SqliteStore final : public spi::Store {
 public:
  explicit SqliteStore(Handle handle);
  ~SqliteStore() override;
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
  /// Runs `read`; before that, ends leases of dead letters that the clock has ended.
  template <typename T>
  Result<T> read_dead_letters(const std::function<Result<T>(Connection&)>& read);

  const Handle handle_;
  DueWaiter waiter_;
};

class SqliteTransport final : public spi::Transport {
 public:
  explicit SqliteTransport(Handle handle) : handle_(std::move(handle)) {}
  [[nodiscard]] spi::Capabilities capabilities() const noexcept override;
  Result<void> declare(const spi::Topology& topology) override;
  Result<spi::Topology> topology(std::string_view topic, std::uint32_t partition_count_default,
                                 spi::Deadline begin_by) override;
  Result<std::vector<spi::PublishAnswer>> publish(std::span<spi::Envelope> envelopes,
                                                  spi::Deadline deadline) override;
  Result<std::unique_ptr<spi::Subscription>> subscribe(const spi::SubscribeOptions& options) override;
  Result<std::vector<spi::GroupStatistics>> statistics() override;

 private:
  const Handle handle_;
};

class SqliteSubscription final : public spi::Subscription {
 public:
  SqliteSubscription(Handle handle, std::shared_ptr<Session> session)
      : handle_(std::move(handle)), session_(std::move(session)) {}
  ~SqliteSubscription() override;
  Result<spi::Received> receive(const spi::ReceiveRequest& request) override;
  void wake() noexcept override;
  Result<std::vector<std::uint64_t>> renew() override;
  Result<void> close() override;
  [[nodiscard]] const std::shared_ptr<Session>& session() const noexcept { return session_; }

 private:
  const Handle handle_;
  const std::shared_ptr<Session> session_;
};

}  // namespace towline::drivers::sqlite
