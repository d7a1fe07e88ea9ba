// Reading traces and losing power.

#include "faults/trace.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <stdexcept>
#include <utility>

namespace towline::faults {
namespace {

constexpr std::size_t kSectorBytes = 512;

/// A file as the program sees it, and as the disk surely holds it.
struct File {
  std::string name;
  std::string seen;
  std::string synced;
  bool removed = false;
};

void write_at(std::string& file, std::size_t offset, const std::string& bytes) {
  if (file.size() < offset + bytes.size()) file.resize(offset + bytes.size());
  std::memcpy(file.data() + offset, bytes.data(), bytes.size());
}

bool same_sector(const std::string& a, const std::string& b, std::size_t at) {
  const auto of = [at](const std::string& file) {
    return at < file.size() ? file.substr(at, kSectorBytes) : std::string();
  };
  std::string left = of(a);
  std::string right = of(b);
  left.resize(kSectorBytes);
  right.resize(kSectorBytes);
  return left == right;
}

/// Each sector in which the two differ comes from one of them, or half from each. The length is one of both.
std::string mix(const File& file, std::mt19937_64& random, PowerLoss& loss) {
  std::string disk = file.synced;
  const bool keeps_length = random() % 2 == 0;
  // A loss that drops all or keeps all is as likely as one that does both.
  const std::uint64_t mood = random() % 4;
  const std::size_t size = std::max(file.seen.size(), file.synced.size());
  disk.resize(size);
  for (std::size_t at = 0; at < size; at += kSectorBytes) {
    if (same_sector(file.seen, file.synced, at)) continue;
    const std::uint64_t fate = mood == 0 ? 0 : mood == 1 ? 1 : random() % 5;
    if (fate == 0) {
      ++loss.sectors_lost;
      continue;
    }
    std::size_t length = std::min(kSectorBytes, size - at);
    if (fate == 4) {
      length = random() % length;
      ++loss.sectors_torn;
    }
    for (std::size_t i = at; i < at + length; ++i)
      disk[i] = i < file.seen.size() ? file.seen[i] : '\0';
  }
  if (!keeps_length) disk.resize(file.synced.size());
  if (file.synced.size() > file.seen.size() && keeps_length) disk.resize(file.seen.size());
  return disk;
}

}  // namespace

std::vector<Change> read_trace(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string all((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  std::vector<Change> changes;
  constexpr std::size_t kHead = 25;
  for (std::size_t at = 0; at < all.size();) {
    if (all.size() - at < kHead) throw std::runtime_error(path + ": ends inside an entry");
    Change change;
    change.kind = all[at];
    std::uint64_t length = 0;
    std::memcpy(&change.file, all.data() + at + 1, 8);
    std::memcpy(&change.offset, all.data() + at + 9, 8);
    std::memcpy(&length, all.data() + at + 17, 8);
    at += kHead;
    if (all.size() - at < length) throw std::runtime_error(path + ": ends inside an entry");
    change.bytes = all.substr(at, length);
    at += length;
    changes.push_back(std::move(change));
  }
  return changes;
}

PowerLoss lose_power(const std::vector<Change>& changes, std::size_t count, std::uint64_t seed) {
  PowerLoss loss;
  std::map<std::uint64_t, File> files;
  for (std::size_t i = 0; i < std::min(count, changes.size()); ++i) {
    const Change& change = changes[i];
    if (change.kind == 'n') {
      loss.notes.push_back(change.bytes);
      continue;
    }
    File& file = files[change.file];
    switch (change.kind) {
      case 'o':
        file.name = change.bytes;
        file.removed = false;
        break;
      case 'w':
        write_at(file.seen, change.offset, change.bytes);
        break;
      case 't':
        file.seen.resize(change.offset);
        break;
      case 's':
        file.synced = file.seen;
        break;
      case 'u':
        file = {file.name, {}, {}, true};
        break;
      default:
        throw std::runtime_error("a trace with an unknown entry");
    }
  }
  std::mt19937_64 random(seed);
  for (const auto& [number, file] : files) {
    if (!file.removed) loss.files[file.name] = mix(file, random, loss);
  }
  return loss;
}

}  // namespace towline::faults
