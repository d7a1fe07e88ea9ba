#pragma once
// Sagas: business transactions of several steps, each of which can be undone.
//
// A saga runs its steps one after the other. What a step is about to do is written before it runs, and what
// came of it afterwards, so that a saga whose process dies is gone on with by another one, at any moment.
// When a step fails for good, everything that was started is undone: first the failed step itself, since
// nobody knows how far it came, then the others in reverse order of their success.
//
//     towline::Saga order("order");
//     order.step("reserve", reserve, release)
//         .step("charge", charge, refund, {.timeout = 10s})
//         .step("ship", ship, {.pivot = true});
//     auto runner = engine.sagas().run(order).value();
//     engine.sagas().start(order, "order-4711", R"({"customer": 9})").value();
//
// A step may run more than once: its process can die after the effect and before the outcome is written. Its
// key, `type/id/step/phase`, is the same each time; give it to what the step calls, or to Engine::once().
//
// A Choreography is a saga that nobody directs: each step listens to an event, and publishes the one that the
// next step listens to.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <towline/message.hpp>
#include <towline/options.hpp>
#include <towline/result.hpp>

namespace towline {

class Delivery;
struct Outcome;

namespace engine {
class Core;
class SagaRunner;
struct SagaCallState;
}  // namespace engine

enum class SagaStatus : std::uint8_t {
  kRunning,
  kCompensating,  ///< what was started is being undone
  kCompleted,     ///< every step has succeeded
  kCompensated,   ///< everything that was started is undone; a choreography: it did not come to its end
  kStuck          ///< a compensation, or a step behind the pivot, was tried as often as it may be
};
/// Nothing happens by itself any more.
[[nodiscard]] constexpr bool is_final(SagaStatus status) noexcept { return status >= SagaStatus::kCompleted; }
/// Lower case: "running", ...
[[nodiscard]] constexpr std::string_view name_of(SagaStatus status) noexcept {
  constexpr std::string_view kNames[] = {"running", "compensating", "completed", "compensated", "stuck"};
  return kNames[static_cast<std::size_t>(status)];
}

/// What is known of a saga without its log.
struct SagaInfo {
  std::string type;
  std::string id;
  std::uint32_t definition_version = 1;
  /// Of the definition that it began under.
  std::string fingerprint;
  SagaStatus status = SagaStatus::kRunning;
  /// Where it is: the step that runs, waits or is stuck; of several the first. Empty: at none.
  std::string step;
  /// What failed first, or why it was cancelled; empty: nothing did.
  std::string error;
  TimePoint started_at{};
  TimePoint updated_at{};
  /// When it is cancelled by itself; kNever: never.
  TimePoint deadline_at = kNever;
  /// How long it is kept once it is completed or compensated.
  Duration retention{0};
};

/// Every condition that is set must hold.
struct SagaQuery {
  std::string type;  ///< empty: all
  std::optional<SagaStatus> status;
  std::optional<std::uint32_t> definition_version;
  /// Neither completed nor compensated.
  bool unfinished = false;
  std::optional<TimePoint> started_before;
  std::size_t count_max = 100;  ///< [1, 1000]
  std::string cursor;
};

// ---- the timeline -------------------------------------------------------------------------------

/// What happened to a saga.
enum class SagaMark : std::uint8_t {
  kBegun,               ///< `context`: what it begins with
  kHeard,               ///< of a choreography: somebody else has published `event`; `context`: its payload
  kStarted,             ///< written before attempt `attempt` of a step; `due_at`: when a reply must be there
  kDone,                ///< the step has succeeded; `output`, and `context` when it has changed
  kFailed,              ///< the attempt has failed, the next is at `due_at`; `error`
  kPostponed,           ///< a step or a compensation asked to be tried again at `due_at`; not a failure
  kGivenUp,             ///< the step has failed for good, or nobody knows and it is not tried again; `error`
  kCompensating,        ///< written before attempt `attempt` of a compensation
  kCompensated,         ///< the compensation has succeeded
  kCompensationFailed,  ///< as kFailed
  kCompensationStuck,   ///< it was tried as often as it may be; a person has to look; `error`
  kCancelled,           ///< nothing new begins, what was done is undone; `error`: why
  kSkipped,             ///< by a person: the step counts as done, or its stuck compensation as not needed
  kRetried,             ///< by a person: what is stuck gets new attempts
  kForcedCompleted,     ///< by a person: it counts as completed, whatever happened
  kForcedCompensated,   ///< by a person: it counts as compensated
  kNote                 ///< by a person: `error` is the text
};

/// One entry of a saga's log.
struct SagaEntry {
  SagaMark mark = SagaMark::kNote;
  std::string step = {};  ///< empty where the whole saga is meant
  std::uint32_t attempt = 0;
  std::optional<TimePoint> due_at = std::nullopt;
  std::optional<Bytes> output = std::nullopt;
  std::optional<Bytes> context = std::nullopt;
  std::string error = {};
  /// Of a choreography: the topic that was heard, or where this entry's outcome was published.
  std::string event = {};
  TimePoint at{};
};
/// Lower case with underscores: "given_up", ...
[[nodiscard]] std::string_view name_of(SagaMark mark) noexcept;

// ---- definitions --------------------------------------------------------------------------------

enum class SagaPhase : std::uint8_t { kExecute, kCompensate };

/// One call of a step's function, or of its compensation. A cheap handle. What it changes counts when the
/// call succeeds, and happens in the transaction that writes its outcome. Only the thread that handles the
/// call may use what changes something.
class SagaCall {
 public:
  SagaCall() = default;

  [[nodiscard]] const std::string& type() const noexcept;
  [[nodiscard]] const std::string& id() const noexcept;
  [[nodiscard]] const std::string& step() const noexcept;
  [[nodiscard]] SagaPhase phase() const noexcept;
  /// 1 the first time; grows with every attempt, also with those whose process died.
  [[nodiscard]] std::uint32_t attempt() const noexcept;
  /// `type/id/step/phase`, the same in every attempt: for the step's own idempotency.
  [[nodiscard]] const std::string& key() const noexcept;
  /// What the steps before have left; in a choreography the payload of the event that it listens to.
  [[nodiscard]] const Bytes& context() const noexcept;
  /// Of a step that has succeeded; nullopt: it has not. In a compensation its own tells what there is to
  /// undo; nullopt there: the step failed, or nobody knows.
  [[nodiscard]] std::optional<Bytes> output_of(std::string_view step) const;
  [[nodiscard]] std::optional<Bytes> output() const { return output_of(step()); }
  /// Why the saga is undone; empty: it is not.
  [[nodiscard]] const std::string& cause() const noexcept;
  /// Stops when the result does not count any more: its time is up, its lease is lost, or the engine closes.
  [[nodiscard]] std::stop_token stop_token() const noexcept;

  /// For the steps that follow. Refused with kInvalidArgument in a compensation, in a step that runs beside
  /// others, and in a choreography: those have outputs. Errors: kPayloadTooLarge.
  Result<void> set_context(Bytes context);
  /// Kept for the step's compensation and for later steps. Errors: kPayloadTooLarge.
  Result<void> set_output(Bytes output);
  /// Leaves with the outcome, or not at all. Errors: those of Engine::publish that are found before it is
  /// stored.
  Result<void> publish(Message message);

  /// Names this call among all of this process. Never 0, except that of an empty handle.
  [[nodiscard]] std::uint64_t number() const noexcept;

 private:
  friend class engine::SagaRunner;
  explicit SagaCall(std::shared_ptr<engine::SagaCallState> state) : state_(std::move(state)) {}
  std::shared_ptr<engine::SagaCallState> state_;
};

/// Runs a step, or undoes it. Returning means that it succeeded. Throwing fails the attempt: the step's retry
/// policy decides, and an error that is classified as permanent is not tried again. Must be repeatable: see
/// SagaCall::key().
using SagaHandler = std::function<void(SagaCall&)>;

/// How a type of the program's own is written as a saga's context, and read: for the program to specialize.
///
///     template <>
///     struct towline::Codec<Purchase> {
///       static towline::Bytes encode(const Purchase& purchase);
///       static Purchase decode(const towline::Bytes& bytes);
///     };
template <typename Context>
struct Codec;

/// A step's function that takes the context as a `Context`. One that takes it as `Context&` changes it for
/// the steps that follow, under the conditions of SagaCall::set_context(); with `const Context&` it only
/// reads. What the Codec throws fails the attempt. Called by several threads at once, as every handler.
template <typename Context, typename Function>
[[nodiscard]] SagaHandler with_context(Function function) {
  return [function = std::move(function)](SagaCall& call) {
    Context context = Codec<Context>::decode(call.context());
    if constexpr (std::is_invocable_v<const Function&, SagaCall&, const Context&>) {
      function(call, std::as_const(context));
    } else {
      call.set_context(call.context()).value();  // refused before anything has happened, not after it
      function(call, context);
      call.set_context(Codec<Context>::encode(context)).value();
    }
  };
}

/// A step without its functions.
struct SagaStep {
  /// As a consumer's name. Unique in the saga.
  std::string name;
  /// Without a compensation it must say `changes_nothing`, or stand at or behind the pivot.
  bool compensates = true;
  SagaStepOptions options = {};
  /// Of a choreography: the topic it listens to, and where its success and its failure are published.
  std::string listen_to = {}, on_success = {}, on_failure = {};
  /// Of a choreography: somebody else does it; one of its two events is waited for up to `options.timeout`.
  bool is_awaited = false;
};

/// A saga without its functions: for those who run them elsewhere.
struct SagaDefinition {
  /// 1..64 letters, digits, '-', '_'.
  std::string type;
  /// Grows when the steps change: running sagas go on under the version they began with.
  std::uint32_t version = 1;
  /// In each stage one step, or several that run side by side.
  std::vector<std::vector<SagaStep>> stages;
  SagaOptions options = {};
  /// Of a choreography, whose steps are all in one stage: the topic of the event that begins one.
  std::string begins_with = {};
};

/// A saga's definition, built step by step. A plain value. What is wrong with it is told by Sagas::run() and
/// start().
class Saga {
 public:
  /// One of several steps that run side by side.
  struct Branch {
    std::string name;
    SagaHandler execute;
    SagaHandler compensate = {};
    SagaStepOptions options = {};
  };

  explicit Saga(std::string type, std::uint32_t version = 1, SagaOptions options = {});
  /// With the step's `options.command` set its functions may be empty: then a message is published instead
  /// and its reply waited for; see Sagas::reply().
  Saga& step(std::string name, SagaHandler execute, SagaHandler compensate, SagaStepOptions options = {});
  /// A step that is not undone.
  Saga& step(std::string name, SagaHandler execute, SagaStepOptions options = {});
  /// They begin together, and what follows begins when all have succeeded. They cannot change the context.
  Saga& parallel(std::vector<Branch> branches);

  [[nodiscard]] const SagaDefinition& definition() const noexcept { return definition_; }
  [[nodiscard]] const SagaHandler* handler(std::string_view step, SagaPhase phase) const;

 private:
  friend class Choreography;
  SagaDefinition definition_;
  std::vector<Branch> functions_;
};

/// A saga of steps that are joined by events: each runs when its event was heard, and what comes of it is the
/// event that others listen to, in this process or in other services. Events are messages that carry the
/// saga's id in the header `saga-id`; see Sagas::event(). Run it, start it, ask for it and change it as any
/// other saga.
///
///     towline::Choreography order("order", "order.placed");
///     order.on("order.placed", reserve, "stock.reserved", "stock.refused")
///         .expect("stock.reserved", "payment.done", "payment.failed", 1min)  // another service charges
///         .on("payment.failed", release, "stock.released")
///         .on("payment.done", ship, "order.shipped", "shipping.failed")
///         .on("shipping.failed", give_back, "stock.released", {}, {}, "give_back");
///
/// It takes each event once. It is over when nothing is left to run or to wait for: completed, when every
/// step at the end of the way without failures has succeeded; stuck, when a step of the way after a failure
/// was tried as often as it may be and nobody listens to its own failure; else compensated. Cancelled, or
/// behind its deadline, it begins no step of the way without failures any more: their failure events are
/// published instead, so that the others undo what was done. What it awaits it still waits for: others may be
/// at it. Of the two events of what is awaited only the first counts, not before what it follows.
///
/// Each type that listens to a topic gets all events there, so whoever shares a topic shares the ids. An
/// event that comes before its saga has begun waits for it up to `early_event_ttl`, and is then a dead letter
/// of the group `towline.saga.TYPE`. Events of a saga that is over, and events without a saga's id, are
/// counted; see SagaRunnerStatistics. A service with steps of its own makes its own choreography, of another
/// type, with the same id, which its events carry.
class Choreography {
 public:
  /// A message on the topic `begins_with` begins one: by the id in its header, or by the message's own id.
  explicit Choreography(std::string type, std::string begins_with, std::uint32_t version = 1,
                        SagaOptions options = {});
  /// `execute` runs when `listen_to` was heard; it gets the event's payload as context. Its output is
  /// published to `on_success`. When it has failed for good, what it got is published to `on_failure`, with
  /// the error in the header `saga-error`; empty: nothing is. The step's name is `name`, or `on_success`.
  Choreography& on(std::string listen_to, SagaHandler execute, std::string on_success,
                   std::string on_failure = {}, SagaStepOptions options = {}, std::string name = {});
  /// After `listen_to` somebody else must publish `on_success` or `on_failure` in time; if nobody does,
  /// `on_failure` is published here. Its name is `name`, or `on_success`.
  Choreography& expect(std::string listen_to, std::string on_success, std::string on_failure,
                       Duration timeout, std::string name = {});

  // NOLINTNEXTLINE(google-explicit-constructor): it is one, only built in another way
  operator const Saga&() const noexcept { return saga_; }
  [[nodiscard]] const SagaDefinition& definition() const noexcept { return saga_.definition(); }

 private:
  Saga saga_;
};

/// The flow of a saga as a Mermaid diagram.
[[nodiscard]] std::string visualize(const SagaDefinition& definition);

// ---- running ------------------------------------------------------------------------------------

struct SagaStarted {
  std::string id;
  /// False: it was there already.
  bool is_new = false;
};

struct SagaResult {
  SagaInfo saga;
  /// What its last step left; of a choreography what it began with.
  Bytes context;
};

struct SagaRunnerStatistics {
  std::uint64_t in_hand = 0;     ///< sagas that this process works on now
  std::uint64_t calls = 0;       ///< begun here
  std::uint64_t failures = 0;    ///< calls that failed or ran out of time
  std::uint64_t taken_over = 0;  ///< calls whose process had died
  /// Sagas that ended with what was decided here; not those that ended with an event of others.
  std::uint64_t completed = 0, compensated = 0, stuck = 0;
  /// Sagas that wait because they began under another definition of this version.
  std::uint64_t mismatched = 0;
  /// Events of a choreography that came before their saga, that came when it was over, and that carried no
  /// saga's id. An early one counts each time it is looked at.
  std::uint64_t early = 0, late = 0, strangers = 0;
};

/// Runs the calls of sagas elsewhere: an event loop, another language. Both functions are called by a thread
/// of the engine, must return soon, and must not throw.
struct SagaRemote {
  /// At least one. Each must be given to Sagas::finish() in the end.
  std::function<void(std::span<SagaCall>)> deliver;
  /// What comes of it does not count any more; it must be finished all the same.
  std::function<void(const SagaCall&)> stop = {};
};

/// Runs the sagas of one definition. Keep it: dropping the last copy closes it (but for Sagas::run_remote),
/// as close() and closing the engine do. Thread-safe.
class SagaRunner {
 public:
  SagaRunner() = default;
  [[nodiscard]] SagaRunnerStatistics statistics() const;
  /// Begins no more calls, waits for those that run up to the timeout (real time; default: drain_timeout of
  /// the engine), and leaves the sagas to others. Returns the number of calls that have not returned: their
  /// threads are left alone, and what they still do does not count. Idempotent.
  Result<std::uint64_t> close(std::optional<Duration> timeout = std::nullopt);

 private:
  friend class Sagas;
  explicit SagaRunner(std::shared_ptr<engine::SagaRunner> runner) : runner_(std::move(runner)) {}
  std::shared_ptr<engine::SagaRunner> runner_;
};

/// The sagas of an engine. A handle, as Engine is; got by Engine::sagas(). Thread-safe; every call answers
/// kClosed after Engine::close(). Whoever starts, asks or changes a saga need not run it.
class Sagas {
 public:
  Sagas() = default;

  /// Runs sagas of this definition that anybody starts, up to `options.concurrency` at once. Errors:
  /// kInvalidSaga, kInvalidConfig; kDefinitionMismatch: unfinished sagas of this type and version began under
  /// other steps; give the new ones a new version, and run both until the old ones are done.
  Result<SagaRunner> run(const Saga& saga);
  /// The same with functions elsewhere. Runs until it is closed, or its engine is.
  Result<SagaRunner> run_remote(const SagaDefinition& definition, SagaRemote remote);
  /// The function has returned elsewhere: as an OutcomeHandler would say it, where kAck means that it
  /// succeeded and kDeadLetter that it failed for good. Any thread; a call counts once.
  static void finish(SagaCall& call, Outcome outcome);

  /// Returns after the durable commit. `id` empty: a new one is made. 1..128 bytes of visible ASCII without
  /// '/'. An id that is there already changes nothing: so a start whose outcome is unknown may be repeated.
  /// Errors: kInvalidSaga, kInvalidId, kPayloadTooLarge; kConflict: the id is there with another context or
  /// another version; kTimeout, kUnavailable, kIoError: unknown whether it happened.
  Result<SagaStarted> start(const Saga& saga, std::string id, Bytes context);
  Result<SagaStarted> start(const SagaDefinition& definition, std::string id, Bytes context);
  /// nullopt: there is none.
  Result<std::optional<SagaInfo>> find(std::string_view type, std::string_view id);
  /// In order of starting.
  Result<Page<SagaInfo>> list(const SagaQuery& query = {});
  /// What happened to it, from the beginning. Errors: kNotFound.
  Result<std::vector<SagaEntry>> timeline(std::string_view type, std::string_view id);
  /// Waits until nothing happens by itself any more, up to the timeout (real time with the machine's clock).
  /// Errors: kNotFound, kTimeout.
  Result<SagaResult> result(std::string_view type, std::string_view id, Duration timeout);

  /// Nothing new begins, and what was started is undone; what runs ends first, and if that was the pivot and
  /// it succeeds, the saga goes on to its end. Errors: kNotFound; kConflict: it is over, or past its pivot.
  Result<void> cancel(std::string_view type, std::string_view id, std::string why);
  /// A stuck step or compensation gets new attempts. Errors: kNotFound, kConflict (it is not stuck).
  Result<void> retry(std::string_view type, std::string_view id, std::string_view step);
  /// A stuck step counts as done, a stuck compensation as not needed; in a choreography its `on_success` is
  /// published. Errors: as retry().
  Result<void> skip(std::string_view type, std::string_view id, std::string_view step);
  /// A stuck saga counts as completed or compensated. Errors: as retry(), kInvalidArgument.
  Result<void> force(std::string_view type, std::string_view id, SagaStatus status);
  /// Adds a note to its timeline. At most 4096 bytes.
  Result<void> annotate(std::string_view type, std::string_view id, std::string text);

  /// An event of a choreography, to be published: with the saga's id in the header `saga-id`, and as key.
  [[nodiscard]] static Message event(std::string topic, std::string id, Bytes payload);

  /// The reply to a command, to be published by whoever handled it: `output` becomes the step's output. A
  /// second one changes nothing. Errors: kInvalidArgument (the message is no saga's command).
  static Result<Message> reply(const Delivery& command, Bytes output);
  /// The command has failed: the step's retry policy decides, unless `permanent`.
  static Result<Message> reply_failed(const Delivery& command, std::string error, bool permanent = false);

 private:
  friend class Engine;
  explicit Sagas(std::shared_ptr<engine::Core> core) : core_(std::move(core)) {}
  std::shared_ptr<engine::Core> core_;
};

}  // namespace towline
