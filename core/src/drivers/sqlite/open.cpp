// Opening: the parameters of the URL, and what its path names.

#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "drivers/sqlite/file_locks.hpp"
#include "drivers/sqlite/provider.hpp"
#include "drivers/sqlite/schema.hpp"
#include "drivers/sqlite/sqlite.hpp"

namespace towline::drivers {

using sqlite::Database;
using sqlite::Handle;
using sqlite::Settings;

namespace {

Error refuse(ErrorCode code, const std::string& path, std::string_view why) {
  return {code, path + " " + std::string(why)};
}

std::uint32_t big_endian(const unsigned char* bytes) {
  return std::uint32_t{bytes[0]} << 24 | std::uint32_t{bytes[1]} << 16 | std::uint32_t{bytes[2]} << 8 |
         bytes[3];
}

/// The first page of a database says whose it is. What another program has made gets not even a lock file
/// beside it.
Result<void> check_header(const std::string& path) {
  constexpr std::size_t kUserVersion = 60;
  constexpr std::size_t kApplicationId = 68;
  unsigned char header[100] = {};
  const int file = sqlite::open_shared_file(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK, 0);
  if (file < 0) return Error{ErrorCode::kIoError, path + " cannot be read: " + std::strerror(errno), errno};
  const ssize_t size = ::pread(file, header, sizeof header, 0);
  sqlite::close_shared_file(file);
  // A store that was being made when the power went has its first page in the rollback journal.
  struct stat journal {};
  if (::stat((path + "-journal").c_str(), &journal) == 0 && journal.st_size > 0) return {};
  if (size != static_cast<ssize_t>(sizeof header) || std::memcmp(header, "SQLite format 3", 16) != 0)
    return refuse(ErrorCode::kNotAStore, path, "is not a towline store; name another file");
  const std::uint32_t application = big_endian(header + kApplicationId);
  const std::uint32_t version = big_endian(header + kUserVersion);
  if (application == 0 && version == 0) return {};  // perhaps its tables are still in the write-ahead log
  if (application != static_cast<std::uint32_t>(sqlite::kApplicationId)) return sqlite::foreign_file(path);
  if (version > sqlite::migrations().size()) return sqlite::newer_file(path, version);
  return {};
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
  if (::faccessat(AT_FDCWD, path.c_str(), R_OK | W_OK, AT_EACCESS) != 0) {
    const int reason = errno;
    return Error{ErrorCode::kIoError,
                 path + " cannot be read and written: " + std::string(std::strerror(reason)), reason};
  }
  return found.st_size == 0 ? Result<void>{} : check_header(path);
}

Result<std::uint64_t> bytes_of(const std::string& name, const std::string& value) {
  constexpr std::uint64_t kReserveMax = std::uint64_t{1} << 40;
  std::uint64_t bytes = 0;
  const auto [end, bad] = std::from_chars(value.data(), value.data() + value.size(), bytes);
  if (bad == std::errc{} && end == value.data() + value.size() && bytes <= kReserveMax) return bytes;
  return Error{ErrorCode::kInvalidConfig,
               name + " is '" + value + "'; it must be a number of bytes in [0, 1099511627776]"};
}

Result<void> set(Settings& settings, const spi::DriverOptions& options) {
  for (const auto& [name, value] : options.parameters) {
    if (name == "synchronous") {
      if (value != "full" && value != "normal")
        return Error{ErrorCode::kInvalidConfig, "synchronous must be 'full' or 'normal'"};
      settings.synchronous_full = value == "full";
    } else if (name == "disk_reserve_bytes") {
      const auto bytes = bytes_of(name, value);
      if (!bytes) return bytes.error();
      settings.disk_reserve_bytes = *bytes;
    } else if (name == "vfs" && !options.threads) {
      settings.vfs = value;
    } else {
      return Error{ErrorCode::kInvalidConfig, "sqlite: does not know the parameter \"" + name +
                                                  "\"; it has synchronous and disk_reserve_bytes"};
    }
  }
  return {};
}

/// The open files of this process. Its engines share a Database, and so the connection, the queue of writers
/// and what is known in memory; the file is told by what it is, not by the path that leads to it.
struct OpenFile {
  /// Held while the file is opened, which may take long: looking over one file after a crash keeps nobody
  /// from opening another.
  std::mutex mutex;
  std::weak_ptr<Database> database;
  /// It was let go of in a child that had inherited it.
  std::shared_ptr<std::atomic<bool>> orphaned = std::make_shared<std::atomic<bool>>(false);
};

struct OpenFiles {
  std::mutex mutex;
  std::map<std::pair<dev_t, ino_t>, std::shared_ptr<OpenFile>> files;
};

OpenFiles& open_files() {
  // Never destroyed: an engine may be closed by the destructor of a static.
  static auto* files = new OpenFiles;
  return *files;
}

Result<void> check_same(const Settings& wanted, const Settings& has) {
  const char* differs = wanted.synchronous_full != has.synchronous_full       ? "synchronous"
                        : wanted.disk_reserve_bytes != has.disk_reserve_bytes ? "disk_reserve_bytes"
                                                                              : nullptr;
  if (differs == nullptr) return {};
  return Error{ErrorCode::kInvalidConfig,
               wanted.path + " is open in this process with another " + differs + "; open it with the same"};
}

/// The place of the file among those that are open.
std::shared_ptr<OpenFile> place_of(const std::string& path) {
  struct stat found {};
  if (::stat(path.c_str(), &found) != 0) return std::make_shared<OpenFile>();
  OpenFiles& open = open_files();
  const std::lock_guard lock(open.mutex);
  // Whoever has a place takes it under this lock, so nobody is about to use one that only the map holds.
  std::erase_if(open.files, [](const auto& entry) {
    const OpenFile& file = *entry.second;
    return entry.second.use_count() == 1 && file.database.expired() && !file.orphaned->load();
  });
  std::shared_ptr<OpenFile>& file = open.files[{found.st_dev, found.st_ino}];
  if (file == nullptr) file = std::make_shared<OpenFile>();
  return file;
}

Result<std::shared_ptr<Database>> open_database(Settings settings, sqlite::Moment now) {
  const bool shares = settings.vfs.empty() && settings.threads;
  const auto file = shares ? place_of(settings.path) : std::make_shared<OpenFile>();
  const std::lock_guard lock(file->mutex);
  auto database = file->database.lock();
  // SQLite keeps a list of the locks of this process, and a child has inherited that list with locks that
  // are the parent's: even a new connection to the file would trust it.
  if (file->orphaned->load() || (database != nullptr && database->forked())) {
    return refuse(ErrorCode::kForked, settings.path,
                  "was opened before fork(); open it only after fork(), or close it before");
  }
  if (database != nullptr) {
    if (auto same = check_same(settings, database->settings()); !same) return std::move(same).error();
    return database;
  }
  database.reset(new Database(std::move(settings)), [orphaned = file->orphaned](Database* last) {
    if (!last->forked()) {
      delete last;
      return;
    }
    // The threads that wait for it are the parent's: a condition that has waiters cannot be destroyed.
    orphaned->store(true);
  });
  if (auto opened = database->open(now); !opened) return std::move(opened).error();
  file->database = database;
  return database;
}

}  // namespace

Result<spi::Provider> open_sqlite(const spi::DriverOptions& options) {
  if (options.clock == nullptr) return Error{ErrorCode::kInvalidArgument, "DriverOptions::clock is null"};
  Settings settings;
  settings.path = options.location;
  settings.threads = options.threads;
  settings.batch_count_max = options.batch_count_max;
  settings.batch_bytes_max = options.batch_bytes_max;
  // So that the few messages of a simulated world meet what else only many do.
  if (!options.threads) {
    settings.due_recent_max = 3;
    settings.settled_behind_max = 2;
  }
  if (auto bad = set(settings, options); !bad) return std::move(bad).error();
  if (settings.vfs.empty()) {
    if (auto bad = check_path(settings.path); !bad) return std::move(bad).error();
  }
  auto opened = open_database(std::move(settings), {options.clock->now(), options.clock->monotonic()});
  if (!opened) return std::move(opened).error();
  const Handle handle{std::move(*opened), options.clock, options.threads,
                      std::make_shared<const sqlite::Log>(options.log)};
  handle.database->add_log(handle.log);
  spi::Provider provider;
  provider.findings = handle.database->findings();
  provider.store = std::make_shared<sqlite::SqliteStore>(handle);
  provider.transport = std::make_shared<sqlite::SqliteTransport>(handle);
  return provider;
}

}  // namespace towline::drivers
