#pragma once
// What the experiments share: their size, a scratch folder, the figures they print, the crew of child
// processes, and why an experiment is passed over.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <towline/towline.hpp>

#include "faults/judge.hpp"
#include "faults/notes.hpp"
#include "faults/sqlite_probe.hpp"
#include "support/child_process.hpp"
#include "support/eventually.hpp"
#include "support/temp_dir.hpp"

namespace towline::faults {

using support::ChildProcess;
using support::eventually;
using support::Stopwatch;
using namespace std::chrono_literals;

/// TOWLINE_FULL=1 in the environment: the whole experiment. Else one that finishes in seconds.
[[nodiscard]] bool is_full();
template <typename T>
[[nodiscard]] T sized(T small, T full) {
  return is_full() ? full : small;
}
/// The seed of all that is drawn: TOWLINE_SEED, or a fixed one.
[[nodiscard]] std::uint64_t seed();

/// Why capabilities.txt passes over the experiment "FLT-12" or a part of it, "FLT-12.tmpfs"; nullopt: it is
/// to be run. TOWLINE_ALL=1 in the environment: everything is.
[[nodiscard]] std::optional<std::string> skip_reason(const std::string& id);

#define TOWLINE_EXPERIMENT(id)                                                                   \
  do {                                                                                           \
    if (const auto reason = ::towline::faults::skip_reason(id); reason) GTEST_SKIP() << *reason; \
  } while (false)

class Experiment : public ::testing::Test {
 protected:
  void SetUp() override;
  [[nodiscard]] std::string url() const { return "sqlite:" + database(); }
  [[nodiscard]] std::string database() const { return stores_.file("store.db"); }
  [[nodiscard]] std::string stores() const { return stores_.path().string(); }
  [[nodiscard]] std::string ledgers() const { return ledgers_.path().string(); }
  [[nodiscard]] History& history() { return history_; }
  [[nodiscard]] Notebook& notes() { return *notes_; }
  [[nodiscard]] std::mt19937_64& random() { return random_; }
  /// A number from 0 to `below` - 1.
  [[nodiscard]] std::uint64_t draw(std::uint64_t below) { return random_() % below; }

  /// An engine of the test's own, without consumers.
  [[nodiscard]] Engine open(Duration lease = 1s);
  /// Starts fault_child and waits until it is ready.
  [[nodiscard]] ChildProcess start(const std::string& mode, const std::string& name,
                                   const std::vector<std::string>& options);
  /// SIGKILL, noted with a time that is surely not after the death.
  void kill(ChildProcess& child, const std::string& name);
  /// One line of JSON: the experiment, its size, seed, and `figures` ("\"a\":1,..."), and the seconds it
  /// took.
  void print(const std::string& id, const std::string& figures);
  /// Fails the test with the findings unless nothing was found.
  static void expect_clean(const Judgement& judgement);

 private:
  support::TempDir stores_;
  support::TempDir ledgers_;
  History history_{ledgers_.path().string()};
  std::optional<Notebook> notes_;
  std::mt19937_64 random_{seed()};
  Stopwatch watch_;
};

/// Children of one kind that are started again whenever they end.
class Crew {
 public:
  using Start = std::function<ChildProcess(const std::string& name)>;
  Crew(std::size_t count, std::string name, Start start);
  [[nodiscard]] std::size_t size() const noexcept { return seats_.size(); }
  [[nodiscard]] std::string name_of(std::size_t seat) const;
  [[nodiscard]] ChildProcess& child_of(std::size_t seat) { return seats_[seat].child; }
  /// The next life.
  void start_again(std::size_t seat);
  /// SIGTERM, and a clean end of each.
  void stop();

 private:
  struct Seat {
    ChildProcess child;
    std::size_t life = 0;
  };
  const std::string name_;
  const Start start_;
  std::vector<Seat> seats_;
};

/// What the store holds, by the engine's listings: for the end of a run.
struct Held {
  std::uint64_t waiting = 0, in_flight = 0, scheduled = 0, parked = 0;
  std::vector<DeadLetter> dead_letters;  ///< of every status
  [[nodiscard]] bool is_idle() const noexcept { return waiting + in_flight + scheduled + parked == 0; }
  [[nodiscard]] std::string to_string() const;
};
[[nodiscard]] Held held_by(Engine& engine);
/// Waits until nothing waits any more; false when it did not come to that.
[[nodiscard]] bool drained(Engine& engine, Duration within);

}  // namespace towline::faults
