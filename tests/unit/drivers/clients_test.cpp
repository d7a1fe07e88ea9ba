// What a store keeps of the clients of conversations, the copies of what is appended, and trimming.

#include <thread>

#include "unit/drivers/world.hpp"

namespace towline::drivers::testing {
namespace {

using namespace std::chrono_literals;

class Clients : public OverDrivers {
 protected:
  [[nodiscard]] TimePoint in(Duration time) const { return world.clock->now() + time; }
  [[nodiscard]] spi::PutClientPosition put(const std::string& conversation, std::uint64_t sequence,
                                           Duration life = 1h, const std::string& client = "phone") const {
    return {{"ann", client, conversation, sequence, in(life)}};
  }
  [[nodiscard]] spi::AddMissed add(const std::string& conversation, std::uint64_t sequence,
                                   Duration life = 1h) const {
    return {"ann", conversation, sequence, in(life)};
  }
  [[nodiscard]] std::uint64_t position(const std::string& conversation, const std::string& client = "phone") {
    const auto found = world.store().client_positions("ann", client, conversation, 1).value();
    return found.empty() || found[0].conversation != conversation ? 0 : found[0].sequence;
  }
  [[nodiscard]] std::vector<spi::MissedMessages> missed(const std::string& from = {},
                                                        std::size_t count_max = 100) {
    return world.store().missed_messages("ann", from, count_max).value();
  }
  [[nodiscard]] static spi::AppendEvents message(std::uint64_t number, const std::string& payload = "hello",
                                                 const std::string& conversation = "room") {
    spi::AppendEvents write;
    write.space = spi::StreamSpace::kConversations;
    write.stream = conversation;
    RecordedEvent& event = write.events.emplace_back();
    event.id = make_id(number);
    event.type = "ann";
    event.payload = payload;
    event.recorded_at = from_us(static_cast<std::int64_t>(number) * 1'000'000);
    return write;
  }
  [[nodiscard]] spi::StreamSlice read(std::uint64_t from = 1) {
    spi::StreamRead read;
    read.space = spi::StreamSpace::kConversations;
    read.stream = "room";
    read.from = from;
    return world.store().read_stream(read).value();
  }
  void fill(std::uint64_t count, const std::string& payload = "hello") {
    for (std::uint64_t number = 1; number <= count; ++number)
      ASSERT_TRUE(world.write(message(number, payload)).ok());
  }
  [[nodiscard]] std::pair<std::uint64_t, std::uint64_t> extent() {
    const spi::StreamSlice slice = read();
    return {slice.oldest_version, slice.newest_version};
  }
};

using Extent = std::pair<std::uint64_t, std::uint64_t>;

TEST_P(Clients, APositionMovesOnlyForward) {
  EXPECT_EQ(position("room"), 0U);
  ASSERT_TRUE(world.write(put("room", 5)).ok());
  ASSERT_TRUE(world.write(put("room", 5)).ok()) << "a repeated unit";
  ASSERT_TRUE(world.write(put("room", 3, 2h)).ok());
  EXPECT_EQ(position("room"), 5U);
  EXPECT_EQ(position("room", "desk"), 0U);
  const auto found = world.store().client_positions("ann", "phone", "", 10).value();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].expires_at, in(2h));
  world.clock->advance(2h);
  EXPECT_EQ(position("room"), 0U) << "it expired";
  ASSERT_TRUE(world.write(put("room", 2)).ok());
  EXPECT_EQ(position("room"), 2U);
}

TEST_P(Clients, OfManyWritersTheFurthestStays) {
  std::vector<std::thread> writers;
  for (std::uint64_t w = 0; w < 4; ++w) {
    writers.emplace_back([&, w] {
      for (std::uint64_t i = 1; i <= 25; ++i)
        EXPECT_TRUE(world.write(put("room", (i * 7 + w * 13) % 101)).ok());
    });
  }
  for (std::thread& writer : writers)
    writer.join();
  std::uint64_t furthest = 0;
  for (std::uint64_t w = 0; w < 4; ++w) {
    for (std::uint64_t i = 1; i <= 25; ++i)
      furthest = std::max(furthest, (i * 7 + w * 13) % 101);
  }
  EXPECT_EQ(position("room"), furthest);
}

TEST_P(Clients, PositionsAreListedInTheOrderOfBytes) {
  for (const char* name : {"b", "a", "Z", "a!", "a0"})
    ASSERT_TRUE(world.write(put(name, 1)).ok());
  ASSERT_TRUE(world.write(put("a", 1, 1h, "desk")).ok());
  const auto names = [&](const std::string& from, std::size_t count_max) {
    std::vector<std::string> found;
    for (const auto& one : world.store().client_positions("ann", "phone", from, count_max).value())
      found.push_back(one.conversation);
    return found;
  };
  EXPECT_EQ(names("", 10), (std::vector<std::string>{"Z", "a", "a!", "a0", "b"}));
  EXPECT_EQ(names("a", 2), (std::vector<std::string>{"a", "a!"}));
  EXPECT_EQ(names("a!", 10), (std::vector<std::string>{"a!", "a0", "b"}));
  EXPECT_TRUE(names("c", 10).empty());
}

TEST_P(Clients, AMissedMessageCountsOnceAndIsTakenOnce) {
  for (const std::uint64_t sequence : {5, 4, 5, 7})
    ASSERT_TRUE(world.write(add("room", sequence)).ok());
  ASSERT_EQ(missed().size(), 1U);
  EXPECT_EQ(missed()[0].count, 3U);
  EXPECT_EQ(missed()[0].first_sequence, 4U);
  EXPECT_EQ(missed()[0].last_sequence, 7U);
  ASSERT_TRUE(world.write(spi::ClearMissed{"ann", "room", 5}).ok());
  EXPECT_EQ(missed()[0].count, 1U) << "what came meanwhile stays";
  EXPECT_EQ(missed()[0].first_sequence, 7U);
  ASSERT_TRUE(world.write(spi::ClearMissed{"ann", "room", 7}).ok());
  EXPECT_TRUE(missed().empty());
  ASSERT_TRUE(world.write(add("room", 7)).ok());
  EXPECT_TRUE(missed().empty()) << "a repetition of what was taken";
  ASSERT_TRUE(world.write(spi::ClearMissed{"ann", "room", 3}).ok());
  ASSERT_TRUE(world.write(add("room", 6)).ok());
  EXPECT_TRUE(missed().empty()) << "an older clear takes nothing back";
  ASSERT_TRUE(world.write(spi::ClearMissed{"bob", "room", 9}).ok());
}

TEST_P(Clients, WhatWasMissedExpiresAfterTheLastOfIt) {
  ASSERT_TRUE(world.write(add("room", 1)).ok());
  world.clock->advance(40min);
  ASSERT_TRUE(world.write(add("room", 2)).ok());
  ASSERT_TRUE(world.write(add("hall", 2, 10min)).ok());
  world.clock->advance(40min);
  ASSERT_EQ(missed().size(), 1U);
  EXPECT_EQ(missed()[0].count, 2U);
  world.clock->advance(20min);
  EXPECT_TRUE(missed().empty());
  ASSERT_TRUE(world.write(add("room", 2)).ok());
  EXPECT_EQ(missed()[0].count, 1U) << "counted from the beginning";
}

TEST_P(Clients, WhatWasMissedIsListedByConversation) {
  for (const char* name : {"c", "a", "b"})
    ASSERT_TRUE(world.write(add(name, 1)).ok());
  ASSERT_EQ(missed("", 2).size(), 2U);
  EXPECT_EQ(missed("", 2)[1].conversation, "b");
  ASSERT_EQ(missed("b").size(), 2U);
  EXPECT_EQ(missed("b")[0].conversation, "b");
}

TEST_P(Clients, WhatExpiredIsSweptInBoundedSteps) {
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(world.write(put("room-" + std::to_string(i), 1), add("room-" + std::to_string(i), 1)).ok());
  }
  ASSERT_TRUE(world.write(put("kept", 1, 3h), add("kept", 1, 3h)).ok());
  EXPECT_EQ(world.sweep().client_positions, 0U);
  world.clock->advance(1h);
  const spi::SweepReport some = world.sweep(7);
  EXPECT_EQ(some.client_positions, 5U);
  EXPECT_EQ(some.missed_messages, 2U);
  EXPECT_TRUE(some.more);
  EXPECT_EQ(world.sweep().missed_messages, 3U);
  EXPECT_EQ(position("kept"), 1U);
  EXPECT_EQ(missed().size(), 1U);
}

TEST_P(Clients, AnAppendPublishesItsCopyWithTheSequenceOnce) {
  auto subscription = world.subscribe();
  for (int time = 0; time < 2; ++time) {
    Appended appended;
    spi::AppendEvents write = message(7);
    write.copies.push_back(world.envelope(7));
    write.appended = &appended;
    ASSERT_TRUE(world.write(std::move(write)).ok());
    EXPECT_EQ(appended.duplicate, time == 1);
  }
  spi::AppendEvents second = message(8);
  second.copies.push_back(world.envelope(8));
  ASSERT_TRUE(world.write(std::move(second)).ok());
  const auto deliveries = world.receive(*subscription);
  EXPECT_EQ(numbers_of(deliveries), range(7, 8));
  EXPECT_EQ(deliveries[0].envelope->headers, (Headers{{"towline-sequence", "1"}}));
  EXPECT_EQ(deliveries[1].envelope->headers, (Headers{{"towline-sequence", "2"}}));
}

TEST_P(Clients, ACopyMayGoThroughTheSchedule) {
  spi::AppendEvents write = message(7);
  write.copies.push_back(world.envelope(7));
  write.copies_due_at = world.clock->now();
  ASSERT_TRUE(world.write(write).ok());
  ASSERT_TRUE(world.write(std::move(write)).ok()) << "repeated while it waits";
  EXPECT_EQ(world.store().find_schedule(make_id(7)).value().value().envelope.headers.at(0).second, "1");
  auto subscription = world.subscribe();
  EXPECT_EQ(world.promote().promoted_count, 1U);
  EXPECT_EQ(world.take(*subscription), range(7, 7));
}

TEST_P(Clients, ACopyThatCannotBeKeepsTheMessageAway) {
  ASSERT_TRUE(world.write(spi::PutSchedule{world.record(7, 1h)}).ok());
  spi::AppendEvents write = message(7);
  write.copies.push_back(world.envelope(7));
  write.copies_due_at = world.clock->now();
  EXPECT_EQ(code_of(world.write(std::move(write))), ErrorCode::kConflict);
  EXPECT_EQ(extent(), Extent(0, 0));
}

TEST_P(Clients, AStreamIsReadOnFromAnId) {
  fill(3);
  spi::StreamRead from;
  from.space = spi::StreamSpace::kConversations;
  from.stream = "room";
  from.after_id = make_id(1);
  auto slice = world.store().read_stream(from);
  ASSERT_TRUE(slice.ok());
  ASSERT_EQ(slice->events.size(), 2U);
  EXPECT_EQ(slice->events[0].version, 2U);
  from.after_id = make_id(3);
  EXPECT_TRUE(world.store().read_stream(from)->events.empty());
  from.after_id = make_id(4);
  EXPECT_EQ(code_of(world.store().read_stream(from)), ErrorCode::kNotFound);
  from.after_id = make_id(1);
  from.stream = "hall";
  EXPECT_EQ(code_of(world.store().read_stream(from)), ErrorCode::kNotFound);
}

TEST_P(Clients, AConversationIsTrimmedByCountBytesAndAge) {
  spi::TrimConversation nothing;
  nothing.conversation = "room";
  EXPECT_TRUE(world.write(nothing).ok()) << "there is none";
  fill(10);
  ASSERT_TRUE(world.write(nothing).ok());
  EXPECT_EQ(extent(), Extent(1, 10));
  spi::TrimConversation write = nothing;
  write.count_max = 8;
  ASSERT_TRUE(world.write(write).ok());
  EXPECT_EQ(extent(), Extent(3, 10));
  ASSERT_TRUE(world.write(write).ok());
  EXPECT_EQ(extent(), Extent(3, 10));
  write = nothing;
  write.bytes_max = 29;  // of five each
  ASSERT_TRUE(world.write(write).ok());
  EXPECT_EQ(extent(), Extent(6, 10));
  write = nothing;
  write.recorded_before = from_us(8'000'000);
  ASSERT_TRUE(world.write(write).ok());
  EXPECT_EQ(extent(), Extent(8, 10));
  write.recorded_before = from_us(99'000'000);
  ASSERT_TRUE(world.write(write).ok());
  EXPECT_EQ(extent(), Extent(10, 10)) << "the newest stays";
  write = nothing;
  write.bytes_max = 0;
  ASSERT_TRUE(world.write(write).ok());
  EXPECT_EQ(extent(), Extent(10, 10));
}

TEST_P(Clients, WhatAClientHasNotReadMayBeKept) {
  fill(10);
  spi::TrimConversation write;
  write.conversation = "room";
  write.count_max = 2;
  write.keep_unread = true;
  ASSERT_TRUE(world.write(put("room", 4), put("room", 7, 1h, "desk"), put("hall", 1, 1h, "desk")).ok());
  ASSERT_TRUE(world.write(write).ok());
  EXPECT_EQ(extent(), Extent(5, 10));
  ASSERT_TRUE(world.write(put("room", 7)).ok());
  ASSERT_TRUE(world.write(write).ok());
  EXPECT_EQ(extent(), Extent(8, 10));
  world.clock->advance(1h);
  ASSERT_TRUE(world.write(write).ok());
  EXPECT_EQ(extent(), Extent(9, 10)) << "nobody has a position any more";
}

TOWLINE_OVER_DRIVERS(Clients);

}  // namespace
}  // namespace towline::drivers::testing
