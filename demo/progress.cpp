// Keeps a few flags per order; every record changes at most one order.

#include "progress.hpp"

#include <algorithm>

#include "common.hpp"

namespace towline::demo {

void Progress::begin(const std::string& source, const Record& record) {
  State& state = orders_[record.number];
  open_[source].insert({record.number, record.attempt});
  const auto bit = std::uint32_t{1} << std::min(record.attempt, 31U);
  if ((state.attempts_begun & bit) != 0) ++redelivered_;
  state.attempts_begun |= bit;
  if (state.retrying) {
    state.retrying = false;
    --retrying_;
  }
  if (state.started_us != 0) return;
  state.started_us = record.at_us;
  waiting_.erase({state.ready_us, record.number});
  measure(state);
}

/// Called from both sides, because the ledger of the publisher may be read after that of the worker.
void Progress::measure(const State& state) {
  if (state.ready_us == 0 || state.started_us == 0) return;
  latencies_us_.push_back(std::max<std::int64_t>(0, state.started_us - state.ready_us));
}

void Progress::note(const std::string& source, const Record& record) {
  last_at_us_ = std::max(last_at_us_, record.at_us);
  if (record.what == What::kKilled || record.number >= orders_.size()) return;
  State& state = orders_[record.number];
  switch (record.what) {
    case What::kPublish:
      if (state.ready_us != 0) break;
      state.ready_us = std::max(record.at_us, record.due_us);
      measure(state);
      break;
    case What::kAcked:
      if (state.published) break;
      state.published = true;
      ++published_;
      if (plan_.orders[record.number].fate.delay.count() != 0 && state.started_us == 0) {
        waiting_.insert({state.ready_us, record.number});
      }
      break;
    case What::kStart:
      begin(source, record);
      break;
    case What::kEffect:
      open_[source].erase({record.number, record.attempt});
      note_effect(record.number);
      break;
    case What::kFail: {
      open_[source].erase({record.number, record.attempt});
      if (record.attempt < kAttemptsMax) {
        if (!state.retrying) ++retrying_;
        state.retrying = true;
      } else if (!state.dead) {
        state.dead = true;
        ++dead_;
      }
      break;
    }
    case What::kStep:
      note_step(state, record);
      break;
    case What::kVoid:
    case What::kTrouble:
      open_[source].erase({record.number, record.attempt});
      break;
    default:
      break;
  }
}

/// Whoever dies before it can write this down leaves the step to another one, who writes it.
void Progress::note_step(State& state, const Record& record) {
  const auto expected = plan_.orders[record.number].fate.saga.expected();
  if (state.saga_ended || expected.empty() || record.key != saga_key(record.number, expected.back())) return;
  state.saga_ended = true;
  ++sagas_;
}

void Progress::note_effect(std::uint32_t number) {
  if (number >= orders_.size() || orders_[number].handled) return;
  orders_[number].handled = true;
  ++handled_;
}

Figures Progress::figures(std::int64_t now_us) {
  while (!waiting_.empty() && waiting_.begin()->first <= now_us)
    waiting_.erase(waiting_.begin());
  Figures figures{published_, handled_, retrying_, waiting_.size(), dead_, sagas_, redelivered_, 0, 0};
  if (latencies_us_.empty()) return figures;
  const auto at = [&](double share) {
    const auto index = static_cast<std::size_t>(share * static_cast<double>(latencies_us_.size() - 1));
    const auto nth = latencies_us_.begin() + static_cast<std::ptrdiff_t>(index);
    std::nth_element(latencies_us_.begin(), nth, latencies_us_.end());
    return *nth;
  };
  figures.p50_us = at(0.50);
  figures.p99_us = at(0.99);
  return figures;
}

std::size_t Progress::open_count(const std::string& source) const {
  const auto found = open_.find(source);
  return found == open_.end() ? 0 : found->second.size();
}

std::vector<std::string> Progress::unfinished(std::size_t count_max) const {
  std::vector<std::string> ids;
  for (std::size_t i = 0; i < orders_.size() && ids.size() < count_max; ++i) {
    const bool saga_runs = plan_.orders[i].fate.saga.wanted && !orders_[i].saga_ended;
    const bool waits = !orders_[i].handled && !orders_[i].dead;
    if (waits || saga_runs) ids.push_back(plan_.orders[i].order.id);
  }
  return ids;
}

}  // namespace towline::demo
