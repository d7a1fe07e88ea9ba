// A saga's log comes back from the store as it was written, and what is no log is told apart from one.

#include "saga/record.hpp"

#include <gtest/gtest.h>

namespace towline::saga {
namespace {

Shape trip() {
  Shape shape;
  shape.stages = {{{"plan", true, false}}, {{"hotel", true, false}, {"look", false, true}}, {{"pay", false}}};
  shape.pivot = "pay";
  return shape;
}

TEST(Record, EachEntryComesBackAsItWasWritten) {
  for (std::size_t mark = 0; mark < kMarkCount; ++mark) {
    for (int fields = 0; fields < 16; ++fields) {
      Entry entry;
      entry.mark = static_cast<Mark>(mark);
      entry.at = from_us(77);
      if ((fields & 1) != 0) entry.step = "charge";
      if ((fields & 1) != 0) entry.attempt = 4'000'000'000U;
      if ((fields & 2) != 0) entry.due_at = from_us(-5);
      if ((fields & 2) != 0) entry.error = "no: \"money\"\\";
      if ((fields & 4) != 0) entry.output = std::string("\0out", 4);
      if ((fields & 8) != 0) entry.context = "";
      const auto back = from_event(to_event(entry));
      ASSERT_TRUE(back.ok()) << back.error().to_string();
      EXPECT_EQ(back->mark, entry.mark);
      EXPECT_EQ(back->at, entry.at);
      EXPECT_EQ(back->step, entry.step);
      EXPECT_EQ(back->attempt, entry.attempt);
      EXPECT_EQ(back->due_at, entry.due_at);
      EXPECT_EQ(back->error, entry.error);
      EXPECT_EQ(back->output, entry.output);
      EXPECT_EQ(back->context, entry.context);
    }
  }
}

TEST(Record, ADamagedEntryIsToldApart) {
  Entry entry;
  entry.mark = Mark::kDone;
  entry.step = "a";
  entry.attempt = 1;
  entry.output = "output";
  entry.context = "context";
  const auto damaged = [&](auto&& damage) {
    RecordedEvent event = to_event(entry);
    damage(event);
    return !from_event(event).ok() && from_event(event).error().code == ErrorCode::kCorruptStore;
  };
  EXPECT_FALSE(damaged([](RecordedEvent&) {}));
  EXPECT_TRUE(damaged([](RecordedEvent& event) { event.type = "finished"; }));
  EXPECT_TRUE(damaged([](RecordedEvent& event) { event.payload.pop_back(); }));
  EXPECT_TRUE(damaged([](RecordedEvent& event) { event.payload.push_back('x'); }));
  EXPECT_TRUE(damaged([](RecordedEvent& event) { event.headers.clear(); }))
      << "its payload belongs to nobody";
  for (auto& header : to_event(entry).headers) {
    if (header.first == "step") continue;
    EXPECT_TRUE(damaged([&](RecordedEvent& event) {
      for (auto& [name, value] : event.headers)
        if (name == header.first) value = "many";
    })) << header.first;
  }
}

TEST(Record, AShapeComesBackAsItWasWritten) {
  const auto back = shape_of(to_text(trip()));
  ASSERT_TRUE(back.ok()) << back.error().to_string();
  EXPECT_EQ(fingerprint_of(*back), fingerprint_of(trip()));
  EXPECT_EQ(back->pivot, "pay");
  EXPECT_EQ(back->stages[1][1].name, "look");
  EXPECT_TRUE(back->stages[1][1].changes_nothing);
}

TEST(Record, WhatIsNoShapeIsToldApart) {
  for (const char* text :
       {"", "{", "[]", "{}", R"({"stages": [], "pivot": ""})", R"({"stages": 5, "pivot": ""})",
        R"({"stages": [[{"name": "a"}]], "pivot": ""})",
        R"({"stages": [[{"name": "a b", "compensates": true, "changes_nothing": true}]], "pivot": ""})"}) {
    const auto shape = shape_of(text);
    ASSERT_FALSE(shape.ok()) << text;
    EXPECT_EQ(shape.error().code, ErrorCode::kCorruptStore) << text;
  }
}

TEST(Record, TheStreamOfASagaIsItsName) { EXPECT_EQ(stream_of("order", "o-1"), "order/o-1"); }

}  // namespace
}  // namespace towline::saga
