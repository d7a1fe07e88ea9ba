#pragma once
// The fields of an envelope that most messages leave empty, as one compact blob. Stores that keep messages in
// tables give the other fields columns of their own, which people can read and indexes can use, and put this
// blob beside them.
//
// In the blob: headers, content_type, correlation_id, causation_id, traceparent, dedup_id with dedup_until
// and dedup_mode, first_failed_at, retry_delay, history. Not in it: id, topic, partition, key, group,
// payload, priority, published_at, expires_at, attempt, crashes, redrives, heads_key.
//
// When all of these are as in Envelope{} the blob is empty. FORMAT.md has every byte. The blob has no
// checksum of its own, as the columns beside it have none.

#include <string>
#include <string_view>

#include <towline/result.hpp>
#include <towline/spi/envelope.hpp>

namespace towline::codec {

/// Whether the blob would be empty.
[[nodiscard]] bool has_extras(const spi::Envelope& envelope) noexcept;

/// Appends the blob to `out`.
void encode_extras(const spi::Envelope& envelope, std::string& out);
[[nodiscard]] std::string encode_extras(const spi::Envelope& envelope);

/// Sets the fields above in `into`, all of them: what the blob does not have becomes as in Envelope{}. Any
/// bytes are safe; no more memory is taken than a small multiple of their number. Errors: kCorruptEnvelope;
/// `into` then has what was read before the damage.
[[nodiscard]] Result<void> decode_extras(std::string_view blob, spi::Envelope& into);

}  // namespace towline::codec
