// Opening: the parameters of the URL, and what its path names.

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "drivers/sqlite/provider.hpp"
#include "drivers/sqlite/sqlite.hpp"

namespace towline::drivers {

using sqlite::Database;
using sqlite::Handle;
using sqlite::Settings;

namespace {

Error refuse(ErrorCode code, const std::string& path, std::string_view why) {
  return {code, path + " " + std::string(why)};
}

/// What the path names, before SQLite touches it: a file of somebody else is left as it is.
Result<void> check_path(const std::string& path) {
  if (path.empty()) return Error{ErrorCode::kInvalidUrl, "sqlite: names no file; write sqlite:path"};
  struct stat found {};
  if (::stat(path.c_str(), &found) != 0) {
    if (errno == ENOENT) {
      // Made here, so that nobody else may read it whatever the umask; its log and index take over its
      // rights.
      const int made = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
      if (made >= 0) {
        (void)::fchmod(made, 0600);
        ::close(made);
        return {};
      }
      if (errno == EEXIST) return {};
    }
    const int reason = errno;
    return Error{ErrorCode::kInvalidUrl, path + " cannot be opened: " + std::string(std::strerror(reason)),
                 reason};
  }
  if (S_ISDIR(found.st_mode)) return refuse(ErrorCode::kNotAStore, path, "is a directory; name a file in it");
  if (!S_ISREG(found.st_mode))
    return refuse(ErrorCode::kNotAStore, path, "is not a regular file (a pipe, socket or device)");
  struct statfs system {};
  if (::statfs(path.c_str(), &system) == 0) {
    constexpr std::uint32_t kNetwork[] = {0x6969, 0x517B,     0xFF534D42, 0xFE534D42,
                                          0x564C, 0x73757245, 0x01021997};
    for (const std::uint32_t magic : kNetwork) {
      if (static_cast<std::uint32_t>(system.f_type) == magic)
        return refuse(ErrorCode::kNotAStore, path,
                      "is on a network file system, where locks cannot be trusted");
    }
  }
  if (found.st_size == 0) return {};
  char header[16] = {};
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0)
    return Error{ErrorCode::kInvalidUrl, path + " cannot be read: " + std::string(std::strerror(errno)),
                 errno};
  const ssize_t size = ::read(file, header, sizeof header);
  ::close(file);
  if (size != static_cast<ssize_t>(sizeof header) ||
      std::memcmp(header, "SQLite format 3", sizeof header) != 0)
    return refuse(ErrorCode::kNotAStore, path, "is not a towline store; name another file");
  return {};
}

Result<void> set(Settings& settings, const spi::DriverOptions& options) {
  for (const auto& [name, value] : options.parameters) {
    if (name == "synchronous") {
      if (value != "full" && value != "normal")
        return Error{ErrorCode::kInvalidConfig, "synchronous must be 'full' or 'normal'"};
      settings.synchronous_full = value == "full";
    } else if (name == "vfs" && !options.threads) {
      settings.vfs = value;
    } else {
      return Error{ErrorCode::kInvalidConfig, "sqlite: does not know the parameter \"" + name +
                                                  "\"; the only one it has is synchronous"};
    }
  }
  return {};
}

}  // namespace

Result<spi::Provider> open_sqlite(const spi::DriverOptions& options) {
  if (options.clock == nullptr) return Error{ErrorCode::kInvalidArgument, "DriverOptions::clock is null"};
  Settings settings;
  settings.path = options.location;
  settings.threads = options.threads;
  settings.batch_count_max = options.batch_count_max;
  settings.batch_bytes_max = options.batch_bytes_max;
  settings.log = options.log;
  if (auto bad = set(settings, options); !bad) return std::move(bad).error();
  if (settings.vfs.empty()) {
    if (auto bad = check_path(settings.path); !bad) return std::move(bad).error();
  }
  auto database = std::make_shared<Database>(settings);
  if (auto opened = database->open({options.clock->now(), options.clock->monotonic()}); !opened) {
    return std::move(opened).error();
  }
  const Handle handle{database, options.clock, options.threads};
  spi::Provider provider;
  provider.store = std::make_shared<sqlite::SqliteStore>(handle);
  provider.transport = std::make_shared<sqlite::SqliteTransport>(handle);
  return provider;
}

}  // namespace towline::drivers
