// Appends to and reads ledgers.

#include "support/ledger.hpp"

#include <cerrno>
#include <fstream>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

namespace towline::support {

Ledger::Ledger(std::string path) : path_(std::move(path)) {
  file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file_ < 0) throw std::system_error(errno, std::generic_category(), path_);
}

Ledger::~Ledger() { ::close(file_); }

void Ledger::append(std::string_view line) {
  std::string bytes(line);
  bytes += '\n';
  const ssize_t written = ::write(file_, bytes.data(), bytes.size());
  if (written != static_cast<ssize_t>(bytes.size()))
    throw std::system_error(errno, std::generic_category(), path_);
}

std::vector<std::string> Ledger::lines() const {
  std::ifstream file(path_);
  std::vector<std::string> result;
  for (std::string line; std::getline(file, line);)
    result.push_back(line);
  return result;
}

std::size_t Ledger::count(std::string_view prefix) const {
  std::size_t count = 0;
  for (const std::string& line : lines())
    count += line.starts_with(prefix) ? 1 : 0;
  return count;
}

}  // namespace towline::support
