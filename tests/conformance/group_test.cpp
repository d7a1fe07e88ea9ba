// Groups and topics: each group gets every message and its members share them; topics never mix; patterns
// deliver once; members come and go without losing anything.

#include <algorithm>
#include <set>
#include <thread>

#include "conformance/fixture.hpp"
#include "support/gauge.hpp"

namespace towline::conformance {
namespace {

TOWLINE_SUITE(Group);

/// The rule in ten lines: `*` one token, `#` any number, a last `>` one or more.
bool reference_match(const std::vector<std::string>& pattern, std::size_t p,
                     const std::vector<std::string>& topic, std::size_t t) {
  if (p == pattern.size()) return t == topic.size();
  if (pattern[p] == "#") {
    for (std::size_t skip = t; skip <= topic.size(); ++skip) {
      if (reference_match(pattern, p + 1, topic, skip)) return true;
    }
    return false;
  }
  if (t == topic.size()) return false;
  if (pattern[p] == ">" && p + 1 == pattern.size()) return true;
  return (pattern[p] == "*" || pattern[p] == topic[t]) && reference_match(pattern, p + 1, topic, t + 1);
}

std::vector<std::string> tokens(const std::string& text) {
  std::vector<std::string> result(1);
  for (char c : text) {
    if (c == '.') {
      result.emplace_back();
    } else {
      result.back() += c;
    }
  }
  return result;
}

TEST_P(Group, Conf19_EachGroupGetsEveryMessage) {
  Engine engine = open();
  Recorder first, second;
  ConsumerOptions options = member("first");
  options.concurrency = 4;
  Consumer a = engine.consume("orders", options, first.handler()).value();
  options.group = "second";
  Consumer b = engine.consume("orders", options, second.handler()).value();
  publish_numbers(engine, "orders", 500);
  ASSERT_TRUE(first.reaches(500));
  ASSERT_TRUE(second.reaches(500));
  ASSERT_OK(a.drain(5s));
  ASSERT_OK(b.drain(5s));
  for (const Recorder* seen : {&first, &second}) {
    EXPECT_EQ(seen->count(), 500U);
    EXPECT_EQ(seen->times().size(), 500U);
  }
  EXPECT_EQ(first.all()[0].group, "first");
  EXPECT_EQ(second.all()[0].group, "second");
}

TEST_P(Group, Conf19_OneGroupsFailuresAreNotTheOthersBusiness) {
  Engine engine = open();
  Recorder good, bad;
  Consumer a = engine.consume("orders", member("good"), good.handler()).value();
  Consumer b = engine
                   .consume("orders", member("bad"),
                            [&](Delivery& delivery) {
                              bad.add(delivery);
                              throw HandlerError("Broken", "always");
                            })
                   .value();
  publish_numbers(engine, "orders", 10);
  ASSERT_TRUE(eventually([&] { return dead_letters(engine, "orders").size() == 10; }));
  EXPECT_EQ(good.count(), 10U);
  EXPECT_EQ(bad.count(), 30U);
  for (const DeadLetter& entry : dead_letters(engine, "orders"))
    EXPECT_EQ(entry.group, "bad");
}

TEST_P(Group, Conf20_MembersOfAGroupShareTheWork) {
  std::vector<Engine> engines;
  std::vector<Recorder> seen(4);
  std::vector<Consumer> consumers;
  for (std::size_t i = 0; i < seen.size(); ++i) {
    engines.push_back(open());
    const auto everybody_works = [&seen] {
      return std::all_of(seen.begin(), seen.end(),
                         [](const Recorder& recorder) { return recorder.count() > 0; });
    };
    // The first ones wait for each other, so that nobody is done with everything before the others are awake.
    const auto handler = [&seen, everybody_works, i](Delivery& delivery) {
      seen[i].add(delivery);
      if (!everybody_works()) (void)eventually(everybody_works, 3s);
    };
    ConsumerOptions options = member();
    options.concurrency = 2;
    options.prefetch_count = 1;
    consumers.push_back(engines[i].consume("orders", options, handler).value());
  }
  for (int i = 0; i < 1000; i += 20)
    publish_numbers(engines[0], "orders", 20, i);
  const auto total = [&] {
    std::size_t sum = 0;
    for (const Recorder& recorder : seen)
      sum += recorder.count();
    return sum;
  };
  ASSERT_TRUE(eventually([&] { return total() >= 1000; }));
  EXPECT_TRUE(holds_for([&] { return total() == 1000; }, 100ms)) << "handled more often than published";
  std::map<std::string, int> times;
  for (const Recorder& recorder : seen) {
    EXPECT_GT(recorder.count(), 0U) << "a member was left out";
    for (const auto& [payload, count] : recorder.times())
      times[payload] += count;
  }
  EXPECT_EQ(times.size(), 1000U);
}

TEST_P(Group, Conf21_TwentyTopicsNeverMix) {
  Engine engine = open();
  std::vector<Recorder> seen(20);
  std::vector<Consumer> consumers;
  for (int i = 0; i < 20; ++i) {
    consumers.push_back(
        engine.consume("topic." + std::to_string(i), member(), seen[static_cast<std::size_t>(i)].handler())
            .value());
  }
  std::vector<std::thread> publishers;
  for (int i = 0; i < 20; ++i) {
    publishers.emplace_back([&engine, i] {
      const std::string topic = "topic." + std::to_string(i);
      std::vector<Message> batch;
      for (int n = 0; n < 100; ++n)
        batch.push_back({.topic = topic, .payload = topic + "/" + std::to_string(n)});
      for (const Receipt& receipt : engine.publish_batch(std::move(batch)).value())
        EXPECT_TRUE(receipt.acked());
    });
  }
  for (std::thread& publisher : publishers)
    publisher.join();
  for (int i = 0; i < 20; ++i) {
    const std::string topic = "topic." + std::to_string(i);
    const Recorder& recorder = seen[static_cast<std::size_t>(i)];
    ASSERT_TRUE(recorder.reaches(100)) << topic;
    for (const Handled& handled : recorder.all()) {
      EXPECT_EQ(handled.topic, topic);
      EXPECT_TRUE(handled.payload.starts_with(topic + "/")) << handled.payload;
    }
    EXPECT_EQ(recorder.times().size(), 100U);
  }
}

TEST_P(Group, Conf21_TopicsThatDifferOnlyInAPunctuationMarkOrInCaseAreDistinct) {
  Engine engine = open();
  const std::vector<std::string> topics = {"a.b", "a_b", "a-b", "A.b", "ab", "a.b.c"};
  std::vector<Recorder> seen(topics.size());
  std::vector<Consumer> consumers;
  for (std::size_t i = 0; i < topics.size(); ++i) {
    consumers.push_back(engine.consume(topics[i], member(), seen[i].handler()).value());
  }
  for (const std::string& topic : topics) {
    ASSERT_TRUE(engine.publish({.topic = topic, .payload = topic}).acked());
  }
  for (std::size_t i = 0; i < topics.size(); ++i) {
    ASSERT_TRUE(seen[i].reaches(1));
    EXPECT_EQ(seen[i].payloads(), std::vector<std::string>{topics[i]});
  }
}

TEST_P(Group, Conf22_PatternsMatchAsTheReferenceMatcherSays) {
  Engine engine = open();
  const std::vector<std::string> patterns = {"a",   "a.b",   "*",   "a.*", "*.b",   "#", "a.#",
                                             "#.c", "a.#.c", "*.*", "a.>", "*.#.c", ">", "#.b.#"};
  const std::vector<std::string> topics = {"a",     "b",       "a.b", "a.c",     "b.c",
                                           "a.b.c", "a.x.y.c", "b.b", "a.b.b.c", "c"};
  std::map<std::string, Recorder> seen;
  std::vector<Consumer> consumers;
  for (std::size_t i = 0; i < patterns.size(); ++i) {
    Recorder& recorder = seen[patterns[i]];
    consumers.push_back(
        engine.consume(patterns[i], member("group-" + std::to_string(i)), recorder.handler()).value());
  }
  for (const std::string& topic : topics) {
    ASSERT_TRUE(engine.publish({.topic = topic, .payload = topic}).acked());
  }
  for (const std::string& pattern : patterns) {
    std::map<std::string, int> wanted;
    for (const std::string& topic : topics) {
      if (reference_match(tokens(pattern), 0, tokens(topic), 0)) wanted[topic] = 1;
    }
    EXPECT_TRUE(eventually([&] { return seen[pattern].times() == wanted; })) << pattern;
  }
  EXPECT_TRUE(holds_for([&] { return seen["#"].count() == topics.size(); }, 100ms));
  for (Consumer& consumer : consumers)
    EXPECT_OK(consumer.close());
}

TEST_P(Group, Conf22_APatternFindsTopicsThatAreMadeLater) {
  Engine engine = open();
  Recorder seen;
  Consumer consumer = engine.consume("late.*", member(), seen.handler()).value();
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(
        engine.publish({.topic = "late.t" + std::to_string(i), .payload = std::to_string(i)}).acked());
    ASSERT_TRUE(seen.reaches(static_cast<std::size_t>(i) + 1)) << i;
  }
}

TEST_P(Group, Conf23_OverlappingPatternsOfOneGroupDeliverOnce) {
  Engine engine = open();
  Recorder one, three;
  Consumer together =
      engine.consume(std::vector<std::string>{"a.*", "a.b", ">", "#"}, member("one"), one.handler()).value();
  std::vector<Consumer> apart;
  for (const char* pattern : {"a.*", "a.b", ">"}) {
    apart.push_back(engine.consume(pattern, member("three"), three.handler()).value());
  }
  const int count = 50;
  publish_numbers(engine, "a.b", count);
  ASSERT_TRUE(one.reaches(count));
  ASSERT_TRUE(three.reaches(count));
  EXPECT_TRUE(holds_for([&] { return one.count() == count && three.count() == count; }, 200ms));
}

TEST_P(Group, Conf24_ANewGroupStartsWhereItAsksAndAKnownOneGoesOn) {
  Engine engine = open();
  ASSERT_OK(engine.declare_topic("history", {.retention = 1h}));
  make_group(engine, "history", "known");
  std::vector<MessageId> ids;
  std::vector<TimePoint> times;
  for (int i = 0; i < 10; ++i) {
    times.push_back(system_clock()->now());
    const Receipt receipt = engine.publish({.topic = "history", .payload = std::to_string(i)});
    ASSERT_TRUE(receipt.acked());
    ids.push_back(receipt.id);
    ASSERT_TRUE(eventually([&] { return system_clock()->now() > times.back() + 2ms; }));
  }
  using Kind = spi::StartPosition::Kind;
  const std::map<std::string, std::pair<spi::StartPosition, int>> cases = {
      {"earliest", {{}, 0}},
      {"latest", {{.kind = Kind::kLatest}, 10}},
      {"after", {{.kind = Kind::kAfterId, .after_id = ids[3]}, 4}},
      {"since", {{.kind = Kind::kAtTime, .at = times[7]}, 7}},
      {"known",
       {{.kind = Kind::kLatest}, 0}},  // the group was there before the messages: nothing is passed over
  };
  for (const auto& [group, wanted] : cases) {
    Recorder seen;
    ConsumerOptions options = member(group);
    options.start = wanted.first;
    Consumer consumer = engine.consume("history", options, seen.handler()).value();
    const std::string mark = "mark of " + group;
    ASSERT_TRUE(engine.publish({.topic = "history", .payload = mark}).acked());
    ASSERT_TRUE(eventually([&] { return seen.times().contains(mark); })) << group;
    ASSERT_OK(consumer.drain(5s));
    for (int i = 0; i < 10; ++i) {
      EXPECT_EQ(seen.times().contains(std::to_string(i)), i >= wanted.second) << group << " and " << i;
    }
  }
}

TEST_P(Group, Conf25_AConsumerThatClosesHandsBackWhatItHolds) {
  TOWLINE_NEEDS(row().rings_across_engines);
  EngineOptions engine_options = quick_options();
  engine_options.lease = 1h;  // so that only closing can be what hands them back
  Engine engine = open(engine_options);
  Engine other = open(engine_options);
  Recorder held, seen;
  ConsumerOptions options = manual_member();
  options.concurrency = 10;
  Consumer leaver = engine.consume("orders", options, held.handler()).value();
  publish_numbers(engine, "orders", 10);
  ASSERT_TRUE(held.reaches(10));
  Consumer stayer = other.consume("orders", member(), seen.handler()).value();
  EXPECT_TRUE(holds_for([&] { return seen.count() == 0; }, 100ms));
  ASSERT_OK(leaver.close(0ms));
  ASSERT_TRUE(seen.reaches(10, kLease)) << seen.count();
  for (const Handled& handled : seen.all()) {
    EXPECT_EQ(handled.attempt, 1U) << "giving back counts nothing";
    EXPECT_EQ(handled.crashes, 0U);
  }
  EXPECT_EQ(seen.times().size(), 10U);
}

TEST_P(Group, Conf26_FiftyJoinsAndLeavesLoseNothing) {
  Engine engine = open();
  make_group(engine, "churn");
  Recorder seen;
  const int total = scaled(5000);
  std::thread publisher([&] {
    for (int i = 0; i < total; i += 50)
      publish_numbers(engine, "churn", std::min(50, total - i), i);
  });
  const auto handler = seen.handler();
  std::vector<Consumer> members;
  for (int i = 0; i < 50; ++i) {
    ConsumerOptions options = member();
    options.concurrency = 1 + i % 3;
    if (members.size() >= 3) {
      ASSERT_OK(members.front().close());
      members.erase(members.begin());
    }
    members.push_back(engine.consume("churn", options, handler).value());
  }
  publisher.join();
  const auto count = static_cast<std::size_t>(total);
  ASSERT_TRUE(eventually([&] { return seen.times().size() == count; }, 20s)) << seen.times().size();
  EXPECT_EQ(seen.count(), count) << "members that close settle what they handled: no duplicates";
}

TEST_P(Group, Conf27_TenThreadsThatSubscribeAndCloseLeaveAWorkingGroup) {
  Engine engine = open();
  make_group(engine, "churn");
  std::vector<std::thread> threads;
  for (int i = 0; i < 10; ++i) {
    threads.emplace_back([&engine] {
      for (int round = 0; round < 5; ++round) {
        Consumer consumer = engine.consume("churn", member(), [](Delivery&) {}).value();
        EXPECT_OK(consumer.close());
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  Recorder seen;
  Consumer consumer = engine.consume("churn", member(), seen.handler()).value();
  publish_numbers(engine, "churn", 50);
  ASSERT_TRUE(seen.reaches(50));
  EXPECT_EQ(seen.times().size(), 50U);
}

}  // namespace
}  // namespace towline::conformance
