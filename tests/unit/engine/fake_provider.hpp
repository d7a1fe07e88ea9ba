#pragma once
// A provider that a test can trip up: it hands every call on to the memory provider, writes down what was
// asked for, and answers some calls with an error instead, before or after the work was done.
//
// What is written down is one word or line per event, in the order of the calls:
//     settle ack | settle release      one per settlement of a receive
//     receive Settle+PutSchedule       one per unit of a receive: the names of its writes
//     commit PutDeadLetter             one per unit of a commit
//     publish 3                        envelopes of a publish
// Thread-safe.

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <towline/spi/store.hpp>
#include <towline/spi/transport.hpp>

#include "support/blind_transport.hpp"
#include "support/plain_store.hpp"

namespace towline::engine::testing {

/// What the calls of one provider shall do besides their work.
class Script {
 public:
  using Refusal = std::function<std::optional<Error>(const spi::Unit&)>;
  using Rejection = std::function<std::optional<Error>(const spi::Envelope&)>;

  /// The next `times` calls of this name answer `error`; with `executed` their work is done all the same. The
  /// names are those of the functions of Store, Transport and Subscription.
  void fail(const std::string& call, Error error, int times = 1, bool executed = false) {
    const std::lock_guard lock(mutex_);
    for (int i = 0; i < times; ++i)
      faults_.emplace(call, Fault{error, executed});
  }
  void heal(const std::string& call) {
    const std::lock_guard lock(mutex_);
    faults_.erase(call);
  }
  /// Units for which this answers an error are refused with it, the others of the call are done.
  void refuse_units(Refusal refusal) {
    const std::lock_guard lock(mutex_);
    refusal_ = std::move(refusal);
  }
  /// Envelopes for which this answers an error are rejected by publish, the others are stored.
  void reject_envelopes(Rejection rejection) {
    const std::lock_guard lock(mutex_);
    rejection_ = std::move(rejection);
  }
  /// Runs at the begin of each call of this name, before its work, with no lock held.
  void before(const std::string& call, std::function<void()> action) {
    const std::lock_guard lock(mutex_);
    before_[call] = std::move(action);
  }

  [[nodiscard]] std::vector<std::string> events() const {
    const std::lock_guard lock(mutex_);
    return events_;
  }
  [[nodiscard]] int count(const std::string& event) const {
    const std::lock_guard lock(mutex_);
    int found = 0;
    for (const std::string& one : events_)
      found += one == event ? 1 : 0;
    return found;
  }
  /// Where in the order of events this one is first; -1: nowhere.
  [[nodiscard]] int place(const std::string& event) const {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < events_.size(); ++i) {
      if (events_[i] == event) return static_cast<int>(i);
    }
    return -1;
  }
  void forget_events() {
    const std::lock_guard lock(mutex_);
    events_.clear();
  }

  struct Fault {
    Error error;
    bool executed = false;
  };
  std::optional<Fault> begin(const std::string& call) {
    std::function<void()> action;
    std::optional<Fault> fault;
    {
      const std::lock_guard lock(mutex_);
      if (const auto it = before_.find(call); it != before_.end()) action = it->second;
      if (const auto it = faults_.find(call); it != faults_.end()) {
        fault = it->second;
        faults_.erase(it);
      }
    }
    if (action) action();
    return fault;
  }
  void note(std::string event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
  }
  [[nodiscard]] std::optional<Error> refusal_of(const spi::Unit& unit) {
    Refusal refusal;
    {
      const std::lock_guard lock(mutex_);
      refusal = refusal_;
    }
    return refusal ? refusal(unit) : std::nullopt;
  }
  [[nodiscard]] std::optional<Error> rejection_of(const spi::Envelope& envelope) {
    Rejection rejection;
    {
      const std::lock_guard lock(mutex_);
      rejection = rejection_;
    }
    return rejection ? rejection(envelope) : std::nullopt;
  }

 private:
  mutable std::mutex mutex_;
  std::multimap<std::string, Fault> faults_;
  std::map<std::string, std::function<void()>> before_;
  Refusal refusal_;
  Rejection rejection_;
  std::vector<std::string> events_;
};

/// "Settle+PutSchedule": the names of a unit's writes.
[[nodiscard]] inline std::string names_of(const spi::Unit& unit) {
  static constexpr const char* kNames[] = {
      "PutSchedule",    "EraseSchedule",    "MoveSchedule",     "UnparkNext",      "PutKeyBlock",
      "PutDeadLetter",  "UpdateDeadLetter", "EraseDeadLetter",  "PutIdempotency",  "EraseIdempotency",
      "PutInbox",       "ForgetDedup",      "Publish",          "Settle",          "AppendEvents",
      "TruncateStream", "PutSnapshot",      "PutEventCursor",   "PutSaga",         "PutClientPosition",
      "AddMissed",      "ClearMissed",      "TrimConversation", "EraseOutboxEntry"};
  static_assert(std::size(kNames) == std::variant_size_v<spi::Write>);
  std::string names;
  for (const spi::Write& write : unit.writes)
    names += (names.empty() ? "" : "+") + std::string(kNames[write.index()]);
  return names;
}

template <typename W>
[[nodiscard]] const W* find_write(const spi::Unit& unit) {
  for (const spi::Write& write : unit.writes) {
    if (const W* found = std::get_if<W>(&write)) return found;
  }
  return nullptr;
}

/// The units that the script lets through, and where they stood.
struct Sieve {
  Sieve(Script& script, const char* call, std::span<const spi::Unit> units) : results(units.size()) {
    for (std::size_t i = 0; i < units.size(); ++i) {
      script.note(std::string(call) + " " + names_of(units[i]));
      if (auto error = script.refusal_of(units[i])) {
        results[i] = std::move(*error);
        refused = true;
      } else {
        passed.push_back(units[i]);
        places.push_back(i);
      }
    }
  }
  /// One result per unit of the caller; empty when all went well.
  std::vector<Result<void>> merge(const std::vector<Result<void>>& done) {
    bool failed = refused;
    for (std::size_t i = 0; i < done.size(); ++i) {
      failed = failed || !done[i].ok();
      results[places[i]] = done[i];
    }
    return failed ? std::move(results) : std::vector<Result<void>>{};
  }
  std::vector<spi::Unit> passed;
  std::vector<std::size_t> places;
  std::vector<Result<void>> results;
  bool refused = false;
};

#define TOWLINE_FAKE_BEGIN(call)           \
  const auto fault = script_->begin(call); \
  if (fault && !fault->executed) return Error(fault->error)
#define TOWLINE_FAKE_END(answer)         \
  if (fault) return Error(fault->error); \
  return answer

class FakeSubscription final : public spi::Subscription {
 public:
  FakeSubscription(std::unique_ptr<spi::Subscription> inner, std::shared_ptr<Script> script)
      : inner_(std::move(inner)), script_(std::move(script)) {}

  Result<spi::Received> receive(const spi::ReceiveRequest& request) override {
    TOWLINE_FAKE_BEGIN("receive");
    for (const spi::Settlement& settlement : request.settlements)
      script_->note(settlement.verb == spi::Verb::kAck ? "settle ack" : "settle release");
    Sieve sieve(*script_, "receive", request.units);
    spi::ReceiveRequest passed = request;
    passed.units = sieve.passed;
    if (request.count_max > 0) last_count_max_.store(request.count_max);
    last_bytes_max_.store(request.payload_bytes_max);
    auto received = inner_->receive(passed);
    if (received) received->units = sieve.merge(received->units);
    TOWLINE_FAKE_END(received);
  }
  void wake() noexcept override { inner_->wake(); }
  Result<std::vector<std::uint64_t>> renew() override {
    TOWLINE_FAKE_BEGIN("renew");
    auto lost = inner_->renew();
    TOWLINE_FAKE_END(lost);
  }
  Result<void> close() override {
    TOWLINE_FAKE_BEGIN("close");
    script_->note("close");
    auto closed = inner_->close();
    TOWLINE_FAKE_END(closed);
  }

 private:
  std::unique_ptr<spi::Subscription> inner_;
  std::shared_ptr<Script> script_;

 public:
  /// Of the last request that had credit.
  std::atomic<std::size_t> last_count_max_{0}, last_bytes_max_{0};
};

class FakeTransport final : public spi::Transport {
 public:
  FakeTransport(std::shared_ptr<spi::Transport> inner, std::shared_ptr<Script> script, bool is_store,
                bool runs_sql)
      : inner_(is_store ? std::move(inner) : std::make_shared<support::BlindTransport>(std::move(inner))),
        script_(std::move(script)),
        is_store_(is_store),
        runs_sql_(runs_sql) {}

  [[nodiscard]] spi::Capabilities capabilities() const noexcept override {
    spi::Capabilities capabilities = inner_->capabilities();
    capabilities.is_store = is_store_;
    capabilities.runs_sql = runs_sql_;
    return capabilities;
  }
  Result<void> declare(const spi::Topology& topology) override {
    TOWLINE_FAKE_BEGIN("declare");
    auto declared = inner_->declare(topology);
    TOWLINE_FAKE_END(declared);
  }
  Result<spi::Topology> topology(std::string_view topic, std::uint32_t partition_count_default,
                                 spi::Deadline begin_by) override {
    TOWLINE_FAKE_BEGIN("topology");
    script_->note("topology " + std::string(topic));
    auto topology = inner_->topology(topic, partition_count_default, begin_by);
    TOWLINE_FAKE_END(topology);
  }
  Result<std::vector<spi::PublishAnswer>> publish(std::span<spi::Envelope> envelopes,
                                                  spi::Deadline deadline) override {
    TOWLINE_FAKE_BEGIN("publish");
    script_->note("publish " + std::to_string(envelopes.size()));
    std::vector<spi::PublishAnswer> answers(envelopes.size());
    std::vector<spi::Envelope> passed;
    std::vector<std::size_t> places;
    for (std::size_t i = 0; i < envelopes.size(); ++i) {
      answers[i].rejected = script_->rejection_of(envelopes[i]);
      if (answers[i].rejected) continue;
      passed.push_back(envelopes[i]);
      places.push_back(i);
    }
    auto done = inner_->publish(passed, deadline);
    if (fault) return Error(fault->error);
    if (!done) return done;
    if (done->empty() && passed.size() == envelopes.size()) return done;
    for (std::size_t i = 0; i < done->size(); ++i)
      answers[places[i]] = (*done)[i];
    return answers;
  }
  Result<std::unique_ptr<spi::Subscription>> subscribe(const spi::SubscribeOptions& options) override {
    TOWLINE_FAKE_BEGIN("subscribe");
    script_->note("subscribe");
    auto inner = inner_->subscribe(options);
    if (fault) return Error(fault->error);
    if (!inner) return inner;
    auto made = std::make_unique<FakeSubscription>(std::move(*inner), script_);
    last_subscription_ = made.get();
    return std::unique_ptr<spi::Subscription>(std::move(made));
  }
  Result<std::vector<spi::GroupStatistics>> statistics() override {
    TOWLINE_FAKE_BEGIN("statistics of groups");
    auto statistics = inner_->statistics();
    TOWLINE_FAKE_END(statistics);
  }

  /// The newest one. Valid as long as its consumer is.
  [[nodiscard]] FakeSubscription* last_subscription() const noexcept { return last_subscription_; }

 private:
  std::shared_ptr<spi::Transport> inner_;
  std::shared_ptr<Script> script_;
  const bool is_store_;
  const bool runs_sql_;
  FakeSubscription* last_subscription_ = nullptr;
};

class FakeStore final : public support::PlainStore {
 public:
  FakeStore(std::shared_ptr<spi::Store> inner, std::shared_ptr<Script> script)
      : PlainStore(std::move(inner)), script_(std::move(script)) {}

  Result<std::vector<Result<void>>> commit(std::span<const spi::Unit> units, spi::Deadline) override {
    TOWLINE_FAKE_BEGIN("commit");
    Sieve sieve(*script_, "commit", units);
    auto done = commit_with_outbox(sieve.passed);
    if (fault) return Error(fault->error);
    if (!done) return done;
    return sieve.merge(*done);
  }
  /// As if SQL had written it.
  std::uint64_t write_outbox(Message message, TimePoint at) {
    const std::lock_guard lock(outbox_mutex_);
    outbox_.push_back({++outbox_last_, std::move(message), at});
    return outbox_last_;
  }
  Result<std::vector<spi::OutboxEntry>> read_outbox(std::size_t count_max, spi::Deadline,
                                                    const std::stop_token&) override {
    TOWLINE_FAKE_BEGIN("read_outbox");
    script_->note("read_outbox");
    const std::lock_guard lock(outbox_mutex_);
    const auto count = static_cast<std::ptrdiff_t>(std::min(count_max, outbox_.size()));
    TOWLINE_FAKE_END((std::vector<spi::OutboxEntry>{outbox_.begin(), outbox_.begin() + count}));
  }
  Result<spi::DueBatch> claim_due(const spi::DueRequest& request) override {
    TOWLINE_FAKE_BEGIN("claim_due");
    auto batch = inner_->claim_due(request);
    TOWLINE_FAKE_END(batch);
  }
  Result<spi::DueBatch> promote_due(const spi::DueRequest& request) override {
    TOWLINE_FAKE_BEGIN("promote_due");
    script_->note("promote_due " + std::to_string(request.count_max));
    auto batch = inner_->promote_due(request);
    TOWLINE_FAKE_END(batch);
  }
  Result<bool> has_fired(const MessageId& id) override {
    TOWLINE_FAKE_BEGIN("has_fired");
    auto fired = inner_->has_fired(id);
    TOWLINE_FAKE_END(fired);
  }
  Result<std::vector<spi::KeyBlock>> list_key_blocks(std::string_view group, std::string_view topic,
                                                     std::optional<std::uint32_t> partition) override {
    TOWLINE_FAKE_BEGIN("list_key_blocks");
    script_->note("list_key_blocks");
    auto blocks = inner_->list_key_blocks(group, topic, partition);
    TOWLINE_FAKE_END(blocks);
  }
  Result<Page<DeadLetter>> list_dead_letters(const DeadLetterQuery& query) override {
    TOWLINE_FAKE_BEGIN("list_dead_letters");
    script_->note("list_dead_letters " + std::to_string(query.count_max));
    auto page = inner_->list_dead_letters(query);
    TOWLINE_FAKE_END(page);
  }
  Result<std::vector<bool>> inbox_contains(std::string_view group, std::span<const MessageId> ids) override {
    TOWLINE_FAKE_BEGIN("inbox_contains");
    auto contains = inner_->inbox_contains(group, ids);
    TOWLINE_FAKE_END(contains);
  }
  Result<std::optional<spi::IdempotencyRecord>> find_idempotency(std::string_view scope,
                                                                 std::string_view key) override {
    TOWLINE_FAKE_BEGIN("find_idempotency");
    auto found = inner_->find_idempotency(scope, key);
    TOWLINE_FAKE_END(found);
  }
  Result<spi::StreamSlice> read_stream(const spi::StreamRead& read) override {
    TOWLINE_FAKE_BEGIN("read_stream");
    TOWLINE_FAKE_END(inner_->read_stream(read));
  }
  Result<std::uint64_t> wait_for_events(spi::StreamSpace space, std::uint64_t after, spi::Deadline deadline,
                                        const std::stop_token& stop) override {
    TOWLINE_FAKE_BEGIN("wait_for_events");
    auto last = inner_->wait_for_events(space, after, deadline, stop);
    TOWLINE_FAKE_END(last);
  }
  Result<std::vector<spi::ClientPosition>> client_positions(std::string_view user, std::string_view client,
                                                            std::string_view from,
                                                            std::size_t count_max) override {
    TOWLINE_FAKE_BEGIN("client_positions");
    TOWLINE_FAKE_END(inner_->client_positions(user, client, from, count_max));
  }
  Result<spi::StoreStatistics> statistics() override {
    TOWLINE_FAKE_BEGIN("statistics");
    auto statistics = inner_->statistics();
    TOWLINE_FAKE_END(statistics);
  }
  Result<spi::SweepReport> sweep(const spi::SweepRequest& request) override {
    TOWLINE_FAKE_BEGIN("sweep");
    last_sweep = request;
    auto report = inner_->sweep(request);
    TOWLINE_FAKE_END(report);
  }
  /// SQL that does nothing: runs `body`, then commits `units` with what it wrote, as receive() would.
  Result<void> transact(const std::function<Result<void>(spi::SqlSession&)>& body,
                        std::span<const spi::Unit> units, spi::Subscription* settle) override {
    TOWLINE_FAKE_BEGIN("transact");
    class Session final : public spi::SqlSession {
     public:
      Result<std::vector<std::vector<Value>>> execute(std::string_view, std::span<const Value>) override {
        return std::vector<std::vector<Value>>{};
      }
      Result<void> write(const spi::Write& write) override {
        unit.writes.push_back(write);
        return {};
      }
      spi::Unit unit;
    } session;
    if (auto failed = body(session); !failed) return failed;
    std::vector<spi::Unit> all(units.begin(), units.end());
    if (!all.empty()) {
      for (const spi::Write& write : session.unit.writes)
        all.front().writes.push_back(write);
    }
    spi::ReceiveRequest request;
    request.units = all;
    auto done = settle->receive(request);
    if (!done) return std::move(done).error();
    for (const Result<void>& result : done->units) {
      if (!result) return result;
    }
    if (fault) return Error(fault->error);
    return {};
  }

  spi::SweepRequest last_sweep;

 private:
  /// The memory provider has no outbox, so it is here.
  Result<std::vector<Result<void>>> commit_with_outbox(std::vector<spi::Unit> units) {
    const std::lock_guard lock(outbox_mutex_);
    const auto find = [this](const spi::Write& write) {
      const auto* erase = std::get_if<spi::EraseOutboxEntry>(&write);
      return std::find_if(outbox_.begin(), outbox_.end(), [&](const spi::OutboxEntry& entry) {
        return erase != nullptr && entry.number == erase->number;
      });
    };
    const std::vector<spi::Unit> asked = units;
    std::vector<Result<void>> results(units.size());
    for (std::size_t i = 0; i < units.size(); ++i) {
      for (const spi::Write& write : asked[i].writes) {
        if (std::holds_alternative<spi::EraseOutboxEntry>(write) && find(write) == outbox_.end())
          results[i] = Error{ErrorCode::kNotFound, "the outbox entry does not exist"};
      }
      std::erase_if(units[i].writes, [&](const spi::Write& write) {
        return !results[i].ok() || std::holds_alternative<spi::EraseOutboxEntry>(write);
      });
    }
    auto done = inner_->commit(units);
    if (!done) return done;
    for (std::size_t i = 0; i < units.size(); ++i) {
      if (results[i].ok() && !done->empty()) results[i] = (*done)[i];
      if (!results[i].ok()) continue;
      for (const spi::Write& write : asked[i].writes) {
        if (const auto it = find(write); it != outbox_.end()) outbox_.erase(it);
      }
    }
    return results;
  }

  std::mutex outbox_mutex_;
  std::vector<spi::OutboxEntry> outbox_;
  std::uint64_t outbox_last_ = 0;
  std::shared_ptr<Script> script_;
};

#undef TOWLINE_FAKE_BEGIN
#undef TOWLINE_FAKE_END

}  // namespace towline::engine::testing
