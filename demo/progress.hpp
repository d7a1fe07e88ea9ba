#pragma once
// How far the run is, from the ledgers as they grow: what the live table shows, and when a kill is due. The
// verdict does not use it; it reads the ledgers again from the beginning.

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ledger.hpp"
#include "plan.hpp"

namespace towline::demo {

struct Figures {
  std::size_t published = 0;
  std::size_t handled = 0;
  std::size_t retrying = 0;      ///< failed, and to be tried again
  std::size_t delayed = 0;       ///< published, and not due yet
  std::size_t dead_letters = 0;  ///< failed for the last time
  std::size_t sagas = 0;         ///< that have ended
  std::size_t redelivered = 0;   ///< attempts that began a second time, because their process was killed
  std::int64_t p50_us = 0;       ///< from publishing, or the due time, to the first start of a handler
  std::int64_t p99_us = 0;
};

class Progress {
 public:
  explicit Progress(const Plan& plan)
      : plan_(plan), orders_(plan.orders.size()), saga_count_(plan.saga_count()) {}

  void note(const std::string& source, const Record& record);
  /// An effect whose worker was killed before it could write it down; the table told.
  void note_effect(std::uint32_t number);
  /// The process life is over: nothing that it began goes on.
  void forget(const std::string& source) { open_.erase(source); }

  [[nodiscard]] Figures figures(std::int64_t now_us);
  [[nodiscard]] std::size_t published() const { return published_; }
  /// Orders that have reached their end, as far as the ledgers know.
  [[nodiscard]] std::size_t finished() const { return handled_ + dead_; }
  [[nodiscard]] bool complete() const {
    return published_ == orders_.size() && finished() >= orders_.size() && sagas_ >= saga_count_;
  }
  /// Handlers that this process life has begun and not ended.
  [[nodiscard]] std::size_t open_count(const std::string& source) const;
  /// When the last record was written.
  [[nodiscard]] std::int64_t last_at_us() const { return last_at_us_; }
  /// Ids of orders that have not reached their end, or whose sagas have not, the first `count_max`.
  [[nodiscard]] std::vector<std::string> unfinished(std::size_t count_max) const;

 private:
  struct State {
    bool published = false, handled = false, dead = false, retrying = false, saga_ended = false;
    std::int64_t ready_us = 0;         ///< when a handler may begin at the earliest
    std::int64_t started_us = 0;       ///< when the first one began
    std::uint32_t attempts_begun = 0;  ///< a bit for each
  };
  void begin(const std::string& source, const Record& record);
  void measure(const State& state);
  void note_step(State& state, const Record& record);

  const Plan& plan_;
  std::vector<State> orders_;
  std::size_t saga_count_;
  std::map<std::string, std::set<std::pair<std::uint32_t, std::uint32_t>>> open_;
  std::set<std::pair<std::int64_t, std::uint32_t>> waiting_;  ///< due times ahead
  std::vector<std::int64_t> latencies_us_;
  std::size_t published_ = 0, handled_ = 0, dead_ = 0, retrying_ = 0, redelivered_ = 0, sagas_ = 0;
  std::int64_t last_at_us_ = 0;
};

}  // namespace towline::demo
