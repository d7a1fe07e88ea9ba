// The evidence of a clean run is made up from the plan by what a faultless engine would do; it goes through
// ledger files and back, so the writing and reading of ledgers is on trial too. Then one thing is changed per
// case.

#include "self_test.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <vector>

#include <fmt/format.h>

#include "common.hpp"
#include "languages.hpp"
#include "saga_cases.hpp"
#include "verdict.hpp"

namespace towline::demo {
namespace {

constexpr std::size_t kOrderCount = 400;
constexpr std::int64_t kEpochUs = 1'767'225'600'000'000;
constexpr const char* kKilledWorker = "cpp-0.1";
constexpr std::array<const char*, 3> kWorkers = {"cpp-1.1", "python-2.1", "node-3.1"};

std::vector<Order> make_orders() {
  std::vector<Order> orders;
  for (std::size_t i = 0; i < kOrderCount; ++i) {
    const std::string id = fmt::format("T-{:04}", i);
    const std::string customer = fmt::format("C-{}", i % 37);
    const auto total_cents = static_cast<std::int64_t>(100 + i);
    orders.push_back({id, customer, total_cents,
                      fmt::format(R"({{"order_id":"{}","customer_id":"{}","total_cents":{}}})", id, customer,
                                  total_cents)});
  }
  return orders;
}

/// What a run without any breach leaves behind, with one worker killed after a commit and before its ledger
/// record.
class CleanRun {
 public:
  explicit CleanRun(const Plan& plan);
  [[nodiscard]] const Evidence& evidence() const { return evidence_; }

 private:
  void publish(const PlannedOrder& planned, std::int64_t at_us);
  void handle(const PlannedOrder& planned, std::int64_t at_us);
  void testify(const std::string& source, Record record) {
    evidence_.testimonies.push_back({source, std::move(record)});
  }

  Evidence evidence_;
  bool killed_ = false;
  bool killed_in_saga_ = false;
};

CleanRun::CleanRun(const Plan& plan) {
  evidence_.plan = &plan;
  evidence_.kills = {{kKilledWorker, true}};
  evidence_.kills_planned = 1;
  evidence_.kills_must_hit = true;
  evidence_.languages = {"cpp", "python", "node"};
  evidence_.languages_known = 3;
  evidence_.languages_must_act = true;
  std::vector<const PlannedOrder*> late;
  std::int64_t now_us = kEpochUs;
  for (const auto& planned : plan.orders) {
    publish(planned, now_us);
    if (planned.fate.delay.count() == 0) {
      handle(planned, now_us + 2000);
    } else {
      late.push_back(&planned);
    }
    now_us += 10'000;
  }
  for (const auto* planned : late)
    handle(*planned, now_us + 5'000'000);
}

void CleanRun::publish(const PlannedOrder& planned, std::int64_t at_us) {
  const std::string source = fmt::format("publisher-{}.1", planned.publisher);
  const std::string id = fmt::format("00000000-0000-7000-8000-{:012}", planned.number);
  const auto delay_us = std::chrono::microseconds(planned.fate.delay).count();
  testify(source, {.what = What::kPublish,
                   .number = planned.number,
                   .at_us = at_us,
                   .due_us = delay_us == 0 ? 0 : at_us + delay_us});
  testify(source, {.what = What::kAcked,
                   .number = planned.number,
                   .at_us = at_us + 500,
                   .message_id = id,
                   .customer = planned.order.customer,
                   .sequence = planned.sequence});
  if (!planned.fate.twice) return;
  testify(source, {.what = What::kAgain,
                   .number = planned.number,
                   .at_us = at_us + 900,
                   .duplicate = true,
                   .message_id = id});
}

void CleanRun::handle(const PlannedOrder& planned, std::int64_t at_us) {
  const std::uint32_t failures = std::min(planned.fate.failure_count, kAttemptsMax);
  const auto hash = hash_of(planned.order.line);
  const auto start = [&](const char* source, std::uint32_t attempt, std::int64_t start_us) {
    testify(source, {.what = What::kStart,
                     .number = planned.number,
                     .at_us = start_us,
                     .attempt = attempt,
                     .payload_hash = hash});
  };
  const auto worker_of = [&](std::uint32_t attempt) {
    return kWorkers.at((planned.number + attempt) % kWorkers.size());
  };
  for (std::uint32_t attempt = 1; attempt <= failures; ++attempt, at_us += 200) {
    start(worker_of(attempt), attempt, at_us);
    testify(worker_of(attempt),
            {.what = What::kFail, .number = planned.number, .at_us = at_us + 50, .attempt = attempt});
  }
  if (planned.fate.dead()) {
    evidence_.dead_letters.push_back({planned.number, kAttemptsMax, true, planned.order.customer, hash});
    return;
  }
  const bool is_last_of_killed = !killed_ && planned.number > kOrderCount / 2;
  const char* worker = is_last_of_killed ? kKilledWorker : worker_of(failures + 1);
  start(worker, failures + 1, at_us);
  evidence_.effects.push_back({static_cast<std::int64_t>(evidence_.effects.size()) + 1, planned.number,
                               planned.order.id, planned.order.customer, planned.order.total_cents,
                               failures + 1, hash, worker, at_us + 80});
  if (planned.fate.saga.wanted) {
    const std::string other = kWorkers.at(planned.number % kWorkers.size());
    run_saga_cleanly(evidence_, planned, at_us + 200, other, killed_in_saga_ ? "" : kKilledWorker);
    killed_in_saga_ = true;
  }
  if (is_last_of_killed) {
    killed_ = true;
    return;
  }
  testify(worker,
          {.what = What::kEffect, .number = planned.number, .at_us = at_us + 100, .attempt = failures + 1});
}

EffectRow& effect_of(Evidence& evidence, std::uint32_t number) {
  return *std::find_if(evidence.effects.begin(), evidence.effects.end(),
                       [&](const EffectRow& row) { return row.number == number; });
}

const PlannedOrder& first_where(const Evidence& evidence,
                                const std::function<bool(const PlannedOrder&)>& holds) {
  return *std::find_if(evidence.plan->orders.begin(), evidence.plan->orders.end(), holds);
}

bool is_plain(const PlannedOrder& planned) {
  return planned.fate.failure_count == 0 && planned.fate.delay.count() == 0 && !planned.fate.twice;
}

void erase_effect(Evidence& evidence, std::uint32_t number, bool from_table, bool from_ledger) {
  if (from_table) std::erase_if(evidence.effects, [&](const EffectRow& row) { return row.number == number; });
  if (!from_ledger) return;
  std::erase_if(evidence.testimonies, [&](const Testimony& testimony) {
    return testimony.record.number == number && testimony.record.what == What::kEffect;
  });
}

std::string plant_swap(Evidence& evidence) {
  const auto& first = first_where(evidence, is_plain);
  const auto& second = first_where(evidence, [&](const PlannedOrder& other) {
    return is_plain(other) && other.order.customer == first.order.customer && other.number > first.number;
  });
  std::swap(effect_of(evidence, first.number), effect_of(evidence, second.number));
  return first.order.id;
}

std::string plant_early(Evidence& evidence) {
  const auto& planned = first_where(
      evidence, [](const PlannedOrder& p) { return p.fate.delay.count() != 0 && !p.fate.dead(); });
  std::int64_t due_us = 0;
  for (auto& [source, record] : evidence.testimonies) {
    if (record.number != planned.number) continue;
    if (record.what == What::kPublish) due_us = record.due_us;
    if (record.what == What::kStart) record.at_us = due_us - 1;
  }
  return planned.order.id;
}

std::vector<Case> main_cases() {
  const auto dead = [](const PlannedOrder& planned) { return planned.fate.dead(); };
  return {
      {"a lost order", Breach::kLost,
       [](Evidence& e) {
         const auto& planned = first_where(e, is_plain);
         erase_effect(e, planned.number, true, true);
         return planned.order.id;
       }},
      {"an order that was never acknowledged", Breach::kLost,
       [](Evidence& e) {
         const auto& planned = first_where(e, is_plain);
         std::erase_if(e.testimonies, [&](const Testimony& testimony) {
           return testimony.record.number == planned.number && testimony.record.what == What::kAcked;
         });
         return planned.order.id;
       }},
      {"a doubled effect", Breach::kDuplicateEffect,
       [](Evidence& e) {
         EffectRow row = effect_of(e, first_where(e, is_plain).number);
         row.id = e.effects.back().id + 1;
         e.effects.push_back(row);
         return row.order_id;
       }},
      {"an early order", Breach::kEarly, plant_early},
      {"a swapped pair", Breach::kOrderViolation, plant_swap},
      {"a missing dead letter", Breach::kDeadLetterMissing,
       [dead](Evidence& e) {
         const auto& planned = first_where(e, dead);
         std::erase_if(e.dead_letters,
                       [&](const ListedDeadLetter& entry) { return entry.number == planned.number; });
         return planned.order.id;
       }},
      {"a surplus dead letter", Breach::kDeadLetterSurplus,
       [](Evidence& e) {
         const auto& planned = first_where(e, is_plain);
         e.dead_letters.push_back(
             {planned.number, kAttemptsMax, true, planned.order.customer, hash_of(planned.order.line)});
         return planned.order.id;
       }},
      {"a dead letter twice", Breach::kDeadLetterSurplus,
       [dead](Evidence& e) {
         e.dead_letters.push_back(e.dead_letters.front());
         return e.plan->orders[e.dead_letters.front().number].order.id;
       }},
  };
}

std::vector<Case> more_cases() {
  return {
      {"a dead letter with other bytes", Breach::kDeadLetterAltered,
       [](Evidence& e) {
         ++e.dead_letters.front().payload_hash;
         return e.plan->orders[e.dead_letters.front().number].order.id;
       }},
      {"a dead letter before its last attempt", Breach::kDeadLetterAltered,
       [](Evidence& e) {
         --e.dead_letters.front().attempt;
         return e.plan->orders[e.dead_letters.front().number].order.id;
       }},
      {"an effect of no order", Breach::kPhantom,
       [](Evidence& e) {
         EffectRow row = e.effects.front();
         row.number = kOrderCount + 5;
         e.effects.push_back(row);
         return std::string();
       }},
      {"a payload that changed on the way", Breach::kPayloadAltered,
       [](Evidence& e) {
         ++effect_of(e, 7).payload_hash;
         return e.plan->orders[7].order.id;
       }},
      {"an attempt that was not counted", Breach::kAttemptsWrong,
       [](Evidence& e) {
         const auto& planned =
             first_where(e, [](const PlannedOrder& p) { return p.fate.failure_count == 3; });
         --effect_of(e, planned.number).attempt;
         return planned.order.id;
       }},
      {"a second publish that was stored as new", Breach::kDedupWrong,
       [](Evidence& e) {
         for (auto& [source, record] : e.testimonies) {
           if (record.what != What::kAgain) continue;
           record.message_id = "00000000-0000-7000-8000-999999999999";
           return e.plan->orders[record.number].order.id;
         }
         return std::string("no order is published twice");
       }},
      {"a committed effect that vanished", Breach::kDisagreement,
       [](Evidence& e) {
         const auto& planned = first_where(e, is_plain);
         erase_effect(e, planned.number, true, false);
         return planned.order.id;
       }},
      {"a row that no ledger explains", Breach::kDisagreement,
       [](Evidence& e) {
         const auto& planned = first_where(e, is_plain);
         erase_effect(e, planned.number, false, true);
         return planned.order.id;
       }},
      {"something left over", Breach::kLeftOver,
       [](Evidence& e) {
         e.left_over.push_back("3 messages wait");
         return std::string();
       }},
      {"a kill that did not happen", Breach::kInconclusive,
       [](Evidence& e) {
         ++e.kills_planned;
         return std::string();
       }},
  };
}

std::vector<Case> language_cases() {
  return {
      {"a language that did nothing", Breach::kInconclusive,
       [](Evidence& e) {
         e.languages.emplace_back("cobol");
         return std::string();
       }},
      {"a language that was spared", Breach::kInconclusive,
       [](Evidence& e) {
         e.kills.resize(3, e.kills.front());
         return std::string();
       }},
      {"languages that never meet", Breach::kInconclusive,
       [](Evidence& e) {
         std::erase_if(e.testimonies, [&](const Testimony& testimony) {
           const auto row = std::find_if(e.effects.begin(), e.effects.end(), [&](const EffectRow& one) {
             return one.number == testimony.record.number;
           });
           return testimony.record.what == What::kStart && row != e.effects.end() &&
                  language_of(row->worker) != language_of(testimony.source);
         });
         return std::string();
       }},
  };
}

/// A folder for the ledgers of the self-test, removed at the end.
class Folder {
 public:
  Folder() {
    path_ = (std::filesystem::temp_directory_path() / "towline-self-test-XXXXXX").string();
    if (::mkdtemp(path_.data()) == nullptr) path_.clear();
  }
  ~Folder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Writes the testimonies to ledger files, tears the last line of one, and reads them back.
Result<std::vector<Testimony>> through_ledgers(const std::vector<Testimony>& testimonies) {
  const Folder folder;
  std::map<std::string, Ledger> ledgers;
  for (const auto& [source, record] : testimonies) {
    auto found = ledgers.find(source);
    if (found == ledgers.end()) {
      auto ledger = Ledger::create(folder.path() + "/" + source + ".jsonl");
      if (!ledger.ok()) return ledger.error();
      found = ledgers.emplace(source, std::move(*ledger)).first;
    }
    found->second.append(record);
  }
  std::ofstream(folder.path() + "/" + kKilledWorker + ".jsonl", std::ios::app) << R"({"what":"effect","or)";
  LedgerReader reader(folder.path());
  std::vector<Testimony> read;
  auto result = reader.poll([&](const std::string& source, const Record& record) {
    read.push_back({source, record});
  });
  if (!result.ok()) return result.error();
  if (reader.torn_count() != 1)
    return Error{ErrorCode::kInternal, "the torn line of a ledger was not noticed"};
  if (read.size() != testimonies.size())
    return Error{ErrorCode::kInternal, "a ledger did not give back what it was given"};
  return read;
}

/// Through the folder that stands for the outside world, where asking again does nothing.
Result<std::vector<SagaEffect>> through_world(const std::vector<SagaEffect>& effects) {
  const Folder folder;
  for (const auto& effect : effects) {
    World world(folder.path(), effect.worker);
    for (const bool is_first : {true, false}) {
      const auto taken = world.take_effect(effect);
      if (!taken.ok()) return taken.error();
      if (*taken != is_first) return Error{ErrorCode::kInternal, effect.key + " was not done once"};
    }
  }
  std::ofstream(folder.path() + "/.draft") << R"({"order":)";
  auto read = World::read(folder.path());
  if (read.ok() && read->size() != effects.size())
    return Error{ErrorCode::kInternal, "the world did not give back what was done"};
  return read;
}

class SelfTest {
 public:
  void check(bool good, const std::string& name, const std::string& detail) {
    fmt::print("  {:<5} {}{}\n", good ? "ok" : "NOT", name, good || detail.empty() ? "" : ": " + detail);
    failed_ += good ? 0 : 1;
    ++count_;
  }
  void check_case(const Evidence& clean, const Case& planted);
  void check_lines();
  void check_languages();
  [[nodiscard]] int end() const {
    fmt::print("self-test: {} cases, {} failed\n", count_, failed_);
    return failed_ == 0 ? 0 : 1;
  }

 private:
  int count_ = 0;
  int failed_ = 0;
};

void SelfTest::check_case(const Evidence& clean, const Case& planted) {
  Evidence evidence = clean;
  const std::string order_id = planted.plant(evidence);
  const Verdict verdict = judge(evidence);
  const bool named =
      std::any_of(verdict.findings.begin(), verdict.findings.end(), [&](const Finding& finding) {
        return finding.breach == planted.breach && finding.order_id == order_id;
      });
  // One thing was changed about one order: no other order may be accused.
  const bool only = std::all_of(verdict.findings.begin(), verdict.findings.end(),
                                [&](const Finding& finding) { return finding.order_id == order_id; });
  check(named && only, fmt::format("{} is named \"{}\"", planted.name, name_of(planted.breach)),
        verdict.line());
}

void SelfTest::check_lines() {
  const auto refuses = [&](const std::string& name, const std::string& text, const std::string& expected) {
    std::istringstream in(text);
    const auto orders = read_orders(in, "my.jsonl", 0);
    const std::string said = orders.ok() ? "was accepted" : orders.error().message;
    check(!orders.ok() && said.find(expected) != std::string::npos, name + " is refused", said);
  };
  const std::string good = R"({"order_id":"A-1","customer_id":"C-1"})"
                           "\n";
  refuses("a line that is no JSON", good + "{\"order_id\":\n", "my.jsonl:2: not JSON");
  refuses("a line that is no object", good + "[1,2]\n",
          "my.jsonl:2: the line is a JSON array and not an object");
  refuses("an order without an id", R"({"customer_id":"C-1"})", "my.jsonl:1: the order has no \"order_id\"");
  refuses("an order without a customer", good + "\n" + R"({"id":7})",
          "my.jsonl:3: the order has no \"customer_id\"");
  refuses("a customer that is no name", R"({"id":7,"customer":true})",
          "my.jsonl:1: \"customer_id\" is boolean");
  refuses("an id that is taken", good + good, "my.jsonl:2: order \"A-1\" is in line 1 already");
  refuses("a file without orders", "\n\n", "my.jsonl: holds no orders");
  std::istringstream in("\xef\xbb\xbf" + good + "\r\n" +
                        R"({"id":2,"customer":"C-2","total_cents":5,"more":[1]})"
                        "\r\n");
  const auto orders = read_orders(in, "my.jsonl", 0);
  check(orders.ok() && orders->size() == 2 && (*orders)[1].id == "2" && (*orders)[1].line.back() == '}',
        "a file with a byte order mark and carriage returns is read",
        orders.ok() ? "" : orders.error().message);
}

void SelfTest::check_languages() {
  const std::vector<Language> known = {{"cpp", "C++", {"a"}}, {"node", "Node", {}, "there is no Node"}};
  const auto refuses = [&](const std::string& name, const std::string& expected) {
    const auto chosen = choose_languages(known, {"cpp", name});
    const std::string said = chosen.ok() ? "was accepted" : chosen.error().message;
    check(!chosen.ok() && said.find(expected) != std::string::npos, "a language " + expected, said);
  };
  refuses("node", "there are no workers in Node: there is no Node");
  refuses("cobol", "there are no workers in \"cobol\"");
  const auto all = choose_languages(known, {});
  check(all.ok() && all->size() == 1 && all->front().name == "cpp",
        "unless languages are named, those that are there take part", "");
}

}  // namespace

int run_self_test() {
  fmt::print("self-test of the verdict\n");
  SelfTest test;
  const Plan plan = make_plan(make_orders(), 7, 2);
  const CleanRun run(plan);
  Evidence clean = run.evidence();
  auto read = through_ledgers(clean.testimonies);
  test.check(read.ok(), "ledgers give back what they were given, and a torn last line is set aside",
             read.ok() ? "" : read.error().to_string());
  if (read.ok()) clean.testimonies = std::move(*read);
  auto world = through_world(clean.saga_effects);
  test.check(world.ok() && !world->empty(), "the world gives back what was done in it, once each",
             world.ok() ? "it is empty" : world.error().to_string());
  if (world.ok()) clean.saga_effects = std::move(*world);
  const Verdict verdict = judge(clean);
  test.check(
      verdict.sagas.ended == plan.saga_count() && verdict.sagas.ended == 20 && verdict.sagas.undone == 4,
      "the sagas of a clean run have ended", verdict.saga_line());
  test.check(verdict.pass() && verdict.dead_letters_found == plan.dead_count() && plan.dead_count() == 2,
             "a clean run passes", verdict.line());
  for (const auto& planted : main_cases())
    test.check_case(clean, planted);
  for (const auto& planted : more_cases())
    test.check_case(clean, planted);
  for (const auto& planted : language_cases())
    test.check_case(clean, planted);
  for (const auto& planted : saga_cases())
    test.check_case(clean, planted);
  test.check_lines();
  test.check_languages();
  return test.end();
}

}  // namespace towline::demo
