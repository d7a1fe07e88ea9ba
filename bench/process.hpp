#pragma once
// This program once more, or one in another language, as another process: what is measured of a fresh or of a
// foreign process happens there.
//
// The order of events: the parent starts the child with a role; the child prints lines, the first one when it
// is ready; the parent ends it by closing its standard input, and the child prints its results and exits.

#include <string>
#include <vector>

#include <sys/types.h>

namespace towline::bench {

class Child {
 public:
  /// Throws std::system_error when it cannot be started.
  explicit Child(const std::vector<std::string>& arguments);
  /// Another program.
  Child(std::string program, const std::vector<std::string>& arguments);
  Child(Child&& other) noexcept;
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  /// Kills what still runs, and waits for it.
  ~Child();

  /// The next line of its standard output. Throws std::runtime_error when there is none within `seconds`.
  [[nodiscard]] std::string read_line(double seconds = 60);
  /// Tells it to finish: its standard input ends.
  void finish();
  /// Waits for its end. Throws std::runtime_error unless it ended well.
  void join();

 private:
  pid_t pid_ = -1;
  int input_ = -1;
  int output_ = -1;
  std::string buffer_;
};

/// In a child: waits until the parent has called finish() or is gone.
void wait_for_finish();
/// In a child: prints one line for the parent to read.
void tell_parent(const std::string& line);

/// Resident memory of this process.
[[nodiscard]] double resident_mb();
/// Processor time this process has used.
[[nodiscard]] double cpu_seconds();

}  // namespace towline::bench
