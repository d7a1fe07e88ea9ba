// The modes of ordinary work: workers, publishers, and who sends dead letters back. None of them knows when
// it will be killed.

#include <atomic>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <thread>

#include "faults/child.hpp"
#include "faults/script.hpp"

namespace towline::faults {
namespace {

class Worker {
 public:
  explicit Worker(const Orders& orders)
      : notes_(orders.folder, orders.name),
        work_us_(orders.number("work_us", 2000)),
        effects_(orders.number("effects", 0) != 0) {}

  void handle(Delivery& delivery) {
    const Item item = parse_item(delivery.payload());
    Note note{
        .at_us = monotonic_us(),
        .what = "start",
        .group = std::string(delivery.group()),
        .number = item.number,
        .attempt = delivery.attempt(),
        .redelivered = delivery.redelivered(),
        .text = item.key + " " + std::to_string(item.sequence) + " " + std::to_string(delivery.crashes())};
    notes_.note(note);
    // sleeps: this is the work
    if (work_us_ > 0) std::this_thread::sleep_for(std::chrono::microseconds(work_us_));
    if (item.kind == "abort") std::abort();
    const bool fails = (item.kind == "once" && delivery.attempt() == 1) ||
                       (item.kind == "always" && delivery.redrives() == 0) || item.kind == "permanent";
    const Result<void> booked = effects_ && !fails ? book_effect(delivery, item.number) : Result<void>();
    // Lost to somebody else: nothing to be done. Anything else must be tried again.
    const bool refused = !booked.ok() && booked.error().code == ErrorCode::kLeaseLost;
    note.what = refused ? "void" : fails || !booked.ok() ? "failed" : "done";
    note.at_us = monotonic_us();
    notes_.note(note);
    if (fails) throw HandlerError(item.kind == "permanent" ? "Permanent" : "Planned", "as planned");
    if (!booked.ok() && !refused) throw HandlerError("StoreUnavailable", booked.error().to_string());
  }

 private:
  Notebook notes_;
  const std::int64_t work_us_;
  const bool effects_;  ///< books an effect in the transaction of the acknowledgement
};

}  // namespace

int run_worker(const Orders& orders) {
  Worker worker(orders);
  Engine engine = open_engine(orders);
  Consumer consumer =
      engine.consume(kTopic, member_options(orders), [&](Delivery& delivery) { worker.handle(delivery); })
          .value();
  std::optional<Consumer> second;
  if (orders.options.contains("second")) {
    ConsumerOptions options = member_options(orders);
    options.group = orders.text("second", "");
    options.order = Order::kUnordered;
    second = engine.consume(kTopic, options, [&](Delivery& delivery) { worker.handle(delivery); }).value();
  }
  say("ready");
  wait_for_term();
  return engine.close(std::chrono::seconds(5)).value() == 0 ? 0 : 3;
}

/// Publishes the numbers from `from` to `to`, in calls of one and of `batch` in turn; a batch is one commit,
/// so after a kill all of it is there or none.
int run_publisher(const Orders& orders) {
  Notebook notes(orders.folder, orders.name);
  Engine engine = open_engine(orders);
  const std::int64_t to = orders.number("to", 0);
  const std::int64_t batch = orders.number("batch", 10);
  const std::int64_t key_count = orders.number("keys", 100);
  const std::string prefix = orders.text("key_prefix", "k");
  say("ready");
  const auto item_of = [&](std::int64_t number) {
    return Item{number, prefix + std::to_string(number % key_count), number, "ok"};
  };
  bool single = true;
  for (std::int64_t number = orders.number("from", 0); number < to; single = !single) {
    if (single) {
      (void)publish_noted(engine, notes, item_of(number++), {}, 200);
      continue;
    }
    std::vector<Message> messages;
    const std::int64_t first = number;
    for (; number < to && number < first + batch; ++number) {
      notes.note("invoke", number, "batch " + std::to_string(first));
      Message message;
      message.topic = kTopic;
      message.key = item_of(number).key;
      message.payload = to_payload(item_of(number), 200);
      messages.push_back(std::move(message));
    }
    const auto receipts = engine.publish_batch(std::move(messages)).value();
    for (std::size_t i = 0; i < receipts.size(); ++i) {
      const char* what = receipts[i].acked()                                ? "acked"
                         : receipts[i].outcome == PublishOutcome::kRejected ? "rejected"
                                                                            : "unknown";
      notes.note(what, first + static_cast<std::int64_t>(i), receipts[i].error.message);
    }
  }
  return engine.close().ok() ? 0 : 3;
}

/// Publishes of every kind, one at a time, from `from` until it is ended: plain ones of a few keys, some that
/// fail once or always, some delayed, some twice under an id that counts while the message is unfinished.
int run_mixed_publisher(const Orders& orders) {
  Notebook notes(orders.folder, orders.name);
  Engine engine = open_engine(orders);
  const std::int64_t key_count = orders.number("keys", 20);
  const std::string prefix = orders.text("key_prefix", "k");
  const auto pause = std::chrono::microseconds(orders.number("pause_us", 1000));
  say("ready");
  for (std::int64_t n = orders.number("from", 0);; ++n) {
    Item item{n, prefix + std::to_string(n % key_count), n, "ok"};
    if (n % 40 == 11) item.kind = "once";
    if (n % 150 == 77) item.kind = "always";
    Message message;
    if (n % 20 == 3) item = {n, "-", 100 + n % 7 * 50, n % 40 == 3 ? "later" : "twice"};
    if (item.key == "-") message.delay = std::chrono::milliseconds(item.sequence);
    if (item.kind == "twice") {
      message.dedup_id = "d" + std::to_string(n);
      message.dedup_mode = DedupMode::kWhileUnfinished;
    }
    const Receipt first = publish_noted(engine, notes, item, message, 150);
    if (item.kind == "twice" && first.acked()) {
      message.topic = kTopic;
      message.payload = to_payload(item, 150);
      const Receipt again = engine.publish(std::move(message));
      if (again.acked()) notes.note(again.duplicate && again.id == first.id ? "same" : "not_same", n);
    }
    std::this_thread::sleep_for(pause);  // sleeps: the pace of publishing
  }
}

int run_redrive(const Orders& orders) {
  Notebook notes(orders.folder, orders.name);
  Engine engine = open_engine(orders);
  DeadLetterQuery query;
  query.topic = kTopic;
  query.status = DeadLetterStatus::kPending;
  RedriveOptions options;
  options.rate_per_second = static_cast<std::uint32_t>(orders.number("rate", 0));
  say("ready");
  const auto report = engine.redrive_all(query, options);
  if (!report.ok()) throw Exception(report.error());
  notes.note("redriven", static_cast<std::int64_t>(report->redriven));
  return engine.close().ok() ? 0 : 3;
}

}  // namespace towline::faults
