// The level is kept in millionths of a token: at a rate of r per second exactly r of them come in each
// microsecond.

#include "policy/rate_limit.hpp"

#include <algorithm>
#include <limits>

namespace towline::policy {
namespace {

constexpr std::uint64_t kMillionths = 1'000'000;
constexpr std::uint64_t kTokensMax = std::numeric_limits<std::uint64_t>::max() / kMillionths / 4;

}  // namespace

RateLimit::RateLimit(std::uint64_t rate_per_second, std::uint64_t burst) noexcept
    : rate_(std::min(rate_per_second, kTokensMax)),
      burst_(std::clamp<std::uint64_t>(burst == 0 ? rate_ / 10 : burst, 1, kTokensMax)),
      level_(burst_ * kMillionths) {}

void RateLimit::fill(MonotonicTime now) noexcept {
  if (!started_) {
    filled_at_ = now;
    started_ = true;
  }
  if (now <= filled_at_) return;
  const auto elapsed_us = static_cast<std::uint64_t>((now - filled_at_).count());
  filled_at_ = now;
  const std::uint64_t room = burst_ * kMillionths - level_;
  // Compared by division, because after a long pause the product would overflow.
  level_ += elapsed_us > room / rate_ ? room : elapsed_us * rate_;
}

std::uint64_t RateLimit::available(MonotonicTime now) noexcept {
  if (rate_ == 0) return std::numeric_limits<std::uint64_t>::max();
  fill(now);
  return level_ / kMillionths;
}

bool RateLimit::take(MonotonicTime now, std::uint64_t count) noexcept {
  if (rate_ == 0) return true;
  if (available(now) < count) return false;
  level_ -= count * kMillionths;
  return true;
}

MonotonicTime RateLimit::ready_at(MonotonicTime now, std::uint64_t count) noexcept {
  if (rate_ == 0 || available(now) >= count) return now;
  if (count > burst_) return MonotonicTime::max();
  const std::uint64_t missing = count * kMillionths - level_;
  // `now` may lie behind the last filling when time went back; waiting counts from there.
  return filled_at_ + Duration(static_cast<Duration::rep>((missing + rate_ - 1) / rate_));
}

}  // namespace towline::policy
