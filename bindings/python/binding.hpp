#pragma once
// What the files of the Python module share. Nothing here or in them decides anything: values are converted,
// the interpreter's lock is let go before anything that may wait, and no thread of the engine ever takes it.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <pybind11/pybind11.h>
#include <unistd.h>

#include <towline/port.hpp>

namespace towline::python {

namespace py = pybind11;

/// Lets go of the interpreter's lock, and takes it again at the end of the scope. A thread that waits for the
/// lock of an interpreter that ends is unwound by force, through frames that must not be; here it stays, as
/// threads do from CPython 3.14 on, until the process is gone.
class Released {
 public:
  Released() : state_(PyEval_SaveThread()) {}
  ~Released() noexcept(false) {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {  // nothing else is thrown there
      for (;;)
        ::pause();
    }
  }
  Released(const Released&) = delete;
  Released& operator=(const Released&) = delete;

 private:
  PyThreadState* state_;
};

/// The exception of the table for an error; not raised yet.
[[nodiscard]] py::object exception_of(const Error& error);
/// Raises it.
[[noreturn]] void raise(const Error& error);

/// An argument that cannot be converted is a TypeError, wherever in the arguments it is.
void translate_cast_errors();

// ---- to Python (convert.cpp) --------------------------------------------------------------------

[[nodiscard]] py::object to_python(const MessageId& id);
[[nodiscard]] py::object to_python(const Receipt& receipt);
[[nodiscard]] py::object to_python(const std::vector<Receipt>& receipts);
[[nodiscard]] py::object to_python(ScheduleAnswer answer);
[[nodiscard]] py::object to_python(const std::vector<ScheduleAnswer>& answers);
[[nodiscard]] py::object to_python(const Page<Scheduled>& page);
[[nodiscard]] py::object to_python(const Page<DeadLetter>& page);
[[nodiscard]] py::object to_python(const std::optional<DeadLetter>& entry);
[[nodiscard]] py::object to_python(const std::vector<DeadLetterGroup>& groups);
[[nodiscard]] py::object to_python(const RedriveReport& report);
[[nodiscard]] py::object to_python(const IdempotencyAnswer& answer);
[[nodiscard]] py::object to_python(const EngineStatistics& statistics);
[[nodiscard]] py::object to_python(const ConsumerStatistics& statistics);
[[nodiscard]] py::object to_python(const std::vector<GroupBacklog>& backlog);
[[nodiscard]] py::object to_python(const std::vector<BlockedKey>& keys);
[[nodiscard]] py::object to_python(const std::vector<std::string>& texts);
[[nodiscard]] py::object to_python(const Health& health);
[[nodiscard]] py::object to_python(const Alert& alert);
[[nodiscard]] py::object to_python(const PermitStatistics& statistics);
[[nodiscard]] py::object to_python(const Appended& appended);
[[nodiscard]] py::object to_python(const std::vector<RecordedEvent>& events);
[[nodiscard]] py::object to_python(const EventPage& page);
[[nodiscard]] py::object to_python(const std::optional<StreamInfo>& info);
[[nodiscard]] py::object to_python(const Page<StreamInfo>& page);
[[nodiscard]] py::object to_python(const std::optional<Snapshot>& snapshot);
[[nodiscard]] py::object to_python(const EventSubscriptionStatistics& statistics);
[[nodiscard]] py::object to_python(const AppendedMessage& appended);
[[nodiscard]] py::object to_python(const ConversationPage& page);
[[nodiscard]] py::object to_python(const std::optional<ConversationGap>& extent);
[[nodiscard]] py::object to_python(const Page<MissedConversation>& page);
[[nodiscard]] py::object to_python(const Page<CatchUp>& page);
[[nodiscard]] py::object to_python(const std::optional<std::uint64_t>& number);
[[nodiscard]] py::object to_python(const SagaStarted& started);
[[nodiscard]] py::object to_python(const std::optional<SagaInfo>& info);
[[nodiscard]] py::object to_python(const Page<SagaInfo>& page);
[[nodiscard]] py::object to_python(const std::vector<SagaEntry>& timeline);
[[nodiscard]] py::object to_python(const SagaResult& result);
[[nodiscard]] inline py::object to_python(std::uint64_t number) { return py::int_(number); }
[[nodiscard]] inline py::object to_python(bool yes) { return py::bool_(yes); }

/// A towline.Message for it.
[[nodiscard]] py::object message_of(Delivery delivery);
/// The other way; throws when it is something else. As long as the object lives.
[[nodiscard]] Delivery& delivery_of(const py::handle& message);

// ---- from Python --------------------------------------------------------------------------------

/// The fields of Message in their order, times in microseconds; see _core.pyi.
[[nodiscard]] Message message_from(const py::tuple& fields);
/// A dict of nothing but a topic, bytes and perhaps a key, which most messages of batches are; false: another
/// one, and `message` is not to be used.
[[nodiscard]] bool plain_message_from(const py::handle& fields, Message& message);
/// (kind, delay in microseconds or None, type, message, stack).
[[nodiscard]] Outcome outcome_from(const py::tuple& fields);
[[nodiscard]] MessageId id_from(const std::string& text);
[[nodiscard]] DeadLetterQuery query_from(const py::dict& fields);
[[nodiscard]] RedriveOptions redrive_from(const py::dict& fields);
/// Each (type, payload, content type, headers, id or None).
[[nodiscard]] std::vector<NewEvent> new_events_from(const py::list& events);

/// (type, version, options, stages), each stage a list of (step, compensates, options).
[[nodiscard]] SagaDefinition saga_definition_from(const py::tuple& fields);
[[nodiscard]] SagaQuery saga_query_from(const py::dict& fields);
[[nodiscard]] SagaStatus saga_status_from(const std::string& name);

/// (name, value) pairs as set_option takes them.
using OptionTexts = std::vector<std::pair<std::string, std::string>>;
template <typename Options>
[[nodiscard]] Options options_from(const OptionTexts& texts) {
  Options options;
  for (const auto& [name, value] : texts) {
    if (auto bad = set_option(options, name, value); !bad) raise(bad.error());
  }
  return options;
}

void define_port(py::module_& module);
void define_delivery(py::module_& module);
void define_permits(py::module_& module);

}  // namespace towline::python
