#pragma once
// The verdict: what the plan demanded against what the ledgers and the table of effects show. A pure function
// of the evidence, so that the self-test can plant breaches and see each of them named.
//
// What is judged, for every order of the plan:
//   lost               acknowledged, or never acknowledged, and neither an effect nor a dead letter
//   duplicate effects  more than one row in the table of effects
//   early              a handler began, or an effect was committed, before the due time
//   order violations   among the orders of one customer, without the delayed and the dead ones, an effect was
//                      committed after the effect of a later order. A delayed order asks to be later, and a
//                      dead one has no effect, so neither has a place in that order.
//   dead letters       exactly the orders whose handlers always fail, each once, with the bytes that were
//   published, its
//                      customer as key, and the attempts of the retry policy
// for every saga:
//   not ended          something that the plan asks for was not done, or not undone
//   done twice         a step, or its compensation, took effect more than once
//   not undone         a step of a refused saga took effect and was not compensated
//   out of order       the steps take effect one after the other and are undone in reverse
// and what must hold for the evidence to be worth anything: workers in every language booked orders and were
// killed, orders were begun in one and booked in another, ledgers and table agree (a row without a ledger
// record is explained by a kill only), payloads arrived as sent, attempts were counted, second publishes
// answered with the first id, nothing waits at the end, no order came from nowhere, and every planned kill
// happened, most of them into work in progress.

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "effects.hpp"
#include "ledger.hpp"
#include "plan.hpp"
#include "saga.hpp"

namespace towline::demo {

/// One entry of the engine's dead-letter listing.
struct ListedDeadLetter {
  std::uint32_t number = 0;
  std::uint32_t attempt = 0;
  bool exhausted = false;
  std::string customer;
  std::int64_t payload_hash = 0;
};

/// One record and the process life that wrote it.
struct Testimony {
  std::string source;
  Record record;
};

struct Kill {
  std::string name;  ///< of the process life
  bool worker = false;
};

struct Evidence {
  const Plan* plan = nullptr;
  std::vector<Testimony> testimonies;  ///< in the order of each source; sources in any order
  std::vector<EffectRow> effects;      ///< in commit order
  std::vector<SagaEffect> saga_effects;
  std::vector<ListedDeadLetter> dead_letters;
  std::vector<std::string> left_over;  ///< what the engine still holds, one sentence each
  std::vector<Kill> kills;
  std::size_t kills_planned = 0;
  /// Whether half of the worker kills must have hit a handler that ran. Not with a handful of orders.
  bool kills_must_hit = false;
  std::vector<std::string> languages;  ///< of the workers of this run
  std::size_t languages_known = 0;     ///< of the demo
  /// Whether each of them must have booked an order and have been killed. Not with a handful of orders.
  bool languages_must_act = false;
};

enum class Breach : std::uint8_t {
  kLost,
  kDuplicateEffect,
  kEarly,
  kOrderViolation,
  kSagaNotEnded,
  kSagaTwice,
  kSagaNotUndone,
  kSagaOrder,
  kDeadLetterMissing,
  kDeadLetterSurplus,
  kDeadLetterAltered,
  kSagaAstray,
  kPhantom,
  kPayloadAltered,
  kAttemptsWrong,
  kDedupWrong,
  kDisagreement,
  kTrouble,
  kLeftOver,
  kInconclusive
};
inline constexpr std::size_t kBreachCount = 20;

[[nodiscard]] std::string_view name_of(Breach breach);

struct Finding {
  Breach breach = Breach::kLost;
  std::string order_id;  ///< empty when it is not about one order
  std::string text;
};

/// What the workers in one language did.
struct LanguageShare {
  std::string name;
  std::size_t effects = 0;
  std::size_t kills = 0;
};

/// What became of the sagas.
struct SagaShare {
  std::size_t planned = 0;
  std::size_t ended = 0;        ///< with everything that the plan asks for
  std::size_t undone = 0;       ///< of the planned ones: must be undone
  std::size_t handed_over = 0;  ///< more than one process had a hand in it
  std::size_t asked_again = 0;  ///< parts that were asked for once more, under a key that was known
};

struct Verdict {
  std::vector<Finding> findings;
  std::size_t dead_letters_found = 0;  ///< of those that must be there
  std::size_t dead_letters_planned = 0;
  std::size_t kills = 0;
  std::size_t kills_into_work = 0;  ///< worker kills that left a handler unfinished
  std::vector<LanguageShare> languages;
  std::size_t languages_known = 0;
  SagaShare sagas;
  std::size_t handed_over = 0;  ///< orders that were begun in one language and booked in another

  [[nodiscard]] bool pass() const { return findings.empty(); }
  [[nodiscard]] std::size_t count(Breach breach) const;
  /// "SAGAS    500/500  not ended 0  done twice 0 ..."; empty without sagas
  [[nodiscard]] std::string saga_line() const;
  /// "VERDICT  lost 0  duplicate effects 0 ...  PASS"
  [[nodiscard]] std::string line() const;
  /// The first `per_kind` findings of each kind, one line each.
  [[nodiscard]] std::vector<std::string> first_findings(std::size_t per_kind) const;
};

[[nodiscard]] Verdict judge(const Evidence& evidence);

}  // namespace towline::demo
