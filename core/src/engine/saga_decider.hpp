#pragma once
// What happens next to one saga: from its state, its definition, and what became of its calls. Writes nothing
// itself; what it decided is a SagaChange.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <towline/consumer.hpp>
#include <towline/saga.hpp>

#include "engine/saga_records.hpp"

namespace towline::engine {

/// Steps by number, over all stages.
[[nodiscard]] std::vector<const SagaStep*> steps_of(const SagaDefinition& definition);
[[nodiscard]] std::string_view name_of(SagaPhase phase) noexcept;
/// `type/id/step/phase`
[[nodiscard]] std::string key_of(const SagaInfo& saga, std::string_view step, SagaPhase phase);

/// One line of it, so short that it fits into a header.
[[nodiscard]] std::string text_of_error(std::string_view text);

/// The headers of a command and of its reply. Not of the engine's own prefix: users publish replies.
inline constexpr std::string_view kCallHeader = "saga-call";         ///< key#attempt
inline constexpr std::string_view kReplyToHeader = "saga-reply-to";  ///< of a command: a topic
inline constexpr std::string_view kOutcomeHeader =
    "saga-outcome";  ///< of a reply: done, failed, failed_for_good

class SagaDecider {
 public:
  /// `record` is changed as what is decided will change it. `now`: by the clock of this machine, or of the
  /// one whose scheduler has woken the saga, if that is ahead: what woke it is due, or the two would wake and
  /// wait in turn until the clock behind has caught up.
  SagaDecider(SagaRecord& record, const std::vector<const SagaStep*>& steps, SagaRecords& records,
              spi::Rng& rng, TimePoint now);

  /// Events that are awaited and have not come in time; but for those that `may_be_unheard`, published before
  /// their time and not heard yet.
  void end_missed_events(const std::function<bool(const SagaStep&, TimePoint due)>& may_be_unheard);
  /// Calls that run and are nobody's: of a process that died. Commands whose reply did not come in time, when
  /// the message in hand was to wake the saga then: it comes behind a reply that came in time.
  void end_lost_calls(std::optional<TimePoint> woken_at);
  /// The message may be a reply.
  void take_reply(const Delivery& delivery);
  /// What a call came to; void when another attempt is under way.
  void take(const saga::Call& call, const Outcome& outcome, std::optional<Bytes> output,
            std::optional<Bytes> context, std::vector<spi::Write> published);
  void check_deadline();
  /// Begins what is ready; calls of functions are in `begins`. A command that cannot be published has failed.
  void begin_ready();
  /// Nothing of it runs in this process: when it goes on. nullopt: never, or somebody else wakes it.
  [[nodiscard]] std::optional<TimePoint> wake_at() const;

  SagaChange change;
  std::vector<saga::Call> begins;
  std::uint64_t failures = 0, taken_over = 0;
  bool waits_for_listener = false;

 private:
  /// False: it cannot follow.
  bool append(SagaEntry entry);
  [[nodiscard]] const SagaStep& step_of(const saga::Call& call) const { return *steps_[call.step]; }
  [[nodiscard]] const std::string& command_of(const saga::Call& call) const;
  /// It runs in no process of ours: a command, or a step that is awaited.
  [[nodiscard]] bool is_elsewhere(const saga::Call& call) const;
  [[nodiscard]] SagaEntry entry_of_failure(const saga::Call& call, const Outcome& outcome);
  [[nodiscard]] Result<spi::Write> command(const saga::Call& call) const;

  SagaRecord& record_;
  const std::vector<const SagaStep*>& steps_;
  SagaRecords& records_;
  spi::Rng& rng_;
  const TimePoint now_;
};

}  // namespace towline::engine
