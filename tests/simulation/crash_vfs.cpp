// What is not synced is kept as a list of changes with the bytes that they overwrote. A sync forgets the
// list; a loss of power takes all of them back and then does again those that the disk is drawn to have kept.

#include "simulation/crash_vfs.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

namespace towline::simulation {
namespace {

constexpr std::uint64_t kSectorBytes = 512;
/// What SQLite is told, as on Linux.
constexpr int kSectorTold = 4096;
constexpr std::size_t kShmLockCount = 8;
constexpr sqlite3_int64 kJulianMs = 212'000'000'000'000;
constexpr double kTornChance = 0.3;

struct Shm {
  std::vector<std::unique_ptr<char[]>> regions;
};

}  // namespace

struct CrashFile {
  enum class State : std::uint8_t { kWritten, kSynced, kLost };
  struct Change {
    State state = State::kWritten;
    bool cuts = false;
    std::uint64_t offset = 0;  ///< or the size that it was cut to
    std::uint64_t length = 0;
    std::uint64_t old_size = 0;
    std::string old_bytes;
    std::string new_bytes{};  ///< while the power is being lost
  };

  std::uint64_t number = 0;
  std::string bytes;
  std::vector<Change> changes;
  bool has_lost = false;
  std::vector<CrashHandle*> handles;
  std::shared_ptr<Shm> shm;

  void write(std::uint64_t offset, std::string_view data, bool remember = true) {
    Change change;
    change.offset = offset;
    change.length = data.size();
    change.old_size = bytes.size();
    if (remember && offset < bytes.size()) change.old_bytes = bytes.substr(offset, data.size());
    if (offset + data.size() > bytes.size()) bytes.resize(offset + data.size());
    bytes.replace(offset, data.size(), data);
    if (remember) changes.push_back(std::move(change));
  }
  void cut(std::uint64_t size) {
    Change change;
    change.cuts = true;
    change.offset = size;
    change.old_size = bytes.size();
    if (size < bytes.size()) change.old_bytes = bytes.substr(size);
    bytes.resize(size);
    changes.push_back(std::move(change));
  }
  void sync(bool works) {
    has_lost = has_lost || (!works && !changes.empty());
    if (!has_lost) return changes.clear();
    for (Change& change : changes) {
      if (change.state == State::kWritten) change.state = works ? State::kSynced : State::kLost;
    }
  }
  void lose(Dice& dice, DiskFigures& figures);

 private:
  void take_back();
  void keep_some(const Change& change, double kept, std::set<std::uint64_t>& gone, Dice& dice,
                 DiskFigures& figures);
};

struct CrashHandle {
  std::shared_ptr<CrashFile> file;
  CrashMachine* machine = nullptr;
  std::string name;
  bool dead = false;
  bool is_temporary = false;
  bool syncs_folder = false;
  int lock = SQLITE_LOCK_NONE;
  std::shared_ptr<Shm> shm;
  unsigned shared = 0;
  unsigned exclusive = 0;
};

void CrashFile::take_back() {
  for (auto it = changes.rbegin(); it != changes.rend(); ++it) {
    if (!it->cuts) it->new_bytes = bytes.substr(it->offset, it->length);
    bytes.resize(it->old_size);
    bytes.replace(it->offset, it->old_bytes.size(), it->old_bytes);
  }
}

void CrashFile::keep_some(const Change& change, double kept, std::set<std::uint64_t>& gone, Dice& dice,
                          DiskFigures& figures) {
  const std::uint64_t end = change.offset + change.length;
  bool whole = true;
  for (std::uint64_t at = change.offset; at < end;) {
    const std::uint64_t sector = at / kSectorBytes;
    const std::uint64_t until = std::min(end, (sector + 1) * kSectorBytes);
    const std::string_view part = std::string_view(change.new_bytes).substr(at - change.offset, until - at);
    if (gone.contains(sector)) {
      whole = false;
    } else if (dice.chance(kept)) {
      write(at, part, false);
    } else {
      whole = false;
      gone.insert(sector);
      if (dice.chance(kTornChance)) {
        write(at, part.substr(0, dice.below(part.size())), false);
        ++figures.torn_writes;
      }
    }
    at = until;
  }
  if (!whole) ++figures.lost_writes;
}

void CrashFile::lose(Dice& dice, DiskFigures& figures) {
  const double kept = dice.pick({0.0, 0.5, 0.9, 0.99, 1.0});
  const std::uint64_t size_last = bytes.size();
  take_back();
  std::set<std::uint64_t> gone;
  for (const Change& change : changes) {
    if (change.state == State::kLost) continue;
    const bool surely = change.state == State::kSynced;
    if (!change.cuts) {
      keep_some(change, surely ? 1.0 : kept, gone, dice, figures);
    } else if (surely || dice.chance(kept)) {
      bytes.resize(change.offset);
    } else {
      ++figures.lost_writes;
    }
  }
  // The size may be on the disk without what belongs there.
  if (bytes.size() < size_last && !has_lost && dice.chance(kTornChance)) bytes.resize(size_last);
  changes.clear();
  has_lost = false;
}

// ---- what SQLite calls ----------------------------------------------------------------------------

/// SQLite's view of an open file: its methods, and behind them ours.
struct CrashMethods {
  struct Open {
    sqlite3_file base;
    CrashHandle* handle;
  };
  static CrashHandle& of(sqlite3_file* file) { return *reinterpret_cast<Open*>(file)->handle; }
  static CrashMachine& of(sqlite3_vfs* vfs) { return *static_cast<CrashMachine*>(vfs->pAppData); }

  static void detach(CrashHandle& handle) {
    std::erase(handle.file->handles, &handle);
    const bool last = std::none_of(handle.file->handles.begin(), handle.file->handles.end(),
                                   [](const CrashHandle* other) { return other->shm != nullptr; });
    if (last) handle.file->shm.reset();
    handle.lock = SQLITE_LOCK_NONE;
    handle.shared = handle.exclusive = 0;
  }

  static int close(sqlite3_file* file) {
    auto* open = reinterpret_cast<Open*>(file);
    const std::unique_ptr<CrashHandle> handle(std::exchange(open->handle, nullptr));
    if (handle == nullptr) return SQLITE_OK;
    std::erase(handle->machine->handles_, handle.get());
    if (handle->dead) return SQLITE_OK;
    detach(*handle);
    if (handle->is_temporary && !handle->name.empty()) handle->machine->disk_.erase(handle->name);
    return SQLITE_OK;
  }

  static int read(sqlite3_file* file, void* into, int count, sqlite3_int64 offset) {
    const CrashHandle& handle = of(file);
    if (handle.dead) return SQLITE_IOERR_READ;
    const std::string& bytes = handle.file->bytes;
    const auto from = std::min(static_cast<std::size_t>(offset), bytes.size());
    const auto wanted = static_cast<std::size_t>(count);
    const std::size_t there = std::min(wanted, bytes.size() - from);
    std::memcpy(into, bytes.data() + from, there);
    if (there == wanted) return SQLITE_OK;
    std::memset(static_cast<char*>(into) + there, 0, wanted - there);
    return SQLITE_IOERR_SHORT_READ;
  }

  static int write(sqlite3_file* file, const void* from, int count, sqlite3_int64 offset) {
    CrashHandle& handle = of(file);
    CrashDisk& disk = handle.machine->disk_;
    if (handle.dead || !disk.has_power()) return SQLITE_IOERR_WRITE;
    std::string_view data(static_cast<const char*>(from), static_cast<std::size_t>(count));
    const auto at = static_cast<std::uint64_t>(offset);
    int answer = SQLITE_OK;
    if (disk.strikes(*handle.machine, disk.faults_.bad_write)) {
      ++disk.figures_.bad_writes;
      handle.machine->has_failed_ = true;
      data = data.substr(0, disk.dice_.below(data.size()));
      answer = SQLITE_IOERR_WRITE;
    } else if (const std::uint64_t room = disk.room_for(*handle.machine, *handle.file, at, data.size());
               room < data.size()) {
      ++disk.figures_.full;
      data = data.substr(0, room);
      answer = SQLITE_FULL;
    }
    ++disk.figures_.writes;
    handle.file->write(at, data);
    disk.log(CrashDisk::Deed::kWrite, handle.file->number, at, data);
    return answer;
  }

  static int truncate(sqlite3_file* file, sqlite3_int64 size) {
    CrashHandle& handle = of(file);
    if (handle.dead || !handle.machine->disk_.has_power()) return SQLITE_IOERR_TRUNCATE;
    handle.file->cut(static_cast<std::uint64_t>(size));
    handle.machine->disk_.log(CrashDisk::Deed::kTruncate, handle.file->number,
                              static_cast<std::uint64_t>(size), {});
    return SQLITE_OK;
  }

  static int sync(sqlite3_file* file, int) {
    CrashHandle& handle = of(file);
    CrashDisk& disk = handle.machine->disk_;
    if (handle.dead || !disk.has_power()) return SQLITE_IOERR_FSYNC;
    const bool fails = disk.strikes(*handle.machine, disk.faults_.bad_sync);
    ++disk.figures_.syncs;
    handle.file->sync(!fails);
    disk.log(fails ? CrashDisk::Deed::kFailedSync : CrashDisk::Deed::kSync, handle.file->number, 0, {});
    if (fails) {
      ++disk.figures_.bad_syncs;
      handle.machine->has_failed_ = true;
      return SQLITE_IOERR_FSYNC;
    }
    // As SQLite does it on Unix: the folder goes with the first sync of a new journal or log.
    if (std::exchange(handle.syncs_folder, false)) disk.sync_folder();
    return SQLITE_OK;
  }

  static int file_size(sqlite3_file* file, sqlite3_int64* size) {
    const CrashHandle& handle = of(file);
    if (handle.dead) return SQLITE_IOERR_FSTAT;
    *size = static_cast<sqlite3_int64>(handle.file->bytes.size());
    return SQLITE_OK;
  }

  static bool others_hold(const CrashHandle& handle, int level) {
    const auto& all = handle.file->handles;
    return std::any_of(all.begin(), all.end(),
                       [&](const CrashHandle* other) { return other != &handle && other->lock >= level; });
  }

  static int lock(sqlite3_file* file, int level) {
    CrashHandle& handle = of(file);
    if (handle.dead) return SQLITE_IOERR_LOCK;
    if (handle.lock >= level) return SQLITE_OK;
    if (level == SQLITE_LOCK_SHARED) {
      if (others_hold(handle, SQLITE_LOCK_PENDING)) return SQLITE_BUSY;
    } else if (level == SQLITE_LOCK_RESERVED) {
      if (others_hold(handle, SQLITE_LOCK_RESERVED)) return SQLITE_BUSY;
    } else {
      if (others_hold(handle, SQLITE_LOCK_RESERVED)) return SQLITE_BUSY;
      // From now on nobody comes in; whoever is in may leave.
      handle.lock = SQLITE_LOCK_PENDING;
      if (others_hold(handle, SQLITE_LOCK_SHARED)) return SQLITE_BUSY;
    }
    handle.lock = level;
    return SQLITE_OK;
  }

  static int unlock(sqlite3_file* file, int level) {
    CrashHandle& handle = of(file);
    handle.lock = std::min(handle.lock, level);
    return SQLITE_OK;
  }

  static int check_reserved(sqlite3_file* file, int* reserved) {
    const CrashHandle& handle = of(file);
    *reserved = handle.lock >= SQLITE_LOCK_RESERVED || others_hold(handle, SQLITE_LOCK_RESERVED);
    return SQLITE_OK;
  }

  static int control(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
  static int sector_size(sqlite3_file*) { return kSectorTold; }
  static int characteristics(sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }

  // ---- shared memory ----

  static int shm_map(sqlite3_file* file, int region, int size, int extend, void volatile** address) {
    CrashHandle& handle = of(file);
    *address = nullptr;
    if (handle.dead) return SQLITE_IOERR_SHMMAP;
    CrashFile& inode = *handle.file;
    if (inode.shm == nullptr) inode.shm = std::make_shared<Shm>();
    handle.shm = inode.shm;
    auto& regions = inode.shm->regions;
    const auto wanted = static_cast<std::size_t>(region);
    if (wanted >= regions.size() && extend == 0) return SQLITE_OK;
    while (regions.size() <= wanted)
      regions.push_back(std::make_unique<char[]>(static_cast<std::size_t>(size)));
    *address = regions[wanted].get();
    return SQLITE_OK;
  }

  static int shm_lock(sqlite3_file* file, int from, int count, int flags) {
    CrashHandle& handle = of(file);
    const unsigned mask = ((1U << count) - 1) << from;
    if ((flags & SQLITE_SHM_UNLOCK) != 0) {
      ((flags & SQLITE_SHM_SHARED) != 0 ? handle.shared : handle.exclusive) &= ~mask;
      return SQLITE_OK;
    }
    if (handle.dead || from + count > static_cast<int>(kShmLockCount)) return SQLITE_IOERR_SHMLOCK;
    const bool shares = (flags & SQLITE_SHM_SHARED) != 0;
    for (const CrashHandle* other : handle.file->handles) {
      if (other == &handle) continue;
      const unsigned in_the_way = shares ? other->exclusive : other->exclusive | other->shared;
      if ((in_the_way & mask) != 0) return SQLITE_BUSY;
    }
    (shares ? handle.shared : handle.exclusive) |= mask;
    return SQLITE_OK;
  }

  static void shm_barrier(sqlite3_file*) {}

  static int shm_unmap(sqlite3_file* file, int) {
    CrashHandle& handle = of(file);
    handle.shared = handle.exclusive = 0;
    handle.shm.reset();
    if (handle.dead) return SQLITE_OK;
    const auto& all = handle.file->handles;
    const bool last =
        std::none_of(all.begin(), all.end(), [](const CrashHandle* other) { return other->shm != nullptr; });
    if (last) handle.file->shm.reset();
    return SQLITE_OK;
  }

  // ---- names ----

  static int open(sqlite3_vfs* vfs, const char* path, sqlite3_file* file, int flags, int* flags_out) {
    auto* opened = reinterpret_cast<Open*>(file);
    opened->base.pMethods = nullptr;
    CrashMachine& machine = of(vfs);
    if (!machine.alive_) return SQLITE_CANTOPEN;
    CrashDisk& disk = machine.disk_;
    auto handle = std::make_unique<CrashHandle>();
    handle->machine = &machine;
    handle->is_temporary = (flags & SQLITE_OPEN_DELETEONCLOSE) != 0;
    if (path == nullptr) {
      handle->file = std::make_shared<CrashFile>();
    } else {
      handle->name = path;
      handle->file = disk.find(path);
      if (handle->file == nullptr) {
        if ((flags & SQLITE_OPEN_CREATE) == 0 || !disk.has_power()) return SQLITE_CANTOPEN;
        handle->file = disk.create(path);
        constexpr int kJournals = SQLITE_OPEN_SUPER_JOURNAL | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL;
        handle->syncs_folder = (flags & kJournals) != 0;
      }
    }
    handle->file->handles.push_back(handle.get());
    machine.handles_.push_back(handle.get());
    if (flags_out != nullptr) *flags_out = flags;
    opened->handle = handle.release();
    opened->base.pMethods = &kMethods;
    return SQLITE_OK;
  }

  static int erase(sqlite3_vfs* vfs, const char* path, int syncs) {
    CrashMachine& machine = of(vfs);
    if (!machine.alive_) return SQLITE_IOERR_DELETE;
    if (machine.disk_.find(path) == nullptr) return SQLITE_IOERR_DELETE_NOENT;
    if (!machine.disk_.has_power()) return SQLITE_IOERR_DELETE;
    machine.disk_.erase(path);
    if (syncs != 0) machine.disk_.sync_folder();
    return SQLITE_OK;
  }

  static int access(sqlite3_vfs* vfs, const char* path, int flags, int* answer) {
    CrashMachine& machine = of(vfs);
    if (!machine.alive_) return SQLITE_IOERR_ACCESS;
    const auto file = machine.disk_.find(path);
    // An empty file is none, as on Unix.
    *answer = file != nullptr && (flags != SQLITE_ACCESS_EXISTS || !file->bytes.empty());
    return SQLITE_OK;
  }

  static int full_path(sqlite3_vfs*, const char* path, int size, char* full) {
    if (std::strlen(path) >= static_cast<std::size_t>(size)) return SQLITE_CANTOPEN;
    std::strcpy(full, path);
    return SQLITE_OK;
  }

  static int randomness(sqlite3_vfs* vfs, int size, char* bytes) {
    for (int i = 0; i < size; ++i)
      bytes[i] = static_cast<char>(of(vfs).disk_.dice_.below(256));
    return size;
  }

  // Nobody waits: in the simulator whoever holds a lock goes on only when this thread comes back.
  static int wait(sqlite3_vfs*, int microseconds) { return microseconds; }
  static int last_error(sqlite3_vfs*, int, char*) { return 0; }
  static int time(sqlite3_vfs*, double* days) {
    *days = static_cast<double>(kJulianMs) / 86'400'000.0;
    return SQLITE_OK;
  }
  static int time_ms(sqlite3_vfs*, sqlite3_int64* milliseconds) {
    *milliseconds = kJulianMs;
    return SQLITE_OK;
  }

  static constexpr sqlite3_io_methods kMethods = {
      2,         close,          read,    write,       truncate,        sync,    file_size, lock,
      unlock,    check_reserved, control, sector_size, characteristics, shm_map, shm_lock,  shm_barrier,
      shm_unmap, nullptr,        nullptr};
};

// ---- machines -------------------------------------------------------------------------------------

CrashMachine::CrashMachine(CrashDisk& disk, bool can_be_disturbed)
    : disk_(disk),
      name_([] {
        static std::uint64_t last = 0;
        return "crash-" + std::to_string(++last);
      }()),
      can_be_disturbed_(can_be_disturbed) {
  vfs_.iVersion = 2;
  vfs_.szOsFile = sizeof(CrashMethods::Open);
  vfs_.mxPathname = 512;
  vfs_.zName = name_.c_str();
  vfs_.pAppData = this;
  vfs_.xOpen = CrashMethods::open;
  vfs_.xDelete = CrashMethods::erase;
  vfs_.xAccess = CrashMethods::access;
  vfs_.xFullPathname = CrashMethods::full_path;
  vfs_.xRandomness = CrashMethods::randomness;
  vfs_.xSleep = CrashMethods::wait;
  vfs_.xCurrentTime = CrashMethods::time;
  vfs_.xGetLastError = CrashMethods::last_error;
  vfs_.xCurrentTimeInt64 = CrashMethods::time_ms;
  sqlite3_vfs_register(&vfs_, 0);
  disk_.machines_.push_back(this);
}

CrashMachine::~CrashMachine() {
  sqlite3_vfs_unregister(&vfs_);
  std::erase(disk_.machines_, this);
}

void CrashMachine::kill() {
  alive_ = false;
  for (CrashHandle* handle : handles_) {
    if (std::exchange(handle->dead, true)) continue;
    // What it mapped stays readable for whoever closes the connection.
    const std::shared_ptr<Shm> kept = std::exchange(handle->shm, nullptr);
    CrashMethods::detach(*handle);
    handle->shm = kept;
  }
}

// ---- the disk -------------------------------------------------------------------------------------

CrashDisk::CrashDisk(std::uint64_t seed) : dice_(seed) {}
CrashDisk::~CrashDisk() = default;

std::uint64_t CrashDisk::used() const noexcept {
  std::uint64_t bytes = 0;
  for (const auto& [name, file] : folder_.names)
    bytes += file->bytes.size();
  return bytes;
}

std::uint64_t CrashDisk::room_for(const CrashMachine& machine, const CrashFile& file, std::uint64_t offset,
                                  std::uint64_t count) const noexcept {
  const std::uint64_t size = file.bytes.size();
  if (capacity_ == UINT64_MAX || !machine.can_be_disturbed_ || offset + count <= size) return count;
  const std::uint64_t grows = offset + count - size;
  const std::uint64_t taken = used();
  const std::uint64_t free = taken < capacity_ ? capacity_ - taken : 0;
  if (grows <= free) return count;
  const std::uint64_t missing = grows - free;
  return missing < count ? count - missing : 0;
}

std::optional<std::string> CrashDisk::content(std::string_view file) const {
  const auto found = find(file);
  return found == nullptr ? std::nullopt : std::optional(found->bytes);
}

CrashDisk::FilePtr CrashDisk::find(std::string_view name) const {
  const auto found = folder_.names.find(name);
  return found == folder_.names.end() ? nullptr : found->second;
}

CrashDisk::FilePtr CrashDisk::create(const std::string& name) {
  auto file = std::make_shared<CrashFile>();
  file->number = ++file_last_;
  folder_.names[name] = file;
  folder_.pending.emplace_back(name, file);
  log(Deed::kCreate, file->number, 0, name);
  return file;
}

void CrashDisk::erase(const std::string& name) {
  if (folder_.names.erase(name) == 0) return;
  folder_.pending.emplace_back(name, nullptr);
  log(Deed::kDelete, 0, 0, name);
}

void CrashDisk::sync_folder() {
  folder_.durable = folder_.names;
  folder_.pending.clear();
  log(Deed::kSyncFolder, 0, 0, {});
}

void CrashDisk::log(Deed deed, std::uint64_t file, std::uint64_t offset, std::string_view bytes) {
  if (records_) log_.push_back({deed, file, offset, std::string(bytes)});
}

CrashDisk::Folder CrashDisk::copy() const {
  std::map<const CrashFile*, FilePtr> copies;
  const auto copy_of = [&](const FilePtr& file) -> FilePtr {
    if (file == nullptr) return nullptr;
    FilePtr& copied = copies[file.get()];
    if (copied != nullptr) return copied;
    copied = std::make_shared<CrashFile>();
    copied->number = file->number;
    copied->bytes = file->bytes;
    copied->changes = file->changes;
    copied->has_lost = file->has_lost;
    return copied;
  };
  Folder all;
  for (const auto& [name, file] : folder_.names)
    all.names[name] = copy_of(file);
  for (const auto& [name, file] : folder_.durable)
    all.durable[name] = copy_of(file);
  for (const auto& [name, file] : folder_.pending)
    all.pending.emplace_back(name, copy_of(file));
  return all;
}

void CrashDisk::begin_recording() {
  recorded_from_ = copy();
  log_.clear();
  records_ = true;
}

void CrashDisk::end_recording() {
  records_ = false;
  recorded_from_ = {};
  log_.clear();
}

void CrashDisk::repeat(const Logged& logged, std::map<std::uint64_t, FilePtr>& files) {
  const auto file = files.find(logged.file);
  const bool known = file != files.end();
  switch (logged.deed) {
    case Deed::kWrite:
      if (known) file->second->write(logged.offset, logged.bytes);
      break;
    case Deed::kTruncate:
      if (known) file->second->cut(logged.offset);
      break;
    case Deed::kSync:
    case Deed::kFailedSync:
      if (known) file->second->sync(logged.deed == Deed::kSync);
      break;
    case Deed::kCreate:
      files[logged.file] = create(logged.bytes);
      break;
    case Deed::kDelete:
      erase(logged.bytes);
      break;
    case Deed::kSyncFolder:
      sync_folder();
      break;
  }
}

void CrashDisk::power_loss_after(std::size_t count, std::uint64_t seed) {
  kill_all();
  const std::vector<Logged> done = std::exchange(log_, {});
  records_ = false;
  folder_ = std::exchange(recorded_from_, {});
  std::map<std::uint64_t, FilePtr> files;
  for (const auto& [name, file] : folder_.names)
    files[file->number] = file;
  for (std::size_t i = 0; i < std::min(count, done.size()); ++i)
    repeat(done[i], files);
  lose(seed);
}

bool CrashDisk::has_power() {
  if (deeds_left_ == UINT64_MAX) return true;
  if (deeds_left_ > 0) {
    --deeds_left_;
    return true;
  }
  kill_all();
  return false;
}

void CrashDisk::power_loss(std::uint64_t seed) {
  deeds_left_ = UINT64_MAX;
  kill_all();
  end_recording();
  lose(seed);
}

void CrashDisk::kill_all() {
  for (CrashMachine* machine : machines_)
    machine->kill();
}

void CrashDisk::lose(std::uint64_t seed) {
  Dice dice(seed);
  ++figures_.power_losses;
  // Of each name a beginning of what happened to it.
  std::map<std::string, std::vector<FilePtr>> by_name;
  for (auto& [name, file] : folder_.pending)
    by_name[name].push_back(file);
  for (const auto& [name, history] : by_name) {
    const std::size_t kept = dice.below(history.size() + 1);
    if (kept < history.size()) ++figures_.lost_names;
    if (kept == 0) continue;
    if (history[kept - 1] == nullptr) {
      folder_.durable.erase(name);
    } else {
      folder_.durable[name] = history[kept - 1];
    }
  }
  folder_.pending.clear();
  folder_.names = folder_.durable;
  for (const auto& [name, file] : folder_.names)
    file->lose(dice, figures_);
}

bool CrashDisk::strikes(const CrashMachine& machine, double chance) {
  return chance > 0 && machine.can_be_disturbed_ && dice_.chance(chance);
}

CrashDisk::WalHead CrashDisk::wal_head(std::string_view database) const {
  constexpr std::size_t kCommitsAt = 8;
  constexpr std::size_t kFramesAt = 16;
  constexpr std::size_t kSaltAt = 32;
  const auto file = find(database);
  WalHead head;
  if (file == nullptr || file->shm == nullptr || file->shm->regions.empty()) return head;
  const char* index = file->shm->regions.front().get();
  std::memcpy(&head.commits, index + kCommitsAt, sizeof head.commits);
  std::memcpy(&head.frames, index + kFramesAt, sizeof head.frames);
  std::memcpy(&head.salt, index + kSaltAt, sizeof head.salt);
  return head;
}

}  // namespace towline::simulation
