// Each case forges one thing in what the sagas have left.

#include "saga_cases.hpp"

#include <algorithm>

namespace towline::demo {
namespace {

constexpr std::int64_t kBetweenUs = 1000;

/// The first saga that was refused where `refused_at` says; empty: that was not refused.
const PlannedOrder& saga_where(const Evidence& evidence, const std::string& refused_at) {
  return *std::find_if(evidence.plan->orders.begin(), evidence.plan->orders.end(),
                       [&](const PlannedOrder& planned) {
                         const SagaFate& saga = planned.fate.saga;
                         // Not the one whose worker is killed: what it lacks is explained by that.
                         return saga.wanted && saga.refused_at == refused_at && planned.number > 100;
                       });
}

SagaEffect& effect_of(Evidence& evidence, const PlannedOrder& planned, const std::string& part) {
  return *std::find_if(
      evidence.saga_effects.begin(), evidence.saga_effects.end(),
      [&](const SagaEffect& effect) { return effect.number == planned.number && effect.part == part; });
}

void erase(Evidence& evidence, const PlannedOrder& planned, const std::string& part, bool from_world,
           bool from_ledger) {
  const std::string key = saga_key(planned.number, part);
  if (from_world) std::erase_if(evidence.saga_effects, [&](const SagaEffect& one) { return one.key == key; });
  if (!from_ledger) return;
  std::erase_if(evidence.testimonies, [&](const Testimony& testimony) {
    return testimony.record.what == What::kStep && testimony.record.key == key;
  });
}

Case without(const char* name, Breach breach, const char* refused_at, const char* part, bool from_world,
             bool from_ledger) {
  return {name, breach, [=](Evidence& e) {
            const auto& planned = saga_where(e, refused_at);
            erase(e, planned, part, from_world, from_ledger);
            return planned.order.id;
          }};
}

Case out_of_order(const char* name, const char* first, const char* second) {
  return {name, Breach::kSagaOrder, [=](Evidence& e) {
            const auto& planned = saga_where(e, "ship");
            std::swap(effect_of(e, planned, first).at_us, effect_of(e, planned, second).at_us);
            return planned.order.id;
          }};
}

}  // namespace

void run_saga_cleanly(Evidence& evidence, const PlannedOrder& planned, std::int64_t at_us,
                      const std::string& worker, const std::string& killed) {
  bool dies = !killed.empty();
  for (const auto& part : planned.fate.saga.expected()) {
    const std::string key = saga_key(planned.number, part);
    at_us += kBetweenUs;
    evidence.saga_effects.push_back({planned.number, part, key, dies ? killed : worker, at_us});
    Record record{.what = What::kStep, .number = planned.number, .at_us = at_us, .attempt = 1};
    record.attempt = dies ? 2 : 1;
    record.duplicate = dies;
    record.key = key;
    evidence.testimonies.push_back({worker, std::move(record)});
    dies = false;
  }
}

std::vector<Case> saga_cases() {
  return {
      without("a saga that did not end", Breach::kSagaNotEnded, "", "ship/execute", true, true),
      without("a saga that was not begun to be undone", Breach::kSagaNotEnded, "charge", "charge/compensate",
              true, true),
      without("a step that was not undone", Breach::kSagaNotUndone, "ship", "reserve/compensate", true, true),
      without("a step that vanished", Breach::kDisagreement, "", "charge/execute", true, false),
      without("a step that no ledger explains", Breach::kDisagreement, "", "charge/execute", false, true),
      out_of_order("a saga that is undone in the wrong order", "charge/compensate", "reserve/compensate"),
      out_of_order("a step that is undone before it is done", "charge/execute", "charge/compensate"),
      {"a step that is done twice, under another key", Breach::kSagaTwice,
       [](Evidence& e) {
         const auto& planned = saga_where(e, "");
         SagaEffect again = effect_of(e, planned, "charge/execute");
         again.key += "-2";
         again.at_us += 1;
         e.saga_effects.push_back(again);
         return planned.order.id;
       }},
      {"a step that two processes have done", Breach::kSagaTwice,
       [](Evidence& e) {
         const auto& planned = saga_where(e, "");
         const std::string key = saga_key(planned.number, "charge/execute");
         auto found = std::find_if(e.testimonies.begin(), e.testimonies.end(), [&](const Testimony& one) {
           return one.record.what == What::kStep && one.record.key == key;
         });
         Testimony other = *found;
         other.source = "cpp-7.1";
         e.testimonies.push_back(std::move(other));
         return planned.order.id;
       }},
      {"a saga that is undone for nothing", Breach::kSagaAstray,
       [](Evidence& e) {
         const auto& planned = saga_where(e, "");
         SagaEffect undone = effect_of(e, planned, "ship/execute");
         undone.part = "ship/compensate";
         undone.key = saga_key(planned.number, undone.part);
         Record record{.what = What::kStep, .number = planned.number, .at_us = undone.at_us, .attempt = 1};
         record.key = undone.key;
         e.testimonies.push_back({undone.worker, std::move(record)});
         e.saga_effects.push_back(std::move(undone));
         return planned.order.id;
       }},
      {"a saga of an order that has none", Breach::kSagaAstray,
       [](Evidence& e) {
         const auto& planned = *std::find_if(e.plan->orders.begin(), e.plan->orders.end(),
                                             [](const PlannedOrder& one) { return !one.fate.saga.wanted; });
         SagaFate forged;
         forged.wanted = true;
         PlannedOrder order = planned;
         order.fate.saga = forged;
         run_saga_cleanly(e, order, 0, "cpp-1.1");
         return planned.order.id;
       }},
      {"a saga of no order", Breach::kPhantom,
       [](Evidence& e) {
         SagaEffect effect = e.saga_effects.front();
         effect.number = 1'000'000;
         e.saga_effects.push_back(effect);
         return std::string();
       }},
  };
}

}  // namespace towline::demo
