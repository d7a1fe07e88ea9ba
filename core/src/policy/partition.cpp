// XXH3 comes from the header-only library; all of its names stay inside this file.

#include "policy/partition.hpp"

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

namespace towline::policy {
namespace {

std::uint32_t bucket(std::string_view bytes, std::uint64_t seed, std::uint32_t count) noexcept {
  if (count == 0) return 0;
  return static_cast<std::uint32_t>(XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed) % count);
}

}  // namespace

std::uint32_t partition_of(std::string_view key, std::uint32_t partition_count) noexcept {
  return bucket(key, kPartitionSeed, partition_count);
}

std::uint32_t partition_of(const std::optional<std::string>& key, const MessageId& id,
                           std::uint32_t partition_count) noexcept {
  if (key) return partition_of(*key, partition_count);
  return partition_of(std::string_view(reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size()),
                      partition_count);
}

std::uint32_t lane_of(std::string_view key, std::uint32_t lane_count) noexcept {
  return bucket(key, kLaneSeed, lane_count);
}

}  // namespace towline::policy
