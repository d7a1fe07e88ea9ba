// K8 for sagas. The ledger of deeds is what the steps' functions really did; the log is what the engine wrote
// down. A saga must end, its deeds must be those that its log announced, each once, and what it did must be
// whole or undone, last first.
//
// What a process does that stood still, after the log has ended that call, is nobody's fault: the function
// has the key to tell. Such deeds are late; they are excused where processes may stand still.

#include <algorithm>
#include <map>
#include <set>

#include "simulation/tracks.hpp"

namespace towline::simulation {
namespace {

struct Deed {
  std::size_t began = 0;
  std::size_t ended = SIZE_MAX;
  Verb verb = Verb::kCrash;
  std::uint32_t step = 0, phase = 0, attempt = 0;
  bool has_output = false;
  bool is_late = false;
};

/// Marks that begin a call, and that end one.
bool begins(SagaMark mark) { return mark == SagaMark::kStarted || mark == SagaMark::kCompensating; }
bool ends_execution(SagaMark mark) {
  return mark == SagaMark::kDone || mark == SagaMark::kFailed || mark == SagaMark::kGivenUp;
}
bool ends_compensation(SagaMark mark) {
  return mark == SagaMark::kCompensated || mark == SagaMark::kCompensationFailed ||
         mark == SagaMark::kCompensationStuck;
}

/// One saga: what was seen of it, and what is left.
class SagaJudge {
 public:
  SagaJudge(Tracks& tracks, std::uint32_t number, const SagaRemains& remains)
      : tracks_(tracks),
        number_(number),
        remains_(remains),
        definition_(tracks.facts().saga_types[tracks.facts().sagas[number].type]),
        steps_(steps_of(definition_)) {}

  void see(std::size_t index);
  void judge(bool stuck);

 private:
  void find(const std::string& text) { tracks_.find("K8", "saga s" + std::to_string(number_) + ": " + text); }
  [[nodiscard]] std::string called(std::uint32_t step, std::uint32_t phase, std::uint32_t attempt) const {
    return (phase == 0 ? "step " : "undoing of step ") + steps_[step]->name + ", attempt " +
           std::to_string(attempt);
  }
  [[nodiscard]] bool is_command(std::uint32_t step, std::uint32_t phase) const {
    const SagaStepOptions& options = steps_[step]->options;
    return !(phase == 0 ? options.command : options.compensation_command).empty();
  }
  [[nodiscard]] static std::uint32_t number_of(const SagaEntry& entry) {
    return entry.step.empty() ? kNobody : static_cast<std::uint32_t>(entry.step[0] - 'a');
  }
  [[nodiscard]] bool has(SagaMark mark, std::uint32_t step = kNobody) const;
  [[nodiscard]] std::vector<std::uint32_t> expected_order() const;
  /// What the log has written when it ends that call; 0: it does not.
  [[nodiscard]] std::size_t end_of(const Deed& deed) const;

  void judge_existence(bool stuck);
  void judge_log();
  void judge_deeds();
  void judge_outcomes();
  void judge_failures();
  void judge_order();
  void judge_balance();

  Tracks& tracks_;
  const std::uint32_t number_;
  const SagaRemains& remains_;
  const SagaDefinition& definition_;
  const std::vector<const SagaStep*> steps_;
  bool is_acked_ = false, is_unknown_ = false, is_cancelled_ = false, is_pivot_begun_ = false;
  std::uint32_t made_ = 0;
  std::vector<std::size_t> log_;  ///< as it became durable
  std::vector<Deed> deeds_;
  std::map<std::uint64_t, std::size_t> by_call_;
  bool is_log_complete_ = true;
};

void SagaJudge::see(std::size_t index) {
  const Record& r = tracks_.at(index);
  switch (r.event) {
    case Event::kSagaStart:
      is_acked_ |= r.answer == Answer::kOk || r.answer == Answer::kConflict;
      is_unknown_ |= r.answer == Answer::kUnknown;
      made_ += r.index;
      break;
    case Event::kSagaCancel:
      // The pivot that runs at that moment decides.
      is_cancelled_ |= r.answer == Answer::kOk && !is_pivot_begun_;
      break;
    case Event::kSagaLog:
      log_.push_back(index);
      is_pivot_begun_ |= r.index < steps_.size() && steps_[r.index]->options.pivot;
      break;
    case Event::kDeed:
      if (r.index >= steps_.size()) return find("an unknown step was begun");
      by_call_[r.lease] = deeds_.size();
      deeds_.push_back({index, SIZE_MAX, Verb::kCrash, r.index, r.group, r.attempt, r.redrives != 0, false});
      break;
    case Event::kDeedEnd:
      if (const auto known = by_call_.find(r.lease); known != by_call_.end()) {
        deeds_[known->second].ended = index;
        deeds_[known->second].verb = r.verb;
      }
      break;
    default:
      break;
  }
}

bool SagaJudge::has(SagaMark mark, std::uint32_t step) const {
  return std::any_of(remains_.log.begin(), remains_.log.end(), [&](const SagaEntry& entry) {
    return entry.mark == mark && (step == kNobody || number_of(entry) == step);
  });
}

void SagaJudge::judge(bool stuck) {
  judge_existence(stuck);
  if (!remains_.is_there || remains_.is_corrupt) return;
  judge_log();
  judge_deeds();
  if (stuck) return;
  judge_outcomes();
  judge_failures();
  judge_order();
  judge_balance();
}

void SagaJudge::judge_existence(bool stuck) {
  if (made_ > 1) find("it was begun " + std::to_string(made_) + " times under one id");
  if (!remains_.is_there) {
    if (is_acked_) find("it was begun, and it is gone");
    if (!deeds_.empty()) find("its steps were run, and it is not there");
    return;
  }
  if (!is_acked_ && !is_unknown_) find("it is there, and nobody began it");
  if (remains_.is_corrupt) find("its log cannot be read");
  if (!is_final(remains_.status) && !stuck)
    find("it is still " + std::string(towline::name_of(remains_.status)) + " when everything is done");
}

/// The log is what was committed, and attempts follow each other.
void SagaJudge::judge_log() {
  std::size_t seen = 0;
  std::map<std::pair<std::uint32_t, bool>, std::uint32_t> attempts;
  for (const SagaEntry& entry : remains_.log) {
    const std::uint32_t step = number_of(entry);
    const bool known = seen < log_.size() && tracks_.at(log_[seen]).index == step &&
                       tracks_.at(log_[seen]).reason == static_cast<std::uint8_t>(entry.mark) &&
                       tracks_.at(log_[seen]).attempt == entry.attempt;
    known ? static_cast<void>(++seen) : static_cast<void>(is_log_complete_ = false);
    if (!begins(entry.mark)) continue;
    std::uint32_t& last = attempts[{step, entry.mark == SagaMark::kCompensating}];
    if (entry.attempt != last + 1) {
      find("attempt " + std::to_string(entry.attempt) + " of step " + entry.step + " follows attempt " +
           std::to_string(last));
    }
    last = entry.attempt;
  }
  is_log_complete_ &= seen == log_.size();
  if (!is_log_complete_ && !tracks_.facts().disk_may_fail) find("its log is not what was committed");
}

std::size_t SagaJudge::end_of(const Deed& deed) const {
  for (const std::size_t index : log_) {
    const Record& r = tracks_.at(index);
    const auto mark = static_cast<SagaMark>(r.reason);
    const bool ends = deed.phase == 0 ? ends_execution(mark) : ends_compensation(mark);
    if (r.index == deed.step && r.attempt == deed.attempt && (ends || mark == SagaMark::kPostponed)) {
      // A step and its compensation count their attempts anew.
      const bool fits = mark != SagaMark::kPostponed || (index > deed.began || deed.phase == 0);
      if (fits) return index;
    }
  }
  return SIZE_MAX;
}

/// Each is announced by the log, and each call is made once.
void SagaJudge::judge_deeds() {
  std::set<std::tuple<std::uint32_t, std::uint32_t, std::uint32_t>> once;
  const Facts& facts = tracks_.facts();
  for (Deed& deed : deeds_) {
    const std::string name = called(deed.step, deed.phase, deed.attempt);
    if (!once.insert({deed.step, deed.phase, deed.attempt}).second && !is_command(deed.step, deed.phase))
      find(name + " was run twice");
    const SagaMark mark = deed.phase == 0 ? SagaMark::kStarted : SagaMark::kCompensating;
    const bool announced = std::any_of(log_.begin(), log_.end(), [&](std::size_t index) {
      const Record& r = tracks_.at(index);
      return index < deed.began && r.index == deed.step && r.attempt == deed.attempt &&
             r.reason == static_cast<std::uint8_t>(mark);
    });
    if (!announced && is_log_complete_) find(name + " was run before the log said so");
    deed.is_late = end_of(deed) < deed.began;
    const bool excused = facts.may_stand_still || facts.leases_may_jump || is_command(deed.step, deed.phase);
    if (deed.is_late && !excused && is_log_complete_) find(name + " was run when the log had ended it");
    const bool is_done = has(SagaMark::kDone, deed.step);
    if (deed.phase == 1 && !is_command(deed.step, 1) && deed.has_output != is_done)
      find(name + (is_done ? " did not get the step's output" : " got an output of a step that failed"));
  }
}

/// What the log says that it is done was done.
void SagaJudge::judge_outcomes() {
  for (const SagaEntry& entry : remains_.log) {
    const bool done = entry.mark == SagaMark::kDone, undone = entry.mark == SagaMark::kCompensated;
    if (!done && !undone) continue;
    const bool by_ledger = std::any_of(deeds_.begin(), deeds_.end(), [&](const Deed& deed) {
      return deed.step == number_of(entry) && deed.phase == (done ? 0 : 1) && deed.attempt == entry.attempt &&
             deed.ended != SIZE_MAX && deed.verb == Verb::kAck;
    });
    if (!by_ledger)
      find(called(number_of(entry), done ? 0 : 1, entry.attempt) + " did not succeed, its log says so");
  }
}

/// What was given up had its attempts.
void SagaJudge::judge_failures() {
  std::map<std::pair<std::uint32_t, bool>, std::int64_t> failures;
  const SagaPlan& plan = tracks_.facts().sagas[number_];
  for (const SagaEntry& entry : remains_.log) {
    const std::uint32_t step = number_of(entry);
    const bool undoing = ends_compensation(entry.mark);
    if (entry.mark == SagaMark::kRetried) failures[{step, true}] = failures[{step, false}] = 0;
    if (entry.mark == SagaMark::kFailed || entry.mark == SagaMark::kCompensationFailed)
      ++failures[{step, undoing}];
    if (entry.mark != SagaMark::kGivenUp && entry.mark != SagaMark::kCompensationStuck) continue;
    const SagaStepOptions& options = steps_[step]->options;
    const RetryOptions& retry = undoing ? options.compensation_retry : options.retry;
    const Behaviour& behaviour = undoing ? plan.steps[step].compensate : plan.steps[step].execute;
    const bool allowed = failures[{step, undoing}] + 1 >= retry.max_attempts ||
                         behaviour.mood == Mood::kPermanent || (!undoing && options.undo_unknown);
    if (!allowed) find(called(step, undoing ? 1 : 0, entry.attempt) + " was given up too early");
  }
}

/// First what did not succeed, the last that was started first; then what succeeded, the last first.
std::vector<std::uint32_t> SagaJudge::expected_order() const {
  std::map<std::uint32_t, std::size_t> started, done;
  std::set<std::uint32_t> skipped;
  for (std::size_t i = 0; i < remains_.log.size(); ++i) {
    const SagaEntry& entry = remains_.log[i];
    if (entry.mark == SagaMark::kCompensating) break;
    if (entry.mark == SagaMark::kStarted) started.emplace(number_of(entry), i);
    if (entry.mark == SagaMark::kDone) done.emplace(number_of(entry), i);
    if (entry.mark == SagaMark::kSkipped) skipped.insert(number_of(entry));
  }
  std::vector<std::uint32_t> order;
  for (const auto& [step, at] : started) {
    if (steps_[step]->compensates && !skipped.contains(step)) order.push_back(step);
  }
  std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    if (done.contains(a) != done.contains(b)) return done.contains(b);
    return done.contains(a) ? done[a] > done[b] : started[a] > started[b];
  });
  return order;
}

void SagaJudge::judge_order() {
  const std::vector<std::uint32_t> order = expected_order();
  std::vector<std::uint32_t> undone;
  const auto undo = [&](std::uint32_t step) {
    if (std::find(undone.begin(), undone.end(), step) == undone.end()) undone.push_back(step);
  };
  for (const SagaEntry& entry : remains_.log) {
    if (entry.mark == SagaMark::kCompensating) undo(number_of(entry));
    if (entry.mark == SagaMark::kStarted && !undone.empty()) find("a step was begun while it was undone");
  }
  const bool fits = undone.size() <= order.size() && std::equal(undone.begin(), undone.end(), order.begin());
  if (!fits) find("its log undoes the steps in a wrong order");
  // The same by the ledger; what was never really begun leaves no trace there, and what was stuck may follow.
  undone.clear();
  for (const Deed& deed : deeds_) {
    if (deed.phase == 1 && !deed.is_late && !has(SagaMark::kCompensationStuck, deed.step)) undo(deed.step);
  }
  auto at = order.begin();
  for (const std::uint32_t step : undone) {
    at = std::find(at, order.end(), step);
    if (at == order.end()) return find("step " + steps_[step]->name + " was undone out of order");
  }
}

/// Completed: everything was done. Compensated: nothing of it is left. Stuck: somebody has to look.
void SagaJudge::judge_balance() {
  if (has(SagaMark::kForcedCompensated) || has(SagaMark::kForcedCompleted)) return;
  if (is_cancelled_ && remains_.status == SagaStatus::kCompleted)
    find("it is completed, and its cancel() was acknowledged");
  const bool undoes = std::any_of(deeds_.begin(), deeds_.end(),
                                  [](const Deed& deed) { return deed.phase == 1 && !deed.is_late; });
  if (remains_.status == SagaStatus::kStuck) {
    if (!has(SagaMark::kCompensationStuck) && !has(SagaMark::kGivenUp))
      find("it is stuck, and nothing of it is");
    return;
  }
  for (std::uint32_t step = 0; step < steps_.size(); ++step) {
    const std::string& name = steps_[step]->name;
    if (remains_.status == SagaStatus::kCompleted) {
      if (undoes) return find("it is completed, and steps of it were undone");
      if (!has(SagaMark::kDone, step) && !has(SagaMark::kSkipped, step))
        find("it is completed without step " + name);
      continue;
    }
    if (steps_[step]->options.pivot && has(SagaMark::kDone, step)) find("it was undone past its pivot");
    if (!steps_[step]->compensates || has(SagaMark::kSkipped, step)) continue;
    std::size_t done = 0, undone = 0;
    for (const Deed& deed : deeds_) {
      if (deed.step != step || deed.is_late) continue;
      if (deed.phase == 0) done = std::max(done, deed.began + 1);
      if (deed.phase == 1 && deed.ended != SIZE_MAX && deed.verb == Verb::kAck)
        undone = std::max(undone, deed.began + 1);
    }
    if (done > undone && is_log_complete_)
      find("it is compensated, and what step " + name + " did is not undone");
  }
}

}  // namespace

void check_sagas(Tracks& tracks, const FinalState& end) {
  const Facts& facts = tracks.facts();
  if (facts.sagas.empty()) return;
  static const SagaRemains kNothing;
  std::vector<SagaJudge> judges;
  for (std::uint32_t i = 0; i < facts.sagas.size(); ++i)
    judges.emplace_back(tracks, i, i < end.sagas.size() ? end.sagas[i] : kNothing);
  for (std::size_t i = 0; i < tracks.history().size(); ++i) {
    const Record& r = tracks.at(i);
    const bool is_of_saga = r.event == Event::kSagaStart || r.event == Event::kSagaCancel ||
                            r.event == Event::kSagaLog || r.event == Event::kDeed ||
                            r.event == Event::kDeedEnd;
    if (is_of_saga && r.number < judges.size()) judges[r.number].see(i);
  }
  for (SagaJudge& judge : judges)
    judge.judge(end.stuck);
}

}  // namespace towline::simulation
