// SagaWorkers. A thread keeps the pool alive, so that one whose call never returns can be left alone.

#include "engine/saga_workers.hpp"

#include <utility>

#include <cxxabi.h>

#include <towline/clock.hpp>

#include "engine/thrown.hpp"

namespace towline::engine {
namespace {

constexpr Duration kJoinGrace = std::chrono::seconds(1);

thread_local const SagaWorkers* t_workers = nullptr;
thread_local const Context* t_context = nullptr;

}  // namespace

bool is_in_saga_of(const Context& context) noexcept { return t_context == &context; }

SagaWorkers::~SagaWorkers() {
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.detach();  // the last one to go is one of them
  }
}

void SagaWorkers::start() {
  const std::lock_guard lock(mutex_);
  const auto count = static_cast<std::uint64_t>(saga_.definition().options.concurrency);
  for (; living_ < count; ++living_)
    threads_.emplace_back([self = shared_from_this()] { self->main(); });
}

bool SagaWorkers::is_inside() const noexcept { return t_workers == this; }

void SagaWorkers::run(std::span<SagaCall> calls) {
  {
    const std::lock_guard lock(mutex_);
    for (SagaCall& call : calls)
      waiting_.push_back(std::move(call));
  }
  // One thread each: waking all of them costs more than the calls.
  for (std::size_t i = 0; i < calls.size(); ++i)
    changed_.notify_one();
}

bool SagaWorkers::run_one() {
  SagaCall next;
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.empty()) return false;
    next = std::move(waiting_.front());
    waiting_.pop_front();
  }
  call(next);
  return true;
}

void SagaWorkers::main() {
  t_workers = this;
  t_context = context_.get();
  for (;;) {
    SagaCall next;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
      if (stopping_) break;
      next = std::move(waiting_.front());
      waiting_.pop_front();
      ++running_;
    }
    call(next);
    next = {};
    const std::lock_guard lock(mutex_);
    --running_;
    if (stopping_) changed_.notify_all();
  }
  const std::lock_guard lock(mutex_);
  --living_;
  changed_.notify_all();
}

void SagaWorkers::call(SagaCall& call) const {
  if (call.stop_token().stop_requested()) return;  // it does not count any more
  SagaRunner::begin(call);
  Outcome outcome;
  try {
    (*saga_.handler(call.step(), call.phase()))(call);
  } catch (abi::__forced_unwind&) {
    throw;  // the thread is being cancelled: not ours to stop
  } catch (...) {
    outcome = outcome_of_thrown();
  }
  SagaRunner::finish(call, std::move(outcome));
}

std::uint64_t SagaWorkers::stop(MonotonicTime deadline) {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  waiting_.clear();
  changed_.notify_all();
  const auto clock = system_clock();  // a virtual one may stand still for ever
  while (living_ > 0 && clock->monotonic() < deadline)
    clock->wait_until(lock, changed_, deadline);
  // Those that run nothing are on their way out.
  const MonotonicTime grace = clock->monotonic() + kJoinGrace;
  while (living_ > running_ && clock->monotonic() < grace)
    clock->wait_until(lock, changed_, grace);
  const std::uint64_t stuck = running_;
  const bool all_gone = living_ == 0;
  auto threads = std::exchange(threads_, {});
  lock.unlock();
  for (std::thread& thread : threads)
    all_gone ? thread.join() : thread.detach();
  return stuck;
}

}  // namespace towline::engine
