#pragma once
// Streams in a store: append-only, with dense versions per stream and one growing order of them all.
//
// Each space has its own order: events, the messages of conversations, the logs of sagas. What one reads of a
// space never shows an event behind one that was read before: a store with several writers at once holds back
// positions above the lowest that is not committed.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <towline/event_store.hpp>
#include <towline/spi/transport.hpp>

namespace towline::spi {

enum class StreamSpace : std::uint8_t { kEvents, kConversations, kSagas };

/// Whose turn it is to follow a space or a stream, and how far everything was handled.
struct EventCursor {
  std::string name;
  std::string stream;       ///< empty: the whole space of events
  std::uint64_t place = 0;  ///< a position, or a version where a stream is followed
  std::string owner = {};   ///< empty: nobody
  TimePoint lease_until{};
  std::uint64_t version = 0;
};

// ---- writes -------------------------------------------------------------------------------------

/// Errors: kConflict when the stream has another version than `expected`, or some and not all of the ids, or
/// all, but not in a row. When it has all of them in a row nothing happens and `appended` tells where they
/// are. One append per stream in a unit (kInvalidArgument).
struct AppendEvents {
  StreamSpace space = StreamSpace::kEvents;
  std::string stream;
  /// `stream`, `version` and `position` of them are ignored.
  std::vector<RecordedEvent> events;
  std::optional<std::uint64_t> expected;
  /// As many as there are events, or none: each is published too when its event is new, with the header
  /// `towline-sequence` added: the version of the event. In the order of versions, as far as the transport
  /// keeps an order. Errors: as Publish and PutSchedule.
  std::vector<Envelope> copies = {};
  /// The copies are put into the schedule, due then; nullopt: published (Capabilities::is_store only).
  std::optional<TimePoint> copies_due_at = std::nullopt;
  /// Set before commit() returns, when the unit happened. The caller keeps it until then.
  Appended* appended = nullptr;
};
/// Removes what is before the version, except the newest. Errors: kNotFound.
struct TruncateStream {
  StreamSpace space = StreamSpace::kEvents;
  std::string stream;
  std::uint64_t before_version = 0;
};
/// Of an event stream. Nothing happens when there is one of a later version. Errors: kNotFound unless the
/// stream reaches its version.
struct PutSnapshot {
  std::string stream;
  Snapshot snapshot;
};
/// Errors: kConflict unless `expected` fits (0: must not exist).
struct PutEventCursor {
  EventCursor cursor;
  std::uint64_t expected = 0;
};

// ---- reads --------------------------------------------------------------------------------------

struct StreamRead {
  StreamSpace space = StreamSpace::kEvents;
  /// Empty: all streams, by position; else one, by version.
  std::string stream;
  /// The first place that is wanted.
  std::uint64_t from = 1;
  /// Of one stream: from the event behind this one on, whatever `from` is. Errors: kNotFound.
  MessageId after_id = {};
  bool backwards = false;  ///< one stream only
  std::size_t count_max = 1000;
  /// Of payloads; the first event comes however large it is.
  std::size_t payload_bytes_max = 4 << 20;
};

/// One look at a space: events in a row, and what the stream has, 0 and 0 when there is none (or all were
/// asked for).
struct StreamSlice {
  std::vector<RecordedEvent> events;
  bool end = false;                 ///< nothing more is there in this direction
  std::uint64_t last_position = 0;  ///< of the whole space, as of this look
  std::uint64_t oldest_version = 0, newest_version = 0;
};

}  // namespace towline::spi
