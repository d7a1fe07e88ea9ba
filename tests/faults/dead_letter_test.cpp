// FLT-15 and FLT-21: messages that kill their process, fail for good or cannot be read, each of which must
// become a dead letter for the right reason and nobody else; and dead letters that are sent back by processes
// that are killed while they do it.

#include <map>
#include <set>
#include <thread>

#include "faults/child.hpp"
#include "faults/experiment.hpp"

namespace towline::faults {
namespace {

class DeadLetterStorm : public Experiment {
 protected:
  void publish(Engine& engine, std::int64_t count, const std::function<std::string(std::int64_t)>& kind_of) {
    std::vector<Message> messages;
    for (std::int64_t n = 0; n < count; ++n) {
      notes().note("invoke", n, kind_of(n));
      Message message;
      message.topic = kTopic;
      message.payload = to_payload({n, "-", n, kind_of(n)}, 100);
      if (kind_of(n) == "damaged") {
        ASSERT_TRUE(engine.publish(std::move(message)).acked());
      } else {
        messages.push_back(std::move(message));
      }
    }
    for (const Receipt& receipt : engine.publish_batch(std::move(messages)).value())
      ASSERT_TRUE(receipt.acked());
    for (std::int64_t n = 0; n < count; ++n)
      notes().note("acked", n);
  }
  static constexpr std::int64_t kCrashesMax = 2;

  /// `each` of every bad kind, and nobody else.
  static void judge_reasons(const std::vector<DeadLetter>& entries, std::int64_t each) {
    std::map<std::string, std::map<DeadLetterReason, std::int64_t>> reasons;
    for (const DeadLetter& entry : entries) {
      if (entry.reason == DeadLetterReason::kDecode) {
        ++reasons["damaged"][entry.reason];
        continue;
      }
      const Item item = parse_item(entry.payload);
      ++reasons[item.kind][entry.reason];
      EXPECT_EQ(entry.crashes, item.kind == "abort" ? static_cast<std::uint32_t>(kCrashesMax) : 0U)
          << "message " << item.number << " (" << item.kind << ")";
    }
    EXPECT_EQ(reasons["abort"],
              (std::map<DeadLetterReason, std::int64_t>{{DeadLetterReason::kCrashLoop, each}}));
    EXPECT_EQ(reasons["permanent"],
              (std::map<DeadLetterReason, std::int64_t>{{DeadLetterReason::kPermanent, each}}));
    EXPECT_EQ(reasons["damaged"],
              (std::map<DeadLetterReason, std::int64_t>{{DeadLetterReason::kDecode, each}}));
    EXPECT_EQ(reasons.count("ok"), 0U) << "an innocent is a dead letter";
  }
  /// How often each number came.
  static std::map<std::int64_t, int> handle_all(Engine& engine, const ConsumerOptions& member) {
    std::mutex mutex;
    std::map<std::int64_t, int> seen;
    Consumer consumer = engine
                            .consume(kTopic, member,
                                     [&](Delivery& delivery) {
                                       const std::lock_guard guard(mutex);
                                       ++seen[parse_item(delivery.payload()).number];
                                     })
                            .value();
    EXPECT_TRUE(drained(engine, 30s)) << held_by(engine).to_string();
    (void)consumer.close().value();
    return seen;
  }
};

TEST_F(DeadLetterStorm, Flt15_EveryBadMessageBecomesADeadLetterForItsReasonAndNothingElseDoes) {
  TOWLINE_EXPERIMENT("FLT-15");
  const std::int64_t count = sized<std::int64_t>(400, 10'000);
  // One in a hundred of each: it kills its process, it fails for good, its bytes are damaged in the store.
  const auto kind_of = [](std::int64_t n) -> std::string {
    return n % 100 == 10 ? "abort" : n % 100 == 40 ? "permanent" : n % 100 == 70 ? "damaged" : "ok";
  };
  const std::int64_t each = count / 100;
  Engine engine = open();
  // The group must be there before the messages are.
  engine.consume(kTopic, member_options({}), [](Delivery&) {}).value().close().value();
  publish(engine, count, kind_of);
  // Published alone, each of these has a row of its own, which can be damaged.
  (void)ask_sqlite(database(),
                   "UPDATE message SET extras = x'ff00ff00ff00ff00' WHERE instr(payload, ' damaged ') > 0 AND"
                   " coalesce(count, 1) = 1");
  Crew crew(4, "worker", [this](const std::string& name) {
    return start(
        "work", name,
        {"lease_ms=300", "concurrency=4", "work_us=200", "crashes_max=" + std::to_string(kCrashesMax)});
  });
  std::int64_t restarts = 0;
  const Stopwatch watch;
  std::uint64_t dead = 0;
  while (dead < static_cast<std::uint64_t>(3 * each) ||
         history().count("done") < static_cast<std::size_t>(count - 3 * each)) {
    ASSERT_LT(watch.elapsed(), sized(60s, 1200s))
        << held_by(engine).to_string() << ", done " << history().count("done");
    for (std::size_t seat = 0; seat < crew.size(); ++seat) {
      if (!crew.child_of(seat).wait(0ms)) continue;
      notes().note("killed", 0, crew.name_of(seat));
      crew.start_again(seat);
      ++restarts;
    }
    history().read();
    dead = engine.statistics().value().dead_letters[static_cast<std::size_t>(DeadLetterStatus::kPending)];
    std::this_thread::sleep_for(5ms);  // sleeps: the pace of looking
  }
  EXPECT_TRUE(drained(engine, 20s)) << held_by(engine).to_string();
  crew.stop();
  history().read();

  judge_reasons(held_by(engine).dead_letters, each);
  Expectation expected;
  // Renewed at a third of its length, so two thirds are left at least: less than that no stall explains.
  expected.lease_end_us = 300'000 * 2 / 3;
  for (std::int64_t n = 0; n < count; ++n) {
    if (kind_of(n) != "ok") expected.dead.insert(n);
  }
  const Judgement judged = judge(history().notes(), expected);
  print("FLT-15 dead_letter_storm", judged.to_string() + ",\"dead\":" + std::to_string(dead) +
                                        ",\"restarts\":" + std::to_string(restarts));
  expect_clean(judged);
  EXPECT_LE(restarts, each * (kCrashesMax + 1)) << "a death nobody is charged with more than once";
}

TEST_F(DeadLetterStorm, Flt21_ARedriveThatIsKilledLeavesEveryMessageInOnePlace) {
  TOWLINE_EXPERIMENT("FLT-21");
  const std::int64_t count = sized<std::int64_t>(2000, 10'000);
  const std::size_t kills = sized<std::size_t>(8, 100);
  Engine engine = open(500ms);
  ConsumerOptions member = member_options({});
  member.concurrency = 8;
  {
    Consumer refusing =
        engine.consume(kTopic, member, [](Delivery&) { throw HandlerError("Permanent", "as planned"); })
            .value();
    publish(engine, count, [](std::int64_t) { return "ok"; });
    ASSERT_TRUE(eventually(
        [&] {
          return engine.statistics().value().dead_letters[static_cast<std::size_t>(
                     DeadLetterStatus::kPending)] == static_cast<std::uint64_t>(count);
        },
        60s));
    (void)refusing.close().value();
  }
  std::size_t killed = 0;
  std::size_t hit = 0;
  const Stopwatch watch;
  // Until the kills are done or nothing is left to be sent back.
  for (std::size_t life = 0; killed < kills; ++life) {
    ASSERT_LT(watch.elapsed(), sized(60s, 600s));
    const std::uint64_t before = engine.statistics().value().dead_letters[0];
    if (before == 0) break;
    const std::string name = "redriver." + std::to_string(life);
    // Slow enough that all the kills find something left to be sent back.
    ChildProcess child = start("redrive", name, {"lease_ms=300", "rate=1000"});
    const bool begun = eventually([&] { return engine.statistics().value().dead_letters[0] < before; }, 1s);
    std::this_thread::sleep_for(std::chrono::microseconds(draw(40'000)));  // sleeps: a kill at any moment
    const bool at_work = !child.wait(0ms).has_value();
    kill(child, name);
    ++killed;
    hit += begun && at_work ? 1 : 0;
  }
  // None is stuck: when the leases of the dead are over, what is left can be sent back.
  DeadLetterQuery query;
  query.topic = kTopic;
  const bool all = eventually(
      [&] {
        query.status = DeadLetterStatus::kPending;
        (void)engine.redrive_all(query).value();
        const EngineStatistics now = engine.statistics().value();
        return now.dead_letters[static_cast<std::size_t>(DeadLetterStatus::kResolved)] ==
               static_cast<std::uint64_t>(count);
      },
      20s);
  EXPECT_TRUE(all) << "some are stuck: " << held_by(engine).to_string();
  const std::map<std::int64_t, int> seen = handle_all(engine, member);
  std::int64_t doubled = 0;
  for (const auto& [number, times] : seen)
    doubled += times != 1 ? 1 : 0;
  print("FLT-21 redrive_kill", "\"n\":" + std::to_string(count) + ",\"kills\":" + std::to_string(killed) +
                                   ",\"kills_into_work\":" + std::to_string(hit) + ",\"handled\":" +
                                   std::to_string(seen.size()) + ",\"doubled\":" + std::to_string(doubled));
  EXPECT_EQ(seen.size(), static_cast<std::size_t>(count)) << "lost";
  EXPECT_EQ(doubled, 0);
  EXPECT_GE(hit * 2, killed) << "most kills fell into no redrive";
  EXPECT_GE(killed * 2, kills);
  ASSERT_TRUE(engine.close().ok());
  EXPECT_EQ(integrity_of(database()), "ok");
}

}  // namespace
}  // namespace towline::faults
