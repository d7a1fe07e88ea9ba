#pragma once
// Histories written by hand, for testing the checkers: a small group of verbs that say what happened, one
// after another, at the times the test names.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "simulation/checkers.hpp"
#include "simulation/clock.hpp"
#include "simulation/faults.hpp"

namespace towline::simulation {

class Story {
 public:
  /// One producer, one topic, one group that handles key by key with three attempts.
  explicit Story(std::size_t message_count = 4) {
    facts.messages.resize(message_count);
    for (MessagePlan& message : facts.messages)
      message.key = 0;
    GroupPlan group;
    group.topics = {0};
    group.options.group = "g0";
    group.options.order = Order::kKeyOrdered;
    group.options.handler_timeout = std::chrono::seconds(10);
    group.options.retry.max_attempts = 3;
    group.options.dead_letters.max_crashes = 2;
    facts.groups.push_back(group);
  }

  Facts facts;
  FinalState end;
  std::vector<Record> history;
  WorldTime now;
  Duration lease = std::chrono::seconds(5);

  void wait(Duration by) { now.advance(by); }

  Record& note(Event event, std::uint32_t message = kNobody) {
    Record r;
    r.event = event;
    r.message = message;
    r.session = 1;
    r.at = now.monotonic;
    r.wall = now.wall;
    history.push_back(r);
    return history.back();
  }

  Record& publish(std::uint32_t message, Answer answer = Answer::kOk) {
    Record& r = note(Event::kPublish, message);
    r.answer = answer;
    if (facts.messages[message].delay > Duration(0)) r.until_wall = now.wall + facts.messages[message].delay;
    return r;
  }
  /// Returns the lease.
  std::uint64_t hand_out(std::uint32_t message, std::uint32_t attempt = 1, std::uint32_t crashes = 0) {
    Record& r = note(Event::kHandOut, message);
    r.lease = ++lease_last_;
    r.attempt = attempt;
    r.crashes = crashes;
    r.redrives = redrives;
    r.until = now.monotonic + lease;
    return r.lease;
  }
  void start(std::uint32_t message, std::uint64_t of_lease, std::uint32_t attempt = 1,
             std::uint32_t crashes = 0) {
    Record& r = note(Event::kStart, message);
    r.lease = of_lease;
    r.attempt = attempt;
    r.crashes = crashes;
    r.redrives = redrives;
    r.until = now.monotonic + facts.groups[0].options.handler_timeout;
  }
  void finish(std::uint32_t message, std::uint64_t of_lease, Verb verb = Verb::kAck) {
    Record& r = note(Event::kFinish, message);
    r.lease = of_lease;
    r.verb = verb;
  }
  void settle(std::uint64_t of_lease, Verb verb = Verb::kAck, Answer answer = Answer::kOk) {
    Record& r = note(Event::kSettle);
    r.lease = of_lease;
    r.verb = verb;
    r.answer = answer;
  }
  Record& store(std::uint32_t message, Verb verb, std::uint32_t attempt, std::uint32_t crashes = 0) {
    Record& r = note(Event::kStored, message);
    r.verb = verb;
    r.attempt = attempt;
    r.crashes = crashes;
    r.redrives = redrives;
    if (verb == Verb::kRetry) r.until_wall = now.wall;
    return r;
  }
  void dead(std::uint32_t message, DeadLetterReason reason, std::uint32_t crashes = 0) {
    store(message, Verb::kDeadLetter, 0, crashes).reason = static_cast<std::uint8_t>(reason);
    DeadLetter letter;
    letter.payload = payload_of(message);
    letter.group = "g0";
    letter.status = DeadLetterStatus::kResolved;
    end.dead_letters.push_back(letter);
  }
  /// One handling from beginning to end.
  void handle(std::uint32_t message, Verb verb = Verb::kAck, std::uint32_t attempt = 1) {
    const std::uint64_t of_lease = hand_out(message, attempt);
    start(message, of_lease, attempt);
    wait(std::chrono::milliseconds(10));
    finish(message, of_lease, verb);
    if (verb == Verb::kFail) {
      store(message, Verb::kRetry, attempt + 1);
      settle(of_lease, Verb::kRetry);
    } else {
      settle(of_lease);
    }
    wait(std::chrono::milliseconds(10));
  }

  // Idempotency. `who` is the client.
  void begin(std::uint32_t who, std::uint64_t fence, Duration hold = std::chrono::seconds(1)) {
    Record& begins = note(Event::kBeginning);
    begins.session = who;
    Record& r = note(Event::kBegin);
    r.session = who;
    r.number = fence;
    r.until_wall = now.wall + hold;
  }
  void read(std::uint32_t who, std::uint64_t result) {
    Record& begins = note(Event::kBeginning);
    begins.session = who;
    Record& r = note(Event::kBegin);
    r.session = who;
    r.answer = Answer::kCompleted;
    r.number = result;
  }
  void complete(std::uint32_t who, std::uint64_t fence, std::uint64_t result, Answer answer = Answer::kOk) {
    for (const Event event : {Event::kEnding, Event::kComplete}) {
      Record& r = note(event);
      r.session = who;
      r.lease = fence;
      r.number = result;
      r.answer = event == Event::kComplete ? answer : Answer::kUnknown;
    }
  }

  [[nodiscard]] std::vector<Violation> check() const { return check_history(history, facts, end); }
  /// How often the named checker found something that contains `text`.
  [[nodiscard]] std::size_t finds(std::string_view checker, std::string_view text) const {
    std::size_t count = 0;
    for (const Violation& found : check()) {
      if (found.checker == checker && found.text.find(text) != std::string::npos) ++count;
    }
    return count;
  }
  /// Everything that was found, for a person.
  [[nodiscard]] std::string findings() const {
    std::string all;
    for (const Violation& found : check())
      all += found.checker + ": " + found.text + "\n";
    return all;
  }

  std::uint32_t redrives = 0;

 private:
  std::uint64_t lease_last_ = 0;
};

}  // namespace towline::simulation
