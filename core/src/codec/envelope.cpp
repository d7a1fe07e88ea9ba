// Encoding of whole envelopes. Order that matters in decoding: magic, version, checksum, fields. The version
// comes before the checksum, because a later version may put its checksum elsewhere, and "written by version
// 3" helps more than "damaged".

#include "codec/envelope.hpp"

#include <cstdint>
#include <cstring>
#include <optional>

#include "base/crc32c.hpp"
#include "base/varint.hpp"
#include "codec/extras.hpp"

namespace towline::codec {
namespace {

using base::ByteReader;
using base::ByteWriter;

constexpr std::string_view kMagic = "TWLN";
constexpr std::uint8_t kVersion = 1;
constexpr std::size_t kChecksumLength = 4;

// Which optional fields follow, in this order. kHeadsKey has no bytes of its own.
enum Flag : std::uint8_t {
  kHasKey = 1 << 0,
  kHasGroup = 1 << 1,
  kHasExpiry = 1 << 2,
  kHasPriority = 1 << 3,
  kHasProgress = 1 << 4,  // attempt, crashes, redrives
  kHeadsKey = 1 << 5,
  kHasExtras = 1 << 6,
  kAllFlags = (1 << 7) - 1
};

bool has_progress(const spi::Envelope& envelope) noexcept {
  return envelope.attempt != 1 || envelope.crashes != 0 || envelope.redrives != 0;
}

std::uint8_t flags_of(const spi::Envelope& envelope) noexcept {
  std::uint8_t flags = 0;
  if (envelope.key) flags |= kHasKey;
  if (!envelope.group.empty()) flags |= kHasGroup;
  if (envelope.expires_at != kNever) flags |= kHasExpiry;
  if (envelope.priority != 0) flags |= kHasPriority;
  if (has_progress(envelope)) flags |= kHasProgress;
  if (envelope.heads_key) flags |= kHeadsKey;
  if (has_extras(envelope)) flags |= kHasExtras;
  return flags;
}

Error corrupt(std::string_view text) {
  return Error{ErrorCode::kCorruptEnvelope, "envelope: " + std::string(text)};
}

// Reads what follows the version and precedes the checksum.
Result<void> read_fields(ByteReader& reader, spi::Envelope& into) {
  const std::uint8_t flags = reader.u8();
  if ((flags & ~kAllFlags) != 0) return corrupt("unknown flags");
  if (const std::string_view id = reader.raw(into.id.bytes.size()); !id.empty()) {
    std::memcpy(into.id.bytes.data(), id.data(), id.size());
  }
  into.topic = reader.text();
  into.partition = static_cast<std::uint32_t>(reader.varint_up_to(UINT32_MAX));
  into.published_at = from_us(reader.signed_varint());
  if ((flags & kHasKey) != 0) {
    if (const std::string_view key = reader.text(); reader.ok()) into.key = key;
  }
  if ((flags & kHasGroup) != 0) into.group = reader.text();
  if ((flags & kHasExpiry) != 0) into.expires_at = from_us(reader.signed_varint());
  if ((flags & kHasPriority) != 0) into.priority = reader.u8();
  if ((flags & kHasProgress) != 0) {
    into.attempt = static_cast<std::uint32_t>(reader.varint_up_to(UINT32_MAX));
    into.crashes = static_cast<std::uint32_t>(reader.varint_up_to(UINT32_MAX));
    into.redrives = static_cast<std::uint32_t>(reader.varint_up_to(UINT32_MAX));
  }
  into.heads_key = (flags & kHeadsKey) != 0;
  if ((flags & kHasExtras) != 0) {
    const std::string_view extras = reader.text();
    if (!reader.ok()) return corrupt("cut off or damaged before the payload");
    if (auto bad = decode_extras(extras, into); !bad) return bad;
  }
  into.payload = reader.text();
  if (!reader.ok()) return corrupt("cut off or damaged");
  if (!reader.at_end()) return corrupt(std::to_string(reader.remaining()) + " bytes too many");
  // A flag for a field that holds its default would be a second form of the same envelope.
  if (flags != flags_of(into)) return corrupt("a field is flagged and empty");
  return {};
}

}  // namespace

void encode(const spi::Envelope& envelope, std::string& out) {
  const std::size_t start = out.size();
  out.reserve(start + 64 + envelope.topic.size() + envelope.payload.size());
  ByteWriter writer(out);
  const std::uint8_t flags = flags_of(envelope);
  writer.raw(kMagic);
  writer.u8(kVersion);
  writer.u8(flags);
  writer.raw({reinterpret_cast<const char*>(envelope.id.bytes.data()), envelope.id.bytes.size()});
  writer.text(envelope.topic);
  writer.varint(envelope.partition);
  writer.signed_varint(to_us(envelope.published_at));
  if (envelope.key) writer.text(*envelope.key);
  if (!envelope.group.empty()) writer.text(envelope.group);
  if (envelope.expires_at != kNever) writer.signed_varint(to_us(envelope.expires_at));
  if (envelope.priority != 0) writer.u8(envelope.priority);
  if (has_progress(envelope)) {
    writer.varint(envelope.attempt);
    writer.varint(envelope.crashes);
    writer.varint(envelope.redrives);
  }
  if ((flags & kHasExtras) != 0) writer.text(encode_extras(envelope));
  writer.text(envelope.payload);
  writer.u32(base::crc32c(std::string_view(out).substr(start)));
}

std::string encode(const spi::Envelope& envelope) {
  std::string out;
  encode(envelope, out);
  return out;
}

Result<void> decode_into(std::string_view bytes, spi::Envelope& into) {
  into = spi::Envelope{};
  if (!bytes.starts_with(kMagic)) return corrupt("the bytes do not begin like one");
  if (bytes.size() == kMagic.size()) return corrupt("cut off after the magic");
  const auto version = static_cast<std::uint8_t>(bytes[kMagic.size()]);
  if (version != kVersion) {
    return corrupt("version " + std::to_string(version) + ", but this build knows only version 1" +
                   (version > kVersion ? "; a newer towline wrote it" : ""));
  }
  const std::size_t head = kMagic.size() + 1;
  if (bytes.size() < head + kChecksumLength) return corrupt("cut off");
  const std::string_view covered = bytes.substr(0, bytes.size() - kChecksumLength);
  ByteReader checksum(bytes.substr(covered.size()));
  const bool intact = checksum.u32() == base::crc32c(covered);
  ByteReader reader(covered.substr(head));
  Result<void> fields = read_fields(reader, into);
  if (!intact) return corrupt("false checksum: the bytes were changed or cut off");
  return fields;
}

Result<spi::Envelope> decode(std::string_view bytes) {
  spi::Envelope envelope;
  if (auto bad = decode_into(bytes, envelope); !bad) return std::move(bad).error();
  return envelope;
}

}  // namespace towline::codec
