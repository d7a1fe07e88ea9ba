#pragma once
// A file of lines that several processes append to: what really happened, written down by the handlers
// themselves and not by the engine under test. Each line is one write to a file opened for appending, so a
// process that is killed leaves whole lines only, and what was appended before the kill is there after it.

#include <string>
#include <string_view>
#include <vector>

namespace towline::support {

class Ledger {
 public:
  /// Opens or makes the file. Throws std::system_error when it cannot.
  explicit Ledger(std::string path);
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  /// Thread-safe. `line` has no newline.
  void append(std::string_view line);
  /// All whole lines so far, of all processes, in the order they were written.
  [[nodiscard]] std::vector<std::string> lines() const;
  /// How many of them begin with `prefix`.
  [[nodiscard]] std::size_t count(std::string_view prefix) const;
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
  int file_ = -1;
};

}  // namespace towline::support
