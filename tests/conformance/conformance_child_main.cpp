// The process that the kill tests start, kill and start again: conformance_child <mode> <url> <ledger>.
// Modes:
//
//   ack          acknowledges one message, notes it and dies at once
//   work         handles "orders"; dies in the handler of every message whose payload begins with "kill"
//   redrive      redrives all dead letters of "orders" until it is killed or done
//   fire         fires what is due, and handles nothing, until it is killed
//   once         runs the key "charge" and dies inside, unless the ledger says that it was run before
//   transaction  handles "effects" with an SQL effect; dies once at the point that the payload names
//   close        closes the engine inside a handler and exits
//   exit         ends with an open engine, and calls a closed one while it ends
//   echo         answers each message of "ping" by one to the topic that its payload names, until it is
//   killed fork         forks with an open engine; child and parent both look at what it answers then
//
//   saga         runs one saga to its end; a fourth argument says at which point it dies
//
// It prints "ready" when it has begun. Exit code 0: done; 3: a call failed.

#include <atomic>
#include <cstdio>
#include <string>
#include <string_view>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <towline/towline.hpp>

#include "support/child_process.hpp"
#include "support/eventually.hpp"
#include "support/ledger.hpp"

namespace {

using namespace towline;
using namespace std::chrono_literals;
using support::eventually;
using support::Ledger;

[[noreturn]] void die() {
  ::kill(::getpid(), SIGKILL);
  for (;;)
    ::pause();
}

void say(const char* line) {
  std::puts(line);
  std::fflush(stdout);
}

Engine open(const std::string& url) {
  EngineOptions options;
  options.lease = 200ms * support::slack();
  options.sweep_interval = 50ms;
  return Engine::open(url, options).value();
}

ConsumerOptions member() {
  ConsumerOptions options;
  options.group = "group";
  options.retry.kind = BackoffKind::kFixed;
  options.retry.initial_delay = 20ms;
  options.retry.jitter = JitterKind::kNone;
  options.breaker.enabled = false;
  return options;
}

std::string describe(const Delivery& delivery) {
  return std::string(delivery.payload()) + " attempt " + std::to_string(delivery.attempt()) + " crashes " +
         std::to_string(delivery.crashes()) + (delivery.redelivered() ? " again" : " first");
}

/// Waits until somebody ends this process.
void wait_for_ever() {
  for (;;)
    ::pause();
}

int ack(const std::string& url, Ledger& ledger) {
  Engine engine = open(url);
  ConsumerOptions options = member();
  options.ack = AckPolicy::kManual;
  say("ready");  // a handler may be its end
  Consumer consumer = engine
                          .consume("orders", options,
                                   [&](Delivery& delivery) {
                                     delivery.ack(true).value();
                                     ledger.append("acked " + std::string(delivery.payload()));
                                     die();
                                   })
                          .value();
  wait_for_ever();
  return 0;
}

int work(const std::string& url, Ledger& ledger) {
  Engine engine = open(url);
  ConsumerOptions options = member();
  options.prefetch_count = 10;
  say("ready");  // a handler may be its end
  Consumer consumer = engine
                          .consume("orders", options,
                                   [&](Delivery& delivery) {
                                     ledger.append("start " + describe(delivery));
                                     if (delivery.payload().starts_with("kill")) die();
                                     ledger.append("done " + describe(delivery));
                                   })
                          .value();
  wait_for_ever();
  return 0;
}

int redrive(const std::string& url, Ledger& ledger) {
  Engine engine = open(url);
  DeadLetterQuery query;
  query.topic = "orders";
  say("ready");
  const RedriveReport report = engine.redrive_all(query).value();
  ledger.append("redriven " + std::to_string(report.redriven));
  return 0;
}

int fire(const std::string& url) {
  Engine engine = open(url);
  say("ready");
  wait_for_ever();
  return 0;
}

int once(const std::string& url, Ledger& ledger) {
  Engine engine = open(url);
  IdempotencyOptions options;
  options.lease = 200ms * support::slack();
  options.wait_max = 10s * support::slack();
  say("ready");
  const IdempotencyResult result = engine
                                       .once(
                                           "charge",
                                           [&]() -> Bytes {
                                             const bool first = ledger.lines().empty();
                                             ledger.append("run");
                                             if (first) die();
                                             return "charged";
                                           },
                                           options)
                                       .value();
  ledger.append("result " + result.bytes);
  return 0;
}

/// Dies when the message's payload names this point and it is the first time.
void point(Ledger& ledger, const Delivery& delivery, std::string_view name) {
  const std::string payload(delivery.payload());
  if (payload.substr(payload.find(' ') + 1) != name) return;
  if (ledger.count("died " + payload + ".") > 0) return;
  ledger.append("died " + payload + ".");
  die();
}

int transaction(const std::string& url, Ledger& ledger) {
  Engine engine = open(url);
  ConsumerOptions options = member();
  options.ack = AckPolicy::kManual;
  say("ready");  // a handler may be its end
  Consumer consumer =
      engine
          .consume(
              "effects", options,
              [&](Delivery& delivery) {
                point(ledger, delivery, "begin");
                delivery
                    .transaction([&](SqlTransaction& sql) -> Result<void> {
                      const SqlTransaction::Value key = std::string(delivery.payload());
                      (void)sql.execute("INSERT INTO effect(name) VALUES (?1)", std::span(&key, 1)).value();
                      point(ledger, delivery, "effect");
                      (void)sql.publish({.topic = "follow-ups", .payload = std::string(delivery.payload())})
                          .value();
                      point(ledger, delivery, "publish");
                      sql.complete("effects", delivery.payload(), "stored").value();
                      point(ledger, delivery, "complete");
                      return {};
                    })
                    .value();
                point(ledger, delivery, "end");
                ledger.append("handled " + std::string(delivery.payload()));
              })
          .value();
  wait_for_ever();
  return 0;
}

int close_inside(const std::string& url, Ledger& ledger) {
  Engine engine = open(url);
  std::atomic<bool> closed{false};
  Consumer consumer = engine
                          .consume("orders", member(),
                                   [&](Delivery& delivery) {
                                     const support::Stopwatch watch;
                                     (void)engine.close().value();
                                     ledger.append("closed after " + std::to_string(watch.elapsed().count()) +
                                                   " us: " + describe(delivery));
                                     closed = true;
                                   })
                          .value();
  say("ready");
  return eventually([&] { return closed.load(); }, 20s) ? 0 : 3;
}

/// This program may go on in a forked child, because that is what it is for; it calls nothing there but the
/// engine.
int fork_open_engine(const std::string& url, Ledger& ledger) {
  Engine engine = open(url);
  std::atomic<int> handled{0};
  Consumer consumer = engine.consume("orders", member(), [&](Delivery&) { ++handled; }).value();
  say("ready");
  for (int round = 0; round < 10; ++round) {
    (void)engine.publish({.topic = "orders", .payload = "before"}).value();
    const pid_t child = ::fork();
    if (child == 0) {
      const auto is_forked = [](const auto& result) {
        return !result.ok() && result.error().code == ErrorCode::kForked;
      };
      int wrong = 0;
      if (engine.publish({.topic = "orders", .payload = "never"}).error.code != ErrorCode::kForked)
        wrong = 10;
      if (!is_forked(engine.statistics())) wrong = 11;
      if (!is_forked(engine.backlog())) wrong = 12;
      if (!is_forked(engine.begin("key"))) wrong = 13;
      if (!is_forked(consumer.pause())) wrong = 14;
      if (!is_forked(consumer.drain(1s))) wrong = 15;
      if (!is_forked(consumer.close())) wrong = 16;
      if (!is_forked(engine.close())) wrong = 17;
      {
        // Dropping the handles joins nothing, closes nothing and writes nothing.
        Consumer last_consumer = std::move(consumer);
        Engine last_engine = std::move(engine);
      }
      ::_exit(wrong);
    }
    int state = 0;
    if (::waitpid(child, &state, 0) != child || !WIFEXITED(state) || WEXITSTATUS(state) != 0) {
      ledger.append("child " + std::to_string(WEXITSTATUS(state)) + " " + std::to_string(state));
      return 3;
    }
    (void)engine.publish({.topic = "orders", .payload = "after"}).value();
  }
  if (!eventually([&] { return handled == 20; })) return 5;
  ledger.append("handled " + std::to_string(handled.load()));
  return engine.close().ok() ? 0 : 6;
}

/// Ends the program while one engine is open and handles messages, and another one is used after its closing.
int end_program(const std::string& url) {
  static std::atomic<int> handled{0};
  static Engine left_open = open(url);
  static Consumer left_consuming =
      left_open.consume("orders", member(), [](Delivery&) { ++handled; }).value();
  static Engine closed = open(url);
  if (!closed.close().ok()) return 4;
  const auto at_end = [] {
    const Receipt receipt = closed.publish({.topic = "orders", .payload = "never"});
    say(receipt.error.code == ErrorCode::kClosed ? "closed" : receipt.error.to_string().c_str());
  };
  if (std::atexit(at_end) != 0) return 5;
  (void)left_open.publish({.topic = "orders", .payload = "p"}).value();
  if (!eventually([] { return handled == 1; }, 20s)) return 6;
  say("ready");
  return 0;
}

int echo(const std::string& url) {
  Engine engine = open(url);
  const auto answer = [&](Delivery& delivery) {
    (void)engine.publish({.topic = std::string(delivery.payload()), .payload = "pong"}).value();
  };
  Consumer consumer = engine.consume("ping", member(), answer).value();
  say("ready");
  wait_for_ever();
  return 0;
}

/// The saga "o" of four steps, of which the last fails for good. Each effect is there once; at the n-th point
/// before or after one it dies.
int saga(const std::string& url, Ledger& ledger, int dies_at) {
  Engine engine = open(url);
  std::atomic<int> points{0};
  const auto point = [&] {
    if (++points == dies_at) die();
  };
  const auto effect = [&](SagaCall& call) {
    point();
    if (ledger.count(call.key()) == 0) ledger.append(call.key());
    point();
  };
  Saga order("order");
  for (const char* name : {"a", "b", "c"})
    order.step(name, effect, effect);
  const auto fails = [&](SagaCall& call) {
    effect(call);
    throw HandlerError("Never");
  };
  SagaStepOptions options;
  options.classify.permanent_types = {"Never"};
  order.step("d", fails, effect, options);
  const auto runner = engine.sagas().run(order).value();
  engine.sagas().start(order, "o", "").value();
  const SagaResult result = engine.sagas().result("order", "o", 20s * support::slack()).value();
  ledger.append(name_of(result.saga.status));
  engine.close().value();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  support::die_with_parent();
  if (argc == 5 && argv[1] == std::string_view("saga")) {
    Ledger ledger(argv[3]);
    try {
      return saga(argv[2], ledger, std::atoi(argv[4]));
    } catch (const std::exception& error) {
      std::fprintf(stderr, "conformance_child saga: %s\n", error.what());
      return 3;
    }
  }
  if (argc != 4) return 2;
  const std::string mode = argv[1];
  const std::string url = argv[2];
  Ledger ledger(argv[3]);
  try {
    if (mode == "ack") return ack(url, ledger);
    if (mode == "work") return work(url, ledger);
    if (mode == "redrive") return redrive(url, ledger);
    if (mode == "fire") return fire(url);
    if (mode == "once") return once(url, ledger);
    if (mode == "transaction") return transaction(url, ledger);
    if (mode == "fork") return fork_open_engine(url, ledger);
    if (mode == "exit") return end_program(url);
    if (mode == "echo") return echo(url);
    if (mode == "close") return close_inside(url, ledger);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "conformance_child %s: %s\n", mode.c_str(), error.what());
    return 3;
  }
  return 2;
}
