// Runs the suite and prints one line per scenario and provider: id, provider, language, pass | skip(reason) |
// fail. A scenario with several tests passes when all of them do. Reads: scenarios.txt and capabilities.txt.
// A run of every test also writes results/conformance-cpp.jsonl, which tests/conformance/compare reads.

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "conformance/providers.hpp"
#include "conformance/scenarios.hpp"

namespace towline::conformance {
namespace {

class Report final : public ::testing::EmptyTestEventListener {
 public:
  void OnTestEnd(const ::testing::TestInfo& info) override {
    const std::string id = id_of_test(info.name());
    if (id.empty()) return;
    const std::string name = info.name();
    const std::size_t slash = name.rfind('/');
    const std::string provider = slash == std::string::npos ? "-" : name.substr(slash + 1);
    Line& line = lines_[{id, provider}];
    const ::testing::TestResult& result = *info.result();
    if (result.Failed()) {
      line.failed = true;
    } else if (result.Skipped()) {
      line.skipped = true;
      for (int i = 0; i < result.total_part_count(); ++i)
        line.reason = result.GetTestPartResult(i).message();
      while (!line.reason.empty() && line.reason.back() == '\n')
        line.reason.pop_back();
    } else {
      line.passed = true;
    }
  }

  void OnTestProgramEnd(const ::testing::UnitTest& unit_test) override {
    is_whole_ = unit_test.test_to_run_count() == unit_test.total_test_count();
    if (is_whole_) add_untested();
    std::string report;
    for (const auto& [key, line] : lines_) {
      const auto& [id, provider] = key;
      // Where a row passes over one of its tests the scenario is passed over, whatever the others did.
      const bool skip = line.skipped || !line.passed;
      const char* result = line.failed ? "fail" : skip ? "skip" : "pass";
      const std::string reason = line.failed || !skip ? "" : line.reason;
      std::printf("%s %s cpp %s%s\n", id.c_str(), provider.c_str(), result,
                  reason.empty() ? "" : ("(" + reason + ")").c_str());
      report += R"({"id":")" + id + R"(","provider":")" + provider + R"(","language":"cpp","result":")" +
                result + R"(","reason":")" + escaped(reason) + "\"}\n";
    }
    std::fflush(stdout);
    if (is_whole_) write(report);
  }

  /// Rows of the capability table that are out of date: the scenario passed on that provider.
  [[nodiscard]] int stale_row_count() const {
    int count = 0;
    if (!is_whole_) return 0;
    for (const auto& [key, line] : lines_) {
      if (!line.passed || line.skipped || !skip_reason(key.first, key.second)) continue;
      std::printf("capabilities.txt: %s passes on %s; its row must go\n", key.first.c_str(),
                  key.second.c_str());
      ++count;
    }
    return count;
  }

 private:
  struct Line {
    bool passed = false;
    bool failed = false;
    bool skipped = false;
    std::string reason;
  };

  static std::string escaped(const std::string& text) {
    std::string out;
    for (const char c : text) {
      if (c == '"' || c == '\\') out += '\\';
      out += c == '\n' ? ' ' : c;
    }
    return out;
  }

  static void write(const std::string& report) {
    const std::filesystem::path folder = std::filesystem::path(TOWLINE_BINARY_DIR) / "results";
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "conformance-cpp.jsonl") << report;
  }

  // Scenarios that no test stands for: the capability table says why, for every provider.
  void add_untested() {
    for (const Skip& skip : skips()) {
      if (skip.provider != "*") continue;
      for (const ProviderRow& row : providers()) {
        Line& line = lines_[{skip.id, row.name}];
        if (!line.passed && !line.failed && line.reason.empty()) line.reason = skip.reason;
      }
    }
  }

  std::map<std::pair<std::string, std::string>, Line> lines_;
  bool is_whole_ = false;
};

}  // namespace
}  // namespace towline::conformance

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  auto* report = new towline::conformance::Report;  // owned by the listeners
  ::testing::UnitTest::GetInstance()->listeners().Append(report);
  const int failed = RUN_ALL_TESTS();
  return failed != 0 || report->stale_row_count() != 0 ? 1 : 0;
}
