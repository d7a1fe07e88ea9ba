// Permits: the limit holds at every moment, the queue is first come, first served, and no permit is ever
// lost.

#include "policy/permits.hpp"

#include <algorithm>
#include <cstdint>
#include <list>
#include <map>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "base/assert.hpp"
#include "support/property.hpp"

namespace towline::policy {
namespace {

using Answer = PermitQueue::Answer;
using Tickets = std::vector<PermitQueue::Ticket>;

TEST(PermitQueue, GrantsUpToTheLimitAndQueuesTheRest) {
  PermitQueue queue(2, 10);
  EXPECT_EQ(queue.acquire().answer, Answer::kGranted);
  EXPECT_EQ(queue.acquire().answer, Answer::kGranted);
  EXPECT_EQ(queue.acquire().answer, Answer::kQueued);
  EXPECT_EQ(queue.in_use(), 2u);
  EXPECT_EQ(queue.waiting_count(), 1u);
  EXPECT_EQ(queue.available(), 0u);
}

TEST(PermitQueue, HandsAReleasedPermitToTheOneWhoWaitedLongest) {
  PermitQueue queue(1, 10);
  ASSERT_EQ(queue.acquire().answer, Answer::kGranted);
  const auto first = queue.acquire();
  const auto second = queue.acquire();
  EXPECT_EQ(queue.release().granted, Tickets{first.ticket});
  EXPECT_EQ(queue.in_use(), 1u);  // handed over, not freed
  EXPECT_EQ(queue.release().granted, Tickets{second.ticket});
  EXPECT_EQ(queue.release().granted, Tickets{});
  EXPECT_EQ(queue.in_use(), 0u);
}

TEST(PermitQueue, LetsNobodySlipInBetweenReleaseAndHandOver) {
  // Where a release frees the permit and the waiter takes it later, a newcomer in between makes it two at
  // once.
  PermitQueue queue(1, 10);
  ASSERT_EQ(queue.acquire().answer, Answer::kGranted);
  ASSERT_EQ(queue.acquire().answer, Answer::kQueued);
  ASSERT_EQ(queue.release().granted.size(), 1u);
  EXPECT_FALSE(queue.try_acquire());
  EXPECT_EQ(queue.acquire().answer, Answer::kQueued);
  EXPECT_EQ(queue.in_use_max(), 1u);
}

TEST(PermitQueue, RefusesWhenTheQueueIsFull) {
  PermitQueue queue(1, 2);
  ASSERT_EQ(queue.acquire().answer, Answer::kGranted);
  ASSERT_EQ(queue.acquire().answer, Answer::kQueued);
  ASSERT_EQ(queue.acquire().answer, Answer::kQueued);
  EXPECT_EQ(queue.acquire().answer, Answer::kQueueFull);
  EXPECT_EQ(queue.refused_count(), 1u);
  PermitQueue without_queue(1, 0);
  ASSERT_EQ(without_queue.acquire().answer, Answer::kGranted);
  EXPECT_EQ(without_queue.acquire().answer, Answer::kQueueFull);
}

TEST(PermitQueue, RefusesWeightsThatCanNeverBeGranted) {
  PermitQueue queue(5, 10);
  EXPECT_EQ(queue.acquire(0).answer, Answer::kInvalidWeight);
  EXPECT_EQ(queue.acquire(6).answer, Answer::kInvalidWeight);
  EXPECT_FALSE(queue.try_acquire(0));
  EXPECT_FALSE(queue.try_acquire(6));
  EXPECT_EQ(queue.acquire(5).answer, Answer::kGranted);
}

TEST(PermitQueue, MakesLightWaitersWaitForAHeavyHead) {
  PermitQueue queue(4, 10);
  ASSERT_EQ(queue.acquire(3).answer, Answer::kGranted);
  const auto heavy = queue.acquire(4);
  const auto light = queue.acquire(1);
  EXPECT_EQ(light.answer, Answer::kQueued);  // there is room for it, but the heavy one came first
  EXPECT_FALSE(queue.try_acquire(1));
  EXPECT_EQ(queue.available(), 0u);
  EXPECT_EQ(queue.release(3).granted, Tickets{heavy.ticket});
  EXPECT_EQ(queue.release(4).granted, Tickets{light.ticket});
}

TEST(PermitQueue, PassesOnWhatAHeadHeldBackWhenItGivesUp) {
  PermitQueue queue(4, 10);
  ASSERT_EQ(queue.acquire(3).answer, Answer::kGranted);
  const auto heavy = queue.acquire(4);
  const auto light = queue.acquire(1);
  const auto cancelled = queue.cancel(heavy.ticket);
  EXPECT_TRUE(cancelled.cancelled);
  EXPECT_EQ(cancelled.changes.granted, Tickets{light.ticket});
}

TEST(PermitQueue, SaysThatAGrantedTicketWasNotCancelled) {
  PermitQueue queue(1, 10);
  ASSERT_EQ(queue.acquire().answer, Answer::kGranted);
  const auto waiter = queue.acquire();
  ASSERT_EQ(queue.release().granted, Tickets{waiter.ticket});
  EXPECT_FALSE(queue.cancel(waiter.ticket).cancelled);  // it holds the permit now, and must release it
  EXPECT_EQ(queue.in_use(), 1u);
  EXPECT_FALSE(queue.cancel(12345).cancelled);
}

TEST(PermitQueue, GrantsMoreAtOnceWhenTheLimitGrows) {
  PermitQueue queue(1, 10);
  ASSERT_EQ(queue.acquire().answer, Answer::kGranted);
  const auto a = queue.acquire(), b = queue.acquire(), c = queue.acquire();
  EXPECT_EQ(queue.set_limit(3).granted, (Tickets{a.ticket, b.ticket}));
  EXPECT_EQ(queue.set_limit(4).granted, Tickets{c.ticket});
}

TEST(PermitQueue, StopsNobodyWhenTheLimitShrinksAndGrantsNothingUntilEnoughCameBack) {
  PermitQueue queue(3, 10);
  for (int i = 0; i < 3; ++i)
    ASSERT_EQ(queue.acquire().answer, Answer::kGranted);
  EXPECT_TRUE(queue.set_limit(1).granted.empty());
  EXPECT_EQ(queue.in_use(), 3u);
  EXPECT_FALSE(queue.try_acquire());
  const auto waiter = queue.acquire();
  EXPECT_TRUE(queue.release().granted.empty());
  EXPECT_TRUE(queue.release().granted.empty());
  EXPECT_EQ(queue.release().granted, Tickets{waiter.ticket});
}

TEST(PermitQueue, EvictsWaitersThatAShrunkLimitCanNeverServe) {
  PermitQueue queue(4, 10);
  ASSERT_EQ(queue.acquire(4).answer, Answer::kGranted);
  const auto heavy = queue.acquire(4);
  const auto light = queue.acquire(1);
  const auto changes = queue.set_limit(2);
  EXPECT_EQ(changes.evicted, Tickets{heavy.ticket});
  EXPECT_TRUE(changes.granted.empty());
  EXPECT_EQ(queue.release(4).granted, Tickets{light.ticket});
}

TEST(PermitQueue, SurvivesAReleaseTooManyAndReportsIt) {
  static int reported = 0;
  reported = 0;
  base::set_assertion_handler([](const base::AssertionFailure&) noexcept { ++reported; });
  PermitQueue queue(2, 10);
  ASSERT_EQ(queue.acquire().answer, Answer::kGranted);
  (void)queue.release(5);
  base::set_assertion_handler(nullptr);
  EXPECT_EQ(reported, 1);
  EXPECT_EQ(queue.in_use(), 0u);
  EXPECT_EQ(queue.available(), 2u);
}

// ---- random sequences against a model -------------------------------------------------------------------

// What the outside world knows: who holds what, and who waits in which order.
struct Model {
  std::uint64_t limit = 0;
  std::list<std::uint64_t> held;  // weights
  std::list<std::pair<PermitQueue::Ticket, std::uint64_t>> waiting;

  [[nodiscard]] std::uint64_t in_use() const {
    std::uint64_t sum = 0;
    for (const std::uint64_t weight : held)
      sum += weight;
    return sum;
  }

  // Granted tickets must be exactly the heads that fit, in order.
  void apply(const PermitQueue::Changes& changes) {
    for (const auto ticket : changes.evicted) {
      const auto found =
          std::find_if(waiting.begin(), waiting.end(), [&](const auto& w) { return w.first == ticket; });
      RC_ASSERT(found != waiting.end());
      RC_ASSERT(found->second > limit);
      waiting.erase(found);
    }
    for (const auto ticket : changes.granted) {
      RC_ASSERT(!waiting.empty());
      RC_ASSERT(waiting.front().first == ticket);
      RC_ASSERT(in_use() + waiting.front().second <= limit);
      held.push_back(waiting.front().second);
      waiting.pop_front();
    }
    if (!waiting.empty()) RC_ASSERT(in_use() + waiting.front().second > limit);
  }
};

// The queue and the model, driven side by side.
class Pair {
 public:
  void step(std::uint8_t action, std::uint8_t argument) {
    const std::uint64_t weight = 1 + argument % 4;
    switch (action % 6) {
      case 0:
      case 1:
        acquire(weight);
        break;
      case 2:
        release_oldest();
        break;
      case 3:
        cancel(argument);
        break;
      case 4:
        set_limit(argument % 8);
        break;
      default:
        try_acquire(weight);
    }
    RC_ASSERT(queue_.in_use() == model_.in_use());
    RC_ASSERT(queue_.waiting_count() == model_.waiting.size());
  }

  // Everything comes back: nothing may be left in use or waiting for ever.
  void finish() {
    set_limit(10);
    while (!model_.held.empty())
      release_oldest();
    RC_ASSERT(queue_.in_use() == 0u);
    RC_ASSERT(queue_.waiting_count() == 0u);
    RC_ASSERT(queue_.available() == 10u);
  }

  [[nodiscard]] std::uint64_t granted_after_waiting() const { return granted_after_waiting_; }

 private:
  [[nodiscard]] bool fits_at_once(std::uint64_t weight) const {
    return model_.waiting.empty() && model_.in_use() + weight <= model_.limit;
  }

  void acquire(std::uint64_t weight) {
    const bool at_once = fits_at_once(weight);
    const auto acquired = queue_.acquire(weight);
    if (weight > model_.limit) {
      RC_ASSERT(acquired.answer == Answer::kInvalidWeight);
    } else if (at_once) {
      RC_ASSERT(acquired.answer == Answer::kGranted);
      model_.held.push_back(weight);
    } else if (model_.waiting.size() >= 4) {
      RC_ASSERT(acquired.answer == Answer::kQueueFull);
    } else {
      RC_ASSERT(acquired.answer == Answer::kQueued);
      model_.waiting.emplace_back(acquired.ticket, weight);
    }
  }

  void try_acquire(std::uint64_t weight) {
    const bool at_once = fits_at_once(weight);
    RC_ASSERT(queue_.try_acquire(weight) == at_once);
    if (at_once) model_.held.push_back(weight);
  }

  void release_oldest() {
    if (model_.held.empty()) return;
    const std::uint64_t weight = model_.held.front();
    model_.held.pop_front();
    const auto changes = queue_.release(weight);
    granted_after_waiting_ += changes.granted.size();
    model_.apply(changes);
  }

  void cancel(std::uint8_t choice) {
    if (model_.waiting.empty()) return;
    auto chosen = model_.waiting.begin();
    std::advance(chosen, choice % model_.waiting.size());
    const auto ticket = chosen->first;
    model_.waiting.erase(chosen);
    const auto answer = queue_.cancel(ticket);
    RC_ASSERT(answer.cancelled);
    model_.apply(answer.changes);
  }

  void set_limit(std::uint64_t limit) {
    model_.limit = limit;
    model_.apply(queue_.set_limit(limit));
  }

  PermitQueue queue_{5, 4};
  Model model_{5, {}, {}};
  std::uint64_t granted_after_waiting_ = 0;
};

TEST(PermitQueue, EqualsTheModelForRandomSequences) {
  std::uint64_t granted_after_waiting = 0;
  support::for_all(
      [&](const std::vector<std::pair<std::uint8_t, std::uint8_t>>& steps) {
        Pair pair;
        for (const auto& [action, argument] : steps)
          pair.step(action, argument);
        pair.finish();
        granted_after_waiting += pair.granted_after_waiting();
      },
      2000, 200);
  EXPECT_GT(granted_after_waiting, 1000u);
}

}  // namespace
}  // namespace towline::policy
