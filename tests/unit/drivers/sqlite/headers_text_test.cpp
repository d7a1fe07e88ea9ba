// Headers as lines for people, and back.

#include "drivers/sqlite/headers_text.hpp"

#include <gtest/gtest.h>

#include "support/property.hpp"

namespace towline::drivers::sqlite {
namespace {

TEST(SqliteHeadersText, IsOneLinePerHeaderThatPeopleCanRead) {
  EXPECT_EQ(headers_to_text({}), "");
  EXPECT_EQ(headers_to_text({{"region", "eu"}, {"trace", ""}}), "region: eu\ntrace: \n");
}

TEST(SqliteHeadersText, WhatWouldEndALineOrANameIsEscaped) {
  EXPECT_EQ(headers_to_text({{"a:b", "c: d\ne\\"}}), "a\\:b: c: d\\ne\\\\\n");
}

TEST(SqliteHeadersText, AnyHeadersComeBackAsTheyWere) {
  support::for_all([](const Headers& headers) {
    RC_LOG() << headers_to_text(headers);
    RC_ASSERT(headers_from_text(headers_to_text(headers)) == headers);
  });
  for (const char* odd : {"", " ", ":", "\\", "\n", "\\n", ": ", "a\\", "\r\n"}) {
    const Headers headers = {{odd, odd}, {"next", "x"}};
    EXPECT_EQ(headers_from_text(headers_to_text(headers)), headers) << "'" << odd << "'";
  }
}

TEST(SqliteHeadersText, WhatAPersonTypedIsReadAsFarAsItGoes) {
  EXPECT_EQ(headers_from_text("a: b"), (Headers{{"a", "b"}})) << "without the last line's end";
  EXPECT_EQ(headers_from_text("a:b\nc"), (Headers{{"a", "b"}, {"c", ""}}));
  support::for_all([](const std::string& text) { (void)headers_from_text(text); });
}

}  // namespace
}  // namespace towline::drivers::sqlite
