#pragma once
// SagaWorkers: the threads that run the functions of a saga's steps in this process.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include <towline/saga.hpp>

#include "engine/saga_runner.hpp"

namespace towline::engine {

/// Any thread.
class SagaWorkers : public std::enable_shared_from_this<SagaWorkers> {
 public:
  SagaWorkers(Saga saga, std::shared_ptr<const Context> context)
      : saga_(std::move(saga)), context_(std::move(context)) {}
  ~SagaWorkers();
  SagaWorkers(const SagaWorkers&) = delete;
  SagaWorkers& operator=(const SagaWorkers&) = delete;

  void start();
  void run(std::span<SagaCall> calls);
  /// Runs one call that waits, in this thread; false: there is none. For stepping by hand.
  bool run_one();
  /// Begins nothing more and waits for what runs until then (real time). Returns how many have not returned:
  /// their threads are left alone.
  std::uint64_t stop(MonotonicTime deadline);
  /// Whether the calling thread runs a step of this saga.
  [[nodiscard]] bool is_inside() const noexcept;

 private:
  void main();
  void call(SagaCall& call) const;

  const Saga saga_;
  const std::shared_ptr<const Context> context_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<SagaCall> waiting_;
  std::vector<std::thread> threads_;
  std::uint64_t living_ = 0, running_ = 0;  ///< threads; calls
  bool stopping_ = false;
};

/// Whether the calling thread runs a step of a saga of that engine.
[[nodiscard]] bool is_in_saga_of(const Context& context) noexcept;

}  // namespace towline::engine
