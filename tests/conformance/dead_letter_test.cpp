// Dead letters: an entry keeps everything, listings page without gaps, a redrive moves each entry exactly
// once, and the store of them stays bounded.

#include <set>
#include <thread>

#include "conformance/fixture.hpp"

namespace towline::conformance {
namespace {

TOWLINE_SUITE(DeadLetters);

TEST_P(DeadLetters, Conf35_AnEntryKeepsEverythingThatIsKnown) {
  Engine engine = open();
  ConsumerOptions options = member("billing");
  options.concurrency = 2;
  Consumer consumer =
      engine
          .consume("orders", options,
                   [](Delivery& delivery) {
                     throw HandlerError("CardDeclined", "attempt " + std::to_string(delivery.attempt()));
                   })
          .value();
  Message message{.topic = "orders", .payload = std::string("order\0 7", 8)};
  message.key = "customer-9";
  message.headers = {{"tenant", "blue"}, {"Name", "Grün"}};
  message.content_type = "text/plain";
  const TimePoint before = system_clock()->now();
  const Receipt receipt = engine.publish(message);
  ASSERT_TRUE(receipt.acked()) << receipt.error.to_string();
  ASSERT_TRUE(eventually([&] { return dead_letters(engine, "orders").size() == 1; }));
  const TimePoint after = system_clock()->now();
  const DeadLetter entry = dead_letters(engine, "orders")[0];
  EXPECT_FALSE(entry.id.empty());
  EXPECT_EQ(entry.message_id, receipt.id);
  EXPECT_EQ(entry.topic, "orders");
  EXPECT_EQ(entry.group, "billing");
  EXPECT_EQ(entry.key, message.key);
  EXPECT_EQ(entry.headers, message.headers);
  EXPECT_EQ(entry.content_type, "text/plain");
  EXPECT_EQ(entry.payload, message.payload);
  EXPECT_EQ(entry.reason, DeadLetterReason::kExhausted);
  EXPECT_EQ(entry.error_type, "CardDeclined");
  EXPECT_EQ(entry.error_message, "attempt 3");
  EXPECT_EQ(entry.fingerprint.size(), 16U);
  EXPECT_EQ(entry.attempt, 3U);
  EXPECT_EQ(entry.crashes, 0U);
  EXPECT_EQ(entry.reprocess_count, 0U);
  EXPECT_EQ(entry.status, DeadLetterStatus::kPending);
  EXPECT_NE(entry.metadata.find("attempt 1"), std::string::npos)
      << "the history has the first failure: " << entry.metadata;
  EXPECT_LE(before, entry.published_at);
  EXPECT_LE(entry.published_at, entry.first_failed_at);
  EXPECT_LT(entry.first_failed_at, entry.last_failed_at);
  EXPECT_LE(entry.last_failed_at, entry.created_at);
  EXPECT_LE(entry.created_at, after);
  const auto found = engine.find_dead_letter(entry.id).value();
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->payload, message.payload);
  EXPECT_EQ(found->version, entry.version);
}

TEST_P(DeadLetters, Conf35_AnEntryOutlivesARestartAndIsFoundByEveryFilter) {
  Engine engine = open();
  {
    Consumer a = engine
                     .consume("orders", member("a"),
                              [](Delivery& delivery) {
                                const std::string payload(delivery.payload());
                                throw HandlerError(payload == "1" ? "First" : "Second",
                                                   "number " + payload + " failed at 0xdeadbeef");
                              })
                     .value();
    publish_numbers(engine, "orders", 3);
    publish_numbers(engine, "orders", 1, 100);
    ASSERT_TRUE(eventually([&] { return dead_letters(engine, "orders").size() == 4; }));
    ASSERT_OK(a.close());
  }
  make_dead_letters(engine, "others", 2);
  close(engine);
  engine = open();
  const auto count = [&](auto&& change) {
    DeadLetterQuery query;
    change(query);
    return engine.dead_letters(query).value().items.size();
  };
  EXPECT_EQ(count([](DeadLetterQuery&) {}), 6U);
  EXPECT_EQ(count([](DeadLetterQuery& q) { q.topic = "orders"; }), 4U);
  EXPECT_EQ(count([](DeadLetterQuery& q) { q.group = "a"; }), 4U);
  EXPECT_EQ(count([](DeadLetterQuery& q) { q.error_type = "First"; }), 1U);
  EXPECT_EQ(count([](DeadLetterQuery& q) { q.text = "number 100"; }), 1U) << "in the error message";
  EXPECT_EQ(count([](DeadLetterQuery& q) { q.text = "NUMBER"; }), 0U) << "byte for byte";
  EXPECT_EQ(count([](DeadLetterQuery& q) { q.text = "%"; }), 0U) << "no wildcards";
  EXPECT_EQ(count([](DeadLetterQuery& q) { q.reason = DeadLetterReason::kManual; }), 2U);
  EXPECT_EQ(count([](DeadLetterQuery& q) { q.status = DeadLetterStatus::kPending; }), 6U);
  EXPECT_EQ(count([](DeadLetterQuery& q) { q.status = DeadLetterStatus::kResolved; }), 0U);
  EXPECT_EQ(count([](DeadLetterQuery& q) { q.topic = "orders", q.error_type = "Second"; }), 3U);
  const auto all = dead_letters(engine);
  const auto middle = std::max_element(all.begin(), all.end(), [](const DeadLetter& x, const DeadLetter& y) {
                        return x.created_at < y.created_at;
                      })->created_at;
  const auto from = count([&](DeadLetterQuery& q) { q.created_from = middle; });
  const auto until = count([&](DeadLetterQuery& q) { q.created_before = middle; });
  EXPECT_GE(from, 1U);
  EXPECT_EQ(from + until, 6U) << "from is inclusive, before is exclusive";
  EXPECT_EQ(engine.statistics().value().dead_letters[0], 6U);
}

TEST_P(DeadLetters, Conf35_EntriesOfOneCauseShareAFingerprint) {
  Engine engine = open();
  Consumer consumer =
      engine
          .consume("orders", member(),
                   [](Delivery& delivery) {
                     const std::string payload(delivery.payload());
                     if (payload == "9") throw HandlerError("Other", "something else");
                     throw HandlerError("NotFound", "no row " + payload + "17 at 0x7ffd" + payload);
                   })
          .value();
  publish_numbers(engine, "orders", 10);
  ASSERT_TRUE(eventually([&] { return dead_letters(engine, "orders").size() == 10; }));
  const auto groups = engine.dead_letter_groups().value();
  ASSERT_EQ(groups.size(), 2U);
  std::map<std::string, std::uint64_t> counts;
  for (const DeadLetterGroup& group : groups) {
    counts[group.error_type] = group.count;
    EXPECT_EQ(group.topic, "orders");
    EXPECT_LE(group.first_at, group.last_at);
    DeadLetterQuery query;
    query.fingerprint = group.fingerprint;
    EXPECT_EQ(engine.dead_letters(query).value().items.size(), group.count);
  }
  EXPECT_EQ(counts, (std::map<std::string, std::uint64_t>{{"NotFound", 9}, {"Other", 1}}));
}

TEST_P(DeadLetters, Conf35_WithoutKeepingTheOriginalOnlyTheFactsStay) {
  Engine engine = open();
  ConsumerOptions options = member();
  options.dead_letters.keep_original = false;
  Recorder seen;
  std::atomic<bool> broken{true};
  Consumer consumer = engine
                          .consume("orders", options,
                                   [&](Delivery& delivery) {
                                     if (broken) throw HandlerError("Broken", "always");
                                     seen.add(delivery);
                                   })
                          .value();
  ASSERT_TRUE(engine.publish({.topic = "orders", .payload = "secret", .headers = {{"h", "v"}}}).acked());
  ASSERT_TRUE(eventually([&] { return dead_letters(engine, "orders").size() == 1; }));
  const DeadLetter entry = dead_letters(engine, "orders")[0];
  EXPECT_TRUE(entry.payload.empty());
  EXPECT_TRUE(entry.headers.empty());
  EXPECT_EQ(entry.error_type, "Broken");
  EXPECT_FALSE(engine.redrive(entry.id).ok()) << "there is nothing to send";
  broken = false;
  RedriveOptions redrive;
  redrive.payload = "replaced";
  ASSERT_OK(engine.redrive(entry.id, redrive));
  ASSERT_TRUE(seen.reaches(1));
  EXPECT_EQ(seen.payloads(), std::vector<std::string>{"replaced"});
}

TEST_P(DeadLetters, Conf35_WithoutDeadLettersAFailureIsDiscardedAndCounted) {
  Engine engine = open();
  ConsumerOptions options = member();
  options.dead_letters.enabled = false;
  Consumer consumer =
      engine.consume("orders", options, [](Delivery&) { throw HandlerError("Broken"); }).value();
  ASSERT_TRUE(engine.publish({.topic = "orders", .payload = "p"}).acked());
  ASSERT_TRUE(eventually([&] { return consumer.statistics().discarded == 1; }));
  EXPECT_TRUE(dead_letters(engine).empty());
  EXPECT_EQ(waiting(engine, "orders"), 0U);
}

TEST_P(DeadLetters, Conf39_PagingMissesNothingAndShowsNothingTwiceWhileEntriesCome) {
  Engine engine = open();
  const int count = scaled(1000);
  make_dead_letters(engine, "orders", count);
  std::map<std::string, int> seen;
  DeadLetterQuery query;
  query.topic = "orders";
  query.count_max = 70;
  int pages = 0;
  do {
    const Page<DeadLetter> page = engine.dead_letters(query).value();
    EXPECT_LE(page.items.size(), 70U);
    for (const DeadLetter& entry : page.items)
      ++seen[entry.payload];
    query.cursor = page.cursor;
    if (++pages % 4 == 1) make_dead_letters(engine, "orders", 5, 10000 + 5 * pages);
    ASSERT_LT(pages, 1000) << "the listing does not end";
  } while (!query.cursor.empty());
  for (int i = 0; i < count; ++i)
    EXPECT_EQ(seen[std::to_string(i)], 1) << i;
  for (const auto& [payload, times] : seen)
    EXPECT_EQ(times, 1) << payload;
}

TEST_P(DeadLetters, Conf39_ACursorGoesOnAfterItsEntryIsGone) {
  Engine engine = open();
  make_dead_letters(engine, "orders", 30);
  DeadLetterQuery query;
  query.topic = "orders";
  query.status = DeadLetterStatus::kPending;
  query.count_max = 10;
  Page<DeadLetter> page = engine.dead_letters(query).value();
  ASSERT_EQ(page.items.size(), 10U);
  // The last one of the page, where the cursor stands, leaves the listing.
  ASSERT_OK(engine.discard_dead_letter(page.items.back().id));
  std::set<std::string> seen;
  for (const DeadLetter& entry : page.items)
    seen.insert(entry.payload);
  query.cursor = page.cursor;
  while (!query.cursor.empty()) {
    page = engine.dead_letters(query).value();
    for (const DeadLetter& entry : page.items)
      EXPECT_TRUE(seen.insert(entry.payload).second) << entry.payload;
    query.cursor = page.cursor;
  }
  EXPECT_EQ(seen.size(), 30U);
}

TEST_P(DeadLetters, Conf41_TwoOperatorsRedriveTheSameEntriesAndEachReEntersOnce) {
  Engine engine = open();
  Engine other = open();
  const int count = scaled(1000);
  make_dead_letters(engine, "orders", count);
  Recorder seen;
  Consumer consumer = engine.consume("orders", member(), seen.handler()).value();
  DeadLetterQuery query;
  query.topic = "orders";
  RedriveReport reports[2];
  std::thread second([&] { reports[1] = other.redrive_all(query).value(); });
  reports[0] = engine.redrive_all(query).value();
  second.join();
  EXPECT_EQ(reports[0].redriven + reports[1].redriven, static_cast<std::uint64_t>(count));
  ASSERT_TRUE(seen.reaches(static_cast<std::size_t>(count)));
  EXPECT_TRUE(holds_for([&] { return seen.count() == static_cast<std::size_t>(count); }, 200ms));
  EXPECT_EQ(seen.times().size(), static_cast<std::size_t>(count));
  for (const Handled& handled : seen.all()) {
    EXPECT_EQ(handled.attempt, 1U) << "attempts start again";
    EXPECT_EQ(handled.redrives, 1U) << "and it says that it was sent back";
  }
  for (const DeadLetter& entry : dead_letters(engine, "orders")) {
    EXPECT_EQ(entry.status, DeadLetterStatus::kResolved) << entry.payload;
  }
}

TEST_P(DeadLetters, Conf41_ARedriveReachesOnlyTheGroupThatFailed) {
  Engine engine = open();
  Recorder failing, fine;
  std::atomic<bool> broken{true};
  Consumer a = engine
                   .consume("orders", member("failing"),
                            [&](Delivery& delivery) {
                              if (broken) throw HandlerError("Broken");
                              failing.add(delivery);
                            })
                   .value();
  Consumer b = engine.consume("orders", member("fine"), fine.handler()).value();
  const Receipt receipt =
      engine.publish({.topic = "orders", .payload = "p", .key = "k", .headers = {{"h", "v"}}});
  ASSERT_TRUE(receipt.acked());
  ASSERT_TRUE(eventually([&] { return dead_letters(engine).size() == 1; }));
  broken = false;
  ASSERT_OK(engine.redrive(dead_letters(engine)[0].id));
  ASSERT_TRUE(failing.reaches(1));
  EXPECT_EQ(failing.all()[0].id, receipt.id) << "the message id stays";
  EXPECT_EQ(failing.all()[0].key, "k");
  EXPECT_TRUE(holds_for([&] { return fine.count() == 1 && failing.count() == 1; }, 200ms));
  EXPECT_ERROR(engine.redrive(dead_letters(engine)[0].id), ErrorCode::kConflict) << "it is resolved already";
}

TEST_P(DeadLetters, Conf41_ARedriveCanBeTriedOutSlowedDelayedAndSentElsewhere) {
  Engine engine = open();
  make_dead_letters(engine, "orders", 10);
  DeadLetterQuery query;
  query.topic = "orders";
  RedriveOptions options;
  options.dry_run = true;
  EXPECT_EQ(engine.redrive_all(query, options).value().matched, 10U);
  EXPECT_EQ(engine.redrive_all(query, options).value().redriven, 0U);
  EXPECT_EQ(engine.statistics().value().dead_letters[0], 10U) << "a dry run changes nothing";
  Recorder seen, elsewhere;
  Consumer a = engine.consume("orders", member(), seen.handler()).value();
  Consumer b = engine.consume("repair", member(), elsewhere.handler()).value();
  options = {};
  options.rate_per_second = 20;
  options.destination = "repair";
  const support::Stopwatch watch;
  EXPECT_EQ(engine.redrive_all(query, options).value().redriven, 10U);
  ASSERT_TRUE(elsewhere.reaches(10));
  EXPECT_GE(watch.elapsed(), 350ms) << "10 entries at 20/s";
  EXPECT_EQ(seen.count(), 0U);
  ASSERT_OK(a.close());
  make_dead_letters(engine, "orders", 1, 50);
  Consumer again = engine.consume("orders", member(), seen.handler()).value();
  query.status = DeadLetterStatus::kPending;
  options = {};
  options.delay = 300ms;
  const support::Stopwatch delayed;
  EXPECT_EQ(engine.redrive_all(query, options).value().redriven, 1U);
  ASSERT_TRUE(seen.reaches(1));
  EXPECT_GE(delayed.elapsed(), 300ms);
}

TEST_P(DeadLetters, Conf41_AMessageIsSentBackOnlySoOften) {
  Engine engine = open();
  ConsumerOptions consumer_options = member();
  consumer_options.retry.max_attempts = 1;
  Consumer consumer =
      engine.consume("orders", consumer_options, [](Delivery&) { throw HandlerError("Broken"); }).value();
  ASSERT_TRUE(engine.publish({.topic = "orders", .payload = "p"}).acked());
  RedriveOptions options;
  options.redrive_max = 2;
  DeadLetterQuery pending;
  pending.status = DeadLetterStatus::kPending;
  for (std::uint32_t round = 0; round <= 2; ++round) {
    ASSERT_TRUE(eventually([&] { return engine.dead_letters(pending).value().items.size() == 1; })) << round;
    const DeadLetter entry = engine.dead_letters(pending).value().items[0];
    EXPECT_EQ(entry.reprocess_count, round);
    if (round < 2) {
      ASSERT_OK(engine.redrive(entry.id, options));
    } else {
      EXPECT_ERROR(engine.redrive(entry.id, options), ErrorCode::kLimitExceeded);
      EXPECT_EQ(engine.redrive_all(pending, options).value().passed_over, 1U);
    }
  }
}

TEST_P(DeadLetters, Conf41_AnEntryIsRedrivenAutomaticallyWhenItsPolicySaysSo) {
  Engine engine = open();
  Recorder seen;
  ConsumerOptions options = member();
  options.retry.max_attempts = 1;
  options.dead_letters.redrive_after = 100ms;
  options.dead_letters.redrive_max = 2;
  Consumer consumer = engine
                          .consume("orders", options,
                                   [&](Delivery& delivery) {
                                     seen.add(delivery);
                                     throw HandlerError("Broken");
                                   })
                          .value();
  ASSERT_TRUE(engine.publish({.topic = "orders", .payload = "p"}).acked());
  ASSERT_TRUE(seen.reaches(3)) << "the first time and two redrives";
  EXPECT_TRUE(holds_for([&] { return seen.count() == 3; }, 400ms)) << "and no more";
  EXPECT_EQ(seen.all()[2].redrives, 2U);
  EXPECT_EQ(engine.statistics().value().dead_letters[0], 1U);
}

TEST_P(DeadLetters, Conf42_EveryStateIsRemovedByAge) {
  Engine engine = open();
  make_dead_letters(engine, "orders", 10);
  const auto all = dead_letters(engine, "orders");
  ASSERT_OK(engine.redrive(all[0].id));
  ASSERT_OK(engine.discard_dead_letter(all[1].id));
  EXPECT_EQ(dead_letters(engine, "orders").size(), 10U) << "kept until the clean-up";
  close(engine);
  EngineOptions options = quick_options();
  options.dead_letter_age_max = 1s;
  engine = open(options);
  ASSERT_TRUE(eventually([&] { return dead_letters(engine, "orders").empty(); }));
  const EngineStatistics statistics = engine.statistics().value();
  for (const std::uint64_t count : statistics.dead_letters)
    EXPECT_EQ(count, 0U);
  EXPECT_GE(statistics.swept, 10U) << "removals are counted";
}

TEST_P(DeadLetters, Conf42_BeyondTheCountLimitTheOldestGo) {
  EngineOptions options = quick_options();
  options.dead_letter_count_max = 20;
  options.sweep_interval = 20ms;
  Engine engine = open(options);
  make_dead_letters(engine, "first", 15);
  ConsumerOptions consumer_options = member();
  Consumer consumer =
      engine
          .consume_outcomes({"second"}, consumer_options,
                            [](Delivery&) { return Outcome::dead_letter("made by the test"); })
          .value();
  publish_numbers(engine, "second", 15);
  ASSERT_TRUE(eventually([&] {
    return dead_letters(engine, "second").size() == 15 && dead_letters(engine, "first").size() <= 5;
  }));
  EXPECT_TRUE(holds_for([&] { return dead_letters(engine).size() == 20; }, 100ms));
}

TEST_P(DeadLetters, Conf42_AnAlertStartsAndEnds) {
  std::mutex mutex;
  std::vector<Alert> alerts;
  EngineOptions options = quick_options();
  options.alert.depth_count = 3;
  options.alert.new_fingerprint = true;
  options.alert.cooldown = 0ms;
  options.on_alert = [&](const Alert& alert) {
    const std::lock_guard guard(mutex);
    alerts.push_back(alert);
  };
  Engine engine = open(options);
  const auto count = [&](Alert::Kind kind, bool recovered) {
    const std::lock_guard guard(mutex);
    return std::count_if(alerts.begin(), alerts.end(), [&](const Alert& alert) {
      return alert.kind == kind && alert.recovered == recovered;
    });
  };
  make_dead_letters(engine, "orders", 5);
  EXPECT_TRUE(eventually([&] { return count(Alert::Kind::kDepth, false) >= 1; }));
  EXPECT_TRUE(eventually([&] { return count(Alert::Kind::kNewFingerprint, false) == 1; }));
  EXPECT_EQ(count(Alert::Kind::kDepth, true), 0);
  for (const DeadLetter& entry : dead_letters(engine))
    ASSERT_OK(engine.discard_dead_letter(entry.id));
  EXPECT_TRUE(eventually([&] { return count(Alert::Kind::kDepth, true) >= 1; }));
  close(engine);
}

}  // namespace
}  // namespace towline::conformance
