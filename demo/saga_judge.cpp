// What the outside world shows of each saga is compared with what the plan asks for, and with what the
// ledgers say. The world has the times, because it has what a killed process could not write down any more.

#include "saga_judge.hpp"

#include <algorithm>
#include <map>

#include <fmt/format.h>

namespace towline::demo {
namespace {

/// What is known of one saga.
struct SagaStory {
  std::map<std::string, std::vector<const SagaEffect*>> effects;  ///< by part, in the order of time
  std::map<std::string, std::set<std::string>> claims;            ///< by part: who wrote that it did it
};

class SagaJudge {
 public:
  SagaJudge(const Evidence& evidence, const std::set<std::string>& killed, Verdict& verdict)
      : evidence_(evidence), killed_(killed), verdict_(verdict) {}
  void run();

 private:
  void sort_evidence();
  void judge_effects(const PlannedOrder& planned, const SagaStory& story);
  void judge_end(const PlannedOrder& planned, const SagaStory& story);
  void judge_order(const PlannedOrder& planned, const SagaStory& story);
  void judge_agreement(const PlannedOrder& planned, const SagaStory& story);
  void count(const PlannedOrder& planned, const SagaStory& story);
  void find(Breach breach, const PlannedOrder& planned, std::string text) {
    verdict_.findings.push_back({breach, planned.order.id, std::move(text)});
  }

  const Evidence& evidence_;
  const std::set<std::string>& killed_;
  Verdict& verdict_;
  std::map<std::uint32_t, SagaStory> stories_;
};

void SagaJudge::sort_evidence() {
  const std::size_t count = evidence_.plan->orders.size();
  for (const auto& effect : evidence_.saga_effects) {
    if (effect.number < count) {
      stories_[effect.number].effects[effect.part].push_back(&effect);
    } else {
      verdict_.findings.push_back(
          {Breach::kPhantom, {}, fmt::format("{} was done for an order that is not planned", effect.key)});
    }
  }
  for (const auto& [source, record] : evidence_.testimonies) {
    if (record.what != What::kStep || record.number >= count) continue;
    if (record.duplicate) {
      ++verdict_.sagas.asked_again;
      continue;
    }
    const std::string prefix = saga_key(record.number, "");
    const bool known = record.key.starts_with(prefix);
    stories_[record.number].claims[known ? record.key.substr(prefix.size()) : record.key].insert(source);
  }
}

/// Nothing twice, nothing that is not asked for, and each under its key.
void SagaJudge::judge_effects(const PlannedOrder& planned, const SagaStory& story) {
  const auto expected = planned.fate.saga.expected();
  for (const auto& [part, effects] : story.effects) {
    const auto claims = story.claims.find(part);
    const std::size_t claimed = claims == story.claims.end() ? 0 : claims->second.size();
    if (effects.size() > 1 || claimed > 1) {
      find(Breach::kSagaTwice, planned,
           fmt::format("{} was done {} times", part, std::max(effects.size(), claimed)));
    }
    if (std::find(expected.begin(), expected.end(), part) == expected.end())
      find(Breach::kSagaAstray, planned, fmt::format("{} was done and must not be", part));
    for (const auto* effect : effects) {
      if (effect->key == saga_key(planned.number, part)) continue;
      find(Breach::kDisagreement, planned, fmt::format("{} was done under the key {}", part, effect->key));
    }
  }
}

void SagaJudge::judge_end(const PlannedOrder& planned, const SagaStory& story) {
  std::string missing;
  for (const auto& part : planned.fate.saga.expected()) {
    if (story.effects.contains(part)) continue;
    missing += (missing.empty() ? "" : ", ") + part;
    const std::string step = part.substr(0, part.find('/'));
    if (part.ends_with("/compensate") && story.effects.contains(step + "/execute"))
      find(Breach::kSagaNotUndone, planned, fmt::format("its saga is undone, but for {}", step));
  }
  if (missing.empty()) {
    verdict_.sagas.ended += planned.fate.saga.wanted ? 1 : 0;
  } else {
    find(Breach::kSagaNotEnded, planned, fmt::format("its saga lacks {}", missing));
  }
}

/// Steps one after the other, then back the same way.
void SagaJudge::judge_order(const PlannedOrder& planned, const SagaStory& story) {
  const SagaEffect* last = nullptr;
  for (const auto& part : planned.fate.saga.expected()) {
    const auto found = story.effects.find(part);
    if (found == story.effects.end()) continue;
    const SagaEffect* effect = found->second.front();
    if (last != nullptr && effect->at_us < last->at_us) {
      find(Breach::kSagaOrder, planned,
           fmt::format("{} was done {} us before {}", part, last->at_us - effect->at_us, last->part));
    }
    last = effect;
  }
}

void SagaJudge::judge_agreement(const PlannedOrder& planned, const SagaStory& story) {
  for (const auto& [part, effects] : story.effects) {
    const auto claims = story.claims.find(part);
    for (const auto* effect : effects) {
      const bool claimed = claims != story.claims.end() && claims->second.contains(effect->worker);
      if (claimed || killed_.contains(effect->worker)) continue;
      find(Breach::kDisagreement, planned,
           fmt::format("{} was done by {}, whose ledger does not know it and which was not killed", part,
                       effect->worker));
    }
  }
  for (const auto& [part, sources] : story.claims) {
    const auto effects = story.effects.find(part);
    for (const auto& source : sources) {
      const bool there = effects != story.effects.end() &&
                         std::any_of(effects->second.begin(), effects->second.end(),
                                     [&](const SagaEffect* one) { return one->worker == source; });
      if (!there)
        find(Breach::kDisagreement, planned,
             fmt::format("{} did {}, and the world shows nothing of it", source, part));
    }
  }
}

void SagaJudge::count(const PlannedOrder& planned, const SagaStory& story) {
  if (!planned.fate.saga.wanted) return;
  ++verdict_.sagas.planned;
  verdict_.sagas.undone += planned.fate.saga.refused_at.empty() ? 0 : 1;
  std::set<std::string> workers;
  for (const auto& [part, effects] : story.effects) {
    for (const auto* effect : effects)
      workers.insert(effect->worker);
  }
  verdict_.sagas.handed_over += workers.size() > 1 ? 1 : 0;
}

void SagaJudge::run() {
  sort_evidence();
  for (const auto& planned : evidence_.plan->orders) {
    const SagaStory& story = stories_[planned.number];
    count(planned, story);
    judge_effects(planned, story);
    judge_end(planned, story);
    judge_order(planned, story);
    judge_agreement(planned, story);
  }
}

}  // namespace

void judge_sagas(const Evidence& evidence, const std::set<std::string>& killed, Verdict& verdict) {
  SagaJudge(evidence, killed, verdict).run();
}

}  // namespace towline::demo
