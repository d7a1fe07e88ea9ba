// The modes of the race for idempotency keys: all threads of all processes want the same key at the same
// moment, and are killed at any moment.

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "faults/child.hpp"

namespace towline::faults {
namespace {

using namespace std::chrono_literals;

/// Asks for the keys one after the other, each as soon as it opens, until it has the result of it.
class Racer {
 public:
  Racer(const Orders& orders, Engine& engine, Notebook& notes, std::atomic<bool>& stop, std::int64_t index)
      : orders_(orders),
        engine_(engine),
        notes_(notes),
        stop_(stop),
        name_(orders.name + "/" + std::to_string(index)) {
    options_.lease = std::chrono::milliseconds(orders.number("lease_ms", 500));
    options_.wait_max = 100ms;
  }
  void race() {
    const std::int64_t interval_us = orders_.number("interval_us", 0);
    const std::int64_t opens_us = orders_.number("opens_us", 0);
    const std::int64_t now = (monotonic_us() - opens_us) / interval_us;
    // Who comes later need not ask for what everybody has had.
    for (std::int64_t key = std::max<std::int64_t>(0, now - 100); key < orders_.number("keys", 0); ++key) {
      const std::int64_t early_us = opens_us + key * interval_us - monotonic_us();
      // sleeps: until the key opens, for all at once
      if (early_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(early_us));
      while (!stop_ && !has_result(key)) {
      }
    }
  }

 private:
  bool has_result(std::int64_t key) {
    std::string run;
    const auto result = engine_.once(
        "key-" + std::to_string(key),
        [&] {
          run = name_ + "#" + std::to_string(++runs_);
          notes_.note("run", key, run);
          // sleeps: this is the work
          std::this_thread::sleep_for(std::chrono::microseconds(orders_.number("work_us", 5000)));
          return Bytes(run);
        },
        options_);
    if (result.ok()) {
      notes_.note("got", key, result->bytes);
      return true;
    }
    const ErrorCode code = result.error().code;
    if (code == ErrorCode::kLeaseLost) notes_.note("late", key, run);
    if (code != ErrorCode::kLeaseLost && code != ErrorCode::kInProgress)
      notes_.note("trouble", key, result.error().to_string());
    return false;
  }

  const Orders& orders_;
  Engine& engine_;
  Notebook& notes_;
  std::atomic<bool>& stop_;
  const std::string name_;
  IdempotencyOptions options_;
  std::int64_t runs_ = 0;
};

}  // namespace

/// Each of `threads` threads wants the result of each of `keys` keys; key n opens n * `interval_us` after
/// `opens_us`.
int run_racers(const Orders& orders) {
  Notebook notes(orders.folder, orders.name);
  Engine engine = open_engine(orders);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (std::int64_t i = 0; i < orders.number("threads", 64); ++i) {
    threads.emplace_back([&, i] { Racer(orders, engine, notes, stop, i).race(); });
  }
  say("ready");
  wait_for_term();
  stop = true;
  for (std::thread& thread : threads)
    thread.join();
  return engine.close(5s).value() == 0 ? 0 : 3;
}

/// Handles messages of which several have the same number; effect, result of the number's key and
/// acknowledgement are one transaction.
int run_booker(const Orders& orders) {
  Notebook notes(orders.folder, orders.name);
  Engine engine = open_engine(orders);
  const auto book = [&](Delivery& delivery) {
    const Item item = parse_item(delivery.payload());
    notes.note("start", item.number);
    const auto booked = delivery.transaction([&](SqlTransaction& sql) -> Result<void> {
      const SqlTransaction::Value number = item.number;
      auto inserted = sql.execute("INSERT INTO effect VALUES (?)", std::span(&number, 1));
      if (!inserted.ok()) return inserted.error();
      return sql.complete("race", "key-" + std::to_string(item.number), "booked");
    });
    const bool known = !booked.ok() && booked.error().code == ErrorCode::kConflict;
    const bool lost = !booked.ok() && booked.error().code == ErrorCode::kLeaseLost;
    notes.note(booked.ok() ? "booked" : known ? "known" : lost ? "void" : "failed", item.number);
    if (!booked.ok() && !known && !lost) throw HandlerError("StoreUnavailable", booked.error().to_string());
  };
  Consumer consumer = engine.consume(kTopic, member_options(orders), book).value();
  say("ready");
  wait_for_term();
  return engine.close(5s).value() == 0 ? 0 : 3;
}

}  // namespace towline::faults
