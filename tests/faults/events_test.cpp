// FLT-24: those who append events, follow them and stream them to topics are killed at any moment. What was
// acknowledged is there once, versions have no gaps, whoever followed saw each event and passed none over,
// and every event was published once.

#include <map>
#include <set>
#include <thread>

#include "faults/child.hpp"
#include "faults/experiment.hpp"

namespace towline::faults {
namespace {

constexpr std::int64_t kWriterSpan = 1'000'000;

constexpr std::int64_t kWriters = 3;

class EventKills : public Experiment {
 protected:
  [[nodiscard]] bool is_through(std::int64_t writer, std::int64_t each) {
    return next_of(writer) >= writer * kWriterSpan + each;
  }
  /// Kills somebody now and then, until the writers have come to their end.
  std::int64_t kill_until_through(Crew& writers, Crew& followers, Crew& relays, std::int64_t each,
                                  std::int64_t kills_wanted) {
    const std::vector<Crew*> crews = {&writers, &followers, &relays};
    std::int64_t kills = 0;
    const Stopwatch watch;
    for (bool through = false; !through || kills < kills_wanted;) {
      if (watch.elapsed() > sized(120s, 1500s)) {
        ADD_FAILURE() << "the writers do not come to their end";
        return kills;
      }
      Crew& crew = *crews[draw(crews.size())];
      const std::size_t seat = draw(crew.size());
      history().read();
      const bool has_work = &crew != &writers || !is_through(static_cast<std::int64_t>(seat), each);
      if (kills < kills_wanted && has_work) {
        kill(crew.child_of(seat), crew.name_of(seat));
        crew.start_again(seat);
        ++kills;
      }
      history().read();
      through = is_through(0, each) && is_through(1, each) && is_through(2, each);
      std::this_thread::sleep_for(std::chrono::milliseconds(10 + draw(60)));  // sleeps: until the next kill
    }
    return kills;
  }
  /// Waits until the followers have noted every event.
  void expect_all_seen(std::size_t count) {
    std::set<std::int64_t> seen;
    const auto all_seen = [&] {
      history().read();
      seen.clear();
      for (const Note& note : history().notes()) {
        if (note.what == "seen") seen.insert(note.number);
      }
      return seen.size() >= count;
    };
    EXPECT_TRUE(eventually(all_seen, 20s)) << seen.size() << " of " << count << " events were seen";
  }
  /// Each event was published, and once.
  static void expect_published_once(Engine& engine, std::size_t count) {
    std::map<std::string, int> published;
    std::mutex mutex;
    const auto note = [&](Delivery& delivery) {
      const std::lock_guard lock(mutex);
      ++published[std::string(delivery.payload())];
    };
    Consumer consumer = engine.consume("events.#", member_options({}), note).value();
    const auto all_published = [&] {
      const std::lock_guard lock(mutex);
      return published.size() >= count;
    };
    EXPECT_TRUE(eventually(all_published, 20s)) << published.size() << " of " << count;
    EXPECT_TRUE(drained(engine, 20s)) << held_by(engine).to_string();
    (void)consumer.close().value();
    for (const auto& [payload, times] : published)
      EXPECT_EQ(times, 1) << payload << " was published more than once";
  }
  /// Where the writer goes on: behind the last append that was answered.
  [[nodiscard]] std::int64_t next_of(std::int64_t writer) {
    std::int64_t next = writer * kWriterSpan;
    for (const Note& note : history().notes()) {
      if (note.what == "next" && note.number / kWriterSpan == writer) next = std::max(next, note.number);
    }
    return next;
  }
  [[nodiscard]] std::vector<RecordedEvent> all_events(Engine& engine) {
    std::vector<RecordedEvent> events;
    for (std::uint64_t from = 1;;) {
      EventPage page = engine.event_store().read_all(from, 1'000).value();
      std::move(page.events.begin(), page.events.end(), std::back_inserter(events));
      from = page.next;
      if (page.end) return events;
    }
  }
  /// Every number that the writers were to append, once each; no gap in a stream, no step back in the order.
  void judge_store(const std::vector<RecordedEvent>& events, std::int64_t writer_count, std::int64_t each) {
    std::map<std::string, std::uint64_t> versions;
    std::map<std::int64_t, std::int64_t> last;
    std::set<std::int64_t> numbers;
    std::uint64_t position = 0;
    for (const RecordedEvent& event : events) {
      EXPECT_GT(event.position, position);
      position = event.position;
      EXPECT_EQ(event.version, ++versions[event.stream]) << event.stream;
      const std::int64_t number = std::stoll(event.payload);
      EXPECT_TRUE(numbers.insert(number).second) << number << " is there twice";
      const auto [at, first] = last.try_emplace(number / kWriterSpan, -1);
      EXPECT_GT(number, at->second) << "a writer's order";
      at->second = number;
    }
    for (std::int64_t writer = 0; writer < writer_count; ++writer) {
      for (std::int64_t n = 0; n < each; ++n)
        EXPECT_TRUE(numbers.contains(writer * kWriterSpan + n)) << "lost: " << writer << "/" << n;
    }
  }
};

TEST_F(EventKills, Flt24_NoEventIsLostOrDoubledAndNoReaderPassesOneOver) {
  TOWLINE_EXPERIMENT("FLT-24");
  const auto each = sized<std::int64_t>(1'500, 20'000);
  const auto kills_wanted = sized<std::int64_t>(40, 300);
  const std::string lease = "lease_ms=300";
  Crew writers(kWriters, "writer", [&](const std::string& name) {
    const std::int64_t writer = std::stoll(name.substr(name.find('-') + 1));
    history().read();
    const std::int64_t to = writer * kWriterSpan + each;
    return start("append", name,
                 {lease, "from=" + std::to_string(next_of(writer)), "to=" + std::to_string(to)});
  });
  Crew followers(2, "follower", [&](const std::string& name) { return start("follow", name, {lease}); });
  Crew relays(2, "relay", [&](const std::string& name) { return start("relay", name, {lease}); });
  const std::int64_t kills = kill_until_through(writers, followers, relays, each, kills_wanted);
  writers.stop();

  Engine engine = open();
  const std::vector<RecordedEvent> events = all_events(engine);
  judge_store(events, kWriters, each);
  expect_all_seen(events.size());
  expect_published_once(engine, events.size());
  followers.stop();
  relays.stop();

  std::int64_t repeated = 0, seen_again = 0;
  std::map<std::string, std::int64_t> place;  // of each life of a follower
  std::set<std::int64_t> once;
  for (const Note& note : history().notes()) {
    if (note.what == "repeated") ++repeated;
    if (note.what != "seen") continue;
    seen_again += once.insert(note.number).second ? 0 : 1;
    EXPECT_GT(note.number, place[note.source]) << note.source << " went back";
    place[note.source] = note.number;
  }
  EXPECT_LE(seen_again, 7 * kills) << "more than a batch for each kill";
  print("FLT-24", "\"events\":" + std::to_string(events.size()) + ",\"kills\":" + std::to_string(kills) +
                      ",\"lost\":0,\"appends_repeated\":" + std::to_string(repeated) +
                      ",\"seen_again\":" + std::to_string(seen_again));
}

}  // namespace
}  // namespace towline::faults
