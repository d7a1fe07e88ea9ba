// 24 bytes of key and 8 of checksum, in hexadecimal digits.

#include "drivers/memory/cursor.hpp"

#include <cstring>

namespace towline::drivers::memory {
namespace {

constexpr std::size_t kKeySize = 24;
constexpr std::size_t kCursorSize = kKeySize + 8;
constexpr std::uint64_t kPrime = 0x100000001b3ULL;

void put(std::uint64_t value, std::uint8_t* to) noexcept {
  for (int i = 0; i < 8; ++i)
    to[i] = static_cast<std::uint8_t>(value >> (56 - 8 * i));
}

std::uint64_t get(const std::uint8_t* from) noexcept {
  std::uint64_t value = 0;
  for (int i = 0; i < 8; ++i)
    value = value << 8 | from[i];
  return value;
}

std::uint64_t checksum(const std::uint8_t* key, std::uint64_t query) noexcept {
  QueryFingerprint hash;
  hash.add(query).add(std::string_view(reinterpret_cast<const char*>(key), kKeySize));
  return hash.value();
}

int digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

QueryFingerprint& QueryFingerprint::add(std::string_view text) noexcept {
  add(static_cast<std::uint64_t>(text.size()));
  for (const char c : text)
    hash_ = (hash_ ^ static_cast<std::uint8_t>(c)) * kPrime;
  return *this;
}

QueryFingerprint& QueryFingerprint::add(std::uint64_t number) noexcept {
  for (int i = 0; i < 8; ++i)
    hash_ = (hash_ ^ (number >> (8 * i) & 0xff)) * kPrime;
  return *this;
}

std::string make_cursor(const PageKey& last, std::uint64_t query) {
  std::uint8_t bytes[kCursorSize];
  put(static_cast<std::uint64_t>(last.rank), bytes);
  std::memcpy(bytes + 8, last.tie.data(), last.tie.size());
  put(checksum(bytes, query), bytes + kKeySize);
  std::string text;
  text.reserve(2 * kCursorSize);
  for (const std::uint8_t byte : bytes) {
    text.push_back("0123456789abcdef"[byte >> 4]);
    text.push_back("0123456789abcdef"[byte & 15]);
  }
  return text;
}

Result<PageKey> parse_cursor(std::string_view cursor, std::uint64_t query) {
  const Error bad{
      ErrorCode::kInvalidCursor,
      "the cursor was not made by this query; hand back the cursor of the page before, with the same query"};
  if (cursor.size() != 2 * kCursorSize) return bad;
  std::uint8_t bytes[kCursorSize];
  for (std::size_t i = 0; i < kCursorSize; ++i) {
    const int high = digit(cursor[2 * i]);
    const int low = digit(cursor[2 * i + 1]);
    if (high < 0 || low < 0) return bad;
    bytes[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  if (get(bytes + kKeySize) != checksum(bytes, query)) return bad;
  PageKey key;
  key.rank = static_cast<std::int64_t>(get(bytes));
  std::memcpy(key.tie.data(), bytes + 8, key.tie.size());
  return key;
}

}  // namespace towline::drivers::memory
