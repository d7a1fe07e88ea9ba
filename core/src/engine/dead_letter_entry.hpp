#pragma once
// Making a dead letter from an envelope, and an envelope from a dead letter.

#include <string>
#include <string_view>

#include <towline/dead_letter.hpp>
#include <towline/spi/envelope.hpp>
#include <towline/types.hpp>

namespace towline::engine {

struct EntryFacts {
  MessageId id;  ///< of the new entry
  DeadLetterReason reason{};
  ErrorInfo error;
  TimePoint now{};
  std::uint32_t crashes = 0;
  std::uint32_t failures = 0;
  bool keep_original = true;
};

/// The entry keeps everything that a redrive needs: payload, headers, and in `metadata` (JSON) the other
/// fields of the envelope and the last ten failures.
[[nodiscard]] DeadLetter make_dead_letter(const spi::Envelope& envelope, std::string_view group,
                                          const EntryFacts& facts);

/// The envelope that a redrive publishes: the same message id, attempts from the start, for the entry's group
/// only. Metadata that cannot be read costs only the optional fields, never the message.
[[nodiscard]] spi::Envelope to_envelope(const DeadLetter& entry);

/// False when the policy kept only the facts (keep_original).
[[nodiscard]] bool has_original(const DeadLetter& entry);

[[nodiscard]] std::string_view name_of(DeadLetterReason reason) noexcept;

}  // namespace towline::engine
