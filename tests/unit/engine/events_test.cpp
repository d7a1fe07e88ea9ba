// Appending and reading events: what is refused before any I/O, and how pages go on.

#include "engine/events.hpp"

#include "unit/engine/world.hpp"

namespace towline::engine {
namespace {

using namespace testing;

NewEvent event(std::string type = "happened", Bytes payload = "payload") {
  return {std::move(type), std::move(payload)};
}

TEST(Events, BadInputIsRefusedBeforeAnythingIsWritten) {
  WorldOptions options;
  options.engine.payload_bytes_max = 10;
  options.engine.batch_count_max = 2;
  World world(options);
  const auto refused = [&](const std::string& stream, std::vector<NewEvent> events) {
    const auto appended = world.core->events().append(stream, std::move(events), std::nullopt);
    return appended ? ErrorCode{} : appended.error().code;
  };
  EXPECT_EQ(refused("", {event()}), ErrorCode::kInvalidName);
  EXPECT_EQ(refused("a b", {event()}), ErrorCode::kInvalidName);
  EXPECT_EQ(refused(std::string(256, 'a'), {event()}), ErrorCode::kInvalidName);
  EXPECT_EQ(refused("a", {}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused("a", {event(""), event()}), ErrorCode::kInvalidName);
  EXPECT_EQ(refused("a", {event("a..b")}), ErrorCode::kInvalidName) << "it could not be routed";
  EXPECT_EQ(refused("a", {event("*")}), ErrorCode::kInvalidName);
  EXPECT_EQ(refused("a", {event("t", "12345678901")}), ErrorCode::kPayloadTooLarge);
  EXPECT_EQ(refused("a", {event(), event(), event()}), ErrorCode::kBatchTooLarge);
  NewEvent one = event();
  one.id.bytes[0] = 1;
  EXPECT_EQ(refused("a", {one, one}), ErrorCode::kInvalidId);
  one.headers = {{"towline-x", "1"}};
  EXPECT_EQ(refused("a", {one}), ErrorCode::kReservedHeader);
  EXPECT_EQ(world.script->count("commit AppendEvents"), 0);
  EXPECT_EQ(refused(std::string(255, '~'), {event("t", "1234567890"), event()}), ErrorCode{});
}

TEST(Events, PagesSayWhereTheNextBegins) {
  World world;
  Events& events = world.core->events();
  ASSERT_TRUE(events.append("a", {event("1"), event("2"), event("3")}, 0).ok());
  spi::StreamRead read;
  read.stream = "a";
  read.count_max = 2;
  EventPage page = events.read(read).value();
  EXPECT_EQ(page.next, 3U);
  EXPECT_FALSE(page.end);
  read.from = page.next;
  page = events.read(read).value();
  EXPECT_EQ(page.next, 4U);
  EXPECT_TRUE(page.end);
  read.from = 4;
  EXPECT_EQ(events.read(read).value().next, 4U) << "nothing yet: ask here again";
  read.backwards = true;
  read.from = UINT64_MAX;
  page = events.read(read).value();
  EXPECT_EQ(page.events.front().type, "3");
  EXPECT_EQ(page.next, 1U);
  read.count_max = 0;
  EXPECT_EQ(events.read(read).error().code, ErrorCode::kInvalidArgument);
}

TEST(Events, AStreamIsDescribedWithoutReadingIt) {
  World world;
  Events& events = world.core->events();
  EXPECT_FALSE(events.find_stream("a").value());
  ASSERT_TRUE(events.append("a", {event(), event(), event()}, 0).ok());
  ASSERT_TRUE(events.truncate("a", 2).ok());
  const StreamInfo info = events.find_stream("a").value().value();
  EXPECT_EQ(info.oldest_version, 2U);
  EXPECT_EQ(info.newest_version, 3U);
  EXPECT_EQ(events.streams("", 10, "").value().items.size(), 1U);
  EXPECT_EQ(events.truncate("b", 2).error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(events.save_snapshot("a", {3, "state", {}, {}}).ok());
  EXPECT_EQ(events.find_snapshot("a").value()->saved_at, world.clock->now());
}

}  // namespace
}  // namespace towline::engine
