// Dedup ids are held by one message each, for whichever process asks, through rollbacks, restarts and a clock
// that is set back, and whether they are recent or old.

#include "drivers/sqlite/dedup.hpp"

#include <map>
#include <random>

#include "drivers/sqlite/topics.hpp"
#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

/// What a process has of the file: a connection, and what it remembers.
class Process {
 public:
  Process(const std::string& file, std::int64_t span) : file_(file), span_(span) { restart(); }

  void restart() {
    catalog = {};
    catalog.dedup.span_max = span_;
    sql.close();
    ASSERT_TRUE(sql.open(file_, SQLITE_OPEN_READWRITE, nullptr));
    ASSERT_TRUE(sql.run("PRAGMA synchronous = OFF"));
  }
  /// A transaction as Database runs it.
  template <typename F>
  void write(TimePoint now, bool commits, F f) {
    Tx tx{sql, catalog, {now, {}}};
    ASSERT_TRUE(sql.run("BEGIN IMMEDIATE"));
    refresh(tx);
    f(tx);
    execute(sql, "UPDATE counter SET value = value + ?1 WHERE name = 'dedup'", tx.dedup_ids);
    ASSERT_TRUE(sql.ok()) << sql.failure().message;
    ASSERT_TRUE(sql.run(commits ? "COMMIT" : "ROLLBACK"));
    if (!commits) rebuild(tx);
  }
  /// A look, outside of any transaction.
  std::optional<MessageId> find(TimePoint now, const std::string& topic, const std::string& id) {
    Tx tx{sql, catalog, {now, {}}};
    refresh(tx);
    return find_dedup(tx, topic, id);
  }

  Connection sql;
  Catalog catalog;
  SweepPlaces places;

 private:
  const std::string file_;
  const std::int64_t span_;
};

class SqliteDedup : public ::testing::Test {
 protected:
  SqliteDedup() {
    Connection first;
    EXPECT_TRUE(first.open(file(), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr));
    EXPECT_TRUE(first.run("PRAGMA journal_mode = WAL"));
    EXPECT_TRUE(migrate(first, migrations(), 0));
  }
  [[nodiscard]] std::string file() const { return folder.file("bare.db"); }
  [[nodiscard]] spi::Envelope envelope(std::uint64_t number, std::string id, TimePoint until = kNever) {
    spi::Envelope envelope;
    envelope.id = make_id(number);
    envelope.topic = "t";
    envelope.dedup_id = std::move(id);
    envelope.dedup_mode = until == kNever ? DedupMode::kWhileUnfinished : DedupMode::kWindow;
    envelope.dedup_until = until;
    return envelope;
  }
  std::optional<MessageId> hold(Process& process, const spi::Envelope& envelope, bool commits = true) {
    std::optional<MessageId> holder;
    process.write(clock.now(), commits, [&](Tx& tx) { holder = hold_dedup(tx, envelope); });
    return holder;
  }
  static std::int64_t ask(Process& process, const char* sql) {
    return select_integer(process.sql, sql).value_or(-1);
  }

  support::TempDir folder;
  VirtualClock clock;
};

TEST_F(SqliteDedup, NothingIsReadBeforeAnIdIsAskedFor) {
  Process one(file(), 1'000);
  for (std::uint64_t n = 1; n <= 100; ++n)
    EXPECT_FALSE(hold(one, envelope(n, "d" + std::to_string(n))));
  one.restart();
  one.write(clock.now(), true, [&](Tx& tx) { (void)sweep_dedup(tx, one.places, 10); });
  EXPECT_EQ(one.catalog.dedup.index.bytes(), 0U);
  EXPECT_EQ(one.find(clock.now(), "t", "d7"), make_id(7));
  EXPECT_EQ(one.catalog.dedup.index.size(), 100U);
}

TEST_F(SqliteDedup, WhatAnotherProcessHoldsIsSeenAtTheNextTransaction) {
  Process one(file(), 1'000), two(file(), 1'000);
  EXPECT_FALSE(hold(one, envelope(1, "a")));
  EXPECT_EQ(hold(two, envelope(2, "a")), make_id(1));
  EXPECT_FALSE(hold(two, envelope(3, "b")));
  EXPECT_EQ(hold(one, envelope(4, "b")), make_id(3));
  two.write(clock.now(), true, [](Tx& tx) { forget_dedup(tx, {"t", "a", make_id(1)}); });
  EXPECT_FALSE(hold(one, envelope(5, "a")));
  EXPECT_EQ(two.find(clock.now(), "t", "a"), make_id(5));
}

TEST_F(SqliteDedup, ANumberThatWasGivenBackAndThenUsedByAnotherProcessIsNotMistaken) {
  Process one(file(), 1'000), two(file(), 1'000);
  EXPECT_FALSE(hold(one, envelope(1, "a"), false));
  EXPECT_FALSE(hold(two, envelope(2, "b")));
  EXPECT_EQ(ask(one, "SELECT max(number) FROM dedup_recent"), 1) << "the number of a, which is not there";
  EXPECT_EQ(hold(one, envelope(3, "b")), make_id(2));
  EXPECT_FALSE(hold(one, envelope(4, "a")));
  EXPECT_EQ(hold(two, envelope(5, "a")), make_id(4));
}

TEST_F(SqliteDedup, WhatAnUndoneTransactionHadRemovedIsStillHeld) {
  Process one(file(), 1'000);
  const TimePoint soon = clock.now() + 1s;
  EXPECT_FALSE(hold(one, envelope(1, "a")));
  EXPECT_FALSE(hold(one, envelope(2, "b", soon)));
  clock.advance(2s);
  one.write(clock.now(), false, [&](Tx& tx) {
    forget_dedup(tx, {"t", "a", make_id(1)});
    EXPECT_FALSE(find_dedup(tx, "t", "a"));
    EXPECT_FALSE(hold_dedup(tx, envelope(3, "a")));
    EXPECT_EQ(hold_dedup(tx, envelope(4, "a")), make_id(3));
    EXPECT_FALSE(hold_dedup(tx, envelope(5, "b"))) << "expired";
  });
  EXPECT_EQ(hold(one, envelope(6, "a")), make_id(1));
  EXPECT_EQ(one.find(soon - 1s, "t", "b"), make_id(2)) << "by a clock that was set back";
}

TEST_F(SqliteDedup, ASweepThatIsUndoneBeforeAnythingWasReadTakesNothingAway) {
  Process one(file(), 1'000);
  const TimePoint soon = clock.now() + 1s;
  EXPECT_FALSE(hold(one, envelope(1, "a", soon)));
  one.restart();
  clock.advance(2s);
  one.write(clock.now(), false, [&](Tx& tx) {
    EXPECT_EQ(sweep_dedup(tx, one.places, 10).removed, 1U);
    EXPECT_FALSE(find_dedup(tx, "t", "x")) << "reads the others, but not the one that was removed";
  });
  EXPECT_EQ(one.find(soon - 1s, "t", "a"), make_id(1));
  EXPECT_EQ(ask(one, "SELECT count(*) FROM dedup_recent"), 1);
}

TEST_F(SqliteDedup, AnIdThatIsHeldAgainAndAgainLeavesNoChain) {
  Process one(file(), 100'000);
  for (std::uint64_t n = 1; n <= 2'000; ++n) {
    ASSERT_FALSE(hold(one, envelope(n, "nightly")));
    one.write(clock.now(), true, [&](Tx& tx) { forget_dedup(tx, {"t", "nightly", make_id(n)}); });
  }
  EXPECT_LE(one.catalog.dedup.index.size(), 2U);
}

TEST_F(SqliteDedup, OldIdsMoveAndAreHeldAsBefore) {
  Process one(file(), 800), two(file(), 800);
  EXPECT_EQ(two.find(clock.now(), "t", "d1"), std::nullopt);
  for (std::uint64_t n = 1; n <= 3'000; n += 100) {
    one.write(clock.now(), true, [&](Tx& tx) {
      for (std::uint64_t m = n; m < n + 100; ++m)
        EXPECT_FALSE(hold_dedup(tx, envelope(m, "d" + std::to_string(m))));
    });
  }
  EXPECT_GT(ask(one, "SELECT count(*) FROM dedup"), 1'900);
  EXPECT_EQ(ask(one, "SELECT (SELECT count(*) FROM dedup) + (SELECT count(*) FROM dedup_recent)"), 3'000);
  EXPECT_LE(one.catalog.dedup.index.size(), 1'600U) << "and so memory is bounded";
  for (Process* process : {&one, &two}) {
    for (const std::uint64_t n : {1U, 777U, 1'500U, 2'999U, 3'000U})
      EXPECT_EQ(hold(*process, envelope(9'999, "d" + std::to_string(n))), make_id(n)) << n;
  }
  two.write(clock.now(), true, [](Tx& tx) {
    forget_dedup(tx, {"t", "d1", make_id(2)});
    forget_dedup(tx, {"t", "d2", make_id(2)});
  });
  EXPECT_EQ(one.find(clock.now(), "t", "d1"), make_id(1)) << "not another's to forget";
  EXPECT_FALSE(hold(one, envelope(4'000, "d2")));
  EXPECT_EQ(two.find(clock.now(), "t", "d2"), make_id(4'000));
}

TEST_F(SqliteDedup, WhatAnUndoneTransactionHadMovedIsStillHeld) {
  Process one(file(), 80);
  EXPECT_FALSE(hold(one, envelope(1, "first")));
  one.write(clock.now(), false, [&](Tx& tx) {
    for (std::uint64_t n = 2; n <= 200; ++n)
      EXPECT_FALSE(hold_dedup(tx, envelope(n, "d" + std::to_string(n))));
    EXPECT_EQ(ask(one, "SELECT count(*) FROM dedup WHERE dedup_id = 'first'"), 1);
    EXPECT_EQ(hold_dedup(tx, envelope(201, "first")), make_id(1));
  });
  EXPECT_EQ(ask(one, "SELECT count(*) FROM dedup"), 0);
  EXPECT_EQ(hold(one, envelope(202, "first")), make_id(1));
  EXPECT_EQ(one.find(clock.now(), "t", "d2"), std::nullopt);
}

TEST_F(SqliteDedup, WhatAnOlderVersionWroteIsHeldOn) {
  Connection older;
  ASSERT_TRUE(older.open(folder.file("older.db"), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr));
  ASSERT_TRUE(migrate(older, migrations().first(2), 0));
  ASSERT_TRUE(older.run("INSERT INTO topic VALUES(3, 't', 'queue', 64, 0, 0)"));
  ASSERT_TRUE(execute(older, "INSERT INTO dedup VALUES(3, 'a', NULL, ?1)", make_id(1)));
  ASSERT_TRUE(execute(older, "INSERT INTO dedup VALUES(3, 'b', ?1, ?2)", to_us(clock.now()), make_id(2)));
  ASSERT_TRUE(migrate(older, migrations(), 1));
  Process one(folder.file("older.db"), 1'000);
  EXPECT_EQ(hold(one, envelope(3, "a")), make_id(1));
  EXPECT_FALSE(hold(one, envelope(4, "b"))) << "expired";
  EXPECT_EQ(hold(one, envelope(5, "b")), make_id(4));
  EXPECT_EQ(ask(one, "SELECT count(*) FROM dedup"), 1);
}

TEST_F(SqliteDedup, ASweepFindsWhatExpiredBehindWhatNeverDoes) {
  Process one(file(), 100'000);
  one.write(clock.now(), true, [&](Tx& tx) {
    for (std::uint64_t n = 1; n <= 3'000; ++n) {
      const TimePoint until = n > 500 && n % 10 == 0 ? kNever : clock.now() + 1s;
      EXPECT_FALSE(hold_dedup(tx, envelope(n, "d" + std::to_string(n), until)));
    }
  });
  clock.advance(2s);
  std::uint64_t removed = 0;
  for (int i = 0; i < 40; ++i) {
    one.write(clock.now(), true, [&](Tx& tx) {
      const Swept swept = sweep_dedup(tx, one.places, 100);
      EXPECT_LE(swept.removed, 100U);
      removed += swept.removed;
      EXPECT_TRUE(swept.more || i >= 5);
    });
  }
  EXPECT_EQ(removed, 2'750U);
  EXPECT_EQ(ask(one, "SELECT count(*) FROM dedup_recent"), 250);
  EXPECT_EQ(ask(one, "SELECT min(number) FROM dedup_recent"), 510);
}

/// Three processes and one map that says what they must answer.
class SqliteDedupModel : public SqliteDedup {
 protected:
  struct Held {
    MessageId by;
    TimePoint until;
  };
  using Model = std::map<std::string, Held>;

  std::uint64_t pick(std::uint64_t count) { return random_() % count; }
  std::string any_id() { return std::to_string(seed_) + "-" + std::to_string(pick(120)); }
  [[nodiscard]] std::optional<MessageId> live(const Model& model, const std::string& id) const {
    const auto it = model.find(id);
    return it == model.end() || it->second.until <= now_ ? std::optional<MessageId>() : it->second.by;
  }
  void do_one(Tx& tx, SweepPlaces& places, Model& model) {
    const std::string id = any_id();
    const auto holder = live(model, id);
    switch (pick(6)) {
      case 0:
        ASSERT_EQ(find_dedup(tx, "t", id), holder);
        return;
      case 1: {
        const MessageId by = pick(3) == 0 ? make_id(1) : holder.value_or(make_id(2));
        forget_dedup(tx, {"t", id, by});
        if (const auto it = model.find(id); it != model.end() && it->second.by == by) model.erase(it);
        return;
      }
      case 2:
        (void)sweep_dedup(tx, places, 1 + pick(5));
        return;
      default: {
        const Duration window(1 + static_cast<std::int64_t>(pick(3'000'000)));
        const TimePoint until = pick(4) == 0 ? kNever : now_ + window;
        ASSERT_EQ(hold_dedup(tx, envelope(++number_, id, until)), holder) << id;
        if (!holder) model[id] = {make_id(number_), until};
      }
    }
  }
  void step(Process& process) {
    if (pick(20) == 0) process.restart();
    if (pick(3) == 0) now_ += Duration(static_cast<std::int64_t>(pick(1'000'000)));
    if (pick(30) == 0) now_ -= Duration(static_cast<std::int64_t>(pick(3'000'000)));
    const std::string id = any_id();
    ASSERT_EQ(process.find(now_, "t", id), live(model_, id));
    const bool commits = pick(4) != 0;
    Model after = model_;
    process.write(now_, commits, [&](Tx& tx) {
      for (std::uint64_t ops = 1 + pick(6); ops > 0 && !HasFatalFailure(); --ops)
        do_one(tx, process.places, after);
    });
    if (commits) model_ = std::move(after);
    // A sweep may have removed what has expired or not; a clock that is set back would tell.
    std::erase_if(model_, [&](const auto& one) { return one.second.until <= now_; });
    execute(process.sql, "DELETE FROM dedup_recent WHERE expires_us <= ?1", to_us(now_));
    execute(process.sql, "DELETE FROM dedup WHERE expires_us <= ?1", to_us(now_));
  }

  std::uint64_t seed_ = 0;
  std::mt19937_64 random_;
  TimePoint now_{};
  std::uint64_t number_ = 0;
  Model model_;
};

TEST_F(SqliteDedupModel, ManyProcessesAgreeWithOneMapWhateverHappens) {
  now_ = clock.now();
  for (seed_ = 1; seed_ <= 12; ++seed_) {
    SCOPED_TRACE(seed_);
    random_.seed(seed_);
    model_.clear();
    number_ = seed_ << 32;
    // Small, so that ids move and are dropped all the time.
    const auto span = static_cast<std::int64_t>(8 + pick(60));
    Process processes[] = {{file(), span}, {file(), span}, {file(), span}};
    for (int i = 0; i < 1'500 && !HasFatalFailure(); ++i)
      step(processes[pick(3)]);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
