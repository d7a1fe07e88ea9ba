#pragma once
// Which partition a key belongs to. Part of the wire format: the same key must go to the same partition in
// every process, every language and every later version, so neither the hash nor the seeds ever change.
//
//     partition = XXH3_64(key bytes, seed kPartitionSeed) mod partition_count
//     lane      = XXH3_64(key bytes, seed kLaneSeed) mod lane_count
//
// XXH3_64 is the published 64-bit XXH3 with a seed; keys are hashed as bytes (text as UTF-8); the remainder
// is of the unsigned number. Two seeds, because with one the keys of a partition would use only some of the
// lanes behind it. tests/vectors/partitions.txt holds 1,000 keys with their partition of 64, for
// every language to check.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <towline/message.hpp>

namespace towline::policy {

inline constexpr std::uint64_t kPartitionSeed = 0x746F776C696E6531;  // "towline1" as a big-endian number
inline constexpr std::uint64_t kLaneSeed = 0x746F776C696E6532;       // "towline2"

/// 0 <= result < partition_count; 0 when the count is 0. The empty key is a key like any other.
[[nodiscard]] std::uint32_t partition_of(std::string_view key, std::uint32_t partition_count) noexcept;

/// Of a message: by its key, and without one by its id, which spreads such messages evenly and stays the same
/// over retry and redrive.
[[nodiscard]] std::uint32_t partition_of(const std::optional<std::string>& key, const MessageId& id,
                                         std::uint32_t partition_count) noexcept;

/// The second level: which worker inside a process handles a key.
[[nodiscard]] std::uint32_t lane_of(std::string_view key, std::uint32_t lane_count) noexcept;

}  // namespace towline::policy
