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
  /// What one work has of the thread that runs it.
  class Turn {
   public:
    /// What is left of the work takes no time: the thread counts as free. Said before the work's answer is
    /// told, or whoever asks again on having it finds no thread free, and a second one is made for a caller
    /// who never asks for two things at once. Once.
    void over();

   private:
    friend class Callers;
    explicit Turn(Callers& callers) : callers_(callers) {}
    Callers& callers_;
    bool is_over_ = false;
  };
  using Work = std::function<void(Turn&)>;

  Callers(std::size_t thread_count_max, std::size_t waiting_max)
      : thread_count_max_(thread_count_max), waiting_max_(waiting_max) {}
  /// shut().
  ~Callers();
  Callers(const Callers&) = delete;
  Callers& operator=(const Callers&) = delete;

  /// `urgent`: before what waits, and on a thread beyond the bound when all are busy. Errors: kOverloaded,
  /// kClosed; then it is not run.
  Result<void> run(Work work, bool urgent = false);
  /// Runs what waits, and ends the threads. Idempotent; not from one of them.
  void shut();

 private:
  void main();

  const std::size_t thread_count_max_;
  const std::size_t waiting_max_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> waiting_;
  std::vector<std::thread> threads_;
  std::size_t free_ = 0;
  bool shut_ = false;
};

}  // namespace towline::port
