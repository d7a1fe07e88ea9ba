// Sagas beside their logs: found by name, listed by what they are, and gone with their streams.

#include "unit/drivers/world.hpp"

namespace towline::drivers::testing {
namespace {

using namespace std::chrono_literals;

class Sagas : public OverDrivers {
 protected:
  [[nodiscard]] static SagaInfo saga(const std::string& id, SagaStatus status = SagaStatus::kRunning,
                                     const std::string& type = "order") {
    SagaInfo saga;
    saga.type = type;
    saga.id = id;
    saga.status = status;
    saga.fingerprint = "print";
    saga.step = "charge";
    saga.started_at = from_us(1'000'000);
    saga.updated_at = from_us(2'000'000);
    return saga;
  }
  /// The saga and the next entry of its log, in one unit.
  Result<void> put(const SagaInfo& saga, std::uint64_t expected, TimePoint expires_at = kNever) {
    spi::AppendEvents log;
    log.space = spi::StreamSpace::kSagas;
    log.stream = saga.type + "/" + saga.id;
    log.expected = expected;
    RecordedEvent& entry = log.events.emplace_back();
    entry.id = make_id(++entry_last_);
    entry.type = "note";
    const std::string stream = log.stream;
    return world.write(std::move(log), spi::PutSaga{saga, stream, expires_at});
  }
  [[nodiscard]] std::vector<std::string> ids(SagaQuery query) {
    std::vector<std::string> ids;
    do {
      auto page = world.store().list_sagas(query).value();
      for (const SagaInfo& one : page.items)
        ids.push_back(one.id);
      query.cursor = page.cursor;
    } while (!query.cursor.empty());
    return ids;
  }
  [[nodiscard]] std::uint64_t log_size(const std::string& stream) {
    spi::StreamRead read;
    read.space = spi::StreamSpace::kSagas;
    read.stream = stream;
    return world.store().read_stream(read).value().newest_version;
  }

 private:
  std::uint64_t entry_last_ = 0;
};

using Ids = std::vector<std::string>;

TEST_P(Sagas, ASagaComesBackAsItWasPut) {
  SagaInfo wanted = saga("s-1", SagaStatus::kStuck);
  wanted.definition_version = 7;
  wanted.error = "charge: no";
  wanted.deadline_at = from_us(3'000'000);
  wanted.retention = 5s;
  ASSERT_TRUE(put(wanted, 0).ok());
  const SagaInfo found = world.store().find_saga("order", "s-1").value().value();
  EXPECT_EQ(found.type, "order");
  EXPECT_EQ(found.id, "s-1");
  EXPECT_EQ(found.definition_version, 7U);
  EXPECT_EQ(found.fingerprint, "print");
  EXPECT_EQ(found.status, SagaStatus::kStuck);
  EXPECT_EQ(found.step, "charge");
  EXPECT_EQ(found.error, "charge: no");
  EXPECT_EQ(found.started_at, wanted.started_at);
  EXPECT_EQ(found.updated_at, wanted.updated_at);
  EXPECT_EQ(found.deadline_at, wanted.deadline_at);
  EXPECT_EQ(found.retention, 5s);
  ASSERT_TRUE(put(saga("s-2"), 0).ok());
  EXPECT_EQ(world.store().find_saga("order", "s-2").value()->deadline_at, kNever);
  EXPECT_FALSE(world.store().find_saga("order", "s-3").value());
  EXPECT_FALSE(world.store().find_saga("refund", "s-1").value());
}

TEST_P(Sagas, WhoseLogHasMovedOnIsNotReplaced) {
  ASSERT_TRUE(put(saga("s"), 0).ok());
  EXPECT_EQ(put(saga("s", SagaStatus::kCompleted), 0).error().code, ErrorCode::kConflict);
  EXPECT_EQ(world.store().find_saga("order", "s").value()->status, SagaStatus::kRunning);
  ASSERT_TRUE(put(saga("s", SagaStatus::kCompleted), 1).ok());
  EXPECT_EQ(world.store().find_saga("order", "s").value()->status, SagaStatus::kCompleted);
}

TEST_P(Sagas, AreListedInOrderOfStartingByWhatTheyAre) {
  ASSERT_TRUE(put(saga("a"), 0).ok());
  ASSERT_TRUE(put(saga("b", SagaStatus::kCompleted), 0).ok());
  ASSERT_TRUE(put(saga("c", SagaStatus::kStuck), 0).ok());
  SagaInfo other = saga("d", SagaStatus::kRunning, "refund");
  other.definition_version = 2;
  other.started_at = from_us(5'000'000);
  ASSERT_TRUE(put(other, 0).ok());
  ASSERT_TRUE(put(saga("a", SagaStatus::kCompensated), 1).ok());
  for (const std::size_t count_max : {1U, 2U, 100U}) {
    SagaQuery query;
    query.count_max = count_max;
    EXPECT_EQ(ids(query), (Ids{"a", "b", "c", "d"}));
    query.unfinished = true;
    EXPECT_EQ(ids(query), (Ids{"c", "d"}));
    query.status = SagaStatus::kCompleted;
    EXPECT_EQ(ids(query), Ids{}) << "every condition must hold";
    query.unfinished = false;
    EXPECT_EQ(ids(query), Ids{"b"});
    query.status.reset();
    query.type = "refund";
    EXPECT_EQ(ids(query), Ids{"d"});
    query.definition_version = 1;
    EXPECT_EQ(ids(query), Ids{});
    query.type.clear();
    query.definition_version.reset();
    query.started_before = from_us(5'000'000);
    EXPECT_EQ(ids(query), (Ids{"a", "b", "c"}));
  }
}

TEST_P(Sagas, ACursorOfAnotherQueryIsRefused) {
  ASSERT_TRUE(put(saga("a"), 0).ok());
  ASSERT_TRUE(put(saga("b"), 0).ok());
  SagaQuery query;
  query.count_max = 1;
  query.cursor = world.store().list_sagas(query).value().cursor;
  ASSERT_FALSE(query.cursor.empty());
  query.type = "order";
  EXPECT_EQ(world.store().list_sagas(query).error().code, ErrorCode::kInvalidCursor);
}

TEST_P(Sagas, WhatHasExpiredIsSweptWithItsLogAndNoPositionComesTwice) {
  const TimePoint now = world.clock->now();
  ASSERT_TRUE(put(saga("old", SagaStatus::kCompleted), 0, now - 1s).ok());
  ASSERT_TRUE(put(saga("kept"), 0).ok());
  ASSERT_TRUE(put(saga("last", SagaStatus::kCompleted), 0, now + 1s).ok());
  const auto sweep = [&](TimePoint at) {
    spi::SweepRequest request;
    request.now = at;
    return world.store().sweep(request).value().sagas;
  };
  EXPECT_EQ(sweep(now), 1U);
  EXPECT_FALSE(world.store().find_saga("order", "old").value());
  EXPECT_EQ(log_size("order/old"), 0U);
  EXPECT_EQ(log_size("order/kept"), 1U);
  (void)sweep(now + 2s);
  std::stop_source stop;
  const auto position = [&] {
    return world.store()
        .wait_for_events(spi::StreamSpace::kSagas, 0, MonotonicTime::min(), stop.get_token())
        .value();
  };
  EXPECT_EQ(position(), 3U);
  ASSERT_TRUE(put(saga("new"), 0).ok());
  EXPECT_EQ(position(), 4U);
  EXPECT_LE(sweep(now + 2s), 1U);
  EXPECT_FALSE(world.store().find_saga("order", "last").value());
  EXPECT_EQ(ids({}), (Ids{"kept", "new"}));
}

TOWLINE_OVER_DRIVERS(Sagas);

}  // namespace
}  // namespace towline::drivers::testing
