// See the header for the bytes.

#include "drivers/sqlite/runs.hpp"

#include <algorithm>
#include <cstring>

#include "base/varint.hpp"
#include "codec/extras.hpp"

namespace towline::drivers::sqlite {
namespace {

constexpr std::uint64_t kHasKey = 1;
constexpr std::uint64_t kExpires = 2;
constexpr std::uint64_t kHasExtras = 4;
constexpr std::size_t kIdSize = sizeof(MessageId::bytes);

/// Damaged bytes may say anything; they must not run over.
std::int64_t sum(std::int64_t a, std::int64_t b) noexcept {
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
}

}  // namespace

bool fits_run(const spi::Envelope& envelope) noexcept {
  return envelope.group.empty() && envelope.attempt == 1 && envelope.crashes == 0 && envelope.redrives == 0 &&
         !envelope.heads_key;
}

void append_to_run(std::string& run, const spi::Envelope& envelope, std::uint32_t partition,
                   std::int64_t published_us) {
  std::string head;
  const bool expires = envelope.expires_at != kNever;
  const bool extras = codec::has_extras(envelope);
  const std::int64_t published = to_us(envelope.published_at);
  base::ByteWriter to_head(head);
  to_head.varint((envelope.key ? kHasKey : 0) | (expires ? kExpires : 0) | (extras ? kHasExtras : 0));
  to_head.varint(partition);
  to_head.signed_varint(published - published_us);
  to_head.raw({reinterpret_cast<const char*>(envelope.id.bytes.data()), kIdSize});
  if (envelope.key) to_head.text(*envelope.key);
  if (expires) to_head.signed_varint(to_us(envelope.expires_at) - published);
  if (extras) to_head.text(codec::encode_extras(envelope));
  base::ByteWriter writer(run);
  writer.varint(head.size() + envelope.payload.size());
  writer.raw(head);
  writer.raw(envelope.payload);
}

std::string_view RunReader::take() {
  base::ByteReader reader(rest_);
  const std::uint64_t size = reader.varint();
  if (!reader.ok() || size > reader.remaining()) {
    rest_ = {};
    return {};
  }
  const std::size_t start = rest_.size() - reader.remaining();
  const std::string_view bytes = rest_.substr(start, static_cast<std::size_t>(size));
  rest_.remove_prefix(start + bytes.size());
  return bytes;
}

RunReader::Message RunReader::next() {
  Message message;
  const std::string_view bytes = take();
  base::ByteReader reader(bytes);
  const std::uint64_t flags = reader.varint();
  message.partition = static_cast<std::uint32_t>(reader.varint());
  message.published_us = sum(published_us_, reader.signed_varint());
  message.id = reader.raw(kIdSize);
  if ((flags & kHasKey) != 0) message.key = reader.text();
  if ((flags & kExpires) != 0) message.expires_us = sum(message.published_us, reader.signed_varint());
  if ((flags & kHasExtras) != 0) message.extras = reader.text();
  message.whole = reader.ok() && message.id.size() == kIdSize;
  message.payload = message.whole ? bytes.substr(bytes.size() - reader.remaining()) : bytes;
  return message;
}

MessageId id_of(const RunReader::Message& message) noexcept {
  MessageId id;
  if (message.whole) std::memcpy(id.bytes.data(), message.id.data(), kIdSize);
  return id;
}

bool to_envelope(const RunReader::Message& message, spi::Envelope& envelope) {
  envelope.payload = message.payload;
  if (!message.whole) return false;
  envelope.id = id_of(message);
  envelope.partition = message.partition;
  if (message.key) envelope.key.emplace(*message.key);
  envelope.published_at = from_us(message.published_us);
  if (message.expires_us) envelope.expires_at = from_us(*message.expires_us);
  return message.extras.empty() || codec::decode_extras(message.extras, envelope).ok();
}

}  // namespace towline::drivers::sqlite
