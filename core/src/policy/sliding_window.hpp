#pragma once
// Counts over the last so many seconds, in constant memory and constant time however many are counted. The
// window is cut in 10 slices and old counts leave it a slice at a time, so it covers 90 to 100 % of its
// length. A slice that has aged is emptied when its turn comes again: nothing has to run while time merely
// passes. Time that goes back is taken as standing still.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include <towline/time.hpp>

namespace towline::policy {

/// `kKinds` counters that share a window. Not thread-safe.
template <std::size_t kKinds>
class SlidingWindow {
 public:
  explicit SlidingWindow(Duration length) noexcept
      : slice_length_us_(std::max<std::int64_t>(length.count() / static_cast<std::int64_t>(kSliceCount), 1)) {
  }

  void add(MonotonicTime now, std::size_t kind, std::uint64_t count = 1) noexcept {
    const std::int64_t number = advance(now);
    Slice& slice = slices_[static_cast<std::size_t>(number) % kSliceCount];
    if (slice.number != number) slice = Slice{number, {}};
    slice.counts[kind] += count;
  }

  /// What each counter has had within the window that ends at `now`.
  [[nodiscard]] std::array<std::uint64_t, kKinds> totals(MonotonicTime now) noexcept {
    const std::int64_t oldest = advance(now) - static_cast<std::int64_t>(kSliceCount) + 1;
    std::array<std::uint64_t, kKinds> sums{};
    for (const Slice& slice : slices_) {
      if (slice.number < oldest) continue;
      for (std::size_t kind = 0; kind < kKinds; ++kind)
        sums[kind] += slice.counts[kind];
    }
    return sums;
  }

  void clear() noexcept { slices_ = {}; }

 private:
  static constexpr std::size_t kSliceCount = 10;
  struct Slice {
    std::int64_t number = INT64_MIN;  // which slice of time it holds; none yet
    std::array<std::uint64_t, kKinds> counts{};
  };

  std::int64_t advance(MonotonicTime now) noexcept {
    latest_ = std::max(latest_, now.time_since_epoch().count() / slice_length_us_);
    return latest_;
  }

  std::int64_t slice_length_us_;
  std::int64_t latest_ = 0;
  std::array<Slice, kSliceCount> slices_{};
};

}  // namespace towline::policy
