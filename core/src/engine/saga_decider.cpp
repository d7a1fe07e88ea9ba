// SagaDecider; see the header.

#include "engine/saga_decider.hpp"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/text.hpp"
#include "policy/backoff.hpp"
#include "policy/classify.hpp"

namespace towline::engine {
namespace {

constexpr std::size_t kErrorLengthMax = 1000;

std::string text_of(const ErrorInfo& error) {
  return text_of_error(error.message.empty() ? error.type : error.type + ": " + error.message);
}

}  // namespace

std::string text_of_error(std::string_view text) { return base::escape(text, kErrorLengthMax); }

std::vector<const SagaStep*> steps_of(const SagaDefinition& definition) {
  std::vector<const SagaStep*> steps;
  for (const std::vector<SagaStep>& stage : definition.stages) {
    for (const SagaStep& step : stage)
      steps.push_back(&step);
  }
  return steps;
}

std::string_view name_of(SagaPhase phase) noexcept {
  return phase == SagaPhase::kExecute ? "execute" : "compensate";
}

std::string key_of(const SagaInfo& saga, std::string_view step, SagaPhase phase) {
  return saga.type + "/" + saga.id + "/" + std::string(step) + "/" + std::string(name_of(phase));
}

SagaDecider::SagaDecider(SagaRecord& record, const std::vector<const SagaStep*>& steps, SagaRecords& records,
                         spi::Rng& rng, TimePoint now)
    : record_(record), steps_(steps), records_(records), rng_(rng), now_(now) {}

bool SagaDecider::append(SagaEntry entry) {
  entry.at = now_;
  if (auto applied = record_.state.apply(entry); !applied) {
    records_.context().log(LogLevel::kError, "sagas", applied.error().message);
    return false;
  }
  change.entries.push_back(std::move(entry));
  return true;
}

const std::string& SagaDecider::command_of(const saga::Call& call) const {
  const SagaStepOptions& options = step_of(call).options;
  return call.phase == SagaPhase::kExecute ? options.command : options.compensation_command;
}

bool SagaDecider::is_elsewhere(const saga::Call& call) const {
  return step_of(call).is_awaited || !command_of(call).empty();
}

// ---- what became of calls -----------------------------------------------------------------------

void SagaDecider::end_missed_events(const std::function<bool(const SagaStep&, TimePoint)>& may_be_unheard) {
  for (const saga::Call& call : record_.state.running()) {
    const auto due = record_.state.due_at(call);
    if (!step_of(call).is_awaited || due > now_) continue;
    if (due && may_be_unheard(step_of(call), *due)) {
      waits_for_listener = true;
      continue;
    }
    (void)append(record_.state.failed(call, std::nullopt, "EventTimeout: no event came in time"));
    ++failures;
  }
}

void SagaDecider::end_lost_calls(std::optional<TimePoint> woken_at) {
  for (const saga::Call& call : record_.state.running()) {
    if (step_of(call).is_awaited) continue;
    if (is_elsewhere(call)) {
      const auto due = record_.state.due_at(call);
      if (due && (*due > now_ || !woken_at || *woken_at < *due)) continue;
      (void)append(entry_of_failure(call, Outcome::fail({"ReplyTimeout", "no reply came in time", {}})));
    } else {
      ++taken_over;
      const ErrorInfo lost{"ProcessLost", "the process that ran it is gone, so its outcome is not known", {}};
      const bool undo = call.phase == SagaPhase::kExecute && step_of(call).options.undo_unknown;
      (void)append(undo ? record_.state.failed(call, std::nullopt, text_of(lost))
                        : entry_of_failure(call, Outcome::nak(Duration{0}, lost.message)));
    }
    ++failures;
  }
}

void SagaDecider::take_reply(const Delivery& delivery) {
  const auto header = delivery.header(kCallHeader);
  const auto outcome = delivery.header(kOutcomeHeader);
  if (!header || !outcome) return;
  const std::size_t hash = header->rfind('#');
  std::uint32_t attempt = 0;
  if (hash == std::string_view::npos) return;
  const std::string_view number = header->substr(hash + 1);
  if (std::from_chars(number.data(), number.data() + number.size(), attempt).ec != std::errc()) return;
  for (const saga::Call& call : record_.state.running()) {
    const std::string& step = record_.state.name_of_step(call.step);
    if (call.attempt != attempt || header->substr(0, hash) != key_of(record_.info, step, call.phase))
      continue;
    const ErrorInfo error{"CommandFailed", std::string(delivery.header(kSagaErrorHeader).value_or("")), {}};
    if (*outcome == "done") return take(call, Outcome::ack(), Bytes(delivery.payload()), std::nullopt, {});
    Outcome failed = Outcome::fail(error);
    if (*outcome == "failed_for_good") failed = {Outcome::Kind::kDeadLetter, std::nullopt, error};
    return take(call, failed, std::nullopt, std::nullopt, {});
  }
}

void SagaDecider::take(const saga::Call& call, const Outcome& outcome, std::optional<Bytes> output,
                       std::optional<Bytes> context, std::vector<spi::Write> published) {
  if (!record_.state.is_running(call)) return;
  if (outcome.kind != Outcome::Kind::kAck) {
    ++failures;
    (void)append(entry_of_failure(call, outcome));
    return;
  }
  (void)append(record_.state.succeeded(call, std::move(output), std::move(context)));
  for (spi::Write& write : published)
    change.published.push_back(std::move(write));
}

SagaEntry SagaDecider::entry_of_failure(const saga::Call& call, const Outcome& outcome) {
  const SagaStepOptions& options = step_of(call).options;
  const RetryOptions& retry = call.phase == SagaPhase::kExecute ? options.retry : options.compensation_retry;
  const std::uint32_t failed = record_.state.failures(call) + 1;
  const saga::State& state = record_.state;
  const std::string why = text_of(outcome.error);
  const auto bounded = [&](Duration wait) {
    return std::clamp(wait, Duration{0}, records_.context().options.delay_max);
  };
  const auto postponed = [&](std::optional<Duration> wait) {
    return state.postponed(call, now_ + bounded(wait.value_or(retry.initial_delay)), why);
  };
  const auto counted = [&](std::optional<Duration> wait) {
    if (failed >= retry.max_attempts) return state.failed(call, std::nullopt, why);
    if (!wait) wait = policy::retry_delay(retry, failed, Duration{0}, outcome.error, rng_);
    return state.failed(call, wait ? std::optional(now_ + bounded(*wait)) : std::nullopt, why);
  };
  switch (outcome.kind) {
    case Outcome::Kind::kDefer:
    case Outcome::Kind::kRelease:
      return postponed(outcome.delay);
    case Outcome::Kind::kDeadLetter:
      return state.failed(call, std::nullopt, why);
    case Outcome::Kind::kAck:
    case Outcome::Kind::kNak:
      return counted(outcome.delay);
    case Outcome::Kind::kFail:
      break;
  }
  const policy::Classification known = policy::classify(outcome.error, outcome.delay, options.classify);
  switch (known.failure_class) {
    case FailureClass::kNotAFailure:
      return postponed(std::nullopt);
    case FailureClass::kThrottled:
      return postponed(known.retry_after);
    case FailureClass::kPermanent:
    case FailureClass::kDecode:
      return state.failed(call, std::nullopt, why);
    case FailureClass::kTransient:
      break;
  }
  return counted(std::nullopt);
}

void SagaDecider::check_deadline() {
  if (record_.info.deadline_at > now_ || record_.state.status() != SagaStatus::kRunning) return;
  auto entry = record_.state.cancel("the deadline of the saga has passed");
  // Past its pivot it only goes forward, however late; and what is being undone is undone already.
  if (entry && record_.state.cause().empty()) (void)append(std::move(*entry));
}

// ---- what begins --------------------------------------------------------------------------------

Result<spi::Write> SagaDecider::command(const saga::Call& call) const {
  const std::string& step = record_.state.name_of_step(call.step);
  Message message;
  message.topic = command_of(call);
  message.key = record_.info.id;
  message.payload = call.phase == SagaPhase::kExecute ? record_.state.context()
                                                      : record_.state.output(call.step).value_or(Bytes());
  message.content_type = content_type_of(message.payload);
  message.headers = {
      {std::string(kCallHeader), key_of(record_.info, step, call.phase) + "#" + std::to_string(call.attempt)},
      {std::string(kReplyToHeader), saga_topic(record_.info.type, record_.info.definition_version)}};
  return records_.as_write(std::move(message));
}

void SagaDecider::begin_ready() {
  for (auto calls = record_.state.unwanted(); !calls.empty(); calls = record_.state.unwanted()) {
    for (const saga::Call& call : calls) {
      if (!append(record_.state.failed(call, std::nullopt, text_of_error(record_.state.cause())))) return;
    }
  }
  for (const saga::Call& call : record_.state.ready(now_)) {
    if (record_.state.ready(now_).empty()) return;  // one before has failed, and with it the saga
    SagaEntry entry = record_.state.begin(call);
    if (is_elsewhere(call)) entry.due_at = now_ + step_of(call).options.timeout;
    if (!append(std::move(entry))) return;
    if (step_of(call).is_awaited) continue;
    if (!is_elsewhere(call)) {
      begins.push_back(call);
      continue;
    }
    if (auto write = command(call)) {
      change.published.push_back(std::move(*write));
    } else {
      const Error& error = write.error();
      take(call, Outcome::fail({std::string(error.wire_code()), error.message, {}}), {}, {}, {});
    }
  }
}

std::optional<TimePoint> SagaDecider::wake_at() const {
  const SagaStatus status = record_.state.status();
  if (is_final(status)) return std::nullopt;
  auto next = record_.state.next_due();
  if (!record_.state.ready(now_).empty() || !record_.state.unwanted().empty()) next = now_;
  const bool can_end = record_.state.cause().empty() && record_.state.cancel({}).ok();
  if (record_.info.deadline_at != kNever && can_end)
    next = std::min(next.value_or(kNever), record_.info.deadline_at);
  // Whatever it waits for, somebody looks.
  return next.value_or(now_ + std::chrono::minutes(1));
}

}  // namespace towline::engine
