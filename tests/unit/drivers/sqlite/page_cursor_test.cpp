// Page cursors: they come back as they were, and only to the query that made them.

#include "drivers/sqlite/page_cursor.hpp"

#include <gtest/gtest.h>

#include "support/property.hpp"

namespace towline::drivers::sqlite {
namespace {

QuerySeal query_of(std::string_view topic, std::uint64_t status) {
  return QuerySeal().add(topic).add(status);
}

TEST(SqlitePageCursor, ComesBackAsItWas) {
  support::for_all([](std::int64_t rank, std::string tie, const std::string& topic) {
    if (tie.size() > 128) tie.resize(128);
    const QuerySeal query = query_of(topic, 1);
    const auto place = parse_cursor(make_cursor({rank, tie}, query), query);
    RC_ASSERT(place.ok());
    RC_ASSERT(place->rank == rank);
    RC_ASSERT(place->tie == tie);
  });
}

TEST(SqlitePageCursor, IsPlainTextThatFitsIntoAUrl) {
  const std::string cursor = make_cursor({-1, std::string("\0\xff", 2)}, query_of("t", 1));
  EXPECT_EQ(cursor.find_first_not_of("0123456789abcdef"), std::string::npos) << cursor;
}

TEST(SqlitePageCursor, BelongsToTheQueryThatMadeIt) {
  const std::string cursor = make_cursor({7, "x"}, query_of("orders", 1));
  EXPECT_TRUE(parse_cursor(cursor, query_of("orders", 1)).ok());
  EXPECT_FALSE(parse_cursor(cursor, query_of("orders", 2)).ok());
  EXPECT_FALSE(parse_cursor(cursor, query_of("others", 1)).ok());
  EXPECT_FALSE(parse_cursor(cursor, QuerySeal()).ok());
  EXPECT_NE(QuerySeal().add("ab").add("c").value(), QuerySeal().add("a").add("bc").value())
      << "where one text ends is part of the query";
}

TEST(SqlitePageCursor, EveryChangedDigitIsNoticed) {
  const QuerySeal query = query_of("orders", 1);
  const std::string cursor = make_cursor({123'456'789, "tie"}, query);
  for (std::size_t i = 0; i < cursor.size(); ++i) {
    for (const char digit : {'0', '1', '8', 'f', 'F', 'g', '-', '\0'}) {
      std::string changed = cursor;
      if (changed[i] == digit) continue;
      changed[i] = digit;
      const auto parsed = parse_cursor(changed, query);
      ASSERT_FALSE(parsed.ok()) << "digit " << i;
      EXPECT_EQ(parsed.error().code, ErrorCode::kInvalidCursor);
    }
    EXPECT_FALSE(parse_cursor(cursor.substr(0, i), query).ok()) << "cut at " << i;
  }
}

TEST(SqlitePageCursor, AnyOtherTextIsRefused) {
  support::for_all([](const std::string& text) { RC_ASSERT(!parse_cursor(text, query_of("t", 1)).ok()); });
  EXPECT_FALSE(parse_cursor(std::string(100'000, 'a'), query_of("t", 1)).ok());
}

}  // namespace
}  // namespace towline::drivers::sqlite
