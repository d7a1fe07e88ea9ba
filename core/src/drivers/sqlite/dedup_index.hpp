#pragma once
// Where the dedup ids of a store are, in memory: for the hash of an id the numbers of the rows that may hold
// it. An aid to find rows, never the truth: what it says is looked up in the file, so it may know rows that
// are gone, and two ids may have one hash; but it must know every row.

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace towline::drivers::sqlite {

/// Differs from process to process.
[[nodiscard]] std::uint32_t hash_of_dedup(std::int64_t topic_id, std::string_view dedup_id) noexcept;

class DedupIndex {
 public:
  enum class Row : std::uint8_t {
    kIsIt,   ///< the row that was looked for
    kOther,  ///< has another id
    kGone    ///< is not there and never will be; it is forgotten
  };

  /// Once is enough; numbers must be within 2^32 of each other.
  void add(std::uint32_t hash, std::int64_t number);
  /// Calls `look(number)` for the rows with this hash until it answers kIsIt; false: it never did. `last` is
  /// the greatest number there is.
  template <typename Look>
  bool find(std::uint32_t hash, std::int64_t last, Look look);
  /// Forgets what is less than `number`, and gives the memory back.
  void drop_before(std::int64_t number, std::int64_t last);
  void clear() noexcept;
  [[nodiscard]] std::size_t size() const noexcept { return count_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return slots_.capacity() * sizeof(Slot); }

 private:
  /// Open addressing, each as near behind its home as there was room. Of the number the lower half is enough.
  struct Slot {
    std::uint32_t hash = kFree;
    std::uint32_t number = 0;
  };
  static constexpr std::uint32_t kFree = 0;

  [[nodiscard]] static std::uint32_t used(std::uint32_t hash) noexcept { return hash == kFree ? 1 : hash; }
  [[nodiscard]] std::size_t home_of(std::uint32_t hash) const noexcept {
    return static_cast<std::size_t>((std::uint64_t{hash} * slots_.size()) >> 32);
  }
  [[nodiscard]] std::size_t next(std::size_t at) const noexcept {
    return at + 1 == slots_.size() ? 0 : at + 1;
  }
  [[nodiscard]] static std::int64_t whole(std::uint32_t number, std::int64_t last) noexcept {
    return last - static_cast<std::int64_t>(static_cast<std::uint32_t>(last) - number);
  }
  void put(Slot slot);
  void erase(std::size_t at);
  void resize(std::size_t count);

  std::vector<Slot> slots_;
  std::size_t count_ = 0;
  std::size_t count_max_ = 0;  ///< that fit before there must be more room
};

template <typename Look>
bool DedupIndex::find(std::uint32_t hash, std::int64_t last, Look look) {
  if (count_ == 0) return false;
  hash = used(hash);
  for (std::size_t at = home_of(hash); slots_[at].hash != kFree;) {
    if (slots_[at].hash != hash) {
      at = next(at);
      continue;
    }
    switch (look(whole(slots_[at].number, last))) {
      case Row::kIsIt:
        return true;
      case Row::kOther:
        at = next(at);
        break;
      case Row::kGone:
        erase(at);  // something else may stand there now
        break;
    }
  }
  return false;
}

}  // namespace towline::drivers::sqlite
