#pragma once
// Making message ids. An id is a UUIDv7 (RFC 9562): 48 bits of milliseconds, then 12 bits that say which part
// of the millisecond, then 62 bits of chance. So ids of different processes are ordered by the microsecond
// they were made in, and an index over ids grows at its end.
//
//     48 bits  Unix milliseconds
//      4       version 7
//     12       which 4096th of the millisecond
//      2       variant
//     62       random, counts up within one 4096th
//
// The functions that message.hpp declares (MessageId::to_string, parse and MessageIdHash) are in ids.cpp.

#include <cstdint>
#include <span>

#include <towline/message.hpp>
#include <towline/spi/clock.hpp>
#include <towline/time.hpp>

namespace towline::base {

/// Makes ids that grow strictly within one source, also when the clock stands still or goes back: then the
/// time of the last id is kept and its random tail counts up by a random step. Never repeats an id; two
/// sources meet with a chance of about 2^-61 per pair of ids of the same quarter of a microsecond. Not
/// thread-safe: one per lane.
class IdSource {
 public:
  /// `now` before 1970 or after the year 10,000 counts as that bound.
  [[nodiscard]] MessageId next(TimePoint now, spi::Rng& rng) noexcept;
  /// The same for a batch.
  void fill(std::span<MessageId> ids, TimePoint now, spi::Rng& rng) noexcept;

 private:
  friend struct IdSourceTesting;
  void advance(std::uint64_t tick, spi::Rng& rng) noexcept;

  std::uint64_t tick_ = 0;  // 1/4096 milliseconds since 1970
  std::uint64_t tail_ = 0;  // 62 bits
};

/// When the id was made, to the microsecond for ids of IdSource, to the millisecond for other UUIDv7.
/// Meaningless for other UUIDs.
[[nodiscard]] TimePoint time_of(const MessageId& id) noexcept;

/// The smallest id that IdSource could make at `time`: a bound for "everything published at or after".
[[nodiscard]] MessageId first_id_at(TimePoint time) noexcept;

}  // namespace towline::base
