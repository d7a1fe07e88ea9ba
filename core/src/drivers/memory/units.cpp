// Units: all or nothing. Every precondition of a unit is checked before its first write is applied, and
// applying cannot fail, so nothing ever has to be undone.
//
// The preconditions see what was there before the unit, and what earlier units of the same commit did.

#include <set>
#include <type_traits>
#include <utility>

#include "base/streams.hpp"
#include "drivers/memory/hub.hpp"

namespace towline::drivers::memory {
namespace {

Error not_found(std::string_view what, const std::string& name) {
  return {ErrorCode::kNotFound, std::string(what) + " " + name + " does not exist"};
}

Error conflict(std::string_view what, const std::string& name, spi::Version has, spi::Version wants) {
  return {ErrorCode::kConflict, std::string(what) + " " + name + " has version " + std::to_string(has) +
                                    ", but the write expects " + std::to_string(wants)};
}

const std::string& text_of(const std::string& name) { return name; }
std::string text_of(const MessageId& id) { return id.to_string(); }

/// `wants` 0: any version.
template <typename Name, typename Record>
Result<void> check_version(std::string_view what, const Name& name, const Record* record,
                           spi::Version wants) {
  if (record == nullptr) return not_found(what, text_of(name));
  if (wants != 0 && record->version != wants) return conflict(what, text_of(name), record->version, wants);
  return {};
}

}  // namespace

class Hub::UnitCheck {
 public:
  UnitCheck(Hub& hub, Session* settle, Moment now) : hub_(hub), settle_(settle), now_(now) {}

  Result<void> run(const spi::Unit& unit) {
    for (const spi::Write& write : unit.writes) {
      auto checked = std::visit([this](const auto& w) { return check(w); }, write);
      if (!checked) return checked;
    }
    if (bytes_ == 0 || hub_.make_room(hub_.outbox_bytes_ + bytes_, now_)) return {};
    return Error{ErrorCode::kOverloaded,
                 "the memory provider keeps " + std::to_string(hub_.meter.used) +
                     " bytes, and these writes would exceed bytes_max=" + std::to_string(hub_.meter.max) +
                     "; consume, wait, or raise bytes_max"};
  }

 private:
  Result<void> check_envelope(const spi::Envelope& envelope) {
    // A retry or a parked message ends a delivery, and that is never refused: the message it stands for goes
    // instead.
    if (envelope.group.empty()) bytes_ += size_of(envelope);
    return base::check_envelope(envelope, hub_.queue.partition_count(envelope.topic));
  }

  Result<void> check(const spi::PutSchedule& write) {
    const spi::ScheduleRecord& record = write.record;
    if (hub_.schedule.find(record.id) != nullptr || !put_.insert(record.id).second) {
      return Error{ErrorCode::kConflict, "a schedule record with id " + record.id.to_string() + " exists"};
    }
    const spi::Envelope& envelope = record.envelope;
    if (record.parked && !is_blocked(envelope.group, envelope.topic, envelope.partition, record.order_key)) {
      return not_found("a block of the parked record's key in topic", envelope.topic);
    }
    if (deduplicates(envelope)) {
      if (auto holder = hub_.find_dedup(envelope.topic, envelope.dedup_id, now_.wall)) {
        return Error{ErrorCode::kConflict, "the dedup id is held by message " + holder->to_string()};
      }
      if (!put_dedup_.insert(joined(envelope.topic, envelope.dedup_id)).second) {
        return Error{ErrorCode::kConflict, "the unit puts two records with one dedup id"};
      }
    }
    return check_envelope(envelope);
  }
  Result<void> check(const spi::EraseSchedule& write) { return check_waiting(write.id, write.version); }
  Result<void> check(const spi::MoveSchedule& write) { return check_waiting(write.id, write.version); }
  Result<void> check_waiting(const MessageId& id, spi::Version wants) {
    if (wants == 0 && hub_.schedule.is_claimed(id)) return base::claimed_before(id);
    return check_version("schedule record", id, hub_.schedule.find(id), wants);
  }
  Result<void> check(const spi::UnparkNext& write) {
    if (is_blocked(write.group, write.topic, write.partition, write.key)) return {};
    return not_found("a block of the key in topic", write.topic + " for group " + write.group);
  }
  Result<void> check(const spi::PutKeyBlock& write) {
    put_blocks_.emplace(write.block.group, write.block.topic, write.block.partition, write.block.key);
    return {};
  }
  [[nodiscard]] bool is_blocked(const std::string& group, const std::string& topic, std::uint32_t partition,
                                const std::string& key) const {
    return put_blocks_.contains({group, topic, partition, key}) ||
           hub_.schedule.is_blocked(group, topic, partition, key);
  }
  Result<void> check(const spi::PutDeadLetter&) { return {}; }
  Result<void> check(const spi::UpdateDeadLetter& write) {
    return check_version("dead letter", write.id, hub_.dead_letters.find(write.id), write.version);
  }
  Result<void> check(const spi::EraseDeadLetter& write) {
    return check_version("dead letter", write.id, hub_.dead_letters.find(write.id), write.version);
  }
  Result<void> check(const spi::PutIdempotency& write) {
    const auto* known = hub_.idempotency.find(joined(write.record.scope, write.record.key), now_.wall);
    const spi::Version has = known == nullptr ? 0 : known->version;
    if (has == write.expected) return {};
    return conflict("the idempotency record of key", write.record.key, has, write.expected);
  }
  Result<void> check(const spi::EraseIdempotency& write) {
    const auto* known = hub_.idempotency.find(joined(write.scope, write.key), now_.wall);
    return check_version("the idempotency record of key", write.key, known, write.expected);
  }
  Result<void> check(const spi::PutInbox& write) {
    if (hub_.inbox.find(joined(write.group, bytes_of(write.message_id)), now_.wall) == nullptr) return {};
    return Error{ErrorCode::kConflict,
                 "the inbox of group " + write.group + " holds message " + write.message_id.to_string()};
  }
  Result<void> check(const spi::ForgetDedup&) { return {}; }
  Result<void> check(const spi::Publish& write) { return check_envelope(write.envelope); }
  Result<void> check(const spi::Settle& write) {
    if (settle_ == nullptr) {
      return Error{ErrorCode::kInvalidArgument, "a Settle write needs a subscription: hand it to receive()"};
    }
    if (hub_.queue.holds(*settle_, write.settlement.token)) return {};
    return Error{ErrorCode::kLeaseLost, "the lease ended before this settlement"};
  }
  Result<void> check(const spi::AppendEvents& write) {
    if (!appended_.emplace(static_cast<int>(write.space), write.stream).second)
      return base::second_append(write.stream);
    const Streams& streams = hub_.streams(write.space);
    if (auto refused = streams.check(write); !refused) return refused;
    if (streams.repeated(write)) return {};
    bytes_ += size_of(write);
    for (const spi::Write& copy : base::copies_of(write, 0)) {
      auto checked = std::visit([this](const auto& one) { return check(one); }, copy);
      if (!checked) return checked;
    }
    return {};
  }
  Result<void> check(const spi::TruncateStream& write) {
    if (hub_.streams(write.space).contains(write.stream)) return {};
    return not_found("stream", write.stream);
  }
  Result<void> check(const spi::PutSnapshot& write) {
    if (hub_.events.contains(write.stream, write.snapshot.version)) return {};
    return base::no_such_version(write.stream, write.snapshot.version);
  }
  Result<void> check(const spi::PutEventCursor& write) {
    const auto it = hub_.event_cursors.find(write.cursor.name);
    const spi::Version has = it == hub_.event_cursors.end() ? 0 : it->second.version;
    if (has == write.expected) return {};
    return conflict("the cursor", write.cursor.name, has, write.expected);
  }
  Result<void> check(const spi::PutSaga&) { return {}; }
  Result<void> check(const spi::PutClientPosition& write) {
    bytes_ += size_of(write.position);
    return {};
  }
  Result<void> check(const spi::AddMissed& write) {
    bytes_ += size_of(spi::MissedMessages{write.user, write.conversation});
    return {};
  }
  Result<void> check(const spi::ClearMissed&) { return {}; }
  Result<void> check(const spi::TrimConversation&) { return {}; }
  Result<void> check(const spi::EraseOutboxEntry& write) {
    return not_found("outbox entry", std::to_string(write.number));
  }

  Hub& hub_;
  Session* settle_;
  const Moment now_;
  std::uint64_t bytes_ = 0;
  // Of the numbers of spaces: what is made of an enumeration of ours would be exported by a plug-in.
  std::set<std::pair<int, std::string>> appended_;
  std::set<MessageId> put_;
  std::set<std::tuple<std::string, std::string, std::uint32_t, std::string>> put_blocks_;
  std::set<std::string> put_dedup_;
};

class Hub::UnitApply {
 public:
  UnitApply(Hub& hub, Session* settle, Moment now) : hub_(hub), settle_(settle), now_(now) {}

  void run(const spi::Unit& unit) {
    for (const spi::Write& write : unit.writes) {
      std::visit([this](const auto& w) { apply(w); }, write);
    }
  }

 private:
  void apply(const spi::PutSchedule& write) {
    if (deduplicates(write.record.envelope)) hub_.hold_dedup(write.record.envelope);
    // As if it were published now: its partition is one of this topic's, and stays one.
    (void)hub_.queue.topic(write.record.envelope.topic);
    hub_.schedule.put(write.record);
  }
  void apply(const spi::EraseSchedule& write) {
    const spi::ScheduleRecord* record = write.finishes ? hub_.schedule.find(write.id) : nullptr;
    if (record != nullptr && record->envelope.dedup_mode == DedupMode::kWhileUnfinished) {
      apply(spi::ForgetDedup{record->envelope.topic, record->envelope.dedup_id, record->envelope.id});
    }
    hub_.schedule.erase(write.id, write.version, now_);
  }
  void apply(const spi::MoveSchedule& write) { hub_.schedule.move(write.id, write.due_at); }
  void apply(const spi::UnparkNext& write) { hub_.schedule.unpark_next(write); }
  void apply(const spi::PutKeyBlock& write) { hub_.schedule.put_block(write.block); }
  void apply(const spi::PutDeadLetter& write) { hub_.dead_letters.put(write.record); }
  void apply(const spi::UpdateDeadLetter& write) { hub_.dead_letters.update(write); }
  void apply(const spi::EraseDeadLetter& write) { hub_.dead_letters.erase(write.id); }
  void apply(const spi::PutIdempotency& write) {
    spi::IdempotencyRecord record = write.record;
    record.version = write.expected + 1;
    const std::uint64_t bytes = record.result.size() + record.fingerprint.size() + record.content_type.size();
    hub_.idempotency.put(joined(write.record.scope, write.record.key), std::move(record),
                         write.record.expires_at, bytes);
  }
  void apply(const spi::EraseIdempotency& write) { hub_.idempotency.erase(joined(write.scope, write.key)); }
  void apply(const spi::PutInbox& write) {
    hub_.inbox.put(joined(write.group, bytes_of(write.message_id)), 0, write.expires_at);
  }
  void apply(const spi::ForgetDedup& write) {
    const auto holder = hub_.find_dedup(write.topic, write.dedup_id, now_.wall);
    if (holder == write.message_id) hub_.dedup_ids.erase(joined(write.topic, write.dedup_id));
  }
  void apply(const spi::Publish& write) {
    if (deduplicates(write.envelope)) {
      if (hub_.find_dedup(write.envelope.topic, write.envelope.dedup_id, now_.wall)) return;
      hub_.hold_dedup(write.envelope);
    }
    hub_.outbox_bytes_ += size_of(write.envelope);
    hub_.outbox_.push_back(write.envelope);
  }
  void apply(const spi::Settle& write) { (void)hub_.queue.settle(*settle_, write.settlement, now_); }
  void apply(const spi::AppendEvents& write) {
    Streams& streams = hub_.streams(write.space);
    const auto repeated = streams.repeated(write);
    const Appended appended = repeated ? *repeated : streams.append(write);
    if (write.appended != nullptr) *write.appended = appended;
    if (appended.duplicate) return;
    for (const spi::Write& copy : base::copies_of(write, appended.first_version))
      std::visit([this](const auto& one) { apply(one); }, copy);
    hub_.streams_changed.notify_all();
  }
  void apply(const spi::TruncateStream& write) { hub_.streams(write.space).truncate(write); }
  void apply(const spi::PutSnapshot& write) { hub_.events.put_snapshot(write); }
  void apply(const spi::PutEventCursor& write) {
    spi::EventCursor& cursor = hub_.event_cursors[write.cursor.name];
    cursor = write.cursor;
    cursor.version = write.expected + 1;
  }
  void apply(const spi::PutSaga& write) { hub_.sagas.put(write); }
  void apply(const spi::PutClientPosition& write) { hub_.clients.put(write.position, now_.wall); }
  void apply(const spi::AddMissed& write) { hub_.clients.add_missed(write, now_.wall); }
  void apply(const spi::ClearMissed& write) { hub_.clients.clear_missed(write); }
  void apply(const spi::TrimConversation& write) {
    std::optional<std::uint64_t> unread;
    if (write.keep_unread) unread = hub_.clients.first_unread(write.conversation, now_.wall);
    hub_.conversations.trim(write, unread);
  }
  void apply(const spi::EraseOutboxEntry&) {}

  Hub& hub_;
  Session* settle_;
  const Moment now_;
};

std::vector<Result<void>> Hub::commit(std::span<const spi::Unit> units, Session* settle, Moment now) {
  std::vector<Result<void>> results;
  results.reserve(units.size());
  dead_letters.end_leases(now.wall);
  const auto due_before = schedule.next_due_at();
  for (const spi::Unit& unit : units) {
    Result<void> checked = UnitCheck(*this, settle, now).run(unit);
    if (checked) UnitApply(*this, settle, now).run(unit);
    results.push_back(std::move(checked));
  }
  queue.append(std::exchange(outbox_, {}), now);
  outbox_bytes_ = 0;
  const auto due_after = schedule.next_due_at();
  if (due_after && (!due_before || *due_after < *due_before)) {
    for (DueWaiter* waiter : due_waiters) {
      if (waiter->waiting) waiter->changed.notify_all();
    }
  }
  return results;
}

}  // namespace towline::drivers::memory
