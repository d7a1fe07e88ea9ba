// Drawing a plan. Every number is drawn whether or not a reduction hides it.

#include "simulation/plan.hpp"

#include <algorithm>

#include "simulation/dice.hpp"

namespace towline::simulation {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

void draw_engine(Plan& plan, Dice& dice) {
  EngineOptions& engine = plan.engine;
  engine.lease = dice.pick<Duration>({milliseconds(200), seconds(1), seconds(5), seconds(20)});
  engine.partition_count = dice.pick<std::int64_t>({1, 2, 4, 8, 64});
  engine.promote_count_max = dice.pick<std::int64_t>({1, 3, 1000});
  engine.in_flight_count_max = dice.pick<std::int64_t>({1, 5, 65536, 65536});
  engine.dedup_window = std::chrono::hours(24);
  engine.sweep_interval = dice.pick<Duration>({milliseconds(10), seconds(1)});
  engine.catch_up_rate_per_second = dice.pick<std::int64_t>({0, 0, 0, 50});
}

RetryOptions draw_retry(Dice& dice) {
  RetryOptions retry;
  retry.kind = dice.pick(
      {BackoffKind::kFixed, BackoffKind::kLinear, BackoffKind::kExponential, BackoffKind::kFibonacci});
  retry.max_attempts = dice.pick<std::int64_t>({1, 2, 3, 6});
  retry.initial_delay =
      dice.pick<Duration>({retry.kind == BackoffKind::kFixed ? Duration(0) : milliseconds(1),
                           milliseconds(10), milliseconds(500)});
  retry.delay_max = dice.pick<Duration>({milliseconds(500), seconds(2)});
  retry.jitter = dice.pick({JitterKind::kNone, JitterKind::kProportional, JitterKind::kFull,
                            JitterKind::kEqual, JitterKind::kDecorrelated});
  retry.budget_ratio = dice.pick({1.0, 1.0, 0.2});
  return retry;
}

ConsumerOptions draw_consumer(const Plan& plan, Dice& dice) {
  ConsumerOptions options;
  options.concurrency = dice.pick<std::int64_t>({1, 1, 2, 5});
  options.prefetch_count = dice.pick<std::int64_t>({0, 1, 4, 50});
  options.order = dice.pick({Order::kUnordered, Order::kKeyOrdered, Order::kPartitionOrdered});
  options.on_key_failure = dice.pick({KeyFailure::kBlockKey, KeyFailure::kParkKey, KeyFailure::kSkip});
  if (options.order == Order::kUnordered) options.on_key_failure = KeyFailure::kBlockKey;
  options.handler_timeout = dice.pick<Duration>({milliseconds(100), seconds(2), seconds(30)});
  options.rate_per_second = dice.pick<std::int64_t>({0, 0, 0, 100});
  options.parked_count_max = dice.pick<std::int64_t>({2, 100000, 100000});
  options.retry = draw_retry(dice);
  options.classify.permanent_types = {"Permanent"};
  options.breaker.enabled = dice.chance(0.3);
  options.breaker.throughput_min = dice.pick<std::int64_t>({1, 5});
  options.breaker.open = dice.pick<Duration>({milliseconds(50), seconds(2)});
  options.breaker.sampling = seconds(10);
  options.breaker.probe_count = dice.pick<std::int64_t>({1, 3});
  options.dead_letters.max_crashes = dice.pick<std::int64_t>({1, 2, 3});
  options.dead_letters.keep_original = true;
  const bool manual = dice.chance(0.2);
  const bool first = dice.chance(0.1);
  if (manual) options.ack = AckPolicy::kManual;
  if (first && options.order == Order::kUnordered) options.ack = AckPolicy::kFirst;
  const bool inbox = dice.chance(0.25);
  if (inbox) options.inbox_window = std::chrono::hours(1);
  if (dice.chance(0.1)) options.prefetch_bytes_max = 64;
  (void)plan;
  return options;
}

void draw_faults(Plan& plan, Dice& dice) {
  for (std::size_t i = 0; i < kFaultOfDisk; ++i) {
    FaultPlan& fault = plan.faults[i];
    fault.on = dice.chance(0.5);
    const auto kind = static_cast<Fault>(i);
    const bool per_step = kind >= Fault::kCrash;
    fault.rate = per_step ? dice.pick({0.0002, 0.001, 0.004}) : dice.pick({0.0005, 0.003, 0.02});
    if (kind == Fault::kDieBefore || kind == Fault::kDieAfter) fault.rate *= 0.3;
  }
  // One seed in ten is quiet: what is wrong there is wrong always.
  const bool quiet = dice.chance(0.1);
  if (quiet) {
    for (FaultPlan& fault : plan.faults)
      fault.on = false;
  }
}

/// By dice of their own, so that worlds without a disk draw the same plans as with one.
void draw_disk_faults(Plan& plan) {
  Dice dice(base::derive_seed(plan.seed, 4));
  const bool quiet = std::none_of(plan.faults.begin(), plan.faults.end(), [](const auto& f) { return f.on; });
  const auto draw = [&](Fault kind, std::initializer_list<double> rates) {
    FaultPlan& fault = plan.faults[static_cast<std::size_t>(kind)];
    const bool on = dice.chance(0.5);
    fault.on = on && !quiet && plan.world == WorldKind::kSqlite;
    fault.rate = dice.pick(rates);
  };
  draw(Fault::kPowerLoss, {0.0003, 0.001, 0.004});
  draw(Fault::kDiskFull, {0.0001, 0.0005, 0.002});
  draw(Fault::kBadSync, {0.0003, 0.001, 0.003});
  draw(Fault::kBadWrite, {0.0001, 0.0005});
}

/// By dice of their own, as draw_disk_faults().
void draw_retention(Plan& plan) {
  Dice dice(base::derive_seed(plan.seed, 6));
  const bool by_count = dice.chance(0.15);
  const bool by_age = dice.chance(0.15);
  const auto count_max = dice.pick<std::int64_t>({1, 5, 20});
  const auto age_max = dice.pick<Duration>({seconds(1), seconds(30), std::chrono::minutes(5)});
  if (by_count) plan.engine.dead_letter_count_max = count_max;
  if (by_age) plan.engine.dead_letter_age_max = age_max;
}

Behaviour draw_behaviour(Dice& dice, std::uint32_t moods, const ConsumerOptions& options,
                         Duration takes_max) {
  Behaviour behaviour;
  behaviour.takes = dice.between(Duration(0), takes_max);
  if (dice.chance(0.02)) behaviour.takes += std::min<Duration>(seconds(1), options.handler_timeout * 9 / 10);
  const bool special = dice.chance(0.22);
  const auto mood = static_cast<Mood>(1 + dice.below(kMoodCount - 1));
  const std::uint32_t times = static_cast<std::uint32_t>(dice.between(1, 3));
  const bool always = dice.chance(0.25);
  const bool rare = mood == Mood::kKills || mood == Mood::kSlow;
  const bool kept = dice.chance(rare ? 0.25 : 1.0);
  if (!special || !kept || (moods >> static_cast<unsigned>(mood) & 1) == 0) return behaviour;
  behaviour.mood = mood;
  behaviour.times = always && mood != Mood::kDefers && mood != Mood::kThrottles ? kAlways : times;
  return behaviour;
}

void draw_messages(Plan& plan, Dice& dice, std::uint32_t halvings) {
  const std::uint64_t count = dice.between(200, 500) >> halvings;
  const std::uint64_t key_count = dice.pick<std::uint64_t>({1, 5, 40});
  const double keyed = dice.pick({0.0, 0.5, 1.0});
  const double delayed = dice.pick({0.0, 0.1, 0.5});
  const double deduped = dice.pick({0.0, 0.1, 0.3});
  const double mortal = dice.pick({0.0, 0.0, 0.1});
  const double urgent = dice.pick({0.0, 0.0, 0.2});
  const double own_ids = dice.pick({0.0, 1.0});
  const auto moods = static_cast<std::uint32_t>(dice.next());
  const Duration takes_max = dice.pick<Duration>({Duration(0), milliseconds(2), milliseconds(30)});
  const Duration delay_max = dice.pick<Duration>({milliseconds(100), seconds(3), seconds(20)});
  for (std::uint64_t i = 0; i < count; ++i) {
    MessagePlan message;
    message.producer = static_cast<std::uint32_t>(dice.below(plan.producer_count));
    message.topic = static_cast<std::uint32_t>(dice.below(plan.topic_count));
    if (dice.chance(keyed)) message.key = static_cast<std::int32_t>(dice.below(key_count));
    if (dice.chance(delayed)) message.delay = dice.between(Duration(1), delay_max);
    if (dice.chance(deduped)) message.dedup = static_cast<std::int32_t>(dice.below(count / 4 + 1));
    message.dedup_mode = dice.chance(0.5) ? DedupMode::kWindow : DedupMode::kWhileUnfinished;
    // One dedup id has one topic and one mode, or nobody could say what it means.
    if (message.dedup >= 0) {
      message.topic = static_cast<std::uint32_t>(message.dedup) % plan.topic_count;
      message.dedup_mode = message.dedup % 2 == 0 ? DedupMode::kWindow : DedupMode::kWhileUnfinished;
    }
    if (dice.chance(mortal)) message.ttl = dice.between(milliseconds(1), seconds(5));
    if (dice.chance(urgent)) message.priority = static_cast<std::uint8_t>(dice.between(1, 2));
    message.own_id = dice.chance(own_ids);
    for (std::size_t g = 0; g < kGroupCountMax; ++g) {
      message.behaviour[g] =
          draw_behaviour(dice, moods, plan.groups[std::min(g, plan.groups.size() - 1)].options, takes_max);
    }
    plan.messages.push_back(message);
  }
}

void draw_groups(Plan& plan, Dice& dice) {
  const std::uint64_t count = dice.between(1, kGroupCountMax);
  for (std::uint64_t g = 0; g < count; ++g) {
    GroupPlan group;
    for (std::uint32_t t = 0; t < plan.topic_count; ++t) {
      if (t == g % plan.topic_count || dice.chance(0.6)) group.topics.push_back(t);
    }
    group.options = draw_consumer(plan, dice);
    group.options.group = group_name(static_cast<std::uint32_t>(g));
    plan.groups.push_back(std::move(group));
  }
}

}  // namespace

void draw_once(Plan& plan, const Reduction& reduction) {
  Dice dice(base::derive_seed(plan.seed, 9));
  if (!dice.chance(0.35) || reduction.without_once) return;
  plan.once_client_count = static_cast<std::uint32_t>(dice.between(1, 4));
  plan.once_key_count = static_cast<std::uint32_t>(dice.pick({1, 4, 20}));
}

Plan draw_plan(std::uint64_t seed, WorldKind world, const Reduction& reduction) {
  Dice dice(base::derive_seed(seed, 1));
  Plan plan;
  plan.seed = seed;
  plan.world = world;
  draw_engine(plan, dice);
  plan.topic_count = static_cast<std::uint32_t>(dice.between(1, 3));
  plan.process_count = static_cast<std::uint32_t>(dice.between(1, 3));
  plan.producer_count = static_cast<std::uint32_t>(dice.between(1, 3));
  plan.idempotency_client_count = static_cast<std::uint32_t>(dice.pick({0, 2, 6}));
  plan.publish_batch_max = static_cast<std::uint32_t>(dice.pick({1, 4, 20}));
  plan.publish_gap_max = dice.pick<Duration>({Duration(0), milliseconds(1), milliseconds(50)});
  plan.poll_interval = dice.pick<Duration>({milliseconds(100), seconds(1)});
  plan.step_cost_max = dice.pick<Duration>({Duration(0), microseconds(50), milliseconds(1)});
  plan.operator_active = dice.chance(0.5);
  plan.membership = dice.pick({0.5, 1.0});
  plan.slowness = dice.pick({0.02, 0.3, 1.0});
  draw_groups(plan, dice);
  draw_faults(plan, dice);
  draw_disk_faults(plan);
  draw_retention(plan);
  draw_messages(plan, dice, reduction.halvings);
  draw_sagas(plan, reduction);
  draw_events(plan, reduction);
  draw_once(plan, reduction);
  for (std::size_t i = 0; i < kFaultCount; ++i) {
    if ((reduction.without >> i & 1) != 0) plan.faults[i].on = false;
  }
  // Processes that share a file share a machine, and so one wall clock.
  if (world == WorldKind::kSqlite) plan.faults[static_cast<std::size_t>(Fault::kSkew)].on = false;
  return plan;
}

const char* name_of(Fault fault) noexcept {
  switch (fault) {
    case Fault::kFailBefore:
      return "fail-before";
    case Fault::kFailAfter:
      return "fail-after";
    case Fault::kStall:
      return "stall";
    case Fault::kDieBefore:
      return "die-before";
    case Fault::kDieAfter:
      return "die-after";
    case Fault::kRefuse:
      return "refuse";
    case Fault::kCrash:
      return "crash";
    case Fault::kPause:
      return "pause";
    case Fault::kRestart:
      return "restart";
    case Fault::kRebalance:
      return "rebalance";
    case Fault::kSkew:
      return "skew";
    case Fault::kStepClock:
      return "step-clock";
    case Fault::kPowerLoss:
      return "power-loss";
    case Fault::kDiskFull:
      return "disk-full";
    case Fault::kBadSync:
      return "bad-sync";
    case Fault::kBadWrite:
      return "bad-write";
  }
  return "?";
}

const char* name_of(Mood mood) noexcept {
  switch (mood) {
    case Mood::kFine:
      return "fine";
    case Mood::kFails:
      return "fails";
    case Mood::kPermanent:
      return "permanent";
    case Mood::kNaks:
      return "naks";
    case Mood::kDefers:
      return "defers";
    case Mood::kThrottles:
      return "throttles";
    case Mood::kRejects:
      return "rejects";
    case Mood::kKills:
      return "kills";
    case Mood::kSlow:
      return "slow";
  }
  return "?";
}

std::string topic_name(std::uint32_t topic) { return "t" + std::to_string(topic); }
std::string group_name(std::uint32_t group) { return "g" + std::to_string(group); }

bool is_of_messages(std::string_view name) noexcept {
  return name.size() > 1 && (name[0] == 't' || name[0] == 'g') && name[1] >= '0' && name[1] <= '9';
}

std::uint32_t number_in(std::string_view name) noexcept {
  std::uint32_t number = 0;
  for (const char c : name) {
    if (c >= '0' && c <= '9') number = number * 10 + static_cast<std::uint32_t>(c - '0');
  }
  return number;
}

std::string describe(const Plan& plan) {
  const auto ms = [](Duration d) { return std::to_string(static_cast<double>(d.count()) / 1000.0) + "ms"; };
  std::string text = "seed " + std::to_string(plan.seed) + ": " + std::to_string(plan.messages.size()) +
                     " messages, " + std::to_string(plan.topic_count) + " topics, " +
                     std::to_string(plan.process_count) + " processes, " +
                     std::to_string(plan.producer_count) + " producers, lease " + ms(plan.engine.lease) +
                     ", partitions " + std::to_string(plan.engine.partition_count) + ", in flight at most " +
                     std::to_string(plan.engine.in_flight_count_max) + "\n";
  for (std::size_t g = 0; g < plan.groups.size(); ++g) {
    const ConsumerOptions& o = plan.groups[g].options;
    text += "  g" + std::to_string(g) + ": topics";
    for (const std::uint32_t t : plan.groups[g].topics)
      text += " t" + std::to_string(t);
    text += ", order " + std::to_string(static_cast<int>(o.order)) + ", on failure " +
            std::to_string(static_cast<int>(o.on_key_failure)) + ", ack " +
            std::to_string(static_cast<int>(o.ack)) + ", concurrency " + std::to_string(o.concurrency) +
            ", prefetch " + std::to_string(o.prefetch_count) + ", parked at most " +
            std::to_string(o.parked_count_max) + ", attempts " + std::to_string(o.retry.max_attempts) +
            ", crashes " + std::to_string(o.dead_letters.max_crashes) + ", timeout " + ms(o.handler_timeout) +
            ", inbox " + ms(o.inbox_window) + ", breaker " + (o.breaker.enabled ? "on" : "off") + "\n";
  }
  text += "  faults:";
  for (std::size_t i = 0; i < kFaultCount; ++i) {
    if (plan.faults[i].on) {
      text += std::string(" ") + name_of(static_cast<Fault>(i)) + "=" + std::to_string(plan.faults[i].rate);
    }
  }
  return text + "\n";
}

}  // namespace towline::simulation
