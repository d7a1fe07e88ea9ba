#pragma once
// What a program did to its files, change by change: the bytes of a trace, and the disk that a loss of power
// at any point of it may leave.
//
// Each entry: a letter, the number of the file, offset, length (three little-endian 64-bit numbers), and for
// 'o' (a file was opened: its name), 'w' (written) and 'n' (a note) `length` bytes. 't': truncated to
// `offset`. 's': synced. 'u': removed.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace towline::faults {

struct Change {
  char kind = 0;
  std::uint64_t file = 0;
  std::uint64_t offset = 0;
  std::string bytes;
};

/// Throws std::runtime_error when the trace does not parse.
[[nodiscard]] std::vector<Change> read_trace(const std::string& path);

struct PowerLoss {
  /// Files as the disk holds them after the loss, by name.
  std::map<std::string, std::string> files;
  /// The notes that were written before it.
  std::vector<std::string> notes;
  std::uint64_t sectors_lost = 0;
  std::uint64_t sectors_torn = 0;
};

/// The first `count` changes happened, then the power failed: what was synced is there, of everything else
/// each sector of 512 bytes is kept, dropped or torn, drawn from the seed. Making and removing files counts
/// as durable.
[[nodiscard]] PowerLoss lose_power(const std::vector<Change>& changes, std::size_t count, std::uint64_t seed);

}  // namespace towline::faults
