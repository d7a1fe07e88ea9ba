// 16 hexadecimal digits of rank, 16 of seal, then the tie, in hexadecimal digits too.

#include "drivers/sqlite/page_cursor.hpp"

#include <optional>

namespace towline::drivers::sqlite {
namespace {

constexpr std::size_t kFixed = 32;
constexpr std::size_t kTieMax = 128;

std::uint64_t mix(std::uint64_t x) noexcept {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdULL;
  x ^= x >> 29;
  x *= 0xc4ceb9fe1a85ec53ULL;
  return x ^ (x >> 32);
}

void put_hex(std::string& to, std::uint64_t value) {
  for (int shift = 60; shift >= 0; shift -= 4)
    to.push_back("0123456789abcdef"[value >> shift & 15]);
}

std::optional<unsigned> digit_of(char c) noexcept {
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
  return std::nullopt;
}

std::optional<std::uint64_t> take_hex(std::string_view text) noexcept {
  std::uint64_t value = 0;
  for (const char c : text) {
    const auto digit = digit_of(c);
    if (!digit) return std::nullopt;
    value = value << 4 | *digit;
  }
  return value;
}

std::uint64_t seal_of(const PagePlace& place, const QuerySeal& query) noexcept {
  QuerySeal seal = query;
  return seal.add(static_cast<std::uint64_t>(place.rank)).add(place.tie).value();
}

}  // namespace

QuerySeal& QuerySeal::add(std::uint64_t number) noexcept {
  state_ = mix(state_ ^ mix(number + 0x2545f4914f6cdd1dULL));
  return *this;
}

QuerySeal& QuerySeal::add(std::string_view text) noexcept {
  add(static_cast<std::uint64_t>(text.size()));
  for (const char c : text)
    state_ = mix(state_ ^ static_cast<std::uint8_t>(c)) + 1;
  return *this;
}

std::string make_cursor(const PagePlace& place, const QuerySeal& query) {
  std::string cursor;
  put_hex(cursor, static_cast<std::uint64_t>(place.rank));
  put_hex(cursor, seal_of(place, query));
  for (const char c : place.tie) {
    cursor.push_back("0123456789abcdef"[static_cast<std::uint8_t>(c) >> 4]);
    cursor.push_back("0123456789abcdef"[static_cast<std::uint8_t>(c) & 15]);
  }
  return cursor;
}

Result<PagePlace> parse_cursor(std::string_view cursor, const QuerySeal& query) {
  const Error bad{
      ErrorCode::kInvalidCursor,
      "the cursor does not belong to this query; hand back what the page before gave, with the same query"};
  if (cursor.size() < kFixed || cursor.size() > kFixed + 2 * kTieMax || cursor.size() % 2 != 0) return bad;
  const auto rank = take_hex(cursor.substr(0, 16));
  const auto seal = take_hex(cursor.substr(16, 16));
  if (!rank || !seal) return bad;
  PagePlace place;
  place.rank = static_cast<std::int64_t>(*rank);
  for (std::size_t i = kFixed; i < cursor.size(); i += 2) {
    const auto byte = take_hex(cursor.substr(i, 2));
    if (!byte) return bad;
    place.tie.push_back(static_cast<char>(*byte));
  }
  if (seal_of(place, query) != *seal) return bad;
  return place;
}

}  // namespace towline::drivers::sqlite
