#pragma once
// Threads for work that blocks. They are made when work waits and none is free, up to a bound; more work
// waits in turn.

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include <towline/result.hpp>

namespace towline::port {

class Callers {
 public:
  Callers(std::size_t thread_count_max, std::size_t waiting_max)
      : thread_count_max_(thread_count_max), waiting_max_(waiting_max) {}
  /// shut().
  ~Callers();
  Callers(const Callers&) = delete;
  Callers& operator=(const Callers&) = delete;

  /// `urgent`: before what waits, and on a thread beyond the bound when all are busy. Errors: kOverloaded,
  /// kClosed; then it is not run.
  Result<void> run(std::function<void()> work, bool urgent = false);
  /// Runs what waits, and ends the threads. Idempotent; not from one of them.
  void shut();

 private:
  void main();

  const std::size_t thread_count_max_;
  const std::size_t waiting_max_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> waiting_;
  std::vector<std::thread> threads_;
  std::size_t idle_ = 0;
  bool shut_ = false;
};

}  // namespace towline::port
