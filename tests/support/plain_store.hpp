#pragma once
// A store that hands every call on to another one, for those that change a few of them.

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string_view>
#include <utility>
#include <vector>

#include <towline/spi/store.hpp>

namespace towline::support {

class PlainStore : public spi::Store {
 public:
  explicit PlainStore(std::shared_ptr<spi::Store> inner) : inner_(std::move(inner)) {}
  Result<std::vector<Result<void>>> commit(std::span<const spi::Unit> units,
                                           spi::Deadline begin_by) override {
    return inner_->commit(units, begin_by);
  }
  Result<spi::DueBatch> claim_due(const spi::DueRequest& request) override {
    return inner_->claim_due(request);
  }
  Result<spi::DueBatch> promote_due(const spi::DueRequest& request) override {
    return inner_->promote_due(request);
  }
  void wake() noexcept override { inner_->wake(); }
  Result<std::optional<spi::ScheduleRecord>> find_schedule(const MessageId& id) override {
    return inner_->find_schedule(id);
  }
  Result<Page<spi::ScheduleRecord>> list_schedule(const spi::ScheduleQuery& query) override {
    return inner_->list_schedule(query);
  }
  Result<bool> has_fired(const MessageId& id) override { return inner_->has_fired(id); }
  Result<std::vector<spi::KeyBlock>> list_key_blocks(std::string_view group, std::string_view topic,
                                                     std::optional<std::uint32_t> partition) override {
    return inner_->list_key_blocks(group, topic, partition);
  }
  Result<std::optional<DeadLetter>> find_dead_letter(const MessageId& id) override {
    return inner_->find_dead_letter(id);
  }
  Result<Page<DeadLetter>> list_dead_letters(const DeadLetterQuery& query) override {
    return inner_->list_dead_letters(query);
  }
  Result<std::vector<DeadLetterGroup>> group_dead_letters(const DeadLetterQuery& query) override {
    return inner_->group_dead_letters(query);
  }
  Result<std::optional<MessageId>> find_dedup(std::string_view topic, std::string_view dedup_id) override {
    return inner_->find_dedup(topic, dedup_id);
  }
  Result<std::vector<bool>> inbox_contains(std::string_view group, std::span<const MessageId> ids) override {
    return inner_->inbox_contains(group, ids);
  }
  Result<std::optional<spi::IdempotencyRecord>> find_idempotency(std::string_view scope,
                                                                 std::string_view key) override {
    return inner_->find_idempotency(scope, key);
  }
  Result<spi::StreamSlice> read_stream(const spi::StreamRead& read) override {
    return inner_->read_stream(read);
  }
  Result<Page<StreamInfo>> list_streams(spi::StreamSpace space, std::string_view prefix,
                                        std::size_t count_max, std::string_view cursor) override {
    return inner_->list_streams(space, prefix, count_max, cursor);
  }
  Result<std::optional<Snapshot>> find_snapshot(std::string_view stream) override {
    return inner_->find_snapshot(stream);
  }
  Result<std::optional<spi::EventCursor>> find_event_cursor(std::string_view name) override {
    return inner_->find_event_cursor(name);
  }
  Result<std::uint64_t> wait_for_events(spi::StreamSpace space, std::uint64_t after, spi::Deadline deadline,
                                        const std::stop_token& stop) override {
    return inner_->wait_for_events(space, after, deadline, stop);
  }
  Result<std::optional<SagaInfo>> find_saga(std::string_view type, std::string_view id) override {
    return inner_->find_saga(type, id);
  }
  Result<Page<SagaInfo>> list_sagas(const SagaQuery& query) override { return inner_->list_sagas(query); }
  Result<std::vector<spi::ClientPosition>> client_positions(std::string_view user, std::string_view client,
                                                            std::string_view from,
                                                            std::size_t count_max) override {
    return inner_->client_positions(user, client, from, count_max);
  }
  Result<std::vector<spi::MissedMessages>> missed_messages(std::string_view user, std::string_view from,
                                                           std::size_t count_max) override {
    return inner_->missed_messages(user, from, count_max);
  }
  Result<std::vector<spi::OutboxEntry>> read_outbox(std::size_t count_max, spi::Deadline deadline,
                                                    const std::stop_token& stop) override {
    return inner_->read_outbox(count_max, deadline, stop);
  }
  Result<spi::StoreStatistics> statistics() override { return inner_->statistics(); }
  Result<spi::SweepReport> sweep(const spi::SweepRequest& request) override { return inner_->sweep(request); }
  Result<void> transact(const std::function<Result<void>(spi::SqlSession&)>& body,
                        std::span<const spi::Unit> units, spi::Subscription* settle) override {
    return inner_->transact(body, units, settle);
  }

 protected:
  const std::shared_ptr<spi::Store> inner_;
};

}  // namespace towline::support
