#pragma once
// Publishes of many callers, made on one thread: what came while the disk was busy goes down together, so a
// thousand callers that wait share one commit and need no thread each.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include <towline/engine.hpp>

namespace towline::port {

class PublishLane {
 public:
  /// Told, once per request, of its receipts in order, or of why none of it was even tried.
  using Answer = std::function<void(std::uint64_t id, Result<std::vector<Receipt>> receipts)>;

  PublishLane(Engine engine, std::size_t batch_count_max, std::size_t waiting_max, Answer answer);
  /// shut().
  ~PublishLane();
  PublishLane(const PublishLane&) = delete;
  PublishLane& operator=(const PublishLane&) = delete;

  /// Errors come as an answer: kOverloaded, kClosed, kBatchTooLarge.
  void publish(std::uint64_t id, std::vector<Message> messages);
  /// Publishes what waits, and ends the thread. Idempotent.
  void shut();

 private:
  struct Request {
    std::uint64_t id = 0;
    std::vector<Message> messages;
  };
  void main();
  void run(std::vector<Request> batch);

  Engine engine_;
  const std::size_t batch_count_max_;
  const std::size_t waiting_max_;
  const Answer answer_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Request> waiting_;
  std::size_t waiting_count_ = 0;  ///< messages
  bool shut_ = false;
  std::thread thread_;
};

}  // namespace towline::port
