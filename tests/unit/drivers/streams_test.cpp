// Streams: dense versions, one order of all, appends that can be repeated, and what stays when the old goes.

#include <thread>

#include "unit/drivers/world.hpp"

namespace towline::drivers::testing {
namespace {

using spi::StreamSpace;

class Streams : public OverDrivers {
 protected:
  [[nodiscard]] static RecordedEvent event(std::uint64_t number, std::string type = "happened") {
    RecordedEvent event;
    event.id = make_id(number);
    event.type = std::move(type);
    event.payload = "payload " + std::to_string(number);
    event.recorded_at = from_us(static_cast<std::int64_t>(number));
    return event;
  }
  /// Events first..last in one append.
  [[nodiscard]] Result<Appended> append(const std::string& stream, std::uint64_t first, std::uint64_t last,
                                        std::optional<std::uint64_t> expected = std::nullopt,
                                        StreamSpace space = StreamSpace::kEvents) {
    spi::AppendEvents write;
    write.space = space;
    write.stream = stream;
    write.expected = expected;
    for (std::uint64_t n = first; n <= last; ++n)
      write.events.push_back(event(n));
    Appended appended;
    write.appended = &appended;
    if (auto done = world.write(std::move(write)); !done) return std::move(done).error();
    return appended;
  }
  [[nodiscard]] spi::StreamSlice read(const std::string& stream, std::uint64_t from = 1,
                                      std::size_t count_max = 100, bool backwards = false) {
    spi::StreamRead read;
    read.stream = stream;
    read.from = from;
    read.count_max = count_max;
    read.backwards = backwards;
    return world.store().read_stream(read).value();
  }
  [[nodiscard]] static std::vector<std::uint64_t> numbers(const spi::StreamSlice& slice) {
    std::vector<std::uint64_t> numbers;
    for (const RecordedEvent& event : slice.events)
      numbers.push_back(number_of(event.id));
    return numbers;
  }
};

TEST_P(Streams, VersionsAreDensePerStreamAndPositionsGrowOverAll) {
  const Appended first = append("a", 1, 3).value();
  EXPECT_EQ(first.first_version, 1U);
  EXPECT_EQ(first.last_version, 3U);
  EXPECT_FALSE(first.duplicate);
  const Appended other = append("b", 4, 4).value();
  EXPECT_EQ(other.first_version, 1U);
  EXPECT_GT(other.last_position, first.last_position);
  const Appended second = append("a", 5, 6).value();
  EXPECT_EQ(second.first_version, 4U);
  EXPECT_EQ(second.last_version, 5U);
  EXPECT_EQ(numbers(read("a")), (std::vector<std::uint64_t>{1, 2, 3, 5, 6}));
  const spi::StreamSlice all = read("");
  EXPECT_EQ(numbers(all), range(1, 6));
  for (std::size_t i = 1; i < all.events.size(); ++i)
    EXPECT_GT(all.events[i].position, all.events[i - 1].position);
  EXPECT_EQ(all.events.back().position, second.last_position);
}

TEST_P(Streams, AnEventComesBackAsItWasGiven) {
  spi::AppendEvents write;
  write.stream = "order-1";
  write.events.push_back(event(7, "order.placed"));
  write.events[0].payload = std::string("\0a\xff", 3);
  write.events[0].content_type = "application/x";
  write.events[0].headers = {{"b", "2: \\ two\n"}, {"a", ""}};
  ASSERT_TRUE(world.write(write).ok());
  for (const std::string& stream : {std::string("order-1"), std::string()}) {
    const spi::StreamSlice slice = read(stream);
    ASSERT_EQ(slice.events.size(), 1U);
    const RecordedEvent& back = slice.events[0];
    EXPECT_EQ(back.stream, "order-1");
    EXPECT_EQ(back.version, 1U);
    EXPECT_EQ(back.id, make_id(7));
    EXPECT_EQ(back.type, "order.placed");
    EXPECT_EQ(back.payload, std::string("\0a\xff", 3));
    EXPECT_EQ(back.content_type, "application/x");
    EXPECT_EQ(back.headers, write.events[0].headers);
    EXPECT_EQ(back.recorded_at, from_us(7));
  }
}

TEST_P(Streams, AnAppendAtAnotherVersionThanExpectedIsAConflictAndChangesNothing) {
  EXPECT_EQ(code_of(append("a", 1, 1, 1)), ErrorCode::kConflict);
  ASSERT_TRUE(append("a", 1, 2, 0).ok());
  EXPECT_EQ(code_of(append("a", 3, 3, 0)), ErrorCode::kConflict);
  EXPECT_EQ(code_of(append("a", 3, 3, 1)), ErrorCode::kConflict);
  EXPECT_EQ(code_of(append("a", 3, 3, 3)), ErrorCode::kConflict);
  EXPECT_EQ(numbers(read("a")), range(1, 2));
  EXPECT_TRUE(append("a", 3, 3, 2).ok());
}

TEST_P(Streams, ARepeatedAppendAnswersWhereItsEventsAre) {
  ASSERT_TRUE(append("b", 9, 9).ok());
  const Appended first = append("a", 1, 3, 0).value();
  ASSERT_TRUE(append("a", 4, 4).ok());
  for (const std::optional<std::uint64_t> expected : {std::optional<std::uint64_t>(0), {}}) {
    const Appended again = append("a", 1, 3, expected).value();
    EXPECT_TRUE(again.duplicate);
    EXPECT_EQ(again.first_version, 1U);
    EXPECT_EQ(again.last_version, 3U);
    EXPECT_EQ(again.last_position, first.last_position);
  }
  EXPECT_EQ(numbers(read("a")), range(1, 4));
  EXPECT_FALSE(append("b", 1, 3).value().duplicate) << "of another stream";
}

TEST_P(Streams, AnAppendOfWhichSomeEventsAreThereIsAConflict) {
  ASSERT_TRUE(append("a", 1, 2).ok());
  ASSERT_TRUE(append("a", 5, 5).ok());
  ASSERT_TRUE(append("a", 3, 3).ok());
  EXPECT_EQ(code_of(append("a", 2, 3)), ErrorCode::kConflict) << "there, but not in a row";
  EXPECT_EQ(code_of(append("a", 3, 4)), ErrorCode::kConflict);
  EXPECT_EQ(code_of(append("a", 0, 1)), ErrorCode::kConflict);
  EXPECT_EQ(read("a").events.size(), 4U);
}

TEST_P(Streams, TwoAppendsOfOneUnitToOneStreamAreRefused) {
  const spi::AppendEvents one{StreamSpace::kEvents, "a", {event(1)}, {}, {}, {}, nullptr};
  const spi::AppendEvents two{StreamSpace::kEvents, "a", {event(2)}, {}, {}, {}, nullptr};
  EXPECT_EQ(code_of(world.write(one, two)), ErrorCode::kInvalidArgument);
  spi::AppendEvents elsewhere = two;
  elsewhere.stream = "b";
  EXPECT_TRUE(world.write(one, elsewhere).ok());
  EXPECT_EQ(numbers(read("")), range(1, 2));
}

TEST_P(Streams, PagesGoForwardsAndBackwardsAndSayWhereTheyEnd) {
  ASSERT_TRUE(append("a", 1, 5).ok());
  EXPECT_EQ(numbers(read("a", 2, 2)), range(2, 3));
  EXPECT_FALSE(read("a", 2, 2).end);
  EXPECT_EQ(numbers(read("a", 4, 2)), range(4, 5));
  EXPECT_TRUE(read("a", 4, 2).end);
  EXPECT_TRUE(read("a", 6).end);
  EXPECT_EQ(numbers(read("a", UINT64_MAX, 2, true)), (std::vector<std::uint64_t>{5, 4}));
  EXPECT_FALSE(read("a", UINT64_MAX, 2, true).end);
  EXPECT_EQ(numbers(read("a", 2, 5, true)), (std::vector<std::uint64_t>{2, 1}));
  EXPECT_TRUE(read("a", 2, 5, true).end);
  EXPECT_TRUE(read("nobody").end);
  EXPECT_EQ(read("nobody").newest_version, 0U);
}

TEST_P(Streams, APageIsBoundedInBytesAndHasAtLeastOneEvent) {
  ASSERT_TRUE(append("a", 1, 5).ok());
  spi::StreamRead read;
  read.stream = "a";
  read.payload_bytes_max = 20;  // of "payload 1" two fit
  EXPECT_EQ(numbers(world.store().read_stream(read).value()), range(1, 2));
  read.payload_bytes_max = 0;
  EXPECT_EQ(numbers(world.store().read_stream(read).value()), range(1, 1));
}

TEST_P(Streams, TruncatingRemovesTheOldAndKeepsTheNewest) {
  ASSERT_TRUE(append("a", 1, 5).ok());
  ASSERT_TRUE(world.write(spi::TruncateStream{StreamSpace::kEvents, "a", 3}).ok());
  EXPECT_EQ(numbers(read("a")), range(3, 5));
  EXPECT_EQ(read("a").oldest_version, 3U);
  EXPECT_EQ(numbers(read("")), range(3, 5));
  ASSERT_TRUE(world.write(spi::TruncateStream{StreamSpace::kEvents, "a", 99}).ok());
  EXPECT_EQ(numbers(read("a")), range(5, 5));
  const std::uint64_t position = read("").events[0].position;
  const Appended next = append("a", 6, 6, 5).value();
  EXPECT_EQ(next.first_version, 6U) << "no version twice";
  EXPECT_GT(next.last_position, position);
  EXPECT_EQ(code_of(world.write(spi::TruncateStream{StreamSpace::kEvents, "nobody", 1})),
            ErrorCode::kNotFound);
}

TEST_P(Streams, TheSpacesDoNotKnowOfEachOther) {
  ASSERT_TRUE(append("a", 1, 2).ok());
  ASSERT_TRUE(append("a", 1, 1, 0, StreamSpace::kConversations).ok());
  EXPECT_EQ(numbers(read("")), range(1, 2));
  spi::StreamRead read;
  read.space = StreamSpace::kConversations;
  EXPECT_EQ(numbers(world.store().read_stream(read).value()), range(1, 1));
}

TEST_P(Streams, TheLatestSnapshotIsKept) {
  ASSERT_TRUE(append("a", 1, 3).ok());
  EXPECT_FALSE(world.store().find_snapshot("a").value());
  EXPECT_EQ(code_of(world.write(spi::PutSnapshot{"a", {4, "future", {}, {}}})), ErrorCode::kNotFound);
  EXPECT_EQ(code_of(world.write(spi::PutSnapshot{"nobody", {1, "", {}, {}}})), ErrorCode::kNotFound);
  ASSERT_TRUE(world.write(spi::PutSnapshot{"a", {2, "two", "text/plain", from_us(5)}}).ok());
  ASSERT_TRUE(world.write(spi::PutSnapshot{"a", {1, "late", {}, {}}}).ok());
  const Snapshot snapshot = world.store().find_snapshot("a").value().value();
  EXPECT_EQ(snapshot.version, 2U);
  EXPECT_EQ(snapshot.state, "two");
  EXPECT_EQ(snapshot.content_type, "text/plain");
  EXPECT_EQ(snapshot.saved_at, from_us(5));
  ASSERT_TRUE(world.write(spi::PutSnapshot{"a", {2, "two again", {}, {}}}).ok());
  EXPECT_EQ(world.store().find_snapshot("a").value()->state, "two again");
}

TEST_P(Streams, ACursorChangesByCompareAndSet) {
  EXPECT_FALSE(world.store().find_event_cursor("c").value());
  spi::EventCursor cursor{"c", "a", 7, "me", from_us(9), 0};
  EXPECT_EQ(code_of(world.write(spi::PutEventCursor{cursor, 1})), ErrorCode::kConflict);
  ASSERT_TRUE(world.write(spi::PutEventCursor{cursor, 0}).ok());
  EXPECT_EQ(code_of(world.write(spi::PutEventCursor{cursor, 0})), ErrorCode::kConflict);
  cursor.place = 8;
  ASSERT_TRUE(world.write(spi::PutEventCursor{cursor, 1}).ok());
  const spi::EventCursor found = world.store().find_event_cursor("c").value().value();
  EXPECT_EQ(found.stream, "a");
  EXPECT_EQ(found.place, 8U);
  EXPECT_EQ(found.owner, "me");
  EXPECT_EQ(found.lease_until, from_us(9));
  EXPECT_EQ(found.version, 2U);
}

TEST_P(Streams, AreListedByNamePageByPage) {
  for (const char* name : {"order-2", "user-1", "order-1", "order-3"})
    ASSERT_TRUE(append(name, 1, 2).ok());
  ASSERT_TRUE(world.write(spi::TruncateStream{StreamSpace::kEvents, "order-2", 2}).ok());
  const auto page = world.store().list_streams(StreamSpace::kEvents, "order-", 2, {}).value();
  ASSERT_EQ(page.items.size(), 2U);
  EXPECT_EQ(page.items[0].name, "order-1");
  EXPECT_EQ(page.items[1].name, "order-2");
  EXPECT_EQ(page.items[1].oldest_version, 2U);
  EXPECT_EQ(page.items[1].newest_version, 2U);
  ASSERT_FALSE(page.cursor.empty());
  const auto rest = world.store().list_streams(StreamSpace::kEvents, "order-", 2, page.cursor).value();
  ASSERT_EQ(rest.items.size(), 1U);
  EXPECT_EQ(rest.items[0].name, "order-3");
  EXPECT_TRUE(rest.cursor.empty());
  EXPECT_EQ(world.store().list_streams(StreamSpace::kEvents, "", 100, {}).value().items.size(), 4U);
}

TEST_P(Streams, AnAppendEndsTheWaitForIt) {
  support::TempDir folder;
  spi::DriverOptions options;
  options.clock = system_clock();
  const spi::Provider provider = open_driver(GetParam(), folder, options);
  const std::stop_source never;
  const auto deadline = [] { return system_clock()->monotonic() + 20s; };
  std::uint64_t last = 0;
  std::thread waiter([&] {
    last = provider.store->wait_for_events(StreamSpace::kEvents, 0, deadline(), never.get_token()).value();
  });
  const spi::Unit unit{{spi::AppendEvents{StreamSpace::kEvents, "a", {event(1)}, {}, {}, {}, nullptr}}};
  ASSERT_TRUE(provider.store->commit({&unit, 1}).value().at(0).ok());
  waiter.join();
  EXPECT_GT(last, 0U);
  std::stop_source stop;
  std::thread stopped([&] {
    (void)provider.store->wait_for_events(StreamSpace::kEvents, last, deadline(), stop.get_token());
  });
  stop.request_stop();
  stopped.join();
}

TOWLINE_OVER_DRIVERS(Streams);

}  // namespace
}  // namespace towline::drivers::testing
