#pragma once
// Another program, for tests that kill processes. It is started with fork and exec at once, so nothing of the
// test's threads, locks or open stores ever runs in the child.

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include <towline/time.hpp>

namespace towline::support {

/// How a process ended.
struct ExitStatus {
  int code = -1;   ///< when it exited by itself
  int signal = 0;  ///< when a signal ended it
  [[nodiscard]] bool clean() const noexcept { return signal == 0 && code == 0; }
};

/// Owns one child process. Not thread-safe. A child that still runs when its owner goes is killed and waited
/// for.
class ChildProcess {
 public:
  ChildProcess() = default;
  /// Starts `program` with `arguments` (its name is put before them). Standard output is kept for
  /// read_line(); standard error goes where the test's goes. Throws std::system_error when it cannot be
  /// started.
  ChildProcess(const std::filesystem::path& program, const std::vector<std::string>& arguments);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess();

  /// The next line of its standard output without the newline; nullopt when it closed it or the time is over.
  [[nodiscard]] std::optional<std::string> read_line(Duration within);
  /// nullopt: it still runs.
  [[nodiscard]] std::optional<ExitStatus> wait(Duration within);
  void send(int signal) const;
  /// SIGKILL, and waits until it is gone.
  ExitStatus kill();
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  [[nodiscard]] bool running() const noexcept { return pid_ > 0 && !status_; }

 private:
  void dispose() noexcept;
  pid_t pid_ = -1;
  int output_ = -1;
  std::string buffer_;
  std::optional<ExitStatus> status_;
};

/// A program in the folder of the one that runs.
[[nodiscard]] std::filesystem::path sibling_program(const std::string& name);

/// In a child: die with the parent instead of living on when a test run is killed.
void die_with_parent();

}  // namespace towline::support
