// Makes and removes the folders of TempDir.

#include "support/temp_dir.hpp"

#include <cerrno>
#include <cstdlib>
#include <system_error>

#include <stdlib.h>

namespace towline::support {

TempDir::TempDir() {
  const char* base = std::getenv("TMPDIR");
  std::string name = std::string(base != nullptr && *base != '\0' ? base : "/tmp") + "/towline-test-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) throw std::system_error(errno, std::generic_category(), name);
  path_ = name;
}

TempDir::~TempDir() {
  std::error_code ignored;
  // A test may have taken the right to write away; removal needs it back.
  std::filesystem::permissions(path_, std::filesystem::perms::owner_all, std::filesystem::perm_options::add,
                               ignored);
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace towline::support
