// Port; see the header. The order of shutting down: the engine (its handlers are told to stop, its threads
// end), the publishes that wait, the calls that wait, and the mailbox last, so that every request was
// answered before nothing can be put in any more. Handlers of events are let go first: nobody answers them.

#include <condition_variable>
#include <map>
#include <mutex>
#include <utility>

#include <towline/port.hpp>

#include "port/callers.hpp"
#include "port/event_desk.hpp"
#include "port/mailbox.hpp"
#include "port/publish_lane.hpp"

namespace towline {
namespace {

/// How often a waiting caller is asked whether it was interrupted.
constexpr auto kSlice = std::chrono::milliseconds(50);

/// What a caller waits for who may leave before it is there.
struct Waited {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  std::unique_ptr<Reply> reply;
};

void put_reply(port::Mailbox& mailbox, std::uint64_t id, std::unique_ptr<Reply> reply,
               std::optional<Error> error) {
  Event event;
  event.kind = Event::Kind::kReply;
  event.id = id;
  event.reply = std::move(reply);
  if (error) event.error = std::make_unique<Error>(std::move(*error));
  mailbox.put(std::move(event));
}

}  // namespace

struct Port::State {
  explicit State(PortOptions given)
      : options(std::move(given)),
        mailbox(std::make_shared<port::Mailbox>(options.ring, options.log_count_max)),
        desk(std::make_shared<port::EventDesk>(mailbox)),
        callers(options.thread_count_max, options.request_count_max) {}

  const PortOptions options;
  const std::shared_ptr<port::Mailbox> mailbox;
  const std::shared_ptr<port::EventDesk> desk;
  port::Callers callers;
  mutable std::mutex mutex;
  Engine engine;
  std::shared_ptr<port::PublishLane> publish_lane;
  std::map<std::uint64_t, std::shared_ptr<Consumer>> consumers;
  std::map<std::uint64_t, EventSubscription> subscriptions;
  bool is_open = false, is_shut = false;
};

Port::Port(PortOptions options) : state_(std::make_unique<State>(std::move(options))) {}

Port::~Port() { shut(); }

Result<void> Port::open(std::string_view url, EngineOptions options) {
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->is_shut) return Error{ErrorCode::kClosed, "the port is shut"};
    if (std::exchange(state_->is_open, true))
      return Error{ErrorCode::kInvalidArgument, "the port has opened its engine already; make another port"};
  }
  if (state_->options.log_level) {
    options.log = [mailbox = state_->mailbox, least = *state_->options.log_level](const LogRecord& record) {
      if (record.level >= least) mailbox->put_log(record);
    };
  }
  options.on_alert = [mailbox = state_->mailbox](const Alert& alert) {
    Event event;
    event.kind = Event::Kind::kAlert;
    event.alert = std::make_unique<Alert>(alert);
    mailbox->put(std::move(event));
  };
  const auto batch_count_max = static_cast<std::size_t>(options.batch_count_max);
  auto engine = Engine::open(url, std::move(options));
  const std::lock_guard lock(state_->mutex);
  if (!engine) {
    state_->is_open = false;
    return std::move(engine).error();
  }
  if (state_->is_shut) return Error{ErrorCode::kClosed, "the port was shut meanwhile"};
  state_->engine = *engine;
  state_->publish_lane = std::make_shared<port::PublishLane>(
      std::move(*engine), batch_count_max, state_->options.request_count_max,
      [mailbox = state_->mailbox](std::uint64_t id, Result<std::vector<Receipt>> receipts) {
        Event event;
        event.kind = Event::Kind::kReceipts;
        event.id = id;
        if (receipts) {
          event.receipts = std::move(*receipts);
        } else {
          event.error = std::make_unique<Error>(std::move(receipts).error());
        }
        mailbox->put(std::move(event));
      });
  return {};
}

Engine Port::engine() const {
  const std::lock_guard lock(state_->mutex);
  return state_->engine;
}

void Port::call(std::uint64_t id, std::function<std::unique_ptr<Reply>(Engine&)> work, bool urgent) {
  auto refused = state_->callers.run(
      [this, id, work = std::move(work)](port::Callers::Turn& turn) {
        Engine used = engine();
        std::unique_ptr<Reply> reply = work(used);
        turn.over();
        put_reply(*state_->mailbox, id, std::move(reply), std::nullopt);
      },
      urgent);
  if (!refused) put_reply(*state_->mailbox, id, nullptr, std::move(refused).error());
}

Result<std::unique_ptr<Reply>> Port::wait(std::function<std::unique_ptr<Reply>(Engine&)> work,
                                          const std::function<bool()>& is_interrupted, bool urgent) {
  auto waited = std::make_shared<Waited>();
  auto refused = state_->callers.run(
      [this, waited, work = std::move(work)](port::Callers::Turn& turn) {
        Engine used = engine();
        std::unique_ptr<Reply> reply = work(used);
        turn.over();
        {
          const std::lock_guard lock(waited->mutex);
          waited->reply = std::move(reply);
          waited->done = true;
        }
        waited->changed.notify_all();
      },
      urgent);
  if (!refused) return std::move(refused).error();
  std::unique_lock lock(waited->mutex);
  while (!waited->changed.wait_for(lock, kSlice, [&] { return waited->done; })) {
    lock.unlock();
    if (is_interrupted && is_interrupted())
      return Error{ErrorCode::kCancelled, "the caller was interrupted; the call goes on without it"};
    lock.lock();
  }
  return std::move(waited->reply);
}

void Port::publish(std::uint64_t id, std::vector<Message> messages) {
  std::shared_ptr<port::PublishLane> lane;
  {
    const std::lock_guard lock(state_->mutex);
    lane = state_->publish_lane;
  }
  if (lane) return lane->publish(id, std::move(messages));
  Event event;
  event.kind = Event::Kind::kReceipts;
  event.id = id;
  event.error = std::make_unique<Error>(ErrorCode::kClosed, "the engine is not open");
  state_->mailbox->put(std::move(event));
}

Result<PortConsumer> Port::consume(std::uint64_t consumer_id, const std::vector<std::string>& patterns,
                                   const ConsumerOptions& options, bool in_batches) {
  RemoteHandler handler;
  handler.in_batches = in_batches;
  handler.deliver = [mailbox = state_->mailbox, consumer_id, in_batches](std::span<Delivery> deliveries) {
    mailbox->deliver(consumer_id, deliveries, in_batches);
  };
  handler.stop = [mailbox = state_->mailbox](const Delivery& delivery) { mailbox->stop(delivery); };
  auto consumer = engine().consume_remote(patterns, options, std::move(handler));
  if (!consumer) return std::move(consumer).error();
  const std::lock_guard lock(state_->mutex);
  if (state_->is_shut) return Error{ErrorCode::kClosed, "the port was shut meanwhile"};
  std::erase_if(state_->consumers, [](const auto& known) { return known.second->closed(); });
  const auto kept = std::make_shared<Consumer>(std::move(*consumer));
  state_->consumers.insert_or_assign(consumer_id, kept);
  return PortConsumer(kept);
}

void Port::finish(std::span<Finish> finished) {
  std::vector<Finished> taken = state_->mailbox->take(finished);
  Engine::finish(taken);
}

Result<EventSubscription> Port::follow_events(std::uint64_t subscription_id,
                                              const EventSubscriptionOptions& options) {
  auto subscription = engine().event_store().subscribe(options, state_->desk->handler(subscription_id));
  if (!subscription) {
    state_->desk->leave(subscription_id);
    return subscription;
  }
  const std::lock_guard lock(state_->mutex);
  if (state_->is_shut) return Error{ErrorCode::kClosed, "the port was shut meanwhile"};
  state_->subscriptions.insert_or_assign(subscription_id, *subscription);
  return subscription;
}

void Port::finish_events(std::uint64_t subscription_id, std::optional<ErrorInfo> error) {
  state_->desk->finish(subscription_id, std::move(error));
}

void Port::forget_events(std::uint64_t subscription_id) {
  state_->desk->leave(subscription_id);
  EventSubscription forgotten;  // goes without the lock: it may be the last handle, which waits
  const std::lock_guard lock(state_->mutex);
  const auto found = state_->subscriptions.find(subscription_id);
  if (found == state_->subscriptions.end()) return;
  forgotten = std::move(found->second);
  state_->subscriptions.erase(found);
}

std::vector<Event> Port::drain(std::size_t count_max) { return state_->mailbox->drain(count_max); }
bool Port::poll(Duration timeout) { return state_->mailbox->poll(timeout); }
std::size_t Port::open_count() const { return state_->mailbox->open_count(); }

void Port::shut() {
  {
    const std::lock_guard lock(state_->mutex);
    if (std::exchange(state_->is_shut, true)) return;
  }
  state_->desk->shut();
  (void)engine().close();
  if (state_->publish_lane) state_->publish_lane->shut();
  state_->callers.shut();
  state_->mailbox->shut();
  // With the last handles the store goes, and not only when somebody frees the port.
  std::map<std::uint64_t, std::shared_ptr<Consumer>> consumers;
  std::map<std::uint64_t, EventSubscription> subscriptions;
  const std::lock_guard lock(state_->mutex);
  consumers.swap(state_->consumers);
  subscriptions.swap(state_->subscriptions);
  state_->publish_lane.reset();
  state_->engine = {};
}

// ---- PortConsumer -------------------------------------------------------------------------------

namespace {

Error consumer_gone() { return {ErrorCode::kClosed, "the consumer is closed"}; }

}  // namespace

Result<void> PortConsumer::pause() {
  const auto consumer = consumer_.lock();
  return consumer ? consumer->pause() : consumer_gone();
}

Result<void> PortConsumer::resume() {
  const auto consumer = consumer_.lock();
  return consumer ? consumer->resume() : consumer_gone();
}

Result<void> PortConsumer::drain(Duration timeout) {
  const auto consumer = consumer_.lock();
  return consumer ? consumer->drain(timeout) : consumer_gone();
}

Result<void> PortConsumer::set_concurrency(std::int64_t concurrency) {
  const auto consumer = consumer_.lock();
  return consumer ? consumer->set_concurrency(concurrency) : consumer_gone();
}

Result<ConsumerStatistics> PortConsumer::statistics() const {
  const auto consumer = consumer_.lock();
  if (!consumer) return consumer_gone();
  return consumer->statistics();
}

Result<std::uint64_t> PortConsumer::close(std::optional<Duration> timeout) {
  const auto consumer = consumer_.lock();
  return consumer ? consumer->close(timeout) : std::uint64_t{0};
}

}  // namespace towline
