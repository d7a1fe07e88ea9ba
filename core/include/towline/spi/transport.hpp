#pragma once
// Transport: moves envelopes from publishers to the groups of a topic. It decides nothing: retry, delay, dead
// letters and deduplication of handling are the engine's. What a new driver implements; tests/conformance
// says whether it did.
//
// All calls are batch-shaped and block until their deadline at most. A Subscription is driven by one thread,
// except wake() and renew(). Errors are values; an outage is an error and never an empty batch.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <towline/result.hpp>
#include <towline/spi/clock.hpp>
#include <towline/spi/envelope.hpp>

namespace towline::spi {

struct Unit;  // store.hpp

/// A point on the monotonic clock after which a call gives up.
using Deadline = MonotonicTime;

/// The provider's own patience: how long it keeps a write waiting that cannot begin, because another program
/// writes.
inline constexpr Deadline kPatient = Deadline::max();

/// What keeps the messages of a topic.
enum class TopicKind : std::uint8_t {
  kQueue,  ///< kept until every group has settled them (default)
  kLog,    ///< kept for `retention`; groups acknowledge whole published batches in order by moving a cursor
  kBus     ///< never kept: only the subscribers of the moment see them
};

struct Topology {
  std::string topic;
  TopicKind kind = TopicKind::kQueue;
  std::uint32_t partition_count = 64;
  /// kQueue: also keep settled messages this long, for groups that start later. kLog: keep this long.
  Duration retention{0};
};

enum class OrderMode : std::uint8_t { kUnordered, kKeyOrdered, kPartitionOrdered };

/// Where a group that is new to a topic starts. A known group goes on where it was.
struct StartPosition {
  enum class Kind : std::uint8_t { kEarliest, kLatest, kAfterId, kAtTime } kind = Kind::kEarliest;
  MessageId after_id{};  ///< kAfterId: the first message after this one
  TimePoint at{};        ///< kAtTime: the first message published at or after this time
};

struct SubscribeOptions {
  /// For declaring interest with the server; `matches` decides.
  std::vector<std::string> patterns;
  /// Whether a topic belongs to this subscription. Pure, thread-safe.
  std::function<bool(std::string_view topic)> matches;
  /// Empty: an ephemeral subscriber, which sees every message published from now on and keeps nothing.
  std::string group;
  /// Names this member in listings.
  std::string consumer;
  StartPosition start;
  OrderMode order = OrderMode::kUnordered;
  /// Only these partitions; empty: all.
  std::vector<std::uint32_t> partitions;
  Duration lease{};
};

/// Names one handing-out of one message. `lease` grows with every handing-out, so an old token never fits
/// again.
struct Token {
  std::uint64_t lease = 0;
  std::uint32_t index = 0;
  friend bool operator==(const Token&, const Token&) = default;
};

struct Delivery {
  Token token;
  std::shared_ptr<const Envelope> envelope;
  /// Envelope::crashes plus the deaths that the transport has seen since.
  std::uint32_t crashes = 0;
  /// True when an earlier handing-out ended without a settlement (death, lease end, release).
  bool redelivered = false;
  /// Grows whenever the ownership of the envelope's partition changes hands; the engine then reloads the
  /// partition's key blocks. 0 in an unordered subscription.
  std::uint64_t epoch = 0;
  /// Raw bytes that could not be decoded; then `envelope` holds only what was readable and the engine
  /// dead-letters it.
  std::optional<std::string> undecodable;
};

enum class Verb : std::uint8_t {
  kAck,     ///< this group is done with it
  kRelease  ///< hand it out again, soon, to anybody; in ordered modes before everything after it
};

struct Settlement {
  Token token;
  Verb verb = Verb::kAck;
};

struct ReceiveRequest {
  /// The engine's free credit, and the only backpressure there is. 0: settle only.
  std::size_t count_max = 0;
  std::size_t payload_bytes_max = 0;
  /// Hand out only envelopes with `heads_key`, also past others that wait before them: too much is parked
  /// behind blocked keys already, and only their heads can make room.
  bool heads_only = false;
  Deadline deadline{};
  /// Settled durably before anything is handed out; where the transport is also the store, in the same
  /// transaction as `units` and as the handing-out itself.
  std::span<const Settlement> settlements;
  /// Only where the transport is also the store (Capabilities::is_store): see Store::commit. `Settle` writes
  /// in them refer to this subscription.
  std::span<const Unit> units;
};

struct Received {
  std::vector<Delivery> deliveries;
  /// Per settlement of the request that failed: its index. Such a lease had been lost, and nothing was
  /// changed.
  std::vector<std::uint32_t> lost;
  /// One per unit of the request, in order; empty when all were applied.
  std::vector<Result<void>> units;
};

class Subscription {
 public:
  virtual ~Subscription() = default;
  /// First settles, then hands out at most count_max envelopes. Waits for some until the deadline, but not
  /// when anything was settled. After kUnavailable or kIoError the settlements may or may not have happened:
  /// settle them again. What such a call may have handed out is nobody's: it is not renewed and comes again
  /// when its lease has ended, in an ordered subscription before anything else of its partition.
  virtual Result<Received> receive(const ReceiveRequest& request) = 0;
  /// Any thread. Makes a waiting receive() return early, or the next one that would wait: a wake is never
  /// lost.
  virtual void wake() noexcept = 0;
  /// Any thread. Extends every lease that receive() has returned and that is not settled to now +
  /// SubscribeOptions::lease, membership and partitions too. Returns the leases (Token::lease) found lost.
  /// A member that was taken for dead comes back by it, and by receive(); while members of its group keep
  /// another order than it does it is handed nothing, and this answers kTopologyMismatch when it found
  /// nothing lost.
  virtual Result<std::vector<std::uint64_t>> renew() = 0;
  /// Releases what is unsettled, gives up its partitions and leaves the group. The destructor does less: it
  /// just drops everything, as a crash would.
  virtual Result<void> close() = 0;
};

/// What one envelope of a publish came to.
struct PublishAnswer {
  /// Set: this one was rejected, surely not stored.
  std::optional<Error> rejected;
  bool duplicate = false;
  /// For a duplicate: the id that was there first.
  MessageId original;
};

/// Facts about the technology. Accelerators make a feature cheaper, never different; gates are refused at
/// declare time.
struct Capabilities {
  bool is_store =
      false;  ///< accelerator: settlements and publishes may share a transaction with Store writes
  bool deduplicates = false;          ///< honours Envelope::dedup_id; never without is_store: the store does
  bool assigns_partitions = false;    ///< accelerator: gives each partition to one member of the group
  bool finds_heads = false;           ///< accelerator: honours ReceiveRequest::heads_only
  bool fences = false;                ///< gate: refuses a late settlement of a lost lease
  bool durable = false;               ///< gate: survives the death of the process
  bool survives_power_loss = false;   ///< gate: synced before acknowledged (durability=host)
  bool shared = false;                ///< gate: several processes can use it at once
  bool runs_sql = false;              ///< gate: handler transactions
  std::size_t payload_bytes_max = 0;  ///< gate: checked before any I/O; 0 means the engine's own limit
};

struct GroupStatistics {
  std::string topic;
  std::string group;
  std::uint64_t waiting = 0;    ///< published and not yet handed out to this group
  std::uint64_t in_flight = 0;  ///< handed out and not settled
  std::uint32_t member_count = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;
  [[nodiscard]] virtual Capabilities capabilities() const noexcept = 0;
  /// Idempotent. kTopologyMismatch when the topic exists with other settings. Undeclared topics are made on
  /// first use as Topology{} says.
  virtual Result<void> declare(const Topology& topology) = 0;
  /// The settings of a topic, as declared or as its first use would make it (`partition_count` then is the
  /// given one). They never change afterwards, so the engine asks once per topic.
  /// kTimeout: the topic is to be made, and that could not begin by `begin_by`.
  virtual Result<Topology> topology(std::string_view topic, std::uint32_t partition_count_default,
                                    Deadline begin_by = kPatient) = 0;
  /// Any thread; concurrent calls share a commit. All or nothing except for answers with `rejected`; empty
  /// vector: every one was stored. The envelopes are moved from only on success. kTimeout: it could not begin
  /// by `begin_by`. On kUnavailable (an answer that does not come is one, too) or kIoError the outcome is
  /// unknown; every other error means that nothing was stored.
  virtual Result<std::vector<PublishAnswer>> publish(std::span<Envelope> envelopes, Deadline begin_by) = 0;
  /// kTopologyMismatch when a member of the group lives that keeps another order on a topic of both.
  virtual Result<std::unique_ptr<Subscription>> subscribe(const SubscribeOptions& options) = 0;
  virtual Result<std::vector<GroupStatistics>> statistics() = 0;
};

}  // namespace towline::spi
