#pragma once
// A histogram of fixed size for latencies and sizes: 16 equal buckets for each power of two, over all of
// uint64.
//
// Values below 16 are exact; above, a bucket is at most 1/16 of its lower bound wide and a quantile answers
// with the middle of its bucket, so it is at most 3.2 % off. Adding is a few instructions and never
// allocates. Not thread-safe: one per lane, merged when somebody asks.

#include <array>
#include <cstddef>
#include <cstdint>

namespace towline::base {

class Histogram {
 public:
  /// Adds `value` `times` times.
  void add(std::uint64_t value, std::uint64_t times = 1) noexcept;
  void merge(const Histogram& other) noexcept;

  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  /// Exact. 0 when nothing was added.
  [[nodiscard]] std::uint64_t min() const noexcept { return count_ == 0 ? 0 : min_; }
  /// Exact. 0 when nothing was added.
  [[nodiscard]] std::uint64_t max() const noexcept { return max_; }
  /// The smallest value that at least a share `q` of all values does not exceed, within 3.2 %; never outside
  /// [min, max], and exactly that for q <= 0 and q >= 1. 0 when nothing was added.
  [[nodiscard]] std::uint64_t quantile(double q) const noexcept;

 private:
  static constexpr unsigned kSubBits = 4;
  static constexpr std::size_t kSubCount = std::size_t{1} << kSubBits;
  static constexpr std::size_t kBucketCount = (64 - kSubBits + 1) * kSubCount;

  [[nodiscard]] static std::size_t bucket_of(std::uint64_t value) noexcept;
  [[nodiscard]] static std::uint64_t middle_of(std::size_t bucket) noexcept;

  std::uint64_t count_ = 0;
  std::uint64_t min_ = UINT64_MAX;
  std::uint64_t max_ = 0;
  std::array<std::uint64_t, kBucketCount> buckets_{};
};

}  // namespace towline::base
