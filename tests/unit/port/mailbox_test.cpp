// What waits for the binding: the order, the one ring per filling, the bound of the log, and that nothing
// comes after shut().

#include "port/mailbox.hpp"

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

namespace towline::port {
namespace {

using namespace std::chrono_literals;

Event reply(std::uint64_t id) {
  Event event;
  event.id = id;
  return event;
}

std::vector<std::uint64_t> ids_of(const std::vector<Event>& events) {
  std::vector<std::uint64_t> ids;
  for (const Event& event : events)
    ids.push_back(event.id);
  return ids;
}

TEST(Mailbox, RingsOnceForAllThatComesUntilItIsDrained) {
  int rings = 0;
  Mailbox mailbox([&] { ++rings; }, 10);
  mailbox.put(reply(1));
  mailbox.put(reply(2));
  EXPECT_EQ(rings, 1);
  EXPECT_EQ(ids_of(mailbox.drain(10)), (std::vector<std::uint64_t>{1, 2}));
  EXPECT_EQ(rings, 1);
  mailbox.put(reply(3));
  EXPECT_EQ(rings, 2);
}

TEST(Mailbox, RingsAgainForWhatADrainLeaves) {
  int rings = 0;
  Mailbox mailbox([&] { ++rings; }, 10);
  for (std::uint64_t id = 1; id <= 5; ++id)
    mailbox.put(reply(id));
  EXPECT_EQ(ids_of(mailbox.drain(2)), (std::vector<std::uint64_t>{1, 2}));
  EXPECT_EQ(rings, 2);
  EXPECT_EQ(ids_of(mailbox.drain(3)), (std::vector<std::uint64_t>{3, 4, 5}));
  EXPECT_EQ(rings, 2);
  EXPECT_TRUE(mailbox.drain(3).empty());
}

TEST(Mailbox, BeyondItsBoundLogRecordsAreDroppedAndCounted) {
  Mailbox mailbox({}, 2);
  for (int i = 0; i < 5; ++i)
    mailbox.put_log({LogLevel::kInfo, "station", "text"});
  EXPECT_EQ(mailbox.drain(10).size(), 2U);
  mailbox.put_log({LogLevel::kInfo, "station", "text"});
  const std::vector<Event> events = mailbox.drain(10);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].log->text, "text (3 records before this one were dropped)");
}

TEST(Mailbox, PollWaitsForAnEventAndNoLonger) {
  Mailbox mailbox({}, 10);
  EXPECT_FALSE(mailbox.poll(1ms));
  std::thread other([&] { mailbox.put(reply(1)); });
  EXPECT_TRUE(mailbox.poll(1h));
  other.join();
  std::thread closer([&] { mailbox.shut(); });
  (void)mailbox.drain(10);
  EXPECT_FALSE(mailbox.poll(1h)) << "shut() ends the wait";
  closer.join();
}

TEST(Mailbox, AfterShutNothingRingsAndNothingIsTaken) {
  std::atomic<bool> may_ring{true};
  std::atomic<int> late{0};
  Mailbox mailbox([&] { late += may_ring ? 0 : 1; }, 10);
  std::thread writer([&] {
    for (int i = 0; i < 20'000; ++i) {
      mailbox.put(reply(1));
      (void)mailbox.drain(10);
    }
  });
  mailbox.shut();
  may_ring = false;
  writer.join();
  EXPECT_EQ(late, 0);
  EXPECT_TRUE(mailbox.drain(10).empty());
}

TEST(Mailbox, OfADeliveryThatIsNotOutNothingIsFinished) {
  Mailbox mailbox({}, 10);
  std::vector<Port::Finish> finished = {{7, Outcome::ack()}};
  EXPECT_TRUE(mailbox.take(finished).empty());
}

}  // namespace
}  // namespace towline::port
