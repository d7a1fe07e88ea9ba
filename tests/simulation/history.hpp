#pragma once
// The history of a run: what happened, in order, as the world outside the engine saw it. Checkers read
// nothing else, so a checker cannot be fooled by what the engine believes.

#include <cstdint>
#include <string>
#include <vector>

#include <towline/time.hpp>

namespace towline::simulation {

/// Messages are known by the number in their payload.
inline constexpr std::uint32_t kNobody = UINT32_MAX;

enum class Event : std::uint8_t {
  kPublish,      ///< a producer got an answer; `until_wall` its due time
  kHandOut,      ///< the provider gave a delivery to a session; `until` the end of the lease
  kRenew,        ///< a session's leases now end at `until`; `lease` 0: all of them
  kLeaseLost,    ///< a renewal said so
  kSettle,       ///< the provider got a settlement; `verb` what came with it
  kStart,        ///< a handler was started
  kFinish,       ///< it returned; `verb` what it said
  kStored,       ///< a record of the engine became durable; `verb` says which
  kRedrive,      ///< a dead letter went back
  kDiscard,      ///< a dead letter was given up
  kCancel,       ///< an operator's cancel() was answered
  kReschedule,   ///< the same; `until_wall` the new due time
  kCrash,        ///< a process died
  kUp,           ///< a process started
  kClose,        ///< a session ended in order
  kPause,        ///< a process stands still until `until`
  kBegin,        ///< idempotency: an answer to begin(); `number` the fence or the result
  kComplete,     ///< idempotency: an answer to complete(); `number` the result
  kGiveUp,       ///< idempotency: an answer to fail()
  kBlock,        ///< a key block was put; `number` its partition, `index` whether it is held
  kUnpark,       ///< the next parked record was let through; `number` the partition
  kHandRelease,  ///< an operator begins to release a blocked key; as kBlock, with `topic`
  kAsking,       ///< cancel() or reschedule() is about to be called; `number` pairs it with its answer
  kBeginning,    ///< idempotency: begin() is about to be called
  kEnding,       ///< idempotency: complete() or fail() is about to be called; `number` and `lease` as theirs
  kRemoved,      ///< the janitor removed `number` dead letters
  kPowerLoss,    ///< the power went; `number` how often before, `index` whether the call's commit is there
  kSagaStart,    ///< an answer to start(); `number` the saga, `index` 1: it is new, `lease` 1: of another one
  kSagaCancel,   ///< an operator's cancel() was answered
  kSagaHelp,     ///< retry(), skip() or force() was; `reason` the mark, `index` the step
  kSagaLog,      ///< an entry of a saga's log became durable; `reason` its mark, `index` its step
  kDeed,         ///< a step's function began to do its work; `group` its phase, `lease` the call
  kDeedEnd,      ///< it returned; `verb` what it said
  kAppending,    ///< append() is about to be called; `number` pairs it with its answer, `redrives` its first
                 ///< event, `attempt` how many, `index` the stream, `lease` the version expected + 1, 0: any
  kAppended,     ///< its answer; `lease` the first version
  kEventsThere,  ///< events became durable; `redrives`, `attempt` and `index` as of kAppending
  kFollow,       ///< an event was given to a follower; `session` which, `index` the event, `number` its place
  kCheckpoint,   ///< a follower's checkpoint became durable; `number` the place
  kOnceAsked,    ///< once() is about to be called; `lease` the call, `index` the key, `until` its lease at
                 ///< least
  kOnceEffect,   ///< its function began; `number` the result it will give
  kOnceReturn,   ///< its function returned
  kOnce,         ///< its answer; `number` the result
  kOnceInTx,     ///< the same in a transaction: effect and result together, `number` the result
  kFault,        ///< something was made to fail; `number` which
  kNote,         ///< for a person who reads a trace
};

enum class Answer : std::uint8_t {
  kOk,
  kDuplicate,
  kRejected,  ///< surely not done
  kUnknown,   ///< nobody can say
  kLost,      ///< the lease had ended
  kConflict,
  kNotFound,
  kAlreadyFired,
  kInProgress,
  kCompleted,
};

/// What a handler said, what a settlement carried, or what was stored.
enum class Verb : std::uint8_t {
  kAck,
  kFail,
  kPermanent,
  kNak,
  kDefer,
  kThrottle,
  kReject,
  kRelease,
  kCrash,
  kRetry,
  kPark,
  kDeadLetter,
};

struct Record {
  Event event = Event::kNote;
  Answer answer = Answer::kOk;
  Verb verb = Verb::kAck;
  std::uint8_t group = 0;
  std::uint8_t topic = 0;
  std::uint32_t process = 0;
  std::uint32_t session = 0;
  std::uint32_t message = kNobody;
  std::uint32_t attempt = 0;
  std::uint32_t crashes = 0;
  std::uint32_t redrives = 0;
  std::uint32_t index = 0;
  std::uint64_t lease = 0;
  std::uint64_t number = 0;
  MonotonicTime at{};
  TimePoint wall{};
  MonotonicTime until{};
  TimePoint until_wall{};
  /// kDeadLetter: the reason, as DeadLetterReason. Of sagas: a SagaMark.
  std::uint8_t reason = 0;
  /// The message heads a blocked key.
  bool heads_key = false;
};

class History {
 public:
  void add(const Record& record) {
    records_.push_back(record);
    fold(record);
  }
  [[nodiscard]] const std::vector<Record>& records() const noexcept { return records_; }
  [[nodiscard]] std::vector<Record>& records() noexcept { return records_; }
  /// Two runs of one seed must agree on this.
  [[nodiscard]] std::uint64_t hash() const noexcept { return hash_; }
  void reserve(std::size_t count) { records_.reserve(count); }

 private:
  void fold(const Record& record) noexcept;

  std::vector<Record> records_;
  std::uint64_t hash_ = 0xcbf29ce484222325ULL;
};

[[nodiscard]] const char* name_of(Event event) noexcept;
[[nodiscard]] const char* name_of(Answer answer) noexcept;
[[nodiscard]] const char* name_of(Verb verb) noexcept;
/// One line, times since the beginning of the world.
[[nodiscard]] std::string to_text(const Record& record);

}  // namespace towline::simulation
