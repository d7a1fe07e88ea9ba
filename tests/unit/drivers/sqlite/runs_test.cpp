// Runs: messages of one row come back as they were, damage stays in the message that it hit, and a reader
// may begin anywhere.

#include "drivers/sqlite/runs.hpp"

#include <vector>

#include "drivers/sqlite/connection.hpp"
#include "support/property.hpp"
#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

using Numbers = std::vector<std::uint64_t>;
constexpr std::int64_t kRowUs = 1'700'000'000'000'000;

spi::Envelope message(std::uint64_t number) {
  spi::Envelope envelope;
  envelope.id = make_id(number);
  envelope.payload = "payload " + std::to_string(number);
  envelope.published_at = from_us(kRowUs + static_cast<std::int64_t>(number));
  return envelope;
}

TEST(SqliteRuns, MessagesComeBackAsTheyWere) {
  spi::Envelope plain = message(1);
  spi::Envelope full = message(2);
  full.key = std::string("k\0", 2);
  full.expires_at = full.published_at + 1h;
  full.headers = {{"region", "eu"}};
  full.content_type = "text/plain";
  spi::Envelope empty = message(3);
  empty.key = "";
  empty.payload.clear();
  std::string run;
  std::uint32_t partition = 40;
  for (const spi::Envelope* one : {&plain, &full, &empty})
    append_to_run(run, *one, partition++, kRowUs);
  RunReader reader(run, kRowUs);
  partition = 40;
  for (const spi::Envelope* one : {&plain, &full, &empty}) {
    spi::Envelope back;
    ASSERT_TRUE(to_envelope(reader.next(), back));
    EXPECT_EQ(back.id, one->id);
    EXPECT_EQ(back.partition, partition++);
    EXPECT_EQ(back.key, one->key);
    EXPECT_EQ(back.payload, one->payload);
    EXPECT_EQ(back.published_at, one->published_at);
    EXPECT_EQ(back.expires_at, one->expires_at);
    EXPECT_EQ(back.headers, one->headers);
    EXPECT_EQ(back.content_type, one->content_type);
  }
  EXPECT_FALSE(reader.next().whole) << "there is no fourth";
}

TEST(SqliteRuns, ManyOfAnySizeAreReadInOrderAlsoWhenSomeArePassedOver) {
  support::for_all([](const std::vector<std::string>& payloads) {
    std::string run;
    for (std::size_t i = 0; i < payloads.size(); ++i) {
      spi::Envelope one = message(i);
      one.payload = payloads[i];
      append_to_run(run, one, 0, kRowUs);
    }
    RunReader reader(run, kRowUs);
    for (std::size_t i = 0; i < payloads.size(); ++i) {
      if (i % 3 == 1) {
        reader.skip();
        continue;
      }
      spi::Envelope back;
      RC_ASSERT(to_envelope(reader.next(), back));
      RC_ASSERT(back.id == make_id(i));
      RC_ASSERT(back.payload == payloads[i]);
    }
  });
}

TEST(SqliteRuns, OnlyNewMessagesForEveryGroupFit) {
  EXPECT_TRUE(fits_run(message(1)));
  const auto with = [](auto change) {
    spi::Envelope envelope = message(1);
    change(envelope);
    return fits_run(envelope);
  };
  EXPECT_FALSE(with([](spi::Envelope& e) { e.group = "g"; }));
  EXPECT_FALSE(with([](spi::Envelope& e) { e.attempt = 2; }));
  EXPECT_FALSE(with([](spi::Envelope& e) { e.crashes = 1; }));
  EXPECT_FALSE(with([](spi::Envelope& e) { e.redrives = 1; }));
  EXPECT_FALSE(with([](spi::Envelope& e) { e.heads_key = true; }));
  EXPECT_TRUE(with([](spi::Envelope& e) { e.key = "k"; }));
}

TEST(SqliteRuns, WhatIsCutOffIsNotReadPastItsEnd) {
  std::string run;
  for (std::uint64_t n = 1; n <= 3; ++n)
    append_to_run(run, message(n), 0, kRowUs);
  for (std::size_t length = 0; length < run.size(); ++length) {
    const std::string cut = run.substr(0, length);  // a copy, so that a sanitizer sees a read too far
    RunReader reader(cut, kRowUs);
    int whole = 0;
    for (int i = 0; i < 3; ++i) {
      spi::Envelope back;
      whole += to_envelope(reader.next(), back) ? 1 : 0;
    }
    EXPECT_LT(whole, 3) << "cut at " << length;
  }
}

TEST(SqliteRuns, DamageWithinAMessageIsThatMessagesOwn) {
  std::string run;
  std::vector<std::size_t> begins;
  for (std::uint64_t n = 1; n <= 3; ++n) {
    begins.push_back(run.size());
    append_to_run(run, message(n), 0, kRowUs);
  }
  // Behind the length, which is one byte here, of the second.
  for (std::size_t at = begins[1] + 1; at < begins[2]; ++at) {
    std::string damaged = run;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x04);
    RunReader reader(damaged, kRowUs);
    spi::Envelope first, second, third;
    EXPECT_TRUE(to_envelope(reader.next(), first));
    (void)to_envelope(reader.next(), second);
    EXPECT_TRUE(to_envelope(reader.next(), third)) << "byte " << at;
    EXPECT_EQ(first.payload, "payload 1");
    EXPECT_EQ(third.payload, "payload 3");
    EXPECT_EQ(third.id, make_id(3));
  }
}

// ---- in the file --------------------------------------------------------------------------------

TEST(SqliteRuns, ABatchIsReadInPiecesAndGoesWhenAllOfItIsSettled) {
  World world;
  auto subscription = world.subscribe();
  world.publish(1, 100);
  const auto first = world.receive(*subscription, 30);
  EXPECT_EQ(numbers_of(first), range(1, 30));
  const auto second = world.receive(*subscription, 50);
  EXPECT_EQ(numbers_of(second), range(31, 80)) << "a reader begins inside a run";
  EXPECT_TRUE(world.settle(*subscription, second).empty());
  EXPECT_TRUE(world.settle(*subscription, first).empty());
  EXPECT_EQ(world.take(*subscription), range(81, 100));
}

TEST(SqliteRuns, WhatIsReleasedOutOfItsMiddleComesBackFirst) {
  World world;
  auto subscription = world.subscribe();
  world.publish(1, 20);
  auto held = world.receive(*subscription, 10);
  const std::vector<spi::Delivery> middle(held.begin() + 3, held.begin() + 6);
  EXPECT_TRUE(world.settle(*subscription, middle, spi::Verb::kRelease).empty());
  EXPECT_EQ(world.take(*subscription, 5), (Numbers{4, 5, 6, 11, 12}));
}

TEST(SqliteRuns, AGroupMayStartInsideARun) {
  World world;
  auto keeper = world.subscribe(member("keeper"));
  world.publish(1, 10);
  spi::SubscribeOptions options = member("late");
  options.start.kind = spi::StartPosition::Kind::kAfterId;
  options.start.after_id = make_id(6);
  EXPECT_EQ(world.take(*world.subscribe(options)), range(7, 10));
}

TEST(SqliteRuns, WhatADeadHolderHadOfARunComesAgainAndTheRestOnce) {
  World world;
  auto dead = world.subscribe();
  world.publish(1, 10);
  EXPECT_EQ(world.take(*dead, 4), range(1, 4));
  auto other = world.subscribe();
  EXPECT_EQ(world.take(*other), range(5, 10));
  dead.reset();
  world.clock->advance(31s);
  EXPECT_TRUE(other->renew().ok());
  Numbers again;
  for (int round = 0; round < 10; ++round) {
    for (const spi::Delivery& delivery : world.receive(*other)) {
      again.push_back(number_of(delivery.envelope->id));
      (void)world.settle(*other, delivery);
    }
  }
  std::sort(again.begin(), again.end());
  EXPECT_EQ(Numbers(again.begin(), again.begin() + 4), range(1, 4));
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
