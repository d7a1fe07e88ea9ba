// The blob is a version byte and then fields in ascending order of their tags, each with its length. The
// order and the single form of numbers make the encoding unique: what decodes encodes to the same bytes
// again.

#include "codec/extras.hpp"

#include <algorithm>
#include <cstdint>

#include "base/varint.hpp"

namespace towline::codec {
namespace {

using base::ByteReader;
using base::ByteWriter;

constexpr std::uint8_t kExtrasVersion = 1;

// Part of the stored format: numbers are never reused.
enum Tag : std::uint8_t {
  kHeaders = 1,
  kContentType = 2,
  kCorrelationId = 3,
  kCausationId = 4,
  kTraceparent = 5,
  kDedup = 6,
  kFirstFailedAt = 7,
  kRetryDelay = 8,
  kHistory = 9
};

bool has_dedup(const spi::Envelope& envelope) noexcept {
  return !envelope.dedup_id.empty() || envelope.dedup_until != TimePoint{} ||
         envelope.dedup_mode != DedupMode::kWindow;
}

Error corrupt(std::string text) {
  return Error{ErrorCode::kCorruptEnvelope, "envelope extras: " + std::move(text)};
}

// Writes one field: its tag, and its bytes with their length.
class FieldWriter {
 public:
  explicit FieldWriter(std::string& out) : writer_(out) {}

  void text_unless_empty(Tag tag, std::string_view text) {
    if (text.empty()) return;
    writer_.u8(tag);
    writer_.text(text);
  }

  template <typename F>
  void field(Tag tag, F write) {
    bytes_.clear();
    ByteWriter writer(bytes_);
    write(writer);
    text_always(tag);
  }

 private:
  void text_always(Tag tag) {
    writer_.u8(tag);
    writer_.text(bytes_);
  }

  ByteWriter writer_;
  std::string bytes_;
};

void write_headers(const Headers& headers, ByteWriter& writer) {
  writer.varint(headers.size());
  for (const auto& [name, value] : headers) {
    writer.text(name);
    writer.text(value);
  }
}

void write_history(const std::vector<spi::Failure>& history, ByteWriter& writer) {
  writer.varint(history.size());
  for (const spi::Failure& failure : history) {
    writer.signed_varint(to_us(failure.at));
    writer.varint(failure.attempt);
    writer.text(failure.error_type);
    writer.text(failure.error_message);
  }
}

// ---- reading --------------------------------------------------------------------------------------------

void read_headers(ByteReader& reader, Headers& headers) {
  // Each header takes two bytes at least, so a count beyond that is damage and must not become an allocation.
  const std::uint64_t count = reader.varint_up_to(reader.remaining() / 2);
  headers.reserve(static_cast<std::size_t>(count));
  for (std::uint64_t i = 0; i < count && reader.ok(); ++i) {
    const std::string_view name = reader.text();
    const std::string_view value = reader.text();
    if (reader.ok()) headers.emplace_back(name, value);
  }
}

void read_history(ByteReader& reader, std::vector<spi::Failure>& history) {
  const std::uint64_t count = reader.varint_up_to(reader.remaining() / 4);
  history.reserve(static_cast<std::size_t>(count));
  for (std::uint64_t i = 0; i < count && reader.ok(); ++i) {
    spi::Failure failure;
    failure.at = from_us(reader.signed_varint());
    failure.attempt = static_cast<std::uint32_t>(reader.varint_up_to(UINT32_MAX));
    failure.error_type = reader.text();
    failure.error_message = reader.text();
    if (reader.ok()) history.push_back(std::move(failure));
  }
}

void read_dedup(ByteReader& reader, spi::Envelope& into) {
  into.dedup_id = reader.text();
  into.dedup_until = from_us(reader.signed_varint());
  const std::uint8_t mode = reader.u8();
  if (mode > static_cast<std::uint8_t>(DedupMode::kWhileUnfinished)) return reader.fail();
  into.dedup_mode = static_cast<DedupMode>(mode);
}

// False: no such field.
bool read_field(std::uint8_t tag, std::string_view bytes, ByteReader& reader, spi::Envelope& into) {
  switch (tag) {
    case kHeaders:
      read_headers(reader, into.headers);
      return true;
    case kDedup:
      read_dedup(reader, into);
      return true;
    case kFirstFailedAt:
      into.first_failed_at = from_us(reader.signed_varint());
      return true;
    case kRetryDelay:
      into.retry_delay = Duration(reader.signed_varint());
      return true;
    case kHistory:
      read_history(reader, into.history);
      return true;
    case kContentType:
      into.content_type = bytes;
      break;
    case kCorrelationId:
      into.correlation_id = bytes;
      break;
    case kCausationId:
      into.causation_id = bytes;
      break;
    case kTraceparent:
      into.traceparent = bytes;
      break;
    default:
      return false;
  }
  reader.raw(bytes.size());
  return true;
}

void clear_extras(spi::Envelope& envelope) {
  envelope.headers.clear();
  envelope.content_type.clear();
  envelope.correlation_id.clear();
  envelope.causation_id.clear();
  envelope.traceparent.clear();
  envelope.dedup_id.clear();
  envelope.dedup_until = {};
  envelope.dedup_mode = DedupMode::kWindow;
  envelope.first_failed_at.reset();
  envelope.retry_delay = {};
  envelope.history.clear();
}

// A field that says what its absence says already would be a second form of the same envelope.
bool says_nothing(std::uint8_t tag, const spi::Envelope& envelope) noexcept {
  switch (tag) {
    case kHeaders:
      return envelope.headers.empty();
    case kContentType:
      return envelope.content_type.empty();
    case kCorrelationId:
      return envelope.correlation_id.empty();
    case kCausationId:
      return envelope.causation_id.empty();
    case kTraceparent:
      return envelope.traceparent.empty();
    case kDedup:
      return !has_dedup(envelope);
    case kRetryDelay:
      return envelope.retry_delay == Duration::zero();
    case kHistory:
      return envelope.history.empty();
    default:
      return false;
  }
}

}  // namespace

bool has_extras(const spi::Envelope& envelope) noexcept {
  return !envelope.headers.empty() || !envelope.content_type.empty() || !envelope.correlation_id.empty() ||
         !envelope.causation_id.empty() || !envelope.traceparent.empty() || has_dedup(envelope) ||
         envelope.first_failed_at.has_value() || envelope.retry_delay != Duration::zero() ||
         !envelope.history.empty();
}

void encode_extras(const spi::Envelope& envelope, std::string& out) {
  if (!has_extras(envelope)) return;
  out.push_back(static_cast<char>(kExtrasVersion));
  FieldWriter fields(out);
  if (!envelope.headers.empty()) {
    fields.field(kHeaders, [&](ByteWriter& writer) { write_headers(envelope.headers, writer); });
  }
  fields.text_unless_empty(kContentType, envelope.content_type);
  fields.text_unless_empty(kCorrelationId, envelope.correlation_id);
  fields.text_unless_empty(kCausationId, envelope.causation_id);
  fields.text_unless_empty(kTraceparent, envelope.traceparent);
  if (has_dedup(envelope)) {
    fields.field(kDedup, [&](ByteWriter& writer) {
      writer.text(envelope.dedup_id);
      writer.signed_varint(to_us(envelope.dedup_until));
      writer.u8(static_cast<std::uint8_t>(envelope.dedup_mode));
    });
  }
  if (envelope.first_failed_at) {
    fields.field(kFirstFailedAt,
                 [&](ByteWriter& writer) { writer.signed_varint(to_us(*envelope.first_failed_at)); });
  }
  if (envelope.retry_delay != Duration::zero()) {
    fields.field(kRetryDelay,
                 [&](ByteWriter& writer) { writer.signed_varint(envelope.retry_delay.count()); });
  }
  if (!envelope.history.empty()) {
    fields.field(kHistory, [&](ByteWriter& writer) { write_history(envelope.history, writer); });
  }
}

std::string encode_extras(const spi::Envelope& envelope) {
  std::string out;
  encode_extras(envelope, out);
  return out;
}

Result<void> decode_extras(std::string_view blob, spi::Envelope& into) {
  clear_extras(into);
  if (blob.empty()) return {};
  ByteReader reader(blob);
  const std::uint8_t version = reader.u8();
  if (version != kExtrasVersion) {
    return corrupt("version " + std::to_string(version) + ", but this build knows only version 1");
  }
  if (reader.at_end()) return corrupt("a version and no field");
  std::uint8_t tag_before = 0;
  while (!reader.at_end()) {
    const std::uint8_t tag = reader.u8();
    const std::string_view bytes = reader.text();
    if (!reader.ok()) return corrupt("field " + std::to_string(tag) + " is cut off");
    if (tag <= tag_before) return corrupt("field " + std::to_string(tag) + " is out of order");
    ByteReader field(bytes);
    if (!read_field(tag, bytes, field, into)) {
      return corrupt("field " + std::to_string(tag) + " is unknown; a newer version may have written it");
    }
    if (!field.ok() || !field.at_end() || says_nothing(tag, into)) {
      return corrupt("field " + std::to_string(tag) + " is damaged");
    }
    tag_before = tag;
  }
  return {};
}

}  // namespace towline::codec
