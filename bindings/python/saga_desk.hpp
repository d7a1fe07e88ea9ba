#pragma once
// Calls of sagas on their way to Python, in the order in which they came. Runners hold it by shared pointer:
// they may outlive the port by a moment.

#include <functional>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include <towline/consumer.hpp>
#include <towline/saga.hpp>

namespace towline::python {

class SagaDesk {
 public:
  /// Calls for the runner `number`; or none: what comes of the call `number` does not count any more.
  struct Item {
    std::uint64_t number = 0;
    std::vector<SagaCall> calls = {};
  };

  /// `ring` as that of a port.
  explicit SagaDesk(std::function<void()> ring) : ring_(std::move(ring)) {}

  [[nodiscard]] static SagaRemote remote(const std::shared_ptr<SagaDesk>& desk, std::uint64_t runner) {
    return {[desk, runner](std::span<SagaCall> calls) {
              desk->put({runner, std::vector<SagaCall>(calls.begin(), calls.end())});
            },
            [desk](const SagaCall& call) { desk->put({call.number()}); }};
  }

  [[nodiscard]] std::vector<Item> take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(items_, {});
  }

  /// From now on nothing rings, and what came or comes goes back. Idempotent.
  void shut() {
    std::vector<Item> left;
    {
      const std::lock_guard lock(mutex_);
      shut_ = true;
      left.swap(items_);
    }
    for (Item& item : left)
      give_back(item);
  }

 private:
  void put(Item item) {
    {
      const std::lock_guard lock(mutex_);
      if (!shut_) {
        items_.push_back(std::move(item));
        if (items_.size() == 1) ring_();  // inside: shut() then waits for it
        return;
      }
    }
    give_back(item);
  }

  static void give_back(Item& item) {
    for (SagaCall& call : item.calls)
      Sagas::finish(call, {Outcome::Kind::kRelease, std::nullopt, {}});
  }

  const std::function<void()> ring_;
  std::mutex mutex_;
  std::vector<Item> items_;
  bool shut_ = false;
};

}  // namespace towline::python
