// Every precondition of a unit is checked by reading before its first write, so a refused unit leaves nothing
// to undo. The preconditions see what was there before the unit, and what earlier units of the same
// transaction did.

#include "drivers/sqlite/units.hpp"

#include <algorithm>
#include <set>
#include <string>
#include <type_traits>
#include <utility>

#include "base/streams.hpp"
#include "drivers/sqlite/claims.hpp"
#include "drivers/sqlite/clients.hpp"
#include "drivers/sqlite/dead_letters.hpp"
#include "drivers/sqlite/dedup.hpp"
#include "drivers/sqlite/outbox.hpp"
#include "drivers/sqlite/publish.hpp"
#include "drivers/sqlite/records.hpp"
#include "drivers/sqlite/sagas.hpp"
#include "drivers/sqlite/schedule.hpp"
#include "drivers/sqlite/streams.hpp"
#include "drivers/sqlite/topics.hpp"

namespace towline::drivers::sqlite {
namespace {

/// `has` 0: there is none; `wants` 0: any version.
Result<void> check_version(std::string_view what, const std::string& name, spi::Version has,
                           spi::Version wants) {
  if (has == 0) return Error{ErrorCode::kNotFound, std::string(what) + " " + name + " does not exist"};
  if (wants == 0 || has == wants) return {};
  return Error{ErrorCode::kConflict, std::string(what) + " " + name + " has version " + std::to_string(has) +
                                         ", but the write expects " + std::to_string(wants)};
}

Result<void> check_waiting(const MessageId& id, const std::optional<Waiting>& found, spi::Version wants) {
  if (wants == 0 && found && found->claimed) return base::claimed_before(id);
  return check_version("schedule record", id.to_string(), found ? found->version : 0, wants);
}

class Check {
 public:
  Check(Tx& tx, Session* settle) : tx_(tx), settle_(settle) {}

  Result<void> operator()(const spi::PutSchedule& write) {
    const spi::ScheduleRecord& record = write.record;
    if (!put_.insert(record.id).second || find_waiting(tx_.sql, record.id)) {
      return Error{ErrorCode::kConflict, "a schedule record with id " + record.id.to_string() + " exists"};
    }
    const spi::Envelope& envelope = record.envelope;
    if (record.parked && !is_blocked_by_now(envelope, record.order_key)) {
      return Error{ErrorCode::kNotFound, "there is no block of the key that record " + record.id.to_string() +
                                             " is to be parked behind"};
    }
    if (deduplicates(envelope)) {
      if (auto holder = find_dedup(tx_, envelope.topic, envelope.dedup_id)) {
        return Error{ErrorCode::kConflict, "the dedup id is held by message " + holder->to_string()};
      }
      if (!put_dedup_.emplace(envelope.topic, envelope.dedup_id).second) {
        return Error{ErrorCode::kConflict, "the unit puts two records with one dedup id"};
      }
    }
    return check_envelope(envelope, partition_count_of(tx_.catalog, envelope.topic));
  }
  Result<void> operator()(const spi::EraseSchedule& write) { return waiting(write.id, write.version); }
  Result<void> operator()(const spi::MoveSchedule& write) { return waiting(write.id, write.version); }
  Result<void> operator()(const spi::UnparkNext& write) {
    if (is_blocked(tx_.sql, write.group, write.topic, write.partition, write.key)) return {};
    return Error{ErrorCode::kNotFound, "a block of the key in topic " + write.topic + " for group " +
                                           write.group + " does not exist"};
  }
  Result<void> operator()(const spi::PutKeyBlock& write) {
    put_blocks_.push_back(&write.block);
    return {};
  }
  Result<void> operator()(const spi::PutDeadLetter&) { return {}; }
  Result<void> operator()(const spi::UpdateDeadLetter& write) { return dead_letter(write.id, write.version); }
  Result<void> operator()(const spi::EraseDeadLetter& write) { return dead_letter(write.id, write.version); }
  Result<void> operator()(const spi::PutIdempotency& write) {
    const spi::IdempotencyRecord& record = write.record;
    const spi::Version has = idempotency_version(tx_.sql, record.scope, record.key, tx_.now.wall);
    if (has == write.expected) return {};
    return Error{ErrorCode::kConflict, "the idempotency record of key " + record.key + " has version " +
                                           std::to_string(has) + ", but the write expects " +
                                           std::to_string(write.expected)};
  }
  Result<void> operator()(const spi::EraseIdempotency& write) {
    const spi::Version has = idempotency_version(tx_.sql, write.scope, write.key, tx_.now.wall);
    return check_version("the idempotency record of key", write.key, has, write.expected);
  }
  Result<void> operator()(const spi::PutInbox& write) {
    if (!inbox_holds(tx_.sql, write.group, write.message_id, tx_.now.wall)) return {};
    return Error{ErrorCode::kConflict,
                 "the inbox of group " + write.group + " holds message " + write.message_id.to_string()};
  }
  Result<void> operator()(const spi::ForgetDedup&) { return {}; }
  Result<void> operator()(const spi::Publish& write) {
    return check_envelope(write.envelope, partition_count_of(tx_.catalog, write.envelope.topic));
  }
  Result<void> operator()(const spi::Settle& write) {
    if (settle_ == nullptr) {
      return Error{ErrorCode::kInvalidArgument, "a Settle write needs a subscription: hand it to receive()"};
    }
    if (holds(tx_, *settle_, write.settlement.token)) return {};
    return Error{ErrorCode::kLeaseLost, "the lease ended before this settlement"};
  }
  Result<void> operator()(const spi::AppendEvents& write) {
    if (!appended_.emplace(static_cast<int>(write.space), write.stream).second)
      return base::second_append(write.stream);
    if (auto refused = check_append(tx_.sql, write); !refused) return refused;
    if (write.copies.empty() || repeated_append(tx_.sql, write)) return {};
    for (const spi::Write& copy : base::copies_of(write, 0)) {
      auto checked = std::visit([this](const auto& one) { return (*this)(one); }, copy);
      if (!checked) return checked;
    }
    return {};
  }
  Result<void> operator()(const spi::TruncateStream& write) {
    if (has_version(tx_.sql, write.space, write.stream)) return {};
    return Error{ErrorCode::kNotFound, "stream " + write.stream + " does not exist"};
  }
  Result<void> operator()(const spi::PutSnapshot& write) {
    const std::uint64_t version = write.snapshot.version;
    if (has_version(tx_.sql, spi::StreamSpace::kEvents, write.stream, version)) return {};
    return base::no_such_version(write.stream, version);
  }
  Result<void> operator()(const spi::PutEventCursor& write) {
    const std::uint64_t has = event_cursor_version(tx_.sql, write.cursor.name);
    if (has == write.expected) return {};
    return Error{ErrorCode::kConflict, "the cursor " + write.cursor.name + " has version " +
                                           std::to_string(has) + ", but the write expects " +
                                           std::to_string(write.expected)};
  }
  Result<void> operator()(const spi::PutSaga&) { return {}; }
  Result<void> operator()(const spi::PutClientPosition&) { return {}; }
  Result<void> operator()(const spi::AddMissed&) { return {}; }
  Result<void> operator()(const spi::ClearMissed&) { return {}; }
  Result<void> operator()(const spi::TrimConversation&) { return {}; }
  Result<void> operator()(const spi::EraseOutboxEntry& write) {
    if (outbox_holds(tx_.sql, write.number)) return {};
    return Error{ErrorCode::kNotFound, "outbox entry " + std::to_string(write.number) + " does not exist"};
  }

 private:
  bool is_blocked_by_now(const spi::Envelope& envelope, const std::string& key) {
    const bool put = std::any_of(put_blocks_.begin(), put_blocks_.end(), [&](const spi::KeyBlock* block) {
      return block->group == envelope.group && block->topic == envelope.topic &&
             block->partition == envelope.partition && block->key == key;
    });
    return put || is_blocked(tx_.sql, envelope.group, envelope.topic, envelope.partition, key);
  }
  Result<void> waiting(const MessageId& id, spi::Version wants) {
    return check_waiting(id, find_waiting(tx_.sql, id), wants);
  }
  Result<void> dead_letter(const MessageId& id, spi::Version wants) {
    return check_version("dead letter", id.to_string(), dead_letter_version(tx_.sql, id), wants);
  }

  Tx& tx_;
  Session* settle_;
  std::set<MessageId> put_;
  std::vector<const spi::KeyBlock*> put_blocks_;
  std::set<std::pair<std::string, std::string>> put_dedup_;
  // Of the numbers of spaces: what is made of an enumeration of ours would be exported by a plug-in.
  std::set<std::pair<int, std::string>> appended_;
};

class Apply {
 public:
  Apply(Tx& tx, Session* settle) : tx_(tx), settle_(settle) {}

  void operator()(const spi::PutSchedule& write) { put_schedule(tx_, write.record); }
  void operator()(const spi::EraseSchedule& write) { erase_schedule(tx_, write); }
  void operator()(const spi::MoveSchedule& write) { move_schedule(tx_, write); }
  void operator()(const spi::UnparkNext& write) { unpark_next(tx_, write); }
  void operator()(const spi::PutKeyBlock& write) { put_key_block(tx_, write.block); }
  void operator()(const spi::PutDeadLetter& write) { put_dead_letter(tx_, write.record); }
  void operator()(const spi::UpdateDeadLetter& write) { update_dead_letter(tx_, write); }
  void operator()(const spi::EraseDeadLetter& write) { erase_dead_letter(tx_, write); }
  void operator()(const spi::PutIdempotency& write) { put_idempotency(tx_, write); }
  void operator()(const spi::EraseIdempotency& write) { erase_idempotency(tx_, write); }
  void operator()(const spi::PutInbox& write) { put_inbox(tx_, write); }
  void operator()(const spi::ForgetDedup& write) { forget_dedup(tx_, write); }
  void operator()(const spi::Publish& write) {
    const spi::Envelope& envelope = write.envelope;
    if (deduplicates(envelope) && hold_dedup(tx_, envelope)) return;
    append(tx_, envelope);
  }
  void operator()(const spi::Settle& write) { (void)settle(tx_, *settle_, write.settlement); }
  void operator()(const spi::AppendEvents& write) {
    const auto repeated = repeated_append(tx_.sql, write);
    const Appended appended = repeated ? *repeated : append_events(tx_, write);
    if (write.appended != nullptr) *write.appended = appended;
    if (appended.duplicate) return;
    for (const spi::Write& copy : base::copies_of(write, appended.first_version))
      std::visit([this](const auto& one) { (*this)(one); }, copy);
  }
  void operator()(const spi::TruncateStream& write) { truncate_stream(tx_, write); }
  void operator()(const spi::PutSnapshot& write) { put_snapshot(tx_, write); }
  void operator()(const spi::PutEventCursor& write) { put_event_cursor(tx_, write); }
  void operator()(const spi::PutSaga& write) { put_saga(tx_, write); }
  void operator()(const spi::PutClientPosition& write) { put_client_position(tx_, write.position); }
  void operator()(const spi::AddMissed& write) { add_missed(tx_, write); }
  void operator()(const spi::ClearMissed& write) { clear_missed(tx_, write); }
  void operator()(const spi::TrimConversation& write) {
    std::optional<std::uint64_t> unread;
    if (write.keep_unread) unread = first_unread(tx_.sql, write.conversation, tx_.now.wall);
    trim_conversation(tx_, write, unread);
  }
  void operator()(const spi::EraseOutboxEntry& write) { erase_outbox_entry(tx_, write); }

 private:
  Tx& tx_;
  Session* settle_;
};

}  // namespace

Result<void> check_unit(Tx& tx, const spi::Unit& unit, Session* settle) {
  Check check(tx, settle);
  for (const spi::Write& write : unit.writes) {
    if (auto checked = std::visit(check, write); !checked) return checked;
  }
  return {};
}

void apply_unit(Tx& tx, const spi::Unit& unit, Session* settle) {
  Apply apply(tx, settle);
  for (const spi::Write& write : unit.writes)
    std::visit(apply, write);
}

bool grows(const spi::Unit& unit) noexcept {
  // A retry, a parked message or a dead letter ends a delivery, and that is never refused: it takes the place
  // of what it stands for.
  return std::any_of(unit.writes.begin(), unit.writes.end(), [](const spi::Write& write) {
    if (const auto* put = std::get_if<spi::PutSchedule>(&write)) return put->record.envelope.group.empty();
    if (const auto* publish = std::get_if<spi::Publish>(&write)) return publish->envelope.group.empty();
    return std::holds_alternative<spi::AppendEvents>(write) ||
           std::holds_alternative<spi::PutSnapshot>(write) ||
           std::holds_alternative<spi::PutClientPosition>(write) ||
           std::holds_alternative<spi::AddMissed>(write);
  });
}

namespace {

/// The common unit that cancels: what its precondition found is what it writes to.
Result<void> commit_erase(Tx& tx, const spi::EraseSchedule& write) {
  const auto found = find_waiting(tx.sql, write.id);
  Result<void> checked = check_waiting(write.id, found, write.version);
  if (checked) erase_schedule(tx, write, *found);
  return checked;
}

}  // namespace

std::vector<Result<void>> commit_units(Tx& tx, std::span<const spi::Unit> units, Session* settle,
                                       const Error* full) {
  std::vector<Result<void>> results;
  results.reserve(units.size());
  end_dead_letter_leases(tx);
  for (const spi::Unit& unit : units) {
    if (full != nullptr && grows(unit)) {
      results.emplace_back(*full);
      continue;
    }
    const auto* erase = unit.writes.size() == 1 ? std::get_if<spi::EraseSchedule>(&unit.writes[0]) : nullptr;
    if (erase != nullptr) {
      results.push_back(commit_erase(tx, *erase));
      continue;
    }
    Result<void> checked = check_unit(tx, unit, settle);
    if (checked) apply_unit(tx, unit, settle);
    results.push_back(std::move(checked));
  }
  return results;
}

}  // namespace towline::drivers::sqlite
