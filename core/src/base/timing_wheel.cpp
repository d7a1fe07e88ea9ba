// The wheel's arithmetic. The invariant that all of it keeps: a timer in the wheel proper has tick >= tick_,
// and no slot of level 1 or higher that contains tick_ holds a timer. step() stops at the start of every slot
// that holds something, before time could run past it, and that is what upholds the second half.

#include "base/timing_wheel.hpp"

#include <algorithm>
#include <bit>

namespace towline::base {

namespace {
constexpr std::int64_t kTickUs = 1000;
}  // namespace

TimingWheel::TimingWheel(MonotonicTime start) noexcept : now_(start), tick_(tick_of(start)) {
  for (std::uint32_t i = 0; i < kPlaceCount; ++i) {
    Timer& head = slots_[i].head;
    head.prev = head.next = &head;
    head.at = MonotonicTime::max();
    head.place = i;
  }
}

TimingWheel::~TimingWheel() {
  for (Slot& slot : slots_) {
    Timer* timer = slot.head.next;
    while (timer != &slot.head) {
      Timer* const following = timer->next;
      timer->prev = timer->next = nullptr;
      timer = following;
    }
    slot.head.prev = slot.head.next = nullptr;
  }
}

std::uint64_t TimingWheel::tick_of(MonotonicTime t) noexcept {
  const std::int64_t us = t.time_since_epoch().count();
  return us <= 0 ? 0 : static_cast<std::uint64_t>(us / kTickUs);
}

MonotonicTime TimingWheel::time_of(std::uint64_t tick) noexcept {
  // A slot of the top level may start beyond the end of time.
  constexpr std::uint64_t last = static_cast<std::uint64_t>(Duration::max().count() / kTickUs);
  return MonotonicTime(Duration(static_cast<std::int64_t>(std::min(tick, last)) * kTickUs));
}

bool TimingWheel::empty_at(std::uint32_t place) const noexcept {
  return slots_[place].head.next == &slots_[place].head;
}

void TimingWheel::arm(Timer& timer, MonotonicTime at) noexcept {
  if (timer.armed()) {
    unlink(timer);
  } else {
    ++size_;
  }
  timer.at = at;
  if (at <= now_) return append(kLate, timer, at);
  insert(timer);
}

void TimingWheel::cancel(Timer& timer) noexcept {
  if (!timer.armed()) return;
  unlink(timer);
  --size_;
}

// Links the timer where its tick belongs, as seen from the present tick.
void TimingWheel::insert(Timer& timer) noexcept {
  const std::uint64_t tick = tick_of(timer.at);
  // The highest bit in which the tick differs from the present decides the level; equal ticks are of level 0.
  const auto level = (static_cast<std::uint32_t>(std::bit_width((tick ^ tick_) | 1)) - 1) / kSlotBits;
  if (level < kLevelCount - 1) {
    const auto slot = static_cast<std::uint32_t>((tick >> (kSlotBits * level)) % kSlotCount);
    return append(level * kSlotCount + slot, timer, timer.at);
  }
  const std::uint64_t wanted = tick >> kTopShift;
  const std::uint64_t turn = std::min(wanted, (tick_ >> kTopShift) + kSlotCount - 1);
  const auto slot = static_cast<std::uint32_t>(turn % kSlotCount);
  // A timer beyond the ring must be looked at when the slot's turn comes, which is long before its own time.
  const MonotonicTime bound = turn == wanted ? timer.at : time_of(turn << kTopShift);
  append((kLevelCount - 1) * kSlotCount + slot, timer, bound);
}

void TimingWheel::append(std::uint32_t place, Timer& timer, MonotonicTime bound) noexcept {
  Timer& head = slots_[place].head;
  timer.place = place;
  timer.prev = head.prev;
  timer.next = &head;
  head.prev->next = &timer;
  head.prev = &timer;
  head.at = std::min(head.at, bound);
  if (place < kLate) occupied_[place / kSlotCount] |= std::uint64_t{1} << (place % kSlotCount);
}

void TimingWheel::unlink(Timer& timer) noexcept {
  timer.prev->next = timer.next;
  timer.next->prev = timer.prev;
  timer.prev = timer.next = nullptr;
  const std::uint32_t place = timer.place;
  if (!empty_at(place)) return;
  slots_[place].head.at = MonotonicTime::max();
  if (place < kLate) occupied_[place / kSlotCount] &= ~(std::uint64_t{1} << (place % kSlotCount));
}

void TimingWheel::move_all(std::uint32_t from, std::uint32_t to) noexcept {
  Timer& head = slots_[from].head;
  const MonotonicTime bound = head.at;
  while (head.next != &head) {
    Timer& timer = *head.next;
    unlink(timer);
    append(to, timer, bound);
  }
}

// Moves the slot of the present tick aside, so that what `fired` arms cannot mix with it.
void TimingWheel::take_due() noexcept {
  const auto slot = static_cast<std::uint32_t>(tick_ % kSlotCount);
  if (slots_[slot].head.at > now_) return;
  move_all(slot, kRunning);
}

// The next timer whose time has come; those of the same tick that lie after now_ go back to their slot.
Timer* TimingWheel::pop_due() noexcept {
  Timer& head = slots_[kRunning].head;
  while (head.next != &head) {
    Timer& timer = *head.next;
    unlink(timer);
    if (timer.at > now_) {
      insert(timer);
      continue;
    }
    --size_;
    return &timer;
  }
  return nullptr;
}

// Goes to the next tick at which a slot begins that holds timers, or to the target. False once the target was
// reached.
bool TimingWheel::step(std::uint64_t target) noexcept {
  if (tick_ >= target) return false;
  std::uint64_t tick = target;
  for (std::uint32_t level = 0; level < kLevelCount; ++level) {
    if (occupied_[level] == 0) continue;
    const std::uint32_t shift = kSlotBits * level;
    const auto present = static_cast<std::uint32_t>((tick_ >> shift) % kSlotCount);
    // Bit 0 of `ahead` is the slot after the present one. Only the top level wraps around.
    std::uint64_t ahead = std::rotr(occupied_[level], static_cast<int>(present + 1));
    if (level < kLevelCount - 1) ahead = present == kSlotCount - 1 ? 0 : occupied_[level] >> (present + 1);
    if (ahead == 0) continue;
    const std::uint64_t distance = static_cast<std::uint64_t>(std::countr_zero(ahead)) + 1;
    tick = std::min(target, ((tick_ >> shift) + distance) << shift);
    break;
  }
  tick_ = tick;
  for (std::uint32_t level = kLevelCount - 1; level > 0; --level) {
    const auto slot = static_cast<std::uint32_t>((tick_ >> (kSlotBits * level)) % kSlotCount);
    if (occupied_[level] & (std::uint64_t{1} << slot)) cascade(level * kSlotCount + slot);
  }
  return true;
}

// Inserts the timers of a slot again, one by one, now that its time has begun. None can land where it comes
// from: the slot contains the present tick now, and such a slot stays empty.
void TimingWheel::cascade(std::uint32_t from) noexcept {
  Timer& head = slots_[from].head;
  while (head.next != &head) {
    Timer& timer = *head.next;
    unlink(timer);
    insert(timer);
  }
}

std::optional<MonotonicTime> TimingWheel::next() const noexcept {
  if (size_ == 0) return std::nullopt;
  const MonotonicTime early = std::min(slots_[kLate].head.at, slots_[kRunning].head.at);
  if (early != MonotonicTime::max()) return early;
  for (std::uint32_t level = 0; level < kLevelCount; ++level) {
    if (occupied_[level] == 0) continue;
    // All slots of a level but the top one are at or after the present slot, so the lowest bit is the
    // earliest.
    auto slot = static_cast<std::uint32_t>(std::countr_zero(occupied_[level]));
    if (level == kLevelCount - 1) {
      const auto present = static_cast<std::uint32_t>((tick_ >> kTopShift) % kSlotCount);
      const auto ahead = std::rotr(occupied_[level], static_cast<int>(present));
      slot = (present + static_cast<std::uint32_t>(std::countr_zero(ahead))) % kSlotCount;
    }
    return slots_[level * kSlotCount + slot].head.at;
  }
  return early;
}

}  // namespace towline::base
