#pragma once
// What waits for the binding, and the deliveries that are out. Consumers hold it by shared pointer: they may
// outlive the port by a moment.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include <towline/port.hpp>

namespace towline::port {

class Mailbox {
 public:
  Mailbox(std::function<void()> ring, std::size_t log_count_max)
      : ring_(std::move(ring)), log_count_max_(log_count_max) {}

  void put(Event event);
  void put_log(const LogRecord& record);
  /// `is_batch`: they belong together.
  void deliver(std::uint64_t consumer_id, std::span<Delivery> deliveries, bool is_batch = false);
  void stop(const Delivery& delivery);
  /// Takes them from those that are out.
  [[nodiscard]] std::vector<Finished> take(std::span<Port::Finish> finished);

  [[nodiscard]] std::vector<Event> drain(std::size_t count_max);
  bool poll(Duration timeout);
  [[nodiscard]] std::size_t open_count() const;
  /// From now on nothing is put in, and nothing rings. What is in it may still be drained.
  void shut();

 private:
  /// Rings when `was_empty`.
  void leave(std::unique_lock<std::mutex>& lock, bool was_empty);

  const std::function<void()> ring_;
  const std::size_t log_count_max_;
  mutable std::mutex mutex_;
  std::mutex ringing_;  ///< held while it rings, so that shut() can wait for that
  std::condition_variable filled_;
  std::deque<Event> events_;
  std::unordered_map<std::uint64_t, Delivery> out_;
  std::size_t log_count_ = 0;
  std::uint64_t logs_dropped_ = 0;
  bool shut_ = false;
};

}  // namespace towline::port
