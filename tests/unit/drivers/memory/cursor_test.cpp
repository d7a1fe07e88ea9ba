// Page cursors: what was made reads back, and nothing else does.

#include "drivers/memory/cursor.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace towline::drivers::memory {
namespace {

TEST(MemoryCursor, ReadsBackWhatItWasMadeOf) {
  rc::check([](std::int64_t rank, std::uint64_t query, std::array<std::uint8_t, 16> tie) {
    const PageKey key{rank, tie};
    const auto parsed = parse_cursor(make_cursor(key, query), query);
    RC_ASSERT(parsed.ok());
    RC_ASSERT(*parsed == key);
    RC_ASSERT(!parse_cursor(make_cursor(key, query), query + 1).ok());
  });
}

TEST(MemoryCursor, AnythingElseIsInvalid) {
  const std::string good = make_cursor({5, {}}, 7);
  EXPECT_EQ(parse_cursor("", 7).error().code, ErrorCode::kInvalidCursor);
  EXPECT_EQ(parse_cursor(good + "0", 7).error().code, ErrorCode::kInvalidCursor);
  EXPECT_EQ(parse_cursor(std::string(good.size(), 'x'), 7).error().code, ErrorCode::kInvalidCursor);
  EXPECT_EQ(parse_cursor(std::string(good.size(), '0'), 7).error().code, ErrorCode::kInvalidCursor);
  rc::check([](const std::string& text) { RC_ASSERT(!parse_cursor(text, 7).ok()); });
}

TEST(MemoryCursor, QueriesThatDifferInOneConditionDiffer) {
  const auto of = [](std::string_view a, std::string_view b) {
    return QueryFingerprint().add(a).add(b).value();
  };
  EXPECT_EQ(of("a", "b"), of("a", "b"));
  EXPECT_NE(of("ab", ""), of("a", "b"));
  EXPECT_NE(of("", "ab"), of("ab", ""));
}

}  // namespace
}  // namespace towline::drivers::memory
