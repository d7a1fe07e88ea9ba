#pragma once
// Core: one engine. Builds the stations, drives them with a few named threads, and shuts down in order.
//
//     scheduler lane   moves what is due to its topics
//     relay            publishes what SQL of others wrote to the outbox, where the store runs SQL
//     keeper           renews leases at a third of their length, and does nothing that could hold it up
//     janitor          expiry, alerts, automatic redrives
//     usher            closes the consumers that asked for it from inside a handler
//     per consumer     one lane and `concurrency` workers
//     per subscription with a handler, to events: one thread
//     per runner of sagas: one lane, and the workers that run their steps
//
// Without threads (a simulation) nothing runs by itself: the owner calls the step functions in any order it
// likes.

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <towline/engine.hpp>

#include "engine/consumer_core.hpp"
#include "engine/context.hpp"
#include "engine/conversations.hpp"
#include "engine/dead_letters.hpp"
#include "engine/event_follower.hpp"
#include "engine/events.hpp"
#include "engine/idempotency.hpp"
#include "engine/janitor.hpp"
#include "engine/publisher.hpp"
#include "engine/relay.hpp"
#include "engine/saga_records.hpp"
#include "engine/saga_runner.hpp"
#include "engine/scheduler.hpp"

namespace towline::engine {

class Core : public std::enable_shared_from_this<Core> {
 public:
  /// `options` were validated. `threads` false: for stepping by hand.
  static std::shared_ptr<Core> create(EngineOptions options, spi::Provider provider,
                                      std::shared_ptr<spi::Clock> clock, std::uint64_t seed, bool threads);
  ~Core();

  Context& context() noexcept { return *context_; }
  Publisher& publisher() noexcept { return publisher_; }
  Scheduler& scheduler() noexcept { return scheduler_; }
  DeadLetters& dead_letters() noexcept { return dead_letters_; }
  Idempotency& idempotency() noexcept { return idempotency_; }
  Events& events() noexcept { return events_; }
  Conversations& conversations() noexcept { return conversations_; }
  SagaRecords& sagas() noexcept { return *sagas_; }
  [[nodiscard]] std::shared_ptr<Context> context_ptr() const noexcept { return context_; }

  Result<std::shared_ptr<ConsumerCore>> consume(std::vector<std::string> patterns, ConsumerOptions options,
                                                AnyHandler handler);
  /// Errors: those of EventStore::subscribe.
  Result<std::shared_ptr<EventFollower>> follow(const EventSubscriptionOptions& options,
                                                EventFollower::Work work, bool fill);
  /// `workers`: who runs the calls that `remote` is given, if that is in this process. Errors: those of
  /// Sagas::run.
  Result<std::shared_ptr<SagaRunner>> run_saga(const SagaDefinition& definition, SagaRemote remote,
                                               std::shared_ptr<SagaWorkers> workers);
  Result<void> declare_topic(std::string_view topic, const TopicOptions& options);
  Result<void> release_key(std::string_view group, std::string_view topic, std::string_view key);
  Result<EngineStatistics> statistics();
  Health health();
  Result<void> settle_down(Duration timeout);
  Result<std::uint64_t> close(std::optional<Duration> timeout);

  // ---- stepping by hand -------------------------------------------------------------------------

  /// One round of the scheduler, of the relay, of the keeper, of the janitor. Never waits.
  void step_scheduler();
  void step_relay();
  void step_keeper();
  void step_janitor();
  [[nodiscard]] std::vector<std::shared_ptr<ConsumerCore>> consumers();
  [[nodiscard]] std::vector<std::shared_ptr<EventFollower>> followers();
  [[nodiscard]] std::vector<std::shared_ptr<SagaRunner>> saga_runners();
  /// What a crash does: everything in memory is gone, nothing is settled or released.
  void abandon();

 private:
  Core(EngineOptions options, spi::Provider provider, std::shared_ptr<spi::Clock> clock, std::uint64_t seed);
  void start();
  void scheduler_main();
  void relay_main();
  void keeper_main();
  void janitor_main();
  void usher_main();
  /// Waits until a consumer wants to be closed; false when the engine is stopping.
  bool wait_for_leaver();
  void note_leaver();
  /// Takes the new consumer into the list, unless something speaks against it.
  [[nodiscard]] Result<void> enlist(const std::shared_ptr<ConsumerCore>& consumer, bool named);
  /// Waits on the stop signal; false when the engine is stopping.
  bool wait(MonotonicTime until);
  void stop_threads();
  /// Errors: kDefinitionMismatch.
  [[nodiscard]] Result<void> check_definition(const SagaDefinition& definition, const saga::Shape& shape);
  /// Warns of versions of a saga that somebody has to run, and nobody does. By version: how many wait.
  [[nodiscard]] Result<void> report_versions(std::string_view type,
                                             const std::map<std::uint32_t, std::uint64_t>& unfinished);
  /// What it has to do at present, for people; empty: nothing.
  [[nodiscard]] Result<std::string> busy_with();
  [[nodiscard]] std::string breaker_note(const spi::GroupStatistics& group);
  [[nodiscard]] bool takes_part(const spi::GroupStatistics& group);

  const std::shared_ptr<Context> context_;
  Publisher publisher_;
  Scheduler scheduler_;
  Relay relay_;
  DeadLetters dead_letters_;
  Idempotency idempotency_;
  Events events_;
  Conversations conversations_;
  const std::shared_ptr<SagaRecords> sagas_;
  Janitor janitor_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<ConsumerCore>> consumers_;
  std::vector<std::shared_ptr<EventFollower>> followers_;
  std::vector<std::shared_ptr<SagaRunner>> saga_runners_;
  std::vector<std::thread> threads_;
  std::thread closer_;
  bool stopping_ = false, closing_ = false, closed_ = false, somebody_leaves_ = false;
  std::uint64_t stuck_ = 0;
  std::atomic<std::uint64_t> scheduler_rounds_{0};
};

}  // namespace towline::engine
