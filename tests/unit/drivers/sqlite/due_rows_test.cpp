// Two tables that read as one, whatever is put, removed and moved between them.

#include "drivers/sqlite/due_rows.hpp"

#include <random>
#include <set>

#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

using Row = std::pair<std::int64_t, std::int64_t>;  // due_us, body_id

class SqliteDueRows : public Bare {
 protected:
  SqliteDueRows() { catalog.due_recent_max = 20; }
  /// A transaction, as the database ends one.
  template <typename F>
  void change(F f) {
    write([&](Tx& tx) {
      f(tx);
      settle_due_rows(tx);
      execute(sql, "UPDATE counter SET value = value + ?1 WHERE name = 'due_recent'", tx.due_recent);
    });
  }
  void insert(Tx& tx, std::int64_t due_us) {
    ++body_id_;
    insert_due_row(tx, due_us, body_id_, due_us % 3 == 0 ? std::optional(due_us) : std::nullopt);
    expected_.emplace(due_us, body_id_);
  }
  std::vector<Row> read(Row after, std::int64_t until_us, std::int64_t count_max) {
    std::vector<Row> found;
    Query rows(sql, kDueRows, after.first, after.second, until_us, count_max);
    while (rows.row()) {
      found.emplace_back(rows.integer(0), rows.integer(1));
      const bool has_log = rows.integer(0) % 3 == 0;
      EXPECT_EQ(rows.is_null(2), !has_log);
      EXPECT_EQ(rows.integer(2), has_log ? rows.integer(0) : 0);
    }
    return found;
  }
  std::vector<Row> expect(Row after, std::int64_t until_us, std::size_t count_max) const {
    std::vector<Row> found;
    for (auto it = expected_.upper_bound(after); it != expected_.end() && it->first <= until_us; ++it) {
      if (found.size() < count_max) found.push_back(*it);
    }
    return found;
  }
  void check_all() {
    EXPECT_EQ(read({INT64_MIN, INT64_MIN}, INT64_MAX, INT64_MAX),
              (std::vector<Row>(expected_.begin(), expected_.end())));
    EXPECT_EQ(first_due_us(sql), expected_.empty() ? std::nullopt : std::optional(expected_.begin()->first));
    EXPECT_EQ(count("SELECT value FROM counter WHERE name = 'due_recent'"),
              count("SELECT count(*) FROM schedule_recent"));
  }

  std::set<Row> expected_;
  std::int64_t body_id_ = 0;
};

TEST_F(SqliteDueRows, WhateverIsPutAndRemovedTheyReadAsOneTableInOrder) {
  std::mt19937_64 chance(7);
  const auto pick = [&](std::int64_t count) {
    return static_cast<std::int64_t>(chance() % static_cast<std::uint64_t>(count));
  };
  for (int round = 0; round < 600; ++round) {
    change([&](Tx& tx) {
      for (std::int64_t n = pick(12); n > 0; --n)
        insert(tx, pick(500));
      for (std::int64_t n = pick(6); n > 0 && !expected_.empty(); --n) {
        const auto gone = std::next(expected_.begin(), pick(static_cast<std::int64_t>(expected_.size())));
        delete_due_row(tx, gone->first, gone->second);
        expected_.erase(gone);
      }
      if (pick(10) == 0 && !expected_.empty()) {
        const auto last =
            std::next(expected_.begin(), pick(static_cast<std::int64_t>(expected_.size()) / 4 + 1));
        take_due_rows(tx, last->first, last->second);
        expected_.erase(expected_.begin(), std::next(last));
      }
    });
    check_all();
    const Row after{pick(500), pick(body_id_ + 1)};
    const std::int64_t until_us = pick(600);
    const std::int64_t count_max = 1 + pick(20);
    EXPECT_EQ(read(after, until_us, count_max), expect(after, until_us, static_cast<std::size_t>(count_max)));
  }
  EXPECT_GT(count("SELECT count(*) FROM schedule"), 0) << "some have moved on";
}

TEST_F(SqliteDueRows, TheSmallTableStaysSmallAndIsEmptiedByNobodyWhoPutsNothing) {
  for (int round = 0; round < 100; ++round) {
    change([&](Tx& tx) {
      for (int n = 0; n < 10; ++n)
        insert(tx, (round * 7919 + n * 104'729) % 1'000);
    });
    EXPECT_LE(count("SELECT count(*) FROM schedule_recent"), catalog.due_recent_max + 10);
  }
  const std::int64_t before = count("SELECT count(*) FROM schedule_recent");
  change([](Tx&) {});
  EXPECT_EQ(count("SELECT count(*) FROM schedule_recent"), before);
  check_all();
}

TEST_F(SqliteDueRows, TwoProcessesThatDoNotKnowHowFarTheOtherIsMoveRowsOnAllTheSame) {
  Catalog other;
  for (int round = 0; round < 200; ++round) {
    std::swap(catalog.due_moved_us, other.due_moved_us);
    std::swap(catalog.due_moved_body, other.due_moved_body);
    change([&](Tx& tx) {
      for (int n = 0; n < 10; ++n)
        insert(tx, (round * 7919 + n * 104'729) % 1'000);
    });
    check_all();
    EXPECT_LE(count("SELECT count(*) FROM schedule_recent"), catalog.due_recent_max + 20);
  }
}

TEST_F(SqliteDueRows, AFewAreNeverMoved) {
  change([&](Tx& tx) {
    for (int n = 0; n < catalog.due_recent_max; ++n)
      insert(tx, n);
  });
  EXPECT_EQ(count("SELECT count(*) FROM schedule"), 0);
  check_all();
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
