#pragma once
// The transport half of a hub: topics, their logs, and what each group has read, holds and has settled.
//
// A topic keeps one log per priority, and a log is a row of segments: the part of one published batch that
// went to it. A group reads a log with a cursor: everything before `Reader::next` was handed out. What it
// holds is written down once per hand-out (Claim), not once per message. What comes back unsettled waits in
// `Reader::returned` and is handed out before anything newer, in order. A segment goes when nothing in it is
// owed to anybody any more (`Segment::unsettled`).
//
// Nothing here is thread-safe and nothing waits: the hub's mutex is held around every call.

#include <array>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <towline/spi/transport.hpp>

namespace towline::drivers::memory {

/// Position in one log, counted from 0 in the order of publishing; never used again.
using Sequence = std::uint64_t;

/// Both clocks, read once per call.
struct Moment {
  TimePoint wall{};
  MonotonicTime monotonic{};
};

/// How many bytes the hub keeps, and how many it may.
struct Meter {
  std::uint64_t used = 0;
  std::uint64_t max = 0;
  [[nodiscard]] bool fits(std::uint64_t more) const noexcept { return used <= max && more <= max - used; }
};

/// What an envelope costs the meter.
[[nodiscard]] std::uint64_t size_of(const spi::Envelope& envelope) noexcept;

/// What was published together; immutable, shared with the deliveries that point into it.
struct Batch {
  std::vector<spi::Envelope> envelopes;
};

struct Segment {
  Sequence first = 0;
  std::uint32_t count = 0;
  std::shared_ptr<const Batch> batch;
  const spi::Envelope* envelopes = nullptr;
  TimePoint appended_at{};
  std::uint64_t bytes = 0;
  std::uint64_t payload_bytes = 0;
  /// Pairs of (group, envelope) that are not settled; counts the group that an envelope is addressed to even
  /// before that group exists.
  std::uint64_t unsettled = 0;
  /// Some envelope is for one group only.
  bool addressed = false;
  [[nodiscard]] Sequence end() const noexcept { return first + count; }
};

struct Topic;

struct Log {
  Topic* topic = nullptr;
  std::uint8_t priority = 0;
  /// The order in which logs were made, for ties.
  std::uint64_t ordinal = 0;
  Sequence end = 0;
  std::map<Sequence, Segment> segments;
  /// Segments (by `first`) that nobody is owed, but that wait for their retention or for an ephemeral reader.
  std::set<Sequence> idle;

  [[nodiscard]] Segment* find(Sequence sequence) noexcept;
  /// The segment that holds `sequence` or, when that is gone, the first one after it.
  [[nodiscard]] std::map<Sequence, Segment>::iterator at_or_after(Sequence sequence) noexcept;
};

/// An entry of a log that came back to a group unsettled.
struct Returned {
  /// Deaths that the transport has seen, on top of Envelope::crashes.
  std::uint32_t crashes = 0;
  std::uint32_t partition = 0;
  /// Was in the hands of a process that died: handed out alone, so that the next death is charged to the
  /// right one.
  bool suspect = false;
  bool redelivered = true;
};

/// One group on one log.
struct Reader {
  Log* log = nullptr;
  /// Unordered groups: everything before has been handed out or passed over.
  Sequence next = 0;
  /// Partitioned groups: the same for each partition.
  std::vector<Sequence> partition_next;
  std::map<Sequence, Returned> returned;
  /// Partitioned groups: handed out although the cursor of the partition is still before it.
  std::set<Sequence> ahead;
};

/// Who may read one partition for a group.
struct Ownership {
  std::uint64_t owner = 0;  ///< session id; 0: free
  std::uint64_t epoch = 0;
  std::uint64_t in_flight = 0;
  /// The owner gets nothing more of it and gives it up when nothing of it is in flight.
  bool revoking = false;
};

struct Session;

struct GroupOnTopic {
  std::string name;
  Topic* topic = nullptr;
  std::map<std::uint8_t, Reader, std::greater<>> readers;
  /// In the order of joining.
  std::vector<Session*> members;
  std::uint64_t waiting = 0;
  std::uint64_t in_flight = 0;
  /// Set by the first ordered member, for ever.
  bool partitioned = false;
  /// Its partitions have to be dealt out again.
  bool dirty = false;
  std::vector<Ownership> partitions;
};

/// Whether the cursor has still to come to this entry.
[[nodiscard]] inline bool is_unread(const GroupOnTopic& group, const Reader& reader, Sequence sequence,
                                    std::uint32_t partition) {
  if (!group.partitioned) return sequence >= reader.next;
  return sequence >= reader.partition_next[partition] && !reader.ahead.contains(sequence);
}

/// An ephemeral session on a topic: which, and which of its attachments.
struct Listener {
  Session* session = nullptr;
  std::size_t attachment = 0;
};

struct Topic {
  spi::Topology topology;
  std::map<std::uint8_t, Log, std::greater<>> logs;
  std::map<std::string, GroupOnTopic, std::less<>> groups;
  std::vector<Listener> ephemerals;
};

/// An entry of a claim that is not simply the next one of the log; in a partitioned group every entry.
struct Held {
  Sequence sequence = 0;
  std::uint32_t crashes = 0;
  std::uint32_t partition = 0;
  bool suspect = false;
};

/// One handing-out. Dense (`held` empty): the entries first, first + 1, ...; else those listed.
struct Claim {
  std::uint64_t lease = 0;
  GroupOnTopic* at = nullptr;
  Reader* reader = nullptr;
  Sequence first = 0;
  std::uint32_t count = 0;
  std::uint32_t remaining = 0;
  std::vector<Held> held;
  /// Entries before this are settled; those after it say so in `settled`, which is made when the first comes
  /// out of order.
  std::uint32_t settled_prefix = 0;
  std::vector<bool> settled;
  MonotonicTime lease_until{};

  [[nodiscard]] Sequence sequence_of(std::uint32_t index) const noexcept {
    return held.empty() ? first + index : held[index].sequence;
  }
  [[nodiscard]] bool is_settled(std::uint32_t index) const noexcept {
    return index < settled_prefix || (!settled.empty() && settled[index]);
  }
  void mark_settled(std::uint32_t index);
};

/// A topic that a session reads.
struct Attachment {
  Topic* topic = nullptr;
  GroupOnTopic* group = nullptr;  ///< null: ephemeral
  /// Ephemeral: where it is in each log, by priority; a log that is not here is read from its beginning.
  std::map<std::uint8_t, Sequence> positions;
};

/// One subscription. Outlives it until its last lease ends.
struct Session {
  std::uint64_t id = 0;
  spi::SubscribeOptions options;
  std::vector<Attachment> attachments;
  /// By lease.
  std::map<std::uint64_t, Claim> claims;
  std::uint64_t unsettled = 0;
  /// The lease of the suspect it holds; nothing else is handed out meanwhile. 0: none.
  std::uint64_t suspect_lease = 0;
  /// How many entries it lost to the clock since it was last heard of.
  std::uint64_t lost_count = 0;
  std::vector<std::uint64_t> lost_leases;
  MonotonicTime lease_until{};
  /// Its lease has not ended: it counts as a member.
  bool live = true;
  /// The subscription object went without close().
  bool dropped = false;
  bool closed = false;
  /// Where the next receive starts among the attachments.
  std::size_t turn = 0;
  std::condition_variable changed;
  bool waiting = false;
  bool woken = false;

  [[nodiscard]] bool ephemeral() const noexcept { return options.group.empty(); }
  [[nodiscard]] bool ordered() const noexcept {
    return options.order != spi::OrderMode::kUnordered || !options.partitions.empty();
  }
};

class Queue {
 public:
  explicit Queue(Meter& meter) : meter_(meter) {}

  // ---- topics (queue_topics.cpp) ----
  Result<void> declare(const spi::Topology& topology);
  /// The topic, made as Topology{} says when it is new; every session that it matches is attached.
  Topic& topic(std::string_view name, std::uint32_t partition_count = spi::Topology{}.partition_count);
  [[nodiscard]] const Topic* find_topic(std::string_view name) const;
  /// Of the topic, or of the one that its first use would make.
  [[nodiscard]] std::uint32_t partition_count(std::string_view topic) const;
  /// Moves the envelopes from `envelopes` to the ends of their logs. Never fails and ignores the meter's
  /// bound.
  void append(std::vector<spi::Envelope>&& envelopes, Moment now);
  /// Removes at most `count_max` messages that are no longer kept; `more`: there is more to remove.
  std::uint64_t trim(Moment now, std::size_t count_max, bool& more);

  // ---- members (queue_members.cpp) ----
  /// Errors: kTopologyMismatch, when the group keeps another order.
  [[nodiscard]] Result<void> check_order(const spi::SubscribeOptions& options) const;
  Session& join(const spi::SubscribeOptions& options, Moment now);
  /// Releases everything and leaves the groups. The session is gone afterwards.
  void leave(Session& session, Moment now);
  /// The subscription object is gone: what it holds ends by the clock.
  void abandon(Session& session);
  /// A sign of life. One that was taken for dead stays so while members keep another order than it does.
  /// Errors: check_order(), of that one.
  Result<void> touch(Session& session, Moment now);
  /// Extends all leases; returns those that were lost since the last time. Errors: touch().
  Result<std::vector<std::uint64_t>> renew(Session& session, Moment now);
  /// Ends what the clock has ended, and deals out partitions again where needed. Call before anything else.
  void expire(Moment now);
  /// No lease ends before this; may be too early.
  [[nodiscard]] MonotonicTime next_end() const noexcept { return next_end_; }

  // ---- handing out and settling (queue_claims.cpp) ----
  void hand_out(Session& session, const spi::ReceiveRequest& request, Moment now,
                std::vector<spi::Delivery>& out);
  /// Whether the token names an entry that the session holds.
  [[nodiscard]] bool holds(const Session& session, const spi::Token& token) const;
  /// False when it does not; then nothing was changed.
  bool settle(Session& session, const spi::Settlement& settlement, Moment now);

  // ---- partitions (queue_ownership.cpp) ----
  /// Deals out the partitions of groups whose members or holdings changed.
  void deal_partitions();

  [[nodiscard]] std::vector<spi::GroupStatistics> statistics() const;
  [[nodiscard]] const std::map<std::string, Topic, std::less<>>& topics() const noexcept { return topics_; }
  [[nodiscard]] const std::map<std::uint64_t, std::unique_ptr<Session>>& sessions() const noexcept {
    return sessions_;
  }

 private:
  /// A log that a session may read now.
  struct Source {
    GroupOnTopic* group = nullptr;
    Reader* reader = nullptr;
    std::size_t attachment = 0;
  };
  struct Budget;
  class ClaimBuilder;

  Log& log(Topic& topic, std::uint8_t priority);
  void append_run(Log& log, const std::shared_ptr<const Batch>& batch, std::size_t from, std::size_t count,
                  Moment now);
  void count_for_groups(Log& log, Segment& segment, std::uint64_t addressed_count);
  /// Takes `count` off what is owed; drops the segment when that was the last and nothing else keeps it.
  void settle_in(Log& log, Segment& segment, std::uint64_t count, Moment now);
  [[nodiscard]] bool must_drop(const Log& log, const Segment& segment, Moment now) const;
  [[nodiscard]] bool may_drop(const Log& log, const Segment& segment, Moment now) const;
  /// Drops the segment; what a group has not read of it yet is passed over.
  void drop(Log& log, Sequence first);
  std::uint64_t trim_log(Log& log, Moment now, std::size_t count_max);
  void trim_topic(Topic& topic, Moment now);

  void attach(Session& session, Topic& topic);
  /// Makes the group known to the topic; nothing changes when it is.
  GroupOnTopic& add_group(Topic& topic, const std::string& name, const spi::StartPosition& start);
  void detach(Session& session, Moment now);
  void start_reader(GroupOnTopic& group, Reader& reader, const spi::StartPosition& start);
  void make_partitioned(GroupOnTopic& group);
  void forget_backlog(GroupOnTopic& group, Moment now);
  void expire_session(Session& session, Moment now);
  void leave_if_nobody_is_left(GroupOnTopic& group, Moment now);

  void hand_out_ephemeral(Session& session, Budget& budget, Moment now, std::vector<spi::Delivery>& out);
  /// False: nothing more of this subscription may be handed out now.
  bool take(Session& session, const Source& source, Budget& budget, Moment now,
            std::vector<spi::Delivery>& out);
  /// Heads of blocked keys that wait behind what the session's cursor has not read yet.
  void take_heads_ahead(const Session& session, const Source& source, Budget& budget, ClaimBuilder& builder);
  bool take_returned(const Session& session, const Source& source, Budget& budget, ClaimBuilder& builder);
  void take_fresh(const Source& source, Budget& budget, ClaimBuilder& builder);
  void take_fresh_of_partitions(const Session& session, const Source& source, Budget& budget,
                                ClaimBuilder& builder);
  void return_entry(Session& session, Claim& claim, std::uint32_t index, bool charged, bool suspect);
  /// Ends a claim: what is unsettled in it comes back.
  void end_claim(Session& session, std::map<std::uint64_t, Claim>::iterator claim, bool charged, bool suspect,
                 Moment now);
  void finish_claim(Session& session, std::map<std::uint64_t, Claim>::iterator claim, Moment now);
  void left_hands(Session& session, const Claim& claim, std::uint32_t index);

  void mark_dirty(GroupOnTopic& group);
  void deal(GroupOnTopic& group);
  void notify(const GroupOnTopic& group);
  static void notify(Session& session);

  Meter& meter_;
  std::map<std::string, Topic, std::less<>> topics_;
  /// The patterns that members of a group have subscribed with: the group also gets the topics that are made
  /// while no member is there.
  std::map<std::string, std::set<std::string>> interests_;
  std::map<std::uint64_t, std::unique_ptr<Session>> sessions_;
  std::uint64_t session_last_ = 0;
  std::uint64_t lease_last_ = 0;
  std::uint64_t log_last_ = 0;
  MonotonicTime next_end_ = MonotonicTime::max();
  std::vector<GroupOnTopic*> dirty_;
  // Scratch of hand_out(), kept for its memory.
  std::vector<Source> sources_;
  std::vector<char> mine_;
};

/// `t + d`, or the end of time.
[[nodiscard]] constexpr MonotonicTime after(MonotonicTime t, Duration d) noexcept {
  return d > Duration(0) && t > MonotonicTime::max() - d ? MonotonicTime::max() : t + d;
}

/// Whether an envelope is for this group.
[[nodiscard]] inline bool is_for(const spi::Envelope& envelope, const std::string& group) noexcept {
  return envelope.group.empty() || envelope.group == group;
}

}  // namespace towline::drivers::memory
