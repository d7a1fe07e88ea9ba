#pragma once
// A disk that fails on purpose. A program that links syscalls.cpp has its own pwrite, fsync, ftruncate and
// unlink in place of the C library's, and these count their calls and do to one of them what was asked for.
// Works without rights and without tracing; SQLite inside the program cannot tell.
//
// Writing ledgers uses write(2), which is left alone, so what a ledger says is not touched by the faults.

#include <cstdint>
#include <string>
#include <string_view>

namespace towline::faults {

enum class Harm : std::uint8_t {
  kNone,
  kCount,     ///< nothing; the calls are counted
  kKill,      ///< the process is killed before the call is made
  kTear,      ///< a write stops after `bytes` bytes, and the process is killed
  kError,     ///< the call fails with `error`, having done nothing
  kErrorOnce  ///< the same, and the calls after it work
};

enum class Calls : std::uint8_t {
  kAny,
  kWrite,
  kSync,  ///< of files; a folder's is left alone, because SQLite does not look at its answer
  kBase   ///< syncs of the store's main file, which checkpoints make
};

struct Plan {
  Harm harm = Harm::kNone;
  Calls calls = Calls::kAny;  ///< which calls are counted
  std::uint64_t at = 0;       ///< the 1-based number of the call that is harmed
  std::uint64_t bytes = 0;
  int error = 0;
};

/// "count any 0", "kill any 17", "tear write 3 100", "error sync 5 28", "once write 2 5". Throws
/// std::invalid_argument.
[[nodiscard]] Plan parse_plan(const std::string& text);

/// From now on; replaces the plan before it. The count begins at zero.
void set_plan(const Plan& plan);
/// Calls counted since set_plan().
[[nodiscard]] std::uint64_t call_count();
/// Whether the plan has struck.
[[nodiscard]] bool has_struck();
/// The file that it struck first; empty for none, and for what was removed.
[[nodiscard]] std::string struck_file();

/// From now on the files of `folder` may be this large together; a write beyond it answers ENOSPC. 0: no
/// limit.
void set_quota(const std::string& folder, std::uint64_t bytes);

/// From now on every change to a file whose name begins with `prefix` is also written to `trace`, in the
/// order in which it happened (see trace.hpp).
void set_trace(const std::string& prefix, const std::string& trace);
/// Puts a line of text between the changes.
void trace_note(std::string_view line);

}  // namespace towline::faults
