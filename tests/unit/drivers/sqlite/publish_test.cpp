// How messages lie in the file, and that a reader finds them there wherever it begins.

#include "drivers/sqlite/publish.hpp"

#include "drivers/sqlite/schedule.hpp"
#include "drivers/sqlite/topics.hpp"
#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

using Numbers = std::vector<std::uint64_t>;

class SqlitePublish : public Bare {
 protected:
  [[nodiscard]] spi::Envelope envelope(std::uint64_t number, const std::string& topic = "t") {
    spi::Envelope envelope;
    envelope.id = make_id(number);
    envelope.topic = topic;
    envelope.partition = static_cast<std::uint32_t>(number % 64);
    envelope.payload = "payload " + std::to_string(number);
    envelope.published_at = clock.now() + Duration(static_cast<std::int64_t>(number));
    return envelope;
  }
  void put(const std::vector<spi::Envelope>& envelopes) {
    write([&](Tx& tx) { EXPECT_TRUE(publish(tx, envelopes).empty()); });
  }
  /// Numbers first..last in one batch.
  void put(std::uint64_t first, std::uint64_t last) {
    std::vector<spi::Envelope> envelopes;
    for (std::uint64_t n = first; n <= last; ++n)
      envelopes.push_back(envelope(n));
    put(envelopes);
  }
  /// What is delayed fires, and stays in its own table.
  void fire(std::uint64_t number) {
    write([&](Tx& tx) {
      spi::ScheduleRecord record;
      record.id = make_id(number);
      record.envelope = envelope(number);
      record.due_at = clock.now();
      put_schedule(tx, record);
      spi::DueBatch batch;
      take_due(tx, {}, true, batch);
      EXPECT_EQ(batch.promoted_count, 1U);
    });
  }
};

TEST_F(SqlitePublish, WhatFollowsEachOtherInALogSharesARowAndWhatIsAloneHasItsOwn) {
  put({envelope(1, "a"), envelope(2, "a"), envelope(3, "a"), envelope(4, "b"), envelope(5, "a")});
  EXPECT_EQ(count("SELECT count(*) FROM message"), 3);
  EXPECT_EQ(count("SELECT count FROM message ORDER BY seq LIMIT 1"), 3);
  EXPECT_EQ(count("SELECT count(*) FROM message WHERE count IS NULL AND id IS NOT NULL"), 2);
}

TEST_F(SqlitePublish, ARetryStandsAlone) {
  std::vector<spi::Envelope> batch = {envelope(1), envelope(2), envelope(3)};
  batch[1].group = "g";
  put(batch);
  EXPECT_EQ(count("SELECT count(*) FROM message WHERE count IS NULL"), 3);
}

TEST_F(SqlitePublish, ARunIsBoundedInNumberAndInBytes) {
  put(1, 1'000);
  EXPECT_LE(count("SELECT max(count) FROM message"), 256);
  EXPECT_EQ(count("SELECT sum(coalesce(count, 1)) FROM message"), 1'000);
  std::vector<spi::Envelope> large;
  for (std::uint64_t n = 0; n < 20; ++n) {
    large.push_back(envelope(2'000 + n, "large"));
    large.back().payload.assign(20'000, 'x');
  }
  put(large);
  EXPECT_LE(count("SELECT max(length(payload)) FROM message"), 90'000);
  EXPECT_EQ(count("SELECT sum(coalesce(count, 1)) FROM message"), 1'020);
}

TEST_F(SqlitePublish, AReaderFindsEveryMessageWhereverItBeginsAndEnds) {
  put(1, 5);   // a run
  put(6, 6);   // alone
  fire(7);     // in `body`
  put(8, 10);  // a run
  fire(11);
  put(12, 12);
  write([&](Tx& tx) {
    const LogState& log = *find_topic(tx.catalog, "t")->logs[0];
    const Seq begin = log_begin(log.id);
    ASSERT_EQ(log.last, begin + 12);
    for (Seq after = 0; after <= 12; ++after) {
      for (Seq last = after; last <= 13; ++last) {
        MessageReader message(tx.sql, log, begin + after, begin + last);
        Numbers found;
        while (message.next()) {
          const std::uint64_t number = number_of(message.id());
          found.push_back(number);
          EXPECT_EQ(message.seq(), begin + static_cast<Seq>(number));
          EXPECT_EQ(message.partition(), number);
          EXPECT_EQ(message.group_id(), 0);
          EXPECT_EQ(message.published_us(), to_us(envelope(number).published_at));
          EXPECT_EQ(message.payload_size(), envelope(number).payload.size());
          spi::Envelope read;
          EXPECT_TRUE(message.read(tx, read));
          EXPECT_EQ(read.id, make_id(number));
          EXPECT_EQ(read.topic, "t");
          EXPECT_EQ(read.payload, envelope(number).payload);
        }
        const auto until = static_cast<std::uint64_t>(std::min<Seq>(last, 12));
        EXPECT_EQ(found, range(static_cast<std::uint64_t>(after) + 1, until)) << after << " to " << last;
      }
    }
  });
}

TEST_F(SqlitePublish, PositionsGoOnAfterARestartAlsoWhenAllWasRemoved) {
  put(1, 3);
  write([&](Tx& tx) {
    execute(tx.sql, "DELETE FROM message");
    LogState& log = *find_topic(tx.catalog, "t")->logs[0];
    log.trimmed = log.last;
    log.trimmed_dirty = true;
    tx.note_written(log);
  });
  forget();
  write([&](Tx& tx) {
    refresh(tx);
    EXPECT_TRUE(publish(tx, std::vector<spi::Envelope>{envelope(4)}).empty());
  });
  EXPECT_EQ(count("SELECT seq & ((1 << 40) - 1) FROM message"), 4);
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
