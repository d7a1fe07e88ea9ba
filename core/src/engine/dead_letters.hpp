#pragma once
// Dead letters as something people operate: looking, sending back, discarding, and being told.

#include <memory>
#include <mutex>
#include <unordered_set>

#include <towline/dead_letter.hpp>
#include <towline/spi/store.hpp>

#include "engine/context.hpp"
#include "policy/sliding_window.hpp"

namespace towline::engine {

/// Any thread, except watch(), which the janitor calls.
class DeadLetters {
 public:
  explicit DeadLetters(std::shared_ptr<Context> context);

  [[nodiscard]] Result<Page<DeadLetter>> list(const DeadLetterQuery& query);
  [[nodiscard]] Result<std::optional<DeadLetter>> find(const MessageId& id);
  [[nodiscard]] Result<std::vector<DeadLetterGroup>> groups(const DeadLetterQuery& query);
  Result<void> redrive(const MessageId& id, const RedriveOptions& options);
  [[nodiscard]] Result<RedriveReport> redrive_all(const DeadLetterQuery& query,
                                                  const RedriveOptions& options);
  Result<void> discard(const MessageId& id);

  /// From now on watch() sends pending entries of the group back when they are old enough.
  void redrive_automatically(std::string group, const DeadLettersOptions& policy);
  /// Entries that a consumer of this engine has just stored: for alerts.
  void note(const DeadLetter& entry, const DeadLettersOptions& policy);
  /// One round of alerts and automatic redrives.
  void watch(MonotonicTime now);

 private:
  [[nodiscard]] Result<spi::Unit> redrive_unit(const DeadLetter& entry, const RedriveOptions& options,
                                               TimePoint now);
  Result<void> redrive_page(const std::vector<DeadLetter>& entries, const RedriveOptions& options,
                            RedriveReport& report);
  void pace(const RedriveOptions& options, std::uint64_t sent, MonotonicTime begin);
  void raise(Alert::Kind kind, bool on, std::uint64_t value, std::uint64_t limit,
             MonotonicTime now);
  void run_automatic();

  struct Automatic {
    std::string group;
    Duration after{};
    std::uint32_t redrive_max = 0;
    TimePoint seen_until{};  ///< entries created before this were looked at
  };
  struct Condition {
    bool on = false;
    std::optional<MonotonicTime> last;
  };
  const std::shared_ptr<Context> context_;
  std::mutex mutex_;
  std::vector<Automatic> automatic_;
  policy::SlidingWindow<1> recent_{std::chrono::minutes(1)};
  std::unordered_set<std::string> fingerprints_;
  std::vector<Alert> pending_alerts_;
  Condition conditions_[3];
};

}  // namespace towline::engine
