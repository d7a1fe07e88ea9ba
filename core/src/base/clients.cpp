// Which messages were counted is exact within a window of 64 sequences, as numbers; further back only what is
// before the first is surely new. See the header.

#include "base/clients.hpp"

#include <algorithm>
#include <bit>

namespace towline::base {
namespace {

constexpr std::uint64_t kWindow = 64;

}  // namespace

void advance(spi::ClientPosition& known, const spi::ClientPosition& given, TimePoint now) {
  if (known.sequence == 0 || known.expires_at <= now) {
    known = given;
    return;
  }
  known.sequence = std::max(known.sequence, given.sequence);
  known.expires_at = std::max(known.expires_at, given.expires_at);
}

void count_missed(spi::MissedMessages& missed, std::uint64_t sequence) noexcept {
  if (sequence <= missed.taken_sequence) return;
  if (missed.count == 0) {
    missed.first_sequence = missed.last_sequence = sequence;
    missed.count = missed.recent = 1;
    return;
  }
  if (sequence > missed.last_sequence) {
    const std::uint64_t further = sequence - missed.last_sequence;
    missed.recent = (further < kWindow ? missed.recent << further : 0) | 1;
    missed.last_sequence = sequence;
    ++missed.count;
    return;
  }
  const std::uint64_t behind = missed.last_sequence - sequence;
  const std::uint64_t bit = behind < kWindow ? std::uint64_t{1} << behind : 0;
  const bool is_new = bit != 0 ? (missed.recent & bit) == 0 : sequence < missed.first_sequence;
  if (!is_new) return;
  missed.recent |= bit;
  missed.first_sequence = std::min(missed.first_sequence, sequence);
  ++missed.count;
}

void take_missed(spi::MissedMessages& missed, std::uint64_t through_sequence) noexcept {
  missed.taken_sequence = std::max(missed.taken_sequence, through_sequence);
  if (missed.count == 0 || through_sequence < missed.first_sequence) return;
  if (through_sequence >= missed.last_sequence) {
    missed.count = missed.recent = 0;
    return;
  }
  const std::uint64_t left = missed.last_sequence - through_sequence;
  if (left < kWindow) {
    missed.recent &= (std::uint64_t{1} << left) - 1;
    missed.count = static_cast<std::uint64_t>(std::popcount(missed.recent));
    missed.first_sequence =
        missed.last_sequence - (kWindow - 1 - static_cast<std::uint64_t>(std::countl_zero(missed.recent)));
    return;
  }
  // At least the first went, and those that are left have a sequence each.
  missed.count = std::min(missed.count - 1, left);
  missed.first_sequence = through_sequence + 1;
}

}  // namespace towline::base
