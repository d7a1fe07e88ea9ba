#pragma once
// What the driver keeps in memory of the file: topics, logs, the groups that this process reads for, and its
// own subscriptions. Only whoever leads the writer (writer.hpp) touches any of it, so nothing here is locked.
//
// All of it can be read back from the file. `generation` grows when another process has committed, and after
// a rollback; what carries an older one is read again before it is used.

#include <array>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include <towline/spi/transport.hpp>

#include "drivers/sqlite/dedup_index.hpp"

namespace towline::drivers::sqlite {

/// Both clocks, read once per call.
struct Moment {
  TimePoint wall{};
  MonotonicTime monotonic{};
};

/// Where a message is: log id << 40 | position, positions from 1.
using Seq = std::int64_t;
inline constexpr int kLogShift = 40;
[[nodiscard]] constexpr Seq log_begin(std::int64_t log_id) noexcept { return log_id << kLogShift; }
[[nodiscard]] constexpr Seq log_end(std::int64_t log_id) noexcept { return (log_id + 1) << kLogShift; }
[[nodiscard]] constexpr std::int64_t log_of(Seq seq) noexcept { return seq >> kLogShift; }

inline constexpr std::uint64_t kNoGeneration = 0;

struct TopicState;

/// Bodies of a log whose messages were trimmed and that are still to be removed, gathered from the file.
struct FiredBodies {
  Seq gathered = 0;                   ///< up to here the log was looked through
  std::vector<std::int64_t> waiting;  ///< gathered since the present pass began
  std::vector<std::int64_t> pass;     ///< those that are being removed, in the order they lie in
  std::size_t removed = 0;            ///< of `pass`
  Seq pass_until = 0;                 ///< `pass` has all up to here
  [[nodiscard]] std::size_t count() const noexcept { return waiting.size() + pass.size() - removed; }
};

struct LogState {
  std::int64_t id = 0;
  TopicState* topic = nullptr;
  std::uint8_t priority = 0;
  Seq last = 0;     ///< of the newest message; log_begin() when there was never one
  Seq trimmed = 0;  ///< everything up to here is gone, but for bodies and the rows that name them
  Seq swept = 0;    ///< everything up to here is gone from the file, too
  Seq body_last = 0;
  std::uint64_t generation = kNoGeneration;
  bool trimmed_dirty = false;
  /// Messages that were settled since somebody last looked whether the log can be trimmed.
  std::uint64_t settled_count = 0;
  bool busy = false;  ///< something was settled since the last sweep
  Seq gaps_trimmed = 0;  ///< where the next step between unsettled messages begins; any place is right
  FiredBodies fired;
};

struct TopicState {
  std::int64_t id = 0;
  std::string name;
  spi::TopicKind kind = spi::TopicKind::kQueue;
  std::uint32_t partition_count = 0;
  Duration retention{0};
  std::array<LogState*, 10> logs{};  ///< by priority; null: none yet
};

/// One group on one log.
struct Reader {
  LogState* log = nullptr;
  Seq read = 0;  ///< everything up to here was handed out or passed over
  /// Partitioned groups: the same for each partition (`read` is then at most their least), what the file has
  /// of it, and the epoch it belongs to.
  std::vector<Seq> partition_read;
  std::vector<Seq> partition_written;
  std::vector<std::uint64_t> partition_epoch;
  std::uint64_t generation = kNoGeneration;
};

struct Ownership {
  std::int64_t member_id = 0;  ///< 0: free
  std::uint64_t epoch = 0;
  bool revoking = false;  ///< given up as soon as nothing of it is in flight
  friend bool operator==(const Ownership&, const Ownership&) = default;
};

struct GroupState;

struct GroupTopic {
  GroupState* group = nullptr;
  TopicState* topic = nullptr;
  bool partitioned = false;
  std::uint64_t generation = kNoGeneration;  ///< of `partitioned` and `partitions`
  std::vector<Ownership> partitions;
  std::array<Reader, 10> readers;  ///< by priority
  bool deal_dirty = false;
};

struct GroupState {
  std::int64_t id = 0;
  std::string name;
  /// Whether the redelivery table has anything for it.
  bool returned = false;
  std::uint64_t generation = kNoGeneration;  ///< of `returned`
  std::map<std::int64_t, std::unique_ptr<GroupTopic>> topics;
};

/// One message in somebody's hands, where a claim is not simply a run of the log.
struct Entry {
  Seq seq = 0;
  std::uint32_t partition = 0;
  std::uint32_t crashes = 0;
  bool suspect = false;
};

/// A row of `claim` that belongs to a subscription of this process, or that was read to be ended.
struct Claim {
  std::int64_t lease = 0;
  std::int64_t group_id = 0;
  std::int64_t member_id = 0;
  std::int64_t log_id = 0;
  Seq first = 0;
  std::uint32_t count = 0;
  std::uint32_t remaining = 0;
  std::vector<Entry> entries;         ///< empty: first, first + 1, ...
  std::vector<std::uint8_t> settled;  ///< bits; empty: none
  Duration lease_duration{0};
  TimePoint lease_until_wall{};
  MonotonicTime lease_until = MonotonicTime::max();  ///< of this process's own
  std::uint64_t generation = kNoGeneration;
  bool dirty = false;

  [[nodiscard]] Entry entry(std::uint32_t index) const noexcept {
    return entries.empty() ? Entry{first + index, 0, 0, false} : entries[index];
  }
  [[nodiscard]] bool is_settled(std::uint32_t index) const noexcept {
    return !settled.empty() && (settled[index / 8] >> (index % 8) & 1) != 0;
  }
  void mark_settled(std::uint32_t index) {
    if (settled.empty()) settled.resize((count + 7) / 8);
    settled[index / 8] = static_cast<std::uint8_t>(settled[index / 8] | 1U << (index % 8));
    --remaining;
  }
};

/// How long a subscription is a member, and what it has lost.
struct SessionLease {
  std::uint64_t lost_count = 0;  ///< entries lost to the clock since it was last heard of
  std::vector<std::uint64_t> lost_leases;
  /// When its membership ends: each receive moves it on. The file is told only now and then.
  MonotonicTime lease_until{};
  MonotonicTime lease_written{};
  TimePoint lease_until_wall{};
  bool live = true;
};

/// A subscription of this process. Outlives its object until its last lease ends.
struct Session : SessionLease {
  std::int64_t member_id = 0;
  spi::SubscribeOptions options;
  GroupState* group = nullptr;  ///< null: ephemeral
  /// The topics it reads; kept while `shape` is that of the catalog.
  std::vector<TopicState*> topics;
  std::uint64_t shape = 0;
  /// Topics with a greater id were made while it was there already.
  std::int64_t topic_last_at_join = 0;
  /// Ephemeral: where it is, by log id; a log that is not here is read from its beginning.
  std::map<std::int64_t, Seq> positions;
  std::map<std::int64_t, Claim> claims;  ///< by lease
  std::uint64_t unsettled = 0;
  std::int64_t suspect_lease = 0;  ///< of the suspect it holds; nothing else is handed out meanwhile
  bool dropped = false;
  bool closed = false;
  std::size_t turn = 0;  ///< where the next receive starts among the topics

  // The waiting side, under `mutex`.
  std::mutex mutex;
  std::condition_variable changed;
  bool signalled = false;
  bool woken = false;
  MonotonicTime waits_until = MonotonicTime::min();

  [[nodiscard]] bool ephemeral() const noexcept { return group == nullptr; }
  [[nodiscard]] bool ordered() const noexcept {
    return options.order != spi::OrderMode::kUnordered || !options.partitions.empty();
  }
};

/// What was seen of a lease that another process holds.
struct Observation {
  TimePoint until{};
  MonotonicTime since{};
  std::uint64_t round = 0;
};

struct Observations {
  std::unordered_map<std::int64_t, Observation> known;
  std::uint64_t round = 0;
};

/// The dedup ids of the store (dedup.cpp).
struct DedupIds {
  DedupIndex index;
  bool loaded = false;  ///< the index was made
  std::int64_t last = 0;  ///< the number that was given out last
  std::int64_t safe = 0;  ///< up to here everything was committed and is in the index
  std::int64_t oldest = 0;   ///< number there is
  std::int64_t dropped = 0;  ///< numbers before it are not in the index
  bool any_old = false;      ///< `dedup` is not empty
  std::uint64_t generation = kNoGeneration;
  std::unordered_set<std::int64_t> removed;  ///< by the present transaction
  /// How far the numbers in `dedup_recent` reach; bounds the index to some 25 MB.
  std::int64_t span_max = 2'000'000;
};

/// Everything above, and what is remembered about the file as a whole.
struct Catalog {
  std::uint64_t generation = 1;
  std::int64_t data_version = -1;
  std::int64_t schema_version = 0;
  /// Grows with every topic and log.
  std::uint64_t shape = 1;
  std::map<std::int64_t, std::unique_ptr<TopicState>> topics;
  std::unordered_map<std::string_view, TopicState*> topics_by_name;
  std::map<std::int64_t, std::unique_ptr<LogState>> logs;
  std::map<std::int64_t, std::unique_ptr<GroupState>> groups;
  std::unordered_map<std::string_view, GroupState*> groups_by_name;
  std::map<std::int64_t, std::shared_ptr<Session>> sessions;  ///< by member id

  std::int64_t lease_last = 0;
  bool lease_mark = false;                           ///< the claim with id `lease_last` is an empty mark
  std::uint64_t numbers_generation = kNoGeneration;  ///< of the two above

  /// Of all bodies there ever were.
  std::int64_t body_last = 0;
  std::uint64_t body_generation = kNoGeneration;  ///< of `body_last`

  /// No lease of anybody ends before this; may be too early.
  MonotonicTime next_end = MonotonicTime::min();
  /// When the claims of other processes were last looked at.
  MonotonicTime scanned_at = MonotonicTime::min();
  std::uint64_t scanned_generation = kNoGeneration;
  Observations claims_seen;
  Observations members_seen;

  DedupIds dedup;

  /// The earliest due time; kNever: none. Valid while `due_generation` is current.
  TimePoint next_due = kNever;
  std::uint64_t due_generation = kNoGeneration;
  /// How many rows `schedule_recent` should have, and the last one that went on from there.
  std::int64_t due_recent_max = 0;
  /// How many messages may lie behind one that is unsettled before those that are settled go.
  std::int64_t settled_behind_max = 0;
  std::int64_t due_moved_us = INT64_MIN, due_moved_body = INT64_MIN;
};

/// `t + d`, or the end of time.
template <typename Time>
[[nodiscard]] constexpr Time after(Time t, Duration d) noexcept {
  return d > Duration(0) && t > Time::max() - d ? Time::max() : t + d;
}

}  // namespace towline::drivers::sqlite
