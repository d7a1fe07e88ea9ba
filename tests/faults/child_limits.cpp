// The modes that run against a limit in a process of their own, so that what they measure is theirs: a disk
// that fills up, handlers that never return, a consumer ten times slower than its publisher.

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "faults/child.hpp"
#include "faults/sqlite_probe.hpp"
#include "faults/syscalls.hpp"
#include "support/eventually.hpp"
#include "support/resources.hpp"

namespace towline::faults {
namespace {

using namespace std::chrono_literals;
using support::eventually;
using support::Stopwatch;

std::int64_t ms_of(Duration span) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(span).count();
}

// ---- a disk that fills up -----------------------------------------------------------------------

/// A small file system of this process alone: as root, or as the root of a user namespace of its own.
void mount_small(const std::string& folder, std::int64_t bytes) {
  const int flags = ::geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER;
  const auto fail = [](const char* what) {
    throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
  };
  if (::unshare(flags) != 0) fail("unshare");
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) fail("make mounts private");
  const std::string size = "size=" + std::to_string(bytes);
  if (::mount("tmpfs", folder.c_str(), "tmpfs", 0, size.c_str()) != 0) fail("mount tmpfs");
}

/// Another program's file, which takes what is free but `left` bytes.
class Filler {
 public:
  Filler(std::string folder, std::int64_t bytes_max)
      : path_(std::move(folder) + "/filler"), bytes_max_(bytes_max) {}
  void grow(std::int64_t left) {
    std::int64_t used = 0;
    for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(path_).parent_path()))
      used += static_cast<std::int64_t>(entry.file_size());
    std::ofstream out(path_, std::ios::binary);
    const std::string block(4096, 'x');
    for (std::int64_t i = 0; i < (bytes_max_ - used - left) / 4096; ++i)
      out << block;
  }
  void remove() { std::filesystem::remove(path_); }

 private:
  const std::string path_;
  const std::int64_t bytes_max_;
};

class FullDisk {
 public:
  explicit FullDisk(const Orders& orders)
      : orders_(orders),
        notes_(orders.folder, orders.name),
        engine_(open_engine(orders)),
        filler_(orders.text("store", "."), orders.number("bytes", 48 << 20)) {
    consumer_ = engine_
                    .consume(kTopic, member_options(orders),
                             [this](Delivery& delivery) {
                               const Item item = parse_item(delivery.payload());
                               const auto book = [&](const char* what) {
                                 notes_.note({.at_us = monotonic_us(),
                                              .what = what,
                                              .group = kGroup,
                                              .number = item.number,
                                              .attempt = delivery.attempt(),
                                              .redelivered = delivery.redelivered(),
                                              .text = "- 0"});
                               };
                               book("start");
                               book("done");
                             })
                    .value();
    consumer_.drain(5s).value();
  }

  int run() {
    for (std::int64_t round = 1; round <= orders_.number("rounds", 2); ++round) {
      // Something is in the store that can be settled. Then others take what is left, down to less than the
      // engine wants to be free, or to nothing at all.
      for (int i = 0; i < 40; ++i)
        (void)publish(32 << 10);
      filler_.grow(round % 2 == 1 ? 10 << 20 : 0);
      fill(round);
      settle(round);
      filler_.remove();
      recover(round);
      settle(round);
    }
    const auto closed = engine_.close();
    notes_.note(closed.ok() ? "closed" : "not_closed");
    notes_.note("integrity", 0, integrity_of(orders_.url.substr(orders_.url.find(':') + 1)));
    return 0;
  }

 private:
  Receipt publish(std::size_t bytes) {
    return publish_noted(engine_, notes_, {next_++, "-", 0, "ok"}, {}, bytes);
  }

  /// Until it is refused, and then ten times more: each answer is StorageFull, surely not stored, and quick.
  void fill(std::int64_t round) {
    Receipt receipt;
    for (int i = 0; i < 2000; ++i) {
      receipt = publish(32 << 10);
      if (!receipt.acked()) break;
    }
    notes_.note(receipt.acked() ? "never_full" : "full", round, receipt.error.to_string());
    for (int i = 0; i < 10; ++i) {
      const Stopwatch watch;
      const Receipt again = publish(32 << 10);
      const bool as_promised =
          again.outcome == PublishOutcome::kRejected && again.error.code == ErrorCode::kStorageFull;
      notes_.note(as_promised ? "refused" : "not_refused", ms_of(watch.elapsed()), again.error.to_string());
    }
  }

  /// Everything that was acknowledged is handled and settled, disk full or not.
  void settle(std::int64_t round) {
    const Stopwatch watch;
    consumer_.resume().value();
    const bool done = eventually(
        [this] {
          const auto backlog = engine_.backlog();
          if (!backlog.ok()) return false;
          for (const GroupBacklog& group : *backlog) {
            if (group.waiting + group.in_flight != 0) return false;
          }
          return true;
        },
        10s);
    notes_.note(done ? "settled" : "not_settled", round, std::to_string(ms_of(watch.elapsed())) + " ms");
    const auto paused = consumer_.drain(5s);
    if (!paused.ok()) notes_.note("not_paused", round, paused.error().to_string());
  }

  void recover(std::int64_t round) {
    const Stopwatch watch;
    Receipt receipt;
    const bool done = eventually(
        [&] {
          receipt = publish(1 << 10);
          return receipt.acked();
        },
        10s);
    const std::string why = done ? "" : ": " + receipt.error.to_string();
    notes_.note(done ? "recovered" : "not_recovered", round,
                std::to_string(ms_of(watch.elapsed())) + " ms" + why);
  }

  const Orders& orders_;
  Notebook notes_;
  Engine engine_;
  Filler filler_;
  Consumer consumer_;
  std::int64_t next_ = 0;
};

// ---- handlers that never return -----------------------------------------------------------------

struct StuckRun {
  double per_second = 0;
  std::uint64_t stuck = 0, stuck_at_close = 0;
  std::int64_t close_ms = 0;
};

/// `count` messages of as many keys, one in `one_in` of which has a handler that never returns (0: none).
/// Measures how fast the others are handled.
StuckRun run_with_stuck(const Orders& orders, Notebook& notes, std::int64_t count, std::int64_t one_in,
                        const std::string& suffix) {
  Orders here = orders;
  here.url += suffix;
  Engine engine = open_engine(here);
  std::vector<Message> messages;
  std::size_t stuck_count = 0;
  for (std::int64_t n = 0; n < count; ++n) {
    const bool is_stuck = one_in != 0 && n % one_in == one_in / 2;
    stuck_count += is_stuck ? 1 : 0;
    Message message;
    message.topic = kTopic;
    message.key = "k" + std::to_string(n);
    message.payload = to_payload({n, "k" + std::to_string(n), n, is_stuck ? "stuck" : "ok"});
    messages.push_back(std::move(message));
  }
  for (const Receipt& receipt : engine.publish_batch(std::move(messages)).value()) {
    if (!receipt.acked()) throw Exception(receipt.error);
  }
  std::mutex mutex;
  std::set<std::int64_t> done;
  std::atomic<std::size_t> done_count{0};
  std::atomic<std::size_t> begun_stuck{0};
  const Stopwatch watch;
  Consumer consumer = engine
                          .consume(kTopic, member_options(here),
                                   [&](Delivery& delivery) {
                                     const Item item = parse_item(delivery.payload());
                                     if (item.kind == "stuck") {
                                       ++begun_stuck;
                                       for (;;)
                                         std::this_thread::sleep_for(1h);  // sleeps: it never returns
                                     }
                                     std::this_thread::sleep_for(2ms);  // sleeps: this is the work
                                     const std::lock_guard guard(mutex);
                                     if (done.insert(item.number).second) ++done_count;
                                   })
                          .value();
  const std::size_t others = static_cast<std::size_t>(count) - stuck_count;
  if (!eventually([&] { return done_count.load() == others; }, 120s))
    notes.note("not_all", static_cast<std::int64_t>(done_count.load()), suffix);
  const double seconds = std::chrono::duration<double>(watch.elapsed()).count();
  // Every one of them has begun and is past its time.
  if (!eventually([&] { return consumer.statistics().stuck == stuck_count; }, 10s))
    notes.note("stuck_wrong", static_cast<std::int64_t>(consumer.statistics().stuck),
               std::to_string(begun_stuck.load()) + " begun");
  StuckRun run;
  run.per_second = static_cast<double>(others) / seconds;
  run.stuck = consumer.statistics().stuck;
  DeadLetterQuery query;
  query.count_max = 1000;
  notes.note("dead", static_cast<std::int64_t>(engine.dead_letters(query).value().items.size()),
             std::to_string(stuck_count));
  const Stopwatch closing;
  run.stuck_at_close = engine.close(2s).value();
  run.close_ms = ms_of(closing.elapsed());
  return run;
}

// ---- a slow consumer ----------------------------------------------------------------------------

class SlowConsumer {
 public:
  explicit SlowConsumer(const Orders& orders)
      : orders_(orders), notes_(orders.folder, orders.name), engine_(open_engine(orders)) {}

  int run() {
    const std::int64_t seconds = orders_.number("seconds", 5);
    const std::int64_t per_second = orders_.number("per_second", 4000);
    Consumer consumer = engine_
                            .consume(kTopic, member_options(orders_),
                                     [this, per_second](Delivery& delivery) { handle(delivery, per_second); })
                            .value();
    publish(50);
    (void)eventually([this] { return done_.load() > 20; });
    const std::size_t start = support::resident_bytes();
    std::size_t most = start;
    const Stopwatch watch;
    const std::int64_t before = next_;
    while (watch.elapsed() < std::chrono::seconds(seconds)) {
      const auto due = static_cast<std::int64_t>(std::chrono::duration<double>(watch.elapsed()).count() *
                                                 static_cast<double>(per_second));
      while (next_ - before < due)
        publish(50);
      most = std::max(most, support::resident_bytes());
      std::this_thread::sleep_for(2ms);  // sleeps: the pace of publishing
    }
    notes_.note("rate", static_cast<std::int64_t>((next_ - before) / seconds), std::to_string(done_.load()));
    fast_ = true;
    const bool all = eventually(
        [&] {
          most = std::max(most, support::resident_bytes());
          return done_.load() >= next_;
        },
        120s);
    notes_.note(all ? "all" : "not_all", done_.load(), std::to_string(next_));
    notes_.note("resident", static_cast<std::int64_t>(start), std::to_string(most));
    notes_.note("distinct", static_cast<std::int64_t>(seen_.size()));
    return engine_.close().ok() ? 0 : 3;
  }

 private:
  void publish(int count) {
    std::vector<Message> messages;
    for (int i = 0; i < count; ++i)
      messages.push_back({.topic = kTopic, .payload = to_payload({next_ + i, "-", 0, "ok"}, 512)});
    for (const Receipt& receipt : engine_.publish_batch(std::move(messages)).value()) {
      if (!receipt.acked()) throw Exception(receipt.error);
    }
    next_ += count;
  }

  void handle(Delivery& delivery, std::int64_t per_second) {
    // sleeps: this is the work
    if (!fast_.load()) std::this_thread::sleep_for(std::chrono::microseconds(10'000'000 / per_second));
    const Item item = parse_item(delivery.payload());
    const std::lock_guard guard(mutex_);
    seen_.push_back(static_cast<std::int32_t>(item.number));
    ++done_;
  }

  const Orders& orders_;
  Notebook notes_;
  Engine engine_;
  std::mutex mutex_;
  std::vector<std::int32_t> seen_;
  std::atomic<std::int64_t> done_{0};
  std::atomic<bool> fast_{false};
  std::int64_t next_ = 0;
};

}  // namespace

int run_full_disk(const Orders& orders) {
  const std::string folder = orders.text("store", ".");
  const std::int64_t bytes = orders.number("bytes", 48 << 20);
  if (orders.number("mount", 0) != 0) {
    try {
      mount_small(folder, bytes);
    } catch (const std::exception& error) {
      say(std::string("no small file system: ") + error.what());
      return 0;
    }
  } else {
    set_quota(folder, static_cast<std::uint64_t>(bytes));
  }
  say("ready");
  return FullDisk(orders).run();
}

int run_stuck(const Orders& orders) {
  Notebook notes(orders.folder, orders.name);
  say("ready");
  const std::int64_t count = orders.number("count", 500);
  // Beside as many threads as are left when all the stuck ones keep theirs.
  Orders alone = orders;
  alone.options["concurrency"] = std::to_string(orders.number("concurrency", 4) - count / 50);
  const StuckRun plain = run_with_stuck(alone, notes, count, 0, "");
  const StuckRun stuck = run_with_stuck(orders, notes, count, 50, "2");
  notes.note("baseline", static_cast<std::int64_t>(plain.per_second));
  notes.note("others", static_cast<std::int64_t>(stuck.per_second));
  notes.note("stuck", static_cast<std::int64_t>(stuck.stuck), std::to_string(count / 50));
  notes.note("close", stuck.close_ms, std::to_string(stuck.stuck_at_close));
  // Their threads are there for ever, and with them what their handlers refer to.
  ::_exit(0);
}

int run_slow_consumer(const Orders& orders) {
  say("ready");
  return SlowConsumer(orders).run();
}

}  // namespace towline::faults
