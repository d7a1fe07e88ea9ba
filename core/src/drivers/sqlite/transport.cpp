// Publishing and subscribing. One receive() is one op: settlements, units, handing out; then, if nothing came
// and nothing was settled, it waits for a message, a lease end or a wake and looks again.

#include <algorithm>
#include <chrono>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "base/topology.hpp"
#include "drivers/sqlite/claim_rows.hpp"
#include "drivers/sqlite/claims.hpp"
#include "drivers/sqlite/ephemeral.hpp"
#include "drivers/sqlite/members.hpp"
#include "drivers/sqlite/ops.hpp"
#include "drivers/sqlite/ownership.hpp"
#include "drivers/sqlite/provider.hpp"
#include "drivers/sqlite/publish.hpp"
#include "drivers/sqlite/topics.hpp"
#include "drivers/sqlite/transact.hpp"
#include "drivers/sqlite/units.hpp"

namespace towline::drivers::sqlite {
namespace {

constexpr Duration kEphemeralLease = std::chrono::seconds(30);
constexpr Duration kLookInterval = std::chrono::seconds(1);
constexpr Duration kShortestWait = std::chrono::milliseconds(1);

Error closed() { return {ErrorCode::kClosed, "the subscription is closed"}; }

class PublishOp final : public Op {
 public:
  PublishOp(Moment moment, std::span<const spi::Envelope> envelopes) : Op(moment), envelopes_(envelopes) {
    count = envelopes.size();
    for (const spi::Envelope& envelope : envelopes)
      bytes += envelope.payload.size();
  }
  void apply(Tx& tx) override {
    if (full != nullptr) {
      error = *full;
      return;
    }
    answers = sqlite::publish(tx, envelopes_);
  }
  void undo(Tx&) override { answers.clear(); }
  std::vector<spi::PublishAnswer> answers;

 private:
  std::span<const spi::Envelope> envelopes_;
};

class JoinOp final : public Op {
 public:
  JoinOp(Moment moment, std::shared_ptr<Session> session) : Op(moment), session_(std::move(session)) {
    tidies = true;
  }
  void apply(Tx& tx) override {
    if (auto clash = check_order(tx, *session_); !clash) {
      error = std::move(clash).error();
      return;
    }
    join(tx, session_);
    flush_settled(tx);
    deal_partitions(tx);
  }
  void undo(Tx& tx) override {
    error.reset();
    tx.catalog.sessions.erase(session_->member_id);
    session_->group = nullptr;
    session_->topics.clear();
    session_->positions.clear();
    session_->shape = 0;
  }

 private:
  const std::shared_ptr<Session> session_;
};

class ReceiveOp final : public Op {
 public:
  ReceiveOp(Moment moment, Session& session, const spi::ReceiveRequest& request, bool settles)
      : Op(moment), session_(session), request_(request), settles_(settles) {
    looks = true;
    late = true;
    tidies = true;
    count = std::max<std::size_t>(1, request.count_max / 4);
    if (settles) count += request.units.size() + request.settlements.size() / 16;
  }

  Look look(Tx& tx) override {
    if (session_.closed) return Look::kDone;
    note_alive(tx, session_);
    if (settles_) return Look::kWrite;
    if (session_.ephemeral()) {
      if (needs_attention(tx, session_)) return Look::kWrite;
      read_ephemeral(tx, session_, request_.count_max, request_.payload_bytes_max, received.deliveries);
      return Look::kDone;
    }
    if (lease_ended(tx) || needs_attention(tx, session_)) return Look::kWrite;
    return request_.count_max > 0 && may_hand_out(tx, session_) ? Look::kWrite : Look::kMaybe;
  }

  void apply(Tx& tx) override {
    received = {};
    if (session_.closed) return;
    before_ = session_.positions;
    touch(tx, session_);
    if (session_.live && !session_.ephemeral()) attach_topics(tx, session_);
    if (settles_) settle_all(tx);
    flush_settled(tx);
    deal_partitions(tx);
    if (session_.ephemeral()) {
      read_ephemeral(tx, session_, request_.count_max, request_.payload_bytes_max, received.deliveries);
    } else if (session_.live) {
      hand_out(tx, session_, request_.count_max, request_.payload_bytes_max, received.deliveries);
    }
  }

  void undo(Tx&) override {
    received = {};
    session_.positions = before_;
  }

  spi::Received received;

 private:
  void settle_all(Tx& tx) {
    for (std::uint32_t i = 0; i < request_.settlements.size(); ++i) {
      if (!settle(tx, session_, request_.settlements[i])) received.lost.push_back(i);
    }
    if (request_.units.empty()) return;
    received.units = commit_units(tx, request_.units, &session_, full);
    const bool all =
        std::all_of(received.units.begin(), received.units.end(), [](const auto& r) { return r.ok(); });
    if (all) received.units.clear();
  }

  Session& session_;
  const spi::ReceiveRequest& request_;
  const bool settles_;
  std::map<std::int64_t, Seq> before_;
};

/// Ends what the clock has ended, and tells which subscriptions of this process are alive.
class TidyOp final : public Op {
 public:
  explicit TidyOp(Moment moment) : Op(moment) {
    looks = true;
    tidies = true;
  }
  Look look(Tx& tx) override {
    note_sessions(tx);
    return lease_ended(tx) ? Look::kWrite : Look::kDone;
  }
  void apply(Tx& tx) override { note_sessions(tx); }
  std::map<std::int64_t, bool> live;

 private:
  void note_sessions(Tx& tx) {
    live.clear();
    for (const auto& [id, session] : tx.catalog.sessions)
      live[id] = session->live;
  }
};

/// The subscription object is gone: what it holds ends by the clock.
class DropOp final : public Op {
 public:
  DropOp(Moment moment, Session& session) : Op(moment), session_(session) {
    looks = true;
    patience = kEndlessPatience;  // what the session refers to is about to go
  }
  Look look(Tx& tx) override {
    session_.dropped = true;
    // They may refer to what the subscriber has destroyed.
    session_.options.matches = nullptr;
    if (session_.closed) tx.catalog.sessions.erase(session_.member_id);
    return Look::kDone;
  }
  void apply(Tx&) override {}

 private:
  Session& session_;
};

class CloseOp final : public Op {
 public:
  CloseOp(Moment moment, std::shared_ptr<Session> session) : Op(moment), session_(std::move(session)) {
    looks = true;
    tidies = true;
  }
  Look look(Tx&) override { return session_->closed ? Look::kDone : Look::kWrite; }
  void apply(Tx& tx) override {
    if (session_->closed) return;
    leave(tx, *session_);
    session_->closed = true;
    closed_ = true;
    deal_partitions(tx);
  }
  void undo(Tx& tx) override {
    if (!std::exchange(closed_, false)) return;
    session_->closed = false;
    tx.catalog.sessions[session_->member_id] = session_;
  }

 private:
  const std::shared_ptr<Session> session_;
  bool closed_ = false;
};

// ---- statistics ----

/// Up to so many messages are counted one by one; beyond, those addressed to other groups are counted too.
constexpr std::int64_t kExactCountMax = 20'000;

constexpr const char* kGroupsOnTopics =
    "SELECT t.name, g.name, gt.topic_id, gt.group_id, gt.partitioned FROM grp_topic gt JOIN topic t ON t.id "
    "= gt.topic_id"
    " JOIN grp g ON g.id = gt.group_id ORDER BY t.name, g.name";
constexpr const char* kLogsRead =
    "SELECT c.log_id, c.read_seq, (SELECT m.seq + coalesce(m.count, 1) - 1 FROM message m WHERE m.seq > l.id "
    "<< 40"
    " AND m.seq < (l.id + 1) << 40 ORDER BY m.seq DESC LIMIT 1), l.trimmed_seq, t.partition_count FROM log l"
    " JOIN topic t ON t.id = l.topic_id JOIN cursor c ON c.log_id = l.id AND c.group_id = ?2 WHERE "
    "l.topic_id = ?1";
constexpr const char* kPartitionsRead =
    "SELECT partition, read_seq FROM partition_cursor WHERE log_id = ?1 AND group_id = ?2";
constexpr const char* kCountReturned =
    "SELECT count(*) FROM redelivery WHERE group_id = ?1 AND seq > ?2 AND seq < ?3";
constexpr const char* kInFlight =
    "SELECT coalesce(sum(c.remaining), 0) FROM claim c JOIN log l ON l.id = c.log_id WHERE c.group_id = ?2"
    " AND l.topic_id = ?1 AND c.remaining > 0";
constexpr const char* kMembersOf =
    "SELECT m.id, m.lease_until_us, m.patterns, t.topic_id IS NOT NULL FROM member m"
    " LEFT JOIN member_topic t ON t.topic_id = ?1 AND t.member_id = m.id WHERE m.group_id = ?2";

std::int64_t count_new(Connection& sql, const LogState& log, Seq read, Seq last, std::int64_t group_id,
                       bool partitioned) {
  std::vector<Seq> partition_read;
  if (partitioned) {
    partition_read.assign(log.topic->partition_count, read);
    Query rows(sql, kPartitionsRead, log.id, group_id);
    while (rows.row()) {
      const auto partition = static_cast<std::size_t>(rows.integer(0));
      if (partition < partition_read.size()) partition_read[partition] = rows.integer(1);
    }
  }
  std::int64_t count = 0;
  MessageReader message(sql, log, read, last);
  while (message.next()) {
    const std::int64_t only = message.group_id();
    if (only != 0 && only != group_id) continue;
    if (!partitioned || message.seq() > partition_read[message.partition()]) ++count;
  }
  return count;
}

std::uint64_t waiting_in_log(Connection& sql, const Query& row, std::int64_t group_id, bool partitioned) {
  TopicState topic;
  topic.partition_count = row.u32(4);
  LogState log;
  log.id = row.integer(0);
  log.topic = &topic;
  const Seq read = std::max(row.integer(1), row.integer(3));
  const Seq last = row.is_null(2) ? row.integer(3) : row.integer(2);
  std::int64_t waiting = std::max<std::int64_t>(0, last - read);
  if (waiting > 0 && waiting <= kExactCountMax)
    waiting = count_new(sql, log, read, last, group_id, partitioned);
  waiting += select_integer(sql, kCountReturned, group_id, log_begin(log.id), log_end(log.id)).value_or(0);
  return static_cast<std::uint64_t>(waiting);
}

std::vector<spi::GroupStatistics> read_statistics(Connection& sql, const TidyOp& tidied) {
  std::vector<spi::GroupStatistics> all;
  Query groups(sql, kGroupsOnTopics);
  while (groups.row()) {
    spi::GroupStatistics& one = all.emplace_back();
    one.topic = groups.text(0);
    one.group = groups.text(1);
    const std::int64_t topic_id = groups.integer(2);
    const std::int64_t group_id = groups.integer(3);
    Query logs(sql, kLogsRead, topic_id, group_id);
    while (logs.row())
      one.waiting += waiting_in_log(sql, logs, group_id, groups.integer(4) != 0);
    one.in_flight =
        static_cast<std::uint64_t>(select_integer(sql, kInFlight, topic_id, group_id).value_or(0));
    Query members(sql, kMembersOf, topic_id, group_id);
    while (members.row()) {
      const auto own = tidied.live.find(members.integer(0));
      const bool live = own != tidied.live.end() ? own->second : members.integer(1) > to_us(tidied.now.wall);
      // A topic that was made after it joined is a member's own only with its next receive.
      const bool reads = members.integer(3) != 0 || asks_for(members.text(2), one.topic);
      if (live && reads) ++one.member_count;
    }
  }
  return all;
}

}  // namespace

spi::Capabilities SqliteTransport::capabilities() const noexcept {
  spi::Capabilities capabilities;
  capabilities.is_store = true;
  capabilities.deduplicates = true;
  capabilities.assigns_partitions = true;
  capabilities.fences = true;
  capabilities.durable = true;
  capabilities.survives_power_loss = handle_.database->settings().synchronous_full;
  capabilities.shared = true;
  capabilities.runs_sql = true;
  return capabilities;
}

Result<void> SqliteTransport::declare(const spi::Topology& topology) {
  if (auto checked = base::check_topology(topology); !checked) return checked;
  auto op = write_op<Result<void>>(handle_.now(),
                                   [&](Tx& tx, const Error*) { return declare_topic(tx, topology); });
  handle_.database->run(op);
  if (op.error) return std::move(*op.error);
  return std::move(*op.result);
}

Result<spi::Topology> SqliteTransport::topology(std::string_view topic, std::uint32_t partition_count_default,
                                                spi::Deadline begin_by) {
  spi::Topology asked;
  asked.topic = topic;
  asked.partition_count = partition_count_default;
  if (auto checked = base::check_topology(asked); !checked) return std::move(checked).error();
  // On a reading connection: a handler transaction, which leads the writer, may ask.
  auto known = handle_.database->read<spi::Topology>([&](Connection& sql) -> Result<spi::Topology> {
    spi::Topology found = asked;
    Query query(sql, "SELECT kind, partition_count, retention_us FROM topic WHERE name = ?1", topic);
    if (!query.row()) return Error{ErrorCode::kNotFound, "no such topic"};
    found.kind = base::topic_kind_of(query.text(0));
    found.partition_count = query.u32(1);
    found.retention = Duration(query.integer(2));
    return found;
  });
  if (known || known.error().code != ErrorCode::kNotFound) return known;
  // The transaction makes the topic when it publishes; asking the writer here would wait for itself.
  if (leads_transaction(*handle_.database)) return asked;
  auto op = write_op<spi::Topology>(handle_.now(), [&](Tx& tx, const Error*) {
    const TopicState& state = topic_of(tx, topic, asked);
    spi::Topology made = asked;
    made.kind = state.kind;
    made.partition_count = state.partition_count;
    made.retention = state.retention;
    return made;
  });
  op.be_patient_until(begin_by);
  handle_.database->run(op);
  if (op.error) return std::move(*op.error);
  return std::move(*op.result);
}

Result<std::vector<spi::PublishAnswer>> SqliteTransport::publish(std::span<spi::Envelope> envelopes,
                                                                 spi::Deadline begin_by) {
  if (envelopes.empty()) return std::vector<spi::PublishAnswer>{};
  PublishOp op(handle_.now(), envelopes);
  op.be_patient_until(begin_by);
  handle_.database->run(op);
  if (op.error) return std::move(*op.error);
  return std::move(op.answers);
}

Result<std::unique_ptr<spi::Subscription>> SqliteTransport::subscribe(const spi::SubscribeOptions& options) {
  if (!options.matches) {
    return Error{ErrorCode::kInvalidArgument,
                 "SubscribeOptions::matches is empty; it decides which topics belong"};
  }
  auto session = std::make_shared<Session>();
  session->options = options;
  if (options.group.empty() && options.lease <= Duration(0)) session->options.lease = kEphemeralLease;
  if (session->options.lease <= Duration(0)) {
    return Error{ErrorCode::kInvalidArgument, "lease is " + std::to_string(options.lease.count()) +
                                                  " us for group \"" + options.group +
                                                  "\"; it must be positive"};
  }
  std::sort(session->options.partitions.begin(), session->options.partitions.end());
  JoinOp op(handle_.now(), session);
  handle_.database->run(op);
  if (op.error) return std::move(*op.error);
  return std::unique_ptr<spi::Subscription>(
      std::make_unique<SqliteSubscription>(handle_, std::move(session)));
}

Result<std::vector<spi::GroupStatistics>> SqliteTransport::statistics() {
  TidyOp op(handle_.now());
  handle_.database->run(op);
  if (op.error) return std::move(*op.error);
  using Statistics = std::vector<spi::GroupStatistics>;
  return handle_.database->read<Statistics>(
      [&](Connection& sql) -> Result<Statistics> { return read_statistics(sql, op); });
}

SqliteSubscription::~SqliteSubscription() {
  DropOp op(handle_.now(), *session_);
  handle_.database->run(op);
}

Result<spi::Received> SqliteSubscription::receive(const spi::ReceiveRequest& request) {
  bool settles = !request.settlements.empty() || !request.units.empty();
  Session& session = *session_;
  for (bool last_look = false;; last_look = true) {
    {
      const std::lock_guard lock(session.mutex);
      session.signalled = false;
    }
    std::optional<Database::Waiting> waiting;
    if (last_look) {
      waiting.emplace(*handle_.database, session);
      handle_.database->want_ring();
    }
    ReceiveOp op(handle_.now(), session, request, settles);
    handle_.database->run(op);
    if (op.error) return std::move(*op.error);
    if (session.closed) return closed();
    if (!op.received.deliveries.empty() || request.count_max == 0 || settles || !handle_.waits) {
      return std::move(op.received);
    }
    if (!last_look) continue;
    std::unique_lock lock(session.mutex);
    if (std::exchange(session.woken, false)) return std::move(op.received);
    const MonotonicTime now = handle_.clock->monotonic();
    if (now >= request.deadline) return std::move(op.received);
    session.waits_until = std::min(
        request.deadline, std::clamp(op.next_end, after(now, kShortestWait), after(now, kLookInterval)));
    while (!session.signalled && !session.woken && handle_.clock->monotonic() < session.waits_until) {
      handle_.clock->wait_until(lock, session.changed, session.waits_until);
    }
    session.waits_until = MonotonicTime::min();
  }
}

void SqliteSubscription::wake() noexcept {
  const std::lock_guard lock(session_->mutex);
  session_->woken = true;
  session_->changed.notify_all();
}

Result<std::vector<std::uint64_t>> SqliteSubscription::renew() {
  using Lost = std::vector<std::uint64_t>;
  auto op = write_op<Result<Lost>>(handle_.now(), [&](Tx& tx, const Error*) -> Result<Lost> {
    if (session_->closed) return closed();
    Result<Lost> lost = sqlite::renew(tx, *session_);
    deal_partitions(tx);
    return lost;
  });
  op.tidies = true;
  handle_.database->run(op);
  if (op.error) return std::move(*op.error);
  return std::move(*op.result);
}

Result<void> SqliteSubscription::close() {
  CloseOp op(handle_.now(), session_);
  handle_.database->run(op);
  if (op.error) return std::move(*op.error);
  return {};
}

}  // namespace towline::drivers::sqlite
