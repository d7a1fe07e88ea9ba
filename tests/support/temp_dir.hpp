#pragma once
// A folder for one test, removed with everything in it when the test ends.

#include <filesystem>
#include <string>

namespace towline::support {

class TempDir {
 public:
  /// Under $TMPDIR, or /tmp. Throws std::system_error when it cannot be made.
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace towline::support
