// A thread is made only when there is more work waiting than threads that are about to take it.

#include "port/callers.hpp"

#include <string>
#include <system_error>
#include <utility>

namespace towline::port {

Callers::~Callers() { shut(); }

Result<void> Callers::run(Work work, bool urgent) {
  {
    const std::lock_guard lock(mutex_);
    if (shut_) return Error{ErrorCode::kClosed, "the engine is closed"};
    if (waiting_.size() >= waiting_max_ && !urgent) {
      return Error{ErrorCode::kOverloaded, std::to_string(waiting_.size()) +
                                               " requests wait already; wait for some of their answers"};
    }
    if (urgent) {
      waiting_.push_front(std::move(work));
    } else {
      waiting_.push_back(std::move(work));
    }
    if (waiting_.size() > free_ && (urgent || threads_.size() < thread_count_max_)) {
      try {
        threads_.emplace_back([this] { main(); });
      } catch (const std::system_error& error) {
        // Those that are there take it in turn.
        if (threads_.empty()) {
          waiting_.clear();
          return Error{ErrorCode::kOverloaded, std::string("no thread can be made: ") + error.what()};
        }
      }
    }
  }
  changed_.notify_one();
  return {};
}

void Callers::Turn::over() {
  const std::lock_guard lock(callers_.mutex_);
  ++callers_.free_;
  is_over_ = true;
}

void Callers::main() {
  std::unique_lock lock(mutex_);
  ++free_;
  for (;;) {
    changed_.wait(lock, [&] { return !waiting_.empty() || shut_; });
    --free_;
    if (waiting_.empty()) return;
    Work work = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    Turn turn(*this);
    work(turn);
    work = nullptr;  // what it holds goes without the lock
    lock.lock();
    if (!turn.is_over_) ++free_;
  }
}

void Callers::shut() {
  std::vector<std::thread> threads;
  {
    const std::lock_guard lock(mutex_);
    shut_ = true;
    threads.swap(threads_);
  }
  changed_.notify_all();
  for (std::thread& thread : threads)
    thread.join();
}

}  // namespace towline::port
