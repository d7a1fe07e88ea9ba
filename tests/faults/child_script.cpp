// The mode `script`: runs script.hpp once, from making the store to closing it, and notes every answer. It
// goes on after an error, because the answers after it are judged too; options: trace=<file> records the
// disk, after=1 looks at the engine once more after an error.

#include <atomic>
#include <ctime>
#include <thread>

#include "faults/child.hpp"
#include "faults/script.hpp"
#include "faults/syscalls.hpp"
#include "support/eventually.hpp"

namespace towline::faults {
namespace {

using namespace std::chrono_literals;

class Script {
 public:
  explicit Script(const Orders& orders) : orders_(orders), notes_(orders.folder, orders.name) {}

  int run() {
    auto engine = open();
    if (!engine) return 0;
    note("opened", 0);
    publish(*engine);
    handle(*engine);
    change(*engine);
    if (orders_.number("after", 0) != 0) look_again(*engine);
    const auto closed = engine->close(struck_ ? 300ms : 5s);
    note(closed.ok() ? "closed" : "not_closed", 0, closed.ok() ? "" : closed.error().to_string());
    note("calls", static_cast<std::int64_t>(call_count()), has_struck() ? "struck" : "");
    return 0;
  }

 private:
  void note(const char* what, std::int64_t number, const std::string& text = {}) {
    const Note one{.at_us = monotonic_us(), .what = what, .number = number, .text = text};
    notes_.note(one);
    trace_note(to_line(one));
    if (std::string_view(what) == "gone" || std::string_view(what) == "dead") ++ended_;
    if (std::string_view(what) == "unsettled") failed_ = true;
  }
  static void note_of(void* self, const char* what, std::int64_t number, const std::string& text) {
    static_cast<Script*>(self)->note(what, number, text);
  }

  std::optional<Engine> open() {
    try {
      return open_engine(orders_);
    } catch (const Exception& error) {
      note("not_opened", 0, error.what());
      return std::nullopt;
    }
  }

  void answer(std::int64_t number, const Receipt& receipt) {
    note(receipt.acked()                                ? "acked"
         : receipt.outcome == PublishOutcome::kRejected ? "rejected"
                                                        : "unknown",
         number, receipt.error.message);
    if (!receipt.acked()) failed_ = true;
    if (receipt.acked() && number == kFarCancelled) far_ = receipt.id;
  }

  static Message message_of(const Item& item) {
    Message message;
    message.topic = kTopic;
    message.key = item.key;
    message.payload = to_payload(item, 300);
    if (item.number == 20) message.delay = 30ms;
    if (item.kind == "far") message.delay = 1h;
    if (item.number == kTwice) message.dedup_id = "twice";
    return message;
  }

  void publish_batch(Engine& engine, std::vector<Message> batch) {
    const auto receipts = engine.publish_batch(std::move(batch));
    for (std::int64_t n = kBatchFirst; n <= kBatchLast; ++n) {
      // An error of the whole call comes before anything was tried.
      if (receipts.ok()) {
        answer(n, (*receipts)[static_cast<std::size_t>(n - kBatchFirst)]);
      } else {
        note("rejected", n, receipts.error().to_string());
        failed_ = true;
      }
    }
  }

  void publish(Engine& engine) {
    std::vector<Message> batch;
    for (const Item& item : script_items()) {
      note("invoke", item.number, item.kind);
      if (item.number >= kBatchFirst && item.number <= kBatchLast) {
        batch.push_back(message_of(item));
        if (item.number < kBatchLast) continue;
        publish_batch(engine, std::move(batch));
        continue;
      }
      answer(item.number, engine.publish(message_of(item)));
      if (item.number == kTwice) answer(item.number, engine.publish(message_of(item)));
    }
    if (far_.empty()) return;
    note("cancelling", kFarCancelled);
    const auto cancelled = engine.cancel(far_);
    if (cancelled.ok() && *cancelled == ScheduleAnswer::kDone) note("cancelled", kFarCancelled);
  }

  /// Nothing more comes: a call has failed, or the engine says that it cannot go on.
  bool over(Engine& engine) { return failed_.load() || !engine.health().ok; }

  void handle(Engine& engine) {
    ConsumerOptions member = member_options(orders_);
    member.ack = AckPolicy::kManual;
    auto consumer = engine.consume(
        kTopic, member, [this](Delivery& delivery) { handle_script_item(delivery, note_of, this); });
    if (!consumer.ok()) {
      note("not_consumed", 0, consumer.error().to_string());
      failed_ = true;
      return;
    }
    consumer_ = std::move(*consumer);
    const std::size_t all = script_items().size() - 2;  // without the two that are due in an hour
    (void)support::eventually([&] { return over(engine) || ended_.load() >= all; }, 5s);
  }

  void change(Engine& engine) {
    const auto run = engine.once("key", [] { return Bytes("result"); });
    note(run.ok() ? "once" : "not_once", 0, run.ok() ? "" : run.error().to_string());
    DeadLetterQuery query;
    query.status = DeadLetterStatus::kPending;
    const auto page = engine.dead_letters(query);
    if (!page.ok()) return;
    for (const DeadLetter& entry : page->items) {
      if (parse_item(entry.payload).number != kRedriven) continue;
      note("redriving", kRedriven);
      const std::size_t before = ended_.load();
      if (engine.redrive(entry.id).ok()) {
        note("redriven", kRedriven);
        (void)support::eventually([&] { return over(engine) || ended_.load() > before; }, 2s);
      }
    }
  }

  /// After a disk error the engine has stopped: calls answer at once, with an error, and nothing spins.
  void look_again(Engine& engine) {
    const auto linger = std::chrono::milliseconds(orders_.number("linger_ms", 0));
    (void)support::eventually([] { return has_struck(); }, linger);
    if (!has_struck()) return;
    struck_ = true;
    note("struck", 0, struck_file());
    // Whoever was struck, such as the thread that empties the log, has to tell it first.
    (void)support::eventually([&] { return !engine.health().ok; }, 2s);
    set_plan({});
    const support::Stopwatch watch;
    for (int i = 0; i < 3; ++i) {
      const Receipt receipt =
          engine.publish({.topic = kTopic, .payload = to_payload({900 + i, "-", 0, "ok"})});
      note(receipt.acked() ? "after_acked" : "after_refused", 900 + i, receipt.error.to_string());
    }
    note("after_us", watch.elapsed().count());
    const std::clock_t before = std::clock();
    std::this_thread::sleep_for(300ms);  // sleeps: measures what an idle engine costs
    note("idle_cpu_us", (std::clock() - before) * 1'000'000 / CLOCKS_PER_SEC);
  }

  const Orders& orders_;
  Notebook notes_;
  std::optional<Consumer> consumer_;
  MessageId far_;
  std::atomic<std::size_t> ended_{0};
  std::atomic<bool> failed_{false};
  bool struck_ = false;
};

}  // namespace

int run_script(const Orders& orders) {
  if (orders.options.contains("trace")) set_trace(orders.text("store", "/"), orders.text("trace", ""));
  return Script(orders).run();
}

}  // namespace towline::faults
