#pragma once
// Child processes, each known by its process id and by the name of its life ("python-2.1": the first life of
// worker 2, which is written in Python).
//
// No child outlives the coordinator: it is stopped by its id when the run ends, however it ends, and the
// kernel kills it should the coordinator itself be killed.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include <towline/result.hpp>

namespace towline::demo {

/// How a child ended.
struct Ending {
  bool by_signal = false;
  int code = 0;  ///< exit status or signal number

  [[nodiscard]] bool clean() const { return !by_signal && code == 0; }
  [[nodiscard]] std::string to_string() const;
};

/// A child that runs. Move-only; dropping it kills and reaps it.
class Child {
 public:
  /// Starts a command, its program looked for on the path; its output goes to the file `log`.
  static Result<Child> start(std::vector<std::string> command, const std::string& log);
  Child(Child&& other) noexcept;
  Child& operator=(Child&& other) noexcept;
  ~Child();

  [[nodiscard]] pid_t pid() const { return pid_; }
  /// How it ended, or nullopt while it runs. Afterwards there is no process any more.
  std::optional<Ending> poll();
  /// Waits for the end.
  Ending wait();
  void send(int signal) const;
  /// Waits until it stands still where it is, until SIGCONT. False: it has ended instead.
  [[nodiscard]] bool stop() const;

 private:
  explicit Child(pid_t pid) : pid_(pid) {}
  pid_t pid_;
};

/// The last lines of a file, for telling why a child ended.
[[nodiscard]] std::string last_lines(const std::string& path, std::size_t count_max);

}  // namespace towline::demo
