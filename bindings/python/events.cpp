// The event store.

#include <algorithm>
#include <iterator>

#include "port.hpp"

namespace towline::python {
namespace {

/// What one receive() came to. Until it is taken or dropped nobody else receives, so that the order stays; of
/// what is dropped nothing is lost.
class Received {
 public:
  Received() = default;
  Received(Received&&) = default;
  Received& operator=(Received&&) = delete;
  ~Received() {
    if (!intake_) return;
    const std::lock_guard lock(intake_->mutex);
    std::move(events_.rbegin(), events_.rend(), std::front_inserter(intake_->left));
    intake_->busy = false;
    intake_->changed.notify_all();
  }

  static Result<Received> of(const std::shared_ptr<Intake>& intake, EventSubscription& subscription,
                             std::size_t count_max, Duration timeout) {
    Received received;
    {
      std::unique_lock lock(intake->mutex);
      if (!intake->changed.wait_for(lock, timeout, [&] { return !intake->busy; })) return received;
      intake->busy = true;
      received.intake_ = intake;
      const std::size_t count = std::min(count_max, intake->left.size());
      const auto end = intake->left.begin() + static_cast<std::ptrdiff_t>(count);
      std::move(intake->left.begin(), end, std::back_inserter(received.events_));
      intake->left.erase(intake->left.begin(), end);
      if (count > 0) return received;
    }
    auto events = subscription.receive(count_max, timeout);
    if (!events) return std::move(events).error();
    received.events_ = std::move(*events);
    return received;
  }

  [[nodiscard]] const std::vector<RecordedEvent>& events() const { return events_; }
  void taken() { events_.clear(); }

 private:
  std::shared_ptr<Intake> intake_;
  std::vector<RecordedEvent> events_;
};

Result<SubscriptionHandle> handle_of(Result<EventSubscription> subscription, Port* port = nullptr,
                                     std::uint64_t number = 0) {
  if (!subscription) return std::move(subscription).error();
  return std::make_shared<PyEventSubscription>(std::move(*subscription), port, number);
}

py::object to_python(Received& received) {
  py::object out = python::to_python(received.events());
  received.taken();
  return out;
}

void define_streams(py::class_<PyPort>& port) {
  port.def("append",
           [](PyPort& self, RequestId id, const std::string& stream, const py::list& events,
              std::optional<std::uint64_t> expected) {
             return self.run(id, [stream, events = new_events_from(events), expected](Engine& e) {
               return e.event_store().append(stream, events, expected);
             });
           })
      .def("read_events",
           [](PyPort& self, RequestId id, const std::string& stream, std::uint64_t from,
              std::size_t count_max) {
             return self.run(id, [=](Engine& e) { return e.event_store().read(stream, from, count_max); });
           })
      .def("read_events_backwards",
           [](PyPort& self, RequestId id, const std::string& stream, std::uint64_t from,
              std::size_t count_max) {
             return self.run(
                 id, [=](Engine& e) { return e.event_store().read_backwards(stream, from, count_max); });
           })
      .def("read_all_events",
           [](PyPort& self, RequestId id, std::uint64_t from, std::size_t count_max) {
             return self.run(id, [=](Engine& e) { return e.event_store().read_all(from, count_max); });
           })
      .def("find_stream",
           [](PyPort& self, RequestId id, const std::string& stream) {
             return self.run(id, [=](Engine& e) { return e.event_store().find_stream(stream); });
           })
      .def("streams",
           [](PyPort& self, RequestId id, const std::string& prefix, std::size_t count_max,
              const std::string& cursor) {
             return self.run(id,
                             [=](Engine& e) { return e.event_store().streams(prefix, count_max, cursor); });
           })
      .def("truncate_stream",
           [](PyPort& self, RequestId id, const std::string& stream, std::uint64_t before) {
             return self.run(id, [=](Engine& e) { return e.event_store().truncate(stream, before); });
           })
      .def("save_snapshot",
           [](PyPort& self, RequestId id, const std::string& stream, std::uint64_t version,
              const py::bytes& state, const std::string& content_type) {
             return self.run(id, [stream, snapshot = Snapshot{version, std::string(state), content_type}](
                                     Engine& e) { return e.event_store().save_snapshot(stream, snapshot); });
           })
      .def("find_snapshot", [](PyPort& self, RequestId id, const std::string& stream) {
        return self.run(id, [=](Engine& e) { return e.event_store().find_snapshot(stream); });
      });
}

void define_following(py::class_<PyPort>& port) {
  port.def("follow_events",
           [](PyPort& self, RequestId id, const OptionTexts& texts) {
             return self.run(id, [options = options_from<EventSubscriptionOptions>(texts)](Engine& e) {
               return handle_of(e.event_store().subscribe(options));
             });
           })
      .def("handle_events",
           [](PyPort& self, RequestId id, std::uint64_t number, const OptionTexts& texts) {
             return self.run(
                 id, [port = &self.port(), number, options = options_from<EventSubscriptionOptions>(texts)](
                         Engine&) { return handle_of(port->follow_events(number, options), port, number); });
           })
      .def("finish_events",
           [](PyPort& self, std::uint64_t number,
              const std::optional<std::pair<std::string, std::string>>& error) {
             std::optional<ErrorInfo> info;
             if (error) info = ErrorInfo{error->first, error->second, {}};
             self.port().finish_events(number, std::move(info));
           })
      .def("stream_events",
           [](PyPort& self, RequestId id, const std::string& topic, const OptionTexts& texts) {
             return self.run(id, [topic, options = options_from<EventSubscriptionOptions>(texts)](Engine& e) {
               return handle_of(e.event_store().stream_to(topic, options));
             });
           });
}

void define_subscription(py::module_& module) {
  py::class_<PyEventSubscription, SubscriptionHandle>(module, "EventSubscription",
                                                      py::release_gil_before_calling_cpp_dtor())
      .def("receive",
           [](PyEventSubscription& self, PyPort& port_of, RequestId id, std::size_t count_max,
              std::int64_t timeout_us) {
             return port_of.run(id, [subscription = self.subscription, intake = self.intake, count_max,
                                     timeout_us](Engine&) mutable {
               return Received::of(intake, subscription, count_max, Duration(timeout_us));
             });
           })
      .def("checkpoint",
           [](PyEventSubscription& self, PyPort& port_of, RequestId id, std::uint64_t place) {
             return port_of.run(id, [subscription = self.subscription, place](Engine&) mutable {
               return subscription.checkpoint(place);
             });
           })
      .def("statistics",
           [](PyEventSubscription& self, PyPort& port_of, RequestId id) {
             return port_of.run(id, [subscription = self.subscription](Engine&) {
               return Result<EventSubscriptionStatistics>(subscription.statistics());
             });
           })
      .def("abandon",
           [](PyEventSubscription& self, PyPort& port_of, RequestId id) {
             // Its handler fails at once, so closing waits for the store only.
             return port_of.run(
                 id,
                 [subscription = self.subscription, port = self.handled_by,
                  number = self.number](Engine&) mutable {
                   if (port != nullptr) port->forget_events(number);
                   return Result<bool>(subscription.close());
                 },
                 true);
           })
      .def("close", [](PyEventSubscription& self, PyPort& port_of, RequestId id,
                       std::optional<std::int64_t> timeout_us) {
        return port_of.run(
            id,
            [subscription = self.subscription, port = self.handled_by, number = self.number,
             timeout_us](Engine&) mutable {
              const bool ended =
                  subscription.close(timeout_us ? std::optional(Duration(*timeout_us)) : std::nullopt);
              if (port != nullptr) port->forget_events(number);
              return Result<bool>(ended);
            },
            true);
      });
}

}  // namespace

void define_events(py::module_& module, py::class_<PyPort>& port) {
  define_streams(port);
  define_following(port);
  define_subscription(module);
}

}  // namespace towline::python
