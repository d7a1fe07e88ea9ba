// Idempotency keys, inboxes and dedup ids in the file: compare-and-set by version, windows that end, and
// sweeping in bounded steps.

#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

using State = spi::IdempotencyRecord::State;

class SqliteRecords : public ::testing::Test {
 protected:
  [[nodiscard]] spi::IdempotencyRecord record(const std::string& key, Bytes result = {}) const {
    spi::IdempotencyRecord record;
    record.scope = "s";
    record.key = key;
    record.state = State::kDone;
    record.has_result = true;
    record.result = std::move(result);
    record.expires_at = world.clock->now() + 1h;
    return record;
  }
  [[nodiscard]] std::optional<spi::IdempotencyRecord> find(const std::string& key,
                                                           const std::string& scope = "s") const {
    return world.store().find_idempotency(scope, key).value();
  }
  [[nodiscard]] bool in_inbox(std::uint64_t number, const std::string& group = "g") const {
    const MessageId id = make_id(number);
    return world.store().inbox_contains(group, {&id, 1}).value().at(0);
  }

  World world;
};

TEST_F(SqliteRecords, AnIdempotencyRecordComesBackWhole) {
  spi::IdempotencyRecord put = record("k", std::string("\0r", 2));
  put.state = State::kInProgress;
  put.fingerprint = "f";
  put.fence = 7;
  put.lease_until = world.clock->now() + 5s;
  put.content_type = "text/plain";
  ASSERT_TRUE(world.write(spi::PutIdempotency{put, 0}).ok());
  const auto found = find("k");
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->state, State::kInProgress);
  EXPECT_EQ(found->fingerprint, "f");
  EXPECT_EQ(found->fence, 7U);
  EXPECT_EQ(found->lease_until, put.lease_until);
  EXPECT_EQ(found->expires_at, put.expires_at);
  EXPECT_EQ(found->result, std::string("\0r", 2));
  EXPECT_EQ(found->content_type, "text/plain");
  EXPECT_TRUE(found->has_result);
  EXPECT_EQ(found->version, 1U);
  EXPECT_FALSE(find("k", "other").has_value());
}

TEST_F(SqliteRecords, NothingIsAResultAndNoResultIsSomethingElse) {
  ASSERT_TRUE(world.write(spi::PutIdempotency{record("empty"), 0}).ok());
  spi::IdempotencyRecord none = record("none");
  none.has_result = false;
  ASSERT_TRUE(world.write(spi::PutIdempotency{none, 0}).ok());
  EXPECT_TRUE(find("empty")->has_result);
  EXPECT_EQ(find("empty")->result, "");
  EXPECT_FALSE(find("none")->has_result);
}

TEST_F(SqliteRecords, AnIdempotencyRecordIsReplacedOnlyByWhoKnowsItsVersion) {
  ASSERT_TRUE(world.write(spi::PutIdempotency{record("k", "a"), 0}).ok());
  EXPECT_EQ(code_of(world.write(spi::PutIdempotency{record("k", "b"), 0})), ErrorCode::kConflict);
  EXPECT_EQ(code_of(world.write(spi::PutIdempotency{record("k", "b"), 2})), ErrorCode::kConflict);
  ASSERT_TRUE(world.write(spi::PutIdempotency{record("k", "c"), 1}).ok());
  EXPECT_EQ(find("k")->result, "c");
  EXPECT_EQ(find("k")->version, 2U);
  EXPECT_EQ(code_of(world.write(spi::PutIdempotency{record("unknown"), 1})), ErrorCode::kConflict);
  EXPECT_EQ(code_of(world.write(spi::EraseIdempotency{"s", "k", 1})), ErrorCode::kConflict);
  EXPECT_TRUE(world.write(spi::EraseIdempotency{"s", "k", 2}).ok());
  EXPECT_EQ(code_of(world.write(spi::EraseIdempotency{"s", "k", 0})), ErrorCode::kNotFound);
}

TEST_F(SqliteRecords, RecordsOutliveTheProcess) {
  ASSERT_TRUE(world.write(spi::PutIdempotency{record("k", "a"), 0},
                          spi::PutInbox{"g", make_id(1), world.clock->now() + 1h})
                  .ok());
  world.shut();
  world.open();
  EXPECT_EQ(find("k")->result, "a");
  EXPECT_TRUE(in_inbox(1));
}

TEST_F(SqliteRecords, AnInboxRemembersPerGroupAndForItsWindow) {
  ASSERT_TRUE(world.write(spi::PutInbox{"g", make_id(1), world.clock->now() + 10s}).ok());
  EXPECT_TRUE(in_inbox(1));
  EXPECT_FALSE(in_inbox(2));
  EXPECT_FALSE(in_inbox(1, "h"));
  EXPECT_EQ(code_of(world.write(spi::PutInbox{"g", make_id(1), world.clock->now() + 10s})),
            ErrorCode::kConflict);
  world.clock->advance(10s);
  EXPECT_FALSE(in_inbox(1));
  EXPECT_TRUE(world.write(spi::PutInbox{"g", make_id(1), world.clock->now() + 10s}).ok())
      << "an ended one is as none";
  EXPECT_TRUE(in_inbox(1));
}

TEST_F(SqliteRecords, TheInboxIsAskedForManyAtOnceInOrder) {
  for (const std::uint64_t number : {2, 4})
    ASSERT_TRUE(world.write(spi::PutInbox{"g", make_id(number), kNever}).ok());
  std::vector<MessageId> ids;
  for (std::uint64_t n = 1; n <= 5; ++n)
    ids.push_back(make_id(n));
  EXPECT_EQ(world.store().inbox_contains("g", ids).value(),
            (std::vector<bool>{false, true, false, true, false}));
  EXPECT_TRUE(world.store().inbox_contains("g", {}).value().empty());
}

TEST_F(SqliteRecords, ADedupIdIsHeldByItsMessageUntilItIsForgottenOrItsWindowEnds) {
  spi::Envelope first = world.envelope(1);
  first.dedup_id = "d";
  first.dedup_until = world.clock->now() + 10s;
  ASSERT_TRUE(world.publish(first).empty());
  EXPECT_EQ(world.store().find_dedup("t", "d").value(), make_id(1));
  EXPECT_EQ(world.store().find_dedup("u", "d").value(), std::nullopt) << "per topic";
  EXPECT_EQ(world.store().find_dedup("t", "").value(), std::nullopt);
  ASSERT_TRUE(world.write(spi::ForgetDedup{"t", "d", make_id(2)}).ok());
  EXPECT_EQ(world.store().find_dedup("t", "d").value(), make_id(1)) << "it is not the other's to forget";
  ASSERT_TRUE(world.write(spi::ForgetDedup{"t", "d", make_id(1)}).ok());
  EXPECT_EQ(world.store().find_dedup("t", "d").value(), std::nullopt);
  spi::Envelope again = world.envelope(3);
  again.dedup_id = "d";
  again.dedup_until = world.clock->now() + 10s;
  ASSERT_TRUE(world.publish(again).empty());
  world.clock->advance(10s);
  EXPECT_EQ(world.store().find_dedup("t", "d").value(), std::nullopt);
}

TEST_F(SqliteRecords, SweepingRemovesWhatHasEndedAndNoMoreThanAsked) {
  for (std::uint64_t n = 1; n <= 5; ++n) {
    ASSERT_TRUE(world.write(spi::PutInbox{"g", make_id(n), world.clock->now() + 10s},
                            spi::PutIdempotency{record("k" + std::to_string(n)), 0})
                    .ok());
  }
  ASSERT_TRUE(world.write(spi::PutInbox{"g", make_id(6), world.clock->now() + 2h}).ok());
  world.clock->advance(1h);
  EXPECT_EQ(world.store().statistics().value().idempotency_records, 5U);
  std::uint64_t inbox = 0, keys = 0;
  int rounds = 0;
  for (bool more = true; more && rounds < 20; ++rounds) {
    const spi::SweepReport report = world.sweep(2);
    EXPECT_LE(report.inbox_records, 2U);
    EXPECT_LE(report.idempotency_records, 2U);
    inbox += report.inbox_records;
    keys += report.idempotency_records;
    more = report.more;
  }
  EXPECT_EQ(inbox, 5U);
  EXPECT_EQ(keys, 5U);
  EXPECT_GT(rounds, 1);
  EXPECT_TRUE(in_inbox(6));
  EXPECT_EQ(world.store().statistics().value().idempotency_records, 0U);
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
