// The decorators. Order inside a call: stall, die or fail before; the call itself, and perhaps the loss of
// power in its middle; the history; die, stall or fail after.

#include "simulation/faults.hpp"

#include <algorithm>
#include <utility>
#include <variant>

#include "saga/record.hpp"
#include "simulation/plan.hpp"

namespace towline::simulation {
namespace {

Error unavailable() { return {ErrorCode::kUnavailable, "simulated outage"}; }
Error full() { return {ErrorCode::kStorageFull, "simulated full disk"}; }

std::uint8_t group_of(std::string_view name) noexcept {
  return name.empty() ? UINT8_MAX : static_cast<std::uint8_t>(number_in(name));
}

/// Other messages, those of sagas, have no number.
std::uint32_t number_in_envelope(const spi::Envelope& envelope) noexcept {
  return is_of_messages(envelope.topic) ? number_of(envelope.payload) : kNobody;
}

Answer answer_of(const Result<void>& result) noexcept {
  if (result.ok()) return Answer::kOk;
  switch (result.error().code) {
    case ErrorCode::kLeaseLost:
      return Answer::kLost;
    case ErrorCode::kConflict:
      return Answer::kConflict;
    case ErrorCode::kNotFound:
      return Answer::kNotFound;
    default:
      return Answer::kRejected;
  }
}

bool ends_a_delivery(const spi::Write& write) {
  if (std::holds_alternative<spi::PutDeadLetter>(write)) return true;
  const auto* put = std::get_if<spi::PutSchedule>(&write);
  return put != nullptr && !put->record.envelope.group.empty();
}

/// What all decorators of one process share.
struct Desk {
  Host& host;
  Seat seat;

  void require_alive() const {
    if (!host.alive(seat)) throw ProcessDied{};
  }

  [[nodiscard]] CallFaults enter(Call call) const {
    require_alive();
    const CallFaults faults = host.draw(seat, call);
    if (faults.stall_before > Duration(0)) host.stall(seat, faults.stall_before);
    require_alive();
    if (faults.die_before) host.die(seat);
    return faults;
  }

  /// Runs the call itself, with the power lost in its middle when that was drawn. What it did is to be told
  /// only when `stays` says that it is still there.
  template <typename F>
  auto execute(const CallFaults& faults, bool& stays, F&& call) const -> decltype(call()) {
    if (faults.power_loss) host.await_power_loss();
    auto result = call();
    stays = !faults.power_loss || host.lose_power();
    return result;
  }

  void leave(const CallFaults& faults) const {
    if (faults.power_loss) host.power_is_lost();
    if (faults.die_after) host.die(seat);
    if (faults.stall_after > Duration(0)) host.stall(seat, faults.stall_after);
    require_alive();
  }

  template <typename F>
  auto run(Call kind, F&& call) const -> decltype(call()) {
    const CallFaults faults = enter(kind);
    if (faults.fail_before) return unavailable();
    bool stays = true;
    auto result = this->execute(faults, stays, call);
    leave(faults);
    if (faults.fail_after) return unavailable();
    return result;
  }

  [[nodiscard]] Record record(Event event) const {
    Record r;
    r.event = event;
    r.process = seat.process;
    return r;
  }
};

/// Writes units into the history.
class UnitScribe {
 public:
  UnitScribe(const Desk& desk, std::uint32_t session) : desk_(desk), session_(session) {}

  /// A unit may carry several deliveries: each begins with its settlement, and what follows is about it.
  void note(const spi::Unit& unit, const Result<void>& result) {
    spi::Unit part;
    for (const spi::Write& write : unit.writes) {
      if (std::holds_alternative<spi::Settle>(write) && !part.writes.empty()) {
        note_part(part, result);
        part.writes.clear();
      }
      part.writes.push_back(write);
    }
    note_part(part, result);
  }

  void note_part(const spi::Unit& unit, const Result<void>& result) {
    Record about;  // the record that the unit stores, if any
    about.verb = Verb::kAck;
    const bool redrive = std::any_of(unit.writes.begin(), unit.writes.end(), [](const spi::Write& write) {
      return std::holds_alternative<spi::UpdateDeadLetter>(write);
    });
    for (const spi::Write& write : unit.writes) {
      if (const auto* put = std::get_if<spi::PutSchedule>(&write); put != nullptr && !redrive) {
        scheduled(*put, about, result);
      }
      if (const auto* put = std::get_if<spi::PutDeadLetter>(&write)) dead(*put, about, result);
      if (const auto* update = std::get_if<spi::UpdateDeadLetter>(&write)) updated(*update, unit, result);
      if (const auto* append = std::get_if<spi::AppendEvents>(&write)) appended(*append, result);
      if (const auto* cursor = std::get_if<spi::PutEventCursor>(&write)) checkpoint(cursor->cursor, result);
      if (const auto* block = std::get_if<spi::PutKeyBlock>(&write)) {
        keyed(Event::kBlock, block->block.group, block->block.partition, block->block.key, block->block.held,
              result);
      }
      if (const auto* next = std::get_if<spi::UnparkNext>(&write)) {
        keyed(Event::kUnpark, next->group, next->partition, next->key, false, result);
      }
    }
    for (const spi::Write& write : unit.writes) {
      if (const auto* settle = std::get_if<spi::Settle>(&write)) settled(settle->settlement, about, result);
    }
  }

  void settled(const spi::Settlement& settlement, const Record& about, const Result<void>& result) {
    Record r = about;
    r.event = Event::kSettle;
    r.process = desk_.seat.process;
    r.session = session_;
    r.lease = settlement.token.lease;
    r.index = settlement.token.index;
    r.answer = answer_of(result);
    if (settlement.verb == spi::Verb::kRelease) r.verb = Verb::kRelease;
    desk_.host.note(r);
  }

 private:
  void scheduled(const spi::PutSchedule& put, Record& about, const Result<void>& result) {
    const spi::Envelope& envelope = put.record.envelope;
    desk_.host.know_message(envelope.id, number_in_envelope(envelope));
    if (envelope.group.empty()) return;  // what a user delays: the producer's own record tells it
    about.verb = put.record.parked ? Verb::kPark : Verb::kRetry;
    about.message = number_in_envelope(envelope);
    about.group = group_of(envelope.group);
    about.attempt = envelope.attempt;
    about.crashes = envelope.crashes;
    about.redrives = envelope.redrives;
    about.heads_key = envelope.heads_key;
    about.until_wall = put.record.parked ? TimePoint{} : put.record.due_at;
    store(about, result);
  }
  void dead(const spi::PutDeadLetter& put, Record& about, const Result<void>& result) {
    about.verb = Verb::kDeadLetter;
    about.message = is_of_messages(put.record.topic) ? number_of(put.record.payload) : kNobody;
    about.group = group_of(put.record.group);
    about.attempt = put.record.attempt;
    about.crashes = put.record.crashes;
    about.redrives = put.record.reprocess_count;
    about.reason = static_cast<std::uint8_t>(put.record.reason);
    if (result.ok()) desk_.host.know_entry(put.record.id, about.message, about.group);
    store(about, result);
  }
  void keyed(Event event, const std::string& group, std::uint32_t partition, const std::string& key,
             bool held, const Result<void>& result) {
    if (!is_of_messages(group)) return;
    Record r = desk_.record(event);
    r.session = session_;
    r.group = group_of(group);
    r.number = partition;
    r.index = held ? 1 : 0;
    r.lease = key.empty() ? 0 : number_in(key) + 1;
    r.answer = answer_of(result);
    desk_.host.note(r);
  }
  void store(const Record& about, const Result<void>& result) {
    Record r = about;
    r.event = Event::kStored;
    r.process = desk_.seat.process;
    r.session = session_;
    r.answer = answer_of(result);
    desk_.host.note(r);
  }
  void appended(const spi::AppendEvents& append, const Result<void>& result) {
    if (append.space == spi::StreamSpace::kEvents && result.ok()) events_there(append);
    if (append.space != spi::StreamSpace::kSagas || !result.ok()) return;
    for (const RecordedEvent& event : append.events) {
      const auto entry = saga::from_event(event);
      if (!entry) continue;  // the dump at the end shows it
      Record r = desk_.record(Event::kSagaLog);
      r.number = number_in(append.stream.substr(append.stream.find('/') + 1));
      r.index = entry->step.empty() ? kNobody : static_cast<std::uint32_t>(entry->step[0] - 'a');
      r.attempt = entry->attempt;
      r.reason = static_cast<std::uint8_t>(entry->mark);
      desk_.host.note(r);
    }
  }
  void events_there(const spi::AppendEvents& append) {
    if (append.appended == nullptr || append.appended->duplicate) return;
    Record r = desk_.record(Event::kEventsThere);
    r.redrives = number_of(append.events.front().payload);
    r.attempt = static_cast<std::uint32_t>(append.events.size());
    r.index = simulation::number_in(append.stream);
    desk_.host.note(r);
  }
  void checkpoint(const spi::EventCursor& cursor, const Result<void>& result) {
    Record r = desk_.record(Event::kCheckpoint);
    r.session = simulation::number_in(cursor.name);
    r.number = cursor.place;
    if (result.ok()) desk_.host.note(r);
  }
  void updated(const spi::UpdateDeadLetter& update, const spi::Unit& unit, const Result<void>& result) {
    Record r =
        desk_.record(update.status == DeadLetterStatus::kDiscarded ? Event::kDiscard : Event::kRedrive);
    std::tie(r.message, r.group) = desk_.host.whose_entry(update.id);
    r.answer = answer_of(result);
    for (const spi::Write& write : unit.writes) {
      const spi::Envelope* envelope = nullptr;
      if (const auto* publish = std::get_if<spi::Publish>(&write)) envelope = &publish->envelope;
      if (const auto* put = std::get_if<spi::PutSchedule>(&write)) envelope = &put->record.envelope;
      if (envelope != nullptr) r.redrives = envelope->redrives;
    }
    if (update.status == DeadLetterStatus::kResolved || update.status == DeadLetterStatus::kDiscarded)
      desk_.host.note(r);
  }

  const Desk& desk_;
  const std::uint32_t session_;
};

class FaultySubscription final : public spi::Subscription {
 public:
  FaultySubscription(Desk desk, std::unique_ptr<spi::Subscription> inner,
                     const spi::SubscribeOptions& options, std::uint32_t session)
      : desk_(desk),
        inner_(std::move(inner)),
        group_(group_of(options.group)),
        is_of_messages_(is_of_messages(options.group)),
        lease_(options.lease),
        ordered_(options.order != spi::OrderMode::kUnordered),
        session_(session) {}

  Result<spi::Received> receive(const spi::ReceiveRequest& request) override {
    const CallFaults faults = desk_.enter(Call::kReceive);
    if (faults.fail_before) return unavailable();
    release_orphans();
    std::vector<spi::Unit> passed;
    const std::vector<bool> refused = refuse_some(request.units);
    spi::ReceiveRequest inner = request;
    if (!refused.empty()) {
      for (std::size_t i = 0; i < request.units.size(); ++i) {
        if (!refused[i]) passed.push_back(request.units[i]);
      }
      inner.units = passed;
    }
    bool stays = true;
    auto received = desk_.execute(faults, stays, [&] { return inner_->receive(inner); });
    if (faults.power_loss && (!stays || !received)) desk_.leave(faults);
    if (!received) return received;
    if (!refused.empty()) put_back(*received, refused);
    note(request, *received, faults.fail_after);
    if (!received->deliveries.empty() || !request.settlements.empty() || !request.units.empty())
      desk_.host.touch();
    const MonotonicTime until = desk_.host.time().monotonic + lease_;
    desk_.leave(faults);
    if (!faults.fail_after) return received;
    // The answer is lost. Nobody renews what it handed out, so that comes back when its lease ends; in an
    // ordered subscription before anything else is handed out, as the order demands.
    for (const spi::Delivery& delivery : received->deliveries) {
      orphans_.push_back({delivery.token, until});
    }
    return unavailable();
  }

  void wake() noexcept override { inner_->wake(); }

  Result<std::vector<std::uint64_t>> renew() override {
    const CallFaults faults = desk_.enter(Call::kRenew);
    if (faults.fail_before) return unavailable();
    release_orphans();
    bool stays = true;
    auto lost = desk_.execute(faults, stays, [&] { return inner_->renew(); });
    if (faults.power_loss && (!stays || !lost)) desk_.leave(faults);
    if (!lost) return lost;
    if (is_of_messages_) note_renewal(*lost);
    desk_.leave(faults);
    if (faults.fail_after) return unavailable();
    return lost;
  }

  Result<void> close() override {
    const CallFaults faults = desk_.enter(Call::kClose);
    if (faults.fail_before) return unavailable();
    bool stays = true;
    auto closed = desk_.execute(faults, stays, [&] { return inner_->close(); });
    if (closed.ok() && stays) {
      Record r = desk_.record(Event::kClose);
      r.session = session_;
      desk_.host.note(r);
      desk_.host.touch();
    }
    desk_.leave(faults);
    if (faults.fail_after) return unavailable();
    return closed;
  }

 private:
  struct Orphan {
    spi::Token token;
    MonotonicTime until;
  };

  void note_renewal(const std::vector<std::uint64_t>& lost) const {
    Record r = desk_.record(Event::kRenew);
    r.session = session_;
    r.group = group_;
    r.until = desk_.host.time().monotonic + lease_;
    for (const std::uint64_t lease : lost) {
      Record gone = r;
      gone.event = Event::kLeaseLost;
      gone.lease = lease;
      desk_.host.note(gone);
    }
    desk_.host.note(r);
  }

  void release_orphans() {
    std::vector<spi::Settlement> back;
    std::vector<bool> in_time;
    const MonotonicTime now = desk_.host.time().monotonic;
    const auto goes = [&](const Orphan& orphan) { return orphan.until <= now || ordered_; };
    for (const Orphan& orphan : orphans_) {
      if (!goes(orphan)) continue;
      back.push_back({orphan.token, spi::Verb::kRelease});
      in_time.push_back(orphan.until > now);
    }
    if (back.empty()) return;
    spi::ReceiveRequest request;
    request.settlements = back;
    request.deadline = now;
    const auto received = inner_->receive(request);
    if (!received) return;  // again with the next call
    std::erase_if(orphans_, goes);
    for (std::uint32_t i = 0; i < back.size(); ++i) {
      const bool lost = std::find(received->lost.begin(), received->lost.end(), i) != received->lost.end();
      if (in_time[i] && !lost && is_of_messages_) UnitScribe(desk_, session_).settled(back[i], {}, {});
    }
    desk_.host.touch();
  }

  [[nodiscard]] std::vector<bool> refuse_some(std::span<const spi::Unit> units) const {
    std::vector<bool> refused;
    for (std::size_t i = 0; i < units.size(); ++i) {
      const auto& writes = units[i].writes;
      const bool refusable = std::any_of(writes.begin(), writes.end(), ends_a_delivery);
      if (!refusable || !desk_.host.refuses(desk_.seat)) continue;
      refused.resize(units.size());
      refused[i] = true;
    }
    return refused;
  }

  static void put_back(spi::Received& received, const std::vector<bool>& refused) {
    std::vector<Result<void>> all;
    std::size_t next = 0;
    for (const bool was_refused : refused) {
      if (was_refused) {
        all.emplace_back(full());
      } else {
        all.push_back(received.units.empty() ? Result<void>{} : received.units[next]);
        ++next;
      }
    }
    received.units = std::move(all);
  }

  void note(const spi::ReceiveRequest& request, const spi::Received& received, bool answer_lost) {
    if (!is_of_messages_) return;
    UnitScribe scribe(desk_, session_);
    const Error lost{ErrorCode::kLeaseLost, {}};
    for (std::uint32_t i = 0; i < request.settlements.size(); ++i) {
      const bool is_lost = std::find(received.lost.begin(), received.lost.end(), i) != received.lost.end();
      Record about;
      about.group = group_;
      scribe.settled(request.settlements[i], about, is_lost ? Result<void>(lost) : Result<void>{});
    }
    for (std::size_t i = 0; i < request.units.size(); ++i) {
      scribe.note(request.units[i], received.units.empty() ? Result<void>{} : received.units[i]);
    }
    for (const spi::Delivery& delivery : received.deliveries) {
      const spi::Envelope& envelope = *delivery.envelope;
      Record r = desk_.record(Event::kHandOut);
      r.answer = answer_lost ? Answer::kUnknown : Answer::kOk;
      r.session = session_;
      r.group = group_;
      r.message = number_in_envelope(envelope);
      r.attempt = envelope.attempt;
      r.crashes = delivery.crashes;
      r.redrives = envelope.redrives;
      r.heads_key = envelope.heads_key;
      r.lease = delivery.token.lease;
      r.index = delivery.token.index;
      r.number = delivery.epoch;
      r.until = desk_.host.time().monotonic + lease_;
      desk_.host.note(r);
    }
  }

  const Desk desk_;
  const std::unique_ptr<spi::Subscription> inner_;
  const std::uint8_t group_;
  const bool is_of_messages_;  ///< others are none of the history's business
  const Duration lease_;
  const bool ordered_;
  const std::uint32_t session_;
  std::vector<Orphan> orphans_;
};

class FaultyTransport final : public spi::Transport {
 public:
  FaultyTransport(Desk desk, std::shared_ptr<spi::Transport> inner) : desk_(desk), inner_(std::move(inner)) {}

  [[nodiscard]] spi::Capabilities capabilities() const noexcept override { return inner_->capabilities(); }
  Result<void> declare(const spi::Topology& topology) override {
    return desk_.run(Call::kRead, [&] { return inner_->declare(topology); });
  }
  Result<spi::Topology> topology(std::string_view topic, std::uint32_t partition_count_default,
                                 spi::Deadline begin_by) override {
    return desk_.run(Call::kRead, [&] { return inner_->topology(topic, partition_count_default, begin_by); });
  }
  Result<std::vector<spi::PublishAnswer>> publish(std::span<spi::Envelope> envelopes,
                                                  spi::Deadline deadline) override {
    const CallFaults faults = desk_.enter(Call::kPublish);
    if (faults.fail_before) return unavailable();
    if (faults.refuse) return full();
    for (const spi::Envelope& envelope : envelopes) {
      desk_.host.know_message(envelope.id, number_in_envelope(envelope));
    }
    bool stays = true;
    auto answers = desk_.execute(faults, stays, [&] { return inner_->publish(envelopes, deadline); });
    desk_.host.touch();
    desk_.leave(faults);
    if (faults.fail_after) return unavailable();
    return answers;
  }
  Result<std::unique_ptr<spi::Subscription>> subscribe(const spi::SubscribeOptions& options) override {
    return desk_.run(Call::kSubscribe, [&]() -> Result<std::unique_ptr<spi::Subscription>> {
      auto inner = inner_->subscribe(options);
      if (!inner) return inner;
      desk_.host.touch();
      return std::unique_ptr<spi::Subscription>(
          std::make_unique<FaultySubscription>(desk_, std::move(*inner), options, desk_.host.new_session()));
    });
  }
  Result<std::vector<spi::GroupStatistics>> statistics() override {
    return desk_.run(Call::kRead, [&] { return inner_->statistics(); });
  }

 private:
  const Desk desk_;
  const std::shared_ptr<spi::Transport> inner_;
};

class FaultyStore final : public spi::Store {
 public:
  FaultyStore(Desk desk, std::shared_ptr<spi::Store> inner) : desk_(desk), inner_(std::move(inner)) {}

  Result<std::vector<Result<void>>> commit(std::span<const spi::Unit> units,
                                           spi::Deadline begin_by) override {
    const CallFaults faults = desk_.enter(Call::kCommit);
    if (faults.fail_before) return unavailable();
    if (faults.refuse) return std::vector<Result<void>>(units.size(), full());
    bool stays = true;
    auto results = desk_.execute(faults, stays, [&] { return inner_->commit(units, begin_by); });
    if (results.ok() && stays) {
      UnitScribe scribe(desk_, 0);
      for (std::size_t i = 0; i < units.size(); ++i) {
        scribe.note(units[i], results->empty() ? Result<void>{} : (*results)[i]);
      }
      desk_.host.touch();
    }
    desk_.leave(faults);
    if (faults.fail_after) return unavailable();
    return results;
  }
  Result<spi::DueBatch> claim_due(const spi::DueRequest& request) override {
    return due([&] { return inner_->claim_due(request); });
  }
  Result<spi::DueBatch> promote_due(const spi::DueRequest& request) override {
    return due([&] { return inner_->promote_due(request); });
  }
  void wake() noexcept override { inner_->wake(); }

  Result<std::optional<spi::ScheduleRecord>> find_schedule(const MessageId& id) override {
    return desk_.run(Call::kRead, [&] { return inner_->find_schedule(id); });
  }
  Result<Page<spi::ScheduleRecord>> list_schedule(const spi::ScheduleQuery& query) override {
    return desk_.run(Call::kRead, [&] { return inner_->list_schedule(query); });
  }
  Result<bool> has_fired(const MessageId& id) override {
    return desk_.run(Call::kRead, [&] { return inner_->has_fired(id); });
  }
  Result<std::vector<spi::KeyBlock>> list_key_blocks(std::string_view group, std::string_view topic,
                                                     std::optional<std::uint32_t> partition) override {
    return desk_.run(Call::kRead, [&] { return inner_->list_key_blocks(group, topic, partition); });
  }
  Result<std::optional<DeadLetter>> find_dead_letter(const MessageId& id) override {
    return desk_.run(Call::kRead, [&] { return inner_->find_dead_letter(id); });
  }
  Result<Page<DeadLetter>> list_dead_letters(const DeadLetterQuery& query) override {
    return desk_.run(Call::kRead, [&] { return inner_->list_dead_letters(query); });
  }
  Result<std::vector<DeadLetterGroup>> group_dead_letters(const DeadLetterQuery& query) override {
    return desk_.run(Call::kRead, [&] { return inner_->group_dead_letters(query); });
  }
  Result<std::optional<MessageId>> find_dedup(std::string_view topic, std::string_view dedup_id) override {
    return desk_.run(Call::kRead, [&] { return inner_->find_dedup(topic, dedup_id); });
  }
  Result<std::vector<bool>> inbox_contains(std::string_view group, std::span<const MessageId> ids) override {
    return desk_.run(Call::kRead, [&] { return inner_->inbox_contains(group, ids); });
  }
  Result<std::optional<spi::IdempotencyRecord>> find_idempotency(std::string_view scope,
                                                                 std::string_view key) override {
    return desk_.run(Call::kRead, [&] { return inner_->find_idempotency(scope, key); });
  }
  Result<spi::StreamSlice> read_stream(const spi::StreamRead& read) override {
    return desk_.run(Call::kRead, [&] { return inner_->read_stream(read); });
  }
  Result<Page<StreamInfo>> list_streams(spi::StreamSpace space, std::string_view prefix,
                                        std::size_t count_max, std::string_view cursor) override {
    return desk_.run(Call::kRead, [&] { return inner_->list_streams(space, prefix, count_max, cursor); });
  }
  Result<std::optional<Snapshot>> find_snapshot(std::string_view stream) override {
    return desk_.run(Call::kRead, [&] { return inner_->find_snapshot(stream); });
  }
  Result<std::optional<spi::EventCursor>> find_event_cursor(std::string_view name) override {
    return desk_.run(Call::kRead, [&] { return inner_->find_event_cursor(name); });
  }
  Result<std::uint64_t> wait_for_events(spi::StreamSpace space, std::uint64_t after, spi::Deadline deadline,
                                        const std::stop_token& stop) override {
    return desk_.run(Call::kRead, [&] { return inner_->wait_for_events(space, after, deadline, stop); });
  }
  Result<std::optional<SagaInfo>> find_saga(std::string_view type, std::string_view id) override {
    return desk_.run(Call::kRead, [&] { return inner_->find_saga(type, id); });
  }
  Result<Page<SagaInfo>> list_sagas(const SagaQuery& query) override {
    return desk_.run(Call::kRead, [&] { return inner_->list_sagas(query); });
  }
  Result<std::vector<spi::ClientPosition>> client_positions(std::string_view user, std::string_view client,
                                                            std::string_view from,
                                                            std::size_t count_max) override {
    return desk_.run(Call::kRead, [&] { return inner_->client_positions(user, client, from, count_max); });
  }
  Result<std::vector<spi::MissedMessages>> missed_messages(std::string_view user, std::string_view from,
                                                           std::size_t count_max) override {
    return desk_.run(Call::kRead, [&] { return inner_->missed_messages(user, from, count_max); });
  }
  Result<std::vector<spi::OutboxEntry>> read_outbox(std::size_t count_max, spi::Deadline deadline,
                                                    const std::stop_token& stop) override {
    return desk_.run(Call::kRead, [&] { return inner_->read_outbox(count_max, deadline, stop); });
  }
  Result<spi::StoreStatistics> statistics() override {
    return desk_.run(Call::kRead, [&] { return inner_->statistics(); });
  }
  Result<spi::SweepReport> sweep(const spi::SweepRequest& request) override {
    const CallFaults faults = desk_.enter(Call::kSweep);
    if (faults.fail_before) return unavailable();
    bool stays = true;
    auto report = desk_.execute(faults, stays, [&] { return inner_->sweep(request); });
    if (report.ok() && stays && report->dead_letters > 0) {
      Record r = desk_.record(Event::kRemoved);
      r.number = report->dead_letters;
      desk_.host.note(r);
    }
    desk_.leave(faults);
    if (faults.fail_after) return unavailable();
    return report;
  }
  Result<void> transact(const std::function<Result<void>(spi::SqlSession&)>& body,
                        std::span<const spi::Unit> units, spi::Subscription* settle) override {
    return desk_.run(Call::kCommit, [&] { return inner_->transact(body, units, settle); });
  }

 private:
  template <typename F>
  Result<spi::DueBatch> due(F&& execute) {
    return desk_.run(Call::kDue, [&] {
      auto batch = execute();
      if (!batch.ok()) return batch;
      if (batch->promoted_count > 0 || !batch->records.empty()) desk_.host.touch();
      if (batch->next_due_at) desk_.host.next_due(desk_.seat, *batch->next_due_at);
      return batch;
    });
  }

  const Desk desk_;
  const std::shared_ptr<spi::Store> inner_;
};

}  // namespace

std::uint32_t number_of(std::string_view payload) noexcept {
  if (payload.size() < 4) return kNobody;
  std::uint32_t number = 0;
  for (std::size_t i = 0; i < 4; ++i)
    number |= static_cast<std::uint32_t>(static_cast<unsigned char>(payload[i])) << (8 * i);
  return number;
}

Bytes payload_of(std::uint32_t number) {
  Bytes payload;
  for (std::size_t i = 0; i < 4; ++i)
    payload.push_back(static_cast<char>(number >> (8 * i) & 0xff));
  payload.append(number * 7 % 41, static_cast<char>('a' + number % 26));
  return payload;
}

spi::Provider with_faults(spi::Provider provider, Host& host, Seat seat) {
  const Desk desk{host, seat};
  provider.transport = std::make_shared<FaultyTransport>(desk, std::move(provider.transport));
  provider.store = std::make_shared<FaultyStore>(desk, std::move(provider.store));
  return provider;
}

}  // namespace towline::simulation
