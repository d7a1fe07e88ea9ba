// A record that was claimed is due again when the claim ends, but how late it is counts from the time that it
// was promised for: a claimer that dies must not make a message that is too late look punctual.

#include "drivers/memory/schedule.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "drivers/memory/cursor.hpp"

namespace towline::drivers::memory {
namespace {

constexpr Duration kFiredAge = std::chrono::hours(24);
constexpr std::size_t kFiredCountMax = 1'000'000;
constexpr std::size_t kPageCountMax = 1'000;

TimePoint after_wall(TimePoint t, Duration d) noexcept {
  return d > Duration(0) && t > kNever - d ? kNever : t + d;
}

std::array<std::uint8_t, 16> tie_of(std::uint64_t sequence) noexcept {
  std::array<std::uint8_t, 16> tie{};
  for (std::size_t i = 0; i < 8; ++i)
    tie[i] = static_cast<std::uint8_t>(sequence >> (56 - 8 * i));
  return tie;
}

std::uint64_t sequence_of(const PageKey& key) noexcept {
  std::uint64_t sequence = 0;
  for (std::size_t i = 0; i < 8; ++i)
    sequence = sequence << 8 | key.tie[i];
  return sequence;
}

bool matches(const spi::ScheduleRecord& record, const spi::ScheduleQuery& query) {
  const spi::Envelope& e = record.envelope;
  if (!query.topic.empty() && e.topic != query.topic) return false;
  // Without a group: what users delayed, or everything that is parked.
  if (e.group != query.group && !(query.parked && query.group.empty())) return false;
  if (query.partition && e.partition != *query.partition) return false;
  if (!query.key) return true;
  return query.parked ? record.order_key == *query.key : e.key == query.key;
}

}  // namespace

const spi::ScheduleRecord* Schedule::find(const MessageId& id) const {
  const auto it = entries_.find(id);
  return it == entries_.end() ? nullptr : &it->second.record;
}

bool Schedule::is_claimed(const MessageId& id) const {
  const auto it = entries_.find(id);
  return it != entries_.end() && it->second.claimed;
}

Schedule::ParkedKey Schedule::parked_key(const spi::ScheduleRecord& record) noexcept {
  const spi::Envelope& e = record.envelope;
  return {e.group, e.topic, e.partition, record.order_key, record.sequence};
}

void Schedule::link(Entry& entry) {
  const spi::ScheduleRecord& record = entry.record;
  if (!record.parked) {
    due_.emplace(DueKey(record.due_at, record.sequence), &entry);
    return;
  }
  parked_.emplace(parked_key(record), &entry);
}

void Schedule::unlink(Entry& entry) {
  const spi::ScheduleRecord& record = entry.record;
  if (!record.parked) {
    due_.erase(DueKey(record.due_at, record.sequence));
    return;
  }
  parked_.erase(parked_key(record));
}

void Schedule::put(spi::ScheduleRecord record) {
  const auto [it, made] = entries_.try_emplace(record.id);
  if (!made) return;
  Entry& entry = it->second;
  entry.record = std::move(record);
  entry.record.version = 1;
  entry.record.sequence = ++sequence_last_;
  entry.promised_at = entry.record.due_at;
  entry.bytes = size_of(entry.record.envelope) + sizeof(Entry);
  meter_.used += entry.bytes;
  link(entry);
}

void Schedule::remove(Entry& entry) {
  unlink(entry);
  meter_.used -= entry.bytes;
  entries_.erase(MessageId(entry.record.id));
}

void Schedule::erase(const MessageId& id, spi::Version version, Moment now) {
  const auto it = entries_.find(id);
  if (it == entries_.end()) return;
  if (it->second.claimed && version != 0) remember_fired(it->second.record, now);
  remove(it->second);
}

void Schedule::move(const MessageId& id, TimePoint due_at) {
  const auto it = entries_.find(id);
  if (it == entries_.end()) return;
  Entry& entry = it->second;
  unlink(entry);
  entry.record.due_at = due_at;
  entry.promised_at = due_at;
  entry.record.parked = false;
  entry.record.order_key.clear();
  entry.claimed = false;
  ++entry.record.version;
  link(entry);
}

void Schedule::take_due(const spi::DueRequest& request, Moment now, std::vector<spi::Envelope>* promoted,
                        spi::DueBatch& out) {
  for (std::size_t taken = 0; taken < request.count_max && !due_.empty(); ++taken) {
    Entry& entry = *due_.begin()->second;
    spi::ScheduleRecord& record = entry.record;
    if (record.due_at > now.wall) break;
    const Duration late = now.wall - entry.promised_at;
    const bool skipped = record.skip_if_late_by > Duration(0) && late > record.skip_if_late_by;
    if (promoted != nullptr && !skipped) {
      out.lateness.push_back(late);
      ++out.promoted_count;
      remember_fired(record, now);
      unlink(entry);
      meter_.used -= entry.bytes;
      promoted->push_back(std::move(record.envelope));
      entries_.erase(MessageId(record.id));
      continue;
    }
    unlink(entry);
    // At least a little, or this call would find it due again.
    record.due_at = after_wall(now.wall, std::max<Duration>(request.lease, std::chrono::milliseconds(1)));
    ++record.version;
    entry.claimed = true;
    link(entry);
    out.records.push_back(record);
    // The caller wants to know how late it is, not when the claim ends.
    out.records.back().due_at = entry.promised_at;
  }
  out.next_due_at = next_due_at();
}

std::optional<TimePoint> Schedule::next_due_at() const {
  if (due_.empty()) return std::nullopt;
  return due_.begin()->first.first;
}

void Schedule::remember_fired(const spi::ScheduleRecord& record, Moment now) {
  // Only users ask, and they know the ids of what they delayed.
  if (!record.envelope.group.empty()) return;
  if (fired_.insert(record.id).second) fired_order_.emplace_back(now.wall, record.id);
  if (fired_order_.size() > kFiredCountMax) {
    fired_.erase(fired_order_.front().second);
    fired_order_.pop_front();
  }
}

void Schedule::forget_fired(Moment now) {
  while (!fired_order_.empty() && now.wall - fired_order_.front().first > kFiredAge) {
    fired_.erase(fired_order_.front().second);
    fired_order_.pop_front();
  }
}

bool Schedule::is_blocked(const std::string& group, const std::string& topic, std::uint32_t partition,
                          const std::string& key) const {
  return blocks_.contains(BlockKey(group, topic, partition, key));
}

void Schedule::put_block(spi::KeyBlock block) {
  BlockKey key(block.group, block.topic, block.partition, block.key);
  if (!blocks_.contains(key)) meter_.used += sizeof(spi::KeyBlock);
  blocks_[std::move(key)] = std::move(block);
}

Schedule::Entry* Schedule::first_parked(const BlockKey& block) const {
  const auto& [group, topic, partition, key] = block;
  const auto it = parked_.lower_bound(ParkedKey(group, topic, partition, key, 0));
  if (it == parked_.end()) return nullptr;
  const bool behind = it->first < ParkedKey(group, topic, partition, key, UINT64_MAX);
  return behind ? it->second : nullptr;
}

std::uint64_t Schedule::count_parked(const BlockKey& block) const {
  const auto& [group, topic, partition, key] = block;
  const auto end = parked_.upper_bound(ParkedKey(group, topic, partition, key, UINT64_MAX));
  std::uint64_t count = 0;
  for (auto it = parked_.lower_bound(ParkedKey(group, topic, partition, key, 0)); it != end; ++it)
    ++count;
  return count;
}

void Schedule::unpark_next(const spi::UnparkNext& write) {
  const BlockKey key(write.group, write.topic, write.partition, write.key);
  const auto block = blocks_.find(key);
  if (block == blocks_.end()) return;
  if (!write.head.empty() && write.head != block->second.head) return;
  Entry* next = first_parked(key);
  if (next == nullptr) {
    meter_.used -= sizeof(spi::KeyBlock);
    blocks_.erase(block);
    return;
  }
  unlink(*next);
  spi::ScheduleRecord& record = next->record;
  record.parked = false;
  record.order_key.clear();
  record.due_at = write.due_at;
  next->promised_at = write.due_at;
  // A misfire rule was for the first firing; what was parked is not too late.
  record.skip_if_late_by = Duration(0);
  record.envelope.heads_key = true;
  ++record.version;
  link(*next);
  block->second.head = record.envelope.id;
  block->second.held = false;
}

std::vector<spi::KeyBlock> Schedule::list_blocks(std::string_view group, std::string_view topic,
                                                 std::optional<std::uint32_t> partition) const {
  std::vector<spi::KeyBlock> blocks;
  const BlockKey from(std::string(group), std::string(topic), partition.value_or(0), "");
  for (auto it = blocks_.lower_bound(from); it != blocks_.end(); ++it) {
    const spi::KeyBlock& block = it->second;
    if (block.group != group || block.topic != topic) break;
    if (partition && block.partition != *partition) break;
    blocks.push_back(block);
    blocks.back().parked_count = count_parked(it->first);
  }
  return blocks;
}

Result<Page<spi::ScheduleRecord>> Schedule::list(const spi::ScheduleQuery& query) const {
  if (query.count_max == 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "count_max of the schedule query is 0; it must be in [1, 1000]"};
  }
  const std::size_t count_max = std::min(query.count_max, kPageCountMax);
  QueryFingerprint fingerprint;
  fingerprint.add("schedule").add(query.topic).add(query.group).add(query.parked ? 1 : 0);
  fingerprint.add(query.partition ? *query.partition + 1ULL : 0)
      .add(query.key ? 1 : 0)
      .add(query.key.value_or(""));
  PageKey after{INT64_MIN, {}};
  if (!query.cursor.empty()) {
    auto parsed = parse_cursor(query.cursor, fingerprint.value());
    if (!parsed) return std::move(parsed).error();
    after = *parsed;
  }
  Page<spi::ScheduleRecord> page;
  PageKey last;
  const auto visit = [&](const spi::ScheduleRecord& record, std::int64_t rank) {
    if (!matches(record, query)) return true;
    if (page.items.size() == count_max) {
      page.cursor = make_cursor(last, fingerprint.value());
      return false;
    }
    page.items.push_back(record);
    page.items.back().payload_size = record.envelope.payload.size();
    if (!query.parked) page.items.back().envelope.payload.clear();
    last = {rank, tie_of(record.sequence)};
    return true;
  };
  if (!query.parked) {
    auto it = query.cursor.empty() ? due_.begin()
                                   : due_.upper_bound(DueKey(from_us(after.rank), sequence_of(after)));
    while (it != due_.end() && visit(it->second->record, to_us(it->first.first)))
      ++it;
    return page;
  }
  // By sequence over all groups and partitions: parked records are few, and sorted for each page.
  std::map<std::uint64_t, const Entry*> ordered;
  for (const auto& [key, entry] : parked_) {
    if (entry->record.sequence > sequence_of(after) && matches(entry->record, query)) {
      ordered.emplace(entry->record.sequence, entry);
      if (ordered.size() > count_max + 1) ordered.erase(std::prev(ordered.end()));
    }
  }
  for (const auto& [sequence, entry] : ordered) {
    if (!visit(entry->record, 0)) break;
  }
  return page;
}

}  // namespace towline::drivers::memory
