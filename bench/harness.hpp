#pragma once
// What every scenario is measured with: rounds in which the engine and what it is compared to take turns, and
// figures that are kept and printed in one way.
//
// The order that matters: a round runs each side once, one after the other, so that whatever else the machine
// does falls on all of them; only when all rounds are over are medians taken and ratios printed. Every single
// sample is written to a JSON Lines file at once, with the load that other programs made while it was taken,
// so a figure can be doubted and looked up afterwards. Not thread-safe: scenarios take samples on one thread.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace towline::bench {

using Steady = std::chrono::steady_clock;

[[nodiscard]] inline double seconds_since(Steady::time_point start) {
  return std::chrono::duration<double>(Steady::now() - start).count();
}

/// The least value that at least a share `q` of all does not exceed; 0 when there are none. Sorts `values`.
[[nodiscard]] double quantile(std::vector<double>& values, double q);

/// What the command line asked for.
struct Settings {
  bool quick = false;    ///< everything small and one round: shows that it runs, measures nothing
  bool busy_ok = false;  ///< start although other programs use the machine
  bool strict = false;   ///< exit with an error when a bar is not met
  bool keep = false;     ///< leave the files of the stores behind
  int round_count = 5;
  double wait_quiet_s = 0;  ///< how long to wait for a quiet machine before each side of each round
  std::filesystem::path samples = "bench-samples.jsonl";
  std::filesystem::path folder = "bench-data";
};

/// What a figure holds for. Printed beside it, because a rate without them means nothing.
struct Conditions {
  std::string durability;  ///< "sqlite FULL", "memory, not durable"
  std::size_t payload_bytes = 0;
  std::size_t batch = 0;  ///< messages in one publish call; 0: does not apply
  std::string more = {};
};

/// One row of samples: one value for each round, or several.
struct Series {
  std::string name;
  std::string unit;
  Conditions conditions;
};

/// What a figure has to reach.
struct Bar {
  enum class Sense : std::uint8_t { kNone, kAtLeast, kAtMost } sense = Sense::kNone;
  double limit = 0;
};

[[nodiscard]] constexpr Bar at_least(double limit) { return {Bar::Sense::kAtLeast, limit}; }
[[nodiscard]] constexpr Bar at_most(double limit) { return {Bar::Sense::kAtMost, limit}; }
[[nodiscard]] constexpr Bar no_bar() { return {}; }

/// How busy the processors were, as shares of all of them, between two looks.
class Load {
 public:
  Load();
  struct Shares {
    double all = 0;     ///< busy for anybody
    double others = 0;  ///< busy for somebody else than this process and the children it has waited for
  };
  /// Since the last call, or since it was made.
  Shares take();

 private:
  struct Times {
    double busy_s = 0;
    double total_s = 0;
    double own_s = 0;
  };
  [[nodiscard]] static Times read();
  Times last_;
};

/// Prints and keeps the figures of one run of the program.
class Bench {
 public:
  explicit Bench(Settings settings);
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;
  ~Bench();

  [[nodiscard]] const Settings& settings() const noexcept { return settings_; }
  [[nodiscard]] bool quick() const noexcept { return settings_.quick; }
  /// `full`, or `small` in a quick run.
  template <typename T>
  [[nodiscard]] T size(T full, T small) const noexcept {
    return settings_.quick ? small : full;
  }
  [[nodiscard]] int round_count() const noexcept { return settings_.quick ? 1 : settings_.round_count; }

  /// False: the machine is too busy to measure anything, and it said so.
  [[nodiscard]] bool may_start();

  /// Starts a scenario: prints its title and gives it an empty folder.
  void begin(const std::string& id, const std::string& title);
  /// From here on, lines and samples are those of another id of the same scenario.
  void label(const std::string& id) { id_ = id; }
  /// Ends it: says what else the machine did, and removes the folder.
  void end();
  /// A file name in the folder of the scenario that was not used before.
  [[nodiscard]] std::filesystem::path new_file(const std::string& stem);

  /// One round after another, each side once in each, in this order.
  void interleave(const std::vector<std::function<void(int round)>>& sides);
  /// The next sample belongs to a new stretch of load. interleave() does this before each side.
  void start_sample();
  /// Keeps one value. `round` counts from 1.
  void sample(const Series& series, int round, double value);

  /// Prints the two and their ratio: that of the medians, with the lowest and highest ratio of one round.
  void compare(const std::string& what, const Series& engine, const Series& reference, Bar bar);
  /// Prints one row of samples by its median.
  void check(const std::string& what, const Series& series, Bar bar);
  /// Prints how much more the first is than the second, by their medians.
  void check_difference(const std::string& what, const Series& more, const Series& less, Bar bar);
  /// Prints a value that was computed from others, such as a size on disk.
  void check_value(const std::string& what, double value, const std::string& unit,
                   const Conditions& conditions, Bar bar);
  void note(const std::string& text);
  /// Prints loudly that something was left out, and why.
  void skip(const std::string& text);

  /// Prints the sums. Returns the exit code of the program.
  int finish();
  void fail(const std::string& id, const std::string& why);

 private:
  struct Spread {
    double median = 0, min = 0, max = 0;
    std::size_t count = 0;
  };
  [[nodiscard]] static Spread spread(std::vector<double> values);
  [[nodiscard]] const std::vector<double>& values_of(const Series& series) const;
  [[nodiscard]] std::string judge(Bar bar, double value, const std::string& unit, const std::string& what);
  [[nodiscard]] std::string describe(const Conditions& conditions, std::size_t sample_count) const;
  void wait_until_quiet();
  void write_line(const std::string& line);

  Settings settings_;
  unsigned core_count_;
  std::ofstream samples_;
  std::string id_;  // of the scenario, or what label() said
  std::filesystem::path folder_;
  int file_count_ = 0;
  std::map<std::string, std::vector<double>> values_;  // of the scenario that runs, by series name
  std::vector<double> others_;                         // load of others, per side of each round
  Load load_;
  bool load_taken_ = false;  // of the side that is being sampled
  std::vector<std::string> missed_;
  std::vector<std::string> failed_;
  std::vector<std::string> skipped_;
  std::size_t met_ = 0;
};

}  // namespace towline::bench
