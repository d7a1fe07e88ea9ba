// What happens to the disk of a world, and with it to everybody: it is full for a while, writes and syncs
// fail, and the power goes.
//
// The power goes in the middle of a call. The call is run to its end first, on a disk that remembers where it
// stood: then it is known what the call did, and the disk is set back to a moment drawn from within it. What
// was committed before that moment must be there afterwards; of a commit that had not ended nobody can say,
// so the log is asked, and the history tells what became of it.

#include <utility>

#include "simulation/world.hpp"

namespace towline::simulation {
namespace {

constexpr const char* kStore = "store.db";

/// SQLite itself, without the driver.
class PlainBase {
 public:
  explicit PlainBase(const CrashMachine& machine) {
    sqlite3_open_v2(kStore, &raw_, SQLITE_OPEN_READWRITE, machine.name().c_str());
    sqlite3_db_config(raw_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  }
  ~PlainBase() { sqlite3_close_v2(raw_); }
  PlainBase(const PlainBase&) = delete;
  PlainBase& operator=(const PlainBase&) = delete;

  /// "ok", or the first thing that is wrong.
  [[nodiscard]] std::string check() {
    std::string answer;
    const auto note = [](void* into, int, char** values, char**) {
      *static_cast<std::string*>(into) = values[0] == nullptr ? "?" : values[0];
      return 0;
    };
    const int code = sqlite3_exec(raw_, "PRAGMA quick_check(1)", note, &answer, nullptr);
    return code == SQLITE_OK ? answer : sqlite3_errstr(code);
  }

 private:
  sqlite3* raw_ = nullptr;
};

}  // namespace

CrashMachine* World::new_machine(bool can_be_disturbed) {
  if (disk_ == nullptr) return nullptr;
  machines_.push_back(std::make_unique<CrashMachine>(*disk_, can_be_disturbed));
  return machines_.back().get();
}

void World::open_bench() {
  bench_ = {};
  auto opened = open_provider(bench_clock_, 0, new_machine(false));
  if (opened) {
    bench_ = std::move(*opened);
    if (plan_.world == WorldKind::kSplit) look_beside_records();
    return;
  }
  violate("power", "the store cannot be opened: " + opened.error().to_string());
  ending_ = Ending::kUnsafe;
}

void World::let_disk_fail(bool on) {
  if (disk_ == nullptr) return;
  const auto rate = [&](Fault fault) { return on && plan_.has(fault) ? plan_.rate(fault) : 0.0; };
  disk_->plant({rate(Fault::kBadWrite), rate(Fault::kBadSync)});
  if (!on) disk_->set_capacity(UINT64_MAX);
}

void World::fill_disk() {
  count(Fault::kDiskFull);
  disk_->set_capacity(disk_->used() + fault_dice_.pick<std::uint64_t>({0, 4096, 100'000}));
  const Duration lease = plan_.engine.lease;
  after(fault_dice_.pick<Duration>({std::chrono::milliseconds(5), lease / 2, lease * 2}), Task::kRoom, 0);
}

void World::give_up_what_stopped() {
  for (Process& process : processes_) {
    if (!process.life || !process.life->machine->has_failed()) continue;
    if (std::exchange(process.life->is_given_up, true)) continue;
    // Whoever looks after it needs a while to see that it does nothing any more.
    after(fault_dice_.pick<Duration>({std::chrono::milliseconds(1), plan_.engine.lease * 3 / 2}),
          Task::kGiveUp, process.index, process.generation);
  }
}

void World::await_power_loss() {
  head_before_ = disk_->wal_head(kStore);
  disk_->begin_recording();
}

CrashDisk::WalHead World::look_over_disk() {
  const CrashMachine machine(*disk_, false);
  PlainBase base(machine);
  if (const std::string answer = base.check(); answer != "ok") {
    violate("power", "the store is damaged after a loss of power: " + answer);
    ending_ = Ending::kUnsafe;
  }
  return disk_->wal_head(kStore);
}

bool World::lose_power() {
  count(Fault::kPowerLoss);
  const std::uint32_t commits = disk_->wal_head(kStore).commits - head_before_.commits;
  const std::size_t end = disk_->recorded();
  // Which of several commits are there could not be told.
  const std::size_t cut = commits > 1 ? end : fault_dice_.below(end + 1);
  disk_->power_loss_after(cut, fault_dice_.next());
  const CrashDisk::WalHead head = look_over_disk();
  const bool is_there =
      head.frames > 0 && (head.salt != head_before_.salt || head.frames > head_before_.frames);
  if (cut == end && commits > 0 && !is_there) {
    violate("power", "what was committed is gone");
    ending_ = Ending::kUnsafe;
  }
  Record r;
  r.event = Event::kPowerLoss;
  r.number = disk_->figures().power_losses;
  r.index = is_there ? 1 : 0;
  note(r);
  open_bench();
  return commits != 1 || is_there;
}

void World::power_is_lost() {
  for (Process& process : processes_)
    crash(process);
  throw ProcessDied{};
}

}  // namespace towline::simulation
