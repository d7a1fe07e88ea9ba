// docs/FILTERS.md tells the truth: its examples are evaluated and its errors are provoked.

#include <fstream>
#include <regex>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "policy/filter.hpp"

namespace towline::policy {
namespace {

/// The cells of the table under a heading, row by row, without its head.
std::vector<std::vector<std::string>> table_under(const std::string& heading) {
  std::ifstream file(std::string(TOWLINE_SOURCE_DIR) + "/docs/FILTERS.md");
  std::vector<std::vector<std::string>> rows;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("## ")) inside = line == "## " + heading;
    if (!inside || !line.starts_with("| ")) continue;
    std::vector<std::string> cells;
    for (std::size_t begin = 2, end = 0; (end = line.find(" |", begin)) != std::string::npos; begin = end + 3)
      cells.push_back(line.substr(begin, end - begin));
    rows.push_back(std::move(cells));
  }
  if (!rows.empty()) rows.erase(rows.begin());
  return rows;
}

/// What stands between backticks.
std::vector<std::string> code_in(const std::string& cell) {
  static const std::regex kCode("`([^`]*)`");
  std::vector<std::string> found;
  for (std::sregex_iterator it(cell.begin(), cell.end(), kCode), end; it != end; ++it)
    found.push_back((*it)[1]);
  return found;
}

spi::Envelope envelope_of(const std::string& cell) {
  spi::Envelope envelope;
  envelope.topic = "t";
  for (const std::string& part : code_in(cell)) {
    const std::size_t colon = part.rfind(": ");
    const std::string name = part.substr(0, colon);
    const std::string value = part.substr(colon + 2);
    if (name == "$priority") {
      envelope.priority = static_cast<std::uint8_t>(std::stoi(value));
    } else if (name == "$topic") {
      envelope.topic = value;
    } else if (name == "$key") {
      envelope.key = value;
    } else if (name == "$payload") {
      envelope.payload = value;
    } else {
      EXPECT_FALSE(name.starts_with("$")) << "the test does not know " << name;
      envelope.headers.emplace_back(name, value);
    }
  }
  return envelope;
}

TEST(FilterDocs, EveryExampleAnswersWhatThePageSays) {
  const auto rows = table_under("Examples");
  ASSERT_GE(rows.size(), 20U);
  int let_through = 0;
  for (const auto& row : rows) {
    ASSERT_EQ(row.size(), 3U);
    const std::string text = code_in(row[0]).at(0);
    const auto filter = Filter::compile(text);
    ASSERT_TRUE(filter.ok()) << text << ": " << filter.error().message;
    ASSERT_TRUE(row[2] == "yes" || row[2] == "no") << row[2];
    EXPECT_EQ(filter->matches(envelope_of(row[1])), row[2] == "yes") << text << " on " << row[1];
    let_through += row[2] == "yes" ? 1 : 0;
  }
  EXPECT_GE(let_through, 8);
}

TEST(FilterDocs, EveryErrorIsTheOneThatThePageShows) {
  const auto rows = table_under("Errors");
  ASSERT_GE(rows.size(), 6U);
  for (const auto& row : rows) {
    ASSERT_EQ(row.size(), 2U);
    const std::string text = code_in(row[0]).at(0);
    const auto filter = Filter::compile(text);
    ASSERT_FALSE(filter.ok()) << text;
    EXPECT_EQ(filter.error().code, ErrorCode::kInvalidFilter);
    const std::string& message = filter.error().message;
    EXPECT_NE(message.find(code_in(row[1]).at(0)), std::string::npos) << message;
  }
}

TEST(FilterDocs, EveryFieldOfThePageIsOne) {
  const auto rows = table_under("Fields");
  ASSERT_EQ(rows.size(), 12U);
  for (const auto& row : rows)
    EXPECT_TRUE(Filter::compile("exists " + code_in(row.at(0)).at(0)).ok()) << row.at(0);
}

TEST(FilterDocs, TheBoundsAreThoseOfThePage) {
  EXPECT_EQ(kFilterLengthMax, 4096U);
  EXPECT_EQ(kFilterDepthMax, 64U);
}

}  // namespace
}  // namespace towline::policy
