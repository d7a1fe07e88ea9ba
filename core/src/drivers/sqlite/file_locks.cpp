// Who holds the lock: for each file one descriptor, opened for this alone, so all connections of our copy are
// one holder, as SQLite expects of a process. It is closed in forked children, where it would keep the locks
// of a parent that has died.

#include "drivers/sqlite/file_locks.hpp"

#include <atomic>
#include <cerrno>
#include <compare>
#include <cstdarg>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/forks.hpp"

namespace towline::drivers::sqlite {
namespace {

struct Identity {
  dev_t device = 0;
  ino_t inode = 0;
  friend auto operator<=>(const Identity&, const Identity&) = default;
};

struct File {
  int owner = -1;  ///< holds the locks
  int open_count = 0;
  std::vector<int> parked;  ///< closed by SQLite, and given out again
};

int access_of(int flags) noexcept { return flags & O_ACCMODE; }

/// Nobody locks these.
bool is_log(std::string_view path) noexcept { return path.ends_with("-wal") || path.ends_with("-journal"); }

bool is_deleted(int file) noexcept {
  struct stat found {};
  return ::fstat(file, &found) == 0 && found.st_nlink == 0;
}

class Files {
 public:
  [[nodiscard]] std::uint64_t generation() const noexcept { return generation_; }

  int open(const char* path, int flags, int mode) {
    if (const int parked = take_parked(path, flags); parked >= 0) return parked;
    const int file = ::open(path, flags, mode);
    if (file < 0 || is_log(path)) return file;
    const std::lock_guard lock(mutex_);
    remember(file);
    return file;
  }

  int close(int file) {
    const std::lock_guard lock(mutex_);
    const auto known = open_.find(file);
    if (known == open_.end()) return ::close(file);
    const auto it = files_.find(known->second);
    open_.erase(known);
    it->second.parked.push_back(file);
    if (--it->second.open_count == 0 && is_free(it->second)) {
      give_up(it->second);
      files_.erase(it);
    }
    return 0;
  }

  int owner_of(int file) {
    const std::lock_guard lock(mutex_);
    File* found = remember(file);
    if (found == nullptr) return file;
    if (found->owner < 0) {
      const std::string path = "/proc/self/fd/" + std::to_string(file);
      found->owner = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
      if (found->owner < 0) found->owner = ::fcntl(file, F_DUPFD_CLOEXEC, 3);
      if (found->owner >= 0) base::close_in_child(found->owner);
    }
    return found->owner;
  }

 private:
  /// Null: it is not a regular file.
  File* remember(int file) {
    if (const auto known = open_.find(file); known != open_.end()) return &files_[known->second];
    struct stat found {};
    if (::fstat(file, &found) != 0 || !S_ISREG(found.st_mode)) return nullptr;
    const Identity identity{found.st_dev, found.st_ino};
    open_.emplace(file, identity);
    File& known = files_[identity];
    ++known.open_count;
    return &known;
  }

  int take_parked(const char* path, int flags) {
    const std::lock_guard lock(mutex_);
    if (files_.empty()) return -1;
    forget_unused();
    struct stat found {};
    if ((flags & (O_EXCL | O_TRUNC)) != 0 || ::stat(path, &found) != 0) return -1;
    const auto it = files_.find({found.st_dev, found.st_ino});
    if (it == files_.end()) return -1;
    for (int& parked : it->second.parked) {
      if (access_of(::fcntl(parked, F_GETFL)) != access_of(flags)) continue;
      const int file = std::exchange(parked, it->second.parked.back());
      it->second.parked.pop_back();
      open_.emplace(file, it->first);
      ++it->second.open_count;
      return file;
    }
    return -1;
  }

  void forget_unused() {
    for (auto it = files_.begin(); it != files_.end();) {
      if (it->second.open_count > 0 || !is_free(it->second)) {
        ++it;
        continue;
      }
      give_up(it->second);
      it = files_.erase(it);
    }
  }

  /// Whether closing takes no lock from anybody. Of a file that others have open this leaves nothing locked;
  /// of one that nobody has, it keeps everybody away until it is closed.
  static bool is_free(const File& file) noexcept {
    const int probe = file.owner >= 0 ? file.owner : file.parked.front();
    if (is_deleted(probe)) return true;
    struct flock all {};
    all.l_type = F_WRLCK;
    all.l_whence = SEEK_SET;
    if (::fcntl(probe, F_OFD_SETLK, &all) == 0) return true;
    if (errno != EBADF) return false;
    // Opened for reading, it can only ask.
    return ::fcntl(probe, F_OFD_GETLK, &all) == 0 && all.l_type == F_UNLCK;
  }

  static void give_up(File& file) noexcept {
    for (const int parked : file.parked)
      ::close(parked);
    if (file.owner < 0) return;
    base::forget_in_child(file.owner);
    ::close(file.owner);
  }

  const std::uint64_t generation_ = base::fork_generation();
  std::mutex mutex_;
  std::map<Identity, File> files_;
  std::unordered_map<int, Identity> open_;
};

Files& files() {
  static std::atomic<Files*> g_current{nullptr};
  Files* known = g_current.load();
  while (known == nullptr || known->generation() != base::fork_generation()) {
    // What a parent knew is not this process's, and its lock may have been held when it forked.
    auto made = std::make_unique<Files>();
    if (g_current.compare_exchange_strong(known, made.get())) return *made.release();
  }
  return *known;
}

int lock_file(int file, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  int owns = 0;
  if (command == F_SETLK) owns = F_OFD_SETLK;
  if (command == F_SETLKW) owns = F_OFD_SETLKW;
  if (command == F_GETLK) owns = F_OFD_GETLK;
  int done = 0;
  if (owns == 0) {
    done = ::fcntl(file, command, va_arg(arguments, int));
  } else {
    auto* asked = va_arg(arguments, struct flock*);
    struct flock lock = *asked;
    lock.l_pid = 0;
    done = ::fcntl(files().owner_of(file), owns, &lock);
    if (command == F_GETLK && done == 0) *asked = lock;
  }
  va_end(arguments);
  return done;
}

template <typename Function>
bool replace(sqlite3_vfs* vfs, const char* name, Function function) {
  return vfs->xSetSystemCall(vfs, name, reinterpret_cast<sqlite3_syscall_ptr>(function)) == SQLITE_OK;
}

}  // namespace

int open_shared_file(const char* path, int flags, int mode) { return files().open(path, flags, mode); }

int close_shared_file(int file) { return files().close(file); }

void own_file_locks() {
  static const bool done = [] {
    sqlite3_vfs* vfs = sqlite3_vfs_find("unix");
    return vfs != nullptr && replace(vfs, "open", &open_shared_file) &&
           replace(vfs, "close", &close_shared_file) && replace(vfs, "fcntl", &lock_file);
  }();
  (void)done;
}

}  // namespace towline::drivers::sqlite
