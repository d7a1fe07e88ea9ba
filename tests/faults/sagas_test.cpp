// FLT-19: those who run the steps of sagas are killed at any moment. Every saga comes to its end; each step
// has its effect once, and what was started is undone, in reverse.

#include <filesystem>
#include <map>
#include <thread>

#include "faults/experiment.hpp"

namespace towline::faults {
namespace {

using Names = std::vector<std::string>;

/// As many as a runner has in hand.
constexpr std::int64_t kAgainPerKill = 8;

class SagaKills : public Experiment {
 protected:
  [[nodiscard]] static SagaDefinition definition() {
    SagaDefinition definition{"order", 1, {}, {}};
    for (const char* step : {"a", "b", "c", "d", "e"})
      definition.stages.push_back({{step}});
    return definition;
  }
  [[nodiscard]] static std::size_t count(Engine& engine, bool unfinished) {
    std::size_t count = 0;
    SagaQuery query;
    query.unfinished = unfinished;
    query.count_max = 1000;
    do {
      const auto page = engine.sagas().list(query).value();
      count += page.items.size();
      query.cursor = page.cursor;
    } while (!query.cursor.empty());
    return count;
  }
  /// What a saga's log says about its end, and whether the outside world agrees.
  void judge(Engine& engine, const std::string& id, const std::map<std::string, int>& effects) {
    Names done, undone;
    for (const SagaEntry& entry : engine.sagas().timeline("order", id).value()) {
      if (entry.mark == SagaMark::kDone) done.push_back(entry.step);
      if (entry.mark == SagaMark::kCompensated) undone.push_back(entry.step);
    }
    const SagaStatus status = (*engine.sagas().find("order", id).value()).status;
    const bool fails = id.ends_with('3');
    EXPECT_EQ(status, fails ? SagaStatus::kCompensated : SagaStatus::kCompleted) << id;
    EXPECT_EQ(done, fails ? (Names{"a", "b", "c"}) : (Names{"a", "b", "c", "d", "e"})) << id;
    EXPECT_EQ(undone, fails ? (Names{"d", "c", "b", "a"}) : Names{}) << id;
    for (const char* step : {"a", "b", "c", "d", "e"}) {
      const std::string key = "order/" + id + "/" + step;
      const auto times = [&](const std::string& of) {
        const auto found = effects.find(of);
        return found == effects.end() ? 0 : found->second;
      };
      EXPECT_EQ(times(key + "/execute"), fails && *step == 'e' ? 0 : 1) << key;
      EXPECT_EQ(times(key + "/compensate"), fails && *step != 'e' ? 1 : 0) << key;
    }
  }
};

TEST_F(SagaKills, Flt19_EverySagaComesToItsEndAndEachStepHasItsEffectOnce) {
  TOWLINE_EXPERIMENT("FLT-19");
  const auto sagas = sized<std::int64_t>(300, 10'000);
  const auto kills_wanted = sized<std::int64_t>(15, 200);
  const std::string world = stores() + "/world";
  std::filesystem::create_directory(world);
  Crew runners(3, "runner", [&](const std::string& name) {
    return start("sagas", name, {"lease_ms=300", "world=" + world});
  });
  Engine engine = open();
  std::int64_t started = 0, kills = 0;
  const Stopwatch watch;
  // Started and killed side by side, so that the kills meet sagas at every step.
  while (started < sagas || kills < kills_wanted || count(engine, true) > 0) {
    ASSERT_LT(watch.elapsed(), sized(120s, 2400s)) << count(engine, true) << " sagas have no end";
    for (std::int64_t n = 0; n < sagas / kills_wanted + 1 && started < sagas; ++n, ++started)
      ASSERT_TRUE(engine.sagas().start(definition(), std::to_string(started), "context").ok());
    if (kills < kills_wanted) {
      const std::size_t seat = draw(runners.size());
      kill(runners.child_of(seat), runners.name_of(seat));
      runners.start_again(seat);
      ++kills;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20 + draw(150)));  // sleeps: until the next kill
  }
  runners.stop();
  history().read();
  std::map<std::string, int> effects;
  std::int64_t again = 0;
  for (const Note& note : history().notes()) {
    if (note.what == "effect") ++effects[note.text];
    again += note.what == "again" ? 1 : 0;
  }
  // A process can die between an effect and its note.
  for (const auto& file : std::filesystem::directory_iterator(world)) {
    std::string key = file.path().filename().string();
    std::replace(key.begin(), key.end(), '~', '/');
    effects.try_emplace(key, 1);
  }
  // The world takes each effect once; that a step asks for it again is the work of a kill, or of a lease that
  // has ended while its process waited for the disk.
  EXPECT_LE(again, kills * kAgainPerKill);
  EXPECT_EQ(count(engine, false), static_cast<std::size_t>(sagas));
  for (std::int64_t n = 0; n < sagas; ++n)
    judge(engine, std::to_string(n), effects);
  EXPECT_TRUE(drained(engine, 20s)) << held_by(engine).to_string();
  print("FLT-19", "\"sagas\":" + std::to_string(sagas) + ",\"kills\":" + std::to_string(kills) +
                      ",\"not_ended\":0,\"effects\":" + std::to_string(effects.size()) +
                      ",\"asked_again\":" + std::to_string(again));
}

}  // namespace
}  // namespace towline::faults
