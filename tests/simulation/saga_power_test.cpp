// A saga on a SQLite file whose power goes at each single write and sync of its life, one after the other,
// none left out. Another engine opens what is left and goes on, now and then to lose its power as well, and a
// ledger that no engine knows of says what the steps really did.

#include <algorithm>
#include <deque>
#include <map>

#include <gtest/gtest.h>

#include "drivers/sqlite/sqlite.hpp"
#include "engine/core.hpp"
#include "saga/record.hpp"
#include "simulation/clock.hpp"
#include "simulation/crash_vfs.hpp"

namespace towline::simulation {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint64_t kForEver = UINT64_MAX;

struct Deed {
  std::string step;
  SagaPhase phase = SagaPhase::kExecute;
  std::uint32_t attempt = 0;
  bool succeeded = false;
};
using Ledger = std::vector<Deed>;

/// What a saga is, and how it must end.
struct Script {
  const char* name;
  SagaDefinition definition;
  /// Whether that attempt fails.
  std::function<bool(const SagaCall&)> fails;
  SagaStatus end;
};

SagaStep step_of(const char* name, std::int64_t attempts = 5) {
  SagaStep step;
  step.name = name;
  for (RetryOptions* retry : {&step.options.retry, &step.options.compensation_retry}) {
    retry->kind = BackoffKind::kFixed;
    retry->max_attempts = attempts;
    retry->initial_delay = milliseconds(100);
  }
  step.options.classify.permanent_types = {"Never"};
  return step;
}

std::vector<Script> scripts() {
  std::vector<Script> all;
  const auto add = [&](const char* name, std::vector<std::vector<SagaStep>> stages,
                       std::function<bool(const SagaCall&)> fails, SagaStatus end) {
    SagaDefinition definition;
    definition.type = "order";
    definition.stages = std::move(stages);
    all.push_back({name, std::move(definition), std::move(fails), end});
  };
  const auto executes = [](const SagaCall& call, const char* step) {
    return call.phase() == SagaPhase::kExecute && call.step() == step;
  };
  add(
      "Happy", {{step_of("a")}, {step_of("b")}, {step_of("c")}}, [](const SagaCall&) { return false; },
      SagaStatus::kCompleted);
  add(
      "Failing", {{step_of("a")}, {step_of("b")}, {step_of("c")}},
      [executes](const SagaCall& call) { return executes(call, "c"); }, SagaStatus::kCompensated);
  SagaStep pivot = step_of("b"), last = step_of("c", 100);
  pivot.options.pivot = true;
  pivot.compensates = last.compensates = false;
  add(
      "Pivot", {{step_of("a")}, {pivot}, {last}},
      [executes](const SagaCall& call) { return executes(call, "c") && call.attempt() < 3; },
      SagaStatus::kCompleted);
  add(
      "Parallel", {{step_of("a")}, {step_of("b"), step_of("c")}},
      [executes](const SagaCall& call) {
        return executes(call, "b") || (call.phase() == SagaPhase::kCompensate && call.attempt() == 1);
      },
      SagaStatus::kCompensated);
  return all;
}

/// One engine on the disk, stepped by hand.
class Engine {
 public:
  Engine(CrashDisk& disk, WorldTime& time, const Script& script, Ledger& ledger)
      : machine_(disk, true),
        time_(time),
        script_(script),
        ledger_(ledger),
        clock_(std::make_shared<ProcessClock>(time)) {
    spi::DriverOptions options;
    options.location = "store.db";
    options.parameters = {{"vfs", machine_.name()}};
    options.clock = clock_;
    options.threads = false;
    auto opened = drivers::open_sqlite(options);
    if (!opened) return;
    provider_ = std::move(*opened);
    EngineOptions engine;
    engine.lease = seconds(2);
    core_ = engine::Core::create(engine, provider_, clock_, 7, false);
    SagaRemote remote;
    remote.deliver = [this](std::span<SagaCall> calls) {
      held_.insert(held_.end(), calls.begin(), calls.end());
    };
    auto runner = core_->run_saga(script_.definition, std::move(remote), nullptr);
    if (!runner) return;
    runner_ = std::move(*runner);
    consumer_ = core_->consumers().front();
    handler_ = runner_->handler();
  }
  ~Engine() {
    if (core_ != nullptr) core_->abandon();
  }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  [[nodiscard]] bool lives() const { return runner_ != nullptr && machine_.alive(); }
  [[nodiscard]] engine::Core& core() { return *core_; }
  [[nodiscard]] const spi::Provider& provider() const { return provider_; }
  [[nodiscard]] std::optional<SagaInfo> find() {
    return provider_.store->find_saga("order", "o").value_or(std::nullopt);
  }

  /// Until the saga has ended and nothing comes any more, or the power has gone.
  void play() {
    for (int idle = 0; lives() && idle < 60;) {
      core_->step_keeper();
      core_->step_scheduler();
      consumer_->step(time_.monotonic);
      while (auto delivery = consumer_->take_one())
        handler_.deliver({&*delivery, 1});
      runner_->step(time_.monotonic);
      if (lives() && run()) continue;
      time_.advance(milliseconds(500));
      const auto saga = lives() ? find() : std::nullopt;
      idle += saga && is_final(saga->status) ? 10 : 1;
    }
  }

 private:
  bool run() {
    if (held_.empty()) return false;
    SagaCall call = std::move(held_.front());
    held_.pop_front();
    const bool fails = script_.fails(call);
    ledger_.push_back({call.step(), call.phase(), call.attempt(), !fails});
    if (call.step() == "a" && call.phase() == SagaPhase::kExecute) {
      Message message;
      message.topic = "t";
      message.payload = "from a";
      const bool published = call.publish(std::move(message)).ok();
      EXPECT_TRUE(published || !lives()) << "which writes a new topic down";
    }
    const bool for_good =
        fails && call.phase() == SagaPhase::kExecute && script_.end == SagaStatus::kCompensated;
    engine::SagaRunner::finish(
        call, fails ? Outcome::fail({for_good ? "Never" : "Trouble", "no luck", {}}) : Outcome::ack());
    return true;
  }

  CrashMachine machine_;
  WorldTime& time_;
  const Script& script_;
  Ledger& ledger_;
  const std::shared_ptr<ProcessClock> clock_;
  spi::Provider provider_;
  std::shared_ptr<engine::Core> core_;
  std::shared_ptr<engine::SagaRunner> runner_;
  std::shared_ptr<engine::ConsumerCore> consumer_;
  RemoteHandler handler_;
  std::deque<SagaCall> held_;
};

std::unique_ptr<spi::Subscription> subscribe(const spi::Provider& provider) {
  spi::SubscribeOptions options;
  options.patterns = {"t"};
  options.matches = [](std::string_view topic) { return topic == "t"; };
  options.group = "readers";
  options.lease = seconds(1);
  return provider.transport->subscribe(options).value();
}

/// What a step has published, that nobody has taken yet.
std::size_t count_messages(const spi::Provider& provider, const WorldTime& time) {
  const auto reader = subscribe(provider);
  spi::ReceiveRequest request;
  request.count_max = 100;
  request.deadline = time.monotonic;
  return reader->receive(request)->deliveries.size();
}

void judge(const Script& script, const Ledger& ledger, std::size_t deaths) {
  std::map<std::pair<std::string, SagaPhase>, std::size_t> wins, runs;
  std::map<std::tuple<std::string, SagaPhase, std::uint32_t>, std::size_t> calls;
  for (const Deed& deed : ledger) {
    ++runs[{deed.step, deed.phase}];
    wins[{deed.step, deed.phase}] += deed.succeeded ? 1 : 0;
    EXPECT_EQ((++calls[{deed.step, deed.phase, deed.attempt}]), 1U) << deed.step << deed.attempt;
  }
  for (const auto& [key, count] : wins)
    EXPECT_LE(count, 1 + deaths) << key.first << ": more often than processes died";
  std::size_t undone = ledger.size();
  for (const auto& stage : script.definition.stages) {
    for (const SagaStep& step : stage) {
      const bool ran = runs[{step.name, SagaPhase::kExecute}] > 0;
      const std::size_t undoings = wins[{step.name, SagaPhase::kCompensate}];
      if (script.end == SagaStatus::kCompleted) {
        EXPECT_GE((wins[{step.name, SagaPhase::kExecute}]), 1U) << step.name;
        EXPECT_EQ((runs[{step.name, SagaPhase::kCompensate}]), 0U) << step.name;
      } else if (ran) {
        EXPECT_GE(undoings, 1U) << step.name << " is not undone";
      }
    }
  }
  // Nothing is done any more when the first thing is undone.
  for (std::size_t i = 0; i < ledger.size(); ++i) {
    if (ledger[i].phase == SagaPhase::kCompensate) undone = std::min(undone, i);
    EXPECT_FALSE(ledger[i].phase == SagaPhase::kExecute && i > undone) << ledger[i].step;
  }
}

/// The saga's life with the power cut after so many deeds of the disk; false: it ended before. What becomes
/// of that which was not synced is drawn by the seed.
bool live(const Script& script, std::uint64_t deeds, std::uint64_t seed) {
  SCOPED_TRACE(std::string(script.name) + ", power cut after " + std::to_string(deeds) + " deeds, seed " +
               std::to_string(seed));
  Dice dice(base::derive_seed(deeds, seed));
  CrashDisk disk(dice.next());
  WorldTime time;
  Ledger ledger;
  bool is_acked = false, was_cut = false;
  std::size_t deaths = 0;
  {
    Engine first(disk, time, script, ledger);
    const auto reader = subscribe(first.provider());
    disk.cut_power_after(deeds);
    is_acked = first.core().sagas().start(script.definition, "o", "context").ok();
    first.play();
    was_cut = !first.lives();
  }
  if (was_cut) ++deaths;
  disk.power_loss(dice.next());
  if (was_cut && dice.chance(0.5)) {
    disk.cut_power_after(dice.below(80));
    {
      Engine second(disk, time, script, ledger);
      second.play();
      deaths += second.lives() ? 0 : 1;
    }
    disk.power_loss(dice.next());
  }
  time.advance(seconds(3));
  Engine last(disk, time, script, ledger);
  EXPECT_TRUE(last.lives());
  if (!last.lives()) return was_cut;
  last.play();
  const auto saga = last.find();
  EXPECT_TRUE(saga || !is_acked) << "it was begun, and it is gone";
  EXPECT_TRUE(saga || ledger.empty());
  if (!saga) return was_cut;
  EXPECT_EQ(saga->status, script.end) << saga->error;
  judge(script, ledger, deaths);
  const auto log = last.core().sagas().timeline("order", "o");
  EXPECT_TRUE(log.ok());
  EXPECT_EQ(count_messages(last.provider(), time), 1U) << "once with its step's outcome";
  return was_cut;
}

class SagaOnACrashDisk : public testing::TestWithParam<std::size_t> {};

TEST_P(SagaOnACrashDisk, EndsWholeOrUndoneWhereverThePowerGoes) {
  const Script script = scripts()[GetParam()];
  std::uint64_t deeds = 0;
  while (live(script, deeds, 1) && live(script, deeds, 2) && !HasFailure())
    ++deeds;
  EXPECT_GT(deeds, 100U) << "each write of its life, and each sync";
  EXPECT_FALSE(live(script, kForEver, 1));
}

INSTANTIATE_TEST_SUITE_P(Simulation, SagaOnACrashDisk, testing::Range<std::size_t>(0, 4),
                         [](const auto& tested) { return std::string(scripts()[tested.param].name); });

}  // namespace
}  // namespace towline::simulation
