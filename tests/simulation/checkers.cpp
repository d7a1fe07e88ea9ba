// K1 queue, K2 duplicates, K6 place, K7 delay, K8 dead letters.

#include "simulation/checkers.hpp"

#include <algorithm>
#include <set>

#include "simulation/faults.hpp"
#include "simulation/tracks.hpp"

namespace towline::simulation {
namespace {

bool remains(const FinalState& end, std::uint32_t message, std::uint32_t group) {
  return std::any_of(end.remainders.begin(), end.remainders.end(), [&](const Remainder& r) {
    return r.place != EndPlace::kDeadLetter && r.message == message &&
           (r.group == group || r.group == UINT8_MAX);
  });
}

bool was_cancelled(const Tracks& tracks, std::uint32_t message, bool surely) {
  for (const std::size_t index : tracks.publication(message).cancels) {
    const Answer answer = tracks.at(index).answer;
    if (answer == Answer::kOk || (!surely && answer == Answer::kUnknown)) return true;
  }
  return false;
}

void check_lost(Tracks& tracks, const FinalState& end, std::uint32_t m, std::uint32_t g) {
  const Track& track = tracks.track(m, g);
  std::size_t owed_since = 0;
  if (!track.redrives.empty()) owed_since = track.redrives.back();
  // When one copy was handled and another became a dead letter, the inbox keeps away what is redriven.
  const bool settles_all =
      tracks.facts().may_copy && tracks.facts().groups[g].options.inbox_window > Duration(0);
  const bool handled =
      std::any_of(track.handlings.begin(), track.handlings.end(), [&](const Handling& handling) {
        return handling.finish != SIZE_MAX && (handling.finish > owed_since || settles_all) &&
               tracks.at(handling.finish).verb == Verb::kAck;
      });
  const bool dead = std::any_of(track.stored.begin(), track.stored.end(), [&](std::size_t index) {
    return index > owed_since && tracks.at(index).verb == Verb::kDeadLetter;
  });
  if (handled || dead || was_cancelled(tracks, m, false) || remains(end, m, g)) return;
  tracks.find(
      "K1", called(m, g) + " is lost: acknowledged to its publisher, and neither handled nor a dead letter");
}

void check_made_up(Tracks& tracks, std::uint32_t m, std::uint32_t g) {
  const Track& track = tracks.track(m, g);
  if (track.handlings.empty()) return;
  const Publication& publication = tracks.publication(m);
  if (publication.answers.empty()) {
    tracks.find("K1", called(m, g) + " was handled, and nobody published it");
  } else if (!publication.acked && !publication.unknown && !publication.duplicate) {
    tracks.find("K1", called(m, g) + " was handled, and its publish was surely rejected");
  }
  if (was_cancelled(tracks, m, true))
    tracks.find("K1", called(m, g) + " was handled, and cancel() said that it never fires");
}

/// When the call began whose answer is at `index`.
std::size_t began_at(const Publication& publication, const Record& answer, std::size_t index) {
  const auto asked = publication.asked.find(answer.number);
  return asked == publication.asked.end() ? index : asked->second;
}

void check_cancels(Tracks& tracks, std::uint32_t m) {
  const Publication& publication = tracks.publication(m);
  std::size_t won = 0;
  for (const std::size_t index : publication.cancels) {
    const Answer answer = tracks.at(index).answer;
    if (answer == Answer::kOk) ++won;
    if (answer != Answer::kNotFound) continue;
    // Another call may have cancelled it: one that began before this answer and did not fail.
    const bool maybe_gone =
        std::any_of(publication.cancels.begin(), publication.cancels.end(), [&](std::size_t other) {
          const Record& r = tracks.at(other);
          const bool may_have = r.answer == Answer::kOk || r.answer == Answer::kUnknown;
          return may_have && began_at(publication, r, other) < index;
        });
    if (!maybe_gone) {
      tracks.find("K1", "cancel() of m" + std::to_string(m) +
                            " answered that it does not exist, and it was scheduled");
    }
  }
  if (won > 1) tracks.find("K1", "m" + std::to_string(m) + " was cancelled twice");
}

// Why the message came again after this handling; false: there is no reason.
bool explains(const Tracks& tracks, const Track& track, const Handling& earlier, const Handling& later) {
  const Record& start = tracks.at(earlier.start);
  // The later one was given its lease first, lost it to the earlier one, and did not know yet.
  const bool older = tracks.at(later.start).lease < start.lease;
  if (older && later.zombie) return true;
  if (earlier.finish == SIZE_MAX || earlier.finish > later.start) return true;  // never returned, or a zombie
  const Record& finish = tracks.at(earlier.finish);
  if (finish.verb != Verb::kAck || finish.answer != Answer::kOk || finish.at >= start.until) return true;
  for (const std::size_t redrive : track.redrives) {
    if (redrive > earlier.start && redrive < later.start) return true;
  }
  if (earlier.settle == SIZE_MAX || earlier.settle > later.start) return true;  // its lease ended, see K4
  const Record& settle = tracks.at(earlier.settle);
  return settle.verb != Verb::kAck;
}

void check_dedup_windows(Tracks& tracks) {
  const Facts& facts = tracks.facts();
  std::map<std::int32_t, std::vector<std::uint32_t>> by_id;
  for (std::uint32_t m = 0; m < tracks.message_count(); ++m) {
    if (facts.messages[m].dedup >= 0 && !tracks.publication(m).answers.empty())
      by_id[facts.messages[m].dedup].push_back(m);
  }
  for (const auto& [dedup, members] : by_id) {
    std::set<std::uint32_t> stored;
    for (const std::uint32_t m : members) {
      bool seen = tracks.publication(m).acked;
      for (std::uint32_t g = 0; g < tracks.group_count(); ++g)
        seen |= !tracks.track(m, g).holdings.empty();
      if (seen) stored.insert(m);
    }
    if (facts.messages[members.front()].dedup_mode == DedupMode::kWindow) {
      // A cancelled message keeps its dedup id; that the second one is a duplicate then is what the window
      // says.
      if (stored.size() > 1) {
        tracks.find("K2", "dedup id " + std::to_string(dedup) + " let m" + std::to_string(*stored.begin()) +
                              " and m" + std::to_string(*stored.rbegin()) + " through within its window");
      }
      continue;
    }
    for (const std::uint32_t later : stored) {
      for (const std::uint32_t earlier : stored) {
        const auto& a = tracks.publication(earlier);
        const auto& b = tracks.publication(later);
        if (!a.acked || !b.acked || a.answers.back() >= b.answers.front()) continue;
        // One call can store them in either order: what was handed out before the other one was answered was
        // there first.
        const auto handed_out_before = [&](std::uint32_t g) {
          const auto& holdings = tracks.track(later, g).holdings;
          return !holdings.empty() && holdings.front().hand_out < a.answers.back();
        };
        bool was_first = false;
        for (std::uint32_t g = 0; g < tracks.group_count(); ++g)
          was_first |= handed_out_before(g);
        if (was_first) continue;
        bool finished = was_cancelled(tracks, earlier, false);
        for (std::uint32_t g = 0; g < tracks.group_count(); ++g) {
          const Track& track = tracks.track(earlier, g);
          for (const Holding& holding : track.holdings)
            finished |= holding.hand_out < b.answers.back() && holding.settled;
          // Committed before it is settled, where these are two systems.
          for (const Handling& handling : track.handlings)
            finished |= facts.world == WorldKind::kSplit && handling.finish < b.answers.back();
          for (const std::size_t index : track.stored)
            finished |= index < b.answers.back();
        }
        if (!finished) {
          tracks.find("K2", "dedup id " + std::to_string(dedup) + " let m" + std::to_string(later) +
                                " through while m" + std::to_string(earlier) + " was unfinished");
        }
      }
    }
  }
}

}  // namespace

void check_queue(Tracks& tracks, const FinalState& end) {
  for (std::uint32_t m = 0; m < tracks.message_count(); ++m) {
    check_cancels(tracks, m);
    for (std::uint32_t g = 0; g < tracks.group_count(); ++g) {
      check_made_up(tracks, m, g);
      const bool at_most_once = tracks.facts().groups[g].options.ack == AckPolicy::kFirst;
      if (tracks.belongs(m, g) && tracks.publication(m).acked && !at_most_once) check_lost(tracks, end, m, g);
    }
  }
}

void check_duplicates(Tracks& tracks) {
  for (std::uint32_t m = 0; m < tracks.message_count(); ++m) {
    for (std::uint32_t g = 0; g < tracks.group_count(); ++g) {
      const Track& track = tracks.track(m, g);
      const bool at_most_once = tracks.facts().groups[g].options.ack == AckPolicy::kFirst;
      if (tracks.facts().may_copy) continue;
      if (at_most_once && track.handlings.size() > 1 + track.redrives.size()) {
        tracks.find("K2", called(m, g) + " was handled again although it is acknowledged first");
      }
      for (std::size_t i = 1; i < track.handlings.size(); ++i) {
        if (explains(tracks, track, track.handlings[i - 1], track.handlings[i])) continue;
        tracks.find("K2", called(m, g) + " was handled well and acknowledged, and handled again");
      }
    }
  }
  check_dedup_windows(tracks);
}

void check_places(Tracks& tracks, const FinalState& end) {
  for (const Remainder& r : end.remainders) {
    if (r.place == EndPlace::kDeadLetter || end.stuck) continue;
    static constexpr const char* kNames[] = {"waiting", "in flight", "scheduled", "parked"};
    tracks.find("K6", called(r.message, r.group) + " is still " + kNames[static_cast<std::size_t>(r.place)] +
                          " at the end");
  }
  std::set<std::pair<MessageId, std::string>> pending;
  for (const DeadLetter& letter : end.dead_letters) {
    if (letter.status == DeadLetterStatus::kReprocessing)
      tracks.find("K6", "a dead letter is still being reprocessed");
    if (letter.status != DeadLetterStatus::kPending) continue;
    if (!pending.insert({letter.message_id, letter.group}).second && !tracks.facts().may_copy) {
      tracks.find("K6", "message " + letter.message_id.to_string() + " has two pending dead letters in " +
                            letter.group);
    }
  }
}

void check_delays(Tracks& tracks) {
  const Duration tolerance = tracks.facts().skew_max;
  for (std::uint32_t m = 0; m < tracks.message_count(); ++m) {
    const Publication& publication = tracks.publication(m);
    TimePoint due = kNever;
    for (const std::size_t index : publication.answers) {
      const Record& r = tracks.at(index);
      if (r.until_wall != TimePoint{}) due = std::min(due, r.until_wall);
    }
    const auto due_at = [&](std::size_t index) {
      TimePoint at = due;
      for (const std::size_t moved : publication.reschedules) {
        const Record& r = tracks.at(moved);
        if (began_at(publication, r, moved) > index) continue;
        if (r.answer == Answer::kOk && moved <= index) {
          at = r.until_wall;
        } else if (r.answer == Answer::kOk || r.answer == Answer::kUnknown) {
          at = std::min(at, r.until_wall);
        }
      }
      return at;
    };
    for (std::uint32_t g = 0; g < tracks.group_count(); ++g) {
      const Track& track = tracks.track(m, g);
      if (!track.handlings.empty() && due != kNever) {
        const Record& start = tracks.at(track.handlings.front().start);
        const TimePoint at = due_at(track.handlings.front().start);
        if (start.wall + tolerance < at) tracks.find("K7", called(m, g) + " was handled before its due time");
      }
      for (const std::size_t stored : track.stored) {
        const Record& retry = tracks.at(stored);
        if (retry.verb != Verb::kRetry || tracks.facts().may_copy) continue;
        for (const Handling& handling : track.handlings) {
          if (handling.start < stored || handling.zombie) continue;
          if (tracks.at(handling.start).wall + tolerance < retry.until_wall) {
            tracks.find("K7", called(m, g) + " was tried again before its wait was over");
          }
          break;
        }
      }
    }
  }
}

/// What was stored as a dead letter is found in the dump, whatever became of it since.
void check_kept(Tracks& tracks, const FinalState& end) {
  for (const Record& r : tracks.history()) {
    if (r.event == Event::kRemoved && r.number > 0) return;  // the janitor takes them in its own order
  }
  std::set<std::pair<std::uint32_t, std::uint32_t>> kept;
  for (const DeadLetter& letter : end.dead_letters)
    kept.emplace(number_of(letter.payload), number_in(letter.group));
  for (std::uint32_t m = 0; m < tracks.message_count(); ++m) {
    for (std::uint32_t g = 0; g < tracks.group_count(); ++g) {
      const auto& stored = tracks.track(m, g).stored;
      const bool died = std::any_of(stored.begin(), stored.end(), [&](std::size_t index) {
        return tracks.at(index).verb == Verb::kDeadLetter;
      });
      if (died && !kept.contains({m, g}))
        tracks.find("K8", "the dead letter of " + called(m, g) + " is gone");
    }
  }
}

/// Retention holds for every status, or what nobody resolves would grow without bound.
void check_removed(Tracks& tracks, const FinalState& end) {
  if (end.stuck) return;
  const Facts& facts = tracks.facts();
  if (end.dead_letters.size() > facts.dead_letter_count_max) {
    tracks.find("K8", std::to_string(end.dead_letters.size()) + " dead letters are kept, at most " +
                          std::to_string(facts.dead_letter_count_max) + " may be");
  }
  if (facts.dead_letter_age_max == Duration::max()) return;
  const TimePoint oldest = end.wall - facts.dead_letter_age_max - facts.skew_max - std::chrono::seconds(10);
  for (const DeadLetter& letter : end.dead_letters) {
    if (letter.last_failed_at < oldest)
      tracks.find("K8", "a dead letter of " + letter.topic + "/" + letter.group + " is older than may be");
  }
}

void check_dead_letters(Tracks& tracks, const FinalState& end) {
  check_kept(tracks, end);
  check_removed(tracks, end);
  const Facts& facts = tracks.facts();
  for (std::uint32_t m = 0; m < tracks.message_count(); ++m) {
    for (std::uint32_t g = 0; g < tracks.group_count(); ++g) {
      const Track& track = tracks.track(m, g);
      const ConsumerOptions& options = facts.groups[g].options;
      for (const std::size_t index : track.stored) {
        const Record& r = tracks.at(index);
        if (r.verb != Verb::kDeadLetter) continue;
        const Mood mood = heals(facts, m, g, r.redrives) ? Mood::kFine : facts.messages[m].behaviour[g].mood;
        const std::uint32_t failures = possible_failures(tracks, track, r.redrives, index);
        const bool skips = options.order != Order::kUnordered && options.on_key_failure == KeyFailure::kSkip;
        const auto limit = skips ? 1 : static_cast<std::uint32_t>(options.retry.max_attempts);
        bool allowed = false;
        switch (static_cast<DeadLetterReason>(r.reason)) {
          case DeadLetterReason::kExhausted:
            allowed = failures >= limit;
            break;
          case DeadLetterReason::kPermanent:
            allowed = mood == Mood::kPermanent;
            break;
          case DeadLetterReason::kManual:
            allowed = mood == Mood::kRejects;
            break;
          case DeadLetterReason::kExpired:
            allowed = facts.messages[m].ttl > Duration(0);
            break;
          case DeadLetterReason::kCrashLoop:
            allowed = true;
            break;  // K5 looks closer
          default:
            break;
        }
        if (!allowed) {
          tracks.find("K8", called(m, g) + " (" + name_of(mood) + ") became a dead letter with reason " +
                                std::to_string(r.reason) + " after " + std::to_string(failures) +
                                " failures");
        }
      }
    }
  }
}

}  // namespace towline::simulation
