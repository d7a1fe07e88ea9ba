// Delayed and parked records in the file: due order, claims, misfires, key blocks and listings.

#include "unit/drivers/world.hpp"

namespace towline::drivers::testing {
namespace {

using Numbers = std::vector<std::uint64_t>;

std::vector<std::uint64_t> ids_of(const std::vector<spi::ScheduleRecord>& records) {
  std::vector<std::uint64_t> numbers;
  for (const spi::ScheduleRecord& record : records)
    numbers.push_back(number_of(record.id));
  return numbers;
}

class Schedule : public OverDrivers {
 protected:
  /// A record that waits behind the block of a key.
  [[nodiscard]] spi::ScheduleRecord parked(std::uint64_t number, std::optional<std::string> key) const {
    spi::ScheduleRecord record = world.record(number, 0s);
    record.id = make_id(1000 + number);
    record.due_at = kNever;
    record.parked = true;
    record.order_key = key.value_or("");
    record.envelope.group = "g";
    record.envelope.key = std::move(key);
    return record;
  }
  [[nodiscard]] spi::KeyBlock block(const std::string& key, std::uint64_t head) const {
    spi::KeyBlock block;
    block.group = "g";
    block.topic = "t";
    block.key = key;
    block.head = make_id(head);
    block.since = world.clock->now();
    return block;
  }
  [[nodiscard]] spi::UnparkNext unpark(const std::string& key) const {
    return {"g", "t", key, 0, world.clock->now()};
  }
  [[nodiscard]] std::vector<spi::KeyBlock> blocks() const {
    return world.store().list_key_blocks("g", "t", std::nullopt).value();
  }
};

TEST_P(Schedule, NothingFiresEarly) {
  auto subscription = world.subscribe();
  ASSERT_TRUE(world.write(spi::PutSchedule{world.record(1, 5s)}).ok());
  world.clock->advance(5s - 1us);
  spi::DueBatch batch = world.promote();
  EXPECT_EQ(batch.promoted_count, 0U);
  EXPECT_EQ(batch.next_due_at, world.clock->now() + 1us);
  EXPECT_EQ(world.take(*subscription), Numbers{});
  world.clock->advance(1us);
  batch = world.promote();
  EXPECT_EQ(batch.promoted_count, 1U);
  EXPECT_EQ(batch.lateness, std::vector<Duration>{0us});
  EXPECT_FALSE(batch.next_due_at);
  EXPECT_EQ(world.take(*subscription), range(1, 1));
}

TEST_P(Schedule, FiresInDueOrderAndThenInTheOrderOfPutting) {
  auto subscription = world.subscribe();
  for (const auto& [number, delay] : {std::pair{1, 3s}, {2, 1s}, {3, 2s}, {4, 1s}}) {
    ASSERT_TRUE(world.write(spi::PutSchedule{world.record(static_cast<std::uint64_t>(number), delay)}).ok());
  }
  world.clock->advance(10s);
  EXPECT_EQ(world.promote(3).promoted_count, 3U);
  EXPECT_EQ(world.promote(3).promoted_count, 1U);
  EXPECT_EQ(world.take(*subscription), (Numbers{2, 4, 3, 1}));
}

TEST_P(Schedule, ExactlyOneOfCancellingAndFiringWins) {
  auto subscription = world.subscribe();
  ASSERT_TRUE(world.write(spi::PutSchedule{world.record(1, 1s)}, spi::PutSchedule{world.record(2, 1s)}).ok());
  EXPECT_TRUE(world.write(spi::EraseSchedule{make_id(1)}).ok());
  EXPECT_EQ(code_of(world.write(spi::EraseSchedule{make_id(1)})), ErrorCode::kNotFound);
  EXPECT_FALSE(world.store().has_fired(make_id(1)).value());
  world.clock->advance(1s);
  EXPECT_EQ(world.promote().promoted_count, 1U);
  EXPECT_EQ(code_of(world.write(spi::EraseSchedule{make_id(2)})), ErrorCode::kNotFound);
  EXPECT_TRUE(world.store().has_fired(make_id(2)).value());
  EXPECT_EQ(world.take(*subscription), range(2, 2));
}

TEST_P(Schedule, WhatFiredIsRememberedForADayAndNotForEver) {
  auto subscription = world.subscribe();
  ASSERT_TRUE(world.write(spi::PutSchedule{world.record(1, 1s)}).ok());
  world.clock->advance(1s);
  EXPECT_EQ(world.promote().promoted_count, 1U);
  EXPECT_TRUE(world.settle(*subscription, world.receive(*subscription)).empty());
  (void)world.sweep();
  (void)world.sweep();  // what is left of it may go as soon as its log rests
  world.clock->advance(24h);
  (void)world.sweep();
  EXPECT_TRUE(world.store().has_fired(make_id(1)).value());
  world.clock->advance(2h);
  (void)world.sweep();
  EXPECT_FALSE(world.store().has_fired(make_id(1)).value());
}

TEST_P(Schedule, ADelayedMessageMakesItsTopicAsOneWithoutDelayDoes) {
  EXPECT_TRUE(world.subscribe()->close().ok());
  spi::ScheduleRecord record = world.record(1, 1s);
  record.envelope.partition = 63;
  ASSERT_TRUE(world.write(spi::PutSchedule{record}).ok());
  spi::Topology topology;
  topology.topic = "t";
  topology.partition_count = 4;
  EXPECT_EQ(code_of(world.transport().declare(topology)), ErrorCode::kTopologyMismatch)
      << "its partition is one of 64, and stays one";
  EXPECT_EQ(world.transport().topology("t", 4).value().partition_count, 64U);
  EXPECT_EQ(world.group().topic, "t") << "a group that has asked for it has a place there";
  auto subscription = world.subscribe(ordered());
  world.clock->advance(1s);
  EXPECT_EQ(world.promote().promoted_count, 1U);
  EXPECT_EQ(world.receive(*subscription).at(0).envelope->partition, 63U);
}

TEST_P(Schedule, MovingChangesTheDueTimeAndTheVersion) {
  ASSERT_TRUE(world.write(spi::PutSchedule{world.record(1, 1s)}).ok());
  EXPECT_TRUE(world.write(spi::MoveSchedule{make_id(1), 1, world.clock->now() + 9s}).ok());
  EXPECT_EQ(code_of(world.write(spi::MoveSchedule{make_id(1), 1, world.clock->now()})), ErrorCode::kConflict);
  EXPECT_EQ(code_of(world.write(spi::EraseSchedule{make_id(1), 1})), ErrorCode::kConflict);
  EXPECT_EQ(code_of(world.write(spi::MoveSchedule{make_id(2), 0, world.clock->now()})), ErrorCode::kNotFound);
  const auto found = world.store().find_schedule(make_id(1)).value();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->version, 2U);
  world.clock->advance(8s);
  EXPECT_EQ(world.promote().promoted_count, 0U);
  EXPECT_TRUE(world.write(spi::MoveSchedule{make_id(1), 0, world.clock->now()}).ok());
  EXPECT_EQ(world.promote().promoted_count, 1U);
}

TEST_P(Schedule, AnIdIsPutOnce) {
  ASSERT_TRUE(world.write(spi::PutSchedule{world.record(1, 1s)}).ok());
  EXPECT_EQ(code_of(world.write(spi::PutSchedule{world.record(1, 2s)})), ErrorCode::kConflict);
  EXPECT_EQ(
      code_of(world.write(spi::PutSchedule{world.record(2, 1s)}, spi::PutSchedule{world.record(2, 1s)})),
      ErrorCode::kConflict);
  EXPECT_FALSE(world.store().find_schedule(make_id(2)).value());
}

TEST_P(Schedule, ClaimedRecordsComeBackWhenTheClaimerDies) {
  ASSERT_TRUE(world.write(spi::PutSchedule{world.record(1, 1s)}).ok());
  world.clock->advance(3s);
  spi::DueRequest request;
  request.lease = 10s;
  spi::DueBatch batch = world.store().claim_due(request).value();
  ASSERT_EQ(ids_of(batch.records), range(1, 1));
  EXPECT_EQ(batch.records[0].version, 2U);
  EXPECT_EQ(batch.records[0].due_at, world.clock->now() - 2s) << "the time it had, not the end of the claim";
  EXPECT_EQ(batch.records[0].envelope.payload, "payload 1");
  EXPECT_EQ(batch.next_due_at, world.clock->now() + 10s);
  EXPECT_TRUE(world.store().claim_due(request).value().records.empty());
  world.clock->advance(10s);
  batch = world.store().claim_due(request).value();
  ASSERT_EQ(ids_of(batch.records), range(1, 1));
  EXPECT_EQ(code_of(world.write(spi::EraseSchedule{make_id(1), 2})), ErrorCode::kConflict)
      << "the dead claimer's";
  EXPECT_TRUE(world.write(spi::EraseSchedule{make_id(1), 3}).ok());
  EXPECT_TRUE(world.store().has_fired(make_id(1)).value());
}

TEST_P(Schedule, WhatWasClaimedIsChangedOnlyByTheVersionThatItsClaimerKnows) {
  ASSERT_TRUE(world.write(spi::PutSchedule{world.record(1, 1s)}).ok());
  world.clock->advance(1s);
  spi::DueRequest request;
  request.lease = 10s;
  ASSERT_EQ(ids_of(world.store().claim_due(request).value().records), range(1, 1));
  const auto change = [&] {
    EXPECT_EQ(code_of(world.write(spi::EraseSchedule{make_id(1), 0, true})), ErrorCode::kConflict);
    EXPECT_EQ(code_of(world.write(spi::MoveSchedule{make_id(1), 0, world.clock->now() + 1h})),
              ErrorCode::kConflict);
  };
  change();
  world.clock->advance(11s);
  change();  // its claimer may have published it before it died
  EXPECT_EQ(ids_of(world.store().claim_due(request).value().records), range(1, 1));
  EXPECT_TRUE(world.write(spi::MoveSchedule{make_id(1), 3, world.clock->now() + 5s}).ok());
  EXPECT_TRUE(world.write(spi::EraseSchedule{make_id(1), 0, true}).ok()) << "put off, it is nobody's again";
  EXPECT_FALSE(world.store().find_schedule(make_id(1)).value());
  EXPECT_FALSE(world.store().has_fired(make_id(1)).value());
}

TEST_P(Schedule, AClaimWithoutALeaseTakesEachRecordOnce) {
  for (std::uint64_t n = 1; n <= 3; ++n)
    ASSERT_TRUE(world.write(spi::PutSchedule{world.record(n, 0s)}).ok());
  EXPECT_EQ(ids_of(world.store().claim_due({}).value().records), range(1, 3));
}

TEST_P(Schedule, WhatIsTooLateIsReturnedAndNotPromoted) {
  auto subscription = world.subscribe();
  spi::ScheduleRecord strict = world.record(1, 1s);
  strict.skip_if_late_by = 2s;
  spi::ScheduleRecord in_time = world.record(2, 2s);
  in_time.skip_if_late_by = 2s;
  ASSERT_TRUE(world.write(spi::PutSchedule{strict}, spi::PutSchedule{in_time}).ok());
  world.clock->advance(4s);
  const spi::DueBatch batch = world.promote();
  EXPECT_EQ(ids_of(batch.records), range(1, 1));
  EXPECT_EQ(batch.records[0].due_at, world.clock->now() - 3s);
  EXPECT_EQ(batch.promoted_count, 1U);
  EXPECT_EQ(world.take(*subscription), range(2, 2));
}

TEST_P(Schedule, WhatWasTooLateStaysTooLateWhenItsClaimerDies) {
  spi::ScheduleRecord strict = world.record(1, 1s);
  strict.skip_if_late_by = 2s;
  ASSERT_TRUE(world.write(spi::PutSchedule{strict}).ok());
  world.clock->advance(4s);
  EXPECT_EQ(ids_of(world.promote().records), range(1, 1));
  world.clock->advance(30s);
  const spi::DueBatch again = world.promote();
  EXPECT_EQ(again.promoted_count, 0U);
  ASSERT_EQ(ids_of(again.records), range(1, 1));
  EXPECT_EQ(again.records[0].due_at, world.clock->now() - 33s);
}

TEST_P(Schedule, ARetryReachesItsGroupOnly) {
  auto a = world.subscribe(member("a"));
  auto b = world.subscribe(member("b"));
  spi::ScheduleRecord retry = world.record(1, 1s);
  retry.id = make_id(77);
  retry.envelope.group = "b";
  ASSERT_TRUE(world.write(spi::PutSchedule{retry}).ok());
  world.clock->advance(1s);
  EXPECT_EQ(world.promote().promoted_count, 1U);
  EXPECT_EQ(world.take(*a), Numbers{});
  EXPECT_EQ(world.take(*b), range(1, 1));
  EXPECT_FALSE(world.store().has_fired(make_id(77)).value()) << "nobody knows that id";
}

TEST_P(Schedule, ListsByDueTimeWithoutPayloadsPageByPage) {
  for (std::uint64_t n = 1; n <= 7; ++n) {
    ASSERT_TRUE(world.write(spi::PutSchedule{world.record(n, n <= 4 ? 2s : 1s)}).ok());
  }
  ASSERT_TRUE(world.write(spi::PutSchedule{world.record(8, 1s, "other")}).ok());
  spi::ScheduleQuery query;
  query.topic = "t";
  query.count_max = 3;
  auto page = world.store().list_schedule(query).value();
  EXPECT_EQ(ids_of(page.items), range(5, 7));
  EXPECT_TRUE(page.items[0].envelope.payload.empty());
  EXPECT_EQ(page.items[0].payload_size, 9U);
  ASSERT_FALSE(page.cursor.empty());
  query.cursor = page.cursor;
  page = world.store().list_schedule(query).value();
  EXPECT_EQ(ids_of(page.items), range(1, 3));
  query.cursor = page.cursor;
  page = world.store().list_schedule(query).value();
  EXPECT_EQ(ids_of(page.items), range(4, 4));
  EXPECT_TRUE(page.cursor.empty());
  query.topic = "other";
  EXPECT_EQ(code_of(world.store().list_schedule(query)), ErrorCode::kInvalidCursor);
  query.cursor = "made up";
  EXPECT_EQ(code_of(world.store().list_schedule(query)), ErrorCode::kInvalidCursor);
  query.cursor.clear();
  EXPECT_EQ(ids_of(world.store().list_schedule(query).value().items), range(8, 8));
  query.count_max = 0;
  EXPECT_EQ(code_of(world.store().list_schedule(query)), ErrorCode::kInvalidArgument);
}

TEST_P(Schedule, ParkedRecordsHaveNoDueTimeAndKeepTheirOrder) {
  ASSERT_TRUE(world
                  .write(spi::PutKeyBlock{block("k", 1)}, spi::PutKeyBlock{block("other", 5)},
                         spi::PutSchedule{parked(2, "k")}, spi::PutSchedule{parked(3, "k")},
                         spi::PutSchedule{parked(4, "other")})
                  .ok());
  world.clock->advance(24h);
  EXPECT_EQ(world.promote().promoted_count, 0U);
  const auto statistics = world.store().statistics().value();
  EXPECT_EQ(statistics.parked, 3U);
  EXPECT_EQ(statistics.scheduled, 0U);
  spi::ScheduleQuery query;
  query.topic = "t";
  query.group = "g";
  query.parked = true;
  query.count_max = 2;
  auto page = world.store().list_schedule(query).value();
  EXPECT_EQ(ids_of(page.items), range(1002, 1003));
  EXPECT_EQ(page.items[0].envelope.payload, "payload 2");
  query.cursor = page.cursor;
  page = world.store().list_schedule(query).value();
  EXPECT_EQ(ids_of(page.items), range(1004, 1004));
  EXPECT_TRUE(page.cursor.empty());
  query.cursor.clear();
  query.key = "k";
  EXPECT_EQ(ids_of(world.store().list_schedule(query).value().items), range(1002, 1003));
}

TEST_P(Schedule, UnparkingLetsTheTailOfAKeyThroughOneByOne) {
  auto subscription = world.subscribe();
  EXPECT_EQ(code_of(world.write(unpark("k"))), ErrorCode::kNotFound);
  ASSERT_TRUE(world
                  .write(spi::PutKeyBlock{block("k", 1)}, spi::PutSchedule{parked(2, "k")},
                         spi::PutSchedule{parked(3, "k")})
                  .ok());
  ASSERT_EQ(blocks().size(), 1U);
  EXPECT_EQ(blocks()[0].parked_count, 2U);
  EXPECT_TRUE(world.write(unpark("k")).ok());
  EXPECT_EQ(world.promote().promoted_count, 1U);
  auto got = world.receive(*subscription);
  EXPECT_EQ(numbers_of(got), range(2, 2));
  EXPECT_TRUE(got[0].envelope->heads_key);
  EXPECT_EQ(blocks()[0].head, make_id(2));
  EXPECT_EQ(blocks()[0].parked_count, 1U);
  EXPECT_TRUE(world.write(unpark("k")).ok());
  EXPECT_EQ(blocks()[0].head, make_id(3));
  EXPECT_TRUE(world.write(unpark("k")).ok());
  EXPECT_TRUE(blocks().empty());
  EXPECT_EQ(code_of(world.write(unpark("k"))), ErrorCode::kNotFound);
}

TEST_P(Schedule, OnlyTheHeadOfTheMomentLetsTheNextOneThrough) {
  ASSERT_TRUE(world
                  .write(spi::PutKeyBlock{block("k", 1)}, spi::PutSchedule{parked(2, "k")},
                         spi::PutSchedule{parked(3, "k")})
                  .ok());
  spi::UnparkNext of_first = unpark("k");
  of_first.head = make_id(1);
  EXPECT_TRUE(world.write(of_first).ok());
  EXPECT_EQ(blocks()[0].head, make_id(2));
  EXPECT_TRUE(world.write(of_first).ok()) << "a copy of it is done as well";
  EXPECT_EQ(blocks()[0].head, make_id(2));
  EXPECT_EQ(blocks()[0].parked_count, 1U);
  for (std::uint64_t n = 2; n <= 3; ++n) {
    spi::UnparkNext next = unpark("k");
    next.head = make_id(n);
    EXPECT_TRUE(world.write(next).ok());
  }
  EXPECT_TRUE(blocks().empty());
  EXPECT_EQ(code_of(world.write(of_first)), ErrorCode::kNotFound);
}

TEST_P(Schedule, InPartitionOrderEverythingWaitsBehindTheEmptyKey) {
  const auto behind_all = [&](std::uint64_t number, std::optional<std::string> key) {
    spi::ScheduleRecord record = parked(number, std::move(key));
    record.order_key.clear();
    return spi::PutSchedule{std::move(record)};
  };
  ASSERT_TRUE(world
                  .write(spi::PutKeyBlock{block("", 1)}, behind_all(2, "b"), behind_all(3, std::nullopt),
                         behind_all(4, "a"))
                  .ok());
  EXPECT_EQ(blocks()[0].parked_count, 3U);
  for (std::uint64_t n = 2; n <= 4; ++n) {
    ASSERT_TRUE(world.write(unpark("")).ok());
    EXPECT_EQ(blocks()[0].head, make_id(n));
  }
  ASSERT_TRUE(world.write(unpark("")).ok());
  EXPECT_TRUE(blocks().empty());
}

TEST_P(Schedule, NothingIsParkedBehindAKeyThatIsNotBlocked) {
  EXPECT_EQ(code_of(world.write(spi::PutSchedule{parked(2, "k")})), ErrorCode::kNotFound);
  EXPECT_EQ(world.store().statistics().value().parked, 0U);
}

TEST_P(Schedule, TheEmptyKeyIsAKeyAmongOthers) {
  ASSERT_TRUE(world
                  .write(spi::PutKeyBlock{block("k", 1)}, spi::PutKeyBlock{block("", 2)},
                         spi::PutSchedule{parked(3, "k")}, spi::PutSchedule{parked(4, "")},
                         spi::PutSchedule{parked(5, "k")})
                  .ok());
  ASSERT_EQ(blocks().size(), 2U);
  EXPECT_EQ(blocks()[0].key, "");
  EXPECT_EQ(blocks()[0].parked_count, 1U);
  EXPECT_EQ(blocks()[1].parked_count, 2U);
  ASSERT_TRUE(world.write(unpark("")).ok());
  EXPECT_EQ(blocks()[0].head, make_id(4));
  ASSERT_TRUE(world.write(unpark("")).ok());
  ASSERT_EQ(blocks().size(), 1U);
  EXPECT_EQ(blocks()[0].key, "k");
}

TEST_P(Schedule, BlocksArePerGroupTopicAndPartition) {
  spi::KeyBlock elsewhere = block("k", 9);
  elsewhere.partition = 5;
  ASSERT_TRUE(world.write(spi::PutKeyBlock{block("k", 1)}, spi::PutKeyBlock{elsewhere}).ok());
  EXPECT_EQ(world.store().list_key_blocks("g", "t", 5).value().size(), 1U);
  EXPECT_EQ(world.store().list_key_blocks("g", "t", 5).value()[0].head, make_id(9));
  EXPECT_EQ(world.store().list_key_blocks("g", "t", 6).value().size(), 0U);
  EXPECT_EQ(blocks().size(), 2U);
  EXPECT_TRUE(world.store().list_key_blocks("h", "t", std::nullopt).value().empty());
  EXPECT_TRUE(world.store().list_key_blocks("g", "u", std::nullopt).value().empty());
}

TEST_P(Schedule, PuttingABlockAgainReplacesIt) {
  spi::KeyBlock held = block("k", 1);
  ASSERT_TRUE(world.write(spi::PutKeyBlock{held}).ok());
  held.held = true;
  held.head = make_id(2);
  ASSERT_TRUE(world.write(spi::PutKeyBlock{held}).ok());
  ASSERT_EQ(blocks().size(), 1U);
  EXPECT_TRUE(blocks()[0].held);
  EXPECT_EQ(blocks()[0].head, make_id(2));
}

TEST_P(Schedule, MovingUnparks) {
  auto subscription = world.subscribe();
  ASSERT_TRUE(world.write(spi::PutKeyBlock{block("k", 1)}, spi::PutSchedule{parked(2, "k")}).ok());
  ASSERT_TRUE(world.write(spi::MoveSchedule{make_id(1002), 0, world.clock->now()}).ok());
  EXPECT_EQ(world.promote().promoted_count, 1U);
  EXPECT_EQ(world.take(*subscription), range(2, 2));
  EXPECT_EQ(world.store().statistics().value().parked, 0U);
}

TOWLINE_OVER_DRIVERS(Schedule);

}  // namespace
}  // namespace towline::drivers::testing
