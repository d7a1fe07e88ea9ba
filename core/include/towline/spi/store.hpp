#pragma once
// Store: keeps durable records, changes them by compare-and-set, finds them by id, and hands out the due
// ones.
//
// Everything durable is a record with a version and, where it waits, a due time. A delayed message, a retry
// that waits for its backoff, a parked message of a blocked key and an outbox message are one kind of record
// (ScheduleRecord), so one scheduler serves them all. Writes are grouped in units; a unit is all-or-nothing,
// and many units share one durable transaction.

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <variant>
#include <vector>

#include <towline/dead_letter.hpp>
#include <towline/message.hpp>
#include <towline/result.hpp>
#include <towline/saga.hpp>
#include <towline/spi/conversations.hpp>
#include <towline/spi/envelope.hpp>
#include <towline/spi/outbox.hpp>
#include <towline/spi/streams.hpp>
#include <towline/spi/transport.hpp>

namespace towline::spi {

/// Versions start at 1; in a write, 0 means "must not exist" (put) or "any, unless claimed" (erase, move).
using Version = std::uint64_t;

// ---- records ------------------------------------------------------------------------------------

struct ScheduleRecord {
  /// The message id for a message that a user delayed; a fresh id for a retry, a deferral or a parked
  /// message.
  MessageId id;
  Envelope envelope;
  TimePoint due_at{};
  /// Waits behind a blocked key and has no due time until it is unparked.
  bool parked = false;
  /// Of the payload; listings give it although they leave the payload out. Set by the store.
  std::size_t payload_size = 0;
  /// With `parked`: the KeyBlock::key it waits behind (in partition order that is "", whatever the message's
  /// key).
  std::string order_key;
  Duration skip_if_late_by{0};
  Version version = 0;
  /// In order of putting; orders parked records of one key. Set by the store.
  std::uint64_t sequence = 0;
};

/// A key of a group that waits for its head. While the block exists, the group handles of this key only the
/// envelope with `heads_key` set; everything else of the key is parked. The owner of the key's partition is
/// the only writer.
struct KeyBlock {
  std::string group;
  std::string topic;
  std::uint32_t partition = 0;
  /// The order key: the message key, or "" in partition order.
  std::string key;
  MessageId head;
  TimePoint since{};
  /// The head went to the dead letters under `park_key`: the tail stays parked until somebody releases it.
  bool held = false;
  /// How many records are parked behind it. Filled by list_key_blocks, ignored by PutKeyBlock.
  std::uint64_t parked_count = 0;
};

struct IdempotencyRecord {
  enum class State : std::uint8_t { kInProgress, kDone, kFailed };
  std::string scope;
  std::string key;
  State state = State::kInProgress;
  std::string fingerprint;  ///< of the payload; another one under the same key is a mistake of the caller
  std::uint64_t fence = 0;  ///< grows with each acquisition
  TimePoint lease_until{};  ///< kInProgress: when another caller may take over
  bool has_result = false;  ///< null, 0, false and "" are results; absence is this flag
  Bytes result;
  std::string content_type;
  TimePoint expires_at = kNever;
  Version version = 0;
};

// ---- writes -------------------------------------------------------------------------------------

/// Errors: kConflict when the id exists or the dedup id is held (not checked for retries, whose envelope
/// names a group); kNotFound when parked without a block.
struct PutSchedule {
  ScheduleRecord record;
};
/// Errors: kNotFound, kConflict: another version, or no version named and claimed since it was put or moved.
struct EraseSchedule {
  MessageId id;
  Version version = 0;
  /// The message is finished by this: a dedup id that it holds while unfinished is free again.
  bool finishes = false;
};
/// Also unparks. Errors: as EraseSchedule.
struct MoveSchedule {
  MessageId id;
  Version version = 0;
  TimePoint due_at{};
};
/// The first parked record of the key gets `due_at` and heads_key and becomes the block's head; when there is
/// none the block is erased. Ends `held`. Errors: kNotFound when there is no block.
struct UnparkNext {
  std::string group;
  std::string topic;
  std::string key;
  std::uint32_t partition = 0;
  TimePoint due_at{};
  /// The head that is done. When it is not the block's head any more, nothing happens: a copy of a message
  /// that was let through before must not let the next one past the head. Empty: whoever the head is.
  MessageId head = {};
};
/// Inserts or replaces.
struct PutKeyBlock {
  KeyBlock block;
};
/// Replaces an entry of the same id.
struct PutDeadLetter {
  DeadLetter record;
};
/// Errors: kNotFound, kConflict unless `version` fits.
struct UpdateDeadLetter {
  MessageId id;
  Version version = 0;
  DeadLetterStatus status{};
  TimePoint lease_until{};
  std::uint32_t reprocess_count = 0;
};
/// Errors: kNotFound, kConflict.
struct EraseDeadLetter {
  MessageId id;
  Version version = 0;
};
/// Errors: kConflict unless `expected` fits.
struct PutIdempotency {
  IdempotencyRecord record;
  Version expected = 0;
};
/// Errors: kNotFound, kConflict.
struct EraseIdempotency {
  std::string scope;
  std::string key;
  Version expected = 0;
};
/// Errors: kConflict when it is there and has not expired.
struct PutInbox {
  std::string group;
  MessageId message_id;
  TimePoint expires_at{};
};
/// No error when the dedup id is absent or another message's.
struct ForgetDedup {
  std::string topic;
  std::string dedup_id;
  MessageId message_id;
};
/// Inserts or replaces. In the unit that appends to the saga's stream, whose version guards both. The saga
/// and its stream are removed by a sweep after `expires_at`.
struct PutSaga {
  SagaInfo saga;
  std::string stream;
  TimePoint expires_at = kNever;
};
/// Capabilities::is_store only.
struct Publish {
  Envelope envelope;
};
/// Capabilities::is_store only, inside ReceiveRequest::units and transact(). Errors: kLeaseLost.
struct Settle {
  Settlement settlement;
};

using Write =
    std::variant<PutSchedule, EraseSchedule, MoveSchedule, UnparkNext, PutKeyBlock, PutDeadLetter,
                 UpdateDeadLetter, EraseDeadLetter, PutIdempotency, EraseIdempotency, PutInbox, ForgetDedup,
                 Publish, Settle, AppendEvents, TruncateStream, PutSnapshot, PutEventCursor, PutSaga,
                 PutClientPosition, AddMissed, ClearMissed, TrimConversation, EraseOutboxEntry>;

/// All-or-nothing. When one write fails its error is the unit's error and none of them happened.
struct Unit {
  std::vector<Write> writes;
};

// ---- reads --------------------------------------------------------------------------------------

struct DueBatch {
  /// Claimed: their due time is now + lease and their version is bumped.
  std::vector<ScheduleRecord> records;
  /// promote_due: how many went to the transport, and how late each was.
  std::size_t promoted_count = 0;
  std::vector<Duration> lateness;
  std::optional<TimePoint> next_due_at;
};

struct DueRequest {
  std::size_t count_max = 1000;
  Duration lease{};
  Deadline deadline{};
};

struct ScheduleQuery {
  std::string topic;  ///< empty: all
  std::string group;  ///< with `parked` or for retries of one group; empty: those that users delayed
  bool parked = false;
  std::optional<std::uint32_t> partition;
  std::optional<std::string> key;
  std::size_t count_max = 100;
  std::string cursor;
};

struct StoreStatistics {
  std::uint64_t scheduled = 0;  ///< waiting for a due time
  std::uint64_t parked = 0;
  std::uint64_t dead_letters[5] = {};  ///< by DeadLetterStatus
  std::uint64_t idempotency_records = 0;
  std::uint64_t bytes = 0;  ///< on disk or in memory
};

/// What the janitor asks to be removed in one bounded step.
struct SweepRequest {
  TimePoint now{};
  std::size_t count_max = 1000;
  /// Dead letters in any state: last failed before this, and beyond this many (oldest first; leased ones
  /// stay).
  TimePoint dead_letters_before{};
  std::uint64_t dead_letter_count_max = UINT64_MAX;
};
struct SweepReport {
  std::uint64_t dead_letters = 0, idempotency_records = 0, inbox_records = 0, dedup_ids = 0, messages = 0;
  std::uint64_t sagas = 0, client_positions = 0, missed_messages = 0;
  bool more = false;  ///< the bound was reached: sweep again soon
};

/// The user's SQL inside a handler transaction. Valid only during the call it is handed to.
class SqlSession {
 public:
  using Value = std::variant<std::monostate, std::int64_t, double, std::string>;
  virtual ~SqlSession() = default;
  /// Runs one statement with positional parameters (`?1`, ...). Rows come back whole.
  virtual Result<std::vector<std::vector<Value>>> execute(std::string_view sql,
                                                          std::span<const Value> parameters) = 0;
  /// Adds a write to the same transaction.
  virtual Result<void> write(const Write& write) = 0;
};

class Store {
 public:
  virtual ~Store() = default;
  /// Any thread; concurrent calls share a durable transaction. One result per unit, in order, or none: all
  /// are done. On kUnavailable or kIoError of the call all outcomes are unknown: every unit must be safe to
  /// commit again. kTimeout: it could not begin by `begin_by`, and nothing was written.
  virtual Result<std::vector<Result<void>>> commit(std::span<const Unit> units,
                                                   Deadline begin_by = kPatient) = 0;
  /// Claims due, unparked records in due order, waiting until the deadline for the first to come due; a
  /// record that is put or moved meanwhile, by any process, counts. A dead claimer needs no clean-up: its
  /// claim becomes due again.
  virtual Result<DueBatch> claim_due(const DueRequest& request) = 0;
  /// Capabilities::is_store only: like claim_due, but moves the due records to the transport in the same
  /// transaction. Records that are too late by their misfire rule are claimed and returned instead.
  virtual Result<DueBatch> promote_due(const DueRequest& request) = 0;
  /// Any thread. Makes a waiting claim_due or promote_due return early, or the next one that would wait.
  virtual void wake() noexcept = 0;

  virtual Result<std::optional<ScheduleRecord>> find_schedule(const MessageId& id) = 0;
  /// By due time then sequence (by sequence when parked). Payloads are included only for parked records.
  virtual Result<Page<ScheduleRecord>> list_schedule(const ScheduleQuery& query) = 0;
  /// Whether the message with this id was ever scheduled by this store and has fired; may forget after a day.
  virtual Result<bool> has_fired(const MessageId& id) = 0;
  virtual Result<std::vector<KeyBlock>> list_key_blocks(std::string_view group, std::string_view topic,
                                                        std::optional<std::uint32_t> partition) = 0;
  virtual Result<std::optional<DeadLetter>> find_dead_letter(const MessageId& id) = 0;
  virtual Result<Page<DeadLetter>> list_dead_letters(const DeadLetterQuery& query) = 0;
  virtual Result<std::vector<DeadLetterGroup>> group_dead_letters(const DeadLetterQuery& query) = 0;
  /// The message that holds this dedup id now; nullopt when none does. "" is held by none.
  virtual Result<std::optional<MessageId>> find_dedup(std::string_view topic, std::string_view dedup_id) = 0;
  /// Of each id: whether the group's inbox holds it and it has not expired.
  virtual Result<std::vector<bool>> inbox_contains(std::string_view group,
                                                   std::span<const MessageId> ids) = 0;
  virtual Result<std::optional<IdempotencyRecord>> find_idempotency(std::string_view scope,
                                                                    std::string_view key) = 0;
  virtual Result<StreamSlice> read_stream(const StreamRead& read) = 0;
  /// By name. Errors: kInvalidCursor.
  virtual Result<Page<StreamInfo>> list_streams(StreamSpace space, std::string_view prefix,
                                                std::size_t count_max, std::string_view cursor) = 0;
  virtual Result<std::optional<Snapshot>> find_snapshot(std::string_view stream) = 0;
  virtual Result<std::optional<EventCursor>> find_event_cursor(std::string_view name) = 0;
  /// Returns the greatest position of the space as soon as it is greater than `after`, at the deadline or
  /// when `stop` is requested what it is then.
  virtual Result<std::uint64_t> wait_for_events(StreamSpace space, std::uint64_t after, Deadline deadline,
                                                const std::stop_token& stop) = 0;
  virtual Result<std::optional<SagaInfo>> find_saga(std::string_view type, std::string_view id) = 0;
  /// In order of starting. Errors: kInvalidCursor.
  virtual Result<Page<SagaInfo>> list_sagas(const SagaQuery& query) = 0;
  /// Of one client, in the order of the bytes of conversations, those at and behind `from`; expired ones are
  /// not there.
  virtual Result<std::vector<ClientPosition>> client_positions(std::string_view user, std::string_view client,
                                                               std::string_view from,
                                                               std::size_t count_max) = 0;
  /// The same of a user; what expired or was all taken is not there.
  virtual Result<std::vector<MissedMessages>> missed_messages(std::string_view user, std::string_view from,
                                                              std::size_t count_max) = 0;
  /// Capabilities::runs_sql only. In order of writing; waits for the first until the deadline or until `stop`
  /// is requested.
  virtual Result<std::vector<OutboxEntry>> read_outbox(std::size_t count_max, Deadline deadline,
                                                       const std::stop_token& stop) = 0;
  virtual Result<StoreStatistics> statistics() = 0;
  virtual Result<SweepReport> sweep(const SweepRequest& request) = 0;
  /// Capabilities::runs_sql only. Runs `body` and then `units` in one transaction; an error of the body or of
  /// any unit rolls everything back and is returned. `settle` names the subscription whose tokens `Settle`
  /// writes refer to.
  virtual Result<void> transact(const std::function<Result<void>(SqlSession&)>& body,
                                std::span<const Unit> units, Subscription* settle) = 0;
};

/// What opening a URL gives. `store` may be null for a provider that is only a transport.
struct Provider {
  std::shared_ptr<Store> store;
  std::shared_ptr<Transport> transport;
  /// What the driver found at opening that a person should know, one sentence each.
  std::vector<std::string> findings;
};

}  // namespace towline::spi
