// Settler: see the header for the order of commit and settlement.

#include "engine/settler.hpp"

#include <algorithm>
#include <utility>

#include "base/text.hpp"
#include "engine/dead_letter_entry.hpp"

namespace towline::engine {
namespace {

constexpr std::size_t kHistoryMax = 10;

/// Log records of one level about failures in a second.
constexpr std::uint64_t kToldMax = 10;
constexpr std::size_t kToldMessageMax = 300;

/// Deliveries of one key that are parked in one unit at most.
constexpr std::size_t kTogetherMax = 200;

/// What a handler says about its error is kept, but a megabyte of it helps nobody.
constexpr std::size_t kTypeMax = 256;
constexpr std::size_t kMessageMax = 8 * 1024;
constexpr std::size_t kHistoryMessageMax = 1024;
constexpr std::size_t kStackMax = 64 * 1024;

std::string cut(const std::string& text, std::size_t length_max) {
  return text.size() <= length_max ? text : text.substr(0, length_max) + "...";
}

ErrorInfo shortened(const ErrorInfo& error) {
  return {cut(error.type, kTypeMax), cut(error.message, kMessageMax), cut(error.stack, kStackMax)};
}

spi::Failure failure_of(const ErrorInfo& error, std::uint32_t attempt, TimePoint now) {
  return {now, attempt, cut(error.type, kTypeMax), cut(error.message, kHistoryMessageMax)};
}

bool blocks_a_key(const spi::Unit& unit) {
  return std::any_of(unit.writes.begin(), unit.writes.end(),
                     [](const spi::Write& write) { return std::holds_alternative<spi::PutKeyBlock>(write); });
}

}  // namespace

void Completion::finish(Result<void> result) {
  {
    const std::lock_guard lock(mutex_);
    if (result_) return;
    result_ = std::move(result);
  }
  changed_.notify_all();
}

Result<void> Completion::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return result_.has_value(); });
  return *result_;
}

Settler::Settler(std::shared_ptr<Context> context, const ConsumerOptions& options, Dispatcher& dispatcher)
    : context_(std::move(context)),
      options_(options),
      dispatcher_(dispatcher),
      rng_(context_->make_rng()),
      rules_(policy::DecisionRules::of(options_)),
      budget_(options_.retry.budget_ratio) {}

// ---- planning -----------------------------------------------------------------------------------

void Settler::settle_plainly(DeliveryPtr state, spi::Verb verb, Book book) {
  settlements_.push_back({state->delivery.token, verb});
  book.state = std::move(state);
  settlement_books_.push_back(std::move(book));
}

void Settler::settle_with(spi::Unit unit, Book book) {
  if (context_->capabilities.is_store) {
    unit.writes.insert(unit.writes.begin(), spi::Settle{{book.state->delivery.token, spi::Verb::kAck}});
  }
  const bool keeps_order = book.step != LaneStep::kRelease && book.step != LaneStep::kNone;
  Piece piece{std::move(unit), std::move(book)};
  if (keeps_order || blocks_a_key(piece.unit)) {
    chains_[chain_of(piece.book.state->envelope())].pieces.push_back(std::move(piece));
    return;
  }
  Bundle bundle;
  bundle.pieces.push_back(std::move(piece));
  send(std::move(bundle));
}

std::string Settler::chain_of(const spi::Envelope& envelope) const {
  std::string name = envelope.topic;
  name.push_back('\0');
  name += std::to_string(envelope.partition);
  name.push_back('\0');
  return name + order_key(envelope);
}

void Settler::send(Bundle bundle) {
  spi::Unit& unit = units_.emplace_back();
  if (bundle.pieces.size() == 1) {
    unit = std::move(bundle.pieces.front().unit);
  } else {
    for (const Piece& piece : bundle.pieces)
      unit.writes.insert(unit.writes.end(), piece.unit.writes.begin(), piece.unit.writes.end());
  }
  bundles_.push_back(std::move(bundle));
}

void Settler::prepare() {
  for (auto& [name, chain] : chains_) {
    if (chain.on_its_way) continue;
    chain.on_its_way = true;
    Bundle bundle;
    bundle.chain = name;
    do {
      bundle.pieces.push_back(std::move(chain.pieces.front()));
      chain.pieces.pop_front();
      // Letting the next one through may end the block, and then nothing can be parked behind it.
    } while (!chain.one_by_one && bundle.pieces.size() < kTogetherMax && !chain.pieces.empty() &&
             bundle.pieces.back().book.step != LaneStep::kUnpark &&
             chain.pieces.front().book.step != LaneStep::kUnpark);
    send(std::move(bundle));
  }
}

bool Settler::plain_ack_is_enough(const spi::Envelope& envelope) const {
  return options_.inbox_window.count() <= 0 &&
         !(envelope.dedup_mode == DedupMode::kWhileUnfinished && !envelope.dedup_id.empty());
}

void Settler::add_acked(std::vector<DeliveryPtr> states) {
  for (DeliveryPtr& state : states) {
    count(policy::BreakerSignal::kSuccess, *state);
    if (plain_ack_is_enough(state->envelope()) && !state->settled_first) {
      settle_plainly(std::move(state), spi::Verb::kAck,
                     Book{nullptr, LaneStep::kRelease, &counts.acked, true, nullptr});
    } else {
      acknowledge(Decided{std::move(state), Outcome::ack()});
    }
  }
}

void Settler::add_passed_over(DeliveryPtr state, bool duplicate) {
  dispatcher_.pass(*state);
  Decided decided{std::move(state), Outcome::ack()};
  decided.passed_over = true;
  decided.duplicate = duplicate;
  count(policy::BreakerSignal::kIgnored, *decided.state);
  acknowledge(std::move(decided));
}

std::atomic<std::uint64_t>* Settler::counter_of(const Decided& decided) {
  if (decided.duplicate) return &counts.duplicates;
  return decided.passed_over ? &counts.filtered : &counts.acked;
}

void Settler::acknowledge(Decided decided) {
  DeliveryState& state = *decided.state;
  Book book{decided.state, LaneStep::kRelease, counter_of(decided), true, std::move(decided.completion)};
  if (state.settled_first || decided.settled_already) {
    if (decided.settled_already && dispatcher_.is_blocked(state)) book.step = LaneStep::kUnpark;
    close_book(book, {});
    return;
  }
  spi::Unit unit;
  finish_records(unit, book, state, !decided.passed_over);
  if (unit.writes.empty()) {
    settle_plainly(decided.state, spi::Verb::kAck, std::move(book));
  } else {
    settle_with(std::move(unit), std::move(book));
  }
}

void Settler::finish_records(spi::Unit& unit, Book& book, const DeliveryState& state, bool handled) const {
  const spi::Envelope& envelope = state.envelope();
  if (handled && options_.inbox_window.count() > 0) {
    unit.writes.push_back(
        spi::PutInbox{options_.group, envelope.id, context_->clock->now() + options_.inbox_window});
  }
  add_forgetting(unit, envelope);
  // Where outcomes are committed apart from their settlement, another process that lost this message may have
  // blocked its key later than this one looked: a head lets go of its key whether or not that is known here.
  if (dispatcher_.is_blocked(state) || envelope.heads_key) {
    unit.writes.push_back(spi::UnparkNext{options_.group, envelope.topic, order_key(envelope),
                                          envelope.partition, context_->clock->now(), envelope.id});
    book.step = LaneStep::kUnpark;
  }
}

void Settler::add_forgetting(spi::Unit& unit, const spi::Envelope& envelope) {
  if (envelope.dedup_mode != DedupMode::kWhileUnfinished || envelope.dedup_id.empty()) return;
  unit.writes.push_back(spi::ForgetDedup{envelope.topic, envelope.dedup_id, envelope.id});
}

void Settler::add_finish_records(spi::Unit& unit, const DeliveryState& state) const {
  Book unused;
  finish_records(unit, unused, state, true);
}

std::string Settler::order_key(const spi::Envelope& envelope) const {
  return options_.order == Order::kKeyOrdered ? envelope.key.value_or(std::string()) : std::string();
}

void Settler::add_released(DeliveryPtr state) {
  count(policy::BreakerSignal::kIgnored, *state);
  dispatcher_.give_back(*state);
  settle_plainly(std::move(state), spi::Verb::kRelease,
                 Book{nullptr, LaneStep::kRelease, nullptr, true, nullptr});
}

void Settler::give_back(const spi::Token& token) {
  settlements_.push_back({token, spi::Verb::kRelease});
  settlement_books_.push_back(Book{nullptr, LaneStep::kNone, nullptr, true, nullptr});
}

void Settler::release_behind(const std::vector<DeliveryPtr>& behind) {
  for (const DeliveryPtr& state : behind)
    add_released(state);
}

std::vector<DeliveryPtr> Settler::take_parking(const std::string& chain) {
  std::vector<DeliveryPtr> parking;
  const auto it = chains_.find(chain);
  if (it == chains_.end()) return parking;
  std::erase_if(it->second.pieces, [&](Piece& piece) {
    if (piece.book.step != LaneStep::kParked) return false;
    parking.push_back(std::move(piece.book.state));
    return true;
  });
  if (it->second.pieces.empty() && !it->second.on_its_way) chains_.erase(it);
  return parking;
}

void Settler::add_parked(DeliveryPtr state) {
  count(policy::BreakerSignal::kIgnored, *state);
  spi::ScheduleRecord record;
  record.id = context_->make_id();
  record.envelope = state->envelope();
  record.envelope.group = options_.group;
  record.envelope.crashes = state->delivery.crashes;
  record.due_at = kNever;
  record.parked = true;
  record.order_key = order_key(state->envelope());
  spi::Unit unit{{spi::PutSchedule{std::move(record)}}};
  dispatcher_.leave_key(*state);
  settle_with(std::move(unit), Book{std::move(state), LaneStep::kParked, nullptr, true, nullptr});
}

void Settler::close_as_lost(const Decided& decided) {
  const DeliveryState& state = *decided.state;
  counts.lease_lost.fetch_add(1, std::memory_order_relaxed);
  count(policy::BreakerSignal::kIgnored, state);
  if (options_.order != Order::kUnordered)
    dispatcher_.doubt(state.envelope().topic, state.envelope().partition);
  std::vector<DeliveryPtr> behind = dispatcher_.drop(*decided.state);
  finish({&decided.state, 1}, false);
  release_behind(behind);
}

policy::DeliveryFacts Settler::facts_of(const DeliveryState& state, TimePoint now) const {
  const spi::Envelope& envelope = state.envelope();
  policy::DeliveryFacts facts;
  facts.now = now;
  facts.published_at = envelope.published_at;
  facts.expires_at = envelope.expires_at;
  facts.attempt = envelope.attempt;
  facts.crashes = state.delivery.crashes;
  facts.undecodable = state.delivery.undecodable.has_value();
  facts.ordered = state.lane != nullptr;
  facts.heads_key = envelope.heads_key;
  facts.previous_delay = envelope.retry_delay;
  facts.stopping = stopping_;
  return facts;
}

void Settler::count(policy::BreakerSignal signal, const DeliveryState& state) {
  if (tally_.empty() || tally_.back().signal != signal || tally_.back().period != state.breaker_period) {
    tally_.push_back({signal, state.breaker_period, 0});
  }
  ++tally_.back().count;
}

void Settler::add(Decided decided) {
  if (decided.lost) {
    close_as_lost(decided);
    return;
  }
  if (decided.intake) {  // no handler ran: decided by policy::decide_intake
    dispatcher_.pass(*decided.state);
    count(policy::BreakerSignal::kIgnored, *decided.state);
    const policy::Decision decision = *decided.intake;
    decision.action == policy::Action::kDiscard ? discard(std::move(decided), decision)
                                                : to_dead_letters(std::move(decided), decision);
    return;
  }
  if (options_.group.empty()) {  // an ephemeral subscriber keeps nothing, so there is nothing to try again
    counts.failed.fetch_add(1, std::memory_order_relaxed);
    count(policy::BreakerSignal::kIgnored, *decided.state);
    settle_plainly(
        decided.state, spi::Verb::kAck,
        Book{nullptr, LaneStep::kRelease, &counts.discarded, false, std::move(decided.completion)});
    return;
  }
  policy::DeliveryFacts facts = facts_of(*decided.state, context_->clock->now());
  facts.budget_spent = budget_.is_spent(context_->clock->monotonic());
  const policy::Decision decision = policy::decide(decided.outcome, facts, rules_, rng_);
  count(decision.breaker, *decided.state);
  if (decision.is_retry) (void)budget_.take(context_->clock->monotonic());
  if (decided.outcome.error.type == "HandlerTimeout")
    counts.timed_out.fetch_add(1, std::memory_order_relaxed);
  if (decision.counts_failure) counts.failed.fetch_add(1, std::memory_order_relaxed);
  switch (decision.action) {
    case policy::Action::kHandle:
    case policy::Action::kAck:
      acknowledge(std::move(decided));
      break;
    case policy::Action::kRelease:
      release(std::move(decided));
      break;
    case policy::Action::kAgain:
      retry(std::move(decided), decision);
      break;
    case policy::Action::kDiscard:
      discard(std::move(decided), decision);
      break;
    case policy::Action::kDeadLetter:
      to_dead_letters(std::move(decided), decision);
      break;
  }
}

void Settler::discard(Decided decided, const policy::Decision& decision) {
  Book book{decided.state, LaneStep::kRelease, &counts.discarded, false, std::move(decided.completion)};
  end_without_success(spi::Unit{}, std::move(book), decision);
}

void Settler::release(Decided decided) {
  std::vector<DeliveryPtr> behind = dispatcher_.take_waiting(*decided.state);
  dispatcher_.give_back(*decided.state);
  settle_plainly(std::move(decided.state), spi::Verb::kRelease,
                 Book{nullptr, LaneStep::kRelease, nullptr, true, std::move(decided.completion)});
  release_behind(behind);
}

spi::Envelope Settler::next_attempt(const Decided& decided, const policy::Decision& decision) const {
  const DeliveryState& state = *decided.state;
  spi::Envelope next = state.envelope();
  const TimePoint now = context_->clock->now();
  next.group = options_.group;
  next.crashes = state.delivery.crashes;
  next.attempt = decision.attempt;
  if (decision.counts_failure) {
    next.history.push_back(failure_of(decided.outcome.error, state.envelope().attempt, now));
    if (next.history.size() > kHistoryMax) next.history.erase(next.history.begin());
    if (!next.first_failed_at) next.first_failed_at = now;
    next.retry_delay = decision.delay;
  }
  return next;
}

void Settler::retry(Decided decided, const policy::Decision& decision) {
  DeliveryState& state = *decided.state;
  if (state.settled_first) {  // at most once: acknowledged already, so there is nothing to try again
    Book book{decided.state, LaneStep::kRelease, &counts.discarded, false, std::move(decided.completion)};
    close_book(book, {});
    return;
  }
  const TimePoint now = context_->clock->now();
  spi::ScheduleRecord record;
  record.id = context_->make_id();
  record.envelope = next_attempt(decided, decision);
  const Duration delay = std::min(decision.delay, context_->options.delay_max);
  record.due_at = now + delay;
  if (decision.counts_failure)
    tell(LogLevel::kInfo, state, decided.outcome.error, "again in " + base::duration_text(delay));
  std::atomic<std::uint64_t>* counter = decision.counts_failure ? &counts.retried : &counts.deferred;
  Book book{decided.state, LaneStep::kRelease, counter, !decision.counts_failure,
            std::move(decided.completion)};
  spi::Unit unit;
  std::vector<DeliveryPtr> behind;
  if (decision.key_effect == policy::KeyEffect::kBlock) {
    record.envelope.heads_key = true;
    unit.writes.push_back(spi::PutKeyBlock{block_of(state, state.envelope().id, false)});
    behind = dispatcher_.block(state, false);
    book.step = LaneStep::kNone;
  }
  unit.writes.insert(unit.writes.begin(), spi::PutSchedule{std::move(record)});
  settle_with(std::move(unit), std::move(book));
  for (DeliveryPtr& waiting : behind)
    add_parked(std::move(waiting));
}

void Settler::tell(LogLevel level, const DeliveryState& state, const ErrorInfo& error,
                   const std::string& what_next) {
  if (!context_->options.log) return;
  const MonotonicTime now = context_->clock->monotonic();
  Told& told = told_[level];
  if (now >= told.until) {
    told.until = now + std::chrono::seconds(1);
    told.count = 0;
  }
  if (told.count == kToldMax) {
    ++told.left_out;
    return;
  }
  ++told.count;
  const spi::Envelope& envelope = state.envelope();
  std::string text = options_.group + "/" + envelope.topic + ": message " + envelope.id.to_string() +
                     ", attempt " + std::to_string(envelope.attempt) + ": " + base::escape(error.type) +
                     ": " + base::escape(error.message, kToldMessageMax) + "; " + what_next;
  if (told.left_out > 0)
    text += " (" + std::to_string(std::exchange(told.left_out, 0)) + " more failed before)";
  context_->log(level, "consumer", text);
}

spi::KeyBlock Settler::block_of(const DeliveryState& state, const MessageId& head, bool held) const {
  const spi::Envelope& envelope = state.envelope();
  spi::KeyBlock block;
  block.group = options_.group;
  block.topic = envelope.topic;
  block.partition = envelope.partition;
  block.key = order_key(envelope);
  block.head = head;
  block.since = context_->clock->now();
  block.held = held;
  return block;
}

void Settler::to_dead_letters(Decided decided, const policy::Decision& decision) {
  DeliveryState& state = *decided.state;
  EntryFacts facts;
  facts.id = context_->make_id();
  facts.reason = decision.reason;
  facts.error = shortened(decided.outcome.error);
  if (facts.reason == DeadLetterReason::kExpired) counts.expired.fetch_add(1, std::memory_order_relaxed);
  facts.now = context_->clock->now();
  facts.crashes = state.delivery.crashes;
  facts.failures = decision.failures;
  facts.keep_original = options_.dead_letters.keep_original;
  spi::Envelope last = state.envelope();
  if (decision.counts_failure) {
    last.history.push_back(failure_of(facts.error, last.attempt, facts.now));
    if (last.history.size() > kHistoryMax) last.history.erase(last.history.begin());
  }
  DeadLetter entry = make_dead_letter(last, options_.group, facts);
  tell(LogLevel::kWarning, state, facts.error,
       "it is dead letter " + facts.id.to_string() + " (" + std::string(name_of(facts.reason)) + ")");
  if (state.delivery.undecodable) entry.payload = *state.delivery.undecodable;
  spi::Unit unit{{spi::PutDeadLetter{entry}}};
  new_entries_.push_back(std::move(entry));
  Book book{decided.state, LaneStep::kRelease, &counts.dead_lettered, false, std::move(decided.completion)};
  end_without_success(std::move(unit), std::move(book), decision);
}

void Settler::end_without_success(spi::Unit unit, Book book, const policy::Decision& decision) {
  DeliveryState& state = *book.state;
  std::vector<DeliveryPtr> behind;
  if (decision.key_effect == policy::KeyEffect::kHold && state.lane != nullptr) {
    add_forgetting(unit, state.envelope());
    unit.writes.push_back(spi::PutKeyBlock{block_of(state, state.envelope().id, true)});
    behind = dispatcher_.block(state, true);
    book.step = LaneStep::kNone;
  } else {
    finish_records(unit, book, state, false);
  }
  if (state.settled_first) {
    commit_alone(std::move(unit), book);
  } else if (unit.writes.empty()) {
    DeliveryPtr settled = book.state;
    settle_plainly(std::move(settled), spi::Verb::kAck, std::move(book));
  } else {
    settle_with(std::move(unit), std::move(book));
  }
  for (DeliveryPtr& waiting : behind)
    add_parked(std::move(waiting));
}

void Settler::commit_alone(spi::Unit unit, Book& book) {
  if (unit.writes.empty()) {
    close_book(book, {});
    return;
  }
  auto done = context_->store->commit({&unit, 1});
  if (!done) {
    close_book(book, done.error());
  } else {
    close_book(book, done->empty() ? Result<void>{} : done->front());
  }
}

// ---- committing and closing the books -----------------------------------------------------------

Result<void> Settler::commit_units() {
  if (context_->capabilities.is_store || units_.empty()) return {};
  auto results = context_->store->commit(units_);
  if (!results) return std::move(results).error();
  std::vector<Bundle> bundles = std::exchange(bundles_, {});
  std::vector<spi::Unit> units = std::exchange(units_, {});
  for (std::size_t i = 0; i < bundles.size(); ++i) {
    const Result<void> result = results->empty() ? Result<void>{} : (*results)[i];
    if (!result) {
      if (bundles[i].pieces.size() == 1) bundles[i].pieces.front().unit = std::move(units[i]);
      close_bundle(std::move(bundles[i]), result);
      continue;
    }
    end_of_turn(bundles[i].chain);
    for (Piece& piece : bundles[i].pieces) {
      DeliveryPtr state = piece.book.state;
      settle_plainly(std::move(state), spi::Verb::kAck, std::move(piece.book));
    }
  }
  return {};
}

void Settler::apply(const spi::Received& received) {
  std::vector<Book> settlement_books = std::exchange(settlement_books_, {});
  std::vector<Bundle> bundles;
  std::vector<spi::Unit> units;
  if (context_->capabilities.is_store) {  // else these are what commit_units() put back, for the next round
    bundles.swap(bundles_);
    units.swap(units_);
  }
  settlements_.clear();
  std::size_t next_lost = 0;
  const Error lost{ErrorCode::kLeaseLost,
                   "the lease ended before this outcome was stored; another consumer has the message"};
  std::vector<DeliveryPtr> clean;
  clean.reserve(settlement_books.size());
  for (std::size_t i = 0; i < settlement_books.size(); ++i) {
    Book& book = settlement_books[i];
    const bool is_lost = next_lost < received.lost.size() && received.lost[next_lost] == i;
    if (is_lost) ++next_lost;
    if (!book.state) continue;  // given back without having been admitted
    if (is_lost || book.completion || book.step == LaneStep::kUnpark || book.state->lane != nullptr ||
        !book.clean) {
      close_book(book, is_lost ? Result<void>(lost) : Result<void>{});
      continue;
    }
    if (book.counter != nullptr) book.counter->fetch_add(1, std::memory_order_relaxed);
    book.state->phase.store(Phase::kDone, std::memory_order_release);
    clean.push_back(std::move(book.state));
  }
  finish(clean, true);
  for (std::size_t i = 0; i < bundles.size(); ++i) {
    if (bundles[i].pieces.size() == 1) bundles[i].pieces.front().unit = std::move(units[i]);
    close_bundle(std::move(bundles[i]), received.units.empty() ? Result<void>{} : received.units[i]);
  }
}

void Settler::end_of_turn(const std::string& chain) {
  const auto it = chains_.find(chain);
  if (it == chains_.end()) return;
  it->second.on_its_way = false;
  if (it->second.pieces.empty()) chains_.erase(it);
}

void Settler::put_back(Bundle bundle) {
  if (bundle.chain.empty()) {
    send(std::move(bundle));
    return;
  }
  Chain& chain = chains_[bundle.chain];
  chain.pieces.insert(chain.pieces.begin(), std::make_move_iterator(bundle.pieces.begin()),
                      std::make_move_iterator(bundle.pieces.end()));
  chain.on_its_way = false;
}

void Settler::close_bundle(Bundle bundle, const Result<void>& result) {
  if (is_passing(result)) {
    context_->log(LogLevel::kWarning, "settler", result.error().to_string());
    must_pause_ = true;
    put_back(std::move(bundle));
    return;
  }
  if (!result && bundle.pieces.size() > 1) {
    chains_[bundle.chain].one_by_one = true;
    put_back(std::move(bundle));
    return;
  }
  if (!result && repair(bundle.pieces.front().unit, bundle.pieces.front().book, result)) {
    put_back(std::move(bundle));
    return;
  }
  if (!result && result.error().code == ErrorCode::kNotFound && park_behind_next_block(bundle)) return;
  for (Piece& piece : bundle.pieces)
    close_book(piece.book, result);
  end_of_turn(bundle.chain);
}

bool Settler::park_behind_next_block(Bundle& bundle) {
  if (bundle.pieces.front().book.step != LaneStep::kParked) return false;
  const auto blocks = [](const Piece& piece) { return blocks_a_key(piece.unit); };
  std::deque<Piece>& pieces = chains_[bundle.chain].pieces;
  const auto next = std::find_if(pieces.begin(), pieces.end(), [&](const Piece& piece) {
    return blocks(piece) || piece.book.step == LaneStep::kUnpark;
  });
  if (next == pieces.end() || !blocks(*next)) return false;
  // Somebody released the key by hand, and its head has failed since: it is blocked again in a moment.
  const std::string chain = bundle.chain;
  put_back(std::move(bundle));
  const auto block = std::find_if(pieces.begin(), pieces.end(), blocks);
  std::rotate(pieces.begin(), block, std::next(block));
  return true;
}

bool Settler::repair(spi::Unit& unit, Book& book, const Result<void>& result) {
  if (result) return false;
  const auto take_out = [&](auto is_it) { return std::erase_if(unit.writes, is_it) > 0; };
  const spi::Envelope& envelope = book.state->envelope();
  if (result.error().code == ErrorCode::kNotFound && book.step == LaneStep::kUnpark &&
      take_out([](const spi::Write& write) { return std::holds_alternative<spi::UnparkNext>(write); })) {
    // Somebody released the key by hand: there is no block left to lift, and the rest is right as it is.
    dispatcher_.unblock(envelope.topic, envelope.partition, order_key(envelope));
    book.step = LaneStep::kRelease;
    return true;
  }
  if (result.error().code == ErrorCode::kConflict &&
      take_out([](const spi::Write& write) { return std::holds_alternative<spi::PutInbox>(write); })) {
    // The inbox has it: it was handled before. What else the unit says, a key to let go above all, still
    // holds.
    counts.duplicates.fetch_add(1, std::memory_order_relaxed);
    book.counter = nullptr;
    return true;
  }
  return false;
}

bool Settler::is_passing(const Result<void>& result) {
  // The record could not be written now (disk full, store over its bound): the delivery stays ours until it
  // can.
  return !result.ok() && result.error().retryable();
}

void Settler::close_book(Book& book, const Result<void>& result) {
  DeliveryState& state = *book.state;
  if (result) {
    if (book.counter != nullptr) book.counter->fetch_add(1, std::memory_order_relaxed);
    if (book.step == LaneStep::kUnpark) lift_block(state);
    if (book.step == LaneStep::kRelease) dispatcher_.release_lane(state);
    if (book.step == LaneStep::kParked) {
      const spi::Envelope& envelope = state.envelope();
      dispatcher_.count_parked(envelope.topic, envelope.partition, order_key(envelope));
    }
    state.phase.store(Phase::kDone, std::memory_order_release);
  } else if (result.error().code == ErrorCode::kNotFound && book.step == LaneStep::kParked) {
    // Somebody released the key meanwhile: it is not blocked any more, so this one takes its turn, and those
    // behind it theirs.
    dispatcher_.unblock(state.envelope().topic, state.envelope().partition, order_key(state.envelope()));
    dispatcher_.admit_again(book.state);
    for (const DeliveryPtr& next : take_parking(chain_of(state.envelope())))
      dispatcher_.admit_again(next);
    return;
  } else if (result.error().code != ErrorCode::kLeaseLost && !state.settled_first) {
    // Nothing was written, and the lease is still ours: it would be renewed for ever, so it is handed back.
    context_->log(LogLevel::kError, "settler", result.error().to_string());
    must_pause_ = true;
    if (options_.order != Order::kUnordered)
      dispatcher_.doubt(state.envelope().topic, state.envelope().partition);
    std::vector<DeliveryPtr> parking;
    if (book.step != LaneStep::kRelease) parking = take_parking(chain_of(state.envelope()));
    std::vector<DeliveryPtr> behind = dispatcher_.take_waiting(state);
    dispatcher_.give_back(state);
    settle_plainly(book.state, spi::Verb::kRelease,
                   Book{nullptr, LaneStep::kRelease, nullptr, false, std::move(book.completion)});
    release_behind(parking);
    release_behind(behind);
    return;
  } else {
    if (result.error().code == ErrorCode::kLeaseLost) {
      counts.lease_lost.fetch_add(1, std::memory_order_relaxed);
    } else {
      context_->log(LogLevel::kError, "settler", result.error().to_string());
    }
    // It comes again, and before what is behind it.
    if (options_.order != Order::kUnordered) {
      dispatcher_.doubt(state.envelope().topic, state.envelope().partition);
      if (book.step != LaneStep::kRelease) release_behind(take_parking(chain_of(state.envelope())));
      release_behind(dispatcher_.take_waiting(state));
    }
    dispatcher_.release_lane(state);
    state.phase.store(Phase::kLost, std::memory_order_release);
  }
  if (book.completion) book.completion->finish(result);
  finish({&book.state, 1}, book.clean && result.ok());
}

void Settler::lift_block(DeliveryState& state) {
  const spi::Envelope& envelope = state.envelope();
  auto blocks = context_->store->list_key_blocks(options_.group, envelope.topic, envelope.partition);
  if (!blocks) {
    // It stays blocked here as it was, and is asked for again with the next delivery of its partition.
    context_->log(LogLevel::kWarning, "settler", blocks.error().to_string());
    dispatcher_.doubt(envelope.topic, envelope.partition);
    dispatcher_.release_lane(state);
    return;
  }
  const std::string key = order_key(envelope);
  const auto block = std::find_if(blocks->begin(), blocks->end(),
                                  [&](const spi::KeyBlock& candidate) { return candidate.key == key; });
  if (block != blocks->end() && !dispatcher_.is_blocked(state)) {
    // It was not known here, see finish_records(): what comes next waits until it is.
    dispatcher_.doubt(envelope.topic, envelope.partition);
    dispatcher_.release_lane(state);
    return;
  }
  if (block != blocks->end()) {
    dispatcher_.unparked(state, std::move(*block));
    return;
  }
  dispatcher_.unparked(state, std::nullopt);
  // What was about to be parked behind it goes before everything that comes from now on.
  for (const DeliveryPtr& next : take_parking(chain_of(envelope)))
    dispatcher_.admit_again(next);
}

void Settler::finish(std::span<const DeliveryPtr> states, bool clean) {
  if (states.empty()) return;
  std::size_t bytes = 0;
  for (const DeliveryPtr& state : states)
    bytes += state->envelope().payload.size();
  release_room(states.size(), bytes);
  dispatcher_.finished(states, clean);
}

void Settler::release_room(std::size_t count, std::size_t bytes) {
  if (count > 0) context_->in_flight.give_back(count, bytes);
}

void Settler::forget(std::span<const DeliveryPtr> states) {
  std::vector<DeliveryPtr> ours;
  for (const DeliveryPtr& state : states) {
    // A renewal may have found it lost at the same time; then its book is closed on that way.
    if (!state->move_to(Phase::kLost, {Phase::kHeld})) continue;
    count(policy::BreakerSignal::kIgnored, *state);
    dispatcher_.pass(*state);
    ours.push_back(state);
  }
  counts.lease_lost.fetch_add(ours.size(), std::memory_order_relaxed);
  finish(ours, false);
}

void Settler::abandon(const Error& why) {
  const auto drop = [&](Book& book) {
    if (!book.state) return;
    if (book.completion) book.completion->finish(why);
    book.state->phase.store(Phase::kLost, std::memory_order_release);
    finish({&book.state, 1}, false);
  };
  for (Book& book : std::exchange(settlement_books_, {}))
    drop(book);
  for (Bundle& bundle : std::exchange(bundles_, {})) {
    for (Piece& piece : bundle.pieces)
      drop(piece.book);
  }
  for (auto& [name, chain] : std::exchange(chains_, {})) {
    for (Piece& piece : chain.pieces)
      drop(piece.book);
  }
  settlements_.clear();
  units_.clear();
}

}  // namespace towline::engine
