// FLT-20: many threads of several processes race for the same idempotency keys and are killed. In a handler's
// transaction a key has one effect. With once() a key has one result, and each run of its function beyond the
// one that gave it is that of a process that was killed in it, or of one that came too late and was told so.

#include <map>
#include <set>
#include <thread>

#include "faults/child.hpp"
#include "faults/experiment.hpp"

namespace towline::faults {
namespace {

constexpr std::size_t kProcesses = 3;

class IdempotencyRace : public Experiment {
 protected:
  struct Sum {
    std::int64_t runs = 0, by_kill = 0, late = 0;
  };
  /// What the threads noted about one key.
  struct Story {
    std::map<std::string, Note> runs;
    std::set<std::string> late;
    std::set<std::string> results;
    std::set<std::string> own;  ///< runs whose own caller got a result
    std::int64_t first_result_us = INT64_MAX;
  };

  [[nodiscard]] std::string threads() const { return std::to_string(sized(16, 64)); }
  void kill_one(Crew& crew) {
    const std::size_t seat = draw(crew.size());
    killed_.insert(crew.name_of(seat));
    kill(crew.child_of(seat), crew.name_of(seat));
    crew.start_again(seat);
  }
  [[nodiscard]] std::map<std::int64_t, Story> stories() {
    std::map<std::int64_t, Story> stories;
    history().read();
    for (const Note& note : history().notes()) {
      Story& story = stories[note.number];
      if (note.what == "run") story.runs.emplace(note.text, note);
      if (note.what == "late") story.late.insert(note.text);
      if (note.what == "got") {
        story.results.insert(note.text);
        story.first_result_us = std::min(story.first_result_us, note.at_us);
        if (note.text.starts_with(note.source + "/")) story.own.insert(note.text);
      }
      EXPECT_NE(note.what, "trouble") << note.number << ": " << note.text;
    }
    return stories;
  }
  [[nodiscard]] bool all_have_results(std::int64_t keys) {
    const auto found = stories();
    for (std::int64_t key = 0; key < keys; ++key) {
      if (const auto at = found.find(key); at == found.end() || at->second.results.empty()) return false;
    }
    return true;
  }
  /// One result, and a reason for each run that did not give it.
  void judge(std::int64_t key, const Story& story, Sum& sum) {
    ASSERT_EQ(story.results.size(), 1U) << "key " << key;
    const std::string& result = *story.results.begin();
    EXPECT_TRUE(story.runs.contains(result)) << "key " << key << ": nobody ran " << result;
    sum.runs += static_cast<std::int64_t>(story.runs.size());
    for (const auto& [run, note] : story.runs) {
      if (run == result) continue;
      const bool late = story.late.contains(run);
      // Behind the first result nothing may begin, whoever is killed in it.
      const bool by_kill =
          killed_.contains(note.source) && !story.own.contains(run) && note.at_us < story.first_result_us;
      EXPECT_TRUE(late || by_kill) << "key " << key << ": " << run << " ran besides " << result;
      ++(late ? sum.late : sum.by_kill);
    }
  }

  std::set<std::string> killed_;
};

TEST_F(IdempotencyRace, Flt20_AKeyHasOneResultAndEachFurtherRunIsThatOfAKilledProcess) {
  TOWLINE_EXPERIMENT("FLT-20");
  const auto keys = sized<std::int64_t>(300, 1000);
  const auto kills_wanted = sized<std::size_t>(12, 50);
  const std::int64_t interval_us = sized<std::int64_t>(10'000, 20'000);
  // Made before anybody asks for a key.
  (void)open().close().value();
  const std::string opens = "opens_us=" + std::to_string(monotonic_us() + 300'000);
  Crew racers(kProcesses, "racer", [&](const std::string& name) {
    return start("race", name,
                 {opens, "threads=" + threads(), "keys=" + std::to_string(keys), "lease_ms=500",
                  "interval_us=" + std::to_string(interval_us), "work_us=10000"});
  });
  const Stopwatch watch;
  while (killed_.size() < kills_wanted || !all_have_results(keys)) {
    ASSERT_LT(watch.elapsed(), sized(120s, 1200s)) << "some keys have no result";
    if (killed_.size() < kills_wanted) kill_one(racers);
    const auto span_ms = static_cast<std::uint64_t>(keys * interval_us / 1000) / kills_wanted;
    const auto pause = std::chrono::milliseconds(span_ms / 2 + draw(span_ms));
    std::this_thread::sleep_for(pause);  // sleeps: until the next kill
  }
  racers.stop();
  Sum sum;
  for (const auto& [key, story] : stories()) {
    if (!story.runs.empty() || !story.results.empty()) judge(key, story, sum);
  }
  EXPECT_LE(sum.runs - keys, sum.by_kill + sum.late);
  print("FLT-20", "\"mode\":\"once\",\"keys\":" + std::to_string(keys) + ",\"kills\":" +
                      std::to_string(killed_.size()) + ",\"runs\":" + std::to_string(sum.runs) +
                      ",\"again_after_a_kill\":" + std::to_string(sum.by_kill) +
                      ",\"too_late\":" + std::to_string(sum.late));
}

TEST_F(IdempotencyRace, Flt20_InAHandlersTransactionAKeyHasOneEffect) {
  TOWLINE_EXPERIMENT("FLT-20");
  const auto keys = sized<std::int64_t>(300, 1000);
  const auto kills_wanted = sized<std::size_t>(12, 50);
  constexpr std::int64_t kCopies = 6;
  Engine engine = open();
  {
    SqliteSession session(database());
    session.run("CREATE TABLE effect(number INTEGER NOT NULL)");
  }
  Crew bookers(kProcesses, "booker", [&](const std::string& name) {
    return start("book", name, {"lease_ms=500", "concurrency=" + threads(), "attempts_max=1000"});
  });
  const Stopwatch watch;
  for (std::int64_t key = 0; key < keys || killed_.size() < kills_wanted;) {
    ASSERT_LT(watch.elapsed(), sized(120s, 1200s));
    // The copies of a number come together, so that all processes race for its key.
    std::vector<Message> messages;
    for (const std::int64_t end = std::min(keys, key + keys / static_cast<std::int64_t>(kills_wanted) + 1);
         key < end; ++key) {
      for (std::int64_t copy = 0; copy < kCopies; ++copy)
        messages.push_back({.topic = kTopic, .payload = to_payload({key, "-", 0, "ok"})});
    }
    if (!messages.empty()) {
      for (const Receipt& receipt : engine.publish_batch(std::move(messages)).value())
        ASSERT_TRUE(receipt.acked());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(draw(60)));  // sleeps: until the next kill
    if (killed_.size() < kills_wanted) kill_one(bookers);
  }
  EXPECT_TRUE(drained(engine, sized(30s, 120s))) << held_by(engine).to_string();
  bookers.stop();
  history().read();
  EXPECT_EQ(history().count("failed"), 0U);
  SqliteSession session(database());
  EXPECT_EQ(session.run("SELECT count(DISTINCT number) FROM effect"), std::to_string(keys)) << "no effect";
  EXPECT_EQ(session.run("SELECT count(*) FROM effect"), std::to_string(keys)) << "more than one effect";
  EXPECT_TRUE(held_by(engine).dead_letters.empty());
  print("FLT-20", "\"mode\":\"transaction\",\"keys\":" + std::to_string(keys) + ",\"messages\":" +
                      std::to_string(keys * kCopies) + ",\"kills\":" + std::to_string(killed_.size()) +
                      ",\"effects\":" + std::to_string(keys) +
                      ",\"begun\":" + std::to_string(history().count("start")));
}

}  // namespace
}  // namespace towline::faults
