// Dead letters. A redrive is one unit: the entry becomes resolved and the message is put into the schedule,
// or nothing happens; so an entry is never in two places, two operators cannot both send it, and a crash
// leaves nothing half done.

#include "engine/dead_letters.hpp"

#include <algorithm>

#include "base/validate.hpp"
#include "engine/dead_letter_entry.hpp"
#include "policy/partition.hpp"

namespace towline::engine {
namespace {

constexpr std::size_t kPageMax = 1000;
constexpr std::size_t kRedrivePage = 500;
constexpr std::size_t kFingerprintsMax = 10000;
constexpr Duration kStoredLate = std::chrono::minutes(1);

Result<void> check(const DeadLetterQuery& query) {
  if (query.count_max >= 1 && query.count_max <= kPageMax) return {};
  return Error{ErrorCode::kInvalidArgument,
               "count_max is " + std::to_string(query.count_max) + ", but must be between 1 and 1000"};
}

Result<void> check(const RedriveOptions& options, const Context& context) {
  if (!options.destination.empty()) {
    if (auto bad = base::check_topic(options.destination, "destination"); !bad) return bad;
  }
  if (options.payload &&
      options.payload->size() > static_cast<std::size_t>(context.options.payload_bytes_max)) {
    return Error{ErrorCode::kPayloadTooLarge, "payload has " + std::to_string(options.payload->size()) +
                                                  " bytes, but payload_bytes_max is " +
                                                  std::to_string(context.options.payload_bytes_max)};
  }
  return base::check_delay(options.delay, context.options.delay_max);
}

bool is_pending(const DeadLetter& entry, TimePoint now) {
  return entry.status == DeadLetterStatus::kPending ||
         (entry.status == DeadLetterStatus::kReprocessing && entry.lease_until <= now);
}

}  // namespace

DeadLetters::DeadLetters(std::shared_ptr<Context> context) : context_(std::move(context)) {}

Result<Page<DeadLetter>> DeadLetters::list(const DeadLetterQuery& query) {
  if (auto bad = check(query); !bad) return std::move(bad).error();
  return context_->store->list_dead_letters(query);
}

Result<std::optional<DeadLetter>> DeadLetters::find(const MessageId& id) {
  return context_->store->find_dead_letter(id);
}

Result<std::vector<DeadLetterGroup>> DeadLetters::groups(const DeadLetterQuery& query) {
  if (auto bad = check(query); !bad) return std::move(bad).error();
  return context_->store->group_dead_letters(query);
}

Result<spi::Unit> DeadLetters::redrive_unit(const DeadLetter& entry, const RedriveOptions& options,
                                            TimePoint now) {
  spi::Envelope envelope = to_envelope(entry);
  if (options.payload) envelope.payload = *options.payload;
  if (!options.destination.empty() && options.destination != entry.topic) {
    envelope.topic = options.destination;
    envelope.group.clear();  // another topic's groups are not this one's
    auto partitions = context_->partition_count(envelope.topic);
    if (!partitions) return std::move(partitions).error();
    envelope.partition = policy::partition_of(envelope.key, envelope.id, *partitions);
  }
  const bool to_transport = context_->capabilities.is_store && options.delay.count() == 0;
  spi::Unit unit;
  unit.writes.push_back(spi::UpdateDeadLetter{entry.id, entry.version, DeadLetterStatus::kResolved,
                                              TimePoint{}, entry.reprocess_count + 1});
  if (to_transport) {
    unit.writes.push_back(spi::Publish{std::move(envelope)});
  } else {
    spi::ScheduleRecord record;
    record.id = context_->make_id();
    record.envelope = std::move(envelope);
    record.due_at = now + options.delay;
    unit.writes.push_back(spi::PutSchedule{std::move(record)});
  }
  return unit;
}

Result<void> DeadLetters::redrive(const MessageId& id, const RedriveOptions& options) {
  if (auto bad = check(options, *context_); !bad) return bad;
  auto entry = context_->store->find_dead_letter(id);
  if (!entry) return std::move(entry).error();
  if (!*entry) return Error{ErrorCode::kNotFound, "no dead letter has the id " + id.to_string()};
  const TimePoint now = context_->clock->now();
  if (!is_pending(**entry, now)) {
    return Error{ErrorCode::kConflict,
                 "the dead letter " + id.to_string() + " is not pending; only pending ones are redriven"};
  }
  if ((*entry)->reprocess_count >= options.redrive_max) {
    return Error{ErrorCode::kLimitExceeded, "this message was redriven " +
                                                std::to_string((*entry)->reprocess_count) +
                                                " times already; raise redrive_max to do it once more"};
  }
  if (!options.payload && !has_original(**entry)) {
    return Error{ErrorCode::kInvalidArgument,
                 "this entry was kept without its payload (keep_original); give a new one"};
  }
  if (options.dry_run) return {};
  auto unit = redrive_unit(**entry, options, now);
  if (!unit) return std::move(unit).error();
  auto done = context_->store->commit({&*unit, 1});
  if (!done) return std::move(done).error();
  if (!done->empty() && !done->front().ok()) return done->front();
  context_->counters.redriven.fetch_add(1, std::memory_order_relaxed);
  return {};
}

Result<void> DeadLetters::redrive_page(const std::vector<DeadLetter>& entries, const RedriveOptions& options,
                                       RedriveReport& report) {
  const TimePoint now = context_->clock->now();
  std::vector<spi::Unit> units;
  for (const DeadLetter& entry : entries) {
    if (!is_pending(entry, now) || entry.reprocess_count >= options.redrive_max || !has_original(entry)) {
      ++report.passed_over;
      continue;
    }
    if (options.dry_run) continue;
    auto unit = redrive_unit(entry, options, now);
    if (!unit) return std::move(unit).error();
    units.push_back(std::move(*unit));
  }
  if (units.empty()) return {};
  auto done = context_->store->commit(units);
  if (!done) return std::move(done).error();
  std::uint64_t sent = units.size();
  for (const Result<void>& result : *done) {
    if (result.ok()) continue;
    --sent;
    ++report.passed_over;  // another redrive had it
  }
  report.redriven += sent;
  context_->counters.redriven.fetch_add(sent, std::memory_order_relaxed);
  return {};
}

void DeadLetters::pace(const RedriveOptions& options, std::uint64_t sent, MonotonicTime begin) {
  if (options.rate_per_second == 0 || options.dry_run) return;
  const Duration due(static_cast<std::int64_t>(static_cast<double>(sent) * 1e6 / options.rate_per_second));
  context_->pause_until(begin + due);
}

Result<RedriveReport> DeadLetters::redrive_all(const DeadLetterQuery& query, const RedriveOptions& options) {
  if (auto bad = check(options, *context_); !bad) return std::move(bad).error();
  if (options.payload) {
    return Error{ErrorCode::kInvalidArgument,
                 "payload replaces that of a single entry; redrive_all() sends each entry's own"};
  }
  DeadLetterQuery page_query = query;
  page_query.count_max = kRedrivePage;
  if (options.rate_per_second > 0)
    page_query.count_max = std::clamp<std::size_t>(options.rate_per_second / 10, 1, kRedrivePage);
  page_query.cursor.clear();
  // What dies again while this runs is not sent back again by it: the list is that of the moment the call
  // began.
  const TimePoint now = context_->clock->now();
  const MessageId begun = context_->make_id();
  if (!page_query.created_before || *page_query.created_before > now)
    page_query.created_before = now + Duration{1};
  if (!page_query.status) page_query.status = DeadLetterStatus::kPending;
  RedriveReport report;
  const MonotonicTime begin = context_->clock->monotonic();
  do {
    auto page = context_->store->list_dead_letters(page_query);
    if (!page) return std::move(page).error();
    // Ids grow also while the clock stands still or is set back.
    std::erase_if(page->items, [&](const DeadLetter& entry) { return entry.id > begun; });
    report.matched += page->items.size();
    if (auto failed = redrive_page(page->items, options, report); !failed) return std::move(failed).error();
    page_query.cursor = page->cursor;
    pace(options, report.redriven, begin);
    if (auto closed = context_->check_open(); !closed) return std::move(closed).error();
  } while (!page_query.cursor.empty());
  return report;
}

Result<void> DeadLetters::discard(const MessageId& id) {
  auto entry = context_->store->find_dead_letter(id);
  if (!entry) return std::move(entry).error();
  if (!*entry) return Error{ErrorCode::kNotFound, "no dead letter has the id " + id.to_string()};
  if (!is_pending(**entry, context_->clock->now())) {
    return Error{ErrorCode::kConflict, "the dead letter " + id.to_string() + " is not pending"};
  }
  const spi::Unit unit{{spi::UpdateDeadLetter{id, (*entry)->version, DeadLetterStatus::kDiscarded,
                                              TimePoint{}, (*entry)->reprocess_count}}};
  auto done = context_->store->commit({&unit, 1});
  if (!done) return std::move(done).error();
  return done->empty() ? Result<void>{} : done->front();
}

// ---- alerts and automatic redrives --------------------------------------------------------------

void DeadLetters::note(const DeadLetter& entry, const DeadLettersOptions& policy) {
  const std::lock_guard lock(mutex_);
  const MonotonicTime now = context_->clock->monotonic();
  recent_.add(now, 0);
  const auto queue_alert = [&](Alert::Kind kind) {
    Alert alert;
    alert.kind = kind;
    alert.value = 1;
    alert.topic = entry.topic;
    alert.fingerprint = entry.fingerprint;
    pending_alerts_.push_back(std::move(alert));
  };
  if (policy.alert_on_entry) queue_alert(Alert::Kind::kEntry);
  if (context_->options.alert.new_fingerprint && fingerprints_.size() < kFingerprintsMax &&
      fingerprints_.insert(entry.fingerprint).second) {
    queue_alert(Alert::Kind::kNewFingerprint);
  }
}

void DeadLetters::redrive_automatically(std::string group, const DeadLettersOptions& policy) {
  if (policy.redrive_after.count() <= 0 || policy.redrive_max == 0) return;
  // An ephemeral subscriber has no dead letters, and without a group everybody's would be meant.
  if (group.empty()) return;
  const std::lock_guard lock(mutex_);
  // The members of a group, and those that come after them, share one rule: the latest.
  for (Automatic& rule : automatic_) {
    if (rule.group != group) continue;
    rule.after = policy.redrive_after;
    rule.redrive_max = static_cast<std::uint32_t>(policy.redrive_max);
    rule.seen_until = TimePoint{};
    return;
  }
  automatic_.push_back(
      {std::move(group), policy.redrive_after, static_cast<std::uint32_t>(policy.redrive_max), TimePoint{}});
}

void DeadLetters::raise(Alert::Kind kind, bool on, std::uint64_t value, std::uint64_t limit,
                        MonotonicTime now) {
  Condition& condition = conditions_[static_cast<std::size_t>(kind)];
  if (on == condition.on) return;
  if (on && condition.last && now - *condition.last < context_->options.alert.cooldown) return;
  condition.on = on;
  if (on) condition.last = now;
  Alert alert;
  alert.kind = kind;
  alert.recovered = !on;
  alert.value = value;
  alert.limit = limit;
  context_->tell(alert);
}

void DeadLetters::watch(MonotonicTime now) {
  run_automatic();
  const AlertOptions& options = context_->options.alert;
  std::vector<Alert> alerts;
  std::uint64_t in_last_minute = 0;
  {
    const std::lock_guard lock(mutex_);
    alerts.swap(pending_alerts_);
    in_last_minute = recent_.totals(now)[0];
  }
  for (const Alert& one : alerts)
    context_->tell(one);
  if (options.rate_per_minute > 0) {
    const auto limit = static_cast<std::uint64_t>(options.rate_per_minute);
    raise(Alert::Kind::kRate, in_last_minute >= limit, in_last_minute, limit, now);
  }
  if (options.depth_count > 0) {
    if (auto statistics = context_->store->statistics()) {
      const std::uint64_t depth =
          statistics->dead_letters[static_cast<std::size_t>(DeadLetterStatus::kPending)];
      const auto limit = static_cast<std::uint64_t>(options.depth_count);
      raise(Alert::Kind::kDepth, depth >= limit, depth, limit, now);
    }
  }
  if (options.age.count() > 0) {
    DeadLetterQuery oldest;
    oldest.status = DeadLetterStatus::kPending;
    oldest.count_max = 1;
    if (auto page = context_->store->list_dead_letters(oldest)) {
      const Duration age =
          page->items.empty() ? Duration{0} : context_->clock->now() - page->items.front().created_at;
      raise(Alert::Kind::kAge, age >= options.age, static_cast<std::uint64_t>(age.count() / 1000),
            static_cast<std::uint64_t>(options.age.count() / 1000), now);
    }
  }
}

void DeadLetters::run_automatic() {
  std::vector<Automatic> rules;
  {
    const std::lock_guard lock(mutex_);
    rules = automatic_;
  }
  for (std::size_t i = 0; i < rules.size(); ++i) {
    Automatic& rule = rules[i];
    const TimePoint until = context_->clock->now() - rule.after;
    if (until <= rule.seen_until) continue;
    DeadLetterQuery query;
    query.group = rule.group;
    query.status = DeadLetterStatus::kPending;
    query.created_from = rule.seen_until;
    query.created_before = until;
    RedriveOptions options;
    options.redrive_max = rule.redrive_max;
    // Found by query, not by a list in memory: so what waited while no process ran is sent back, too. Several
    // processes may find the same entry; the compare-and-set lets one of them have it.
    auto report = redrive_all(query, options);
    if (!report) {
      context_->log(LogLevel::kWarning, "dead letters", report.error().to_string());
      continue;
    }
    const std::lock_guard lock(mutex_);
    // Not quite up to it: an entry is dated when its failure is, and may be stored a while later.
    TimePoint& seen_until = automatic_[i].seen_until;
    if (seen_until == rule.seen_until) seen_until = std::max(seen_until, until - kStoredLate);
  }
}

}  // namespace towline::engine
