// Who leads, who waits, and that nobody's op is run twice, forgotten, or run on another thread when it must
// not be.

#include "drivers/sqlite/writer.hpp"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace towline::drivers::sqlite {
namespace {

class CountedOp final : public Op {
 public:
  explicit CountedOp(bool is_alone = false) : Op({}) { alone = is_alone; }
  void apply(Tx&) override {}
  int runs = 0;
  std::thread::id ran_on;
};

void run_all(Writer::Batch& batch) {
  for (Op* op : batch) {
    auto& counted = static_cast<CountedOp&>(*op);
    ++counted.runs;
    counted.ran_on = std::this_thread::get_id();
  }
}

TEST(SqliteWriter, OfManyThreadsEachOpIsRunOnce) {
  std::atomic<int> leaders{0}, empty{0}, most{0};
  Writer writer({100, 1 << 20}, [&](Writer::Batch& batch, const Op&) {
    EXPECT_EQ(++leaders, 1) << "two lead at once";
    if (batch.empty()) ++empty;
    most = std::max(most.load(), static_cast<int>(batch.size()));
    run_all(batch);
    --leaders;
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5'000; ++i) {
        CountedOp op(t == 0 && i % 7 == 0);
        writer.submit(op);
        ASSERT_EQ(op.runs, 1);
        ASSERT_TRUE(!op.alone || op.ran_on == std::this_thread::get_id());
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_EQ(empty, 0) << "somebody led without having anything to write";
}

TEST(SqliteWriter, ABatchKeepsItsBoundsAndTheOneThatIsTooLargeGoesByItself) {
  std::vector<std::size_t> counts;
  Writer writer({10, 1'000}, [&](Writer::Batch& batch, const Op&) {
    std::size_t count = 0;
    for (const Op* op : batch)
      count += op->count;
    counts.push_back(count);
    run_all(batch);
  });
  CountedOp large;
  large.count = 50;
  writer.submit(large);
  CountedOp small;
  writer.submit(small);
  EXPECT_EQ(counts, (std::vector<std::size_t>{50, 1}));
}

TEST(SqliteWriter, WhatIsPutBackIsRunByWhoeverLeadsNext) {
  std::atomic<int> refused{0};
  Writer* self = nullptr;
  Writer writer({100, 1 << 20}, [&](Writer::Batch& batch, const Op& own) {
    // Every third batch: the leader's own is given up, the others go on waiting.
    if (++refused % 3 == 0) {
      Writer::Batch others;
      for (Op* op : batch) {
        if (op != &own) others.push_back(op);
      }
      std::erase_if(batch, [&](const Op* op) { return op != &own; });
      self->put_back(others);
    }
    run_all(batch);
  });
  self = &writer;
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 3'000; ++i) {
        CountedOp op;
        writer.submit(op);
        ASSERT_EQ(op.runs, 1);
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
}

TEST(SqliteWriter, WhatWaitsBehindALockedStoreIsGivenUpWhenItsPatienceEnds) {
  std::atomic<bool> leading{false}, behind{false};
  Writer* self = nullptr;
  Writer writer({100, 1 << 20}, [&](Writer::Batch& batch, const Op&) {
    if (!leading.exchange(true)) {
      const Error error{ErrorCode::kTimeout, "locked"};
      while (!behind)
        self->give_up_queued(std::chrono::steady_clock::now(), error);
    }
    run_all(batch);
  });
  self = &writer;
  CountedOp first;
  std::thread leader([&] { writer.submit(first); });
  while (!leading)
    std::this_thread::yield();
  CountedOp second;
  second.patience = std::chrono::milliseconds(1);
  writer.submit(second);
  behind = true;
  leader.join();
  EXPECT_EQ(first.runs, 1);
  EXPECT_EQ(second.runs, 0);
  ASSERT_TRUE(second.error.has_value());
  EXPECT_EQ(second.error->code, ErrorCode::kTimeout);
}

TEST(SqliteWriter, WhatWaitsBehindAWriteThatDoesNotEndIsGivenUpWhenItsPatienceEnds) {
  std::atomic<bool> leading{false}, may_end{false};
  Writer writer({100, 1 << 20}, [&](Writer::Batch& batch, const Op&) {
    if (!leading.exchange(true)) may_end.wait(false);
    run_all(batch);
  });
  CountedOp first(true);
  std::thread leader([&] { writer.submit(first); });
  while (!leading)
    std::this_thread::yield();
  CountedOp patient;
  std::thread waits([&] { writer.submit(patient); });
  CountedOp second;
  second.patience = std::chrono::milliseconds(1);
  writer.submit(second);
  EXPECT_EQ(second.runs, 0);
  ASSERT_TRUE(second.error.has_value());
  EXPECT_EQ(second.error->code, ErrorCode::kTimeout);
  may_end = true;
  may_end.notify_all();
  leader.join();
  waits.join();
  EXPECT_EQ(first.runs, 1);
  EXPECT_EQ(patient.runs, 1);
}

TEST(SqliteWriter, AnOpIsGivenUpByItselfOrByTheLeaderAndNotByBoth) {
  Writer* self = nullptr;
  const Error error{ErrorCode::kTimeout, "locked"};
  Writer writer({100, 1 << 20}, [&](Writer::Batch& batch, const Op&) {
    for (int i = 0; i < 20; ++i)
      self->give_up_queued(std::chrono::steady_clock::now(), error);
    run_all(batch);
  });
  self = &writer;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5'000; ++i) {
        // On the heap, and overwritten at once: whoever comes too late to it is seen.
        auto op = std::make_unique<CountedOp>();
        op->patience = std::chrono::microseconds(i % 50);
        writer.submit(*op);
        ASSERT_EQ(op->runs, op->error ? 0 : 1);
        op->error.reset();
        std::this_thread::yield();
        ASSERT_FALSE(op->error.has_value()) << "it was ended twice";
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
}

TEST(SqliteWriter, OfThreadsThatLosePatienceEachOpIsRunOnceOrGivenUp) {
  std::atomic<int> runs{0};
  Writer writer({3, 1 << 20}, [&](Writer::Batch& batch, const Op&) {
    // sleeps: the disk is slow
    if (++runs % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    run_all(batch);
  });
  std::atomic<int> given_up{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2'000; ++i) {
        CountedOp op(t == 0);
        op.patience = std::chrono::microseconds(i % 300);
        writer.submit(op);
        ASSERT_EQ(op.runs, op.error ? 0 : 1);
        if (op.error) ++given_up;
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_GT(given_up, 0);
}

}  // namespace
}  // namespace towline::drivers::sqlite
