#pragma once
// The event store: streams of events that are only appended to, read back in order, and followed.
//
// A stream is made by its first append. Its events have the versions 1, 2, 3, ... without gaps, and each has
// a position in the order of all events of the store, which grows and may have gaps. A reader that has seen a
// position has seen everything before it: no event appears behind it later.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <towline/message.hpp>
#include <towline/options.hpp>
#include <towline/result.hpp>

namespace towline {

namespace engine {
class Core;
class EventFollower;
}  // namespace engine

/// An event to append.
struct NewEvent {
  /// What happened: 1..100 letters, digits, '.', '_', '-', as a topic without the engine's prefixes, so that
  /// it can be routed. Errors: kInvalidName.
  std::string type;
  Bytes payload;
  std::string content_type = {};
  /// As those of a message.
  Headers headers = {};
  /// Appending an event again under its id changes nothing (see EventStore::append). Empty: the engine makes
  /// a new one.
  MessageId id = {};
};

/// An event of the store. Never changes.
struct RecordedEvent {
  std::string stream;
  std::uint64_t version = 0;   ///< in its stream, from 1, without gaps
  std::uint64_t position = 0;  ///< among all events, from 1, growing, with gaps
  MessageId id;
  std::string type;
  Bytes payload;
  std::string content_type;
  Headers headers;
  TimePoint recorded_at{};  ///< the engine's clock; says nothing about order
};

/// What an append came to.
struct Appended {
  std::uint64_t first_version = 0;
  std::uint64_t last_version = 0;
  std::uint64_t last_position = 0;
  /// True when all the events were there already, and nothing was changed: the versions are theirs.
  bool duplicate = false;
};

/// Some events in a row. `next` is where the next page begins; nothing more is there now when `end`.
struct EventPage {
  std::vector<RecordedEvent> events;
  std::uint64_t next = 0;
  bool end = false;
};

/// The state of a stream's owner at a version, so that not all events must be read again.
struct Snapshot {
  std::uint64_t version = 0;
  Bytes state;
  std::string content_type = {};
  TimePoint saved_at{};  ///< set by the store
};

/// A stream, as listed.
struct StreamInfo {
  std::string name;
  std::uint64_t oldest_version = 0;  ///< greater than 1 when it was truncated
  std::uint64_t newest_version = 0;
};

struct EventSubscriptionStatistics {
  bool active = false;           ///< this process has the lease; false: it stands by
  std::uint64_t checkpoint = 0;  ///< everything up to here was handled
  std::uint64_t handled = 0;     ///< events, by this handle
  std::uint64_t failures = 0;    ///< of its handler, in a row; 0: the last call was well
  std::string last_error;        ///< of the handler or the store; empty: none since the last success
};

/// A durable reader of events: what was before, then what comes, without a gap or a repetition at the seam.
/// Its place is kept under its name. Of all that follow under one name, in any process, one is active; when
/// it dies another goes on after its lease, from the last checkpoint: so each event is handled at least once.
///
/// Either the engine calls a handler (EventStore::subscribe with one), or the owner takes events with
/// receive() and says checkpoint() when they are handled. Thread-safe. Copies share it; the last one closes
/// it: with a handler it waits for that, else the engine does it soon after.
class EventSubscription {
 public:
  EventSubscription() = default;

  /// The next events after those that were received, in order; waits for the first until the timeout (real
  /// time with the machine's clock). Empty: there was none in time, or another process is active. The first
  /// receive after a lease was lost or failed begins at the last checkpoint again. `count_max` [1, 10000].
  /// Errors: kClosed, kInvalidArgument (a handler is called for it), those of the store.
  Result<std::vector<RecordedEvent>> receive(std::size_t count_max, Duration timeout);
  /// Everything received up to this place is handled: `position` of an event, or its `version` where one
  /// stream is followed. It moves only forward. Errors: kLeaseLost (another process is active; nothing was
  /// changed), kInvalidArgument (that far nothing was received), kClosed.
  Result<void> checkpoint(std::uint64_t place);
  [[nodiscard]] EventSubscriptionStatistics statistics() const;
  /// Waits for its handler up to the timeout (real time; default: drain_timeout of the engine) and gives the
  /// lease back. False: the handler has not returned; what it still does does not count. Idempotent. Inside
  /// its handler it returns at once. The engine closes it too.
  bool close(std::optional<Duration> timeout = std::nullopt);

 private:
  friend class EventStore;
  explicit EventSubscription(std::shared_ptr<engine::EventFollower> follower)
      : follower_(std::move(follower)) {}
  std::shared_ptr<engine::EventFollower> follower_;
};

/// Called with at most `batch_count_max` events, in order, one call at a time, by a thread of the engine.
/// When it returns the checkpoint moves. When it throws, the same events come again after the backoff of
/// `EventSubscriptionOptions::retry`, however often: nothing is passed over.
using EventHandler = std::function<void(std::span<const RecordedEvent> events)>;

/// The events of an engine. A handle, as Engine is; got by Engine::event_store(). Thread-safe; every call
/// answers kClosed after Engine::close(). A stream's name has 1..255 bytes of visible ASCII.
class EventStore {
 public:
  EventStore() = default;

  /// Appends all events in a row, or none. `expected`: the version that the stream must have now, 0 for a
  /// stream that must not exist; nullopt: any.
  /// When the first of them is in this stream already, under its id, all must be, in a row: then nothing is
  /// changed, whatever is expected, and the answer is that of the first time. So an append whose outcome is
  /// unknown may be repeated with the same ids. Empty ids are made anew by each call.
  /// Errors: kConflict (another version; some of the ids are there), kInvalidName, kInvalidId,
  /// kInvalidHeader, kPayloadTooLarge, kBatchTooLarge (`batch_count_max` of the engine), kInvalidArgument (no
  /// events), kStorageFull; kTimeout, kUnavailable, kIoError: unknown whether it happened.
  Result<Appended> append(std::string_view stream, std::vector<NewEvent> events,
                          std::optional<std::uint64_t> expected = std::nullopt);
  /// Events of one stream from version `from` on, which is included; what was truncated is not there.
  /// `count_max` [1, 10000]; less come when their payloads pass 4 MiB.
  Result<EventPage> read(std::string_view stream, std::uint64_t from = 1, std::size_t count_max = 1000);
  /// The same backwards, from version `from` down; UINT64_MAX: from the newest.
  Result<EventPage> read_backwards(std::string_view stream, std::uint64_t from = UINT64_MAX,
                                   std::size_t count_max = 1000);
  /// Events of all streams in their order, from a position on.
  Result<EventPage> read_all(std::uint64_t from = 1, std::size_t count_max = 1000);
  /// Versions there are; nullopt: no such stream.
  Result<std::optional<StreamInfo>> find_stream(std::string_view stream);
  /// By name. `prefix` empty: all. `count_max` [1, 1000].
  Result<Page<StreamInfo>> streams(std::string_view prefix = {}, std::size_t count_max = 100,
                                   std::string_view cursor = {});
  /// Removes events before a version; the newest one stays. Errors: kNotFound.
  Result<void> truncate(std::string_view stream, std::uint64_t before_version);

  /// Keeps a snapshot, one per stream; an older one than is kept changes nothing. Errors: kNotFound (the
  /// stream has no such version), kPayloadTooLarge.
  Result<void> save_snapshot(std::string_view stream, Snapshot snapshot);
  Result<std::optional<Snapshot>> find_snapshot(std::string_view stream);

  /// Follows the events, or those of one stream. Errors: kInvalidName, kInvalidConfig, kInvalidTopic (of
  /// `types`), kTopologyMismatch (the name follows another stream).
  Result<EventSubscription> subscribe(const EventSubscriptionOptions& options, EventHandler handler);
  Result<EventSubscription> subscribe(const EventSubscriptionOptions& options);
  /// Publishes each event to a topic, in order, `{type}` in the topic standing for its type: key is the
  /// stream, id the event's. The place moves in the transaction that publishes where the provider is a store;
  /// else a crash repeats at most one batch, under the same ids. The headers towline-stream, towline-version,
  /// towline-position and towline-event-type say where it is from.
  /// Errors: as subscribe(), kInvalidTopic.
  Result<EventSubscription> stream_to(std::string_view topic, const EventSubscriptionOptions& options);

 private:
  friend class Engine;
  explicit EventStore(std::shared_ptr<engine::Core> core) : core_(std::move(core)) {}
  std::shared_ptr<engine::Core> core_;
};

}  // namespace towline
