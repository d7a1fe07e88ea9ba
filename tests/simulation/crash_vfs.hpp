#pragma once
// A disk in memory for SQLite, that can lose its power. Files live in RAM and each knows which of its bytes
// were synced; power_loss() keeps those, and of what was only written a drawn subset, sector by sector and
// torn, as a disk with a write cache may. The same holds for names: what was created or deleted since the
// last sync of the folder may or may not be there.
//
// A sync that fails has lost what it should have brought to the disk: reading still shows it, and no later
// sync brings it there. That is what kernels do, and why nobody may try a sync twice.
//
// A machine is one process as the disk sees it: a sqlite3_vfs of its own under its own name. When it is
// killed, its locks and its shared memory are gone, and its open files answer SQLITE_IOERR from then on, so
// that closing them changes nothing.
//
// One thread, as the whole simulator. Advisory locks and the shared memory of the write-ahead log work
// between connections of one disk, whichever machines they belong to.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sqlite3.h>

#include "simulation/dice.hpp"

namespace towline::simulation {

/// The chance of each fault, per operation of a machine that can be disturbed.
struct DiskFaults {
  double bad_write = 0;  ///< SQLITE_IOERR_WRITE, after a part was written
  double bad_sync = 0;   ///< SQLITE_IOERR_FSYNC; what was not synced is lost
};

struct DiskFigures {
  std::uint64_t writes = 0, syncs = 0, power_losses = 0, lost_writes = 0, torn_writes = 0, full = 0,
                bad_writes = 0, bad_syncs = 0, lost_names = 0;
};

class CrashDisk;
struct CrashFile;
struct CrashHandle;

/// One process on the disk. SQLite opens files through it by name().
class CrashMachine {
 public:
  CrashMachine(CrashDisk& disk, bool can_be_disturbed);
  /// Every connection that was opened through it must be closed.
  ~CrashMachine();
  CrashMachine(const CrashMachine&) = delete;
  CrashMachine& operator=(const CrashMachine&) = delete;

  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  void kill();
  [[nodiscard]] bool alive() const noexcept { return alive_; }
  /// An operation of it failed in a way after which nobody knows what the disk holds.
  [[nodiscard]] bool has_failed() const noexcept { return has_failed_; }

 private:
  friend class CrashDisk;
  friend struct CrashMethods;
  CrashDisk& disk_;
  const std::string name_;
  const bool can_be_disturbed_;
  bool alive_ = true;
  bool has_failed_ = false;
  std::vector<CrashHandle*> handles_;
  sqlite3_vfs vfs_{};
};

class CrashDisk {
 public:
  explicit CrashDisk(std::uint64_t seed);
  ~CrashDisk();
  CrashDisk(const CrashDisk&) = delete;
  CrashDisk& operator=(const CrashDisk&) = delete;

  /// Every machine is killed, and what was not synced is lost in part, as `seed` draws it.
  void power_loss(std::uint64_t seed);

  /// From here on the disk remembers where it stood and what was done since.
  void begin_recording();
  /// What was written, cut off, synced, created or deleted since begin_recording().
  [[nodiscard]] std::size_t recorded() const noexcept { return log_.size(); }
  /// Goes on as if nothing had been recorded.
  void end_recording();
  /// The power is lost after the first `count` of the recorded operations; the others never happened.
  void power_loss_after(std::size_t count, std::uint64_t seed);

  /// The power goes when so many more writes, cuts, syncs, creations and deletions are done: from then on all
  /// machines are dead, and what they were about to do did not happen. power_loss() says what is left.
  void cut_power_after(std::uint64_t deeds) noexcept { deeds_left_ = deeds; }
  void plant(const DiskFaults& faults) noexcept { faults_ = faults; }
  /// No file grows when all of them together would have more than this; SQLITE_FULL.
  void set_capacity(std::uint64_t bytes) noexcept { capacity_ = bytes; }
  [[nodiscard]] std::uint64_t used() const noexcept;

  [[nodiscard]] const DiskFigures& figures() const noexcept { return figures_; }
  [[nodiscard]] std::optional<std::string> content(std::string_view file) const;

  /// The head of the index of a write-ahead log, which tells committed transactions apart; all 0 when there
  /// is none.
  struct WalHead {
    std::uint32_t commits = 0;  ///< since the index was made, modulo 2^32
    std::uint32_t frames = 0;
    std::uint64_t salt = 0;
  };
  [[nodiscard]] WalHead wal_head(std::string_view database) const;

 private:
  friend class CrashMachine;
  friend struct CrashMethods;
  using FilePtr = std::shared_ptr<CrashFile>;
  using Names = std::map<std::string, FilePtr, std::less<>>;
  enum class Deed : std::uint8_t { kWrite, kTruncate, kSync, kFailedSync, kCreate, kDelete, kSyncFolder };
  /// One operation, to be done again on a copy of the disk. Files are told by their number.
  struct Logged {
    Deed deed{};
    std::uint64_t file = 0;
    std::uint64_t offset = 0;
    std::string bytes;  ///< or the name
  };
  struct Folder {
    Names names;    ///< as everybody sees them
    Names durable;  ///< as of the last sync of the folder
    /// Since then, in order; null: deleted.
    std::vector<std::pair<std::string, FilePtr>> pending;
  };

  [[nodiscard]] FilePtr find(std::string_view name) const;
  [[nodiscard]] FilePtr create(const std::string& name);
  void erase(const std::string& name);
  void sync_folder();
  void log(Deed deed, std::uint64_t file, std::uint64_t offset, std::string_view bytes);
  void repeat(const Logged& logged, std::map<std::uint64_t, FilePtr>& files);
  [[nodiscard]] Folder copy() const;
  /// Before each deed; false: the power has gone.
  [[nodiscard]] bool has_power();
  void kill_all();
  void lose(std::uint64_t seed);
  [[nodiscard]] bool strikes(const CrashMachine& machine, double chance);
  /// How much of a write fits.
  [[nodiscard]] std::uint64_t room_for(const CrashMachine& machine, const CrashFile& file,
                                       std::uint64_t offset, std::uint64_t count) const noexcept;

  Dice dice_;
  DiskFaults faults_;
  DiskFigures figures_;
  std::uint64_t capacity_ = UINT64_MAX;
  std::uint64_t deeds_left_ = UINT64_MAX;  ///< UINT64_MAX: for ever
  Folder folder_;
  std::uint64_t file_last_ = 0;
  std::vector<CrashMachine*> machines_;
  bool records_ = false;
  Folder recorded_from_;
  std::vector<Logged> log_;
};

}  // namespace towline::simulation
