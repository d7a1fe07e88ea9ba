// The items of the script, its handler, and the comparison of ledger and store afterwards.

#include "faults/script.hpp"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <sstream>

#include "faults/child.hpp"
#include "faults/sqlite_probe.hpp"
#include "support/eventually.hpp"

namespace towline::faults {
namespace {

using namespace std::chrono_literals;
using support::eventually;

/// What the ledger of the script says.
struct Promises {
  std::set<std::int64_t> invoked, acked, rejected, unknown, acking, gone, dead, cancelling, cancelled,
      redriving, redriven;
};

Promises promises_of(const std::vector<Note>& notes) {
  Promises p;
  const std::map<std::string, std::set<std::int64_t>*> lists = {
      {"invoke", &p.invoked},      {"acked", &p.acked},           {"rejected", &p.rejected},
      {"unknown", &p.unknown},     {"acking", &p.acking},         {"gone", &p.gone},
      {"dead", &p.dead},           {"cancelling", &p.cancelling}, {"cancelled", &p.cancelled},
      {"redriving", &p.redriving}, {"redriven", &p.redriven}};
  for (const Note& note : notes) {
    const auto found = lists.find(note.what);
    if (found != lists.end()) found->second->insert(note.number);
  }
  // Published under one id twice: the better answer counts.
  for (const std::int64_t number : p.acked) {
    p.rejected.erase(number);
    p.unknown.erase(number);
  }
  for (const std::int64_t number : p.unknown)
    p.rejected.erase(number);
  for (const std::int64_t number : p.invoked) {
    if (!p.acked.contains(number) && !p.rejected.contains(number)) p.unknown.insert(number);
  }
  return p;
}

/// What was found when the store was opened again and drained.
struct Found {
  std::map<std::int64_t, int> seen;
  std::map<std::int64_t, int> dead;
  std::map<std::int64_t, int> effects;
  std::set<std::int64_t> pending;
  std::mutex mutex;
  std::vector<std::string> troubles;
};

void note_found(void* self, const char* what, std::int64_t number, const std::string& text) {
  auto& found = *static_cast<Found*>(self);
  const std::lock_guard guard(found.mutex);
  if (std::string_view(what) == "acking") ++found.seen[number];
  if (std::string_view(what) == "unsettled")
    found.troubles.push_back("message " + std::to_string(number) + " could not be settled: " + text);
}

class Comparison {
 public:
  Comparison(const Promises& promises, Found& found, Survey& result) : p_(promises), f_(found), r_(result) {}

  void judge(const Item& item) {
    const std::int64_t n = item.number;
    const std::string name = "message " + std::to_string(n) + " (" + item.kind + ")";
    const int places = f_.seen[n] + (f_.pending.contains(n) ? 1 : 0) + (f_.seen[n] == 0 ? f_.dead[n] : 0);
    if (places > 1) trouble(name + " is in " + std::to_string(places) + " places");
    if (!p_.invoked.contains(n) && places > 0) trouble(name + " was never published and is there");
    if (p_.rejected.contains(n) && places > 0) trouble(name + " was rejected and is there");
    if (p_.unknown.contains(n) && p_.invoked.contains(n)) r_.recovered += places > 0 ? 1 : 0;
    if (p_.gone.contains(n)) {
      if (places > 0) trouble(name + " was settled durably and came again");
    } else if (item.kind == "far") {
      judge_far(name, n);
    } else if (item.kind == "park") {
      judge_park(name, n, places);
    } else if (p_.acked.contains(n) && places == 0 && !p_.acking.contains(n)) {
      lose(name + " was acknowledged and is gone");
    }
    if (item.kind == "tx") judge_effect(name, n);
  }

  void judge_batch() {
    int there = 0;
    for (std::int64_t n = kBatchFirst; n <= kBatchLast; ++n) {
      if (!p_.unknown.contains(n)) return;
      there += f_.seen[n];
    }
    if (there != 0 && there != kBatchLast - kBatchFirst + 1)
      trouble("half of a batch is there: " + std::to_string(there) + " messages");
  }

 private:
  void trouble(const std::string& text) { r_.findings.push_back(text); }
  void lose(const std::string& text) {
    ++r_.lost;
    trouble(text);
  }

  void judge_far(const std::string& name, std::int64_t n) {
    const bool there = f_.pending.contains(n);
    if (p_.cancelled.contains(n) && there) trouble(name + " was cancelled and still waits");
    if (f_.seen[n] != 0) trouble(name + " was handled before it was due");
    if (p_.acked.contains(n) && !p_.cancelling.contains(n) && !there)
      lose(name + " was acknowledged and does not wait");
  }

  void judge_park(const std::string& name, std::int64_t n, int places) {
    if (p_.redriven.contains(n)) {
      if (places == 0 && !p_.acking.contains(n)) lose(name + " was sent back and is gone");
      // Redriven, and what became of it then is known to the one that died only, if it began.
      return;
    }
    if (p_.dead.contains(n) && !p_.redriving.contains(n) && f_.dead[n] != 1)
      lose(name + " was a dead letter and is one no more (" + std::to_string(f_.dead[n]) + ")");
    if (p_.acked.contains(n) && f_.dead[n] == 0 && places == 0 && !p_.redriving.contains(n))
      lose(name + " was acknowledged and is neither waiting nor a dead letter");
  }

  void judge_effect(const std::string& name, std::int64_t n) {
    const int rows = f_.effects[n];
    if (rows > 1) trouble(name + " took effect " + std::to_string(rows) + " times");
    if (p_.acked.contains(n) && rows == 0) lose(name + " was acknowledged and took no effect");
  }

  const Promises& p_;
  Found& f_;
  Survey& r_;
};

bool nothing_is_due(Engine& engine, std::size_t far_count) {
  const EngineStatistics statistics = engine.statistics().value();
  return statistics.scheduled_now == far_count && statistics.parked_now == 0 &&
         statistics.dead_letters[static_cast<std::size_t>(DeadLetterStatus::kReprocessing)] == 0;
}

bool nothing_waits(Engine& engine) {
  std::uint64_t left = 0;
  for (const GroupBacklog& group : engine.backlog().value())
    left += group.waiting + group.in_flight;
  return left == 0;
}

/// Twice each, because what comes due between two looks is seen by neither of them.
bool quiet(Engine& engine, std::size_t far_count) {
  return nothing_is_due(engine, far_count) && nothing_waits(engine) && nothing_is_due(engine, far_count) &&
         nothing_waits(engine);
}

/// Messages that wait for a time that is not near.
void read_pending(Engine& engine, Found& found) {
  std::string cursor;
  found.pending.clear();
  do {
    auto page = engine.pending({}, 100, cursor).value();
    for (const Scheduled& one : page.items) {
      if (one.group.empty() && one.due_at > system_clock()->now() + 10min)
        found.pending.insert(one.topic == kTopic && one.key ? std::stoll(*one.key) : -1);
    }
    cursor = page.cursor;
  } while (!cursor.empty());
}

void drain(const std::string& url, Found& found, Survey& result) {
  EngineOptions options;
  options.lease = 3s;
  options.sweep_interval = 20ms;
  Engine engine = Engine::open(url, options).value();
  read_pending(engine, found);
  ConsumerOptions member = member_options({});
  member.ack = AckPolicy::kManual;
  Consumer consumer =
      engine
          .consume(kTopic, member,
                   [&](Delivery& delivery) { handle_script_item(delivery, note_found, &found); })
          .value();
  if (!eventually([&] { return quiet(engine, found.pending.size()); }, 15s)) {
    const EngineStatistics now = engine.statistics().value();
    std::ostringstream text;
    text << "the store does not come to rest: scheduled " << now.scheduled_now << ", parked "
         << now.parked_now;
    for (const GroupBacklog& group : engine.backlog().value())
      text << ", " << group.group << " waiting " << group.waiting << " in flight " << group.in_flight;
    result.findings.push_back(text.str());
  }
  DeadLetterQuery query;
  query.status = DeadLetterStatus::kPending;
  for (const DeadLetter& entry : engine.dead_letters(query).value().items)
    ++found.dead[parse_item(entry.payload).number];
  (void)engine.close().value();
}

}  // namespace

const std::vector<Item>& script_items() {
  static const std::vector<Item> items = [] {
    std::vector<Item> made;
    const auto add = [&](std::int64_t from, std::int64_t to, const char* kind) {
      for (std::int64_t n = from; n <= to; ++n)
        made.push_back({n, std::to_string(n), n, kind});
    };
    add(0, 4, "ok");
    add(kBatchFirst, kBatchLast, "ok");
    add(20, 20, "ok");
    add(kFarCancelled, kFarKept, "far");
    add(kTwice, kTwice, "ok");
    add(30, 32, "once");
    add(kRedriven, 42, "park");
    add(50, 52, "tx");
    return made;
  }();
  return items;
}

Result<void> book_effect(Delivery& delivery, std::int64_t number) {
  return delivery.transaction([&](SqlTransaction& sql) -> Result<void> {
    auto made = sql.execute("CREATE TABLE IF NOT EXISTS effect(number INTEGER NOT NULL)");
    if (!made.ok()) return made.error();
    const SqlTransaction::Value value = number;
    auto booked = sql.execute("INSERT INTO effect VALUES (?)", std::span(&value, 1));
    if (!booked.ok()) return booked.error();
    return {};
  });
}

void handle_script_item(Delivery& delivery, Noting note, void* self) {
  const Item item = parse_item(delivery.payload());
  if (item.kind == "once" && delivery.attempt() == 1) {
    // Not the end of it: whoever comes after this handles it again, or for the first time.
    const auto answer = delivery.settle(Outcome::nak(10ms), true);
    if (!answer.ok()) note(self, "unsettled", item.number, answer.error().to_string());
    return;
  }
  const bool dies = item.kind == "park" && delivery.redrives() == 0;
  note(self, "acking", item.number, item.kind);
  const auto answer = item.kind == "tx" ? book_effect(delivery, item.number)
                      : dies            ? delivery.settle(Outcome::dead_letter("refused"), true)
                                        : delivery.settle(Outcome::ack(), true);
  if (answer.ok()) {
    note(self, dies ? "dead" : "gone", item.number, {});
  } else {
    note(self, "unsettled", item.number, answer.error().to_string());
  }
}

std::string Survey::to_string() const {
  std::string text = "acked " + std::to_string(acked) + ", unknown " + std::to_string(unknown) +
                     ", rejected " + std::to_string(rejected);
  for (const std::string& finding : findings)
    text += "\n  " + finding;
  return text;
}

Survey survey(const std::string& url, const std::string& database, const std::vector<Note>& notes) {
  Survey result;
  const Promises promises = promises_of(notes);
  result.acked = promises.acked.size();
  result.unknown = promises.unknown.size();
  result.rejected = promises.rejected.size();
  Found found;
  try {
    drain(url, found, result);
    const std::string integrity = integrity_of(database);
    if (integrity != "ok") result.findings.push_back("integrity_check: " + integrity);
    if (!ask_sqlite(database, "SELECT 1 FROM sqlite_master WHERE name = 'effect'").empty()) {
      for (const std::string& row : ask_sqlite(database, "SELECT number FROM effect"))
        ++found.effects[std::stoll(row)];
    }
  } catch (const Exception& error) {
    const bool opened =
        std::any_of(notes.begin(), notes.end(), [](const Note& note) { return note.what == "opened"; });
    result.unmade = !opened && error.code() == ErrorCode::kNotAStore;
    result.findings.push_back(std::string("the store cannot be opened: ") + error.what());
    if (!result.unmade) ++result.lost;
    return result;
  } catch (const std::exception& error) {
    result.findings.push_back(std::string("the store cannot be used: ") + error.what());
    ++result.lost;
    return result;
  }
  for (const std::string& trouble : found.troubles)
    result.findings.push_back(trouble);
  Comparison judge(promises, found, result);
  for (const Item& item : script_items())
    judge.judge(item);
  judge.judge_batch();
  return result;
}

}  // namespace towline::faults
