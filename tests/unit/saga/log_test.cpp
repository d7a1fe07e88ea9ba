// The names under which marks are stored.

#include "saga/log.hpp"

#include <set>

#include <gtest/gtest.h>

namespace towline::saga {
namespace {

TEST(Mark, EachHasANameOfItsOwnThatIsFoundAgain) {
  std::set<std::string_view> names;
  for (std::size_t i = 0; i < kMarkCount; ++i) {
    const auto mark = static_cast<Mark>(i);
    EXPECT_TRUE(names.insert(name_of(mark)).second) << name_of(mark);
    EXPECT_EQ(mark_of(name_of(mark)), mark);
  }
  EXPECT_EQ(mark_of("nothing"), std::nullopt);
  EXPECT_EQ(name_of(Mark::kCompensationStuck), "compensation_stuck");
  EXPECT_EQ(name_of(Mark::kNote), "note");
}

}  // namespace
}  // namespace towline::saga
