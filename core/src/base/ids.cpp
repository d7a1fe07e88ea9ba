// Ids: their text form, their hash, and the generator of growing ones.

#include "base/ids.hpp"

#include <algorithm>
#include <cstring>

#include "base/random.hpp"
#include "base/text.hpp"

namespace towline {
namespace {

constexpr char kHexDigits[] = "0123456789abcdef";
// Hyphens stand before these bytes of the id.
constexpr bool hyphen_before(std::size_t byte) { return byte == 4 || byte == 6 || byte == 8 || byte == 10; }

int hex_value(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

Error invalid_id(std::string_view text) {
  return Error{ErrorCode::kInvalidId, "id '" + base::escape(text, 64) +
                                          "' is not a UUID of 36 characters, like " +
                                          "'01890a5d-ac96-774b-bcce-b302099a8057'"};
}

}  // namespace

std::string MessageId::to_string() const {
  std::string text;
  append_to(text);
  return text;
}

void MessageId::append_to(std::string& text) const {
  char characters[36];
  char* at = characters;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (hyphen_before(i)) *at++ = '-';
    *at++ = kHexDigits[bytes[i] >> 4];
    *at++ = kHexDigits[bytes[i] & 15];
  }
  text.append(characters, sizeof characters);
}

Result<MessageId> MessageId::parse(std::string_view text) {
  if (text.size() != 36) return invalid_id(text);
  MessageId id;
  std::size_t at = 0;
  for (std::size_t i = 0; i < id.bytes.size(); ++i) {
    if (hyphen_before(i) && text[at++] != '-') return invalid_id(text);
    const int high = hex_value(text[at]);
    const int low = hex_value(text[at + 1]);
    if (high < 0 || low < 0) return invalid_id(text);
    id.bytes[i] = static_cast<std::uint8_t>(high << 4 | low);
    at += 2;
  }
  return id;
}

std::size_t MessageIdHash::operator()(const MessageId& id) const noexcept {
  std::uint64_t head = 0;
  std::uint64_t tail = 0;
  std::memcpy(&head, id.bytes.data(), 8);
  std::memcpy(&tail, id.bytes.data() + 8, 8);
  return static_cast<std::size_t>(base::mix(head ^ base::mix(tail)));
}

namespace base {
namespace {

constexpr std::uint64_t kTicksPerMillisecond = 4096;
constexpr std::uint64_t kTailMask = (std::uint64_t{1} << 62) - 1;
// Some ticks below the end of 48 bits of milliseconds, so that counting on at the bound cannot overflow the
// field.
constexpr std::uint64_t kTickMax = (std::uint64_t{1} << 60) - (std::uint64_t{1} << 24);

std::uint64_t tick_of(TimePoint time) noexcept {
  const std::int64_t us = std::max<std::int64_t>(to_us(time), 0);
  const auto milliseconds = static_cast<std::uint64_t>(us / 1000);
  if (milliseconds >= kTickMax / kTicksPerMillisecond) return kTickMax;
  // Rounded up, so that time_of() rounds down to the same microsecond.
  const auto fraction = (static_cast<std::uint64_t>(us % 1000) * kTicksPerMillisecond + 999) / 1000;
  return milliseconds * kTicksPerMillisecond + fraction;
}

void store_big_endian(std::uint64_t value, std::uint8_t* to) noexcept {
  for (int i = 7; i >= 0; --i) {
    to[i] = static_cast<std::uint8_t>(value);
    value >>= 8;
  }
}

MessageId make_id(std::uint64_t tick, std::uint64_t tail) noexcept {
  const std::uint64_t milliseconds = tick / kTicksPerMillisecond;
  const std::uint64_t fraction = tick % kTicksPerMillisecond;
  MessageId id;
  store_big_endian(milliseconds << 16 | std::uint64_t{7} << 12 | fraction, id.bytes.data());
  store_big_endian(std::uint64_t{2} << 62 | tail, id.bytes.data() + 8);
  return id;
}

}  // namespace

void IdSource::advance(std::uint64_t tick, spi::Rng& rng) noexcept {
  const std::uint64_t chance = rng.next();
  if (tick > tick_) {
    tick_ = tick;
    tail_ = chance >> 3;  // 61 bits: the upper half of the tail is left for counting
    return;
  }
  tail_ += 1 + (chance >> 32);
  if (tail_ > kTailMask) {
    ++tick_;
    tail_ = chance >> 3;
  }
}

MessageId IdSource::next(TimePoint now, spi::Rng& rng) noexcept {
  advance(tick_of(now), rng);
  return make_id(tick_, tail_);
}

void IdSource::fill(std::span<MessageId> ids, TimePoint now, spi::Rng& rng) noexcept {
  const std::uint64_t tick = tick_of(now);
  for (MessageId& id : ids) {
    advance(tick, rng);
    id = make_id(tick_, tail_);
  }
}

TimePoint time_of(const MessageId& id) noexcept {
  std::uint64_t head = 0;
  for (std::size_t i = 0; i < 8; ++i)
    head = head << 8 | id.bytes[i];
  const std::uint64_t milliseconds = head >> 16;
  const std::uint64_t fraction = head & 0xFFF;
  return from_us(static_cast<std::int64_t>(milliseconds * 1000 + fraction * 1000 / kTicksPerMillisecond));
}

MessageId first_id_at(TimePoint time) noexcept { return make_id(tick_of(time), 0); }

}  // namespace base
}  // namespace towline
