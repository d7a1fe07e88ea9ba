// K3 order, K4 leases, K5 attempts and crashes, K9 idempotency: the checkers that ask who held what, and
// when.

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "simulation/tracks.hpp"

namespace towline::simulation {
namespace {

struct Interval {
  MonotonicTime begin;
  MonotonicTime end;
  std::uint32_t message;
  std::uint32_t session = 0;
  /// Places in the history, for what happened at one moment; `end_index` 0: it ended by the clock.
  std::size_t begin_index = 0;
  std::size_t end_index = 0;

  [[nodiscard]] bool over_before(const Interval& next) const noexcept {
    if (next.begin != end) return end < next.begin;
    return end_index < next.begin_index;
  }
};

/// When the process `p` that started its handler at `index` died; the end of time if it did not.
MonotonicTime death_after(const Tracks& tracks, std::size_t index) {
  const std::uint32_t process = tracks.at(index).process;
  for (std::size_t i = index; i < tracks.history().size(); ++i) {
    const Record& r = tracks.at(i);
    if (r.process == process && (r.event == Event::kCrash || r.event == Event::kUp)) return r.at;
  }
  return MonotonicTime::max();
}

/// How long a handler counted as running: until it returned, ran out of time, or lost its lease.
Interval interval_of(const Tracks& tracks, const Track& track, const Handling& handling,
                     std::uint32_t message) {
  const Record& start = tracks.at(handling.start);
  MonotonicTime end = start.until;
  std::size_t end_index = 0;
  if (handling.finish != SIZE_MAX) {
    end = std::min(end, tracks.at(handling.finish).at);
    if (end == tracks.at(handling.finish).at) end_index = handling.finish;
  } else {
    end = std::min(end, death_after(tracks, handling.start));
  }
  for (const Holding& holding : track.holdings) {
    const Record& hand_out = tracks.at(holding.hand_out);
    // A lease that the wall clock has ended had ended when somebody else was given the next.
    const bool jumped = tracks.facts().leases_may_jump && holding.hand_out > handling.start;
    const bool sooner = hand_out.at < end || (hand_out.at == end && holding.hand_out < end_index);
    if (jumped && sooner) {
      end = hand_out.at;
      end_index = holding.hand_out;
    }
    if (hand_out.lease != start.lease || hand_out.index != start.index || holding.until > end) continue;
    if (holding.until == end && holding.ended_by >= end_index) continue;
    end = holding.until;
    end_index = holding.ended_by == SIZE_MAX ? 0 : holding.ended_by;
  }
  return {start.at, std::max(end, start.at), message, start.session, handling.start, end_index};
}

void check_overlap(Tracks& tracks, std::vector<Interval>& intervals, std::uint32_t group) {
  std::sort(intervals.begin(), intervals.end(),
            [](const Interval& a, const Interval& b) { return a.begin_index < b.begin_index; });
  for (std::size_t i = 1; i < intervals.size(); ++i) {
    if (intervals[i - 1].over_before(intervals[i])) continue;
    // One that lost its lease to a jump of the wall clock cannot know, and nobody knows when it was lost.
    if (tracks.facts().leases_may_jump && intervals[i - 1].session != intervals[i].session) continue;
    tracks.find("K3", "handlers of m" + std::to_string(intervals[i - 1].message) + " and m" +
                          std::to_string(intervals[i].message) + " of one key ran at the same time in g" +
                          std::to_string(group));
  }
}

bool has_plain_place_in_order(const Tracks& tracks, std::uint32_t m) {
  const MessagePlan& message = tracks.facts().messages[m];
  // What had expired by one clock, and has not by another, was passed over and comes again.
  if (message.ttl > Duration(0) && tracks.facts().skew_max > Duration(0)) return false;
  return message.delay == Duration(0) && message.dedup < 0 && tracks.publication(m).answers.size() == 1;
}

/// Where an operator let the tails of keys go on although their heads were still to come. That gives up the
/// order of what waited, and says so: what starts from then on proves nothing about its key.
class HandReleases {
 public:
  HandReleases(const Tracks& tracks, std::uint32_t g) : tracks_(tracks) {
    for (std::size_t i = 0; i < tracks.history().size(); ++i) {
      const Record& r = tracks.at(i);
      // Of a held key the head is done; unless a copy of it that is done holds the key once more.
      const bool head_is_to_come = r.index == 0 || tracks.facts().may_copy;
      if (r.event == Event::kHandRelease && head_is_to_come && r.group == g) releases_.push_back(i);
    }
  }

  /// The first of this message's key; SIZE_MAX: there was none.
  [[nodiscard]] std::size_t first(std::uint32_t m) const {
    const MessagePlan& message = tracks_.facts().messages[m];
    for (const std::size_t index : releases_) {
      const Record& r = tracks_.at(index);
      if (r.topic != message.topic) continue;
      if (r.lease == 0 || r.lease == static_cast<std::uint64_t>(message.key) + 1) return index;
    }
    return SIZE_MAX;
  }

 private:
  const Tracks& tracks_;
  std::vector<std::size_t> releases_;
};

void check_first_starts(Tracks& tracks, std::uint32_t g) {
  // Producer, topic, key, priority: the latest first start so far.
  std::map<std::tuple<std::uint32_t, std::uint32_t, std::int32_t, std::uint8_t>,
           std::pair<std::size_t, std::uint32_t>>
      last;
  const HandReleases releases(tracks, g);
  for (std::uint32_t m = 0; m < tracks.message_count(); ++m) {
    const MessagePlan& message = tracks.facts().messages[m];
    const Track& track = tracks.track(m, g);
    const auto live = std::find_if(track.handlings.begin(), track.handlings.end(),
                                   [](const Handling& handling) { return !handling.zombie; });
    if (live == track.handlings.end() || message.key < 0 || !has_plain_place_in_order(tracks, m)) continue;
    const std::size_t first = live->start;
    const bool died_unseen = std::any_of(track.stored.begin(), track.stored.end(), [&](std::size_t index) {
      return tracks.at(index).verb == Verb::kDeadLetter && index < first;
    });
    if (died_unseen) continue;
    auto& latest = last[{message.producer, message.topic, message.key, message.priority}];
    if (latest.first > first) {
      if (first > releases.first(m)) continue;
      tracks.find("K3", called(m, g) + " was handled before m" + std::to_string(latest.second) +
                            " of the same producer and key, which was published earlier");
    } else {
      // A handler that did not know that its lease had ended has seen the message all the same.
      latest = {track.handlings.front().start, m};
    }
  }
}

/// Whether what waited for its next attempt was given up, by the engine or an operator, in this part of the
/// history.
bool gave_up(const Tracks& tracks, std::uint32_t m, std::uint32_t g, std::size_t after, std::size_t before) {
  const auto within = [&](std::size_t index) { return after < index && index < before; };
  const auto& stored = tracks.track(m, g).stored;
  const auto& cancels = tracks.publication(m).cancels;
  return std::any_of(stored.begin(), stored.end(),
                     [&](std::size_t index) {
                       return within(index) && tracks.at(index).verb == Verb::kDeadLetter;
                     }) ||
         std::any_of(cancels.begin(), cancels.end(), within);
}

/// While a failed message waits for its next attempt nothing else of its key may start.
void check_blocked_keys(Tracks& tracks, std::uint32_t g) {
  if (tracks.facts().may_copy) return;
  const HandReleases releases(tracks, g);
  std::map<std::pair<std::uint32_t, std::int32_t>, std::vector<std::uint32_t>> by_key;
  for (std::uint32_t m = 0; m < tracks.message_count(); ++m) {
    const MessagePlan& message = tracks.facts().messages[m];
    if (message.key >= 0) by_key[{message.topic, message.key}].push_back(m);
  }
  for (const auto& [key, members] : by_key) {
    const std::size_t released = releases.first(members.front());
    std::vector<std::pair<std::size_t, std::uint32_t>> starts;
    for (const std::uint32_t m : members) {
      for (const Handling& handling : tracks.track(m, g).handlings) {
        if (!handling.zombie) starts.emplace_back(handling.start, m);
      }
    }
    std::sort(starts.begin(), starts.end());
    for (const std::uint32_t m : members) {
      for (const std::size_t stored : tracks.track(m, g).stored) {
        if (tracks.at(stored).verb != Verb::kRetry) continue;
        const auto next = std::upper_bound(starts.begin(), starts.end(), std::pair(stored, UINT32_MAX));
        if (next == starts.end() || next->first > released) continue;
        if (next->second == m || gave_up(tracks, m, g, stored, next->first)) continue;
        tracks.find("K3", called(next->second, g) + " was handled while m" + std::to_string(m) +
                              " of the same key waited for its next attempt");
      }
    }
  }
}

std::uint32_t ended_holdings(const Tracks& tracks, const Track& track, std::size_t before) {
  std::uint32_t count = 0;
  for (const Holding& holding : track.holdings) {
    if (holding.hand_out >= before) continue;
    const bool unsettled = !holding.settled || holding.ended_by > before;
    // When leases jump with the wall clock it is not known when one ended, only that nobody had settled it.
    const bool may_have_ended = tracks.facts().leases_may_jump
                                    ? unsettled
                                    : holding.ended_by_clock() && holding.until <= tracks.at(before).at;
    if (may_have_ended) ++count;
  }
  return count;
}

// Whether the call that handed it out also told its process that a lease was lost: until the next call the
// provider counts what was lost as still in its hands, and then a death is nobody's.
bool came_beside_lost(const Tracks& tracks, const Handling& handling) {
  const Record& start = tracks.at(handling.start);
  bool handed_out = false;
  for (std::size_t i = handling.start; i-- > 0;) {
    const Record& record = tracks.at(i);
    if (record.process != start.process || record.session != start.session) continue;
    if (!handed_out) {
      handed_out = record.event == Event::kHandOut && record.lease == start.lease;
      continue;
    }
    if (record.event == Event::kSettle && record.answer == Answer::kLost) return true;
    if (record.event == Event::kHandOut || record.event == Event::kFinish) return false;
  }
  return false;
}

void check_one_message(Tracks& tracks, std::uint32_t m, std::uint32_t g) {
  const Track& track = tracks.track(m, g);
  const ConsumerOptions& options = tracks.facts().groups[g].options;
  const auto attempts_max = static_cast<std::uint32_t>(options.retry.max_attempts);
  const Record* previous = nullptr;
  for (const Handling& handling : track.handlings) {
    const Record& start = tracks.at(handling.start);
    if (handling.zombie) continue;  // it knows what was known when its lease began
    if (start.attempt > attempts_max)
      tracks.find("K5", called(m, g) + " was tried more often than max_attempts");
    if (start.attempt > 1 + possible_failures(tracks, track, start.redrives, handling.start)) {
      tracks.find("K5", called(m, g) + " was charged with a failure that never was");
    }
    const bool same_life = previous != nullptr && previous->redrives == start.redrives;
    if (same_life && start.attempt < previous->attempt && !tracks.facts().may_copy) {
      tracks.find("K5", called(m, g) + ": its attempts went back");
    }
    if (start.crashes > ended_holdings(tracks, track, handling.start)) {
      tracks.find("K5", called(m, g) + " was charged with a death that never was");
    }
    previous = &start;
  }
  std::uint32_t kills = 0;
  for (const Handling& handling : track.handlings) {
    const bool killed = handling.finish != SIZE_MAX && tracks.at(handling.finish).verb == Verb::kCrash;
    // One that had run out of time was settled before it killed, and is charged as a failure.
    // Nor is it charged with the death of one that had lost it before: nobody could know who killed that one.
    const bool lost_before = std::any_of(
        track.handlings.begin(), track.handlings.end(),
        [&](const Handling& other) { return other.start > handling.start && other.start < handling.finish; });
    if (killed && !lost_before && !came_beside_lost(tracks, handling) && handling.settle > handling.finish)
      ++kills;
  }
  const auto kills_max = (static_cast<std::uint32_t>(options.dead_letters.max_crashes) + 2) *
                         static_cast<std::uint32_t>(1 + track.redrives.size());
  if (kills > kills_max && !tracks.facts().may_copy) {
    tracks.find("K5", called(m, g) + " killed its process " + std::to_string(kills) +
                          " times, max_crashes is " + std::to_string(options.dead_letters.max_crashes));
  }
}

void check_stored_attempts(Tracks& tracks, std::uint32_t m, std::uint32_t g) {
  const Track& track = tracks.track(m, g);
  for (const std::size_t index : track.stored) {
    const Record& r = tracks.at(index);
    if (r.verb == Verb::kDeadLetter) {
      if (static_cast<DeadLetterReason>(r.reason) != DeadLetterReason::kCrashLoop) continue;
      const auto crashes_max =
          static_cast<std::uint32_t>(tracks.facts().groups[g].options.dead_letters.max_crashes);
      if (r.crashes < crashes_max || ended_holdings(tracks, track, index) < crashes_max) {
        tracks.find("K5",
                    called(m, g) + " became a dead letter crash_loop, and its process did not die so often");
      }
      continue;
    }
    // The next delivery must know what this record says.
    if (tracks.facts().may_copy) continue;
    for (const Holding& holding : track.holdings) {
      if (holding.hand_out < index) continue;
      const Record& next = tracks.at(holding.hand_out);
      if (next.redrives == r.redrives && next.attempt != r.attempt) {
        tracks.find("K5", called(m, g) + " was stored with attempt " + std::to_string(r.attempt) +
                              " and came back with attempt " + std::to_string(next.attempt));
      }
      break;
    }
  }
}

}  // namespace

void check_order(Tracks& tracks) {
  for (std::uint32_t g = 0; g < tracks.group_count(); ++g) {
    if (tracks.facts().groups[g].options.order == Order::kUnordered) continue;
    check_first_starts(tracks, g);
    check_blocked_keys(tracks, g);
    std::map<std::pair<std::uint32_t, std::int32_t>, std::vector<Interval>> by_key;
    for (std::uint32_t m = 0; m < tracks.message_count(); ++m) {
      const MessagePlan& message = tracks.facts().messages[m];
      if (message.key < 0) continue;
      const Track& track = tracks.track(m, g);
      for (const Handling& handling : track.handlings) {
        if (handling.zombie) continue;
        by_key[{message.topic, message.key}].push_back(interval_of(tracks, track, handling, m));
      }
    }
    for (auto& [key, intervals] : by_key)
      check_overlap(tracks, intervals, g);
  }
}

void check_leases(Tracks& tracks) {
  if (tracks.facts().may_copy) return;
  if (tracks.facts().leases_may_jump) return;
  for (std::uint32_t m = 0; m < tracks.message_count(); ++m) {
    for (std::uint32_t g = 0; g < tracks.group_count(); ++g) {
      const auto& holdings = tracks.track(m, g).holdings;
      for (std::size_t i = 1; i < holdings.size(); ++i) {
        if (tracks.at(holdings[i].hand_out).at >= holdings[i - 1].until) continue;
        tracks.find("K4", called(m, g) + " was handed out while an earlier lease on it was live");
      }
    }
  }
}

void check_attempts(Tracks& tracks) {
  for (std::uint32_t m = 0; m < tracks.message_count(); ++m) {
    for (std::uint32_t g = 0; g < tracks.group_count(); ++g) {
      check_one_message(tracks, m, g);
      check_stored_attempts(tracks, m, g);
    }
  }
}

namespace {

/// One idempotency key. A call takes effect somewhere between its record kBeginning or kEnding and its
/// answer, so only what was answered before another call began is known to have come before it.
struct KeyLife {
  std::uint64_t fence = 0;  ///< the highest that was answered
  std::size_t fence_known_at = 0;
  std::set<std::uint64_t> fences;
  TimePoint held_until{};
  bool held = false;
  int releases = 0;  ///< calls of the holder that may have ended it
  bool done = false;
  std::size_t done_known_at = 0;
  std::uint64_t result = 0;
  std::map<std::uint64_t, int> maybe;  ///< results of complete() calls that may have taken effect
};

class IdempotencyCheck {
 public:
  explicit IdempotencyCheck(Tracks& tracks) : tracks_(tracks) {}

  void add(std::size_t index) {
    const Record& r = tracks_.at(index);
    KeyLife& key = keys_[r.index];
    switch (r.event) {
      case Event::kBeginning:
        began_[r.session] = index;
        break;
      case Event::kBegin:
        if (r.answer == Answer::kOk) acquired(key, r, index);
        if (r.answer == Answer::kCompleted) read(key, r, index);
        break;
      case Event::kEnding:
        ended_[r.session] = index;
        if (r.lease == key.fence) ++key.releases;
        ++key.maybe[r.number];
        break;
      case Event::kComplete:
        completed(key, r, index);
        break;
      case Event::kGiveUp:
        gave_up(key, r);
        break;
      default:
        break;
    }
  }

 private:
  void find(const Record& r, const char* what) {
    tracks_.find("K9", "idempotency key " + std::to_string(r.index) + what);
  }
  void acquired(KeyLife& key, const Record& r, std::size_t index) {
    const std::size_t began = began_[r.session];
    if (key.done && key.done_known_at < began) find(r, " was given out again although it has a result");
    if (!key.fences.insert(r.number).second) find(r, ": one fence was given twice");
    if (r.number < key.fence) {
      if (key.fence_known_at < began) find(r, ": its fence did not grow");
      return;  // an old answer that came late
    }
    const bool free = !key.held || key.releases > 0;
    if (!free && r.wall + tracks_.facts().skew_max < key.held_until) find(r, " has two holders");
    key.fence = r.number;
    key.fence_known_at = index;
    key.held = true;
    key.releases = 0;
    key.held_until = r.until_wall;
  }
  void read(KeyLife& key, const Record& r, std::size_t index) {
    const auto maybe = key.maybe.find(r.number);
    if (!key.done && maybe != key.maybe.end() && maybe->second > 0) {
      key.done = true;
      key.done_known_at = index;
      key.result = r.number;
    }
    if (!key.done) find(r, " has a result that nobody stored");
    if (key.done && key.result != r.number) find(r, ": its result changed");
  }
  void completed(KeyLife& key, const Record& r, std::size_t index) {
    if (r.answer == Answer::kUnknown) return;
    if (r.answer != Answer::kOk) {
      --key.maybe[r.number];
      if (r.lease == key.fence) --key.releases;
      return;
    }
    if (r.lease != key.fence) find(r, ": a holder that had lost it stored a result");
    if (key.done && key.result != r.number) find(r, " got a second result");
    if (!key.done) key.done_known_at = index;
    key.done = true;
    key.result = r.number;
    key.held = false;
  }
  void gave_up(KeyLife& key, const Record& r) {
    --key.maybe[r.number];
    if (r.answer == Answer::kUnknown) return;
    if (r.answer == Answer::kOk) {
      const bool taken_before = key.fence_known_at < ended_[r.session];
      if (r.lease < key.fence && taken_before) find(r, ": given up by somebody else");
      if (r.lease == key.fence) key.held = false;
    } else if (r.lease == key.fence) {
      --key.releases;
    }
  }

  Tracks& tracks_;
  std::map<std::uint32_t, KeyLife> keys_;
  std::map<std::uint32_t, std::size_t> began_, ended_;  ///< by client
};

}  // namespace

void check_idempotency(Tracks& tracks) {
  IdempotencyCheck check(tracks);
  for (std::size_t i = 0; i < tracks.history().size(); ++i)
    check.add(i);
}

}  // namespace towline::simulation
