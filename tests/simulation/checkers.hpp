#pragma once
// Checkers: plain code over a history, after the run. Each names what it found; none of them asks the engine.
//
//   K1 queue        nothing lost, nothing made up, nothing that was surely rejected or cancelled handled
//   K2 duplicates   every further handling of a message by a group has a cause in the history
//   K3 order        per producer, key and group: first handlings in the order of publishing, no two at once
//   K4 lease        no two live leases on one message of one group
//   K5 attempts     they grow with failures and never beyond the limit; crashes are bounded; innocents stay
//                   free
//   K6 place        in the end and in between: at most one place per message and group
//   K7 delay        no handler before the due time
//   K8 end          exactly the dead letters that must be; sagas end, and what they did is whole or undone
//   K9 idempotency  one holder at a time, fences grow, a result never changes
//      once         a function runs again only when what it gave is not known
//      events       versions without gaps, appends compare, all read one order, followers miss nothing

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <towline/dead_letter.hpp>

#include "simulation/history.hpp"
#include "simulation/plan.hpp"

namespace towline::simulation {

struct Violation {
  std::string checker;
  std::string text;
};

/// What must be known besides the history.
struct Facts {
  WorldKind world = WorldKind::kMemory;
  std::vector<MessagePlan> messages;  ///< by number; probes included
  std::vector<GroupPlan> groups;
  std::vector<SagaDefinition> saga_types;
  std::vector<SagaPlan> sagas;
  EventsPlan events;
  /// How far the wall clocks of two processes may lie apart.
  Duration skew_max{0};
  /// Handlers are the only ones that kill processes, and nothing else ends a lease.
  bool only_handlers_kill = false;
  /// Provider calls may fail or stall.
  bool calls_may_fail = false;
  /// Leases are written down in wall-clock time, and the wall clock jumps: then they end early or late.
  bool leases_may_jump = false;
  /// What ended with an error may have happened all the same, unseen by the history.
  bool disk_may_fail = false;
  /// A process may stand still for longer than a handler's time.
  bool may_stand_still = false;
  /// One message may become two of one id: between two systems, by whatever falls between a publish and the
  /// erasure of what was published, or between a commit and its settlement.
  bool may_copy = false;
  /// What the janitor must have removed of the dead letters: those beyond so many, and the older ones.
  std::uint64_t dead_letter_count_max = UINT64_MAX;
  Duration dead_letter_age_max = Duration::max();
  double healed_by_redrive = 0;
  std::uint64_t seed = 0;
};

/// Where something was at the end.
enum class EndPlace : std::uint8_t { kWaiting, kInFlight, kScheduled, kParked, kDeadLetter };
struct Remainder {
  EndPlace place{};
  std::uint32_t message = kNobody;
  std::uint8_t group = UINT8_MAX;  ///< UINT8_MAX: every group
};
/// What the store says of a saga at the end.
struct SagaRemains {
  bool is_there = false;
  /// Its log could not be read.
  bool is_corrupt = false;
  SagaStatus status = SagaStatus::kRunning;
  std::vector<SagaEntry> log;
};
/// An event, as a reader saw it.
struct EventSeen {
  std::uint64_t position = 0, version = 0;
  std::uint32_t stream = 0, event = 0;
};
/// What one read of all events gave.
struct PageSeen {
  std::uint64_t from = 1;
  bool end = false;
  std::size_t began = 0;  ///< in the history
  std::vector<EventSeen> events;
};
struct FinalState {
  std::vector<SagaRemains> sagas;  ///< by number
  std::vector<EventSeen> events;   ///< by position
  std::vector<PageSeen> pages;
  /// By key: what transactions have put there.
  std::map<std::uint32_t, std::vector<std::uint64_t>> effects_in_tx;
  std::vector<Remainder> remainders;
  std::vector<DeadLetter> dead_letters;
  /// When this was; the janitors have run since everything was done.
  TimePoint wall{};
  /// The run was ended before everything was done, so what is left says nothing.
  bool stuck = false;
};

[[nodiscard]] std::vector<Violation> check_history(const std::vector<Record>& history, const Facts& facts,
                                                   const FinalState& end);

/// Whether a redriven message is handled well from then on.
[[nodiscard]] bool heals(const Facts& facts, std::uint32_t message, std::uint32_t group,
                         std::uint32_t redrives) noexcept;

}  // namespace towline::simulation
