// FLT-01 and FLT-02: workers and publishers are killed at any moment, again and again; and a worker is
// stopped for longer than its lease and then goes on (part of FLT-07).

#include <algorithm>
#include <map>
#include <thread>

#include <signal.h>

#include "faults/child.hpp"
#include "faults/experiment.hpp"

namespace towline::faults {
namespace {

constexpr auto kLease = 1000ms;

class CrewOfWorkers : public Experiment {
 protected:
  void publish(Engine& engine, std::int64_t from, std::int64_t to, std::int64_t key_count) {
    std::vector<Message> messages;
    for (std::int64_t n = from; n < to; ++n) {
      const Item item{n, "k" + std::to_string(n % key_count), n, n % 97 == 13 ? "once" : "ok"};
      notes().note("invoke", n);
      Message message;
      message.topic = kTopic;
      message.key = item.key;
      message.payload = to_payload(item, 200);
      messages.push_back(std::move(message));
    }
    const auto receipts = engine.publish_batch(std::move(messages)).value();
    for (std::size_t i = 0; i < receipts.size(); ++i) {
      ASSERT_TRUE(receipts[i].acked()) << receipts[i].error.to_string();
      notes().note("acked", from + static_cast<std::int64_t>(i));
    }
  }
  [[nodiscard]] ChildProcess start_worker(const std::string& name) {
    return start("work", name,
                 {"lease_ms=1000", "key_ordered=1", "concurrency=4", "prefetch=4", "work_us=4000"});
  }
  /// Everything that is there, by handling it: how often each number came.
  [[nodiscard]] std::map<std::int64_t, int> handle_all(Engine& engine) {
    std::mutex mutex;
    std::map<std::int64_t, int> found;
    int altered = 0;
    ConsumerOptions member = member_options({});
    Consumer consumer = engine
                            .consume(kTopic, member,
                                     [&](Delivery& delivery) {
                                       const std::lock_guard guard(mutex);
                                       try {
                                         ++found[parse_item(delivery.payload()).number];
                                       } catch (const std::runtime_error&) {
                                         ++altered;
                                       }
                                     })
                            .value();
    EXPECT_TRUE(drained(engine, 60s)) << held_by(engine).to_string();
    EXPECT_EQ(altered, 0);
    (void)consumer.close().value();
    return found;
  }
  struct PublishSum {
    std::uint64_t acked = 0, lost = 0, unknown = 0, recovered = 0, doubled = 0, phantoms = 0, halves = 0;
  };
  /// What the publishers noted against what was handled in the end.
  [[nodiscard]] PublishSum compare(const std::map<std::int64_t, int>& found) {
    std::map<std::int64_t, std::string> state;
    std::map<std::int64_t, std::vector<std::int64_t>> batches;
    for (const Note& note : history().notes()) {
      if (note.what == "invoke") state.try_emplace(note.number, "unknown");
      if (note.what == "acked" || note.what == "rejected" || note.what == "unknown")
        state[note.number] = note.what;
      if (note.what == "invoke" && note.text.starts_with("batch "))
        batches[std::stoll(note.text.substr(6))].push_back(note.number);
    }
    PublishSum sum;
    for (const auto& [number, answer] : state) {
      const bool there = found.contains(number);
      sum.acked += answer == "acked" ? 1 : 0;
      sum.lost += answer == "acked" && !there ? 1 : 0;
      sum.unknown += answer == "unknown" ? 1 : 0;
      sum.recovered += answer == "unknown" && there ? 1 : 0;
      sum.phantoms += answer == "rejected" && there ? 1 : 0;
    }
    for (const auto& [number, times] : found) {
      sum.doubled += times != 1 ? 1 : 0;
      sum.phantoms += state.contains(number) ? 0 : 1;
    }
    for (const auto& [first, numbers] : batches) {
      const auto there = std::count_if(numbers.begin(), numbers.end(),
                                       [&](std::int64_t number) { return found.contains(number); });
      sum.halves += there != 0 && there != static_cast<std::ptrdiff_t>(numbers.size()) ? 1 : 0;
    }
    return sum;
  }
  [[nodiscard]] Expectation expectation() const {
    Expectation expected;
    expected.key_ordered = true;
    expected.attempts_max = 2;
    // Renewed at a third of its length, so two thirds are left at least.
    expected.lease_end_us = Duration(kLease).count() * 2 / 3;
    return expected;
  }
};

TEST_F(CrewOfWorkers, Flt01_WorkersAreKilledAndNothingIsLostDoubledOrOutOfOrder) {
  TOWLINE_EXPERIMENT("FLT-01");
  const std::int64_t count = sized<std::int64_t>(3000, 100'000);
  const std::int64_t key_count = sized<std::int64_t>(100, 1000);
  const std::size_t kills = sized<std::size_t>(10, 200);
  Engine engine = open();
  Crew crew(4, "worker", [this](const std::string& name) { return start_worker(name); });
  std::int64_t published = 0;
  std::size_t killed = 0;
  std::size_t done = 0;
  const Stopwatch watch;
  Duration next_kill = 0s;
  // What is handled twice is done twice, so the last may still have to be published.
  while (published < count || done < static_cast<std::size_t>(count) || killed < kills) {
    ASSERT_LT(watch.elapsed(), sized(60s, 1200s)) << done << " of " << count << " are handled";
    // Never more than a thousand ahead, so that the kills fall all over the run; and, at full size, nothing
    // new in the lease after a kill: whoever takes over is not killed on top, so that what is measured is how
    // long one death takes.
    if (published < count && published < static_cast<std::int64_t>(done) + 1000 &&
        watch.elapsed() >= next_kill) {
      const std::int64_t to = std::min(count, published + 50);
      publish(engine, published, to, key_count);
      published = to;
    }
    history().read();
    done = history().count("done");
    const std::size_t due = done * (kills + 1) / static_cast<std::size_t>(count);
    if (killed < kills && killed < due && watch.elapsed() >= next_kill) {
      // One that is at work now, and a random moment of that work.
      const std::size_t victim = draw(crew.size());
      (void)eventually(
          [&] {
            history().read();
            return history().open_count(crew.name_of(victim)) > 0;
          },
          500ms);
      std::this_thread::sleep_for(std::chrono::microseconds(draw(400)));  // sleeps: a kill at any moment
      kill(crew.child_of(victim), crew.name_of(victim));
      crew.start_again(victim);
      ++killed;
      next_kill = watch.elapsed() + sized(0ms, std::chrono::milliseconds(kLease)) +
                  std::chrono::milliseconds(draw(400));
    }
    std::this_thread::sleep_for(2ms);  // sleeps: the pace of looking
  }
  const bool rested = drained(engine, 30s);
  crew.stop();
  history().read();
  const Judgement judged = judge(history().notes(), expectation());
  print("FLT-01 worker_kill", judged.to_string());
  expect_clean(judged);
  EXPECT_TRUE(rested) << held_by(engine).to_string();
  EXPECT_EQ(judged.acked, static_cast<std::uint64_t>(count));
  EXPECT_GE(judged.kills_into_work * 10, killed) << "the kills found nobody at work";
  EXPECT_LE(judged.duplicates - judged.lease_ends, killed * 8) << "more than what runs and waits there";
  if (!skip_reason("FLT-01.stall")) {
    EXPECT_EQ(judged.lease_ends, 0U) << "a process that lives could not renew its leases in time";
  }
  // The rest of a second is for what waits before it; a small run on a busy machine gets more.
  EXPECT_LE(judged.resume_p(0.99), Duration(kLease + sized(3s, 1s)).count()) << "long after the lease";
  EXPECT_TRUE(held_by(engine).dead_letters.empty());
  ASSERT_TRUE(engine.close().ok());
  EXPECT_EQ(integrity_of(database()), "ok");
}

TEST_F(CrewOfWorkers, Flt07_AWorkerThatWasStoppedForTwoLeasesHasLostWhatItHeld) {
  TOWLINE_EXPERIMENT("FLT-07");
  const std::int64_t count = sized<std::int64_t>(400, 4000);
  const int rounds = sized(1, 20);
  Engine engine = open();
  Crew crew(2, "worker", [this](const std::string& name) {
    return start("work", name,
                 {"lease_ms=500", "key_ordered=1", "concurrency=4", "work_us=3000", "effects=1"});
  });
  for (int round = 0; round < rounds; ++round) {
    const std::size_t victim = static_cast<std::size_t>(round) % 2;
    // A part for each round, or all would be done before the last.
    publish(engine, count * round / rounds, count * (round + 1) / rounds, 40);
    ASSERT_TRUE(eventually([&] {
      history().read();
      return history().open_count(crew.name_of(victim)) > 0;
    })) << "nobody was at work any more";
    crew.child_of(victim).send(SIGSTOP);
    const std::size_t before = history().count("done");
    const Stopwatch stopped;
    // The other one takes over what the stopped one held, after its lease.
    (void)eventually(
        [&] {
          history().read();
          return stopped.elapsed() >= 1000ms && history().count("done") > before;
        },
        5s);
    crew.child_of(victim).send(SIGCONT);
  }
  EXPECT_TRUE(eventually(
      [&] {
        history().read();
        return history().count("done") >= static_cast<std::size_t>(count);
      },
      60s));
  EXPECT_TRUE(drained(engine, 30s)) << held_by(engine).to_string();
  crew.stop();
  history().read();
  // The zombie's handlers ran on and were refused: no effect but one for each message.
  std::map<std::string, int> effects;
  for (const std::string& number : ask_sqlite(database(), "SELECT number FROM effect"))
    ++effects[number];
  const auto doubled =
      std::count_if(effects.begin(), effects.end(), [](const auto& effect) { return effect.second != 1; });
  print("FLT-07 zombie_worker",
        "\"acked\":" + std::to_string(count) + ",\"stops\":" + std::to_string(rounds) +
            ",\"effects\":" + std::to_string(effects.size()) + ",\"doubled\":" + std::to_string(doubled) +
            ",\"refused\":" + std::to_string(history().count("void")));
  EXPECT_EQ(effects.size(), static_cast<std::size_t>(count));
  EXPECT_EQ(doubled, 0);
}

TEST_F(CrewOfWorkers, Flt02_PublishersAreKilledAndWhatWasAcknowledgedIsThereWhole) {
  TOWLINE_EXPERIMENT("FLT-02");
  const std::int64_t count = sized<std::int64_t>(6000, 50'000);
  const std::size_t kills = sized<std::size_t>(30, 200);
  constexpr std::int64_t kRange = 1'000'000;
  Engine engine = open();
  // Each life goes on behind everything that the one before it has begun, and leaves that as it is.
  std::map<std::size_t, std::int64_t> next;
  const auto start_publisher = [this, &next](const std::string& name) {
    const std::size_t seat = static_cast<std::size_t>(name[std::string("publisher-").size()] - '0');
    std::int64_t from = static_cast<std::int64_t>(seat) * kRange;
    for (const Note& note : history().notes()) {
      if (note.what == "invoke" && note.number / kRange == static_cast<std::int64_t>(seat))
        from = std::max(from, note.number + 1);
    }
    return start("publish", name,
                 {"from=" + std::to_string(from),
                  "to=" + std::to_string((static_cast<std::int64_t>(seat) + 1) * kRange),
                  "key_prefix=p" + std::to_string(seat) + "k"});
  };
  Crew crew(4, "publisher", start_publisher);
  std::size_t killed = 0;
  const Stopwatch watch;
  while (history().count("acked") < static_cast<std::size_t>(count) || killed < kills) {
    ASSERT_LT(watch.elapsed(), sized(60s, 1200s));
    history().read();
    const std::size_t due = history().count("acked") * (kills + 1) / static_cast<std::size_t>(count);
    if (killed < kills && killed < due) {
      const std::size_t victim = draw(crew.size());
      std::this_thread::sleep_for(std::chrono::microseconds(draw(3000)));  // sleeps: a kill at any moment
      kill(crew.child_of(victim), crew.name_of(victim));
      history().read();
      crew.start_again(victim);
      ++killed;
    }
    std::this_thread::sleep_for(1ms);  // sleeps: the pace of looking
  }
  for (std::size_t seat = 0; seat < crew.size(); ++seat)
    kill(crew.child_of(seat), crew.name_of(seat));
  history().read();

  const std::map<std::int64_t, int> found = handle_all(engine);
  EXPECT_TRUE(engine.close().ok());
  const PublishSum sum = compare(found);
  print("FLT-02 publisher_kill",
        "\"acked\":" + std::to_string(sum.acked) + ",\"kills\":" + std::to_string(killed + crew.size()) +
            ",\"lost\":" + std::to_string(sum.lost) + ",\"unknown\":" + std::to_string(sum.unknown) +
            ",\"recovered\":" + std::to_string(sum.recovered) + ",\"halves\":" + std::to_string(sum.halves) +
            ",\"dup\":" + std::to_string(sum.doubled));
  EXPECT_EQ(sum.lost, 0U);
  EXPECT_EQ(sum.halves, 0U);
  EXPECT_EQ(sum.doubled, 0U);
  EXPECT_EQ(sum.phantoms, 0U);
  EXPECT_GT(sum.unknown, 0U) << "no kill hit a publish under way";
  EXPECT_EQ(integrity_of(database()), "ok");
}

}  // namespace
}  // namespace towline::faults
