#pragma once
// How a saga is stored: its log is a stream, an entry is an event of it.
//
// The event's type is the mark; its headers are `step`, `attempt`, `due_us`, `error`, `event`, and the sizes
// `output` and `context` of the two halves of its payload. The first entry carries the saga's shape as its
// output, in JSON, so that whoever has the log alone can say what the saga is at.

#include <string>
#include <string_view>

#include <towline/event_store.hpp>

#include "saga/log.hpp"
#include "saga/shape.hpp"

namespace towline::saga {

/// The stream of a saga's log.
[[nodiscard]] std::string stream_of(std::string_view type, std::string_view id);

/// Without id.
[[nodiscard]] RecordedEvent to_event(const Entry& entry);
/// Errors: kCorruptStore: these are not what to_event() gives.
[[nodiscard]] Result<Entry> from_event(const RecordedEvent& event);

[[nodiscard]] std::string to_text(const Shape& shape);
/// Errors: kCorruptStore: no shape, or one that check_shape() refuses.
[[nodiscard]] Result<Shape> shape_of(std::string_view text);

}  // namespace towline::saga
