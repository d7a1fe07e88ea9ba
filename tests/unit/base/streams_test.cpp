// What every store decides the same way about an append: whether it is a repetition, and whether the stream
// is as expected.

#include "base/streams.hpp"

#include <map>

#include <gtest/gtest.h>

namespace towline::base {
namespace {

MessageId id(std::uint8_t number) {
  MessageId id;
  id.bytes[15] = number;
  return id;
}

Result<std::optional<std::uint64_t>> find(const std::map<int, std::uint64_t>& there,
                                          const std::vector<std::uint8_t>& numbers) {
  std::vector<RecordedEvent> events;
  for (const std::uint8_t number : numbers)
    events.emplace_back().id = id(number);
  return find_repeated("s", events, [&](const MessageId& one) -> std::optional<std::uint64_t> {
    const auto it = there.find(one.bytes[15]);
    return it == there.end() ? std::nullopt : std::optional(it->second);
  });
}

TEST(Streams, AnAppendIsNewOrIsThereAsItWasOrIsRefused) {
  EXPECT_EQ(find({}, {1, 2}).value(), std::nullopt);
  EXPECT_EQ(find({{1, 4}, {2, 5}, {3, 6}}, {1, 2}).value(), 4U);
  EXPECT_EQ(find({{1, 4}}, {1, 2}).error().code, ErrorCode::kConflict) << "the second is not there";
  EXPECT_EQ(find({{2, 4}}, {1, 2}).error().code, ErrorCode::kConflict) << "the first is not there";
  EXPECT_EQ(find({{1, 4}, {2, 6}}, {1, 2}).error().code, ErrorCode::kConflict) << "not in a row";
  EXPECT_EQ(find({{1, 5}, {2, 4}}, {1, 2}).error().code, ErrorCode::kConflict) << "in another order";
}

TEST(Streams, WhatIsExpectedOfAStreamIsItsVersionOrNothing) {
  EXPECT_TRUE(check_expected("s", 0, std::nullopt).ok());
  EXPECT_TRUE(check_expected("s", 7, std::nullopt).ok());
  EXPECT_TRUE(check_expected("s", 0, 0).ok());
  EXPECT_TRUE(check_expected("s", 7, 7).ok());
  EXPECT_EQ(check_expected("s", 7, 6).error().message,
            "stream s has version 7, but the append expects version 6; read on from there and decide again");
  EXPECT_EQ(check_expected("s", 7, 0).error().code, ErrorCode::kConflict);
  EXPECT_EQ(check_expected("s", 0, 1).error().code, ErrorCode::kConflict);
}

TEST(Streams, OtherRefusalsNameTheStream) {
  EXPECT_EQ(second_append("s").code, ErrorCode::kInvalidArgument);
  EXPECT_NE(no_such_version("s", 9).message.find("stream s has no version 9"), std::string::npos);
}

}  // namespace
}  // namespace towline::base
