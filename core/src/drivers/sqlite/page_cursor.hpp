#pragma once
// Page cursors: the place after the last entry of a page, sealed with what was asked, so that a cursor of
// another query, or one that somebody made up, is refused instead of answering with the wrong entries.

#include <cstdint>
#include <string>
#include <string_view>

#include <towline/result.hpp>

namespace towline::drivers::sqlite {

/// Mixes everything that makes a query what it is.
class QuerySeal {
 public:
  QuerySeal& add(std::string_view text) noexcept;
  QuerySeal& add(std::uint64_t number) noexcept;
  [[nodiscard]] std::uint64_t value() const noexcept { return state_; }

 private:
  std::uint64_t state_ = 0x9e3779b97f4a7c15ULL;
};

struct PagePlace {
  std::int64_t rank = 0;
  std::string tie;
};

[[nodiscard]] std::string make_cursor(const PagePlace& place, const QuerySeal& query);
/// kInvalidCursor.
[[nodiscard]] Result<PagePlace> parse_cursor(std::string_view cursor, const QuerySeal& query);

}  // namespace towline::drivers::sqlite
