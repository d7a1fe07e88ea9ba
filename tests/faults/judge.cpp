// Sorts the notes into handlings, message by message and group by group, and looks at each rule in turn.

#include "faults/judge.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <sstream>
#include <utility>

namespace towline::faults {
namespace {

constexpr std::size_t kFindingsPerKind = 3;

struct Handling {
  const Note* start = nullptr;
  std::int64_t end_us = std::numeric_limits<std::int64_t>::max();
  std::string end;  ///< "done", "failed", "void", "killed"; empty: it goes on
};

struct Story {
  std::vector<Handling> handlings;  ///< by time
};

struct Key {
  std::string key;
  std::int64_t sequence = 0;
};

Key key_of(const Note& start) {
  std::istringstream in(start.text);
  Key key;
  in >> key.key >> key.sequence;
  return key;
}

class Judge {
 public:
  Judge(const std::vector<Note>& notes, const Expectation& expected) : notes_(notes), expected_(expected) {}

  Judgement run() {
    gather();
    for (const auto& group : expected_.groups) {
      for (const std::int64_t number : acked_)
        judge_loss(group, number);
    }
    for (auto& [at, story] : stories_)
      judge_story(at.first, at.second, story);
    if (expected_.key_ordered) judge_order();
    result_.acked = acked_.size();
    result_.kills = killed_.size();
    for (const auto& [source, at] : killed_)
      result_.kills_into_work += hit_.contains(source) ? 1 : 0;
    std::sort(result_.resume_us.begin(), result_.resume_us.end());
    return std::move(result_);
  }

 private:
  using At = std::pair<std::string, std::int64_t>;  // group, number

  void find(std::uint64_t& count, const std::string& text) {
    if (++count <= kFindingsPerKind) result_.findings.push_back(text);
  }

  void gather() {
    std::map<std::pair<std::string, At>, std::vector<Handling*>> open;
    for (const Note& note : notes_) {
      if (note.what == "killed") killed_[note.text] = note.at_us;
      if (note.what == "acked") acked_.insert(note.number);
      if (note.what == "invoke") invoked_.insert(note.number);
      if (note.what == "rejected") rejected_.insert(note.number);
      if (note.what == "start") stories_[{note.group, note.number}].handlings.push_back({&note, {}, {}});
    }
    for (auto& [at, story] : stories_) {
      std::sort(story.handlings.begin(), story.handlings.end(),
                [](const Handling& a, const Handling& b) { return a.start->at_us < b.start->at_us; });
      for (Handling& handling : story.handlings) {
        handling.end_us = std::numeric_limits<std::int64_t>::max();
        open[{handling.start->source, at}].push_back(&handling);
      }
    }
    for (const Note& note : notes_) {
      if (note.what != "done" && note.what != "failed" && note.what != "void") continue;
      const auto found = open.find({note.source, {note.group, note.number}});
      if (found == open.end()) continue;
      for (Handling* handling : found->second) {
        if (!handling->end.empty() || handling->start->attempt != note.attempt) continue;
        handling->end = note.what;
        handling->end_us = note.at_us;
        break;
      }
    }
    for (auto& [at, story] : stories_) {
      for (Handling& handling : story.handlings) {
        const auto killed = killed_.find(handling.start->source);
        if (!handling.end.empty() || killed == killed_.end()) continue;
        handling.end = "killed";
        handling.end_us = killed->second;
        hit_.insert(handling.start->source);
      }
    }
  }

  void judge_loss(const std::string& group, std::int64_t number) {
    if (expected_.dead.contains(number)) return;
    const auto found = stories_.find({group, number});
    const bool done =
        found != stories_.end() && std::any_of(found->second.handlings.begin(), found->second.handlings.end(),
                                               [](const Handling& one) { return one.end == "done"; });
    // The note "done" is written before the handler returns, so what has none was not acknowledged.
    if (!done)
      find(result_.lost,
           "message " + std::to_string(number) + " was acknowledged and never handled by " + group);
  }

  void judge_story(const std::string& group, std::int64_t number, const Story& story) {
    const std::string name = "message " + std::to_string(number) + " of " + group;
    ++result_.handled;
    if (!invoked_.contains(number) && !acked_.contains(number))
      find(result_.unexpected, name + " was handled and never published");
    if (rejected_.contains(number)) find(result_.unexpected, name + " was rejected and yet handled");
    for (std::size_t i = 0; i < story.handlings.size(); ++i) {
      const Handling& now = story.handlings[i];
      if (now.start->attempt == 0 || now.start->attempt > expected_.attempts_max)
        find(result_.attempts, name + " was begun as attempt " + std::to_string(now.start->attempt));
      if (i == 0) continue;
      const Handling& before = story.handlings[i - 1];
      if (now.start->attempt != before.start->attempt) {
        if (now.start->attempt != before.start->attempt + 1 || before.end == "done")
          find(result_.attempts, name + " was begun as attempt " + std::to_string(now.start->attempt) +
                                     " after " + std::to_string(before.start->attempt) + " (" + before.end +
                                     ")");
        continue;
      }
      ++result_.duplicates;
      const auto killed = killed_.find(before.start->source);
      const bool was_killed =
          (killed != killed_.end() && killed->second <= now.start->at_us) || before.end == "void";
      const bool lease_ended = !was_killed && expected_.lease_end_us != 0 &&
                               now.start->at_us - before.start->at_us >= expected_.lease_end_us;
      result_.lease_ends += lease_ended ? 1 : 0;
      const bool explained = was_killed || lease_ended || !expected_.only_kills_explain;
      if (!explained)
        find(result_.unexplained, name + " was handled again by " + now.start->source + " although " +
                                      before.start->source + " (" + before.end + ") was not killed");
      else if (!now.start->redelivered)
        find(result_.unexplained, name + " was handled again and not marked as redelivered");
      if (before.end == "killed") result_.resume_us.push_back(now.start->at_us - before.end_us);
    }
  }

  void judge_order() {
    struct Seen {
      Key key;
      const Handling* handling;
    };
    std::map<std::pair<std::string, std::string>, std::vector<Seen>> keys;
    for (const auto& [at, story] : stories_) {
      for (const Handling& handling : story.handlings) {
        Key key = key_of(*handling.start);
        auto& seen = keys[{at.first, key.key}];
        seen.push_back({std::move(key), &handling});
      }
    }
    for (auto& [at, seen] : keys) {
      if (at.second == "-") continue;
      std::sort(seen.begin(), seen.end(), [](const Seen& a, const Seen& b) {
        return a.handling->start->at_us < b.handling->start->at_us;
      });
      std::set<std::int64_t> started;
      const Seen* last = nullptr;
      for (const Seen& one : seen) {
        const std::string name = "key " + at.second + " of " + at.first + ": sequence ";
        const bool is_first = started.insert(one.key.sequence).second;
        if (is_first && *started.rbegin() != one.key.sequence)
          find(result_.order,
               name + std::to_string(one.key.sequence) + " began after " + std::to_string(*started.rbegin()));
        if (last != nullptr && last->handling->end_us > one.handling->start->at_us)
          find(result_.overlaps, name + std::to_string(one.key.sequence) + " began in " +
                                     one.handling->start->source + " while " +
                                     std::to_string(last->key.sequence) + " ran in " +
                                     last->handling->start->source);
        if (last == nullptr || one.handling->end_us > last->handling->end_us) last = &one;
      }
    }
  }

  const std::vector<Note>& notes_;
  const Expectation& expected_;
  std::map<std::string, std::int64_t> killed_;
  std::set<std::int64_t> acked_, invoked_, rejected_;
  std::set<std::string> hit_;
  std::map<At, Story> stories_;
  Judgement result_;
};

}  // namespace

std::int64_t Judgement::resume_p(double share) const {
  if (resume_us.empty()) return 0;
  return resume_us[static_cast<std::size_t>(share * static_cast<double>(resume_us.size() - 1))];
}

std::string Judgement::to_string() const {
  std::ostringstream out;
  out << "\"acked\":" << acked << ",\"handled\":" << handled << ",\"kills\":" << kills
      << ",\"kills_into_work\":" << kills_into_work << ",\"lost\":" << lost
      << ",\"unexpected\":" << unexpected << ",\"dup\":" << duplicates << ",\"lease_ends\":" << lease_ends
      << ",\"unexplained_dup\":" << unexplained << ",\"order_violations\":" << order
      << ",\"overlaps\":" << overlaps << ",\"wrong_attempts\":" << attempts
      << ",\"resume_ms\":{\"p50\":" << resume_p(0.5) / 1000 << ",\"p99\":" << resume_p(0.99) / 1000
      << ",\"max\":" << resume_p(1.0) / 1000 << "}";
  return out.str();
}

Judgement judge(const std::vector<Note>& notes, const Expectation& expected) {
  return Judge(notes, expected).run();
}

}  // namespace towline::faults
