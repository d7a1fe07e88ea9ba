#pragma once
// Mutants: known wrong designs, as decorators. A simulator that lets one of them live is blind, and then its
// silence about the engine says nothing. No product code knows of them.
//
// Some sit between the faults and the provider: they make the provider wrong, and the history tells what it
// really did. The others sit between the engine and the faults: they make the engine do in two steps what
// must be one, or overlook what it is told, and each of their calls can fail by itself.

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <towline/saga.hpp>
#include <towline/spi/driver.hpp>

namespace towline::simulation {

enum class Mutant : std::uint8_t {
  kNone,
  kDropsDueBeyondLimit,    ///< what is due and did not fit into one promotion is deleted unread
  kCancelAlwaysWins,       ///< cancel() answers "done" also for what has fired
  kAcknowledgesOnReceipt,  ///< gone from the provider before its handler
  kSettlesThenStores,      ///< acknowledges, and puts the retry or dead letter in a second step
  kStoresThenSettles,      ///< the same the other way round, without a common transaction
  kForgetsAttempts,        ///< the attempt of a retry is not stored
  kSetsWithoutComparing,   ///< idempotency: get, then set, without a version
  kDedupInProcess,         ///< dedup ids are remembered by each process for itself
  kIgnoresCredit,          ///< hands out more than was asked for
  kRedrivesInTwoSteps,     ///< a dead letter is published, and marked in a second step
  kPublishesTwice,         ///< two patterns of a group match, and both get a copy
  kHidesErrors,            ///< an outage looks like an empty queue
  kLeaseByWallClock,       ///< leases end by the wall clock
  kFiresEarly,             ///< due times are rounded down to whole seconds
  kForgetsBlocks,          ///< a failed head does not block its key
  kReleasesToTheEnd,       ///< what is released is published anew, behind everything else
  kLosesDeadLetters,       ///< a dead letter is acknowledged and not stored
  kChargesAll,             ///< a death is charged to everything that comes again
  kCleansOnlyResolved,     ///< retention removes resolved dead letters and no others
  kStartsLoopsAgain,       ///< a consumer that subscribes again does not end its old loop, and each delivers
  kReadsFromTheStart,      ///< every reader has a position of its own, in memory: it begins at the beginning
  kDiscardsWhenFull,       ///< what is published to a long queue is acknowledged and discarded
  kForgetsSagaSteps,       ///< what a saga has done is known only to the process that did it
  kSkipsFailedStep,        ///< the step that failed, and may have half happened, is not undone
  kUndoesForwards,         ///< compensations run in the order of the steps
  kFollowsFromTheStart,    ///< how far events were followed is known only to the process that did it
  kPassesUncommitted,      ///< a reader goes past positions whose events appear later
  kAppendsAnywhere,        ///< the version that an append expects is not compared
};
inline constexpr std::size_t kMutantCount = 29;

[[nodiscard]] const char* name_of(Mutant mutant) noexcept;
/// The naive design of the reliability notes that it stands for; "" for those made by hand.
[[nodiscard]] const char* origin_of(Mutant mutant) noexcept;
[[nodiscard]] bool parse_mutant(std::string_view text, Mutant& mutant) noexcept;

/// Below the faults: the provider of one process.
[[nodiscard]] spi::Provider with_wrong_provider(spi::Provider provider, Mutant mutant,
                                                std::shared_ptr<spi::Clock> clock);
/// Above the faults: what the engine gets to see.
[[nodiscard]] spi::Provider with_wrong_engine(spi::Provider provider, Mutant mutant);
/// The step that is really done when that call is made; nullopt: none, and it counts as done.
[[nodiscard]] std::optional<std::string> step_done(const SagaCall& call, const SagaDefinition& definition,
                                                   Mutant mutant);
/// The clock that the provider is opened with.
[[nodiscard]] std::shared_ptr<spi::Clock> provider_clock(std::shared_ptr<spi::Clock> clock, Mutant mutant);

}  // namespace towline::simulation
