// Judges one run. First the evidence is sorted by order, then each rule looks at it on its own.

#include "verdict.hpp"

#include <algorithm>
#include <array>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

#include "common.hpp"
#include "languages.hpp"
#include "saga_judge.hpp"

namespace towline::demo {
namespace {

constexpr std::array<std::string_view, kBreachCount> kBreachNames = {"lost",
                                                                     "duplicate effect",
                                                                     "early",
                                                                     "order violation",
                                                                     "saga not ended",
                                                                     "saga step done twice",
                                                                     "saga step not undone",
                                                                     "saga out of order",
                                                                     "dead letter missing",
                                                                     "dead letter surplus",
                                                                     "dead letter altered",
                                                                     "saga astray",
                                                                     "phantom",
                                                                     "payload altered",
                                                                     "attempts wrong",
                                                                     "dedup wrong",
                                                                     "ledger and table disagree",
                                                                     "trouble",
                                                                     "left over",
                                                                     "inconclusive"};

/// What is known of one order.
struct Story {
  bool acked = false;
  std::string message_id;
  std::int64_t due_us = 0;
  std::vector<const Testimony*> starts;
  std::set<std::string> effect_sources;  ///< who wrote that the effect was committed
  std::vector<const EffectRow*> rows;
  std::vector<const ListedDeadLetter*> dead_letters;
};

class Judge {
 public:
  explicit Judge(const Evidence& evidence) : evidence_(evidence), stories_(evidence.plan->orders.size()) {
    for (const auto& kill : evidence.kills)
      killed_.insert(kill.name);
  }
  Verdict run();

 private:
  void hear(const Testimony& testimony);
  void hear_receipt(const Testimony& testimony, Story& story);
  void sort_evidence();
  void judge_place(const PlannedOrder& planned, const Story& story);
  void judge_time(const PlannedOrder& planned, const Story& story);
  void judge_handling(const PlannedOrder& planned, const Story& story);
  void judge_agreement(const PlannedOrder& planned, const Story& story);
  void judge_dead_letter(const PlannedOrder& planned, const Story& story);
  void judge_order();
  void judge_run();
  void judge_languages(std::size_t worker_kills);
  [[nodiscard]] std::size_t kills_into_work() const;

  void find(Breach breach, const PlannedOrder& planned, std::string text) {
    verdict_.findings.push_back({breach, planned.order.id, std::move(text)});
  }
  void find(Breach breach, std::string text) { verdict_.findings.push_back({breach, {}, std::move(text)}); }

  const Evidence& evidence_;
  std::vector<Story> stories_;
  std::set<std::string> killed_;
  Verdict verdict_;
};

void Judge::hear_receipt(const Testimony& testimony, Story& story) {
  const Record& record = testimony.record;
  const auto& planned = evidence_.plan->orders[record.number];
  if (!story.message_id.empty() && story.message_id != record.message_id) {
    find(Breach::kDedupWrong, planned,
         fmt::format("was given two ids, {} and {}", story.message_id, record.message_id));
  }
  if (record.what == What::kAgain && !record.duplicate) {
    find(Breach::kDedupWrong, planned,
         "was published again, and the receipt does not say that it is a duplicate");
  }
  if (record.what == What::kAcked) {
    story.acked = true;
    if (record.customer != planned.order.customer || record.sequence != planned.sequence) {
      find(Breach::kDisagreement, planned,
           fmt::format("was published by {} as another order", testimony.source));
    }
  }
  story.message_id = record.message_id;
}

void Judge::hear(const Testimony& testimony) {
  const Record& record = testimony.record;
  if (record.what == What::kKilled) return;
  if (record.number >= stories_.size()) {
    find(Breach::kPhantom,
         fmt::format("{} speaks of order number {}, which is not planned", testimony.source, record.number));
    return;
  }
  Story& story = stories_[record.number];
  switch (record.what) {
    case What::kPublish:
      if (record.due_us != 0) story.due_us = record.due_us;
      break;
    case What::kAcked:
    case What::kAgain:
      hear_receipt(testimony, story);
      break;
    case What::kStart:
      story.starts.push_back(&testimony);
      break;
    case What::kEffect:
      story.effect_sources.insert(testimony.source);
      break;
    case What::kTrouble:
      find(Breach::kTrouble, evidence_.plan->orders[record.number],
           fmt::format("in {}, attempt {}: {}", testimony.source, record.attempt, record.text));
      break;
    default:
      break;
  }
}

void Judge::sort_evidence() {
  for (const auto& testimony : evidence_.testimonies)
    hear(testimony);
  for (const auto& row : evidence_.effects) {
    if (row.number < stories_.size()) {
      stories_[row.number].rows.push_back(&row);
    } else {
      find(Breach::kPhantom, fmt::format("the effect in row {} is of order number {}, which is not planned",
                                         row.id, row.number));
    }
  }
  for (const auto& entry : evidence_.dead_letters) {
    if (entry.number < stories_.size()) {
      stories_[entry.number].dead_letters.push_back(&entry);
    } else {
      find(Breach::kDeadLetterSurplus,
           fmt::format("a dead letter is of order number {}, which is not planned", entry.number));
    }
  }
}

/// Every order is in exactly one place at the end: one effect, or one dead letter.
void Judge::judge_place(const PlannedOrder& planned, const Story& story) {
  const bool dead = planned.fate.dead();
  if (!story.acked) find(Breach::kLost, planned, "was never acknowledged to its publisher");
  if (story.acked && story.rows.empty() && story.dead_letters.empty()) {
    find(Breach::kLost, planned,
         fmt::format("was acknowledged as {} and has neither an effect nor a dead letter ({} starts)",
                     story.message_id, story.starts.size()));
  }
  if (story.rows.size() > 1) {
    std::string where;
    for (const auto* row : story.rows)
      where += fmt::format("{}row {} by {}", where.empty() ? "" : ", ", row->id, row->worker);
    find(Breach::kDuplicateEffect, planned, fmt::format("has {} effects: {}", story.rows.size(), where));
  }
  if (dead && !story.rows.empty()) {
    find(Breach::kDisagreement, planned,
         fmt::format("must always fail and has an effect in row {}", story.rows[0]->id));
  }
  if (dead && story.dead_letters.empty())
    find(Breach::kDeadLetterMissing, planned, "must be a dead letter and is not");
  if (!dead && !story.dead_letters.empty()) {
    find(Breach::kDeadLetterSurplus, planned,
         fmt::format("is a dead letter after {} attempts and must not be", story.dead_letters[0]->attempt));
  }
  if (dead && story.dead_letters.size() > 1) {
    find(Breach::kDeadLetterSurplus, planned, fmt::format("has {} dead letters", story.dead_letters.size()));
  }
  if (dead && !story.dead_letters.empty()) ++verdict_.dead_letters_found;
}

void Judge::judge_time(const PlannedOrder& planned, const Story& story) {
  if (planned.fate.delay.count() != 0 && story.acked && story.due_us == 0) {
    find(Breach::kDisagreement, planned, "must be delayed and was published without a due time");
  }
  const auto late_enough = [&](std::int64_t at_us, const std::string& who) {
    if (at_us >= story.due_us) return true;
    find(Breach::kEarly, planned,
         fmt::format("was handled by {} {} us before it was due", who, story.due_us - at_us));
    return false;
  };
  for (const auto* start : story.starts) {
    if (!late_enough(start->record.at_us, start->source)) return;
  }
  for (const auto* row : story.rows) {
    if (!late_enough(row->at_us, row->worker)) return;
  }
}

void Judge::judge_handling(const PlannedOrder& planned, const Story& story) {
  const auto hash = hash_of(planned.order.line);
  for (const auto* start : story.starts) {
    if (start->record.payload_hash != hash) {
      find(Breach::kPayloadAltered, planned,
           fmt::format("reached {} with other bytes than were published", start->source));
    }
    if (start->record.attempt == 0 || start->record.attempt > kAttemptsMax) {
      find(Breach::kAttemptsWrong, planned,
           fmt::format("was tried as attempt {} of {}", start->record.attempt, kAttemptsMax));
    }
  }
  for (const auto* row : story.rows) {
    if (row->payload_hash != hash || row->order_id != planned.order.id ||
        row->customer != planned.order.customer || row->total_cents != planned.order.total_cents) {
      find(Breach::kPayloadAltered, planned, fmt::format("was booked in row {} as something else", row->id));
    }
    if (!planned.fate.dead() && row->attempt != planned.fate.failure_count + 1) {
      find(Breach::kAttemptsWrong, planned,
           fmt::format("took effect in attempt {}; {} planned failures come before it", row->attempt,
                       planned.fate.failure_count));
    }
  }
}

void Judge::judge_agreement(const PlannedOrder& planned, const Story& story) {
  std::set<std::string> workers;
  for (const auto* row : story.rows) {
    workers.insert(row->worker);
    if (story.effect_sources.contains(row->worker)) continue;
    // A worker may die after its commit and before its ledger record. Then it must have begun.
    const bool began = std::any_of(story.starts.begin(), story.starts.end(),
                                   [&](const Testimony* start) { return start->source == row->worker; });
    if (!began) {
      find(Breach::kDisagreement, planned,
           fmt::format("has an effect by {}, which never began it", row->worker));
    } else if (!killed_.contains(row->worker)) {
      find(Breach::kDisagreement, planned,
           fmt::format("has an effect by {}, whose ledger does not know it and which was not killed",
                       row->worker));
    }
  }
  for (const auto& source : story.effect_sources) {
    if (workers.contains(source)) continue;
    find(Breach::kDisagreement, planned,
         fmt::format("was committed by {}, and the table has no such row", source));
  }
}

void Judge::judge_dead_letter(const PlannedOrder& planned, const Story& story) {
  if (!planned.fate.dead() || story.dead_letters.empty()) return;
  const auto& entry = *story.dead_letters.front();
  if (entry.payload_hash != hash_of(planned.order.line))
    find(Breach::kDeadLetterAltered, planned, "has other bytes than were published");
  if (entry.customer != planned.order.customer)
    find(Breach::kDeadLetterAltered, planned, "has another key than was published");
  if (!entry.exhausted || entry.attempt != kAttemptsMax) {
    find(Breach::kDeadLetterAltered, planned,
         fmt::format("became a dead letter after {} attempts{}; {} failures must come first", entry.attempt,
                     entry.exhausted ? "" : " for another reason", kAttemptsMax));
  }
}

void Judge::judge_order() {
  std::unordered_map<std::string, const PlannedOrder*> last;
  std::set<std::uint32_t> seen;
  for (const auto& row : evidence_.effects) {
    if (row.number >= stories_.size() || !seen.insert(row.number).second) continue;
    const auto& planned = evidence_.plan->orders[row.number];
    if (planned.fate.dead() || planned.fate.delay.count() != 0) continue;
    const PlannedOrder*& latest = last[planned.order.customer];
    if (latest != nullptr && planned.sequence < latest->sequence) {
      find(Breach::kOrderViolation, planned,
           fmt::format("was published before order {} of customer {} and took effect after it",
                       latest->order.id, planned.order.customer));
    } else {
      latest = &planned;
    }
  }
}

std::size_t Judge::kills_into_work() const {
  // Per process life: the handlings that began and did not end, whatever their end was.
  std::map<std::string, std::set<std::pair<std::uint32_t, std::uint32_t>>> open;
  for (const auto& [source, record] : evidence_.testimonies) {
    const std::pair handling{record.number, record.attempt};
    if (record.what == What::kStart) {
      open[source].insert(handling);
    } else if (record.what == What::kEffect || record.what == What::kFail || record.what == What::kVoid ||
               record.what == What::kTrouble) {
      open[source].erase(handling);
    }
  }
  return static_cast<std::size_t>(
      std::count_if(evidence_.kills.begin(), evidence_.kills.end(), [&](const Kill& kill) {
        const auto found = open.find(kill.name);
        return kill.worker && found != open.end() && !found->second.empty();
      }));
}

void Judge::judge_run() {
  for (const auto& text : evidence_.left_over)
    find(Breach::kLeftOver, text);
  verdict_.kills = evidence_.kills.size();
  verdict_.kills_into_work = kills_into_work();
  if (verdict_.kills < evidence_.kills_planned) {
    find(Breach::kInconclusive,
         fmt::format("{} of {} planned kills happened", verdict_.kills, evidence_.kills_planned));
  }
  const auto worker_kills = static_cast<std::size_t>(std::count_if(
      evidence_.kills.begin(), evidence_.kills.end(), [](const Kill& kill) { return kill.worker; }));
  if (evidence_.kills_must_hit && verdict_.kills_into_work * 2 < worker_kills) {
    find(Breach::kInconclusive, fmt::format("only {} of {} killed workers had an order in hand",
                                            verdict_.kills_into_work, worker_kills));
  }
  judge_languages(worker_kills);
}

/// What workers in one language could do alone would show nothing of the others.
void Judge::judge_languages(std::size_t worker_kills) {
  verdict_.languages_known = evidence_.languages_known;
  for (const auto& story : stories_) {
    const bool handed_over =
        std::any_of(story.starts.begin(), story.starts.end(), [&](const Testimony* start) {
          return !story.rows.empty() && language_of(start->source) != language_of(story.rows[0]->worker);
        });
    verdict_.handed_over += handed_over ? 1 : 0;
  }
  for (const auto& name : evidence_.languages) {
    LanguageShare share{name, 0, 0};
    for (const auto& row : evidence_.effects)
      share.effects += language_of(row.worker) == name ? 1 : 0;
    for (const auto& kill : evidence_.kills)
      share.kills += kill.worker && language_of(kill.name) == name ? 1 : 0;
    if (evidence_.languages_must_act && share.effects == 0)
      find(Breach::kInconclusive, fmt::format("the workers in {} booked nothing", name));
    if (evidence_.languages_must_act && share.kills == 0 && worker_kills >= evidence_.languages.size())
      find(Breach::kInconclusive, fmt::format("no worker in {} was killed", name));
    verdict_.languages.push_back(std::move(share));
  }
  if (evidence_.languages_must_act && evidence_.languages.size() > 1 && verdict_.handed_over == 0)
    find(Breach::kInconclusive, "no order was begun in one language and booked in another");
}

Verdict Judge::run() {
  sort_evidence();
  verdict_.dead_letters_planned = evidence_.plan->dead_count();
  for (const auto& planned : evidence_.plan->orders) {
    const Story& story = stories_[planned.number];
    judge_place(planned, story);
    judge_time(planned, story);
    judge_handling(planned, story);
    judge_agreement(planned, story);
    judge_dead_letter(planned, story);
  }
  judge_order();
  judge_sagas(evidence_, killed_, verdict_);
  judge_run();
  return std::move(verdict_);
}

}  // namespace

Verdict judge(const Evidence& evidence) { return Judge(evidence).run(); }

std::string_view name_of(Breach breach) { return kBreachNames.at(static_cast<std::size_t>(breach)); }

std::size_t Verdict::count(Breach breach) const {
  return static_cast<std::size_t>(std::count_if(
      findings.begin(), findings.end(), [&](const Finding& finding) { return finding.breach == breach; }));
}

std::string Verdict::saga_line() const {
  if (sagas.planned == 0) return {};
  return fmt::format("SAGAS    {}/{}  not ended {}  done twice {}  not undone {}  out of order {}",
                     sagas.ended, sagas.planned, count(Breach::kSagaNotEnded), count(Breach::kSagaTwice),
                     count(Breach::kSagaNotUndone), count(Breach::kSagaOrder));
}

std::string Verdict::line() const {
  std::string text =
      fmt::format("VERDICT  lost {}  duplicate effects {}  early {}  order violations {}  dead letters {}/{}",
                  count(Breach::kLost), count(Breach::kDuplicateEffect), count(Breach::kEarly),
                  count(Breach::kOrderViolation), dead_letters_found, dead_letters_planned);
  // The others are named only when there is something to name.
  constexpr auto kFirstOther = static_cast<std::size_t>(Breach::kDeadLetterMissing);
  for (std::size_t i = kFirstOther; i < kBreachCount; ++i) {
    const std::size_t found = count(static_cast<Breach>(i));
    if (found != 0) text += fmt::format("  {} {}", kBreachNames[i], found);
  }
  return text + fmt::format("  languages {}/{}  kills {}  {}", languages.size(), languages_known, kills,
                            pass() ? "PASS" : "FAIL");
}

std::vector<std::string> Verdict::first_findings(std::size_t per_kind) const {
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < kBreachCount; ++i) {
    const auto breach = static_cast<Breach>(i);
    std::size_t shown = 0;
    for (const auto& finding : findings) {
      if (finding.breach != breach || shown == per_kind) continue;
      ++shown;
      const std::string who = finding.order_id.empty() ? "" : fmt::format("order {} ", finding.order_id);
      lines.push_back(fmt::format("{}: {}{}", kBreachNames[i], who, finding.text));
    }
    const std::size_t found = count(breach);
    if (found > shown) lines.push_back(fmt::format("{}: ... and {} more", kBreachNames[i], found - shown));
  }
  return lines;
}

}  // namespace towline::demo
