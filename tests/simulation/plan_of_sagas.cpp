// Drawing the sagas of a plan: what they are made of, and what their steps will do.

#include <algorithm>

#include "simulation/dice.hpp"
#include "simulation/plan.hpp"

namespace towline::simulation {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr double kHasSagas = 0.35;
constexpr Duration kTakesMax = milliseconds(30);

RetryOptions draw_retry(Dice& dice, std::initializer_list<std::int64_t> attempts) {
  RetryOptions retry;
  retry.kind = BackoffKind::kFixed;
  retry.jitter = JitterKind::kNone;
  retry.max_attempts = dice.pick(attempts);
  retry.initial_delay = dice.pick<Duration>({Duration(0), milliseconds(50), seconds(1)});
  return retry;
}

SagaStep draw_step(Dice& dice, std::size_t number) {
  SagaStep step;
  step.name = std::string(1, static_cast<char>('a' + number));
  SagaStepOptions& options = step.options;
  options.timeout = dice.pick<Duration>({milliseconds(300), seconds(2), seconds(10)});
  options.retry = draw_retry(dice, {1, 2, 3});
  options.compensation_retry = draw_retry(dice, {2, 4, 8});
  options.classify.permanent_types = {"Permanent"};
  options.undo_unknown = dice.chance(0.15);
  const bool changes_nothing = dice.chance(0.1);
  const bool commands = dice.chance(0.25), commands_back = dice.chance(0.5);
  if (changes_nothing) {
    options.changes_nothing = true;
    step.compensates = false;
  }
  if (!commands) return step;
  options.command = kCommandTopic;
  if (commands_back && step.compensates) options.compensation_command = kCommandTopic;
  return step;
}

SagaDefinition draw_definition(Dice& dice, std::uint32_t type) {
  SagaDefinition definition;
  definition.type = "saga" + std::to_string(type);
  definition.options.concurrency = dice.pick<std::int64_t>({1, 3, 16});
  definition.options.deadline = dice.pick<Duration>({Duration(0), Duration(0), seconds(2), seconds(8)});
  const std::uint64_t stages = dice.between(1, 4);
  const bool has_pivot = dice.chance(0.4);
  const std::uint64_t pivot = dice.below(stages);
  std::size_t number = 0;
  for (std::uint64_t i = 0; i < stages; ++i) {
    const bool is_parallel = dice.chance(0.3) && !(has_pivot && i == pivot);
    std::vector<SagaStep>& stage = definition.stages.emplace_back();
    for (int branch = 0; branch < (is_parallel ? 2 : 1); ++branch)
      stage.push_back(draw_step(dice, number++));
    if (!has_pivot || i < pivot) continue;
    for (SagaStep& step : stage) {
      step.options.pivot = i == pivot;
      step.compensates = false;
      step.options.compensation_command.clear();
    }
  }
  return definition;
}

Behaviour draw_behaviour(Dice& dice, double fine) {
  Behaviour behaviour;
  behaviour.takes = dice.between(Duration(0), kTakesMax);
  const bool is_fine = dice.chance(fine);
  const Mood mood = dice.pick(
      {Mood::kFails, Mood::kFails, Mood::kPermanent, Mood::kNaks, Mood::kDefers, Mood::kKills, Mood::kSlow});
  const auto times = static_cast<std::uint32_t>(dice.between(1, 3));
  const bool always = dice.chance(0.5) && mood != Mood::kDefers && mood != Mood::kKills;
  if (is_fine) return behaviour;
  behaviour.mood = mood;
  behaviour.times = always ? kAlways : times;
  return behaviour;
}

SagaPlan draw_saga(Dice& dice, const SagaDefinition& definition, std::uint32_t type) {
  SagaPlan saga;
  saga.type = type;
  saga.starts_after = dice.between(Duration(0), milliseconds(500));
  saga.starts_twice = dice.chance(0.3);
  saga.is_contested = dice.chance(0.15);
  const bool is_cancelled = dice.chance(0.15);
  const Duration cancelled_after = dice.between(Duration(1), seconds(1));
  if (is_cancelled) saga.cancelled_after = cancelled_after;
  const double fine = dice.pick({0.6, 0.9, 1.0});
  for (std::size_t i = 0; i < steps_of(definition).size(); ++i) {
    SagaStepPlan& step = saga.steps.emplace_back();
    step.execute = draw_behaviour(dice, fine);
    step.compensate = draw_behaviour(dice, 0.85);
  }
  return saga;
}

}  // namespace

void draw_sagas(Plan& plan, const Reduction& reduction) {
  Dice dice(base::derive_seed(plan.seed, 7));
  if (!dice.chance(kHasSagas) || reduction.without_sagas) return;
  const std::uint64_t types = dice.between(1, 2);
  for (std::uint32_t type = 0; type < types; ++type)
    plan.saga_types.push_back(draw_definition(dice, type));
  const std::uint64_t count = dice.between(1, 20) >> reduction.halvings;
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto type = static_cast<std::uint32_t>(dice.below(types));
    plan.sagas.push_back(draw_saga(dice, plan.saga_types[type], type));
  }
}

std::string saga_id(std::uint32_t saga) { return "s" + std::to_string(saga); }
std::string saga_context(std::uint32_t saga) { return saga_id(saga) + ":"; }

std::vector<const SagaStep*> steps_of(const SagaDefinition& definition) {
  std::vector<const SagaStep*> steps;
  for (const std::vector<SagaStep>& stage : definition.stages) {
    for (const SagaStep& step : stage)
      steps.push_back(&step);
  }
  return steps;
}

}  // namespace towline::simulation
