// Sorting the history. Leases are followed here, because several checkers need to know who held what and
// until when.

#include "simulation/tracks.hpp"

#include <algorithm>

#include "base/random.hpp"

namespace towline::simulation {

Tracks::Tracks(const std::vector<Record>& history, const Facts& facts) : history_(history), facts_(facts) {
  tracks_.resize(facts.messages.size() * facts.groups.size());
  publications_.resize(facts.messages.size());
  for (std::size_t i = 0; i < history.size(); ++i)
    add(i);
}

bool Tracks::belongs(std::uint32_t message, std::uint32_t group) const {
  const auto& topics = facts_.groups[group].topics;
  return std::find(topics.begin(), topics.end(), facts_.messages[message].topic) != topics.end();
}

void Tracks::add(std::size_t index) {
  const Record& r = history_[index];
  switch (r.event) {
    case Event::kPublish: {
      if (r.message >= publications_.size()) break;
      Publication& publication = publications_[r.message];
      publication.answers.push_back(index);
      publication.acked |= r.answer == Answer::kOk;
      publication.unknown |= r.answer == Answer::kUnknown;
      publication.duplicate |= r.answer == Answer::kDuplicate;
      break;
    }
    case Event::kAsking:
      if (r.message < publications_.size()) publications_[r.message].asked[r.number] = index;
      break;
    case Event::kCancel:
      if (r.message < publications_.size()) publications_[r.message].cancels.push_back(index);
      break;
    case Event::kReschedule:
      if (r.message < publications_.size()) publications_[r.message].reschedules.push_back(index);
      break;
    case Event::kHandOut:
      hand_out(index);
      break;
    case Event::kSettle:
      settle(index);
      break;
    case Event::kRenew:
    case Event::kLeaseLost:
      renew(index);
      break;
    case Event::kClose:
      end_session(r.session, r.at, index);
      break;
    case Event::kStart:
      if (is_known(r)) {
        Handling handling{index};
        const auto it = by_token_.find({r.lease, r.index});
        if (it != by_token_.end()) {
          Holding& holding = it->second.track->holdings[it->second.holding];
          holding.started = true;
          handling.zombie = holding.until <= r.at || !holding.open;
          // Whoever was given it since tells that this lease had ended, whatever the clocks say.
          if (facts_.leases_may_jump && it->second.track->holdings.size() > it->second.holding + 1)
            handling.zombie = true;
        }
        track(r.message, r.group).handlings.push_back(handling);
      }
      break;
    case Event::kFinish:
      if (is_known(r)) {
        for (Handling& handling : track(r.message, r.group).handlings) {
          const Record& start = history_[handling.start];
          const bool same = start.lease == r.lease && start.index == r.index && start.process == r.process;
          if (same && handling.finish == SIZE_MAX) handling.finish = index;
        }
      }
      break;
    case Event::kStored:
      if (is_known(r) && r.answer == Answer::kOk) track(r.message, r.group).stored.push_back(index);
      break;
    case Event::kRedrive:
      if (is_known(r) && r.answer == Answer::kOk) track(r.message, r.group).redrives.push_back(index);
      break;
    default:
      break;
  }
}

void Tracks::hand_out(std::size_t index) {
  const Record& r = history_[index];
  if (!is_known(r)) return;
  Track& track = this->track(r.message, r.group);
  by_token_[{r.lease, r.index}] = {&track, track.holdings.size()};
  open_[r.session].push_back({r.lease, r.index});
  track.holdings.push_back({index, r.until});
}

void Tracks::settle(std::size_t index) {
  const Record& r = history_[index];
  const auto it = by_token_.find({r.lease, r.index});
  if (it == by_token_.end() || r.answer != Answer::kOk) return;
  Track& track = *it->second.track;
  Holding& holding = track.holdings[it->second.holding];
  if (holding.until < r.at && !facts_.leases_may_jump) {
    find("K4", "the settlement of lease " + std::to_string(r.lease) + "." + std::to_string(r.index) +
                   " was accepted after its end");
  }
  holding.settled = true;
  holding.ended_by = index;
  holding.open = false;
  holding.until = r.at;
  for (Handling& handling : track.handlings) {
    const Record& start = history_[handling.start];
    if (start.lease == r.lease && start.index == r.index) handling.settle = index;
  }
}

void Tracks::renew(std::size_t index) {
  const Record& r = history_[index];
  auto& tokens = open_[r.session];
  std::erase_if(tokens, [&](const Token& token) {
    const Where& where = by_token_.at(token);
    Holding& holding = where.track->holdings[where.holding];
    if (!holding.open) return true;
    if (r.event == Event::kLeaseLost) {
      if (token.first == r.lease) holding.open = false;
      return !holding.open;
    }
    // What an answer that got lost had handed out is nobody's to renew.
    if (history_[holding.hand_out].answer == Answer::kOk) holding.until = r.until;
    return false;
  });
}

void Tracks::end_session(std::uint32_t session, MonotonicTime at, std::size_t index) {
  for (const Token& token : open_[session]) {
    const Where& where = by_token_.at(token);
    Holding& holding = where.track->holdings[where.holding];
    if (!holding.open) continue;
    holding.open = false;
    if (holding.until <= at) continue;  // it had ended before
    holding.closed = true;
    holding.ended_by = index;
    holding.until = at;
  }
  open_.erase(session);
}

std::string called(std::uint32_t message, std::uint32_t group) {
  return "m" + std::to_string(message) + "/g" + std::to_string(group);
}

std::uint32_t possible_failures(const Tracks& tracks, const Track& track, std::uint32_t redrives,
                                std::size_t before) {
  std::uint32_t count = 0;
  for (const Handling& handling : track.handlings) {
    const Record& start = tracks.at(handling.start);
    if (start.redrives != redrives || handling.start >= before) continue;
    if (handling.finish == SIZE_MAX) {
      ++count;
      continue;
    }
    const Record& finish = tracks.at(handling.finish);
    const bool said_so =
        finish.verb == Verb::kFail || finish.verb == Verb::kPermanent || finish.verb == Verb::kNak;
    if (said_so || finish.at >= start.until) ++count;
  }
  return count;
}

bool heals(const Facts& facts, std::uint32_t message, std::uint32_t group, std::uint32_t redrives) noexcept {
  if (redrives == 0) return false;
  const std::uint64_t drawn = base::mix(facts.seed ^ base::mix(message * 31ULL + group * 7ULL + redrives));
  return static_cast<double>(drawn >> 11) * 0x1.0p-53 < facts.healed_by_redrive;
}

std::vector<Violation> check_history(const std::vector<Record>& history, const Facts& facts,
                                     const FinalState& end) {
  Tracks tracks(history, facts);
  check_queue(tracks, end);
  check_duplicates(tracks);
  check_order(tracks);
  check_leases(tracks);
  check_attempts(tracks);
  check_places(tracks, end);
  check_delays(tracks);
  check_dead_letters(tracks, end);
  check_idempotency(tracks);
  check_sagas(tracks, end);
  check_once(tracks, end);
  check_events(tracks, end);
  return std::move(tracks.found);
}

}  // namespace towline::simulation
