#pragma once
// The plan of one run: all that a seed decides before anything happens. Options come from small sets with
// their extremes, and each kind of fault and each kind of handler is on in about half of the seeds (swarm),
// so that unlikely combinations come up as often as likely ones. A reduced plan (faults off, load cut) draws
// the same numbers first, so that shrinking changes only what it means to.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <towline/message.hpp>
#include <towline/options.hpp>
#include <towline/saga.hpp>

namespace towline::simulation {

enum class WorldKind : std::uint8_t {
  kMemory,  ///< the memory provider, store and transport in one
  kSqlite,  ///< one SQLite file, on a disk that can lose its power
  kSplit,   ///< two memory providers: the transport of one, the store of the other
};

enum class Fault : std::uint8_t {
  kFailBefore,  ///< a call answers kUnavailable and nothing happened
  kFailAfter,   ///< a call answers kUnavailable although it happened
  kStall,       ///< a call takes long, some longer than a lease
  kDieBefore,   ///< the process dies at a call, before it happened
  kDieAfter,    ///< the same, after
  kRefuse,      ///< kOverloaded or kStorageFull
  kCrash,       ///< a process dies between two steps
  kPause,       ///< a process stands still, some longer than a lease
  kRestart,     ///< an engine is closed in order and opened again
  kRebalance,   ///< one consumer is closed and opened again
  kSkew,        ///< the wall clocks of the processes differ
  kStepClock,   ///< the wall clock jumps
  // Of the disk; only worlds that have one.
  kPowerLoss,  ///< in the middle of a call the power goes: all processes die, and what was not synced may be
               ///< lost
  kDiskFull,   ///< for a while no file grows
  kBadSync,    ///< a sync fails, and what it was for is lost
  kBadWrite,   ///< a write fails halfway
};
inline constexpr std::size_t kFaultCount = 16;
/// From here on they are the disk's.
inline constexpr auto kFaultOfDisk = static_cast<std::size_t>(Fault::kPowerLoss);

[[nodiscard]] const char* name_of(Fault fault) noexcept;

/// What a handler does with a message of one group.
enum class Mood : std::uint8_t {
  kFine,
  kFails,      ///< `times` attempts fail
  kPermanent,  ///< fails with an error that is never tried again
  kNaks,       ///< as kFails, on purpose, sometimes with a delay
  kDefers,     ///< `times` handlings put it off
  kThrottles,  ///< `times` handlings are told to come later
  kRejects,    ///< sends it to the dead letters
  kKills,      ///< the process dies under it, until it was charged `times`
  kSlow,       ///< `times` attempts take longer than the handler timeout
};
inline constexpr std::size_t kMoodCount = 9;
[[nodiscard]] const char* name_of(Mood mood) noexcept;

/// More than any limit on attempts or crashes.
inline constexpr std::uint32_t kAlways = 1000;

struct Behaviour {
  Mood mood = Mood::kFine;
  std::uint32_t times = 0;
  Duration takes{0};
};

inline constexpr std::size_t kGroupCountMax = 2;

struct MessagePlan {
  std::uint32_t producer = 0;
  std::uint32_t topic = 0;
  std::int32_t key = -1;    ///< -1: none
  std::int32_t dedup = -1;  ///< -1: none
  DedupMode dedup_mode = DedupMode::kWindow;
  Duration delay{0};
  Duration ttl{0};
  std::uint8_t priority = 0;
  bool own_id = false;
  std::array<Behaviour, kGroupCountMax> behaviour{};
};

struct GroupPlan {
  std::vector<std::uint32_t> topics;
  ConsumerOptions options;
};

/// What the functions of one step do in one saga.
struct SagaStepPlan {
  Behaviour execute, compensate;
};

struct SagaPlan {
  std::uint32_t type = 0;
  Duration starts_after{0};
  /// Somebody starts it once more, or starts another one under its id.
  bool starts_twice = false, is_contested = false;
  Duration cancelled_after{0};  ///< 0: never
  std::vector<SagaStepPlan> steps;
};

struct FollowerPlan {
  std::string stream;  ///< empty: all events
  std::string type;    ///< empty: all types
  bool by_hand = false;
  std::int64_t batch_count_max = 1;
  Duration takes_max{0};
};

/// Events that are appended and followed.
struct EventsPlan {
  std::uint32_t client_count = 0;  ///< who append
  std::uint32_t append_count = 0;  ///< in all
  std::uint32_t stream_count = 1;
  std::uint32_t batch_count_max = 1;
  std::vector<FollowerPlan> followers;
};

struct FaultPlan {
  bool on = false;
  /// Per provider call, or from kCrash on per step of the world. kPowerLoss: per provider call; kBadSync,
  /// kBadWrite: per sync or write of a file.
  double rate = 0;
};

/// What a caller changes about the plan of a seed.
struct Reduction {
  std::uint32_t without = 0;   ///< bit mask of Fault
  std::uint32_t halvings = 0;  ///< of the number of messages, and of all else
  bool without_sagas = false, without_events = false, without_once = false;
};

struct Plan {
  std::uint64_t seed = 0;
  WorldKind world = WorldKind::kMemory;
  EngineOptions engine;
  std::uint32_t topic_count = 1;
  std::uint32_t process_count = 1;
  std::uint32_t producer_count = 1;
  std::uint32_t idempotency_client_count = 0;
  std::uint32_t idempotency_key_count = 20;
  std::uint32_t publish_batch_max = 1;
  Duration publish_gap_max{0};
  Duration poll_interval{std::chrono::seconds(1)};
  Duration step_cost_max{0};
  bool operator_active = false;
  /// Chance that a process subscribes to a group; one process always subscribes to all.
  double membership = 1.0;
  /// How much faster one process may be than another.
  double slowness = 1.0;
  std::vector<GroupPlan> groups;
  std::vector<MessagePlan> messages;
  std::vector<SagaDefinition> saga_types;
  std::vector<SagaPlan> sagas;
  EventsPlan events;
  /// Who call functions that must run once per key; where the provider runs SQL, in transactions as well.
  std::uint32_t once_client_count = 0, once_key_count = 1;
  std::array<FaultPlan, kFaultCount> faults{};
  /// The chance that a redriven message is handled well.
  double healed_by_redrive = 0.7;

  [[nodiscard]] bool has(Fault fault) const noexcept { return faults[static_cast<std::size_t>(fault)].on; }
  [[nodiscard]] double rate(Fault fault) const noexcept {
    return faults[static_cast<std::size_t>(fault)].rate;
  }
};

[[nodiscard]] Plan draw_plan(std::uint64_t seed, WorldKind world, const Reduction& reduction = {});

[[nodiscard]] std::string topic_name(std::uint32_t topic);
[[nodiscard]] std::string group_name(std::uint32_t group);
/// Whether a topic or group is one of those that messages of the plan go to.
[[nodiscard]] bool is_of_messages(std::string_view name) noexcept;
/// By dice of their own, so that plans without them stay as they are.
void draw_sagas(Plan& plan, const Reduction& reduction);
void draw_events(Plan& plan, const Reduction& reduction);
void draw_once(Plan& plan, const Reduction& reduction);
[[nodiscard]] std::string stream_name(std::uint32_t stream);
[[nodiscard]] std::string type_of_event(std::uint32_t event);
[[nodiscard]] MessageId id_of_event(std::uint32_t event);
[[nodiscard]] std::string follower_name(std::uint32_t follower);
/// Where the commands of all sagas go.
inline constexpr std::string_view kCommandTopic = "commands";
[[nodiscard]] std::string saga_id(std::uint32_t saga);
[[nodiscard]] std::string saga_context(std::uint32_t saga);
/// Steps in the order of their numbers.
[[nodiscard]] std::vector<const SagaStep*> steps_of(const SagaDefinition& definition);
/// The number at the end of a topic's or group's name.
[[nodiscard]] std::uint32_t number_in(std::string_view name) noexcept;
/// One paragraph for a person.
[[nodiscard]] std::string describe(const Plan& plan);

}  // namespace towline::simulation
