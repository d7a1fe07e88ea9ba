// See the header. Each mutant is a few lines in the one call that it gets wrong.

#include "simulation/mutants.hpp"

#include <algorithm>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "saga/record.hpp"
#include "support/plain_store.hpp"

namespace towline::simulation {
namespace {

struct Row {
  const char* name;
  const char* origin;
};

constexpr std::array<Row, kMutantCount> kRows = {{
    {"none", ""},
    {"drops-due-beyond-limit", "NAI-01"},
    {"cancel-always-wins", "NAI-02"},
    {"acknowledges-on-receipt", "NAI-03"},
    {"settles-then-stores", "NAI-04"},
    {"stores-then-settles", "NAI-04"},
    {"forgets-attempts", "NAI-04"},
    {"sets-without-comparing", "NAI-05"},
    {"dedup-in-process", "NAI-06"},
    {"ignores-credit", "NAI-07"},
    {"redrives-in-two-steps", "NAI-09"},
    {"publishes-twice", "NAI-11"},
    {"hides-errors", "NAI-14"},
    {"lease-by-wall-clock", ""},
    {"fires-early", ""},
    {"forgets-blocks", ""},
    {"releases-to-the-end", ""},
    {"loses-dead-letters", ""},
    {"charges-all", ""},
    {"cleans-only-resolved", "NAI-10"},
    {"starts-loops-again", "NAI-12"},
    {"reads-from-the-start", "NAI-13"},
    {"discards-when-full", "NAI-16"},
    {"forgets-saga-steps", "NAI-08"},
    {"skips-failed-step", "NAI-08"},
    {"undoes-forwards", "NAI-08"},
    {"follows-from-the-start", "NAI-13"},
    {"passes-uncommitted", "NAI-15"},
    {"appends-anywhere", "NAI-15"},
}};

template <typename T>
bool has(const spi::Unit& unit) {
  return std::any_of(unit.writes.begin(), unit.writes.end(),
                     [](const spi::Write& write) { return std::holds_alternative<T>(write); });
}

template <typename T>
void take_out(spi::Unit& unit) {
  std::erase_if(unit.writes, [](const spi::Write& write) { return std::holds_alternative<T>(write); });
}

// ---- what every decorator passes on ---------------------------------------------------------------

class PlainSubscription : public spi::Subscription {
 public:
  explicit PlainSubscription(std::unique_ptr<spi::Subscription> inner) : inner_(std::move(inner)) {}
  Result<spi::Received> receive(const spi::ReceiveRequest& request) override {
    return inner_->receive(request);
  }
  void wake() noexcept override { inner_->wake(); }
  Result<std::vector<std::uint64_t>> renew() override { return inner_->renew(); }
  Result<void> close() override { return inner_->close(); }

 protected:
  const std::unique_ptr<spi::Subscription> inner_;
};

class PlainTransport : public spi::Transport {
 public:
  explicit PlainTransport(std::shared_ptr<spi::Transport> inner) : inner_(std::move(inner)) {}
  [[nodiscard]] spi::Capabilities capabilities() const noexcept override { return inner_->capabilities(); }
  Result<void> declare(const spi::Topology& topology) override { return inner_->declare(topology); }
  Result<spi::Topology> topology(std::string_view topic, std::uint32_t partition_count_default,
                                 spi::Deadline begin_by) override {
    return inner_->topology(topic, partition_count_default, begin_by);
  }
  Result<std::vector<spi::PublishAnswer>> publish(std::span<spi::Envelope> envelopes,
                                                  spi::Deadline deadline) override {
    return inner_->publish(envelopes, deadline);
  }
  Result<std::unique_ptr<spi::Subscription>> subscribe(const spi::SubscribeOptions& options) override {
    return inner_->subscribe(options);
  }
  Result<std::vector<spi::GroupStatistics>> statistics() override { return inner_->statistics(); }

 protected:
  const std::shared_ptr<spi::Transport> inner_;
};

// ---- a wrong provider -----------------------------------------------------------------------------

void spoil_unit(spi::Unit& unit, Mutant mutant) {
  if (mutant == Mutant::kForgetsBlocks && !has<spi::UnparkNext>(unit)) take_out<spi::PutKeyBlock>(unit);
  if (mutant == Mutant::kLosesDeadLetters) take_out<spi::PutDeadLetter>(unit);
  for (spi::Write& write : unit.writes) {
    auto* append = std::get_if<spi::AppendEvents>(&write);
    const bool is_of_events = append != nullptr && append->space == spi::StreamSpace::kEvents;
    if (is_of_events && mutant == Mutant::kAppendsAnywhere) append->expected.reset();
    auto* put = std::get_if<spi::PutSchedule>(&write);
    if (put == nullptr || put->record.parked) continue;
    if (mutant == Mutant::kForgetsAttempts && !put->record.envelope.group.empty()) {
      put->record.envelope.attempt = 1;
    }
    if (mutant == Mutant::kFiresEarly) {
      put->record.due_at = std::chrono::floor<std::chrono::seconds>(put->record.due_at);
    }
  }
}

std::vector<spi::Unit> spoiled(std::span<const spi::Unit> units, Mutant mutant) {
  std::vector<spi::Unit> all(units.begin(), units.end());
  for (spi::Unit& unit : all)
    spoil_unit(unit, mutant);
  return all;
}

/// Positions of events that were given and are not committed yet, as readers see it: until two more appends.
using Hidden = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

std::shared_ptr<Hidden> shared_hidden() {
  static std::weak_ptr<Hidden> last;
  auto hidden = last.lock();
  if (!hidden) last = hidden = std::make_shared<Hidden>();
  return hidden;
}

class WrongStore final : public support::PlainStore {
 public:
  WrongStore(std::shared_ptr<spi::Store> inner, Mutant mutant, std::shared_ptr<spi::Clock> clock)
      : PlainStore(std::move(inner)), mutant_(mutant), clock_(std::move(clock)) {}

  Result<std::vector<Result<void>>> commit(std::span<const spi::Unit> units,
                                           spi::Deadline begin_by) override {
    std::vector<spi::Unit> changed = spoiled(units, mutant_);
    if (mutant_ == Mutant::kSetsWithoutComparing) {
      for (spi::Unit& unit : changed) {
        for (spi::Write& write : unit.writes) {
          if (auto* put = std::get_if<spi::PutIdempotency>(&write)) {
            auto found = inner_->find_idempotency(put->record.scope, put->record.key);
            put->expected = found.ok() && *found ? (**found).version : 0;
          }
        }
      }
    }
    remember(units);
    auto results = inner_->commit(changed, begin_by);
    if (mutant_ == Mutant::kPassesUncommitted && results.ok()) hide(units);
    if (mutant_ != Mutant::kCancelAlwaysWins || !results.ok()) return results;
    for (std::size_t i = 0; i < results->size(); ++i) {
      Result<void>& result = (*results)[i];
      const bool cancels = has<spi::EraseSchedule>(units[i]) && !result.ok();
      if (cancels && result.error().code == ErrorCode::kNotFound) result = Result<void>{};
    }
    return results;
  }

  Result<spi::DueBatch> promote_due(const spi::DueRequest& request) override {
    auto batch = inner_->promote_due(request);
    if (mutant_ != Mutant::kDropsDueBeyondLimit || !batch.ok()) return batch;
    if (batch->promoted_count < request.count_max) return batch;
    auto page = inner_->list_schedule({});
    if (!page.ok()) return batch;
    for (const spi::ScheduleRecord& record : page->items) {
      if (record.due_at > clock_->now()) continue;
      const spi::Unit unit{{spi::EraseSchedule{record.id, 0}}};
      (void)inner_->commit({&unit, 1});
    }
    return batch;
  }

  Result<spi::StreamSlice> read_stream(const spi::StreamRead& read) override {
    auto slice = inner_->read_stream(read);
    if (mutant_ == Mutant::kPassesUncommitted && slice && read.space == spi::StreamSpace::kEvents) {
      std::erase_if(slice->events, [&](const RecordedEvent& event) { return is_hidden(event.position); });
    }
    if (mutant_ != Mutant::kForgetsSagaSteps || read.space != spi::StreamSpace::kSagas || !slice)
      return slice;
    for (RecordedEvent& event : slice->events) {
      if (event.version == 1 || own_.contains(event.id)) continue;
      RecordedEvent nothing = saga::to_event(SagaEntry{});
      event.type = nothing.type;
      event.headers = nothing.headers;
      event.payload = nothing.payload;
    }
    return slice;
  }

  Result<std::optional<spi::EventCursor>> find_event_cursor(std::string_view name) override {
    auto cursor = inner_->find_event_cursor(name);
    if (mutant_ == Mutant::kFollowsFromTheStart && cursor && *cursor)
      (**cursor).place = places_[std::string(name)];
    return cursor;
  }

  Result<spi::SweepReport> sweep(const spi::SweepRequest& request) override {
    if (mutant_ != Mutant::kCleansOnlyResolved) return inner_->sweep(request);
    spi::SweepRequest without = request;
    without.dead_letters_before = TimePoint::min();
    without.dead_letter_count_max = UINT64_MAX;
    auto report = inner_->sweep(without);
    DeadLetterQuery query;
    query.status = DeadLetterStatus::kResolved;
    query.count_max = 1000;
    const auto resolved = inner_->list_dead_letters(query);
    if (!report || !resolved) return report;
    for (const DeadLetter& letter : resolved->items) {
      const spi::Unit unit{{spi::EraseDeadLetter{letter.id, letter.version}}};
      if (inner_->commit({&unit, 1}).ok()) ++report->dead_letters;
    }
    return report;
  }

 private:
  void remember(std::span<const spi::Unit> units) {
    for (const spi::Unit& unit : units) {
      for (const spi::Write& write : unit.writes) {
        if (const auto* put = std::get_if<spi::PutEventCursor>(&write))
          places_[put->cursor.name] = put->cursor.place;
        const auto* append = std::get_if<spi::AppendEvents>(&write);
        if (append == nullptr || append->space != spi::StreamSpace::kSagas) continue;
        for (const RecordedEvent& event : append->events)
          own_.insert(event.id);
      }
    }
  }

  void hide(std::span<const spi::Unit> units) {
    for (const spi::Unit& unit : units) {
      for (const spi::Write& write : unit.writes) {
        const auto* append = std::get_if<spi::AppendEvents>(&write);
        const bool counts = append != nullptr && append->space == spi::StreamSpace::kEvents &&
                            append->appended != nullptr && append->appended->last_position != 0;
        if (!counts) continue;
        const std::uint64_t last = append->appended->last_position;
        hidden_->emplace_back(last - append->events.size() + 1, last);
      }
    }
  }
  /// The last append but one is: what came after it is read before it.
  [[nodiscard]] bool is_hidden(std::uint64_t position) const {
    if (hidden_->size() < 2 || hidden_->size() % 3 != 2) return false;
    const auto& [from, to] = (*hidden_)[hidden_->size() - 2];
    return position >= from && position <= to;
  }

  const Mutant mutant_;
  const std::shared_ptr<spi::Clock> clock_;
  std::set<MessageId> own_;                      ///< entries of sagas' logs that this process has written
  std::map<std::string, std::uint64_t> places_;  ///< of followers, as this process has written them
  const std::shared_ptr<Hidden> hidden_ = shared_hidden();
};

/// What was ever handed out to a group, for readers that begin at the beginning.
using Replay = std::map<std::string, std::vector<spi::Delivery>>;

/// One for all processes of the world that lives now.
std::shared_ptr<Replay> shared_replay() {
  static std::weak_ptr<Replay> last;
  auto replay = last.lock();
  if (!replay) last = replay = std::make_shared<Replay>();
  return replay;
}

class WrongSubscription final : public PlainSubscription {
 public:
  WrongSubscription(std::unique_ptr<spi::Subscription> inner, std::shared_ptr<spi::Transport> transport,
                    Mutant mutant, std::size_t loops, std::vector<spi::Delivery>* replay)
      : PlainSubscription(std::move(inner)),
        transport_(std::move(transport)),
        mutant_(mutant),
        loops_(loops),
        replay_(replay) {}

  Result<spi::Received> receive(const spi::ReceiveRequest& request) override {
    spi::ReceiveRequest changed = request;
    const std::vector<spi::Unit> units = spoiled(request.units, mutant_);
    changed.units = units;
    if (mutant_ == Mutant::kIgnoresCredit && request.count_max > 0) changed.count_max += 7;
    std::vector<spi::Settlement> settlements(request.settlements.begin(), request.settlements.end());
    std::vector<spi::Envelope> anew;
    if (mutant_ == Mutant::kReleasesToTheEnd) {
      for (spi::Settlement& settlement : settlements) {
        const auto held = held_.find(settlement.token.lease << 16 | settlement.token.index);
        if (settlement.verb != spi::Verb::kRelease || held == held_.end()) continue;
        settlement.verb = spi::Verb::kAck;
        anew.push_back(*held->second);
      }
    }
    changed.settlements = settlements;
    auto received = inner_->receive(changed);
    if (!anew.empty() && received.ok()) (void)transport_->publish(anew, request.deadline);
    if (received.ok()) note(*received);
    if (received.ok() && replay_ != nullptr) read_on(*received, request.count_max);
    return received;
  }

 private:
  /// What others were given, or this one before it began anew, is news to it.
  void read_on(spi::Received& received, std::size_t count_max) {
    for (const spi::Delivery& delivery : received.deliveries) {
      own_.insert(delivery.token.lease);
      replay_->push_back(delivery);
    }
    for (; position_ < replay_->size() && received.deliveries.size() < count_max; ++position_) {
      const spi::Delivery delivery = (*replay_)[position_];
      if (!own_.contains(delivery.token.lease)) received.deliveries.push_back(delivery);
    }
  }
  void note(spi::Received& received) {
    for (spi::Delivery& delivery : received.deliveries) {
      if (mutant_ == Mutant::kReleasesToTheEnd)
        held_[delivery.token.lease << 16 | delivery.token.index] = delivery.envelope;
      if (mutant_ == Mutant::kChargesAll && delivery.redelivered) ++delivery.crashes;
    }
    const std::vector<spi::Delivery> each = received.deliveries;
    for (std::size_t loop = 1; loop < loops_; ++loop)
      received.deliveries.insert(received.deliveries.end(), each.begin(), each.end());
    if (mutant_ != Mutant::kAcknowledgesOnReceipt || received.deliveries.empty()) return;
    std::vector<spi::Settlement> all;
    for (const spi::Delivery& delivery : received.deliveries)
      all.push_back({delivery.token, spi::Verb::kAck});
    spi::ReceiveRequest at_once;
    at_once.settlements = all;
    (void)inner_->receive(at_once);
  }

  const std::shared_ptr<spi::Transport> transport_;
  const Mutant mutant_;
  const std::size_t loops_;
  std::vector<spi::Delivery>* const replay_;  ///< null: it goes on where the group was
  std::size_t position_ = 0;
  std::set<std::uint64_t> own_;
  std::map<std::uint64_t, std::shared_ptr<const spi::Envelope>> held_;
};

class WrongTransport final : public PlainTransport {
 public:
  WrongTransport(std::shared_ptr<spi::Transport> inner, Mutant mutant)
      : PlainTransport(std::move(inner)), mutant_(mutant) {}

  Result<std::vector<spi::PublishAnswer>> publish(std::span<spi::Envelope> envelopes,
                                                  spi::Deadline deadline) override {
    if (mutant_ == Mutant::kDedupInProcess) {
      for (spi::Envelope& envelope : envelopes) {
        if (envelope.dedup_id.empty()) continue;
        const bool fresh = seen_.insert(envelope.topic + "/" + envelope.dedup_id).second;
        if (fresh) envelope.dedup_id.clear();  // the provider never hears of it
      }
    }
    if (mutant_ == Mutant::kDiscardsWhenFull && is_full()) return std::vector<spi::PublishAnswer>{};
    std::vector<spi::Envelope> copies;
    if (mutant_ == Mutant::kPublishesTwice) {
      for (const spi::Envelope& envelope : envelopes) {
        if (envelope.dedup_id.empty()) copies.push_back(envelope);
      }
    }
    auto answers = inner_->publish(envelopes, deadline);
    if (!copies.empty() && answers.ok()) (void)inner_->publish(copies, deadline);
    return answers;
  }

  Result<std::unique_ptr<spi::Subscription>> subscribe(const spi::SubscribeOptions& options) override {
    auto inner = inner_->subscribe(options);
    if (!inner) return inner;
    auto* replay = mutant_ == Mutant::kReadsFromTheStart ? &(*replay_)[options.group] : nullptr;
    const std::size_t loops = mutant_ == Mutant::kStartsLoopsAgain ? ++loops_[options.group] : 1;
    return std::unique_ptr<spi::Subscription>(
        std::make_unique<WrongSubscription>(std::move(*inner), inner_, mutant_, loops, replay));
  }

 private:
  [[nodiscard]] bool is_full() {
    constexpr std::uint64_t kFull = 50;
    const auto groups = inner_->statistics();
    return groups.ok() && std::any_of(groups->begin(), groups->end(), [](const spi::GroupStatistics& group) {
             return group.waiting >= kFull;
           });
  }

  const Mutant mutant_;
  std::set<std::string> seen_;
  std::map<std::string, std::size_t> loops_;  ///< that this process has started, by group
  const std::shared_ptr<Replay> replay_ = shared_replay();
};

// ---- a wrong engine -------------------------------------------------------------------------------

/// Takes the settlements out of units that also store something, and makes two calls of one.
class HastySubscription final : public PlainSubscription {
 public:
  HastySubscription(std::unique_ptr<spi::Subscription> inner, std::shared_ptr<spi::Store> store,
                    Mutant mutant)
      : PlainSubscription(std::move(inner)), store_(std::move(store)), mutant_(mutant) {}

  Result<spi::Received> receive(const spi::ReceiveRequest& request) override {
    if (mutant_ == Mutant::kHidesErrors) {
      auto received = inner_->receive(request);
      return received.ok() ? std::move(received) : Result<spi::Received>(spi::Received{});
    }
    std::vector<spi::Unit> settle(request.units.begin(), request.units.end());
    std::vector<spi::Unit> store = settle;
    for (spi::Unit& unit : settle)
      std::erase_if(unit.writes, [](const auto& w) { return !std::holds_alternative<spi::Settle>(w); });
    for (spi::Unit& unit : store)
      take_out<spi::Settle>(unit);
    if (mutant_ == Mutant::kStoresThenSettles && !store.empty()) {
      if (auto stored = store_->commit(store); !stored.ok()) return std::move(stored).error();
    }
    spi::ReceiveRequest first = request;
    first.units = settle;
    auto received = inner_->receive(first);
    if (mutant_ == Mutant::kSettlesThenStores && received.ok() && !store.empty()) (void)store_->commit(store);
    return received;
  }

 private:
  const std::shared_ptr<spi::Store> store_;
  const Mutant mutant_;
};

class HastyTransport final : public PlainTransport {
 public:
  HastyTransport(std::shared_ptr<spi::Transport> inner, std::shared_ptr<spi::Store> store, Mutant mutant)
      : PlainTransport(std::move(inner)), store_(std::move(store)), mutant_(mutant) {}
  Result<std::unique_ptr<spi::Subscription>> subscribe(const spi::SubscribeOptions& options) override {
    auto inner = inner_->subscribe(options);
    if (!inner) return inner;
    return std::unique_ptr<spi::Subscription>(
        std::make_unique<HastySubscription>(std::move(*inner), store_, mutant_));
  }

 private:
  const std::shared_ptr<spi::Store> store_;
  const Mutant mutant_;
};

class HastyStore final : public support::PlainStore {
 public:
  using PlainStore::PlainStore;
  Result<std::vector<Result<void>>> commit(std::span<const spi::Unit> units,
                                           spi::Deadline begin_by) override {
    std::vector<spi::Unit> publish(units.begin(), units.end());
    std::vector<spi::Unit> mark;
    for (spi::Unit& unit : publish) {
      const bool sends = has<spi::Publish>(unit) || has<spi::PutSchedule>(unit);
      if (!has<spi::UpdateDeadLetter>(unit) || !sends) continue;
      spi::Unit later = unit;
      take_out<spi::Publish>(later);
      take_out<spi::PutSchedule>(later);
      mark.push_back(std::move(later));
      take_out<spi::UpdateDeadLetter>(unit);
    }
    auto results = inner_->commit(publish, begin_by);
    if (!mark.empty() && results.ok()) (void)inner_->commit(mark, begin_by);
    return results;
  }
};

/// Its monotonic time jumps with the wall.
class WallClock final : public spi::Clock {
 public:
  explicit WallClock(std::shared_ptr<spi::Clock> inner) : inner_(std::move(inner)) {}
  [[nodiscard]] TimePoint now() noexcept override { return inner_->now(); }
  [[nodiscard]] MonotonicTime monotonic() noexcept override {
    return MonotonicTime(std::chrono::duration_cast<Duration>(inner_->now().time_since_epoch()));
  }
  void wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
                  MonotonicTime deadline) override {
    inner_->wait_until(lock, changed, deadline);
  }

 private:
  const std::shared_ptr<spi::Clock> inner_;
};

}  // namespace

const char* name_of(Mutant mutant) noexcept { return kRows[static_cast<std::size_t>(mutant)].name; }
const char* origin_of(Mutant mutant) noexcept { return kRows[static_cast<std::size_t>(mutant)].origin; }

bool parse_mutant(std::string_view text, Mutant& mutant) noexcept {
  for (std::size_t i = 0; i < kMutantCount; ++i) {
    if (text != kRows[i].name) continue;
    mutant = static_cast<Mutant>(i);
    return true;
  }
  return false;
}

spi::Provider with_wrong_provider(spi::Provider provider, Mutant mutant, std::shared_ptr<spi::Clock> clock) {
  switch (mutant) {
    case Mutant::kNone:
    case Mutant::kSettlesThenStores:
    case Mutant::kStoresThenSettles:
    case Mutant::kRedrivesInTwoSteps:
    case Mutant::kHidesErrors:
    case Mutant::kLeaseByWallClock:
    case Mutant::kSkipsFailedStep:
    case Mutant::kUndoesForwards:
      return provider;
    default:
      break;
  }
  provider.store = std::make_shared<WrongStore>(std::move(provider.store), mutant, std::move(clock));
  provider.transport = std::make_shared<WrongTransport>(std::move(provider.transport), mutant);
  return provider;
}

spi::Provider with_wrong_engine(spi::Provider provider, Mutant mutant) {
  switch (mutant) {
    case Mutant::kSettlesThenStores:
    case Mutant::kStoresThenSettles:
    case Mutant::kHidesErrors:
      provider.transport =
          std::make_shared<HastyTransport>(std::move(provider.transport), provider.store, mutant);
      break;
    case Mutant::kRedrivesInTwoSteps:
      provider.store = std::make_shared<HastyStore>(std::move(provider.store));
      break;
    default:
      break;
  }
  return provider;
}

std::optional<std::string> step_done(const SagaCall& call, const SagaDefinition& definition, Mutant mutant) {
  if (call.phase() == SagaPhase::kExecute) return call.step();
  if (mutant == Mutant::kSkipsFailedStep && !call.output()) return std::nullopt;
  if (mutant != Mutant::kUndoesForwards || !call.output()) return call.step();
  std::vector<std::string> done;
  for (const auto& stage : definition.stages) {
    for (const SagaStep& step : stage) {
      if (step.compensates && call.output_of(step.name)) done.push_back(step.name);
    }
  }
  const auto at = std::find(done.begin(), done.end(), call.step());
  return at == done.end() ? call.step() : done[static_cast<std::size_t>(done.end() - at) - 1];
}

std::shared_ptr<spi::Clock> provider_clock(std::shared_ptr<spi::Clock> clock, Mutant mutant) {
  if (mutant != Mutant::kLeaseByWallClock) return clock;
  return std::make_shared<WallClock>(std::move(clock));
}

}  // namespace towline::simulation
