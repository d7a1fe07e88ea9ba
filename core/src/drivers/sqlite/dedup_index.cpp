// See the header. XXH3 comes from the header-only library; all of its names stay inside this file.

#include "drivers/sqlite/dedup_index.hpp"

#include <utility>

#include <sqlite3.h>
#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

namespace towline::drivers::sqlite {
namespace {

constexpr std::size_t kCountMin = 1'024;

std::uint64_t seed() noexcept {
  static const std::uint64_t value = [] {
    std::uint64_t random = 0;
    sqlite3_randomness(sizeof random, &random);
    return random;
  }();
  return value;
}

}  // namespace

std::uint32_t hash_of_dedup(std::int64_t topic_id, std::string_view dedup_id) noexcept {
  const auto topic = static_cast<std::uint64_t>(topic_id) * 0x9e3779b97f4a7c15;
  return static_cast<std::uint32_t>(XXH3_64bits_withSeed(dedup_id.data(), dedup_id.size(), seed() ^ topic) >>
                                    32);
}

void DedupIndex::put(Slot slot) {
  std::size_t at = home_of(slot.hash);
  while (slots_[at].hash != kFree) {
    if (slots_[at].hash == slot.hash && slots_[at].number == slot.number) return;
    at = next(at);
  }
  slots_[at] = slot;
  ++count_;
}

void DedupIndex::add(std::uint32_t hash, std::int64_t number) {
  if (count_ >= count_max_) resize(count_ + count_ / 4 + kCountMin);
  put({used(hash), static_cast<std::uint32_t>(number)});
}

void DedupIndex::erase(std::size_t at) {
  // What follows moves up, unless it would come to stand before its home.
  --count_;
  for (std::size_t from = next(at); slots_[from].hash != kFree; from = next(from)) {
    const std::size_t home = home_of(slots_[from].hash);
    const bool stays = at <= from ? home > at && home <= from : home > at || home <= from;
    if (stays) continue;
    slots_[at] = slots_[from];
    at = from;
  }
  slots_[at] = {};
}

void DedupIndex::resize(std::size_t count) {
  std::vector<Slot> before(count + count / 3 + 1);
  before.swap(slots_);
  count_ = 0;
  count_max_ = count;
  for (const Slot& slot : before) {
    if (slot.hash != kFree) put(slot);
  }
}

void DedupIndex::drop_before(std::int64_t number, std::int64_t last) {
  std::vector<Slot> kept;
  for (const Slot& slot : slots_) {
    if (slot.hash != kFree && whole(slot.number, last) >= number) kept.push_back(slot);
  }
  clear();
  if (kept.empty()) return;
  resize(kept.size() + kept.size() / 4 + kCountMin);
  for (const Slot& slot : kept)
    put(slot);
}

void DedupIndex::clear() noexcept {
  slots_ = {};
  count_ = 0;
  count_max_ = 0;
}

}  // namespace towline::drivers::sqlite
