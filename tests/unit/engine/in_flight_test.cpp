// The places that all consumers of an engine share.

#include "engine/in_flight.hpp"

#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace towline::engine {
namespace {

struct Places {
  explicit Places(std::int64_t count_max, std::int64_t bytes_max = 1000)
      : in_flight(count_max, bytes_max, count, bytes) {}
  std::atomic<std::uint64_t> count{0}, bytes{0};
  InFlight in_flight;
};

TEST(InFlight, NoMoreThanTheLimitEverHaveAPlace) {
  Places places(2);
  EXPECT_EQ(places.in_flight.room().count, 2U);
  EXPECT_TRUE(places.in_flight.take(1));
  EXPECT_TRUE(places.in_flight.take(1));
  EXPECT_FALSE(places.in_flight.take(1));
  EXPECT_EQ(places.in_flight.room().count, 0U);
  places.in_flight.give_back(1, 1);
  EXPECT_TRUE(places.in_flight.take(1));
}

TEST(InFlight, TheLastOneMayGoBeyondTheBytesAndThenThereIsNoRoom) {
  Places places(10, 100);
  EXPECT_TRUE(places.in_flight.take(99));
  EXPECT_EQ(places.in_flight.room().bytes, 1U);
  EXPECT_TRUE(places.in_flight.take(5000));
  EXPECT_FALSE(places.in_flight.take(0));
  EXPECT_EQ(places.in_flight.room().count, 0U);
}

TEST(InFlight, WhoWaitsIsWokenOnceWhenSomethingIsGivenBack) {
  Places places(1);
  ASSERT_TRUE(places.in_flight.take(0));
  int woken = 0;
  places.in_flight.wait(&places, [&] { ++woken; });
  EXPECT_EQ(woken, 0);
  places.in_flight.give_back(1, 0);
  EXPECT_EQ(woken, 1);
  ASSERT_TRUE(places.in_flight.take(0));
  places.in_flight.give_back(1, 0);
  EXPECT_EQ(woken, 1) << "it has to ask again";
}

TEST(InFlight, WhoIsForgottenIsNotWoken) {
  Places places(1);
  ASSERT_TRUE(places.in_flight.take(0));
  int woken = 0;
  places.in_flight.wait(&places, [&] { ++woken; });
  places.in_flight.forget(&places);
  places.in_flight.give_back(1, 0);
  EXPECT_EQ(woken, 0);
}

TEST(InFlight, TheLimitHoldsWhateverTheThreadsDo) {
  Places places(3);
  std::atomic<std::uint64_t> most{0}, now{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20'000; ++i) {
        if (!places.in_flight.take(1)) continue;
        const std::uint64_t held = now.fetch_add(1) + 1;
        std::uint64_t known = most.load();
        while (held > known && !most.compare_exchange_weak(known, held)) {
        }
        now.fetch_sub(1);
        places.in_flight.give_back(1, 1);
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_LE(most.load(), 3U);
  EXPECT_EQ(places.count.load(), 0U);
}

}  // namespace
}  // namespace towline::engine
