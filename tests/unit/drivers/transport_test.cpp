// Waiting and waking, with threads. What a test waits for is a condition; only the guard against a hang is a
// time.

#include <atomic>
#include <future>
#include <thread>

#include "unit/drivers/world.hpp"

namespace towline::drivers::testing {
namespace {

using Numbers = std::vector<std::uint64_t>;

/// A virtual clock that says how many wait on it.
class WatchedClock final : public spi::Clock {
 public:
  TimePoint now() noexcept override { return clock.now(); }
  MonotonicTime monotonic() noexcept override { return clock.monotonic(); }
  void wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
                  MonotonicTime deadline) override {
    ++waiting;
    clock.wait_until(lock, changed, deadline);
    --waiting;
  }
  void until_waiting(int count) const {
    while (waiting.load() < count)
      std::this_thread::yield();
  }

  VirtualClock clock;
  std::atomic<int> waiting{0};
};

class Waiting : public ::testing::TestWithParam<Driver> {
 protected:
  Waiting() {
    spi::DriverOptions options;
    options.clock = clock;
    provider = open_driver(GetParam(), folder, options);
  }
  std::future<Numbers> receive_later(spi::Subscription& subscription, Duration wait = 1h) {
    return std::async(std::launch::async, [this, &subscription, wait] {
      spi::ReceiveRequest request;
      request.count_max = 10;
      request.deadline = clock->monotonic() + wait;
      return numbers_of(subscription.receive(request).value().deliveries);
    });
  }
  std::future<spi::DueBatch> promote_later(Duration wait = 1h) {
    return std::async(std::launch::async, [this, wait] {
      spi::DueRequest request;
      request.lease = 30s;
      request.deadline = clock->monotonic() + wait;
      return provider.store->promote_due(request).value();
    });
  }
  [[nodiscard]] std::unique_ptr<spi::Subscription> subscribe(
      const spi::SubscribeOptions& options = member()) const {
    return provider.transport->subscribe(options).value();
  }
  void publish(std::uint64_t number) {
    std::vector<spi::Envelope> one(1);
    one[0].id = make_id(number);
    one[0].topic = "t";
    ASSERT_TRUE(provider.transport->publish(one, clock->monotonic() + 1h).ok());
  }
  void schedule(std::uint64_t number, Duration delay) {
    spi::ScheduleRecord record;
    record.id = make_id(number);
    record.envelope.id = record.id;
    record.envelope.topic = "t";
    record.due_at = clock->now() + delay;
    const spi::Unit unit{{spi::PutSchedule{record}}};
    ASSERT_TRUE(provider.store->commit({&unit, 1}).value()[0].ok());
  }

  support::TempDir folder;
  std::shared_ptr<WatchedClock> clock = std::make_shared<WatchedClock>();
  spi::Provider provider;
};

TEST_P(Waiting, AReceiveWaitsForAMessage) {
  auto subscription = subscribe();
  auto received = receive_later(*subscription);
  clock->until_waiting(1);
  publish(1);
  EXPECT_EQ(received.get(), range(1, 1));
}

TEST_P(Waiting, AReceiveEndsAtItsDeadline) {
  auto subscription = subscribe();
  auto received = receive_later(*subscription, 5s);
  clock->until_waiting(1);
  clock->clock.advance(5s);
  EXPECT_EQ(received.get(), Numbers{});
}

TEST_P(Waiting, AWakeEndsTheWaitOrTheNextOne) {
  auto subscription = subscribe();
  auto received = receive_later(*subscription);
  clock->until_waiting(1);
  subscription->wake();
  EXPECT_EQ(received.get(), Numbers{});
  subscription->wake();
  publish(1);
  EXPECT_EQ(receive_later(*subscription).get(), range(1, 1)) << "it did not have to wait";
  EXPECT_EQ(receive_later(*subscription).get(), Numbers{}) << "this one would have waited";
  received = receive_later(*subscription);
  clock->until_waiting(1);
  publish(2);
  EXPECT_EQ(received.get(), range(2, 2)) << "a wake counts once";
}

TEST_P(Waiting, AReceiveThatSettlesDoesNotWait) {
  auto subscription = subscribe();
  publish(1);
  spi::ReceiveRequest request;
  request.count_max = 1;
  request.deadline = MonotonicTime::max();
  const auto held = subscription->receive(request).value().deliveries;
  const spi::Settlement ack{held.at(0).token, spi::Verb::kAck};
  request.settlements = {&ack, 1};
  EXPECT_TRUE(subscription->receive(request).value().deliveries.empty());
}

TEST_P(Waiting, AReceiveIsWokenByWhatAnotherMemberReleases) {
  auto a = subscribe();
  auto b = subscribe();
  publish(1);
  ASSERT_EQ(receive_later(*a).get(), range(1, 1));
  auto received = receive_later(*b);
  clock->until_waiting(1);
  ASSERT_TRUE(a->close().ok());
  EXPECT_EQ(received.get(), range(1, 1));
}

TEST_P(Waiting, AReceiveIsWokenByTheEndOfADeadMembersLease) {
  auto dies = subscribe();
  publish(1);
  ASSERT_EQ(receive_later(*dies).get(), range(1, 1));
  dies.reset();
  auto next = subscribe();
  auto received = receive_later(*next);
  clock->until_waiting(1);
  clock->clock.advance(30s);
  EXPECT_EQ(received.get(), range(1, 1));
}

TEST_P(Waiting, AReceiveIsWokenWhenItGetsAPartition) {
  spi::Topology topology;
  topology.topic = "t";
  topology.partition_count = 1;
  ASSERT_TRUE(provider.transport->declare(topology).ok());
  auto owner = subscribe(ordered());
  auto idle = subscribe(ordered());
  publish(1);
  auto received = receive_later(*idle);
  clock->until_waiting(1);
  ASSERT_TRUE(owner->close().ok());
  EXPECT_EQ(received.get(), range(1, 1));
}

TEST_P(Waiting, AnEphemeralReceiveIsWokenByAMessage) {
  auto listener = subscribe(member(""));
  auto received = receive_later(*listener);
  clock->until_waiting(1);
  publish(1);
  EXPECT_EQ(received.get(), range(1, 1));
}

TEST_P(Waiting, WaitingKeepsAMemberAlive) {
  auto subscription = subscribe();
  publish(1);
  ASSERT_EQ(receive_later(*subscription).get(), range(1, 1));
  ASSERT_TRUE(subscription->renew().ok());
  auto received = receive_later(*subscription);
  for (int i = 0; i < 4; ++i) {
    clock->until_waiting(1);
    clock->clock.advance(10s);
    ASSERT_TRUE(subscription->renew().value().empty());
  }
  EXPECT_EQ(provider.transport->statistics().value().at(0).member_count, 1U);
  subscription->wake();
  EXPECT_EQ(received.get(), Numbers{});
}

TEST_P(Waiting, PromotingWaitsForTheFirstToComeDue) {
  schedule(1, 10s);
  auto promoted = promote_later();
  while (promoted.wait_for(0s) != std::future_status::ready)
    clock->clock.advance(100ms);
  EXPECT_EQ(promoted.get().promoted_count, 1U);
}

TEST_P(Waiting, AnEarlierRecordIsNoticedByAWaitingPromotion) {
  schedule(1, 300ms);
  auto promoted = promote_later();
  clock->until_waiting(1);
  schedule(2, 100ms);
  clock->clock.advance(100ms);
  EXPECT_EQ(promoted.get().promoted_count, 1U);
}

TEST_P(Waiting, AStepOfTheWallClockIsNoticedByAWaitingPromotion) {
  schedule(1, 1h);
  auto promoted = promote_later();
  clock->until_waiting(1);
  clock->clock.step_wall(1h);
  clock->clock.advance(1s);  // so often a waiting one looks at the wall clock
  EXPECT_EQ(promoted.get().promoted_count, 1U);
}

TEST_P(Waiting, AWakeEndsAWaitingPromotionOrTheNextOne) {
  auto promoted = promote_later();
  clock->until_waiting(1);
  provider.store->wake();
  EXPECT_EQ(promoted.get().promoted_count, 0U);
  provider.store->wake();
  EXPECT_EQ(promote_later().get().promoted_count, 0U);
}

TEST_P(Waiting, WithoutThreadsNothingWaits) {
  spi::DriverOptions options;
  options.clock = clock;
  options.threads = false;
  const support::TempDir other;
  const spi::Provider still = open_driver(GetParam(), other, options);
  auto subscription = still.transport->subscribe(member()).value();
  spi::ReceiveRequest request;
  request.count_max = 1;
  request.deadline = MonotonicTime::max();
  EXPECT_TRUE(subscription->receive(request).value().deliveries.empty());
  spi::DueRequest due;
  due.deadline = MonotonicTime::max();
  EXPECT_EQ(still.store->promote_due(due).value().promoted_count, 0U);
}

TEST_P(Waiting, ASubscriptionIsCheckedBeforeItIsMade) {
  spi::SubscribeOptions bad = member();
  bad.matches = nullptr;
  EXPECT_EQ(code_of(provider.transport->subscribe(bad)), ErrorCode::kInvalidArgument);
  bad = member();
  bad.lease = Duration(0);
  EXPECT_EQ(code_of(provider.transport->subscribe(bad)), ErrorCode::kInvalidArgument);
  bad.group.clear();
  EXPECT_TRUE(provider.transport->subscribe(bad).ok()) << "an ephemeral subscriber needs no lease";
}

TEST_P(Waiting, ManyThreadsLoseAndDoubleNothing) {
  // Those of sqlite are synced.
  const std::uint64_t per_publisher = GetParam() == Driver::kMemory ? 20'000 : 2'000;
  constexpr int kThreads = 3;
  std::vector<std::unique_ptr<spi::Subscription>> members;
  for (int i = 0; i < kThreads; ++i)
    members.push_back(subscribe());
  std::vector<std::atomic<int>> seen(per_publisher * kThreads);
  std::atomic<std::uint64_t> handled{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (std::uint64_t n = 0; n < per_publisher; n += 100) {
        std::vector<spi::Envelope> batch(100);
        for (std::uint64_t k = 0; k < 100; ++k) {
          batch[k].id = make_id(static_cast<std::uint64_t>(i) * per_publisher + n + k);
          batch[k].topic = "t";
        }
        ASSERT_TRUE(provider.transport->publish(batch, clock->monotonic() + 1h).ok());
      }
    });
    threads.emplace_back([&, i] {
      spi::ReceiveRequest request;
      request.count_max = 64;
      request.deadline = MonotonicTime::max();
      std::vector<spi::Settlement> settlements;
      while (handled.load() < seen.size()) {
        request.settlements = settlements;
        const spi::Received received = members[static_cast<std::size_t>(i)]->receive(request).value();
        ASSERT_TRUE(received.lost.empty());
        settlements.clear();
        for (const spi::Delivery& delivery : received.deliveries) {
          // One of seven goes back once.
          const bool back = !delivery.redelivered && number_of(delivery.envelope->id) % 7 == 0;
          settlements.push_back({delivery.token, back ? spi::Verb::kRelease : spi::Verb::kAck});
          if (back) continue;
          ++seen[number_of(delivery.envelope->id)];
          if (handled.fetch_add(1) + 1 == seen.size()) {
            for (auto& member : members)
              member->wake();
          }
        }
      }
      request.settlements = settlements;
      request.count_max = 0;
      ASSERT_TRUE(members[static_cast<std::size_t>(i)]->receive(request).value().lost.empty());
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  for (const auto& times : seen)
    ASSERT_EQ(times.load(), 1);
  EXPECT_EQ(provider.transport->statistics().value().at(0).in_flight, 0U);
  EXPECT_EQ(provider.transport->statistics().value().at(0).waiting, 0U);
}

TOWLINE_OVER_DRIVERS(Waiting);

}  // namespace
}  // namespace towline::drivers::testing
