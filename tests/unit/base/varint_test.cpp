// Reading and writing of bytes: the documented forms, and a reader that never leaves its bytes.

#include "base/varint.hpp"

#include <cstdint>
#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "support/property.hpp"

namespace towline::base {
namespace {

std::string varint(std::uint64_t value) {
  std::string out;
  ByteWriter(out).varint(value);
  return out;
}

TEST(Varint, HasTheDocumentedForm) {
  EXPECT_EQ(varint(0), std::string("\x00", 1));
  EXPECT_EQ(varint(127), "\x7f");
  EXPECT_EQ(varint(128), std::string("\x80\x01"));
  EXPECT_EQ(varint(300), "\xac\x02");
  EXPECT_EQ(varint(UINT64_MAX), "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
}

TEST(Varint, SurvivesWritingAndReading) {
  for (int bit = 0; bit < 64; ++bit) {
    for (const std::uint64_t value : {std::uint64_t{1} << bit, (std::uint64_t{1} << bit) - 1}) {
      const std::string bytes = varint(value);
      ByteReader reader(bytes);
      EXPECT_EQ(reader.varint(), value);
      EXPECT_TRUE(reader.ok() && reader.at_end());
    }
  }
}

TEST(Varint, IsRefusedInALongerFormThanNeeded) {
  for (const std::string& bytes : {std::string("\x80\x00", 2), std::string("\xff\x80\x00", 3),
                                   std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
                                   std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")}) {
    ByteReader reader(bytes);
    EXPECT_EQ(reader.varint(), 0u);
    EXPECT_FALSE(reader.ok());
  }
}

TEST(Varint, IsRefusedWhenCutOff) {
  const std::string bytes = varint(UINT64_MAX);
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    ByteReader reader(std::string_view(bytes).substr(0, length));
    EXPECT_EQ(reader.varint(), 0u);
    EXPECT_FALSE(reader.ok());
  }
}

TEST(Zigzag, KeepsSmallNumbersSmall) {
  EXPECT_EQ(zigzag(0), 0u);
  EXPECT_EQ(zigzag(-1), 1u);
  EXPECT_EQ(zigzag(1), 2u);
  EXPECT_EQ(zigzag(-2), 3u);
  EXPECT_EQ(zigzag(std::numeric_limits<std::int64_t>::max()), UINT64_MAX - 1);
  EXPECT_EQ(zigzag(std::numeric_limits<std::int64_t>::min()), UINT64_MAX);
  support::for_all([](std::int64_t value) { RC_ASSERT(unzigzag(zigzag(value)) == value); });
}

TEST(ByteReader, ReadsBackWhatWasWritten) {
  support::for_all(
      [](std::uint8_t a, std::uint32_t b, std::int64_t c, const std::string& d, const std::string& e) {
        std::string bytes;
        ByteWriter writer(bytes);
        writer.u8(a);
        writer.u32(b);
        writer.signed_varint(c);
        writer.text(d);
        writer.raw(e);
        ByteReader reader(bytes);
        RC_ASSERT(reader.u8() == a);
        RC_ASSERT(reader.u32() == b);
        RC_ASSERT(reader.signed_varint() == c);
        RC_ASSERT(reader.text() == d);
        RC_ASSERT(reader.raw(reader.remaining()) == e);
        RC_ASSERT(reader.ok());
        RC_ASSERT(reader.at_end());
      });
}

TEST(ByteReader, WritesFixedNumbersLowestByteFirst) {
  std::string bytes;
  ByteWriter(bytes).u32(0x01020304);
  EXPECT_EQ(bytes, "\x04\x03\x02\x01");
}

TEST(ByteReader, RefusesALengthBeyondItsBytesAndAnswersNothingAfterwards) {
  for (const std::uint64_t length : {std::uint64_t{4}, std::uint64_t{UINT32_MAX}, UINT64_MAX}) {
    const std::string bytes = varint(length) + "abc";
    ByteReader reader(bytes);
    EXPECT_EQ(reader.text(), "");
    EXPECT_FALSE(reader.ok());
    EXPECT_EQ(reader.u8(), 0);
    EXPECT_EQ(reader.u32(), 0u);
    EXPECT_EQ(reader.varint(), 0u);
    EXPECT_EQ(reader.raw(1), "");
    EXPECT_EQ(reader.remaining(), 0u);
  }
}

TEST(ByteReader, RefusesNumbersAboveTheBoundThatIsAskedFor) {
  const std::string bytes = varint(7);
  EXPECT_EQ(ByteReader(bytes).varint_up_to(7), 7u);
  ByteReader reader(bytes);
  EXPECT_EQ(reader.varint_up_to(6), 0u);
  EXPECT_FALSE(reader.ok());
}

}  // namespace
}  // namespace towline::base
