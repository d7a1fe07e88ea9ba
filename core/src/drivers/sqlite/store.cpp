// The store half: commits, due records, reads. Reads run on connections of their own and see what is
// committed.

#include <algorithm>
#include <chrono>
#include <utility>

#include "drivers/sqlite/cancelled.hpp"
#include "drivers/sqlite/clients.hpp"
#include "drivers/sqlite/dead_letters.hpp"
#include "drivers/sqlite/dedup.hpp"
#include "drivers/sqlite/fired.hpp"
#include "drivers/sqlite/members.hpp"
#include "drivers/sqlite/ops.hpp"
#include "drivers/sqlite/outbox.hpp"
#include "drivers/sqlite/ownership.hpp"
#include "drivers/sqlite/provider.hpp"
#include "drivers/sqlite/publish.hpp"
#include "drivers/sqlite/records.hpp"
#include "drivers/sqlite/sagas.hpp"
#include "drivers/sqlite/schedule.hpp"
#include "drivers/sqlite/streams.hpp"
#include "drivers/sqlite/trim.hpp"
#include "drivers/sqlite/units.hpp"

namespace towline::drivers::sqlite {
namespace {

/// Due times are of the wall clock, waits of the monotonic one, and other processes may die silently: so
/// nobody waits longer than this without looking.
constexpr Duration kLookInterval = std::chrono::seconds(1);

/// What SQL of others has written is found within this time.
constexpr auto kOutboxLookInterval = std::chrono::milliseconds(20);

constexpr const char* kCounters = "SELECT name, value FROM counter";

std::size_t bytes_of(const spi::Unit& unit) {
  std::size_t bytes = 0;
  for (const spi::Write& write : unit.writes) {
    if (const auto* put = std::get_if<spi::PutSchedule>(&write)) bytes += put->record.envelope.payload.size();
    if (const auto* publish = std::get_if<spi::Publish>(&write)) bytes += publish->envelope.payload.size();
    if (const auto* letter = std::get_if<spi::PutDeadLetter>(&write)) bytes += letter->record.payload.size();
    if (const auto* append = std::get_if<spi::AppendEvents>(&write)) {
      for (const RecordedEvent& event : append->events)
        bytes += event.payload.size();
    }
  }
  return bytes;
}

class DueOp final : public Op {
 public:
  DueOp(Moment moment, const spi::DueRequest& request, bool promote)
      : Op(moment), request_(request), promote_(promote) {
    looks = true;
    count = std::max<std::size_t>(1, request.count_max / 4);
  }
  Look look(Tx& tx) override {
    const TimePoint next = next_due(tx);
    if (next != kNever) batch.next_due_at = next;
    return request_.count_max > 0 && next <= tx.now.wall ? Look::kWrite : Look::kMaybe;
  }
  void apply(Tx& tx) override {
    batch = {};
    take_due(tx, request_, promote_, batch);
  }
  void undo(Tx&) override { batch = {}; }
  spi::DueBatch batch;

 private:
  const spi::DueRequest& request_;
  const bool promote_;
};

/// Where dedup ids are is known to the writer alone.
class FindDedupOp final : public Op {
 public:
  FindDedupOp(Moment moment, std::string_view topic, std::string_view dedup_id)
      : Op(moment), topic_(topic), dedup_id_(dedup_id) {
    looks = true;
  }
  Look look(Tx& tx) override {
    found = find_dedup(tx, topic_, dedup_id_);
    return Look::kDone;
  }
  void apply(Tx&) override {}
  std::optional<MessageId> found;

 private:
  const std::string_view topic_;
  const std::string_view dedup_id_;
};

}  // namespace

SqliteStore::SqliteStore(Handle handle) : handle_(std::move(handle)) {
  handle_.database->add_due_waiter(waiter_);
}

SqliteStore::~SqliteStore() { handle_.database->remove_due_waiter(waiter_); }

Result<std::vector<Result<void>>> SqliteStore::commit(std::span<const spi::Unit> units,
                                                      spi::Deadline begin_by) {
  if (units.empty()) return std::vector<Result<void>>{};
  auto op = write_op<std::vector<Result<void>>>(
      handle_.now(), [&](Tx& tx, const Error* full) { return commit_units(tx, units, nullptr, full); });
  op.count = units.size();
  for (const spi::Unit& unit : units)
    op.bytes += bytes_of(unit);
  op.be_patient_until(begin_by);
  handle_.database->run(op);
  if (op.error) return std::move(*op.error);
  return std::move(*op.result);
}

Result<spi::DueBatch> SqliteStore::wait_for_due(const spi::DueRequest& request, bool promote) {
  for (bool last_look = false;; last_look = true) {
    {
      const std::lock_guard lock(waiter_.mutex);
      waiter_.signalled = false;
    }
    if (last_look) handle_.database->want_ring();
    DueOp op(handle_.now(), request, promote);
    handle_.database->run(op);
    if (op.error) return std::move(*op.error);
    const bool found = op.batch.promoted_count > 0 || !op.batch.records.empty();
    if (found || request.count_max == 0 || !handle_.waits) return std::move(op.batch);
    if (!last_look) continue;
    std::unique_lock lock(waiter_.mutex);
    if (std::exchange(waiter_.woken, false)) return std::move(op.batch);
    const Moment now = handle_.now();
    if (now.monotonic >= request.deadline) return std::move(op.batch);
    Duration wait = kLookInterval;
    if (op.batch.next_due_at) wait = std::clamp(*op.batch.next_due_at - now.wall, Duration(0), kLookInterval);
    const MonotonicTime until = std::min(request.deadline, after(now.monotonic, wait));
    while (!waiter_.signalled && !waiter_.woken && handle_.clock->monotonic() < until) {
      handle_.clock->wait_until(lock, waiter_.changed, until);
    }
  }
}

Result<spi::DueBatch> SqliteStore::claim_due(const spi::DueRequest& request) {
  return wait_for_due(request, false);
}

Result<spi::DueBatch> SqliteStore::promote_due(const spi::DueRequest& request) {
  return wait_for_due(request, true);
}

void SqliteStore::wake() noexcept {
  const std::lock_guard lock(waiter_.mutex);
  waiter_.woken = true;
  waiter_.changed.notify_all();
}

Result<std::optional<spi::ScheduleRecord>> SqliteStore::find_schedule(const MessageId& id) {
  using Found = std::optional<spi::ScheduleRecord>;
  return handle_.database->read<Found>(
      [&](Connection& sql) -> Result<Found> { return sqlite::find_schedule(sql, id); });
}

Result<Page<spi::ScheduleRecord>> SqliteStore::list_schedule(const spi::ScheduleQuery& query) {
  return handle_.database->read<Page<spi::ScheduleRecord>>(
      [&](Connection& sql) { return sqlite::list_schedule(sql, query); });
}

Result<bool> SqliteStore::has_fired(const MessageId& id) {
  return handle_.database->read<bool>(
      [&](Connection& sql) -> Result<bool> { return sqlite::has_fired(sql, id); });
}

Result<std::vector<spi::KeyBlock>> SqliteStore::list_key_blocks(std::string_view group,
                                                                std::string_view topic,
                                                                std::optional<std::uint32_t> partition) {
  using Blocks = std::vector<spi::KeyBlock>;
  return handle_.database->read<Blocks>([&](Connection& sql) -> Result<Blocks> {
    return sqlite::list_key_blocks(sql, group, topic, partition);
  });
}

template <typename T>
Result<T> SqliteStore::read_dead_letters(const std::function<Result<T>(Connection&)>& read) {
  const Moment now = handle_.now();
  auto ended = handle_.database->read<bool>(
      [&](Connection& sql) -> Result<bool> { return dead_letter_lease_ended(sql, now.wall); });
  if (!ended) return std::move(ended).error();
  if (*ended) {
    auto op = write_op<bool>(now, [](Tx& tx, const Error*) {
      end_dead_letter_leases(tx);
      return true;
    });
    handle_.database->run(op);
    if (op.error) return std::move(*op.error);
  }
  return handle_.database->read<T>(read);
}

Result<std::optional<DeadLetter>> SqliteStore::find_dead_letter(const MessageId& id) {
  using Found = std::optional<DeadLetter>;
  return read_dead_letters<Found>(
      [&](Connection& sql) -> Result<Found> { return sqlite::find_dead_letter(sql, id); });
}

Result<Page<DeadLetter>> SqliteStore::list_dead_letters(const DeadLetterQuery& query) {
  return read_dead_letters<Page<DeadLetter>>(
      [&](Connection& sql) { return sqlite::list_dead_letters(sql, query); });
}

Result<std::vector<DeadLetterGroup>> SqliteStore::group_dead_letters(const DeadLetterQuery& query) {
  return read_dead_letters<std::vector<DeadLetterGroup>>(
      [&](Connection& sql) { return sqlite::group_dead_letters(sql, query); });
}

Result<std::optional<MessageId>> SqliteStore::find_dedup(std::string_view topic, std::string_view dedup_id) {
  FindDedupOp op(handle_.now(), topic, dedup_id);
  handle_.database->run(op);
  if (op.error) return std::move(*op.error);
  return op.found;
}

Result<std::vector<bool>> SqliteStore::inbox_contains(std::string_view group,
                                                      std::span<const MessageId> ids) {
  using Contains = std::vector<bool>;
  const TimePoint now = handle_.clock->now();
  return handle_.database->read<Contains>([&](Connection& sql) -> Result<Contains> {
    Contains contains;
    contains.reserve(ids.size());
    for (const MessageId& id : ids)
      contains.push_back(inbox_holds(sql, group, id, now));
    return contains;
  });
}

Result<std::optional<spi::IdempotencyRecord>> SqliteStore::find_idempotency(std::string_view scope,
                                                                            std::string_view key) {
  using Found = std::optional<spi::IdempotencyRecord>;
  const TimePoint now = handle_.clock->now();
  return handle_.database->read<Found>(
      [&](Connection& sql) -> Result<Found> { return sqlite::find_idempotency(sql, scope, key, now); });
}

Result<spi::StreamSlice> SqliteStore::read_stream(const spi::StreamRead& read) {
  return handle_.database->read<spi::StreamSlice>(
      [&](Connection& sql) { return sqlite::read_stream(sql, read); });
}

Result<Page<StreamInfo>> SqliteStore::list_streams(spi::StreamSpace space, std::string_view prefix,
                                                   std::size_t count_max, std::string_view cursor) {
  return handle_.database->read<Page<StreamInfo>>([&](Connection& sql) -> Result<Page<StreamInfo>> {
    return sqlite::list_streams(sql, space, prefix, count_max, cursor);
  });
}

Result<std::optional<Snapshot>> SqliteStore::find_snapshot(std::string_view stream) {
  using Found = std::optional<Snapshot>;
  return handle_.database->read<Found>(
      [&](Connection& sql) -> Result<Found> { return sqlite::find_snapshot(sql, stream); });
}

Result<std::optional<spi::EventCursor>> SqliteStore::find_event_cursor(std::string_view name) {
  using Found = std::optional<spi::EventCursor>;
  return handle_.database->read<Found>(
      [&](Connection& sql) -> Result<Found> { return sqlite::find_event_cursor(sql, name); });
}

namespace {

/// Hears of every commit with news while it is there.
class Listening {
 public:
  explicit Listening(Database& database) : database_(database) { database_.add_due_waiter(waiter); }
  ~Listening() { database_.remove_due_waiter(waiter); }
  Listening(const Listening&) = delete;
  Listening& operator=(const Listening&) = delete;
  DueWaiter waiter;

 private:
  Database& database_;
};

}  // namespace

Result<std::uint64_t> SqliteStore::wait_for_events(spi::StreamSpace space, std::uint64_t after,
                                                   spi::Deadline deadline, const std::stop_token& stop) {
  Listening listening(*handle_.database);
  DueWaiter& waiter = listening.waiter;
  const std::stop_callback wake(stop, [&waiter] {
    const std::lock_guard lock(waiter.mutex);
    waiter.signalled = true;
    waiter.changed.notify_all();
  });
  for (;;) {
    {
      const std::lock_guard lock(waiter.mutex);
      waiter.signalled = false;
    }
    handle_.database->want_ring();
    auto last = handle_.database->read<std::uint64_t>(
        [&](Connection& sql) -> Result<std::uint64_t> { return last_position(sql, space); });
    const MonotonicTime now = handle_.clock->monotonic();
    if (!last || *last > after || now >= deadline || !handle_.waits) return last;
    const MonotonicTime until = std::min(deadline, sqlite::after(now, kLookInterval));
    std::unique_lock lock(waiter.mutex);
    while (!waiter.signalled && !stop.stop_requested() && handle_.clock->monotonic() < until)
      handle_.clock->wait_until(lock, waiter.changed, until);
    if (stop.stop_requested()) return last;
  }
}

namespace {

/// Waits for what others write. Their SQL rings no bell, so it is looked for at short intervals; by real
/// time, since the others live in it whatever clock an engine has.
class OutboxWatch {
 public:
  OutboxWatch(Database& database, const std::stop_token& stop)
      : database_(database), wake_(stop, Wake{&waiter_}) {
    database_.add_outbox_waiter(waiter_);
  }
  ~OutboxWatch() { database_.remove_outbox_waiter(waiter_); }
  OutboxWatch(const OutboxWatch&) = delete;
  OutboxWatch& operator=(const OutboxWatch&) = delete;

  /// Before looking.
  void begin() {
    const std::lock_guard lock(waiter_.mutex);
    waiter_.signalled = waiter_.woken;
  }
  void wait() {
    std::unique_lock lock(waiter_.mutex);
    waiter_.changed.wait_for(lock, kOutboxLookInterval, [this] { return waiter_.signalled; });
  }

 private:
  struct Wake {
    DueWaiter* waiter;
    void operator()() const {
      const std::lock_guard lock(waiter->mutex);
      waiter->signalled = waiter->woken = true;
      waiter->changed.notify_all();
    }
  };
  Database& database_;
  DueWaiter waiter_;
  std::stop_callback<Wake> wake_;
};

}  // namespace

Result<std::optional<SagaInfo>> SqliteStore::find_saga(std::string_view type, std::string_view id) {
  using Found = std::optional<SagaInfo>;
  return handle_.database->read<Found>(
      [&](Connection& sql) -> Result<Found> { return sqlite::find_saga(sql, type, id); });
}

Result<Page<SagaInfo>> SqliteStore::list_sagas(const SagaQuery& query) {
  return handle_.database->read<Page<SagaInfo>>(
      [&](Connection& sql) { return sqlite::list_sagas(sql, query); });
}

Result<std::vector<spi::ClientPosition>> SqliteStore::client_positions(std::string_view user,
                                                                       std::string_view client,
                                                                       std::string_view from,
                                                                       std::size_t count_max) {
  using Positions = std::vector<spi::ClientPosition>;
  const TimePoint now = handle_.clock->now();
  return handle_.database->read<Positions>([&](Connection& sql) -> Result<Positions> {
    return sqlite::client_positions(sql, user, client, from, count_max, now);
  });
}

Result<std::vector<spi::MissedMessages>> SqliteStore::missed_messages(std::string_view user,
                                                                      std::string_view from,
                                                                      std::size_t count_max) {
  using Missed = std::vector<spi::MissedMessages>;
  const TimePoint now = handle_.clock->now();
  return handle_.database->read<Missed>([&](Connection& sql) -> Result<Missed> {
    return sqlite::missed_messages(sql, user, from, count_max, now);
  });
}

Result<std::vector<spi::OutboxEntry>> SqliteStore::read_outbox(std::size_t count_max, spi::Deadline deadline,
                                                               const std::stop_token& stop) {
  using Entries = std::vector<spi::OutboxEntry>;
  const auto may_wait = [&] {
    return handle_.waits && !stop.stop_requested() && handle_.clock->monotonic() < deadline;
  };
  OutboxWatch watch(*handle_.database, stop);
  for (;;) {
    watch.begin();
    // Mostly there is none, and this is asked very often.
    const auto any = handle_.database->read_alone<bool>(&outbox_holds_any);
    if (!any) return any.error();
    if (!*any && may_wait()) {
      watch.wait();
      continue;
    }
    auto entries = handle_.database->read<Entries>(
        [&](Connection& sql) -> Result<Entries> { return sqlite::read_outbox(sql, count_max); });
    if (!entries || !entries->empty() || !may_wait()) return entries;
  }
}

Result<spi::StoreStatistics> SqliteStore::statistics() {
  auto statistics =
      read_dead_letters<spi::StoreStatistics>([](Connection& sql) -> Result<spi::StoreStatistics> {
        spi::StoreStatistics out;
        Query counters(sql, kCounters);
        while (counters.row()) {
          const auto value = static_cast<std::uint64_t>(std::max<std::int64_t>(0, counters.integer(1)));
          if (counters.text(0) == "scheduled") out.scheduled = value;
          if (counters.text(0) == "parked") out.parked = value;
          if (counters.text(0) == "idempotency") out.idempotency_records = value;
        }
        count_dead_letters(sql, out.dead_letters);
        return out;
      });
  if (statistics) statistics->bytes = handle_.database->bytes_on_disk();
  return statistics;
}

Result<spi::SweepReport> SqliteStore::sweep(const spi::SweepRequest& request) {
  const Moment now{request.now, handle_.clock->monotonic()};
  Database& database = *handle_.database;
  auto op = write_op<spi::SweepReport>(now, [&](Tx& tx, const Error*) {
    spi::SweepReport report;
    std::size_t left = request.count_max;
    const auto took = [&left](std::uint64_t count) {
      left -= std::min<std::size_t>(left, static_cast<std::size_t>(count));
      return count;
    };
    end_dead_letter_leases(tx);
    if (forget_fired(tx)) report.more = true;
    if (sweep_cancelled(tx, database.sweep_places.cancelled)) report.more = true;
    report.dead_letters = took(sweep_dead_letters(tx, request, left));
    Swept swept = sweep_idempotency(tx, database.sweep_places.idempotency, request.now, left);
    report.idempotency_records = took(swept.removed);
    report.more = report.more || swept.more;
    swept = sweep_inbox(tx, database.sweep_places.inbox, request.now, left);
    report.inbox_records = took(swept.removed);
    report.more = report.more || swept.more;
    swept = sweep_dedup(tx, database.sweep_places, left);
    report.dedup_ids = took(swept.removed);
    report.more = report.more || swept.more;
    report.sagas = took(sweep_sagas(tx, request.now, left));
    report.client_positions = took(sweep_client_positions(tx, request.now, left));
    report.missed_messages = took(sweep_missed(tx, request.now, left));
    for (auto& [id, session] : tx.catalog.sessions)
      sync_partition_cursors(tx, *session);
    const Trimmed trimmed = trim_all(tx, left);
    report.messages = took(trimmed.messages);
    report.more = remove_all_fired(tx, left) || report.more || trimmed.more || left == 0;
    return report;
  });
  op.tidies = true;
  database.run(op);
  if (op.error) return std::move(*op.error);
  return std::move(*op.result);
}

}  // namespace towline::drivers::sqlite
