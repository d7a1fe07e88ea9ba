// The two lists and the tests belong together: no scenario without a test or a reason, no test without a
// scenario, no reason that is out of date.

#include "conformance/scenarios.hpp"

#include <map>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "conformance/providers.hpp"

namespace towline::conformance {
namespace {

/// Ids that have a test, each with the providers it is instantiated for ("-" for a test of none).
std::map<std::string, std::set<std::string>> tested() {
  std::map<std::string, std::set<std::string>> result;
  const ::testing::UnitTest& all = *::testing::UnitTest::GetInstance();
  for (int i = 0; i < all.total_test_suite_count(); ++i) {
    const ::testing::TestSuite& suite = *all.GetTestSuite(i);
    for (int j = 0; j < suite.total_test_count(); ++j) {
      const std::string name = suite.GetTestInfo(j)->name();
      const std::string id = id_of_test(name);
      const std::size_t slash = name.rfind('/');
      if (!id.empty()) result[id].insert(slash == std::string::npos ? "-" : name.substr(slash + 1));
    }
  }
  return result;
}

TEST(ScenarioList, EveryScenarioHasATestForEveryProviderOrAReason) {
  const auto have = tested();
  for (const Scenario& scenario : scenarios()) {
    const auto found = have.find(scenario.id);
    if (found != have.end() && found->second.contains("-")) continue;
    for (const ProviderRow& row : providers()) {
      const bool has_test = found != have.end() && found->second.contains(row.name);
      EXPECT_TRUE(has_test || skip_reason(scenario.id, row.name))
          << scenario.id << " has neither a test for " << row.name << " nor a row in capabilities.txt";
    }
  }
}

TEST(ScenarioList, EveryTestWithAnIdBelongsToAScenario) {
  for (const auto& [id, names] : tested()) {
    EXPECT_NE(find_scenario(id), nullptr) << id << " is not in scenarios.txt";
  }
}

TEST(ScenarioList, EverySkipNamesAKnownProvider) {
  std::set<std::string> known = {"*"};
  for (const ProviderRow& row : all_providers())
    known.insert(row.name);
  for (const Skip& skip : skips())
    EXPECT_TRUE(known.contains(skip.provider)) << skip.id << " " << skip.provider;
}

TEST(ScenarioList, EveryScenarioNamesTheGuaranteeItProves) {
  for (const Scenario& scenario : scenarios()) {
    const bool known = scenario.proves.starts_with("G-") || scenario.proves.starts_with("input");
    EXPECT_TRUE(known) << scenario.id << ": " << scenario.proves;
  }
}

}  // namespace
}  // namespace towline::conformance
