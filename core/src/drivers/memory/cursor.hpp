#pragma once
// Page cursors: where a listing goes on, as text that the caller hands back. A cursor carries a checksum of
// itself and of the query that made it, so one that was made up, cut or used with another query is found out.

#include <cstdint>
#include <string>
#include <string_view>

#include <towline/message.hpp>
#include <towline/result.hpp>

namespace towline::drivers::memory {

/// The last entry of a page: listings are ordered by `rank` (a time or a sequence), then `tie`.
struct PageKey {
  std::int64_t rank = 0;
  std::array<std::uint8_t, 16> tie{};
  friend auto operator<=>(const PageKey&, const PageKey&) = default;
};

/// Collects what a query asked for; two queries with the same conditions have the same fingerprint.
class QueryFingerprint {
 public:
  QueryFingerprint& add(std::string_view text) noexcept;
  QueryFingerprint& add(std::uint64_t number) noexcept;
  [[nodiscard]] std::uint64_t value() const noexcept { return hash_; }

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325ULL;
};

[[nodiscard]] std::string make_cursor(const PageKey& last, std::uint64_t query);
/// kInvalidCursor unless `make_cursor` made it for the same query.
[[nodiscard]] Result<PageKey> parse_cursor(std::string_view cursor, std::uint64_t query);

}  // namespace towline::drivers::memory
