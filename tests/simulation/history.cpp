// Names, text and hash of the history.

#include "simulation/history.hpp"

#include <cstdio>
#include <iterator>

#include <towline/saga.hpp>

#include "base/random.hpp"
#include "simulation/clock.hpp"

namespace towline::simulation {

void History::fold(const Record& r) noexcept {
  const auto add = [this](std::uint64_t value) {
    hash_ = (hash_ ^ value) * 0x9e3779b97f4a7c15ULL + (hash_ >> 29);
  };
  add(static_cast<std::uint64_t>(r.event) | static_cast<std::uint64_t>(r.answer) << 8 |
      static_cast<std::uint64_t>(r.verb) << 16 | static_cast<std::uint64_t>(r.group) << 24 |
      static_cast<std::uint64_t>(r.process) << 32 | static_cast<std::uint64_t>(r.heads_key) << 63);
  add(static_cast<std::uint64_t>(r.session) << 32 | r.message);
  add(static_cast<std::uint64_t>(r.attempt) << 40 | static_cast<std::uint64_t>(r.crashes) << 20 | r.redrives);
  add(r.lease << 20 ^ r.index);
  add(r.number ^ static_cast<std::uint64_t>(r.reason) << 56);
  add(static_cast<std::uint64_t>(r.at.time_since_epoch().count()));
  add(static_cast<std::uint64_t>(r.until.time_since_epoch().count()));
  add(static_cast<std::uint64_t>(to_us(r.until_wall)));
}

const char* name_of(Event event) noexcept {
  static constexpr const char* kNames[] = {
      "publish",     "hand out",  "renew",      "lease lost", "settle",     "start",      "finish",
      "stored",      "redrive",   "discard",    "cancel",     "reschedule", "CRASH",      "up",
      "close",       "pause",     "begin",      "complete",   "give up",    "block",      "unpark",
      "by hand",     "asking",    "beginning",  "ending",     "removed",    "POWER LOSS", "saga start",
      "saga cancel", "saga help", "saga log",   "deed",       "deed end",   "appending",  "appended",
      "events",      "follow",    "checkpoint", "once asked", "effect",     "returned",   "once",
      "once in tx",  "fault",     "note"};
  static_assert(std::size(kNames) == static_cast<std::size_t>(Event::kNote) + 1);
  return kNames[static_cast<std::size_t>(event)];
}

const char* name_of(Answer answer) noexcept {
  switch (answer) {
    case Answer::kOk:
      return "ok";
    case Answer::kDuplicate:
      return "duplicate";
    case Answer::kRejected:
      return "rejected";
    case Answer::kUnknown:
      return "unknown";
    case Answer::kLost:
      return "lost";
    case Answer::kConflict:
      return "conflict";
    case Answer::kNotFound:
      return "not found";
    case Answer::kAlreadyFired:
      return "already fired";
    case Answer::kInProgress:
      return "in progress";
    case Answer::kCompleted:
      return "completed";
  }
  return "?";
}

const char* name_of(Verb verb) noexcept {
  switch (verb) {
    case Verb::kAck:
      return "ack";
    case Verb::kFail:
      return "fail";
    case Verb::kPermanent:
      return "permanent";
    case Verb::kNak:
      return "nak";
    case Verb::kDefer:
      return "defer";
    case Verb::kThrottle:
      return "throttle";
    case Verb::kReject:
      return "reject";
    case Verb::kRelease:
      return "release";
    case Verb::kCrash:
      return "crash";
    case Verb::kRetry:
      return "retry";
    case Verb::kPark:
      return "park";
    case Verb::kDeadLetter:
      return "dead letter";
  }
  return "?";
}

std::string to_text(const Record& r) {
  const double seconds = static_cast<double>((r.at - WorldTime{}.monotonic).count()) * 1e-6;
  char line[256];
  std::snprintf(line, sizeof line, "%12.6f p%u s%-2u %-10s", seconds, r.process, r.session, name_of(r.event));
  std::string text = line;
  if (r.message != kNobody) {
    std::snprintf(line, sizeof line, " m%u/g%u a%u c%u r%u%s", r.message, r.group, r.attempt, r.crashes,
                  r.redrives, r.heads_key ? " head" : "");
    text += line;
  }
  std::snprintf(line, sizeof line, " %s %s lease %llu.%u number %llu", name_of(r.verb), name_of(r.answer),
                static_cast<unsigned long long>(r.lease), r.index, static_cast<unsigned long long>(r.number));
  text += line;
  if (r.until != MonotonicTime{}) {
    std::snprintf(line, sizeof line, " until %.6f",
                  static_cast<double>((r.until - WorldTime{}.monotonic).count()) * 1e-6);
    text += line;
  }
  if (r.until_wall != TimePoint{}) {
    std::snprintf(line, sizeof line, " due %.6f",
                  static_cast<double>((r.until_wall - WorldTime{}.wall).count()) * 1e-6);
    text += line;
  }
  if (r.verb == Verb::kDeadLetter) text += " reason " + std::to_string(r.reason);
  if (r.event == Event::kSagaLog)
    text += " " + std::string(towline::name_of(static_cast<SagaMark>(r.reason)));
  if (r.event == Event::kSagaLog || r.event == Event::kDeed || r.event == Event::kDeedEnd)
    text += (r.group == 0 ? " attempt " : " undoing, attempt ") + std::to_string(r.attempt);
  return text;
}

}  // namespace towline::simulation
