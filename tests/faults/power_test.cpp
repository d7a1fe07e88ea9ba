// FLT-04: the power fails. A run of the script is recorded change by change; then, for many seeds, the disk
// that a loss of power somewhere in the run may leave is made from the record and opened. With
// synchronous=full nothing that was promised may be missing; with synchronous=normal something must be, or
// the test is blind.

#include <filesystem>
#include <fstream>
#include <map>

#include "faults/experiment.hpp"
#include "faults/script.hpp"
#include "faults/trace.hpp"

namespace towline::faults {
namespace {

namespace fs = std::filesystem;

class Power : public Experiment {
 protected:
  struct Sum {
    std::uint64_t seeds = 0, acked = 0, lost_seeds = 0, bad_seeds = 0, unmade = 0, sectors_lost = 0,
                  sectors_torn = 0;
  };

  /// In memory where there is some: what is made here is read once.
  static fs::path scratch() {
    std::error_code ignored;
    const auto space = fs::space("/dev/shm", ignored);
    return !ignored && space.available > (512U << 20) ? fs::path("/dev/shm") : fs::temp_directory_path();
  }

  /// Records the script. The store of the record stands in `store`.
  [[nodiscard]] std::vector<Change> record(const std::string& name, const std::string& store,
                                           const std::string& parameters) {
    const std::string file = store + "/store.db";
    const std::string trace = stores() + "/" + name + ".trace";
    ChildProcess child(support::sibling_program("fault_child"),
                       {"script", "sqlite:" + file + parameters, ledgers(), name, "lease_ms=500",
                        "store=" + store, "trace=" + trace});
    const auto status = child.wait(30s);
    EXPECT_TRUE(status && status->clean());
    return read_trace(trace);
  }

  /// Loses the power once, at a sync or just before or after one, and looks.
  void lose(const std::vector<Change>& changes, const std::vector<std::size_t>& syncs,
            const std::string& store, std::uint64_t number, bool full, Sum& sum) {
    std::mt19937_64 dice(seed() * 1'000'003 + number);
    // Halves of the losses fall on a moment at which something was not synced yet.
    const std::size_t at = dice() % 2 == 0 ? syncs[dice() % syncs.size()] : dice() % changes.size() + 1;
    const PowerLoss loss = lose_power(changes, at, dice());
    for (const auto& entry : fs::directory_iterator(store))
      fs::remove_all(entry.path());
    for (const auto& [path, bytes] : loss.files)
      std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    std::vector<Note> notes;
    for (const std::string& line : loss.notes)
      notes.push_back(parse_note(line));
    const std::string file = store + "/store.db";
    const Survey found = survey("sqlite:" + file, file, notes);
    ++sum.seeds;
    if (found.unmade && skip_reason("FLT-04.making")) {
      ++sum.unmade;
      return;
    }
    sum.acked += found.acked;
    sum.lost_seeds += found.lost > 0 ? 1 : 0;
    sum.bad_seeds += found.clean() ? 0 : 1;
    sum.sectors_lost += loss.sectors_lost;
    sum.sectors_torn += loss.sectors_torn;
    if (full) {
      EXPECT_TRUE(found.clean()) << "loss " << number << " after change " << at << " of " << changes.size()
                                 << ": " << found.to_string();
    }
  }

  [[nodiscard]] Sum lose_often(const std::string& name, const std::string& parameters, std::uint64_t count) {
    Sum sum;
    const support::TempDir probe;
    const fs::path store = scratch() / ("towline-power-" + probe.path().filename().string());
    fs::create_directory(store);
    const auto changes = record(name, store.string(), parameters);
    std::vector<std::size_t> syncs;
    for (std::size_t i = 0; i < changes.size(); ++i) {
      if (changes[i].kind == 's') syncs.push_back(i);  // everything before it happened, it did not
    }
    EXPECT_FALSE(syncs.empty());
    for (std::uint64_t i = 0; i < count && !syncs.empty() && sum.seeds < count; ++i) {
      lose(changes, syncs, store.string(), i, parameters.empty(), sum);
      if (parameters.empty() && sum.bad_seeds >= 5) break;
    }
    fs::remove_all(store);
    return sum;
  }
  static std::string figures(const Sum& sum) {
    return "\"seeds\":" + std::to_string(sum.seeds) + ",\"acked\":" + std::to_string(sum.acked) +
           ",\"lost_seeds\":" + std::to_string(sum.lost_seeds) +
           ",\"bad_seeds\":" + std::to_string(sum.bad_seeds) + ",\"unmade\":" + std::to_string(sum.unmade) +
           ",\"sectors_lost\":" + std::to_string(sum.sectors_lost) +
           ",\"sectors_torn\":" + std::to_string(sum.sectors_torn);
  }
};

TEST_F(Power, Flt04_ALossOfPowerTakesNothingThatWasAcknowledged) {
  TOWLINE_EXPERIMENT("FLT-04");
  const Sum sum = lose_often("full", "", sized<std::uint64_t>(200, 2000));
  print("FLT-04 power_embedded full", figures(sum));
  EXPECT_EQ(sum.lost_seeds, 0U);
  EXPECT_EQ(sum.bad_seeds, 0U);
  EXPECT_GT(sum.sectors_lost, 0U) << "no loss took anything";
}

TEST_F(Power, Flt04_WithoutSyncsTheSameLossesTakeSomething) {
  TOWLINE_EXPERIMENT("FLT-04");
  const Sum sum = lose_often("normal", "?synchronous=normal", sized<std::uint64_t>(50, 500));
  print("FLT-04 power_embedded normal", figures(sum));
  EXPECT_GT(sum.lost_seeds * 100, sum.seeds) << "the control lost nothing: the test is blind";
}

}  // namespace
}  // namespace towline::faults
