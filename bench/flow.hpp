#pragma once
// Messages flowing through one engine: published in batches by the calling thread, handled at once by a
// consumer that only counts, until all of them are acknowledged. What most scenarios measure.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <towline/towline.hpp>

namespace towline::bench {

inline constexpr std::size_t kPayloadBytes = 256;
inline constexpr std::size_t kBatch = 1000;

/// The URL of an embedded store.
[[nodiscard]] std::string sqlite_url(const std::filesystem::path& file);
/// A payload of `bytes` bytes that begins with `number`.
[[nodiscard]] std::string payload_with(std::int64_t number, std::size_t bytes = kPayloadBytes);
/// The number at the begin of a payload.
[[nodiscard]] std::int64_t number_in(std::string_view payload);
/// Publishes and throws unless every message was acknowledged and new. Returns the receipts.
std::vector<Receipt> publish_all(Engine& engine, std::vector<Message> messages);

enum class Handling : std::uint8_t {
  kWhole,      ///< one call for up to 1,000 messages
  kEach,       ///< one call per message, up to 1,000 prefetched
  kEachPlain,  ///< one call per message, with the default options: none prefetched
};

struct FlowRate {
  double per_second = 0;
  double cpu_us = 0;  ///< processor time of the whole process for each message
};

class Flow {
 public:
  struct Plan {
    std::string url = {};
    Handling handling = Handling::kWhole;
    bool dedup = false;  ///< each message has a dedup id of its own, in ascending order
    TopicType type = TopicType::kQueue;
    /// Messages that wait all the time; run() keeps it so. 0: as many as the publisher is ahead.
    std::size_t backlog = 0;
  };
  /// Opens the engine, fills the backlog and makes the consumer. Throws Exception when anything fails.
  explicit Flow(Plan plan);
  ~Flow();
  Flow(const Flow&) = delete;
  Flow& operator=(const Flow&) = delete;

  /// Publishes `count` messages and waits until that many more are acknowledged. Returns the messages per
  /// second, from before the first publish to after the last acknowledgement is durable.
  FlowRate run(std::size_t count);
  void close();

 private:
  void publish(std::size_t count);
  void consume();
  void on_handled(std::size_t count);
  void hold_back(std::size_t count) const;

  Plan plan_;
  Engine engine_;
  Consumer consumer_;
  std::atomic<std::uint64_t> published_{0};
  std::atomic<std::uint64_t> handled_{0};
  /// How far the handlers may be ahead of the publisher when a backlog is kept.
  std::atomic<std::uint64_t> slack_{2 * kBatch};
  std::atomic<bool> closing_{false};
};

/// A new flow, one run, and its end.
[[nodiscard]] FlowRate run_flow(Flow::Plan plan, std::size_t count);

}  // namespace towline::bench
