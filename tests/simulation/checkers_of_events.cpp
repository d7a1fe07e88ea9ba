// K9 for events. What is in the store at the end is the one order of all events; appends, pages and followers
// must agree with it.

#include <algorithm>
#include <map>
#include <set>

#include "simulation/tracks.hpp"

namespace towline::simulation {
namespace {

std::string called(std::uint32_t event) { return "event e" + std::to_string(event); }

class EventJudge {
 public:
  EventJudge(Tracks& tracks, const FinalState& end) : tracks_(tracks), end_(end) {
    for (const EventSeen& event : end_.events)
      by_event_[event.event].push_back(&event);
  }
  void judge() {
    judge_streams();
    judge_appends();
    judge_pages();
    for (std::uint32_t f = 0; f < tracks_.facts().events.followers.size(); ++f)
      judge_follower(f);
  }

 private:
  void find(const std::string& text) { tracks_.find("K9", text); }
  void judge_streams();
  void judge_appends();
  void judge_answer(const Record& asked, const Record& answer, std::size_t first_there);
  void judge_conflict(const Record& asked, std::size_t from, std::size_t to);
  void judge_pages();
  void judge_follower(std::uint32_t number);

  Tracks& tracks_;
  const FinalState& end_;
  std::map<std::uint32_t, std::vector<const EventSeen*>> by_event_;
};

/// Versions are dense, positions grow, and nothing is there twice.
void EventJudge::judge_streams() {
  std::map<std::uint32_t, std::uint64_t> versions;
  std::uint64_t position = 0;
  for (const EventSeen& event : end_.events) {
    if (event.position <= position) find("positions do not grow at " + called(event.event));
    position = event.position;
    std::uint64_t& version = versions[event.stream];
    if (event.version != version + 1) {
      find(called(event.event) + " has version " + std::to_string(event.version) + " behind version " +
           std::to_string(version));
    }
    version = event.version;
  }
  for (const auto& [event, places] : by_event_) {
    if (places.size() > 1) find(called(event) + " is there " + std::to_string(places.size()) + " times");
  }
}

void EventJudge::judge_appends() {
  std::map<std::uint64_t, std::size_t> asked;           // by number: the last call
  std::map<std::uint32_t, std::size_t> first_there;     // by first event
  std::map<std::uint64_t, std::uint64_t> acked_before;  // by number: the last position that was answered then
  std::map<std::uint64_t, std::pair<Record, bool>> all;  // by number: whether an answer allows it to be there
  std::uint64_t acked = 0;
  for (std::size_t i = 0; i < tracks_.history().size(); ++i) {
    const Record& r = tracks_.at(i);
    if (r.event == Event::kEventsThere) first_there.emplace(r.redrives, i);
    if (r.event == Event::kAppending) {
      asked[r.number] = i;
      acked_before.emplace(r.number, acked);
      all.emplace(r.number, std::pair{r, false});
    }
    if (r.event != Event::kAppended) continue;
    const std::size_t from = asked[r.number];
    const auto there = first_there.find(r.redrives);
    judge_answer(tracks_.at(from), r, there == first_there.end() ? SIZE_MAX : there->second);
    all[r.number].second |=
        r.answer == Answer::kOk || r.answer == Answer::kDuplicate || r.answer == Answer::kUnknown;
    if (r.answer == Answer::kConflict) judge_conflict(tracks_.at(from), from, i);
    const auto found = by_event_.find(r.redrives);
    if (r.answer != Answer::kOk || found == by_event_.end()) continue;
    const std::uint64_t position = found->second.front()->position;
    if (position < acked_before[r.number])
      find(called(r.redrives) + " stands before what was answered before it was appended");
    acked = std::max(acked, position + r.attempt - 1);
  }
  for (const auto& [number, append] : all) {
    std::size_t there = 0;
    for (std::uint32_t e = 0; e < append.first.attempt; ++e)
      there += by_event_.contains(append.first.redrives + e) ? 1 : 0;
    if (there != 0 && there != append.first.attempt)
      find("half of append " + std::to_string(number) + " is there");
    if (there != 0 && !append.second) find("append " + std::to_string(number) + " was refused, and is there");
  }
}

void EventJudge::judge_answer(const Record& asked, const Record& answer, std::size_t first_there) {
  const std::string name = "append " + std::to_string(asked.number);
  const bool was_there = first_there < static_cast<std::size_t>(&asked - tracks_.history().data());
  if (was_there && (answer.answer == Answer::kConflict || answer.answer == Answer::kOk))
    find(name + " was there already, and its repetition did not say so");
  if (answer.answer != Answer::kOk && answer.answer != Answer::kDuplicate) return;
  for (std::uint32_t e = 0; e < asked.attempt; ++e) {
    const auto found = by_event_.find(asked.redrives + e);
    if (found == by_event_.end())
      return find(name + " was acknowledged, and " + called(asked.redrives + e) + " is gone");
    const EventSeen& event = *found->second.front();
    if (event.version != answer.lease + e || event.stream != asked.index)
      find(called(event.event) + " is not where its append said");
  }
  const bool fits = asked.lease == 0 || answer.lease == asked.lease;
  if (answer.answer == Answer::kOk && !fits) {
    find(name + " expected version " + std::to_string(asked.lease - 1) + " and was put behind version " +
         std::to_string(answer.lease - 1));
  }
}

/// At some moment of the call the stream must have had another version.
void EventJudge::judge_conflict(const Record& asked, std::size_t from, std::size_t to) {
  if (tracks_.facts().disk_may_fail) return;
  if (asked.lease == 0) return find("an append at any version was told of a conflict");
  std::uint64_t version = 0;
  bool differs = false;
  for (std::size_t i = 0; i <= to; ++i) {
    const Record& r = tracks_.at(i);
    if (r.event == Event::kEventsThere && r.index == asked.index) version += r.attempt;
    if (i >= from) differs |= version != asked.lease - 1;
  }
  if (!differs)
    find("append " + std::to_string(asked.number) + " was told of a conflict that there never was");
}

/// Every page is a piece of the one order, and has what was acknowledged before it was read.
void EventJudge::judge_pages() {
  std::set<std::pair<std::uint64_t, std::uint32_t>> known;
  for (const EventSeen& event : end_.events)
    known.emplace(event.position, event.event);
  for (const PageSeen& page : end_.pages) {
    auto at = std::find_if(end_.events.begin(), end_.events.end(),
                           [&](const EventSeen& event) { return event.position >= page.from; });
    for (const EventSeen& event : page.events) {
      if (at == end_.events.end() || at->event != event.event || at->position != event.position ||
          at->version != event.version) {
        find("a page of all events passes over " + (at == end_.events.end() ? "the end" : called(at->event)) +
             " and shows " + called(event.event));
        break;
      }
      ++at;
    }
  }
}

/// Whatever comes to a follower, all before it came before; and nothing comes again behind its checkpoint.
void EventJudge::judge_follower(std::uint32_t number) {
  const Facts& facts = tracks_.facts();
  const FollowerPlan& plan = facts.events.followers[number];
  const std::string name = follower_name(number);
  std::map<std::uint32_t, std::size_t> order;  // by event
  std::vector<const EventSeen*> wanted;
  for (const EventSeen& event : end_.events) {
    if (!plan.stream.empty() && stream_name(event.stream) != plan.stream) continue;
    if (!plan.type.empty() && type_of_event(event.event) != plan.type) continue;
    order[event.event] = wanted.size();
    wanted.push_back(&event);
  }
  // Who has lost its turn and does not know yet may still hand out what it has read.
  const bool two_may_follow = facts.may_stand_still || facts.leases_may_jump || facts.skew_max > Duration(0);
  std::vector<bool> came(wanted.size());
  std::uint64_t checkpoint = 0;
  for (const Record& r : tracks_.history()) {
    if (r.session != number) continue;
    if (r.event == Event::kCheckpoint) {
      if (r.number < checkpoint && !facts.disk_may_fail) find("the checkpoint of " + name + " went back");
      checkpoint = std::max(checkpoint, r.number);
    }
    if (r.event != Event::kFollow) continue;
    const auto found = order.find(r.index);
    if (found == order.end()) {
      find(name + " was given " + called(r.index) + ", which is not there");
      continue;
    }
    const EventSeen& event = *wanted[found->second];
    if (r.number != (plan.stream.empty() ? event.position : event.version))
      find(name + " was given " + called(r.index) + " at a wrong place");
    if (found->second > 0 && !came[found->second - 1])
      find(name + " was given " + called(r.index) + " and not what is before it");
    if (r.number <= checkpoint && !two_may_follow)
      find(name + " was given " + called(r.index) + " again behind its checkpoint");
    came[found->second] = true;
  }
  if (end_.stuck) return;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (!came[i]) find(called(wanted[i]->event) + " never came to " + name);
  }
}

}  // namespace

void check_events(Tracks& tracks, const FinalState& end) {
  if (tracks.facts().events.append_count == 0) return;
  EventJudge(tracks, end).judge();
}

}  // namespace towline::simulation
