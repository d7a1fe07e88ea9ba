// Message ids: text form, hash, and a generator whose ids grow whatever the clock does.

#include "base/ids.hpp"

#include <algorithm>
#include <chrono>
#include <string>
#include <unordered_set>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.hpp"
#include "support/property.hpp"

namespace towline::base {

struct IdSourceTesting {
  // As if as many ids had been made in this tick as there is room for.
  static void use_up_tail(IdSource& source) { source.tail_ = (std::uint64_t{1} << 62) - 1; }
};

namespace {

using namespace std::chrono_literals;

constexpr TimePoint kStart = from_us(1'767'225'600'000'000);  // 2026-01-01

class FixedRng final : public spi::Rng {
 public:
  explicit FixedRng(std::uint64_t value) : value_(value) {}
  std::uint64_t next() noexcept override { return value_; }

 private:
  std::uint64_t value_;
};

TEST(MessageId, HasTheUsualTextForm) {
  MessageId id;
  for (std::size_t i = 0; i < id.bytes.size(); ++i)
    id.bytes[i] = static_cast<std::uint8_t>(i * 17);
  EXPECT_EQ(id.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
  EXPECT_EQ(*MessageId::parse("00112233-4455-6677-8899-aabbccddeeff"), id);
  EXPECT_EQ(*MessageId::parse("00112233-4455-6677-8899-AABBCCDDEEFF"), id);
}

TEST(MessageId, IsRefusedInAnyOtherForm) {
  const std::string good = "00112233-4455-6677-8899-aabbccddeeff";
  std::vector<std::string> bad = {"",
                                  "x",
                                  good + "0",
                                  good.substr(1),
                                  "{" + good.substr(0, 35),
                                  "00112233445566778899aabbccddeeff",
                                  std::string(36, '-'),
                                  std::string(36, '0')};
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string changed = good;
    changed[i] = changed[i] == '-' ? '0' : 'g';
    bad.push_back(changed);
  }
  for (const std::string& text : bad) {
    const auto id = MessageId::parse(text);
    ASSERT_FALSE(id.ok()) << text;
    EXPECT_EQ(id.error().code, ErrorCode::kInvalidId);
    EXPECT_NE(id.error().message.find("36 characters"), std::string::npos);
  }
}

TEST(MessageId, SurvivesItsTextForm) {
  support::for_all([](const std::vector<std::uint8_t>& bytes) {
    MessageId id;
    std::copy_n(bytes.begin(), std::min(bytes.size(), id.bytes.size()), id.bytes.begin());
    RC_ASSERT(*MessageId::parse(id.to_string()) == id);
  });
}

TEST(MessageId, ShowsHostileTextEscapedInItsError) {
  const auto id = MessageId::parse("a\nb\x1b[31m");
  EXPECT_NE(id.error().message.find("a\\nb\\x1b[31m"), std::string::npos) << id.error().message;
}

TEST(MessageIdHash, SpreadsNeighbouringIdsOverAllBuckets) {
  // Ids of one microsecond differ in few bits; a table of 1,024 buckets must still be filled evenly.
  IdSource source;
  SeededRng rng(1);
  std::vector<int> buckets(1024);
  for (int i = 0; i < 102400; ++i)
    ++buckets[MessageIdHash{}(source.next(kStart, rng)) % buckets.size()];
  for (const int count : buckets)
    EXPECT_NEAR(count, 100, 60);
}

TEST(IdSource, MakesUuidsOfVersionSevenAndTheRfcVariant) {
  IdSource source;
  SeededRng rng(1);
  for (int i = 0; i < 1000; ++i) {
    const MessageId id = source.next(kStart + std::chrono::microseconds(i * 137), rng);
    ASSERT_EQ(id.bytes[6] >> 4, 7);
    ASSERT_EQ(id.bytes[8] >> 6, 2);
  }
}

TEST(IdSource, PutsTheMillisecondIntoTheFirstSixBytes) {
  IdSource source;
  SeededRng rng(1);
  const MessageId id = source.next(from_us(0x0123456789AB * 1000LL), rng);
  EXPECT_EQ(id.to_string().substr(0, 13), "01234567-89ab");
}

TEST(IdSource, GrowsWhileTheClockStandsStill) {
  IdSource source;
  SeededRng rng(1);
  MessageId last = source.next(kStart, rng);
  for (int i = 0; i < 100000; ++i) {
    const MessageId id = source.next(kStart, rng);
    ASSERT_LT(last, id);
    last = id;
  }
}

TEST(IdSource, GrowsWhateverTheClockDoes) {
  support::for_all([](const std::vector<std::int32_t>& steps, std::uint64_t seed) {
    IdSource source;
    SeededRng rng(seed);
    TimePoint now = kStart;
    MessageId last = source.next(now, rng);
    for (const std::int32_t step : steps) {
      now += Duration(step);
      const MessageId id = source.next(now, rng);
      RC_ASSERT(last < id);
      last = id;
    }
  });
}

TEST(IdSource, TakesTheNextTickWhenTheRandomTailIsUsedUp) {
  IdSource source;
  SeededRng rng(1);
  const MessageId first = source.next(kStart, rng);
  IdSourceTesting::use_up_tail(source);
  const MessageId last_of_tick = source.next(kStart, rng);
  EXPECT_LT(first, last_of_tick);
  EXPECT_EQ(last_of_tick.bytes[6] >> 4, 7);
  EXPECT_EQ(last_of_tick.bytes[8] >> 6, 2);
  EXPECT_EQ(time_of(last_of_tick), kStart);
  EXPECT_GT(last_of_tick.bytes[7], first.bytes[7]);
}

TEST(IdSource, GoesOnFromTheLastIdWhenTheClockGoesBack) {
  IdSource source;
  SeededRng rng(1);
  const MessageId before = source.next(kStart, rng);
  const MessageId after = source.next(kStart - 24h, rng);
  EXPECT_LT(before, after);
  EXPECT_EQ(time_of(after), kStart);
}

TEST(IdSource, OrdersIdsOfDifferentSourcesByTheMicrosecond) {
  IdSource early, late;
  FixedRng high(UINT64_MAX), low(0);
  for (int us = 0; us < 5000; ++us) {
    const TimePoint now = kStart + std::chrono::microseconds(us);
    ASSERT_LT(early.next(now, high), late.next(now + 1us, low)) << us;
  }
}

TEST(IdSource, StandsAtTheBoundsForTimesThatAnIdCannotHold) {
  IdSource before, after;
  SeededRng rng(1);
  const MessageId oldest = before.next(TimePoint::min(), rng);
  EXPECT_EQ(time_of(oldest), from_us(0));
  MessageId last = after.next(TimePoint::max(), rng);
  for (int i = 0; i < 1000; ++i) {
    const MessageId id = after.next(TimePoint::max(), rng);
    ASSERT_LT(last, id);
    ASSERT_EQ(id.bytes[6] >> 4, 7);
    last = id;
  }
}

TEST(IdSource, FillsABatchAsIfAskedForEach) {
  IdSource one, many;
  SeededRng rng_one(9), rng_many(9);
  std::vector<MessageId> batch(100);
  many.fill(batch, kStart, rng_many);
  for (const MessageId& id : batch)
    ASSERT_EQ(id, one.next(kStart, rng_one));
}

TEST(IdSource, NeverMeetsAnotherSourceOfTheSameMoment) {
  std::unordered_set<MessageId, MessageIdHash> ids;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    IdSource source;
    SeededRng rng(seed);
    for (int i = 0; i < 1000; ++i)
      ids.insert(source.next(kStart, rng));
  }
  EXPECT_EQ(ids.size(), 50'000u);
}

TEST(TimeOf, AnswersTheMicrosecondOfTheId) {
  IdSource source;
  SeededRng rng(1);
  for (int us = 0; us < 3000; ++us) {
    const TimePoint now = kStart + std::chrono::microseconds(us);
    ASSERT_EQ(time_of(source.next(now, rng)), now);
  }
}

TEST(FirstIdAt, IsBelowEveryIdOfThatMomentAndAboveEveryEarlierOne) {
  SeededRng rng(1);
  for (int us = 1; us < 3000; ++us) {
    const TimePoint now = kStart + std::chrono::microseconds(us);
    IdSource at, before;
    ASSERT_LE(first_id_at(now), at.next(now, rng));
    ASSERT_GT(first_id_at(now), before.next(now - 1us, rng));
  }
}

}  // namespace
}  // namespace towline::base
