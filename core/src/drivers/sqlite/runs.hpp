#pragma once
// A run: messages that were published together and follow each other in their log, in the one row of
// `message` that stands at the first of them. A batch then costs the b-tree a few rows, whatever its size.
//
// Each message is its length, as a varint, and so many bytes:
//   flags (1 key, 2 expires, 4 extras), partition, published_us less that of the row: varints, the last
//   signed id: 16 bytes key: its length and bytes; expires_us less published_us: signed varint; extras: their
//   length and bytes payload: the rest
// What the flags do not name is absent. A length that does not fit makes the rest of the run undecodable;
// damage inside a message is that message's own.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <towline/spi/envelope.hpp>

namespace towline::drivers::sqlite {

/// Messages of one run.
inline constexpr std::int64_t kRunCountMax = 256;

/// Whether the message may be part of a run: it is new, and for every group.
[[nodiscard]] bool fits_run(const spi::Envelope& envelope) noexcept;

/// Appends one message; `published_us` is that of the run's row.
void append_to_run(std::string& run, const spi::Envelope& envelope, std::uint32_t partition,
                   std::int64_t published_us);

class RunReader {
 public:
  struct Message {
    bool whole = false;  ///< false: damaged, and the rest is not to be used
    std::uint32_t partition = 0;
    std::int64_t published_us = 0;
    std::string_view id;
    std::optional<std::string_view> key;
    std::optional<std::int64_t> expires_us;
    std::string_view extras;
    std::string_view payload;
  };

  RunReader() = default;
  /// The bytes must outlive it.
  RunReader(std::string_view run, std::int64_t published_us) : rest_(run), published_us_(published_us) {}
  /// Passes over one message without looking into it.
  void skip() { (void)take(); }
  [[nodiscard]] Message next();

 private:
  std::string_view take();
  std::string_view rest_;
  std::int64_t published_us_ = 0;
};

/// Of one that is damaged: zero.
[[nodiscard]] MessageId id_of(const RunReader::Message& message) noexcept;
/// False: damaged, or its extras are.
[[nodiscard]] bool to_envelope(const RunReader::Message& message, spi::Envelope& envelope);

}  // namespace towline::drivers::sqlite
