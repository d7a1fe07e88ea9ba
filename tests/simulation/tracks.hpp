#pragma once
// A history, sorted by what it is about. Shared by the checkers.

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "simulation/checkers.hpp"
#include "simulation/history.hpp"

namespace towline::simulation {

/// One handling of a message: from the start of its handler to what became of it.
struct Handling {
  std::size_t start = 0;          ///< index into the history
  std::size_t finish = SIZE_MAX;  ///< SIZE_MAX: it never returned
  std::size_t settle = SIZE_MAX;  ///< the settlement of its delivery that the provider accepted
  bool zombie = false;            ///< started by a process that had lost the lease and did not know yet
};

/// One handing-out: how long its lease was live.
struct Holding {
  std::size_t hand_out = 0;
  MonotonicTime until{};            ///< end of the lease, or the moment it was settled or its session closed
  std::size_t ended_by = SIZE_MAX;  ///< the record that ended it; SIZE_MAX: the clock
  bool settled = false;
  bool closed = false;
  bool open = true;
  bool started = false;
  /// The lease ended with the message unsettled.
  [[nodiscard]] bool ended_by_clock() const noexcept { return !settled && !closed; }
};

/// All that happened to one message in one group, as indices into the history.
struct Track {
  std::vector<Handling> handlings;
  std::vector<Holding> holdings;
  std::vector<std::size_t> stored;    ///< retries, parked records and dead letters that became durable
  std::vector<std::size_t> redrives;  ///< that succeeded
};

/// All that happened to one message.
struct Publication {
  std::vector<std::size_t> answers;
  std::vector<std::size_t> cancels;
  std::vector<std::size_t> reschedules;
  /// Of cancels and reschedules, by their number: when the call began.
  std::map<std::uint64_t, std::size_t> asked;
  bool acked = false, unknown = false, duplicate = false;
};

class Tracks {
 public:
  Tracks(const std::vector<Record>& history, const Facts& facts);

  [[nodiscard]] const Record& at(std::size_t index) const { return history_[index]; }
  [[nodiscard]] Track& track(std::uint32_t message, std::uint32_t group) {
    return tracks_[message * facts_.groups.size() + group];
  }
  [[nodiscard]] const Track& track(std::uint32_t message, std::uint32_t group) const {
    return tracks_[message * facts_.groups.size() + group];
  }
  [[nodiscard]] const Publication& publication(std::uint32_t message) const { return publications_[message]; }
  [[nodiscard]] bool belongs(std::uint32_t message, std::uint32_t group) const;
  [[nodiscard]] const Facts& facts() const noexcept { return facts_; }
  [[nodiscard]] const std::vector<Record>& history() const noexcept { return history_; }
  [[nodiscard]] std::uint32_t message_count() const noexcept {
    return static_cast<std::uint32_t>(facts_.messages.size());
  }
  [[nodiscard]] std::uint32_t group_count() const noexcept {
    return static_cast<std::uint32_t>(facts_.groups.size());
  }

  void find(const char* checker, std::string text) {
    if (found.size() < 50) found.push_back({checker, std::move(text)});
  }
  std::vector<Violation> found;

 private:
  using Token = std::pair<std::uint64_t, std::uint32_t>;
  struct Where {
    Track* track;
    std::size_t holding;
  };
  void add(std::size_t index);
  void hand_out(std::size_t index);
  void settle(std::size_t index);
  void renew(std::size_t index);
  void end_session(std::uint32_t session, MonotonicTime at, std::size_t index);
  [[nodiscard]] bool is_known(const Record& r) const {
    return r.message < facts_.messages.size() && r.group < facts_.groups.size();
  }

  const std::vector<Record>& history_;
  const Facts& facts_;
  std::vector<Track> tracks_;
  std::vector<Publication> publications_;
  std::map<Token, Where> by_token_;
  std::map<std::uint32_t, std::vector<Token>> open_;  ///< by session
};

[[nodiscard]] std::string called(std::uint32_t message, std::uint32_t group);

/// How many handlings before `index` may have counted as a failure: they said so, or they took too long.
[[nodiscard]] std::uint32_t possible_failures(const Tracks& tracks, const Track& track,
                                              std::uint32_t redrives, std::size_t before);

void check_queue(Tracks& tracks, const FinalState& end);
void check_duplicates(Tracks& tracks);
void check_order(Tracks& tracks);
void check_leases(Tracks& tracks);
void check_attempts(Tracks& tracks);
void check_places(Tracks& tracks, const FinalState& end);
void check_delays(Tracks& tracks);
void check_dead_letters(Tracks& tracks, const FinalState& end);
void check_idempotency(Tracks& tracks);
void check_sagas(Tracks& tracks, const FinalState& end);
void check_once(Tracks& tracks, const FinalState& end);
void check_events(Tracks& tracks, const FinalState& end);

}  // namespace towline::simulation
