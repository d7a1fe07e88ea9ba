// The program's own pwrite, fsync, fdatasync, ftruncate and unlink. One lock orders the calls, so that a
// trace has them in the order in which the disk saw them; what is killed is killed while holding it.

#include "faults/syscalls.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <utility>

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace towline::faults {
namespace {

struct State {
  std::mutex mutex;
  Plan plan;
  std::uint64_t count = 0;
  bool struck = false;
  std::string struck_file;
  std::string quota_folder;
  std::uint64_t quota_bytes = 0;
  std::string trace_prefix;
  int trace = -1;
  std::map<std::string, std::uint64_t> numbers;
};

// Never destroyed: threads may still write while the process ends.
State& state() {
  static State& one = *new State;
  return one;
}

std::atomic<bool> active{false};

[[noreturn]] void die() {
  ::kill(::getpid(), SIGKILL);
  for (;;)
    ::pause();
}

std::string name_of(int fd) {
  std::array<char, 4096> path{};
  const ssize_t length =
      ::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), path.data(), path.size());
  return length > 0 ? std::string(path.data(), static_cast<std::size_t>(length)) : std::string();
}

void put(State& now, char kind, std::uint64_t file, std::uint64_t offset, std::string_view bytes) {
  std::string entry(1, kind);
  for (const std::uint64_t number : {file, offset, static_cast<std::uint64_t>(bytes.size())})
    entry.append(reinterpret_cast<const char*>(&number), sizeof number);
  entry.append(bytes);
  if (::write(now.trace, entry.data(), entry.size()) != static_cast<ssize_t>(entry.size())) die();
}

void trace(State& now, char kind, const std::string& name, std::uint64_t offset, std::string_view bytes) {
  if (now.trace < 0 || !name.starts_with(now.trace_prefix)) return;
  const auto [found, is_new] = now.numbers.try_emplace(name, now.numbers.size() + 1);
  if (is_new || kind == 'o') put(now, 'o', found->second, 0, name);
  if (kind != 'o') put(now, kind, found->second, offset, bytes);
}

std::uint64_t used_of(const std::string& folder) {
  std::uint64_t used = 0;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const auto size = entry.file_size(ignored);
    if (!ignored) used += size;
  }
  return used;
}

bool over_quota(State& now, int fd, std::uint64_t end) {
  if (now.quota_bytes == 0) return false;
  const std::string name = name_of(fd);
  if (!name.starts_with(now.quota_folder)) return false;
  struct stat info {};
  if (::fstat(fd, &info) != 0 || end <= static_cast<std::uint64_t>(info.st_size)) return false;
  return used_of(now.quota_folder) + end - static_cast<std::uint64_t>(info.st_size) > now.quota_bytes;
}

/// Counts the call and kills, or says with which errno it fails (0: it does not).
int harm(State& now, Calls kind, const void* bytes, std::size_t length, std::int64_t offset, int fd) {
  if (now.plan.harm == Harm::kNone) return 0;
  const bool counts =
      now.plan.calls == kind || now.plan.calls == Calls::kAny ||
      (now.plan.calls == Calls::kBase && kind == Calls::kSync && name_of(fd).ends_with(".db"));
  if (!counts) return 0;
  ++now.count;
  if (now.plan.harm == Harm::kCount || now.count < now.plan.at) return 0;
  const bool first = now.count == now.plan.at;
  if (!std::exchange(now.struck, true) && fd >= 0) now.struck_file = name_of(fd);
  switch (now.plan.harm) {
    case Harm::kKill:
      if (first) die();
      return 0;
    case Harm::kTear:
      if (!first) return 0;
      if (bytes != nullptr)
        (void)::syscall(SYS_pwrite64, fd, bytes, std::min<std::size_t>(length, now.plan.bytes), offset);
      die();
    case Harm::kErrorOnce:
      return first ? now.plan.error : 0;
    default:
      return now.plan.error;
  }
}

int fail(int error) {
  errno = error;
  return -1;
}

}  // namespace

Plan parse_plan(const std::string& text) {
  std::istringstream in(text);
  std::string harm;
  std::string calls;
  Plan plan;
  in >> harm >> calls >> plan.at;
  if (harm == "kill") {
    plan.harm = Harm::kKill;
  } else if (harm == "tear") {
    plan.harm = Harm::kTear;
    in >> plan.bytes;
  } else if (harm == "error" || harm == "once") {
    plan.harm = harm == "error" ? Harm::kError : Harm::kErrorOnce;
    in >> plan.error;
  } else if (harm == "count") {
    plan.harm = Harm::kCount;
  } else {
    throw std::invalid_argument("no plan: " + text);
  }
  plan.calls = calls == "write"  ? Calls::kWrite
               : calls == "sync" ? Calls::kSync
               : calls == "base" ? Calls::kBase
                                 : Calls::kAny;
  if (in.fail()) throw std::invalid_argument("no plan: " + text);
  return plan;
}

void set_plan(const Plan& plan) {
  State& now = state();
  const std::lock_guard guard(now.mutex);
  now.plan = plan;
  now.count = 0;
  now.struck = false;
  now.struck_file.clear();
  active = true;
}

std::uint64_t call_count() {
  State& now = state();
  const std::lock_guard guard(now.mutex);
  return now.count;
}

bool has_struck() {
  State& now = state();
  const std::lock_guard guard(now.mutex);
  return now.struck;
}

std::string struck_file() {
  State& now = state();
  const std::lock_guard guard(now.mutex);
  return now.struck_file;
}

void set_quota(const std::string& folder, std::uint64_t bytes) {
  State& now = state();
  const std::lock_guard guard(now.mutex);
  now.quota_folder = folder;
  now.quota_bytes = bytes;
  active = true;
}

void set_trace(const std::string& prefix, const std::string& path) {
  State& now = state();
  const std::lock_guard guard(now.mutex);
  now.trace_prefix = prefix;
  now.trace = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
  if (now.trace < 0) throw std::runtime_error(path + " cannot be made");
  active = true;
}

void trace_note(std::string_view line) {
  State& now = state();
  const std::lock_guard guard(now.mutex);
  if (now.trace >= 0) put(now, 'n', 0, 0, line);
}

namespace {

ssize_t write_at(int fd, const void* bytes, std::size_t length, std::int64_t offset) {
  if (!active.load()) return ::syscall(SYS_pwrite64, fd, bytes, length, offset);
  State& now = state();
  const std::lock_guard guard(now.mutex);
  if (const int error = harm(now, Calls::kWrite, bytes, length, offset, fd); error != 0) return fail(error);
  if (over_quota(now, fd, static_cast<std::uint64_t>(offset) + length)) return fail(ENOSPC);
  const ssize_t done = ::syscall(SYS_pwrite64, fd, bytes, length, offset);
  if (done > 0 && now.trace >= 0) {
    trace(now, 'w', name_of(fd), static_cast<std::uint64_t>(offset),
          {static_cast<const char*>(bytes), static_cast<std::size_t>(done)});
  }
  return done;
}

int sync_file(int fd, long number) {
  if (!active.load()) return static_cast<int>(::syscall(number, fd));
  struct stat info {};
  if (::fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) return static_cast<int>(::syscall(number, fd));
  State& now = state();
  const std::lock_guard guard(now.mutex);
  if (const int error = harm(now, Calls::kSync, nullptr, 0, 0, fd); error != 0) return fail(error);
  if (now.trace >= 0) {
    // The disk of a trace is made of the trace; waiting for the real one would only be slow.
    trace(now, 's', name_of(fd), 0, {});
    return 0;
  }
  return static_cast<int>(::syscall(number, fd));
}

int truncate_file(int fd, std::int64_t length) {
  if (!active.load()) return static_cast<int>(::syscall(SYS_ftruncate, fd, length));
  State& now = state();
  const std::lock_guard guard(now.mutex);
  if (const int error = harm(now, Calls::kWrite, nullptr, 0, 0, fd); error != 0) return fail(error);
  if (over_quota(now, fd, static_cast<std::uint64_t>(length))) return fail(ENOSPC);
  const long done = ::syscall(SYS_ftruncate, fd, length);
  if (done == 0 && now.trace >= 0) trace(now, 't', name_of(fd), static_cast<std::uint64_t>(length), {});
  return static_cast<int>(done);
}

int remove_file(const char* path) {
  if (!active.load()) return static_cast<int>(::syscall(SYS_unlinkat, AT_FDCWD, path, 0));
  State& now = state();
  const std::lock_guard guard(now.mutex);
  if (const int error = harm(now, Calls::kAny, nullptr, 0, 0, -1); error != 0) return fail(error);
  const long done = ::syscall(SYS_unlinkat, AT_FDCWD, path, 0);
  if (done == 0 && now.trace >= 0) trace(now, 'u', path, 0, {});
  return static_cast<int>(done);
}

/// What statvfs(3) answers, of the quota where there is one.
template <typename Answer>
int look_at_disk(const char* path, Answer* answer) {
  struct statfs system {};
  if (::syscall(SYS_statfs, path, &system) != 0) return -1;
  *answer = {};
  answer->f_bsize = static_cast<unsigned long>(system.f_bsize);
  answer->f_frsize = static_cast<unsigned long>(system.f_frsize != 0 ? system.f_frsize : system.f_bsize);
  answer->f_blocks = system.f_blocks;
  answer->f_bfree = system.f_bfree;
  answer->f_bavail = system.f_bavail;
  State& now = state();
  const std::lock_guard guard(now.mutex);
  if (now.quota_bytes != 0 && std::string_view(path).starts_with(now.quota_folder)) {
    const std::uint64_t used = used_of(now.quota_folder);
    answer->f_frsize = 4096;
    answer->f_blocks = now.quota_bytes / 4096;
    answer->f_bfree = answer->f_bavail = (now.quota_bytes - std::min(used, now.quota_bytes)) / 4096;
  }
  return 0;
}

int reserve(int fd, std::int64_t offset, std::int64_t length) {
  State& now = state();
  const std::lock_guard guard(now.mutex);
  if (over_quota(now, fd, static_cast<std::uint64_t>(offset + length))) return ENOSPC;
  return ::syscall(SYS_fallocate, fd, 0, offset, length) == 0 ? 0 : errno;
}

}  // namespace
}  // namespace towline::faults

// The names that the C library's headers give to the calls, 32-bit offsets or not.
extern "C" {
ssize_t pwrite(int fd, const void* bytes, size_t length, off_t offset) {
  return towline::faults::write_at(fd, bytes, length, offset);
}
ssize_t pwrite64(int fd, const void* bytes, size_t length, off64_t offset) {
  return towline::faults::write_at(fd, bytes, length, offset);
}
int statvfs(const char* path, struct statvfs* answer) noexcept {
  return towline::faults::look_at_disk(path, answer);
}
int statvfs64(const char* path, struct statvfs64* answer) noexcept {
  return towline::faults::look_at_disk(path, answer);
}
int fsync(int fd) { return towline::faults::sync_file(fd, SYS_fsync); }
int fdatasync(int fd) { return towline::faults::sync_file(fd, SYS_fdatasync); }
int ftruncate(int fd, off_t length) noexcept { return towline::faults::truncate_file(fd, length); }
int ftruncate64(int fd, off64_t length) noexcept { return towline::faults::truncate_file(fd, length); }
int unlink(const char* path) noexcept { return towline::faults::remove_file(path); }
int posix_fallocate(int fd, off_t offset, off_t length) {
  return towline::faults::reserve(fd, offset, length);
}
int posix_fallocate64(int fd, off64_t offset, off64_t length) {
  return towline::faults::reserve(fd, offset, length);
}
int fallocate(int fd, int mode, off_t offset, off_t length) {
  if (mode != 0) return static_cast<int>(::syscall(SYS_fallocate, fd, mode, offset, length));
  const int error = towline::faults::reserve(fd, offset, length);
  if (error == 0) return 0;
  errno = error;
  return -1;
}
}
