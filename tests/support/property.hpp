#pragma once
// Properties that must hold for all inputs. The inputs are made up from a seed that is fixed per test, so a
// run is the same every time; a failure shows the smallest input that was found. RC_LOG and friends work
// inside a property.

#include <cstdint>
#include <sstream>
#include <string_view>

#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace towline::support {

/// Checks `property`, a callable that takes generated arguments and uses RC_ASSERT, for `case_count` inputs
/// that grow to `size_max`.
template <typename Property>
void for_all(Property&& property, int case_count = 500, int size_max = 100) {
  const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
  rc::detail::TestMetadata metadata;
  metadata.id = std::string(info->test_suite_name()) + "/" + info->name();
  rc::detail::TestParams params;
  params.seed = 0x746F776C696E65;
  for (const char c : metadata.id)
    params.seed = params.seed * 1099511628211u ^ static_cast<unsigned char>(c);
  params.maxSuccess = case_count;
  params.maxSize = size_max;
  const auto result = rc::detail::checkTestable(std::forward<Property>(property), metadata, params);
  if (result.template is<rc::detail::SuccessResult>()) return;
  std::ostringstream text;
  rc::detail::printResultMessage(result, text);
  FAIL() << text.str();
}

}  // namespace towline::support
