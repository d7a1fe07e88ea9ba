// Dead letters in the file: filters, pages, groups, counters kept by triggers, leases and sweeping.

#include "unit/drivers/world.hpp"

namespace towline::drivers::testing {
namespace {

using Numbers = std::vector<std::uint64_t>;
using Status = DeadLetterStatus;

class DeadLetters : public OverDrivers {
 protected:
  DeadLetter letter(std::uint64_t number) {
    DeadLetter letter;
    letter.id = make_id(number);
    letter.message_id = make_id(100'000 + number);
    letter.topic = number % 2 == 0 ? "even" : "odd";
    letter.group = "g";
    letter.error_type = number % 3 == 0 ? "Fizz" : "Plain";
    letter.error_message = "failed at " + std::to_string(number);
    letter.payload = "payload " + std::to_string(number);
    letter.fingerprint = number % 3 == 0 ? "00000000000000ff" : "0000000000000001";
    letter.reason = number % 5 == 0 ? DeadLetterReason::kManual : DeadLetterReason::kExhausted;
    letter.created_at = world.clock->now();
    letter.first_failed_at = world.clock->now() - 1s;
    letter.last_failed_at = world.clock->now();
    return letter;
  }
  /// Entries 1..count, a second apart.
  void fill(std::uint64_t count) {
    for (std::uint64_t n = 1; n <= count; ++n) {
      ASSERT_TRUE(world.write(spi::PutDeadLetter{letter(n)}).ok());
      world.clock->advance(1s);
    }
  }
  Numbers list(const DeadLetterQuery& query) {
    const Page<DeadLetter> page = world.store().list_dead_letters(query).value();
    Numbers numbers;
    for (const DeadLetter& one : page.items)
      numbers.push_back(number_of(one.id));
    return numbers;
  }
  std::uint64_t count(Status status) {
    return world.store().statistics().value().dead_letters[static_cast<std::size_t>(status)];
  }

  const TimePoint begin = world.clock->now();
};

TEST_P(DeadLetters, EveryConditionFilters) {
  fill(12);
  DeadLetterQuery query;
  EXPECT_EQ(list(query), range(1, 12));
  query.topic = "even";
  EXPECT_EQ(list(query), (Numbers{2, 4, 6, 8, 10, 12}));
  query.error_type = "Fizz";
  EXPECT_EQ(list(query), (Numbers{6, 12}));
  query = {};
  query.fingerprint = "00000000000000ff";
  EXPECT_EQ(list(query), (Numbers{3, 6, 9, 12}));
  query = {};
  query.reason = DeadLetterReason::kManual;
  EXPECT_EQ(list(query), (Numbers{5, 10}));
  query = {};
  query.text = "at 7";
  EXPECT_EQ(list(query), (Numbers{7}));
  query.text = "load 8";
  EXPECT_EQ(list(query), (Numbers{8}));
  query = {};
  query.created_from = begin + 3s;
  query.created_before = begin + 6s;
  EXPECT_EQ(list(query), (Numbers{4, 5, 6}));
  query = {};
  query.group = "other";
  EXPECT_EQ(list(query), Numbers{});
}

TEST_P(DeadLetters, PagesAreStableWhileEntriesComeAndGo) {
  fill(10);
  DeadLetterQuery query;
  query.count_max = 4;
  Page<DeadLetter> page = world.store().list_dead_letters(query).value();
  Numbers seen = list(query);
  ASSERT_TRUE(world
                  .write(spi::EraseDeadLetter{make_id(4)}, spi::EraseDeadLetter{make_id(7)},
                         spi::PutDeadLetter{letter(11)})
                  .ok());
  while (!page.cursor.empty()) {
    query.cursor = page.cursor;
    page = world.store().list_dead_letters(query).value();
    for (const DeadLetter& one : page.items)
      seen.push_back(number_of(one.id));
  }
  EXPECT_EQ(seen, (Numbers{1, 2, 3, 4, 5, 6, 8, 9, 10, 11}));
}

TEST_P(DeadLetters, ACursorBelongsToItsQuery) {
  fill(5);
  DeadLetterQuery query;
  query.count_max = 2;
  const std::string cursor = world.store().list_dead_letters(query).value().cursor;
  query.cursor = cursor;
  query.count_max = 3;
  EXPECT_EQ(list(query), (Numbers{3, 4, 5})) << "the size of a page is not part of it";
  query.topic = "odd";
  EXPECT_EQ(code_of(world.store().list_dead_letters(query)), ErrorCode::kInvalidCursor);
  query.topic = "";
  for (std::size_t i = 0; i < cursor.size(); ++i) {
    query.cursor = cursor;
    query.cursor[i] = query.cursor[i] == '0' ? '1' : '0';
    EXPECT_EQ(code_of(world.store().list_dead_letters(query)), ErrorCode::kInvalidCursor) << i;
  }
  query.cursor = cursor.substr(1);
  EXPECT_EQ(code_of(world.store().list_dead_letters(query)), ErrorCode::kInvalidCursor);
}

TEST_P(DeadLetters, ThePageSizeHasBounds) {
  DeadLetterQuery query;
  query.count_max = 0;
  EXPECT_EQ(code_of(world.store().list_dead_letters(query)), ErrorCode::kInvalidArgument);
  query.count_max = 1001;
  EXPECT_EQ(code_of(world.store().group_dead_letters(query)), ErrorCode::kInvalidArgument);
}

TEST_P(DeadLetters, StatusesAreCountedAsTheyChange) {
  fill(4);
  EXPECT_EQ(count(Status::kPending), 4U);
  const TimePoint lease = world.clock->now() + 10s;
  ASSERT_TRUE(world
                  .write(spi::UpdateDeadLetter{make_id(1), 1, Status::kResolved, {}, 1},
                         spi::UpdateDeadLetter{make_id(2), 1, Status::kReprocessing, lease, 1},
                         spi::UpdateDeadLetter{make_id(3), 0, Status::kDiscarded, {}, 0})
                  .ok());
  EXPECT_EQ(count(Status::kPending), 1U);
  EXPECT_EQ(count(Status::kResolved), 1U);
  EXPECT_EQ(count(Status::kReprocessing), 1U);
  EXPECT_EQ(count(Status::kDiscarded), 1U);
  DeadLetter again = letter(4);
  again.status = Status::kExpired;
  ASSERT_TRUE(world.write(spi::PutDeadLetter{again}).ok());
  EXPECT_EQ(count(Status::kExpired), 1U);
  EXPECT_EQ(count(Status::kPending), 0U);
  EXPECT_EQ(world.store().find_dead_letter(make_id(4)).value()->version, 2U);
}

TEST_P(DeadLetters, AnEndedLeaseMakesAnEntryPendingAgain) {
  fill(1);
  const TimePoint lease = world.clock->now() + 10s;
  ASSERT_TRUE(world.write(spi::UpdateDeadLetter{make_id(1), 1, Status::kReprocessing, lease, 1}).ok());
  DeadLetterQuery query;
  query.status = Status::kPending;
  world.clock->advance(10s - 1us);
  EXPECT_EQ(list(query), Numbers{});
  world.clock->advance(1us);
  EXPECT_EQ(list(query), range(1, 1));
  EXPECT_EQ(count(Status::kPending), 1U);
  EXPECT_EQ(count(Status::kReprocessing), 0U);
}

TEST_P(DeadLetters, GroupsAreCountedByFingerprint) {
  fill(7);
  const auto groups = world.store().group_dead_letters({}).value();
  ASSERT_EQ(groups.size(), 2U);
  EXPECT_EQ(groups[0].fingerprint, "0000000000000001");
  EXPECT_EQ(groups[0].count, 5U);
  EXPECT_EQ(groups[0].first_at, begin);
  EXPECT_EQ(groups[0].last_at, begin + 6s);
  EXPECT_EQ(groups[0].error_message, "failed at 7");
  EXPECT_EQ(groups[1].count, 2U);
  EXPECT_EQ(groups[1].error_type, "Fizz");
  DeadLetterQuery query;
  query.topic = "even";
  query.count_max = 1;
  const auto of_even = world.store().group_dead_letters(query).value();
  ASSERT_EQ(of_even.size(), 1U);
  EXPECT_EQ(of_even[0].count, 2U);
}

TEST_P(DeadLetters, SweepingRemovesByAgeInAnyStatusButNotTheLeased) {
  fill(6);
  const TimePoint lease = world.clock->now() + 60s;
  ASSERT_TRUE(world
                  .write(spi::UpdateDeadLetter{make_id(1), 1, Status::kResolved, {}, 0},
                         spi::UpdateDeadLetter{make_id(2), 1, Status::kReprocessing, lease, 0})
                  .ok());
  spi::SweepRequest request;
  request.now = world.clock->now();
  request.dead_letters_before = begin + 3s;
  spi::SweepReport report = world.store().sweep(request).value();
  EXPECT_EQ(report.dead_letters, 2U);
  EXPECT_EQ(list({}), (Numbers{2, 4, 5, 6}));
  EXPECT_EQ(count(Status::kResolved), 0U);
}

TEST_P(DeadLetters, SweepingRemovesTheOldestBeyondTheNumberInBoundedSteps) {
  fill(6);
  const TimePoint lease = world.clock->now() + 60s;
  ASSERT_TRUE(world.write(spi::UpdateDeadLetter{make_id(1), 1, Status::kReprocessing, lease, 0}).ok());
  spi::SweepRequest request;
  request.now = world.clock->now();
  request.dead_letter_count_max = 2;
  request.count_max = 3;
  spi::SweepReport report = world.store().sweep(request).value();
  EXPECT_EQ(report.dead_letters, 3U);
  EXPECT_TRUE(report.more);
  report = world.store().sweep(request).value();
  EXPECT_EQ(report.dead_letters, 1U);
  EXPECT_FALSE(report.more);
  EXPECT_EQ(list({}), (Numbers{1, 6}));
}

TOWLINE_OVER_DRIVERS(DeadLetters);

}  // namespace
}  // namespace towline::drivers::testing
