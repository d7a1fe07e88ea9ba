// Reads /proc/self.

#include "support/resources.hpp"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include <unistd.h>

namespace towline::support {
namespace {

std::size_t entry_count(const char* folder) {
  std::error_code error;
  std::size_t count = 0;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    ++count;
  return count;
}

}  // namespace

std::size_t thread_count() { return entry_count("/proc/self/task"); }

std::size_t fd_count() { return entry_count("/proc/self/fd") - 1; }  // without the one that lists the folder

std::size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::size_t total = 0;
  std::size_t resident = 0;
  statm >> total >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace towline::support
