// Handler transactions in the file: the user's SQL, the messages it publishes and the settlement are stored
// together or not at all, and the user's SQL cannot end the transaction or write the store's own tables.

#include <stdexcept>

#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

using Value = spi::SqlSession::Value;
using Rows = std::vector<std::vector<Value>>;

class SqliteTransact : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(run({"CREATE TABLE account(name TEXT PRIMARY KEY, cents INTEGER)"}).ok());
    world.publish(1, 1);
    subscription = world.subscribe();
    held = world.receive(*subscription);
    ASSERT_EQ(held.size(), 1U);
  }
  Result<void> run(const std::vector<std::string>& statements, std::vector<spi::Write> writes = {},
                   spi::Subscription* settle = nullptr) {
    const spi::Unit unit{std::move(writes)};
    return world.store().transact(
        [&](spi::SqlSession& session) -> Result<void> {
          for (const std::string& sql : statements) {
            auto rows = session.execute(sql, {});
            if (!rows) return rows.error();
          }
          return {};
        },
        {&unit, 1}, settle);
  }
  Rows ask(const std::string& sql) {
    Rows rows;
    EXPECT_TRUE(world.store()
                    .transact(
                        [&](spi::SqlSession& session) -> Result<void> {
                          auto answer = session.execute(sql, {});
                          if (!answer) return answer.error();
                          rows = std::move(*answer);
                          return {};
                        },
                        {}, nullptr)
                    .ok())
        << sql;
    return rows;
  }
  [[nodiscard]] spi::Settle ack() const { return {{held.at(0).token, spi::Verb::kAck}}; }

  World world;
  std::unique_ptr<spi::Subscription> subscription;
  std::vector<spi::Delivery> held;
};

TEST_F(SqliteTransact, WhatWouldWriteInsideTheBodyBesideTheTransactionIsRefusedAtOnceAndNothingIsLost) {
  World other;
  const auto body = [&](spi::SqlSession& session) -> Result<void> {
    std::vector<spi::Envelope> one = {world.envelope(2, "u")};
    EXPECT_EQ(code_of(world.transport().publish(one, world.clock->monotonic())), ErrorCode::kInvalidArgument);
    const spi::Unit late{{spi::PutSchedule{world.record(3, 1s)}}};
    EXPECT_EQ(code_of(world.store().commit({&late, 1})), ErrorCode::kInvalidArgument);
    spi::ReceiveRequest request;
    EXPECT_EQ(code_of(subscription->receive(request)), ErrorCode::kInvalidArgument);
    // Reading waits for nobody, nor does another store.
    EXPECT_TRUE(world.store().find_schedule(make_id(3)).ok());
    other.publish(1, 1);
    return session.execute("INSERT INTO account VALUES('ann', 5)", {}).ok()
               ? Result<void>{}
               : Result<void>(Error{ErrorCode::kInternal, "insert"});
  };
  const spi::Unit unit{{ack()}};
  EXPECT_TRUE(world.store().transact(body, {&unit, 1}, subscription.get()).ok());
  EXPECT_EQ(ask("SELECT count(*) FROM account"), (Rows{{Value{std::int64_t{1}}}}));
  EXPECT_EQ(world.group().in_flight, 0U);
  world.publish(4, 4);  // and afterwards all is as before
  EXPECT_EQ(world.take(*subscription), range(4, 4));
}

TEST_F(SqliteTransact, TheEffectTheMessageAndTheSettlementAreStoredTogether) {
  auto out = world.subscribe(member("out"));
  ASSERT_TRUE(run({"INSERT INTO account VALUES('ann', 5)"}, {spi::Publish{world.envelope(2, "u")}, ack()},
                  subscription.get())
                  .ok());
  EXPECT_EQ(ask("SELECT cents FROM account"), (Rows{{std::int64_t{5}}}));
  EXPECT_EQ(world.group().in_flight, 0U);
  EXPECT_EQ(world.take(*out), range(1, 2)) << "that group starts at the earliest";
}

TEST_F(SqliteTransact, WhatTheBodyRefusesIsTakenBackWhole) {
  const spi::Unit unit{{spi::Publish{world.envelope(2, "u")}, ack()}};
  const auto failed = world.store().transact(
      [&](spi::SqlSession& session) -> Result<void> {
        EXPECT_TRUE(session.execute("INSERT INTO account VALUES('ann', 5)", {}).ok());
        EXPECT_TRUE(session.write(spi::Publish{world.envelope(3, "u")}).ok());
        return Error{ErrorCode::kConflict, "no"};
      },
      {&unit, 1}, subscription.get());
  EXPECT_EQ(code_of(failed), ErrorCode::kConflict);
  EXPECT_TRUE(ask("SELECT * FROM account").empty());
  EXPECT_EQ(world.group().in_flight, 1U);
  EXPECT_TRUE(world.settle(*subscription, held).empty()) << "its lease is still held";
}

TEST_F(SqliteTransact, AnExceptionOfTheBodyIsAnErrorAndTakesEverythingBack) {
  const auto failed = world.store().transact(
      [&](spi::SqlSession& session) -> Result<void> {
        (void)session.execute("INSERT INTO account VALUES('ann', 5)", {});
        throw std::runtime_error("thrown");
      },
      {}, nullptr);
  EXPECT_EQ(code_of(failed), ErrorCode::kHandlerFailed);
  EXPECT_TRUE(ask("SELECT * FROM account").empty());
}

TEST_F(SqliteTransact, AUnitThatIsRefusedTakesTheUsersSqlBack) {
  EXPECT_EQ(code_of(run({"INSERT INTO account VALUES('ann', 5)"}, {spi::EraseSchedule{make_id(99)}, ack()},
                        subscription.get())),
            ErrorCode::kNotFound);
  EXPECT_TRUE(ask("SELECT * FROM account").empty());
  EXPECT_EQ(world.group().in_flight, 1U);
}

TEST_F(SqliteTransact, ALostLeaseTakesTheEffectBack) {
  world.clock->advance(31s);
  auto other = world.subscribe();
  ASSERT_EQ(world.take(*other), (std::vector<std::uint64_t>{1}));
  EXPECT_EQ(code_of(run({"INSERT INTO account VALUES('ann', 5)"}, {ack()}, subscription.get())),
            ErrorCode::kLeaseLost);
  EXPECT_TRUE(ask("SELECT * FROM account").empty());
}

TEST_F(SqliteTransact, ValuesGoInAndComeOutWithTheirTypes) {
  Rows rows;
  ASSERT_TRUE(world.store()
                  .transact(
                      [&](spi::SqlSession& session) -> Result<void> {
                        const std::vector<Value> values = {std::monostate{}, std::int64_t{-7}, 0.5,
                                                           std::string("a\0b", 3)};
                        rows = session.execute("SELECT ?1, ?2, ?3, ?4", values).value();
                        return {};
                      },
                      {}, nullptr)
                  .ok());
  EXPECT_EQ(rows, (Rows{{std::monostate{}, std::int64_t{-7}, 0.5, std::string("a\0b", 3)}}));
}

TEST_F(SqliteTransact, WhatIsNoStatementOrHasOtherParametersIsRefused) {
  for (const char* sql : {"", "nonsense", "SELECT * FROM nowhere", "SELECT ?1"})
    EXPECT_EQ(code_of(run({sql})), ErrorCode::kInvalidArgument) << sql;
}

TEST_F(SqliteTransact, TheTransactionCannotBeEndedAndTheConnectionNotChanged) {
  for (const char* sql : {"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT x", "RELEASE towline_user",
                          "ROLLBACK TO towline_user", "PRAGMA synchronous = OFF", "PRAGMA user_version = 99",
                          "ATTACH ':memory:' AS other", "DETACH main", "VACUUM"}) {
    EXPECT_EQ(code_of(run({"INSERT INTO account VALUES('ann', 5)", sql})), ErrorCode::kInvalidArgument)
        << sql;
  }
  EXPECT_TRUE(ask("SELECT * FROM account").empty()) << "and what was done before it is taken back";
}

TEST_F(SqliteTransact, TheStoresOwnTablesCanBeReadAndNotWritten) {
  EXPECT_FALSE(ask("SELECT count(*) FROM message").empty());
  for (const char* sql :
       {"DELETE FROM message", "UPDATE dead_letter SET status = 1", "INSERT INTO meta VALUES('a', 1)",
        "DROP TABLE claim", "ALTER TABLE topic RENAME TO mine", "CREATE INDEX mine ON message(seq)",
        "CREATE TRIGGER mine AFTER INSERT ON message BEGIN SELECT 1; END", "UPDATE MESSAGE SET extras = NULL",
        "DELETE FROM sqlite_master"}) {
    EXPECT_EQ(code_of(run({sql})), ErrorCode::kInvalidArgument) << sql;
  }
  EXPECT_TRUE(run({"CREATE TABLE mine(id INTEGER)", "INSERT INTO mine VALUES(1)", "DROP TABLE mine"}).ok());
}

TEST_F(SqliteTransact, AFailedTransactionHoldsUpNobody) {
  for (int i = 0; i < 20; ++i)
    EXPECT_FALSE(run({"INSERT INTO account VALUES('ann', 5)", "nonsense"}).ok());
  world.publish(2, 5);
  EXPECT_TRUE(run({"INSERT INTO account VALUES('ann', 5)"}).ok());
  EXPECT_EQ(world.take(*subscription), range(2, 5));
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
