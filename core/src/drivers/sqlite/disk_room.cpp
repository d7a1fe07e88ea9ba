// Several processes keep one reserve together: it is a file, and whoever misses it makes it.

#include "drivers/sqlite/disk_room.hpp"

#include <limits>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

namespace towline::drivers::sqlite {
namespace {

constexpr auto kLookInterval = std::chrono::milliseconds(100);
/// So much more than the reserve must be free before it is made again, or the two would take turns; and so
/// much of it on the disk, where the reserve goes and the log may grow.
constexpr std::uint64_t kRoomy = 3;
constexpr std::uint64_t kPartBeside = 4;

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

DiskRoom::DiskRoom(std::string store_path, std::uint64_t bytes)
    : directory_(directory_of(store_path)), path_(std::move(store_path) + "-reserve"), bytes_(bytes) {}

std::uint64_t DiskRoom::free_bytes() const noexcept {
  struct statvfs system {};
  if (::statvfs(directory_.c_str(), &system) != 0) return std::numeric_limits<std::uint64_t>::max();
  return std::uint64_t{system.f_bavail} * system.f_frsize;
}

bool DiskRoom::keep(std::uint64_t inside_bytes) {
  if (bytes_ == 0) return true;
  struct stat found {};
  const bool whole =
      ::stat(path_.c_str(), &found) == 0 && static_cast<std::uint64_t>(found.st_blocks) * 512 >= bytes_;
  if (whole) {
    missing_ = false;
    return true;
  }
  missing_ = true;
  const std::uint64_t free = free_bytes();
  if (free < bytes_ + bytes_ / kPartBeside || (free + inside_bytes) / kRoomy < bytes_) return false;
  const int file = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (file < 0) return false;
  const bool made = ::posix_fallocate(file, 0, static_cast<off_t>(bytes_)) == 0;
  ::close(file);
  if (!made) ::unlink(path_.c_str());
  missing_ = !made;
  return made;
}

const Error* DiskRoom::full(std::chrono::steady_clock::time_point now, std::uint64_t growth_bytes,
                            const FreeInside& free_inside) {
  if (bytes_ == 0) {
    // Nobody looks at the disk, so this holds for the transaction that is tried again, and no longer.
    if (!std::exchange(given_up_, false)) full_.reset();
    return full_ ? &*full_ : nullptr;
  }
  const bool is_time = now >= next_look_;
  if (is_time) next_look_ = now + kLookInterval;
  // While there is room, every time: a quick disk is full between two looks, and then the reserve has to pay
  // for what was written.
  if (full_ && !is_time) return &*full_;
  const std::uint64_t free = free_bytes();
  if (free < bytes_ + growth_bytes) {
    next_look_ = now + kLookInterval;
    full_ = Error{ErrorCode::kStorageFull,
                  "the disk of " + directory_ + " has " + std::to_string(free) +
                      " bytes left, less than disk_reserve_bytes=" + std::to_string(bytes_) + " and " +
                      std::to_string(growth_bytes) +
                      " for what the log still holds; make room: publishing is refused, settling goes on"};
    return &*full_;
  }
  if (missing_ && is_time) (void)keep(free_inside ? free_inside() : 0);
  if (!missing_ || !given_up_) {
    given_up_ = false;
    full_.reset();
  }
  return full_ ? &*full_ : nullptr;
}

void DiskRoom::give_up() {
  given_up_ = missing_ = true;
  full_ = Error{ErrorCode::kStorageFull,
                "the disk of " + directory_ + " is full; make room: publishing is refused, settling goes on"};
  if (bytes_ == 0) return;
  ::unlink(path_.c_str());
  next_look_ = std::chrono::steady_clock::now() + kLookInterval;
}

}  // namespace towline::drivers::sqlite
