// What a step does is done in the outside world first and written to the ledger then; a process that is
// killed in between is asked for it again, under the same key.

#include "saga_steps.hpp"

#include <nlohmann/json.hpp>

#include "common.hpp"

namespace towline::demo {

Saga SagaSteps::saga() {
  SagaStepOptions options;
  options.classify.permanent_types = {"OrderRefused"};
  for (auto* retry : {&options.retry, &options.compensation_retry}) {
    // The death of a process counts as an attempt, and processes are killed here.
    retry->max_attempts = 20;
    retry->initial_delay = kRetryFirst;
  }
  SagaOptions together;
  together.concurrency = options_.concurrency;
  Saga saga{std::string(kSagaType), 1, together};
  const auto call_run = [this](SagaCall& call) { run(call); };
  for (const auto step : kSagaSteps)
    saga.step(std::string(step), call_run, call_run, options);
  return saga;
}

void SagaSteps::fail(const SagaCall& call, std::uint32_t number, const char* type, const char* text) const {
  ledger_.append({.what = What::kStepFail,
                  .number = number,
                  .at_us = wall_us(),
                  .attempt = call.attempt(),
                  .text = text,
                  .key = call.key()});
  throw HandlerError(type, text);
}

void SagaSteps::take_effect(const SagaCall& call, std::uint32_t number, const std::string& part) {
  Record record{.what = What::kStep, .number = number, .at_us = wall_us(), .attempt = call.attempt()};
  record.key = call.key();
  const auto taken = world_.take_effect({number, part, call.key(), options_.name, record.at_us});
  if (taken.ok()) {
    record.duplicate = !*taken;
    return ledger_.append(record);
  }
  record.what = What::kTrouble;
  record.text = taken.error().to_string();
  ledger_.append(record);
  throw HandlerError("WorldUnavailable", record.text);
}

void SagaSteps::run(SagaCall& call) {
  const auto order = nlohmann::json::parse(call.context());
  const std::uint32_t number = order.at("order");
  const bool executes = call.phase() == SagaPhase::kExecute;
  const std::string part = call.step() + (executes ? "/execute" : "/compensate");
  pretend_to_work(options_, number, call.attempt());
  if (order.at("fails_once") == part && call.attempt() == 1)
    fail(call, number, "ServiceUnavailable", "the service did not answer");
  const bool refused = executes && order.at("refused_at") == call.step();
  if (!refused || order.at("refused_late").get<bool>()) take_effect(call, number, part);
  if (refused) fail(call, number, "OrderRefused", "the order is refused");
}

}  // namespace towline::demo
