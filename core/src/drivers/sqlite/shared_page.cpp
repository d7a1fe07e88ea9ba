// Ringing costs a look at the slots, and a system call per process that wants it. The order that loses no
// ring: who is about to wait says that he wants one and then looks at the store; the ringer has committed,
// and then looks who wants it and counts the bell up. So either the look finds what was committed, or the
// ringer finds the wish.
//
// The lock is one of the open file, not of the process: closing another descriptor of the same file does not
// drop it. A forked child shares it, though, and closes it at once (base/forks).

#include "drivers/sqlite/shared_page.hpp"

#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>
#include <utility>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/forks.hpp"

namespace towline::drivers::sqlite {
namespace {

constexpr std::uint32_t kMagic = 0x544f5743;  // the layout below
constexpr std::size_t kSize = 4'096;
constexpr std::size_t kSlotCount = 60;
/// Longer than it takes to schedule somebody who was woken.
constexpr std::int64_t kFairUs = 2'000;
constexpr std::int64_t kUsPerSecond = 1'000'000;

Error io_error(const std::string& path, const char* doing, int code) {
  return {code == ENOSPC || code == EDQUOT ? ErrorCode::kStorageFull : ErrorCode::kIoError,
          std::string(doing) + " " + path + " failed: " + std::strerror(code), code};
}

bool set_lock(int file, short type) noexcept {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_len = 1;
  int done = 0;
  do {
    done = ::fcntl(file, F_OFD_SETLK, &lock);
  } while (done != 0 && errno == EINTR);
  return done == 0;
}

}  // namespace

/// One process, by the pid under which it knows itself; 0: free.
struct SharedPage::Slot {
  Word pid;
  Word bell;
  Word wanted;
  Word reserved;
};

struct SharedPage::Layout {
  Word magic;
  /// Counts each taking and each ending of the turn.
  Word turns;
  Word turn_waiters;
  Word reserved[13];
  Slot slots[kSlotCount];
};

Result<std::unique_ptr<SharedPage>> SharedPage::open(const std::string& path) {
  static_assert(sizeof(Layout) <= kSize);
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (file < 0) return io_error(path, "opening", errno);
  struct stat found {};
  const bool known = ::fstat(file, &found) == 0 && found.st_size >= static_cast<off_t>(kSize);
  // Allocated for real: a page of a full disk would be a signal later instead of an error now.
  const int code = known ? 0 : ::posix_fallocate(file, 0, static_cast<off_t>(kSize));
  if (code != 0) {
    ::close(file);
    return io_error(path, "allocating", code);
  }
  void* page = ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (page == MAP_FAILED) {
    const int reason = errno;
    ::close(file);
    return io_error(path, "mapping", reason);
  }
  auto* layout = static_cast<Layout*>(page);
  std::uint32_t fresh = 0;
  if (!layout->magic.compare_exchange_strong(fresh, kMagic) && fresh != kMagic) {
    ::munmap(page, kSize);
    ::close(file);
    return Error{ErrorCode::kNotAStore, path + " is not the lock file of a towline store; move it away"};
  }
  return std::unique_ptr<SharedPage>(new SharedPage(layout, file));
}

SharedPage::SharedPage(Layout* layout, int file)
    : fork_generation_(base::fork_generation()), file_(file), layout_(layout) {
  base::close_in_child(file_);
  take_slot();
}

SharedPage::~SharedPage() {
  // In a forked child the file is closed, its number may be another's by now, and the slot is the parent's.
  if (base::fork_generation() != fork_generation_) return;
  if (slot_ != nullptr) slot_->pid.store(0);
  ::munmap(layout_, kSize);
  base::forget_in_child(file_);
  ::close(file_);
}

void SharedPage::take_slot() noexcept {
  sweep();
  for (Slot& slot : layout_->slots) {
    std::uint32_t free = 0;
    if (!slot.pid.compare_exchange_strong(free, static_cast<std::uint32_t>(::getpid()))) continue;
    slot_ = &slot;
    heard_ = slot.bell.load();
    return;
  }
  // More processes than slots: this one looks once a second.
}

void SharedPage::sweep() noexcept {
  for (Slot& slot : layout_->slots) {
    std::uint32_t pid = slot.pid.load();
    const bool dead = pid != 0 && ::kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH;
    if (dead) slot.pid.compare_exchange_strong(pid, 0);
  }
}

bool SharedPage::has_company() const noexcept {
  for (const Slot& slot : layout_->slots) {
    if (&slot != slot_ && slot.pid.load(std::memory_order_relaxed) != 0) return true;
  }
  return slot_ == nullptr;
}

void SharedPage::ring() noexcept {
  for (Slot& slot : layout_->slots) {
    if (&slot == slot_ || slot.pid.load() == 0 || slot.wanted.exchange(0) == 0) continue;
    slot.bell.fetch_add(1);
    futex_wake(slot.bell, INT_MAX, Reach::kProcesses);
  }
}

void SharedPage::want_ring() noexcept {
  if (slot_ != nullptr) slot_->wanted.store(1);
}

bool SharedPage::listen(std::int64_t timeout_us) noexcept {
  if (slot_ == nullptr) {
    const timespec pause{timeout_us / kUsPerSecond, timeout_us % kUsPerSecond * 1'000};
    ::nanosleep(&pause, nullptr);
    return false;
  }
  futex_wait(slot_->bell, heard_, timeout_us, Reach::kProcesses);
  const std::uint32_t before = heard_;
  heard_ = slot_->bell.load();
  return heard_ != before;
}

void SharedPage::stop_listening() noexcept {
  if (slot_ == nullptr) return;
  slot_->bell.fetch_add(1);
  futex_wake(slot_->bell, INT_MAX, Reach::kProcesses);
}

bool SharedPage::try_turn() noexcept {
  // Only after a turn of its own: who waits for one must take what it can get.
  if (std::exchange(had_turn_, false)) be_fair();
  if (!set_lock(file_, F_WRLCK)) return errno != EAGAIN && errno != EACCES;
  layout_->turns.fetch_add(1);
  return true;
}

void SharedPage::end_turn() noexcept {
  set_lock(file_, F_UNLCK);
  turns_seen_ = layout_->turns.fetch_add(1) + 1;
  if (layout_->turn_waiters.load() == 0) return;
  had_turn_ = true;
  futex_wake(layout_->turns, 1, Reach::kProcesses);
}

void SharedPage::wait_for_turn(std::int64_t timeout_us) noexcept {
  layout_->turn_waiters.fetch_add(1);
  futex_wait(layout_->turns, turns_seen_, timeout_us, Reach::kProcesses);
  std::uint32_t waiters = layout_->turn_waiters.load();
  // Somebody may have taken us for dead and set it to none.
  while (waiters != 0 && !layout_->turn_waiters.compare_exchange_weak(waiters, waiters - 1)) {
  }
  turns_seen_ = layout_->turns.load();
}

void SharedPage::be_fair() noexcept {
  if (layout_->turn_waiters.load() == 0) return;
  futex_wait(layout_->turns, turns_seen_, kFairUs, Reach::kProcesses);
  // Nobody came: those who waited have died, or gave up.
  if (layout_->turns.load() == turns_seen_) layout_->turn_waiters.store(0);
}

}  // namespace towline::drivers::sqlite
