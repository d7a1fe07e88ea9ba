#pragma once
// SagaRecords: what the store knows of sagas. Starts them, reads them, and makes the unit that a change of
// one is: the entries of its log, what is known of it without them, what it publishes, and the message that
// wakes it.
//
// Each saga that is not over has such a message, on the way or in the schedule; whoever handles it drives the
// saga. So a saga needs no owner of its own: the message has one.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <towline/consumer.hpp>
#include <towline/saga.hpp>
#include <towline/spi/store.hpp>

#include "engine/context.hpp"
#include "engine/publisher.hpp"
#include "saga/record.hpp"
#include "saga/state.hpp"

namespace towline::engine {

/// The group that handles the messages that wake sagas.
inline constexpr std::string_view kSagaGroup = "towline.saga";
[[nodiscard]] std::string saga_topic(std::string_view type, std::uint32_t definition_version);
/// Of an event of a choreography: the saga's id; and, of one that the engine published for it, the type.
inline constexpr std::string_view kSagaIdHeader = "saga-id";
inline constexpr std::string_view kSagaTypeHeader = "saga-type";
/// Why a command or a step has failed.
inline constexpr std::string_view kSagaErrorHeader = "saga-error";
/// Of what a saga keeps, for a message that carries it: it is JSON when it is some.
[[nodiscard]] std::string content_type_of(const Bytes& kept);
/// The topics that a runner of the choreography listens to.
[[nodiscard]] std::vector<std::string> events_of(const SagaDefinition& definition);
/// Of what a definition says about its steps. Errors: kInvalidSaga, kInvalidConfig.
[[nodiscard]] Result<saga::Shape> shape_of(const SagaDefinition& definition);

/// A saga as its log says.
struct SagaRecord {
  SagaRecord(SagaInfo known, std::shared_ptr<const saga::Shape> of)
      : info(std::move(known)), shape(std::move(of)), state(*shape) {}
  SagaInfo info;
  std::shared_ptr<const saga::Shape> shape;
  saga::State state;
  std::uint64_t version = 0;   ///< how many entries its log has
  std::vector<MessageId> ids;  ///< of them
};

/// What happens to a saga in one unit.
struct SagaChange {
  std::vector<SagaEntry> entries;     ///< applied to the record's state already
  std::vector<spi::Write> published;  ///< what leaves with them
  std::optional<TimePoint> wake_at;
};

/// What an event was to its saga.
enum class Heard : std::uint8_t {
  kTaken,    ///< it is in the log
  kKnown,    ///< it was heard before
  kOwn,      ///< the saga itself has published it
  kEarly,    ///< there is no such saga yet
  kLate,     ///< the saga is over, or began under a definition that does not listen to it
  kStranger  ///< it has no saga's id
};
struct HeardEvent {
  Heard as = Heard::kStranger;
  std::string id;
};

/// Any thread.
class SagaRecords {
 public:
  explicit SagaRecords(std::shared_ptr<Context> context);

  [[nodiscard]] Result<SagaStarted> start(const SagaDefinition& definition, std::string id, Bytes context);
  /// An event has come for a saga of this choreography, or begins one.
  [[nodiscard]] Result<HeardEvent> hear(const SagaDefinition& definition, const Delivery& event);
  /// Errors: kNotFound, kCorruptStore.
  [[nodiscard]] Result<SagaRecord> load(std::string_view type, std::string_view id,
                                        std::vector<SagaEntry>* log = nullptr);
  [[nodiscard]] Result<std::vector<SagaEntry>> timeline(std::string_view type, std::string_view id);
  [[nodiscard]] Result<SagaResult> result(std::string_view type, std::string_view id, Duration timeout);
  /// Appends the entry that `entry_of` makes of the saga, again when another one comes between.
  [[nodiscard]] Result<void> change(std::string_view type, std::string_view id,
                                    const std::function<Result<SagaEntry>(const SagaRecord&)>& entry_of);

  /// One round of alerts about sagas that are stuck. One thread.
  void watch(MonotonicTime now);

  /// The unit of a change; `record` is as before it but for its state. Afterwards it is as when the unit is
  /// committed.
  [[nodiscard]] Result<spi::Unit> to_unit(SagaRecord& record, SagaChange change);
  /// Wakes a saga that changes nothing now. kConflict when it is committed: that very wake waits already.
  [[nodiscard]] Result<spi::Unit> wake(const SagaRecord& record, TimePoint at);
  /// For when a message was to wake its saga; nullopt: it is another one.
  [[nodiscard]] static std::optional<TimePoint> woken_at(const Delivery& delivery);
  [[nodiscard]] Result<spi::Write> as_write(Message message) {
    return publisher_.as_write(std::move(message));
  }
  [[nodiscard]] Context& context() noexcept { return *context_; }
  [[nodiscard]] const std::shared_ptr<Context>& context_ptr() const noexcept { return context_; }

 private:
  /// `id`: of the entry. The event has it too, so that it is known when it comes back.
  [[nodiscard]] Result<spi::Write> event_write(const SagaRecord& record, const SagaEntry& entry,
                                               const MessageId& id);
  [[nodiscard]] Result<spi::Write> wake_write(const SagaRecord& record, TimePoint at);
  [[nodiscard]] Result<SagaStarted> started_before(const SagaDefinition& definition, const std::string& id,
                                                   const Bytes& context);

  const std::shared_ptr<Context> context_;
  Publisher publisher_;
  /// By type and id, the step.
  using StuckSagas = std::map<std::pair<std::string, std::string>, std::string>;
  StuckSagas stuck_;  ///< of watch()
  MonotonicTime watch_at_ = MonotonicTime::min();
};

}  // namespace towline::engine
