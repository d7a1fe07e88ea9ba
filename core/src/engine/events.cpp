// Events; see the header.

#include "engine/events.hpp"

#include <set>
#include <string>
#include <utility>

#include "base/validate.hpp"

namespace towline::engine {
namespace {

constexpr std::size_t kReadCountMax = 10'000;
constexpr std::size_t kListCountMax = 1'000;

Error renamed(Error error, ErrorCode code) {
  error.code = code;
  return error;
}

Result<void> check_count(std::size_t count, std::size_t max) {
  if (count >= 1 && count <= max) return {};
  return Error{ErrorCode::kInvalidArgument,
               "count_max is " + std::to_string(count) + ", but must be in [1, " + std::to_string(max) + "]"};
}

}  // namespace

Result<void> check_stream(std::string_view stream) {
  if (auto bad = base::check_id(stream, "stream"); !bad)
    return renamed(std::move(bad).error(), ErrorCode::kInvalidName);
  return {};
}

namespace {

Result<void> check_event(const Context& context, const NewEvent& event) {
  if (auto bad = base::check_name(event.type, "type"); !bad) return bad;
  // So that it can be the end of a topic.
  if (auto bad = base::check_topic("x." + event.type, "type"); !bad)
    return renamed(std::move(bad).error(), ErrorCode::kInvalidName);
  if (auto bad = base::check_content_type(event.content_type); !bad) return bad;
  if (auto bad = base::check_headers(event.headers); !bad) return bad;
  const auto max = static_cast<std::size_t>(context.options.payload_bytes_max);
  if (event.payload.size() <= max) return {};
  return Error{ErrorCode::kPayloadTooLarge, "the payload of an event has " +
                                                std::to_string(event.payload.size()) +
                                                " bytes, but payload_bytes_max is " + std::to_string(max)};
}

}  // namespace

Result<spi::AppendEvents> Events::as_write(Context& context, std::string_view stream,
                                           std::vector<NewEvent> events,
                                           std::optional<std::uint64_t> expected) {
  if (auto bad = check_stream(stream); !bad) return std::move(bad).error();
  if (events.empty()) return Error{ErrorCode::kInvalidArgument, "there are no events to append"};
  const auto count_max = static_cast<std::size_t>(context.options.batch_count_max);
  if (events.size() > count_max) {
    return Error{ErrorCode::kBatchTooLarge, "the append has " + std::to_string(events.size()) +
                                                " events, but batch_count_max is " +
                                                std::to_string(count_max)};
  }
  const TimePoint now = context.clock->now();
  spi::AppendEvents write;
  write.stream = std::string(stream);
  write.expected = expected;
  write.events.reserve(events.size());
  std::set<MessageId> given;
  for (NewEvent& event : events) {
    if (auto bad = check_event(context, event); !bad) return std::move(bad).error();
    if (!event.id.empty() && !given.insert(event.id).second) {
      return Error{ErrorCode::kInvalidId,
                   "two events of the append have the id " + event.id.to_string() + "; each needs its own"};
    }
    RecordedEvent& recorded = write.events.emplace_back();
    recorded.id = event.id.empty() ? context.make_id(now) : event.id;
    recorded.type = std::move(event.type);
    recorded.payload = std::move(event.payload);
    recorded.content_type = std::move(event.content_type);
    recorded.headers = std::move(event.headers);
    recorded.recorded_at = now;
  }
  return write;
}

Result<Appended> Events::append(std::string_view stream, std::vector<NewEvent> events,
                                std::optional<std::uint64_t> expected) {
  auto write = as_write(*context_, stream, std::move(events), expected);
  if (!write) return std::move(write).error();
  Appended appended;
  write->appended = &appended;
  const spi::Unit unit{{std::move(*write)}};
  auto done = context_->store->commit({&unit, 1});
  if (!done) return std::move(done).error();
  if (!done->empty() && !done->front()) return std::move(done->front()).error();
  return appended;
}

Result<EventPage> Events::read(const spi::StreamRead& read) {
  if (auto bad = check_count(read.count_max, kReadCountMax); !bad) return std::move(bad).error();
  auto slice = context_->store->read_stream(read);
  if (!slice) return std::move(slice).error();
  EventPage page;
  page.events = std::move(slice->events);
  page.end = slice->end;
  page.next = read.from;
  if (!page.events.empty()) {
    const RecordedEvent& last = page.events.back();
    const std::uint64_t place = read.stream.empty() ? last.position : last.version;
    page.next = read.backwards ? place - 1 : place + 1;
  }
  return page;
}

Result<std::optional<StreamInfo>> Events::find_stream(std::string_view stream) {
  if (auto bad = check_stream(stream); !bad) return std::move(bad).error();
  spi::StreamRead read;
  read.stream = std::string(stream);
  read.count_max = 1;
  read.payload_bytes_max = 0;
  auto slice = context_->store->read_stream(read);
  if (!slice) return std::move(slice).error();
  if (slice->newest_version == 0) return std::optional<StreamInfo>();
  return std::optional(StreamInfo{read.stream, slice->oldest_version, slice->newest_version});
}

Result<Page<StreamInfo>> Events::streams(std::string_view prefix, std::size_t count_max,
                                         std::string_view cursor) {
  if (auto bad = check_count(count_max, kListCountMax); !bad) return std::move(bad).error();
  return context_->store->list_streams(spi::StreamSpace::kEvents, prefix, count_max, cursor);
}

Result<void> Events::truncate(std::string_view stream, std::uint64_t before_version) {
  if (auto bad = check_stream(stream); !bad) return bad;
  const spi::Unit unit{{spi::TruncateStream{spi::StreamSpace::kEvents, std::string(stream), before_version}}};
  auto done = context_->store->commit({&unit, 1});
  if (!done) return std::move(done).error();
  return done->empty() ? Result<void>{} : std::move(done->front());
}

Result<void> Events::save_snapshot(std::string_view stream, Snapshot snapshot) {
  if (auto bad = check_stream(stream); !bad) return bad;
  if (auto bad = base::check_content_type(snapshot.content_type); !bad) return bad;
  const auto max = static_cast<std::size_t>(context_->options.payload_bytes_max);
  if (snapshot.state.size() > max) {
    return Error{ErrorCode::kPayloadTooLarge, "the snapshot has " + std::to_string(snapshot.state.size()) +
                                                  " bytes, but payload_bytes_max is " + std::to_string(max)};
  }
  snapshot.saved_at = context_->clock->now();
  const spi::Unit unit{{spi::PutSnapshot{std::string(stream), std::move(snapshot)}}};
  auto done = context_->store->commit({&unit, 1});
  if (!done) return std::move(done).error();
  return done->empty() ? Result<void>{} : std::move(done->front());
}

Result<std::optional<Snapshot>> Events::find_snapshot(std::string_view stream) {
  if (auto bad = check_stream(stream); !bad) return std::move(bad).error();
  return context_->store->find_snapshot(stream);
}

}  // namespace towline::engine
