// FORMAT.md tells the truth: the bytes of its examples are what the codec writes, and are read as what they
// say.

#include <cctype>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "codec/envelope.hpp"
#include "unit/codec/envelopes.hpp"

namespace towline::codec {
namespace {

/// The bytes of one line: groups of hexadecimal digits with single blanks between them, before two blanks.
std::string bytes_of_line(const std::string& line) {
  const std::size_t begin = line.find_first_not_of(' ');
  std::string digits = line.substr(begin, line.find("  ", begin) - begin);
  std::erase(digits, ' ');
  std::string bytes;
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2) {
    EXPECT_TRUE(std::isxdigit(digits[i]) && std::isxdigit(digits[i + 1])) << line;
    bytes.push_back(static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16)));
  }
  EXPECT_EQ(digits.size() % 2, 0U) << line;
  return bytes;
}

/// The indented blocks under "Two examples".
std::vector<std::string> examples() {
  std::ifstream file(std::string(TOWLINE_SOURCE_DIR) + "/core/src/codec/FORMAT.md");
  std::vector<std::string> found;
  bool inside = false, in_block = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("## ")) inside = line == "## Two examples";
    const bool is_code = inside && line.starts_with("    ");
    if (is_code && !in_block) found.emplace_back();
    if (is_code) found.back() += bytes_of_line(line);
    in_block = is_code;
  }
  return found;
}

TEST(EnvelopeFormat, TheDocumentedBytesAreWhatIsWritten) {
  const auto documented = examples();
  ASSERT_EQ(documented.size(), 2U);
  EXPECT_EQ(documented[0], encode(small_envelope()));
  EXPECT_EQ(documented[1], encode(full_envelope()));
}

TEST(EnvelopeFormat, TheDocumentedBytesAreReadAsWhatTheyAreSaidToBe) {
  const auto documented = examples();
  ASSERT_EQ(documented.size(), 2U);
  EXPECT_EQ(describe(decode(documented[0]).value()), describe(small_envelope()));
  EXPECT_EQ(describe(decode(documented[1]).value()), describe(full_envelope()));
}

}  // namespace
}  // namespace towline::codec
