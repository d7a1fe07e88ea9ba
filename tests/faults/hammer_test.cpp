// Everything at once: publishers and workers of two groups, one of them ordered by key, retries, dead
// letters, delays and ids that count while a message is unfinished, and all processes are killed in turn.

#include <algorithm>
#include <map>
#include <set>
#include <thread>

#include "faults/child.hpp"
#include "faults/experiment.hpp"

namespace towline::faults {
namespace {

constexpr std::int64_t kRange = 10'000'000;
constexpr std::uint32_t kAttemptsMax = 3;

class Hammer : public Experiment {
 protected:
  [[nodiscard]] ChildProcess start_worker(const std::string& name) {
    return start("work", name,
                 {"lease_ms=500", "group=ordered", "key_ordered=1", "second=plain", "concurrency=4",
                  "work_us=1000", "attempts_max=" + std::to_string(kAttemptsMax)});
  }
  [[nodiscard]] ChildProcess start_publisher(const std::string& name) {
    const std::int64_t seat = name[std::string("publisher-").size()] - '0';
    std::int64_t from = seat * kRange;
    history().read();
    for (const Note& note : history().notes()) {
      if (note.what == "invoke" && note.number / kRange == seat) from = std::max(from, note.number + 1);
    }
    return start(
        "mixed", name,
        {"from=" + std::to_string(from), "key_prefix=p" + std::to_string(seat) + "k", "pause_us=2000"});
  }
  void strike(Crew& crew, std::size_t seat) {
    std::this_thread::sleep_for(std::chrono::microseconds(draw(3000)));  // sleeps: a kill at any moment
    kill(crew.child_of(seat), crew.name_of(seat));
    crew.start_again(seat);
  }

  /// The notes of one group, and all those of publishers and kills.
  [[nodiscard]] Judgement judge_group(const std::string& group, const std::set<std::int64_t>& dead) {
    std::vector<Note> notes;
    std::copy_if(history().notes().begin(), history().notes().end(), std::back_inserter(notes),
                 [&](const Note& note) { return note.group == "-" || note.group == group; });
    Expectation expected;
    expected.groups = {group};
    expected.key_ordered = group == "ordered";
    expected.attempts_max = kAttemptsMax;
    expected.lease_end_us = 500'000 * 2 / 3;
    expected.dead = dead;
    return judge(notes, expected);
  }

  /// Starts before the due time.
  [[nodiscard]] std::uint64_t count_early() {
    std::map<std::int64_t, std::int64_t> invoked;
    for (const Note& note : history().notes()) {
      if (note.what == "invoke" && (note.text == "later" || note.text == "twice"))
        invoked[note.number] = note.at_us;
    }
    std::uint64_t early = 0;
    for (const Note& note : history().notes()) {
      const auto at = invoked.find(note.number);
      if (note.what != "start" || at == invoked.end()) continue;
      const std::int64_t delay_ms = std::stoll(note.text.substr(note.text.find(' ')));
      early += note.at_us < at->second + delay_ms * 1000 ? 1 : 0;
    }
    return early;
  }

  /// The dead letters of a group are the messages whose handlers always fail, each once.
  std::set<std::int64_t> judge_dead(const Held& held, const std::string& group) {
    std::set<std::int64_t> dead;
    for (const DeadLetter& entry : held.dead_letters) {
      if (entry.group != group) continue;
      const Item item = parse_item(entry.payload);
      EXPECT_EQ(item.kind, "always") << "message " << item.number << " is a dead letter of " << group << ": "
                                     << entry.error_message;
      EXPECT_TRUE(dead.insert(item.number).second)
          << "message " << item.number << " is a dead letter of " << group << " twice";
    }
    for (const Note& note : history().notes()) {
      if (note.what == "invoke" && note.text == "always") always_.insert(note.number);
    }
    for (const Note& note : history().notes()) {
      if (note.what == "acked" && always_.contains(note.number)) {
        EXPECT_TRUE(dead.contains(note.number))
            << "message " << note.number << " is no dead letter of " << group;
      }
    }
    return dead;
  }

 private:
  std::set<std::int64_t> always_;
};

TEST_F(Hammer, EverythingAtOnceAndKillsAllTheTime) {
  TOWLINE_EXPERIMENT("hammer");
  Engine engine = open();
  for (const char* group : {"ordered", "plain"}) {
    // The groups must be there before the first message.
    ConsumerOptions member = member_options({});
    member.group = group;
    member.order = std::string(group) == "ordered" ? Order::kKeyOrdered : Order::kUnordered;
    (void)engine.consume(kTopic, member, [](Delivery&) {}).value().close().value();
  }
  Crew workers(3, "worker", [this](const std::string& name) { return start_worker(name); });
  Crew publishers(2, "publisher", [this](const std::string& name) { return start_publisher(name); });
  const Stopwatch watch;
  std::size_t kills = 0;
  while (watch.elapsed() < sized(6s, 240s)) {
    // sleeps: the pace of killing
    std::this_thread::sleep_for(std::chrono::milliseconds(100 + draw(500)));
    if (draw(4) == 0) {
      strike(publishers, draw(publishers.size()));
    } else {
      strike(workers, draw(workers.size()));
    }
    ++kills;
  }
  for (std::size_t seat = 0; seat < publishers.size(); ++seat)
    kill(publishers.child_of(seat), publishers.name_of(seat));
  EXPECT_TRUE(drained(engine, sized(30s, 120s))) << held_by(engine).to_string();
  workers.stop();
  history().read();
  const Held held = held_by(engine);
  for (const std::string group : {"ordered", "plain"}) {
    const Judgement judged = judge_group(group, judge_dead(held, group));
    print("hammer " + group, judged.to_string() + ",\"dead\":" + std::to_string(held.dead_letters.size()) +
                                 ",\"early\":" + std::to_string(count_early()) +
                                 ",\"not_same\":" + std::to_string(history().count("not_same")));
    expect_clean(judged);
  }
  EXPECT_EQ(count_early(), 0U);
  EXPECT_EQ(history().count("not_same"), 0U) << "an id that counts while its message is unfinished did not";
  EXPECT_GT(history().count("same"), 0U);
  ASSERT_TRUE(engine.close().ok());
  EXPECT_EQ(integrity_of(database()), "ok");
}

}  // namespace
}  // namespace towline::faults
