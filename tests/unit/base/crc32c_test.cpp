// CRC-32C: the published check values, and both ways of computing it agree.

#include "base/crc32c.hpp"

#include <string>

#include <gtest/gtest.h>

#include "support/property.hpp"

namespace towline::base {
namespace {

// Bit by bit, as the definition says.
std::uint32_t by_definition(std::string_view data) {
  std::uint32_t crc = 0xFFFFFFFF;
  for (const char byte : data) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit)
      crc = (crc & 1) != 0 ? crc >> 1 ^ 0x82F63B78 : crc >> 1;
  }
  return ~crc;
}

TEST(Crc32c, HasThePublishedCheckValues) {
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  // RFC 3720, appendix B.4.
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  std::string ascending, descending;
  for (char c = 0; c < 32; ++c) {
    ascending.push_back(c);
    descending.insert(descending.begin(), c);
  }
  EXPECT_EQ(crc32c(ascending), 0x46DD794Eu);
  EXPECT_EQ(crc32c(descending), 0x113FDB5Cu);
}

TEST(Crc32c, IsTheSameByInstructionByTableAndByDefinition) {
  support::for_all([](const std::string& data) {
    RC_ASSERT(crc32c(data) == by_definition(data));
    RC_ASSERT(detail::crc32c_by_table(data, 0) == by_definition(data));
  });
}

TEST(Crc32c, GoesOnFromTheChecksumOfWhatCameBefore) {
  support::for_all([](const std::string& a, const std::string& b) {
    RC_ASSERT(crc32c(b, crc32c(a)) == crc32c(a + b));
    RC_ASSERT(detail::crc32c_by_table(b, detail::crc32c_by_table(a, 0)) == crc32c(a + b));
  });
}

}  // namespace
}  // namespace towline::base
