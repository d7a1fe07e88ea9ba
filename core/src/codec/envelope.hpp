#pragma once
// A whole envelope as bytes: what transports carry that have no columns of their own, and what log files of
// messages hold. Versioned, checksummed, and the same on every machine; FORMAT.md has every byte.
//
// The encoding is unique: equal envelopes have equal bytes, and bytes that decode encode to themselves. Any
// change of the bytes is found by the checksum. Decoding is safe for any input and takes no more memory than
// a small multiple of it.

#include <string>
#include <string_view>

#include <towline/result.hpp>
#include <towline/spi/envelope.hpp>

namespace towline::codec {

/// Appends the bytes of `envelope` to `out`.
void encode(const spi::Envelope& envelope, std::string& out);
[[nodiscard]] std::string encode(const spi::Envelope& envelope);

/// Errors: kCorruptEnvelope, saying what is wrong: not an envelope, a newer version (and which), a false
/// checksum, cut off.
[[nodiscard]] Result<spi::Envelope> decode(std::string_view bytes);

/// The same for a delivery that must not be lost even when it cannot be read: on an error `into` has the
/// fields that could be read before the damage, for the dead letter. They are not to be trusted.
[[nodiscard]] Result<void> decode_into(std::string_view bytes, spi::Envelope& into);

}  // namespace towline::codec
