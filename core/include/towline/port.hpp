#pragma once
// The mailbox between an engine and another language, or an event loop: requests go in and return at once,
// events come out. Bindings convert what passes here and do nothing else.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <towline/engine.hpp>

namespace towline {

/// What a request came to, in the form that the binding wants it; made on a thread of the port, taken by the
/// binding.
struct Reply {
  virtual ~Reply() = default;
};

/// Something for the binding. What is rare is behind a pointer: thousands of deliveries are moved at once.
struct Event {
  enum class Kind : std::uint8_t {
    kReply,     ///< to request `id`: `reply`; or `error`, when it was not even tried
    kReceipts,  ///< to request `id`, which was a publish(): `receipts`, one per message; or `error`
    kDelivery,  ///< for consumer `id`: `delivery`; give it to finish() in the end
    kStop,      ///< what comes of the delivery with number() `id` does not count any more
    kLog,       ///< `log`
    kAlert,     ///< `alert`
    kEvents     ///< for the handler of subscription `id`: `events`; say finish_events() of them
  } kind = Kind::kReply;
  std::uint64_t id = 0;
  Delivery delivery = {};
  /// Of a consumer in batches: how many deliveries of the same batch come behind this one.
  std::size_t batch_left = 0;
  std::unique_ptr<Reply> reply = nullptr;
  std::vector<Receipt> receipts = {};
  std::vector<RecordedEvent> events = {};
  std::unique_ptr<Error> error = nullptr;
  struct Log {
    LogLevel level = LogLevel::kInfo;
    std::string station, text;
  };
  std::unique_ptr<Log> log = nullptr;
  std::unique_ptr<Alert> alert = nullptr;
};

struct PortOptions {
  /// Called when the mailbox goes from empty to non-empty, by any thread, with no lock held; it must return
  /// at once and must not throw: it writes an eventfd, or calls a thread-safe function. May be empty.
  std::function<void()> ring = {};
  /// Log records below it are dropped where they are made; nullopt: all are.
  std::optional<LogLevel> log_level = std::nullopt;
  /// Log records that wait; more are dropped, and their number is told by the next one. [1, 1000000]
  std::size_t log_count_max = 1'000;
  /// Requests that wait for a thread, and messages that wait to be published; one more is answered with
  /// kOverloaded. [1, 10000000]
  std::size_t request_count_max = 100'000;
  /// Threads for requests that block. [1, 1000]
  std::size_t thread_count_max = 32;
};

/// A consumer of a port, which keeps it until it is closed or the port is shut; then every call but close()
/// answers kClosed. Dropping it frees nothing but itself, so a garbage collector may. Thread-safe.
class PortConsumer {
 public:
  PortConsumer() = default;
  // As those of Consumer.
  Result<void> pause();
  Result<void> resume();
  Result<void> drain(Duration timeout);
  Result<void> set_concurrency(std::int64_t concurrency);
  [[nodiscard]] Result<ConsumerStatistics> statistics() const;
  Result<std::uint64_t> close(std::optional<Duration> timeout = std::nullopt);

 private:
  friend class Port;
  explicit PortConsumer(std::weak_ptr<Consumer> consumer) : consumer_(std::move(consumer)) {}
  std::weak_ptr<Consumer> consumer_;
};

/// One engine and its mailbox. Thread-safe. Deliveries, replies and logs wait in it in the order they came;
/// deliveries are bounded by the concurrency of their consumers.
///
/// Closing: close the engine by a call(), then shut(), then take the last events: answers to what was asked
/// before. After shut() nothing rings and no thread of the port runs. A child of a fork() must not destroy a
/// port that its parent made; it may leak it.
class Port {
 public:
  explicit Port(PortOptions options);
  /// shut().
  ~Port();
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;

  /// Opens the engine, on the calling thread; logs and alerts come as events. Once. Errors: those of
  /// Engine::open, kInvalidArgument (it is open already).
  Result<void> open(std::string_view url, EngineOptions options);
  /// The engine; empty, so that every call answers kClosed, before open().
  [[nodiscard]] Engine engine() const;

  // ---- requests ---------------------------------------------------------------------------------

  /// Runs `work` on a thread of the port; its reply comes as an event. It must not throw. `urgent`: also when
  /// all threads are busy with calls that take long; for closing.
  void call(std::uint64_t id, std::function<std::unique_ptr<Reply>(Engine&)> work, bool urgent = false);
  /// The same for a caller that waits. `is_interrupted` is asked on the calling thread every 50 ms; when it
  /// says yes the work goes on and its reply is dropped. Errors: kCancelled (interrupted), kOverloaded,
  /// kClosed.
  Result<std::unique_ptr<Reply>> wait(std::function<std::unique_ptr<Reply>(Engine&)> work,
                                      const std::function<bool()>& is_interrupted, bool urgent = false);
  /// Messages of several requests that wait for the disk are published together.
  void publish(std::uint64_t id, std::vector<Message> messages);
  /// Deliveries come as events with `consumer_id`. `in_batches`: as RemoteHandler::in_batches.
  Result<PortConsumer> consume(std::uint64_t consumer_id, const std::vector<std::string>& patterns,
                               const ConsumerOptions& options, bool in_batches = false);
  /// The handlers of these deliveries, by number, have returned. Numbers that are not out are passed over.
  struct Finish {
    std::uint64_t number = 0;
    Outcome outcome;
  };
  void finish(std::span<Finish> finished);

  /// Follows events for a handler of the binding. Its batches come as events with `subscription_id`, one at
  /// a time; all else is as EventStore::subscribe() with a handler. The port keeps the subscription, so
  /// dropping the handle that is returned frees nothing but itself.
  Result<EventSubscription> follow_events(std::uint64_t subscription_id,
                                          const EventSubscriptionOptions& options);
  /// What came of the batch that is out: it was handled, or `error`, and then it comes again.
  void finish_events(std::uint64_t subscription_id, std::optional<ErrorInfo> error = std::nullopt);
  /// The subscription was closed, or nobody handles what comes: that fails. May wait for the store.
  void forget_events(std::uint64_t subscription_id);

  // ---- events -----------------------------------------------------------------------------------

  /// Takes at most `count_max` events, without waiting. When some are left it rings again.
  std::vector<Event> drain(std::size_t count_max);
  /// Waits until there is an event; false: `timeout` is over, or the port is shut.
  bool poll(Duration timeout);
  /// Deliveries that are out: given to the binding, or waiting in the mailbox, and not finished.
  [[nodiscard]] std::size_t open_count() const;

  /// Closes the engine when it is open still, ends the port's threads. Idempotent; waits for `work` that
  /// runs.
  void shut();

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace towline
