// Each event is held once, by its stream and by the order of all.

#include "drivers/memory/streams.hpp"

#include <algorithm>
#include <utility>

#include "base/streams.hpp"

namespace towline::drivers::memory {
namespace {

std::uint64_t size_of(const RecordedEvent& event) noexcept {
  std::uint64_t size =
      sizeof(RecordedEvent) + 128 + event.payload.size() + event.type.size() + event.content_type.size();
  for (const auto& [name, value] : event.headers)
    size += name.size() + value.size() + sizeof(Headers::value_type);
  return size;
}

}  // namespace

std::uint64_t size_of(const spi::AppendEvents& write) noexcept {
  std::uint64_t size = 0;
  for (const RecordedEvent& event : write.events)
    size += size_of(event);
  return size;
}

const Streams::Stream* Streams::find(std::string_view name) const {
  const auto it = streams_.find(name);
  return it == streams_.end() ? nullptr : &it->second;
}

bool Streams::contains(std::string_view stream, std::uint64_t version) const {
  const Stream* found = find(stream);
  return found != nullptr && version >= 1 && version <= found->newest();
}

Result<void> Streams::check(const spi::AppendEvents& write) const {
  const Stream* stream = find(write.stream);
  const auto version_of = [stream](const MessageId& id) -> std::optional<std::uint64_t> {
    if (stream == nullptr) return std::nullopt;
    const auto it = stream->versions.find(id);
    return it == stream->versions.end() ? std::nullopt : std::optional(it->second);
  };
  auto known = base::find_repeated(write.stream, write.events, version_of);
  if (!known) return std::move(known).error();
  if (*known) return {};
  return base::check_expected(write.stream, stream == nullptr ? 0 : stream->newest(), write.expected);
}

std::optional<Appended> Streams::repeated(const spi::AppendEvents& write) const {
  const Stream* stream = find(write.stream);
  if (stream == nullptr || write.events.empty()) return std::nullopt;
  const auto first = stream->versions.find(write.events.front().id);
  if (first == stream->versions.end()) return std::nullopt;
  const std::uint64_t last = first->second + write.events.size() - 1;
  return Appended{first->second, last, stream->events[last - stream->oldest]->position, true};
}

Appended Streams::append(const spi::AppendEvents& write) {
  Stream& stream = streams_.try_emplace(write.stream).first->second;
  Appended appended;
  appended.first_version = stream.events.empty() ? 1 : stream.newest() + 1;
  std::uint64_t version = appended.first_version;
  for (const RecordedEvent& event : write.events) {
    auto recorded = std::make_shared<RecordedEvent>(event);
    recorded->stream = write.stream;
    recorded->version = version++;
    recorded->position = ++position_last_;
    stream.versions.emplace(event.id, recorded->version);
    stream.events.push_back(recorded);
    all_.emplace_hint(all_.end(), recorded->position, recorded);
    meter_.used += size_of(event);
  }
  appended.last_version = version - 1;
  appended.last_position = position_last_;
  return appended;
}

void Streams::truncate(const spi::TruncateStream& write) {
  Stream& stream = streams_.find(write.stream)->second;
  while (stream.oldest < write.before_version && stream.events.size() > 1) {
    const EventPtr& event = stream.events.front();
    meter_.used -= size_of(*event);
    stream.versions.erase(event->id);
    all_.erase(event->position);
    stream.events.pop_front();
    ++stream.oldest;
  }
}

void Streams::trim(const spi::TrimConversation& write, std::optional<std::uint64_t> unread) {
  const auto it = streams_.find(write.conversation);
  if (it == streams_.end()) return;
  const Stream& stream = it->second;
  std::uint64_t before = stream.oldest;
  while (before < stream.newest() &&
         stream.events[before - stream.oldest]->recorded_at < write.recorded_before)
    ++before;
  if (stream.newest() >= write.count_max) before = std::max(before, stream.newest() - write.count_max + 1);
  std::uint64_t bytes = 0;
  for (std::uint64_t version = stream.newest(); version >= before; --version) {
    bytes += stream.events[version - stream.oldest]->payload.size();
    if (bytes <= write.bytes_max) continue;
    before = version + 1;
    break;
  }
  truncate({spi::StreamSpace::kConversations, write.conversation, std::min(before, unread.value_or(before))});
}

void Streams::erase(std::string_view name) {
  const auto it = streams_.find(name);
  if (it == streams_.end()) return;
  for (const EventPtr& event : it->second.events) {
    meter_.used -= size_of(*event);
    all_.erase(event->position);
  }
  streams_.erase(it);
}

void Streams::put_snapshot(const spi::PutSnapshot& write) {
  Stream& stream = streams_.find(write.stream)->second;
  if (stream.snapshot && stream.snapshot->version > write.snapshot.version) return;
  if (stream.snapshot) meter_.used -= stream.snapshot->state.size();
  stream.snapshot = write.snapshot;
  meter_.used += stream.snapshot->state.size();
}

std::optional<Snapshot> Streams::find_snapshot(std::string_view stream) const {
  const Stream* found = find(stream);
  return found == nullptr ? std::nullopt : found->snapshot;
}

Result<spi::StreamSlice> Streams::read(const spi::StreamRead& read) const {
  spi::StreamSlice slice;
  slice.last_position = position_last_;
  std::size_t bytes = 0;
  // False: it does not fit any more.
  const auto take = [&](const RecordedEvent& event) {
    const bool fits = slice.events.empty() || bytes + event.payload.size() <= read.payload_bytes_max;
    if (slice.events.size() >= read.count_max || !fits) return false;
    bytes += event.payload.size();
    slice.events.push_back(event);
    return true;
  };
  if (read.stream.empty()) {
    auto it = all_.lower_bound(read.from);
    while (it != all_.end() && take(*it->second))
      ++it;
    slice.end = it == all_.end();
    return slice;
  }
  const Stream* stream = find(read.stream);
  slice.end = true;
  std::uint64_t from = read.from;
  if (!read.after_id.empty()) {
    const auto version_of = [&]() -> std::optional<std::uint64_t> {
      if (stream == nullptr) return std::nullopt;
      const auto it = stream->versions.find(read.after_id);
      return it == stream->versions.end() ? std::nullopt : std::optional(it->second);
    };
    const auto known = version_of();
    if (!known) return base::no_such_id(read.stream, read.after_id);
    from = *known + 1;
  }
  if (stream == nullptr) return slice;
  slice.oldest_version = stream->oldest;
  slice.newest_version = stream->newest();
  if (read.backwards) {
    std::uint64_t version = std::min(read.from, slice.newest_version);
    while (version >= stream->oldest && take(*stream->events[version - stream->oldest]))
      --version;
    slice.end = version < stream->oldest;
  } else {
    std::uint64_t version = std::max(from, stream->oldest);
    while (version <= slice.newest_version && take(*stream->events[version - stream->oldest]))
      ++version;
    slice.end = version > slice.newest_version;
  }
  return slice;
}

Page<StreamInfo> Streams::list(std::string_view prefix, std::size_t count_max,
                               std::string_view cursor) const {
  Page<StreamInfo> page;
  auto it = cursor.empty() ? streams_.lower_bound(prefix) : streams_.upper_bound(cursor);
  for (; it != streams_.end() && std::string_view(it->first).starts_with(prefix); ++it) {
    if (page.items.size() == count_max) {
      page.cursor = page.items.back().name;
      break;
    }
    page.items.push_back({it->first, it->second.oldest, it->second.newest()});
  }
  return page;
}

}  // namespace towline::drivers::memory
