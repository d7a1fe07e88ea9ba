// A worker in C++; workers/worker.py and workers/worker.mjs are the same in their languages. For every
// delivery: the start is written to the ledger, the handler works for a moment, then it books the order in
// one transaction with the acknowledgement, and only after that transaction has committed the effect is
// written to the ledger. Orders that have a saga start it before they are booked. Handlers that must fail do
// so either before the transaction or inside it, after the row was inserted; then the row must not be there
// afterwards.

#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "effects.hpp"
#include "ledger.hpp"
#include "orders.hpp"
#include "plan.hpp"
#include "roles.hpp"
#include "saga_steps.hpp"

namespace towline::demo {
namespace {

std::uint32_t number_of(const Delivery& delivery, std::string_view header) {
  const auto text = delivery.header(header);
  std::uint32_t number = 0;
  if (!text || std::from_chars(text->data(), text->data() + text->size(), number).ec != std::errc{}) {
    throw HandlerError("OrderUnreadable",
                       "the header \"" + std::string(header) + "\" is missing or no number");
  }
  return number;
}

class Worker {
 public:
  Worker(const WorkerOptions& options, Ledger ledger)
      : options_(options), ledger_(std::move(ledger)), steps_(options_, ledger_), saga_(steps_.saga()) {}
  void handle(Engine& engine, Delivery& delivery) const;
  [[nodiscard]] const Saga& saga() const { return saga_; }

 private:
  void start_saga(Engine& engine, const Delivery& delivery, std::uint32_t number) const;
  [[nodiscard]] std::vector<SqlTransaction::Value> row_of(const Delivery& delivery,
                                                          std::uint32_t number) const;
  void book(Delivery& delivery, std::uint32_t number, bool must_fail) const;
  void note(What what, const Delivery& delivery, std::uint32_t number, std::string text = {}) const;

  WorkerOptions options_;
  Ledger ledger_;
  SagaSteps steps_;
  Saga saga_;
};

void Worker::note(What what, const Delivery& delivery, std::uint32_t number, std::string text) const {
  Record record{.what = what, .number = number, .at_us = wall_us(), .attempt = delivery.attempt()};
  if (what == What::kStart) {
    record.crashes = delivery.crashes();
    record.redelivered = delivery.redelivered();
    record.payload_hash = hash_of(delivery.payload());
  }
  record.text = std::move(text);
  ledger_.append(record);
}

/// Before the order is booked: a process that dies in between leaves the message, and so the start is
/// repeated, which changes nothing.
void Worker::start_saga(Engine& engine, const Delivery& delivery, std::uint32_t number) const {
  const auto context = delivery.header(kSagaHeader);
  if (!context) return;
  const auto started = engine.sagas().start(saga_, std::to_string(number), Bytes(*context));
  if (!started.ok()) {
    note(What::kTrouble, delivery, number, started.error().to_string());
    throw HandlerError("StoreUnavailable", started.error().to_string());
  }
  ledger_.append({.what = What::kSaga,
                  .number = number,
                  .at_us = wall_us(),
                  .attempt = delivery.attempt(),
                  .duplicate = !started->is_new});
}

std::vector<SqlTransaction::Value> Worker::row_of(const Delivery& delivery, std::uint32_t number) const {
  const auto order = nlohmann::json::parse(delivery.payload());
  const auto name = [&](const char* first, const char* second) {
    const auto& value = order.contains(first) ? order.at(first) : order.at(second);
    return value.is_string() ? value.get<std::string>() : value.dump();
  };
  return {std::int64_t{number},
          name("order_id", "id"),
          name("customer_id", "customer"),
          order.value("total_cents", std::int64_t{0}),
          std::int64_t{delivery.attempt()},
          hash_of(delivery.payload()),
          options_.name,
          wall_us()};
}

void Worker::book(Delivery& delivery, std::uint32_t number, bool must_fail) const {
  const auto row = row_of(delivery, number);
  const auto booked = delivery.transaction([&](SqlTransaction& sql) -> Result<void> {
    auto inserted = sql.execute(kInsertEffect, row);
    if (!inserted.ok()) return inserted.error();
    if (must_fail)
      return Error{ErrorCode::kHandlerFailed, "the payment was declined after the order was booked"};
    return {};
  });
  if (booked.ok()) {
    note(must_fail ? What::kTrouble : What::kEffect, delivery, number,
         must_fail ? "a failed body was committed" : "");
    return;
  }
  if (booked.error().code == ErrorCode::kLeaseLost || booked.error().code == ErrorCode::kClosed) {
    note(What::kVoid, delivery, number, booked.error().to_string());
    return;
  }
  if (must_fail && booked.error().code == ErrorCode::kHandlerFailed) {
    note(What::kFail, delivery, number, "inside the transaction");
    throw HandlerError("PaymentConnectionLost", booked.error().message);
  }
  note(What::kTrouble, delivery, number, booked.error().to_string());
  throw HandlerError("StoreUnavailable", booked.error().to_string());
}

void Worker::handle(Engine& engine, Delivery& delivery) const {
  const auto number = number_of(delivery, kNumberHeader);
  const bool must_fail = delivery.attempt() <= number_of(delivery, kFailuresHeader);
  note(What::kStart, delivery, number);
  pretend_to_work(options_, number, delivery.attempt());
  if (must_fail && number % 2 == 0) {
    note(What::kFail, delivery, number, "before the transaction");
    throw HandlerError("PaymentConnectionLost", "the payment service did not answer");
  }
  start_saga(engine, delivery, number);
  book(delivery, number, must_fail);
}

ConsumerOptions consumer_options(const WorkerOptions& options) {
  ConsumerOptions consumer;
  consumer.group = options.group;
  consumer.name = options.name;
  consumer.concurrency = options.concurrency;
  consumer.order = towline::Order::kKeyOrdered;
  consumer.on_key_failure = KeyFailure::kBlockKey;
  consumer.handler_timeout = std::chrono::seconds(20);
  consumer.retry.max_attempts = options.attempts;
  consumer.retry.initial_delay = std::chrono::milliseconds(options.retry_ms);
  consumer.retry.delay_max = std::chrono::milliseconds(options.retry_max_ms);
  // The planned failures are the orders' and not the payment service's: intake must not pause for them.
  consumer.breaker.enabled = false;
  // An order may be in the hands of every worker that is killed and still must not count as the killer.
  consumer.dead_letters.max_crashes = 20;
  return consumer;
}

int fail(const Error& error) {
  std::fprintf(stderr, "%s\n", error.to_string().c_str());
  return 1;
}

}  // namespace

void pretend_to_work(const WorkerOptions& options, std::uint32_t number, std::uint32_t attempt) {
  if (options.work_ms == 0) return;
  Random random(options.seed + number * 131ULL + attempt);
  const auto us = options.work_ms * 500 + static_cast<std::int64_t>(random.below(options.work_ms * 1000ULL));
  // sleeps: this is the work
  std::this_thread::sleep_for(std::chrono::microseconds(us));
}

int run_worker(const WorkerOptions& options) {
  // Blocked before the engine starts its threads, so that they inherit it and sigwait below is the one who
  // sees it.
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);

  auto ledger = Ledger::create(options.ledger);
  if (!ledger.ok()) return fail(ledger.error());
  Worker worker(options, std::move(*ledger));
  auto engine = open_engine(options.store, options.name, std::chrono::milliseconds(options.lease_ms));
  if (!engine.ok()) return fail(engine.error());
  const auto runner = engine->sagas().run(worker.saga());
  if (!runner.ok()) return fail(runner.error());
  auto consumer = engine->consume(options.topic, consumer_options(options),
                                  [&](Delivery& delivery) { worker.handle(*engine, delivery); });
  if (!consumer.ok()) return fail(consumer.error());

  int signal = 0;
  sigwait(&stop, &signal);
  auto closed = engine->close(std::chrono::seconds(5));
  if (!closed.ok()) return fail(closed.error());
  if (*closed != 0)
    return fail({ErrorCode::kTimeout, std::to_string(*closed) + " handlers did not end in time"});
  return 0;
}

}  // namespace towline::demo
