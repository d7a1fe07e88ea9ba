// FLT-11: each call of the engine to its provider fails now and then, having done nothing or having done
// everything. In the end nothing acknowledged may be missing, and whatever was handled twice must have said
// so.

#include <mutex>

#include "drivers/sqlite/sqlite.hpp"
#include "engine/core.hpp"
#include "faults/child.hpp"
#include "faults/experiment.hpp"
#include "faults/flaky.hpp"

namespace towline::faults {
namespace {

class LostAnswers : public Experiment {
 protected:
  std::shared_ptr<engine::Core> open_flaky(const std::shared_ptr<Mischief>& mischief) {
    EngineOptions options;
    options.lease = 500ms;
    options.sweep_interval = 50ms;
    options.publish_timeout = 5s;
    spi::DriverOptions driver;
    driver.location = database();
    driver.clock = system_clock();
    const spi::Provider inner = drivers::open_sqlite(driver).value();
    spi::Provider flaky{std::make_shared<FlakyStore>(inner.store, mischief),
                        std::make_shared<FlakyTransport>(inner.transport, mischief),
                        {}};
    return engine::Core::create(std::move(options), std::move(flaky), driver.clock, seed(), true);
  }

  void handle(Delivery& delivery) {
    const Item item = parse_item(delivery.payload());
    Note note{.at_us = monotonic_us(),
              .what = "start",
              .group = std::string(delivery.group()),
              .number = item.number,
              .attempt = delivery.attempt(),
              .redelivered = delivery.redelivered(),
              .text = item.key + " " + std::to_string(item.sequence)};
    notes().note(note);
    const bool fails = (item.kind == "once" && delivery.attempt() == 1) || item.kind == "always";
    note.what = fails ? "failed" : "done";
    note.at_us = monotonic_us();
    notes().note(note);
    if (fails) throw HandlerError("Planned", "as planned");
  }

  /// One publisher: its messages, some of them delayed. What is unknown stays so.
  void publish(engine::Core& core, std::int64_t count) {
    for (std::int64_t n = 0; n < count; ++n) {
      const std::string kind = n % 50 == 20 ? "once" : n % 200 == 30 ? "always" : "ok";
      const Item item{n, n % 3 == 0 ? "-" : "k" + std::to_string(n % 40), n, kind};
      notes().note("invoke", n, kind);
      Message message;
      message.topic = kTopic;
      message.payload = to_payload(item, 100);
      if (item.key != "-") message.key = item.key;
      // A delayed message asks to be later, so it has no key here.
      if (item.key == "-" && n % 5 == 0) message.delay = 50ms;
      const Receipt receipt = core.publisher().publish(std::move(message));
      const char* what = receipt.acked()                                ? "acked"
                         : receipt.outcome == PublishOutcome::kRejected ? "rejected"
                                                                        : "unknown";
      notes().note(what, n, receipt.error.message);
    }
  }
};

TEST_F(LostAnswers, Flt11_CallsThatFailAfterTheyHaveWorkedLoseAndDoubleNothing) {
  TOWLINE_EXPERIMENT("FLT-11");
  const std::int64_t count = sized<std::int64_t>(2000, 20'000);
  const auto mischief = std::make_shared<Mischief>(seed(), 0.05, 0.05);
  auto core = open_flaky(mischief);
  ConsumerOptions member = member_options({});
  member.order = Order::kKeyOrdered;
  member.concurrency = 4;
  member.retry.max_attempts = 3;
  auto consumer = core->consume(
      {kTopic}, member, engine::AnyHandler(Handler([this](Delivery& delivery) { handle(delivery); })));
  ASSERT_TRUE(consumer.ok()) << consumer.error().to_string();
  publish(*core, count);
  mischief->heal();
  // The healed rest: everything comes to its end.
  Engine healthy = open();
  const bool rested = drained(healthy, 60s);
  const Held held = held_by(healthy);
  EXPECT_TRUE(rested) << held.to_string();
  ASSERT_TRUE(core->close(5s).ok());

  history().read();
  Expectation expected;
  expected.key_ordered = true;
  expected.attempts_max = 3;
  expected.only_kills_explain = false;
  std::map<std::int64_t, int> dead;
  for (const DeadLetter& entry : held.dead_letters)
    ++dead[parse_item(entry.payload).number];
  for (const auto& [number, times] : dead) {
    EXPECT_EQ(times, 1) << "message " << number << " is a dead letter twice";
    EXPECT_EQ(number % 200, 30) << "message " << number << " must not be a dead letter";
    expected.dead.insert(number);
  }
  const Judgement judged = judge(history().notes(), expected);
  std::uint64_t before = 0, after = 0;
  for (const auto& [call, times] : mischief->counts())
    (call.ends_with("-before") ? before : after) += times;
  print("FLT-11 execute_and_timeout", judged.to_string() + ",\"calls\":" + std::to_string(mischief->calls()) +
                                          ",\"failed_before\":" + std::to_string(before) +
                                          ",\"failed_after\":" + std::to_string(after) +
                                          ",\"unknown\":" + std::to_string(history().count("unknown")) +
                                          ",\"dead\":" + std::to_string(dead.size()));
  expect_clean(judged);
  EXPECT_GT(after, 20U);
  EXPECT_LE(judged.duplicates, (before + after) * 8) << "more than what was in hand at each failure";
}

}  // namespace
}  // namespace towline::faults
