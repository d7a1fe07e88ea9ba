#pragma once
// The engine: what a program opens, publishes to and consumes from.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <towline/clock.hpp>
#include <towline/consumer.hpp>
#include <towline/conversations.hpp>
#include <towline/dead_letter.hpp>
#include <towline/event_store.hpp>
#include <towline/idempotency.hpp>
#include <towline/message.hpp>
#include <towline/options.hpp>
#include <towline/permits.hpp>
#include <towline/result.hpp>
#include <towline/saga.hpp>
#include <towline/types.hpp>

namespace towline {

namespace engine {
class Core;
}

struct EngineStatistics {
  std::uint64_t published = 0, duplicates = 0, rejected = 0, unknown = 0, scheduled_now = 0, parked_now = 0;
  std::uint64_t fired = 0, redriven = 0, swept = 0;
  /// Of what SQL wrote to the outbox: published, and made dead letters because it could not be.
  std::uint64_t relayed = 0, refused = 0;
  std::uint64_t dead_letters[5] = {};  ///< by DeadLetterStatus
  std::uint64_t idempotency_records = 0;
  std::uint64_t store_bytes = 0;
  /// Lateness of fired messages in microseconds: median, 99th percentile and maximum since opening.
  std::uint64_t lateness_p50_us = 0, lateness_p99_us = 0, lateness_max_us = 0;
};

struct GroupBacklog {
  std::string topic;
  std::string group;
  std::uint64_t waiting = 0;
  std::uint64_t in_flight = 0;
  std::uint32_t member_count = 0;
};

/// A blocked key of an ordered group.
struct BlockedKey {
  std::string topic;
  std::string group;
  std::string key;
  std::uint32_t partition = 0;
  TimePoint since{};
  std::uint64_t parked_count = 0;
  bool held = false;  ///< waits for release_key()
};

struct Health {
  bool ok = false;
  std::string detail;  ///< why not
};

/// One engine over one provider. A handle: copies share the engine; the last one closes it.
///
/// Thread-safe. Every call after close() answers kClosed, in the child of a fork() kForked. Bad input is
/// refused before any I/O with an error that names the field, the value and the bound, and changes nothing.
///
///     auto engine = towline::Engine::open("sqlite:orders.db").value();
///     auto consumer = engine.consume("orders", {.group = "billing"},
///                                    [](towline::Delivery& d) { bill(d.payload()); }).value();
///     engine.publish({.topic = "orders", .payload = "...", .key = "customer-9"}).value();
class Engine {
 public:
  Engine() = default;

  /// `memory:`, `memory:name` (shared by the engines of this process), `sqlite:path`. URL parameters are
  /// engine options (`sqlite:a.db?lease_ms=5000&alert.depth_count=10`) or settings of the driver
  /// (`?synchronous=normal`); what stands in the URL goes before `options`.
  /// Errors: kInvalidUrl, kInvalidConfig, kDurabilityUnavailable and what the driver's README lists.
  static Result<Engine> open(std::string_view url, EngineOptions options = {});

  // ---- publish and schedule ---------------------------------------------------------------------

  /// Returns after the durable commit. Concurrent calls share commits. A message with a delay or due time
  /// waits in the store's schedule, and `receipt.id` cancels it.
  Receipt publish(Message message);
  /// One receipt per message, in order. Invalid messages are rejected, the others stored; all stored ones
  /// together. Errors of the whole call: kBatchTooLarge, and what every call of a closed, forked or stopped
  /// engine answers (kClosed, kForked, kIoError).
  Result<std::vector<Receipt>> publish_batch(std::vector<Message> messages);
  /// Publishes, and while the outcome is not `acked` tries again by `retry`, sleeping in the calling thread
  /// at most until `deadline`. What is unknown is repeated only under a dedup id, which is made when there is
  /// none. When all attempts failed the message becomes a dead letter `publish_failed` (in the group "") and
  /// the last error is returned. Errors: those of publish(), kInvalidConfig.
  Receipt publish_with_retry(Message message, const RetryOptions& retry = {},
                             std::optional<Duration> timeout = std::nullopt);
  /// kDone: it will never fire. Exactly one of cancel and firing wins, across processes.
  Result<ScheduleAnswer> cancel(const MessageId& id);
  /// Cancels many with one commit, each by itself: one answer per id, in order; an id that is there twice is
  /// kNotFound the second time. Errors: kBatchTooLarge (`batch_count_max`), and those of the store: then some
  /// may have been cancelled, and asking again is harmless.
  Result<std::vector<ScheduleAnswer>> cancel_batch(const std::vector<MessageId>& ids);
  Result<ScheduleAnswer> reschedule(const MessageId& id, TimePoint due_at);
  /// What users delayed, by due time. `topic` empty: all. `count_max` [1, 1000].
  Result<Page<Scheduled>> pending(std::string_view topic = {}, std::size_t count_max = 100,
                                  std::string_view cursor = {});

  // ---- topics and consumers ---------------------------------------------------------------------

  /// Idempotent. Errors: kInvalidTopic, kTopologyMismatch.
  Result<void> declare_topic(std::string_view topic, const TopicOptions& options = {});
  /// `pattern`: a topic, or a pattern (`*` one token, `#` any number). Errors: kInvalidTopic, kInvalidConfig,
  /// kInvalidFilter, kAlreadySubscribed, kLimitExceeded (10,000 consumers), kTopologyMismatch (a member of
  /// the group keeps another order).
  Result<Consumer> consume(std::string_view pattern, const ConsumerOptions& options, Handler handler);
  Result<Consumer> consume(const std::vector<std::string>& patterns, const ConsumerOptions& options,
                           Handler handler);
  Result<Consumer> consume_outcomes(const std::vector<std::string>& patterns, const ConsumerOptions& options,
                                    OutcomeHandler handler);
  Result<Consumer> consume_batches(const std::vector<std::string>& patterns, const ConsumerOptions& options,
                                   BatchHandler handler);
  /// Messages are handed to `handler` and handled elsewhere, up to `concurrency` at once. Runs until it is
  /// closed, or its engine is: dropping the handle does nothing, since elsewhere it may be dropped by a
  /// garbage collector, at any time and on the very thread that would have to end its handlers.
  Result<Consumer> consume_remote(const std::vector<std::string>& patterns, const ConsumerOptions& options,
                                  RemoteHandler handler);
  /// The handlers of these have returned. Results that do not count any more are passed over, as those of
  /// handlers that return late are; a delivery counts once. Any thread; also after close().
  static void finish(std::span<Finished> finished);
  Result<std::vector<GroupBacklog>> backlog();
  /// Empty for a group or topic that nobody has used. Errors: kInvalidName, kInvalidTopic.
  Result<std::vector<BlockedKey>> blocked_keys(std::string_view group, std::string_view topic);
  /// Lets the tail of a blocked key go on. The head, when it waits for a retry, stays scheduled. Errors:
  /// kNotFound.
  Result<void> release_key(std::string_view group, std::string_view topic, std::string_view key);

  // ---- dead letters -----------------------------------------------------------------------------

  Result<Page<DeadLetter>> dead_letters(const DeadLetterQuery& query = {});
  Result<std::optional<DeadLetter>> find_dead_letter(const MessageId& id);
  Result<std::vector<DeadLetterGroup>> dead_letter_groups(const DeadLetterQuery& query = {});
  /// Sends one entry back: attempts start at 1 again, the message id stays. Errors: kNotFound, kConflict (not
  /// pending), kLimitExceeded (`redrive_max`).
  Result<void> redrive(const MessageId& entry, const RedriveOptions& options = {});
  /// Sends back every pending entry that matched when the call began.
  Result<RedriveReport> redrive_all(const DeadLetterQuery& query, const RedriveOptions& options = {});
  /// kDiscarded for one pending entry.
  Result<void> discard_dead_letter(const MessageId& entry);

  // ---- idempotency ------------------------------------------------------------------------------

  Result<IdempotencyAnswer> begin(std::string_view key, const IdempotencyOptions& options = {});
  /// Errors: kLeaseLost when another caller took over.
  Result<void> complete(const IdempotencyToken& token, Bytes result, const IdempotencyOptions& options = {},
                        std::string content_type = {});
  /// The key may be run again at once.
  Result<void> fail(const IdempotencyToken& token);
  /// Runs `f` unless this key has a result, and returns the result. Single flight among threads and
  /// processes. Exceptions of `f` leave the key free and are passed on. Errors: kInProgress, kKeyMismatch,
  /// kLeaseLost.
  Result<IdempotencyResult> once(std::string_view key, const std::function<Bytes()>& f,
                                 const IdempotencyOptions& options = {});

  // ---- events -----------------------------------------------------------------------------------

  /// The event store. The handle keeps the engine open, as a copy of the engine does.
  [[nodiscard]] EventStore event_store() const;

  // ---- conversations ----------------------------------------------------------------------------

  /// The conversations. The handle keeps the engine open, as a copy of the engine does.
  [[nodiscard]] Conversations conversations() const;

  // ---- sagas ------------------------------------------------------------------------------------

  /// The sagas. The handle keeps the engine open, as a copy of the engine does.
  [[nodiscard]] Sagas sagas() const;

  // ---- operation --------------------------------------------------------------------------------

  Result<EngineStatistics> statistics();
  [[nodiscard]] Health health();
  /// What the provider found at opening, one sentence each.
  [[nodiscard]] std::vector<std::string> findings() const;
  /// Waits until nothing is due, receivable or running. For tests with a virtual clock. Errors: kTimeout
  /// (real time).
  Result<void> settle_down(Duration timeout = std::chrono::seconds(10));
  /// From its beginning consume() answers kClosed; other calls work until what runs has ended, so that
  /// handlers can finish. Stop intake, drain to the deadline, release the rest, settle, join, close the
  /// store. Idempotent; from several threads, of which the one with the nearest deadline decides how long it
  /// takes, and from inside a handler (then it marks the engine and returns; the rest happens on another
  /// thread). `timeout` is real time, also with a virtual clock. Returns the number of stuck handlers.
  Result<std::uint64_t> close(std::optional<Duration> timeout = std::nullopt);
  /// close(0) for a process that ends while handlers run, as by an exception that nobody caught: what they
  /// hold is left as the death of the process leaves it, so that it comes again when its lease has ended and
  /// a message that ends its process each time is found (DeadLetterOptions::max_crashes).
  Result<std::uint64_t> abandon();

 private:
  explicit Engine(std::shared_ptr<engine::Core> core) : core_(std::move(core)) {}
  std::shared_ptr<engine::Core> core_;
};

}  // namespace towline
