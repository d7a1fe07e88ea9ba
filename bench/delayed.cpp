// A million messages that wait for random due times: how fast they are scheduled, how late they fire, and
// what they cost in memory and on disk while they wait.
//
// The order of events: one file is filled for a day in the future, in random order of due times, with
//   - "observed" slots, in which a process that fires 1,000/s is looked at from inside,
//   - slots of 1,000 and of 16,000 due messages a second, every second slot being the plain program's,
//   - and a million messages that are due later still, which wait all the time.
// Then the file is opened on that day, with a clock that was set once, and the slots are lived through. At
// the end a part of the million is made overdue at once.

#include <algorithm>
#include <atomic>
#include <mutex>
#include <random>
#include <stdexcept>
#include <thread>

#include <fmt/format.h>

#include "flow.hpp"
#include "reference.hpp"
#include "scenarios.hpp"
#include "shifted_clock.hpp"

namespace towline::bench {
namespace {

constexpr const char* kTopic = "delayed";
constexpr std::int64_t kSecond = 1'000'000;
constexpr std::int64_t kDay = 1'893'456'000 * kSecond;  // 2030-01-01T00:00:00Z
constexpr std::int64_t kFill = kDay - 8'000 * kSecond;
constexpr std::int64_t kObserved = kDay - 4'000 * kSecond;
constexpr std::int64_t kObservedStep = 60 * kSecond;
constexpr std::int64_t kFar = kDay + 10'000 * kSecond;
constexpr std::int64_t kFarLength = 10'000 * kSecond;
constexpr std::int64_t kDrainStep = 400 * kSecond;

struct Scale {
  std::size_t far = 1'000'000;
  std::size_t near = 10'000;  // in the small file
  double slot_s = 6;
  double gap_s = 2;
  double observed_s = 6;
  std::size_t slow = 1'000;  // due per second
  std::size_t fast = 16'000;
};

Scale small_scale() { return {6'000, 600, 0.3, 0.3, 0.3, 500, 2'000}; }

/// One stretch of due messages.
struct Slot {
  std::int64_t begin_us = 0;
  std::size_t count = 0;
  bool plain = false;
  std::string id;  // P09 or P10
  int round = 0;
};

struct Lateness {
  double p50_ms = 0, p99_ms = 0, max_ms = 0;
};

class Delayed {
 public:
  Delayed(Bench& bench, const std::set<std::string>& parts)
      : bench_(bench), parts_(parts), scale_(bench.quick() ? small_scale() : Scale{}) {}
  void run();

 private:
  [[nodiscard]] bool wants(const char* part) const { return parts_.count(part) > 0; }
  [[nodiscard]] Conditions conditions(std::string more) const {
    return {"sqlite FULL", kPayloadBytes, 0, std::move(more)};
  }
  [[nodiscard]] Engine open(const std::filesystem::path& file, std::int64_t wall_us, bool keep_clock);
  void plan_slots();
  [[nodiscard]] std::vector<std::int64_t> due_times(std::size_t far, bool with_slots, bool plain);
  void fill();
  void fill_small();
  double schedule(Engine& engine, std::span<const std::int64_t> due);
  void observe_memory();
  void live_through_slots();
  void run_plain_slot(PlainQueue& queue, const Slot& slot);
  [[nodiscard]] Lateness judge_slot(const Slot& slot, std::vector<double> late_us) const;
  void report_slots();
  void drain();

  Bench& bench_;
  const std::set<std::string>& parts_;
  Scale scale_;
  std::mt19937_64 random_{42};
  std::filesystem::path file_, plain_file_, small_file_;
  std::vector<Slot> slots_;
  std::vector<std::int64_t> far_due_;  // ascending
  std::shared_ptr<ShiftedClock> clock_;
};

Engine Delayed::open(const std::filesystem::path& file, std::int64_t wall_us, bool keep_clock) {
  EngineOptions options;
  auto clock = std::make_shared<ShiftedClock>(from_us(wall_us));
  if (keep_clock) clock_ = clock;
  options.clock = clock;
  return Engine::open(sqlite_url(file), std::move(options)).value();
}

void Delayed::plan_slots() {
  const auto period = static_cast<std::int64_t>((scale_.slot_s + scale_.gap_s) * 1e6);
  std::int64_t begin = kDay;
  for (const std::string id : {"P09", "P10"}) {
    if (!wants(id.c_str())) continue;
    const std::size_t rate = id == "P09" ? scale_.slow : scale_.fast;
    const auto count = static_cast<std::size_t>(static_cast<double>(rate) * scale_.slot_s);
    for (int round = 1; round <= bench_.round_count(); ++round) {
      for (const bool plain : {false, true}) {
        slots_.push_back({begin, count, plain, id, round});
        begin += period;
      }
    }
  }
}

std::vector<std::int64_t> Delayed::due_times(std::size_t far, bool with_slots, bool plain) {
  std::vector<std::int64_t> due;
  const auto add = [&](std::int64_t begin, std::int64_t length, std::size_t count) {
    std::uniform_int_distribution<std::int64_t> within(0, length - 1);
    for (std::size_t i = 0; i < count; ++i)
      due.push_back(begin + within(random_));
  };
  add(kFar, kFarLength, far);
  if (wants("P11") && !plain) {
    const auto length = static_cast<std::int64_t>(scale_.observed_s * 1e6);
    const auto count = static_cast<std::size_t>(scale_.observed_s * static_cast<double>(scale_.slow));
    for (int round = 1; round <= bench_.round_count(); ++round)
      add(kObserved + round * kObservedStep, length, count);
  }
  if (with_slots) {
    for (const Slot& slot : slots_) {
      if (slot.plain == plain) add(slot.begin_us, static_cast<std::int64_t>(scale_.slot_s * 1e6), slot.count);
    }
  }
  std::shuffle(due.begin(), due.end(), random_);
  return due;
}

double Delayed::schedule(Engine& engine, std::span<const std::int64_t> due) {
  const auto start = Steady::now();
  for (std::size_t done = 0; done < due.size(); done += kBatch) {
    const auto part = due.subspan(done, std::min(kBatch, due.size() - done));
    std::vector<Message> batch(part.size());
    for (std::size_t i = 0; i < part.size(); ++i) {
      batch[i].topic = kTopic;
      batch[i].payload = payload_with(part[i]);
      batch[i].due_at = from_us(part[i]);
    }
    publish_all(engine, std::move(batch));
  }
  return static_cast<double>(due.size()) / seconds_since(start);
}

void Delayed::fill() {
  file_ = bench_.new_file("delayed");
  plain_file_ = bench_.new_file("plain");
  const std::vector<std::int64_t> due = due_times(scale_.far, true, false);
  const std::vector<std::int64_t> plain_due = due_times(scale_.far, true, true);
  for (const std::int64_t at : due) {
    if (at >= kFar) far_due_.push_back(at);
  }
  std::sort(far_due_.begin(), far_due_.end());
  const Conditions how{"sqlite FULL", kPayloadBytes, kBatch,
                       fmt::format("{} pending at the end", due.size())};
  const Series ours{"publish_batch with due times", "msg/s", how};
  const Series plain{"plain SQLite, layout A", "msg/s", how};
  Engine engine = open(file_, kFill, false);
  PlainQueue queue(plain_file_);
  const std::string payload = payload_with(0);
  const auto part_of = [&](const std::vector<std::int64_t>& all, int round) {
    const auto rounds = static_cast<std::size_t>(bench_.round_count());
    const std::size_t begin = all.size() * static_cast<std::size_t>(round - 1) / rounds;
    const std::size_t end = all.size() * static_cast<std::size_t>(round) / rounds;
    return std::span(all).subspan(begin, end - begin);
  };
  bench_.interleave({[&](int round) { bench_.sample(ours, round, schedule(engine, part_of(due, round))); },
                     [&](int round) {
                       const auto part = part_of(plain_due, round);
                       std::vector<PlainQueue::Row> rows;
                       std::vector<std::string> payloads(kBatch, payload);
                       const auto start = Steady::now();
                       for (std::size_t done = 0; done < part.size(); done += kBatch) {
                         rows.clear();
                         for (std::size_t i = done; i < std::min(part.size(), done + kBatch); ++i) {
                           payloads[i - done] = payload_with(part[i]);
                           rows.push_back({part[i], payloads[i - done]});
                         }
                         queue.insert(rows);
                       }
                       bench_.sample(plain, round, static_cast<double>(part.size()) / seconds_since(start));
                     }});
  (void)engine.close().value();
  bench_.check("schedule", ours, at_least(50'000));
  bench_.compare("schedule", ours, plain, no_bar());
  const double bytes = static_cast<double>(std::filesystem::file_size(file_));
  bench_.check_value("disk", bytes / static_cast<double>(due.size()), "B/msg",
                     conditions(fmt::format("{} pending, after close", due.size())), at_most(350));
}

void Delayed::fill_small() {
  small_file_ = bench_.new_file("small");
  const std::vector<std::int64_t> due = due_times(scale_.near, false, false);
  Engine engine = open(small_file_, kFill, false);
  (void)schedule(engine, due);
  (void)engine.close().value();
}

void Delayed::observe_memory() {
  fill_small();
  const std::string many = fmt::format("{} pending", scale_.far);
  const std::string few = fmt::format("{} pending", scale_.near);
  const Series rest_many{"at rest, " + many, "MB", conditions(many)};
  const Series rest_few{"at rest, " + few, "MB", conditions(few)};
  const Series work_many{"firing 1,000/s, " + many, "MB", conditions(many)};
  const Series work_few{"firing 1,000/s, " + few, "MB", conditions(few)};
  const auto side = [&](const std::filesystem::path& file, const Series& rest, const Series& work) {
    return [&, file](int round) {
      const Observed seen = observe({.url = sqlite_url(file),
                                     .topic = kTopic,
                                     .wall_start_us = kObserved + round * kObservedStep - 2 * kSecond,
                                     .seconds = scale_.observed_s + 1.5});
      if (seen.handled == 0) throw std::runtime_error("the observed process fired nothing");
      bench_.sample(rest, round, seen.resident_mb);
      bench_.sample(work, round, seen.resident_later_mb);
    };
  };
  bench_.interleave({side(file_, rest_many, work_many), side(small_file_, rest_few, work_few)});
  bench_.compare("resident memory", rest_many, rest_few, at_most(1.2));
  bench_.compare("resident memory", work_many, work_few, at_most(1.2));
}

Lateness Delayed::judge_slot(const Slot& slot, std::vector<double> late_us) const {
  // What has not come by now counts as late by all the time since the slot ended, at least.
  if (late_us.size() < slot.count) late_us.resize(slot.count, scale_.gap_s * 1e6);
  if (quantile(late_us, 0) < 0) throw std::runtime_error("a message fired before its time");
  return {quantile(late_us, 0.5) / 1000, quantile(late_us, 0.99) / 1000, quantile(late_us, 1) / 1000};
}

namespace {

Series late_series(const Slot& slot, const char* what, const Scale& scale) {
  const std::size_t rate = slot.id == "P09" ? scale.slow : scale.fast;
  const std::string who = slot.plain ? "plain SQLite, layout A" : "due to handler";
  return {fmt::format("{} at {}/s, {}", who, rate, what),
          "ms",
          {"sqlite FULL", kPayloadBytes, 0, fmt::format("{} pending, {} due/s", scale.far, rate)}};
}

}  // namespace

void Delayed::run_plain_slot(PlainQueue& queue, const Slot& slot) {
  std::vector<double> late_us;
  std::vector<std::int64_t> ids;
  const std::int64_t end =
      slot.begin_us + static_cast<std::int64_t>((scale_.slot_s + 0.75 * scale_.gap_s) * 1e6);
  for (std::int64_t now = to_us(clock_->now()); now < end; now = to_us(clock_->now())) {
    const std::size_t count = queue.claim(now, kBatch, ids, [&](std::string_view payload) {
      late_us.push_back(static_cast<double>(-number_in(payload)));
    });
    const auto handled = static_cast<double>(to_us(clock_->now()));
    for (std::size_t i = late_us.size() - count; i < late_us.size(); ++i)
      late_us[i] += handled;
    if (count > 0) queue.remove(ids);
    if (count < kBatch) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const Lateness late = judge_slot(slot, std::move(late_us));
  bench_.sample(late_series(slot, "p50", scale_), slot.round, late.p50_ms);
  bench_.sample(late_series(slot, "p99", scale_), slot.round, late.p99_ms);
  bench_.sample(late_series(slot, "max", scale_), slot.round, late.max_ms);
}

void Delayed::live_through_slots() {
  std::mutex mutex;
  std::vector<std::vector<double>> late_us(slots_.size());
  const auto period = static_cast<std::int64_t>((scale_.slot_s + scale_.gap_s) * 1e6);
  PlainQueue queue(plain_file_);
  Engine engine = open(file_, kDay - 3 * kSecond, true);
  const auto on_batch = [&](std::span<Delivery> batch) {
    const std::int64_t now = to_us(clock_->now());
    const std::lock_guard lock(mutex);
    for (const Delivery& delivery : batch) {
      const std::int64_t due = number_in(delivery.payload());
      if (due < kDay) continue;  // of an observed slot that nobody looked at
      late_us.at(static_cast<std::size_t>((due - kDay) / period)).push_back(static_cast<double>(now - due));
    }
  };
  Consumer consumer = engine.consume_batches({kTopic}, {.group = "bench"}, on_batch).value();
  const auto wait_until = [&](std::int64_t us) { std::this_thread::sleep_for(from_us(us) - clock_->now()); };
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    bench_.label(slot.id);
    wait_until(slot.begin_us - 100'000);
    bench_.start_sample();
    if (slot.plain) {
      run_plain_slot(queue, slot);
      continue;
    }
    wait_until(slot.begin_us + static_cast<std::int64_t>((scale_.slot_s + 0.75 * scale_.gap_s) * 1e6));
    const std::lock_guard lock(mutex);
    const Lateness late = judge_slot(slot, late_us[i]);
    bench_.sample(late_series(slot, "p50", scale_), slot.round, late.p50_ms);
    bench_.sample(late_series(slot, "p99", scale_), slot.round, late.p99_ms);
    bench_.sample(late_series(slot, "max", scale_), slot.round, late.max_ms);
  }
  (void)engine.close().value();
  report_slots();
}

void Delayed::report_slots() {
  for (const std::string id : {"P09", "P10"}) {
    if (!wants(id.c_str())) continue;
    bench_.label(id);
    const Slot ours{0, 0, false, id, 0};
    const Slot plain{0, 0, true, id, 0};
    const bool slow = id == "P09";
    bench_.check("lateness", late_series(ours, "p50", scale_), slow ? at_most(2) : no_bar());
    bench_.check("lateness", late_series(ours, "p99", scale_), at_most(slow ? 10 : 30));
    bench_.check("lateness", late_series(ours, "max", scale_), at_most(1000));
    bench_.compare("lateness", late_series(ours, "p99", scale_), late_series(plain, "p99", scale_), no_bar());
    bench_.check("lateness of the plain program", late_series(plain, "p50", scale_), no_bar());
  }
}

void Delayed::drain() {
  const Conditions how = conditions(fmt::format("of {} pending, random order, overdue at once", scale_.far));
  const Series ours{"overdue to acknowledged", "msg/s", how};
  const Series plain{"plain SQLite, layout A, overdue", "msg/s", how};
  PlainQueue queue(plain_file_);
  std::size_t handled_before = 0;
  const auto due_by = [&](std::int64_t us) {
    return static_cast<std::size_t>(std::upper_bound(far_due_.begin(), far_due_.end(), us) -
                                    far_due_.begin());
  };
  bench_.interleave(
      {[&](int round) {
         const std::int64_t at = kFar + round * kDrainStep;
         const std::size_t expected = due_by(at) - handled_before;
         std::atomic<std::size_t> handled{0};
         const auto start = Steady::now();
         Engine engine = open(file_, at, false);
         Consumer consumer =
             engine
                 .consume_batches({kTopic}, {.group = "bench"},
                                  [&](std::span<Delivery> batch) { handled.fetch_add(batch.size()); })
                 .value();
         while (consumer.statistics().acked < expected) {
           if (seconds_since(start) > 300) throw std::runtime_error("the overdue did not fire");
           std::this_thread::sleep_for(std::chrono::microseconds(500));
         }
         bench_.sample(ours, round, static_cast<double>(expected) / seconds_since(start));
         (void)engine.close().value();
         handled_before += handled.load();
       },
       [&](int round) {
         std::vector<std::int64_t> ids;
         std::size_t count = 0;
         const auto start = Steady::now();
         while (queue.claim(kFar + round * kDrainStep, kBatch, ids, [](std::string_view) {}) > 0) {
           count += ids.size();
           queue.remove(ids);
         }
         bench_.sample(plain, round, static_cast<double>(count) / seconds_since(start));
       }});
  bench_.compare("drain", ours, plain, at_least(2));
}

void Delayed::run() {
  plan_slots();
  bench_.label("P11");
  fill();
  if (wants("P11")) observe_memory();
  if (!slots_.empty()) live_through_slots();
  bench_.label("P10");
  if (wants("P10")) drain();
}

}  // namespace

void delayed(Bench& bench, const std::set<std::string>& parts) { Delayed(bench, parts).run(); }

}  // namespace towline::bench
