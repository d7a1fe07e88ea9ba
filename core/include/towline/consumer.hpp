#pragma once
// What a handler gets and what it may answer.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <towline/event_store.hpp>
#include <towline/message.hpp>
#include <towline/options.hpp>
#include <towline/result.hpp>
#include <towline/types.hpp>

namespace towline {

namespace engine {
class DeliveryState;
class ConsumerCore;
}  // namespace engine

class SqlTransaction;

/// What a handler decided about one message.
struct Outcome {
  enum class Kind : std::uint8_t {
    kAck,         ///< done
    kFail,        ///< failed: the retry policy decides
    kNak,         ///< failed on purpose: counts as an attempt; with `delay` that wait, else the policy's
    kDefer,       ///< not now: tried again after `delay`, counts nothing
    kDeadLetter,  ///< to the dead letters, with `error.message` as the reason
    kRelease      ///< given back unchanged, counts nothing
  } kind = Kind::kAck;
  std::optional<Duration> delay = std::nullopt;
  ErrorInfo error = {};

  static Outcome ack() { return {}; }
  static Outcome fail(ErrorInfo error) { return {Kind::kFail, std::nullopt, std::move(error)}; }
  static Outcome nak(std::optional<Duration> delay = std::nullopt, std::string why = {}) {
    return {Kind::kNak, delay, {"Nak", std::move(why), {}}};
  }
  static Outcome defer(Duration delay) { return {Kind::kDefer, delay, {}}; }
  static Outcome dead_letter(std::string reason) {
    return {Kind::kDeadLetter, std::nullopt, {"Rejected", std::move(reason), {}}};
  }
};

/// Throw this from a handler to name the error's type (for classification) and, optionally, the wait before a
/// retry. Any other exception is a failure too; its type is the C++ class name, and of a thrown text the text
/// is kept.
class HandlerError : public std::exception {
 public:
  explicit HandlerError(std::string type, std::string message = {})
      : info_{std::move(type), std::move(message), {}} {}
  [[nodiscard]] const char* what() const noexcept override { return info_.message.c_str(); }
  [[nodiscard]] const ErrorInfo& info() const noexcept { return info_; }
  /// Retry after exactly this long, counting no failure (a throttled dependency).
  HandlerError& retry_after(Duration delay) {
    retry_after_ = delay;
    return *this;
  }
  [[nodiscard]] std::optional<Duration> retry_after() const noexcept { return retry_after_; }

 private:
  ErrorInfo info_;
  std::optional<Duration> retry_after_;
};

/// One message in the hands of one handler. A cheap handle: copy it, keep it past the handler in manual mode.
///
/// Thread-safe. The payload stays valid as long as any copy of the handle lives, also after settling and
/// after close(). A delivery is settled once: the second call answers kAlreadySettled, a call after the lease
/// went to somebody else kLeaseLost, after close() kClosed; none of them changes anything.
class Delivery {
 public:
  Delivery() = default;

  [[nodiscard]] const MessageId& id() const noexcept;
  [[nodiscard]] std::string_view topic() const noexcept;
  [[nodiscard]] std::string_view group() const noexcept;
  [[nodiscard]] const std::optional<std::string>& key() const noexcept;
  [[nodiscard]] std::uint32_t partition() const noexcept;
  [[nodiscard]] std::string_view payload() const noexcept;
  [[nodiscard]] const Headers& headers() const noexcept;
  /// The value of a header, or nullopt.
  [[nodiscard]] std::optional<std::string_view> header(std::string_view name) const noexcept;
  [[nodiscard]] std::string_view content_type() const noexcept;
  [[nodiscard]] std::string_view correlation_id() const noexcept;
  [[nodiscard]] std::string_view causation_id() const noexcept;
  [[nodiscard]] std::string_view traceparent() const noexcept;
  [[nodiscard]] TimePoint published_at() const noexcept;
  /// 1 on the first handling, +1 for each failure. Durable.
  [[nodiscard]] std::uint32_t attempt() const noexcept;
  /// Deaths of a process that are charged to this message. Durable.
  [[nodiscard]] std::uint32_t crashes() const noexcept;
  /// True when an earlier handling may have run without being recorded: the effect may have happened.
  [[nodiscard]] bool redelivered() const noexcept;
  /// Times it was sent back from the dead letters.
  [[nodiscard]] std::uint32_t redrives() const noexcept;
  /// Stops when the result no longer counts: lease lost, timed out, or shutting down.
  [[nodiscard]] std::stop_token stop_token() const noexcept;

  /// Names this handing-out among all of this process, for callers that keep deliveries by number. Never 0
  /// and never given twice, except that of an empty handle, which is 0.
  [[nodiscard]] std::uint64_t number() const noexcept;

  /// Manual mode: settle now. The returned result is about accepting the decision; it is durable when the
  /// consumer's next commit is, which `wait` makes the call wait for.
  Result<void> ack(bool wait = false);
  Result<void> nak(std::optional<Duration> delay = std::nullopt, std::string why = {});
  Result<void> defer(Duration delay);
  Result<void> dead_letter(std::string reason);
  Result<void> settle(Outcome outcome, bool wait = false);

  /// Gives the handler `by` more time from now. At most 24 hours. Errors: kLeaseLost, kAlreadySettled.
  Result<void> extend(Duration by);
  /// Notes how far the handler is, for listings; also gives it handler_timeout more time.
  Result<void> progress(std::string note);

  /// `sqlite:` only. Runs `body` with SQL on the engine's own connection; its changes, the messages it
  /// publishes and the acknowledgement of this delivery are one transaction. When `body` fails nothing
  /// happened and the delivery is still unsettled; when it succeeded the delivery is acknowledged, also if
  /// the handler throws afterwards. The body must be quick: every writer of the file waits for it. Calls of
  /// the engine that write are refused inside it; use what SqlTransaction offers. Errors: kUnsupported,
  /// kLeaseLost, kInvalidArgument (no body, or inside another body), the body's.
  Result<void> transaction(const std::function<Result<void>(SqlTransaction&)>& body);

 private:
  friend class engine::ConsumerCore;
  explicit Delivery(std::shared_ptr<engine::DeliveryState> state) : state_(std::move(state)) {}
  std::shared_ptr<engine::DeliveryState> state_;
};

/// What a handler does inside Delivery::transaction. Valid only during the body.
class SqlTransaction {
 public:
  using Value = std::variant<std::monostate, std::int64_t, double, std::string>;
  virtual ~SqlTransaction() = default;
  virtual Result<std::vector<std::vector<Value>>> execute(std::string_view sql,
                                                          std::span<const Value> parameters = {}) = 0;
  virtual Result<MessageId> publish(Message message) = 0;
  /// Appends events when the body has returned, as EventStore::append(): another version than `expected` then
  /// fails the transaction with kConflict. Once per stream, else kInvalidArgument does.
  virtual Result<void> append(std::string_view stream, std::vector<NewEvent> events,
                                  std::optional<std::uint64_t> expected = std::nullopt) = 0;
  /// Stores the result of an idempotency key with the effect. Errors: kInvalidKey, kInvalidName,
  /// kPayloadTooLarge.
  virtual Result<void> complete(std::string_view scope, std::string_view key, Bytes result) = 0;
};

/// Handles one message. Returning acknowledges (in the default policy), throwing fails the attempt.
using Handler = std::function<void(Delivery&)>;
/// Handles one message and says what became of it.
using OutcomeHandler = std::function<Outcome(Delivery&)>;
/// Handles many messages at once. Returning acknowledges all that were not settled one by one; throwing fails
/// those.
using BatchHandler = std::function<void(std::span<Delivery>)>;

/// Takes messages to where they are handled: an event loop, a pool of the caller's own, another language.
/// Both functions are called by threads of the consumer, must return soon, and must not throw.
struct RemoteHandler {
  /// At least one, at most as many as `concurrency` has room for. Each must be given to
  /// Engine::finish() in the end, whatever became of it; until then it takes one of those places.
  std::function<void(std::span<Delivery>)> deliver;
  /// What comes of this one does not count any more: its time was up, its lease was lost, or the consumer
  /// closes. Comes after `deliver` has returned, and perhaps after the delivery was finished; with
  /// AckPolicy::kManual also for one that is finished and not settled. May be empty.
  std::function<void(const Delivery&)> stop = {};
  /// Each call of `deliver` is one batch, of at most ConsumerOptions::batch_count_max messages, and
  /// `concurrency` counts batches: one keeps its place until the last of its messages is finished.
  bool in_batches = false;
};

/// A handler that has returned elsewhere.
struct Finished {
  Delivery delivery;
  /// As from an OutcomeHandler: in manual mode kAck leaves the delivery as it is.
  Outcome outcome;
};

struct ConsumerStatistics {
  std::uint64_t received = 0, acked = 0, failed = 0, retried = 0, deferred = 0, dead_lettered = 0,
                filtered = 0;
  std::uint64_t expired = 0, timed_out = 0, lease_lost = 0, duplicates = 0, discarded = 0;
  std::uint64_t in_flight = 0;  ///< received and not settled
  std::uint64_t running = 0;    ///< handlers that run now
  std::uint64_t running_max = 0;
  std::uint64_t stuck = 0;  ///< handlers past their time that have not returned
  std::uint64_t blocked_keys = 0;
  bool paused = false;
  bool breaker_open = false;
};

/// A running subscription. Keep it: dropping the last copy closes it (but for Engine::consume_remote), as
/// close() and closing the engine do; inside one of its own handlers that only marks it, and the rest happens
/// on another thread. Thread-safe.
class Consumer {
 public:
  Consumer() = default;
  /// Takes in nothing more; what is in flight goes on. Idempotent.
  Result<void> pause();
  Result<void> resume();
  /// Waits until nothing is in flight, taking in nothing new, then leaves it paused. Errors: kTimeout
  /// (real time, also with a virtual clock; a negative timeout is over already), kInvalidArgument (inside one
  /// of its own handlers).
  Result<void> drain(Duration timeout);
  /// Changes how many handlers run at once. [1, 4096]
  Result<void> set_concurrency(std::int64_t concurrency);
  [[nodiscard]] ConsumerStatistics statistics() const;
  /// Stops intake, waits for handlers up to `timeout`, releases the rest and settles. Returns the number of
  /// handlers that are stuck: their threads are left alone. From inside a handler it only marks the consumer
  /// and returns at once.
  Result<std::uint64_t> close(std::optional<Duration> timeout = std::nullopt);
  /// Whether closing has ended.
  [[nodiscard]] bool closed() const noexcept;

 private:
  friend class Engine;
  explicit Consumer(std::shared_ptr<engine::ConsumerCore> core) : core_(std::move(core)) {}
  std::shared_ptr<engine::ConsumerCore> core_;
};

}  // namespace towline
