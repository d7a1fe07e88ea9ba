// K9 for functions that run once per key. In plain mode an effect may happen again only when whoever made it
// before died, failed, or never learned that its result was stored; in transactions never.

#include <algorithm>
#include <map>

#include "simulation/tracks.hpp"

namespace towline::simulation {
namespace {

struct OnceCall {
  std::size_t asked = 0;
  std::size_t effect = SIZE_MAX, returned = SIZE_MAX;
  std::size_t answered = SIZE_MAX;
  std::size_t died = SIZE_MAX;
  std::uint32_t key = 0;
  std::uint64_t result = 0;  ///< of its answer
  bool ok = false;
  [[nodiscard]] bool has_effect() const { return effect != SIZE_MAX; }
};

class OnceJudge {
 public:
  OnceJudge(Tracks& tracks, const FinalState& end) : tracks_(tracks), end_(end) {
    for (std::size_t i = 0; i < tracks_.history().size(); ++i)
      see(i);
  }
  void judge() {
    for (const auto& [number, call] : calls_)
      judge_call(number, call);
    judge_transactions();
  }

 private:
  void find(std::uint32_t key, const std::string& text) {
    tracks_.find("K9", "once-key " + std::to_string(key) + ": " + text);
  }
  void see(std::size_t index);
  void judge_call(std::uint64_t number, const OnceCall& call);
  void judge_pair(const OnceCall& first, const OnceCall& second);
  void judge_transactions();

  Tracks& tracks_;
  const FinalState& end_;
  std::map<std::uint64_t, OnceCall> calls_;
  std::map<std::uint32_t, std::vector<std::uint64_t>> acked_in_tx_;
};

void OnceJudge::see(std::size_t index) {
  const Record& r = tracks_.at(index);
  switch (r.event) {
    case Event::kOnceAsked:
      calls_[r.lease].asked = index;
      calls_[r.lease].key = r.index;
      break;
    case Event::kOnceEffect:
      if (calls_[r.lease].has_effect()) find(r.index, "one call ran its function twice");
      calls_[r.lease].effect = index;
      break;
    case Event::kOnceReturn:
      calls_[r.lease].returned = index;
      break;
    case Event::kOnce:
      calls_[r.lease].answered = index;
      calls_[r.lease].ok = r.answer == Answer::kOk;
      calls_[r.lease].result = r.number;
      break;
    case Event::kCrash:
      for (auto& [number, call] : calls_) {
        const bool runs = call.answered == SIZE_MAX && call.died == SIZE_MAX;
        if (runs && tracks_.at(call.asked).process == r.process) call.died = index;
      }
      break;
    case Event::kOnceInTx:
      if (r.answer == Answer::kOk) acked_in_tx_[r.index].push_back(r.number);
      break;
    default:
      break;
  }
}

void OnceJudge::judge_call(std::uint64_t number, const OnceCall& call) {
  if (call.ok) {
    const auto source = calls_.find(call.result);
    if (source == calls_.end() || !source->second.has_effect() || source->second.key != call.key)
      find(call.key, "a result was given that no function made");
    if (call.has_effect() && call.result != number) find(call.key, "a caller ran it and got another result");
  }
  for (const auto& [other_number, other] : calls_) {
    if (other_number == number || other.key != call.key) continue;
    if (call.ok && other.ok && call.result != other.result) find(call.key, "two results were given");
    if (call.ok && other.has_effect() && other.asked > call.answered)
      find(call.key, "it was run again although its result was known");
    if (call.has_effect() && other.has_effect() && call.effect < other.effect) judge_pair(call, other);
  }
}

/// While the first one runs under its lease nobody else may.
void OnceJudge::judge_pair(const OnceCall& first, const OnceCall& second) {
  if (tracks_.facts().skew_max > Duration(0)) return;
  const std::size_t end = std::min({first.returned, first.died, first.answered});
  const bool overlap = second.effect < end;
  const MonotonicTime at = tracks_.at(second.effect).at;
  const bool both_hold = at < tracks_.at(first.asked).until && at < tracks_.at(second.asked).until;
  if (overlap && both_hold) find(first.key, "two functions ran at once");
}

void OnceJudge::judge_transactions() {
  for (const auto& [key, results] : end_.effects_in_tx) {
    if (results.size() > 1) find(key, "transactions left " + std::to_string(results.size()) + " effects");
  }
  for (const auto& [key, results] : acked_in_tx_) {
    const auto effects = end_.effects_in_tx.find(key);
    const bool is_there = effects != end_.effects_in_tx.end() && effects->second == results;
    if (results.size() > 1) find(key, "two transactions were told that they were the first");
    if (!is_there && results.size() == 1) find(key, "the effect of a transaction that was committed is gone");
  }
}

}  // namespace

void check_once(Tracks& tracks, const FinalState& end) {
  const auto& history = tracks.history();
  const bool any = std::any_of(history.begin(), history.end(), [](const Record& r) {
    return r.event == Event::kOnceAsked || r.event == Event::kOnceInTx;
  });
  if (any) OnceJudge(tracks, end).judge();
}

}  // namespace towline::simulation
