// Filters are checked against every entry in order of creation: a hundred thousand of them take a few
// milliseconds, and an index per column would cost more at each entry than it ever saves here.

#include "drivers/memory/dead_letters.hpp"

#include <algorithm>
#include <functional>
#include <string_view>
#include <utility>

namespace towline::drivers::memory {
namespace {

constexpr std::size_t kPageCountMax = 1'000;

std::uint64_t bytes_of(const DeadLetter& letter) noexcept {
  std::uint64_t size = sizeof(DeadLetter) + letter.payload.size() + letter.error_message.size() +
                       letter.error_stack.size() + letter.metadata.size() + letter.error_type.size() +
                       letter.topic.size() + letter.group.size();
  for (const auto& [name, value] : letter.headers)
    size += name.size() + value.size() + sizeof(Headers::value_type);
  return size;
}

std::size_t index_of(DeadLetterStatus status) noexcept { return static_cast<std::size_t>(status); }

bool contains(const std::string& text, const std::string& part) noexcept {
  return text.find(part) != std::string::npos;
}

std::size_t hash_of(const std::string& text) noexcept { return std::hash<std::string>()(text); }

}  // namespace

struct DeadLetters::Filter {
  explicit Filter(const DeadLetterQuery& asked)
      : query(asked),
        topic(hash_of(asked.topic)),
        group(hash_of(asked.group)),
        error_type(hash_of(asked.error_type)),
        fingerprint(hash_of(asked.fingerprint)) {}

  [[nodiscard]] bool matches(const Item& item) const {
    if (query.status && item.status != *query.status) return false;
    if (query.reason && item.reason != *query.reason) return false;
    if (!query.topic.empty() && item.topic != topic) return false;
    if (!query.group.empty() && item.group != group) return false;
    if (!query.error_type.empty() && item.error_type != error_type) return false;
    if (!query.fingerprint.empty() && item.fingerprint != fingerprint) return false;
    const DeadLetter& letter = *item.letter;
    if (query.created_from && letter.created_at < *query.created_from) return false;
    if (query.created_before && letter.created_at >= *query.created_before) return false;
    if (!query.topic.empty() && letter.topic != query.topic) return false;
    if (!query.group.empty() && letter.group != query.group) return false;
    if (!query.error_type.empty() && letter.error_type != query.error_type) return false;
    if (!query.fingerprint.empty() && letter.fingerprint != query.fingerprint) return false;
    return query.text.empty() || contains(letter.error_message, query.text) ||
           contains(letter.payload, query.text);
  }

  const DeadLetterQuery& query;
  const std::size_t topic, group, error_type, fingerprint;
};

PageKey DeadLetters::key_of(const DeadLetter& letter) noexcept {
  return {to_us(letter.created_at), letter.id.bytes};
}

void DeadLetters::link(Item& item) {
  const DeadLetter& letter = *item.letter;
  item.status = letter.status;
  by_last_failure_.emplace(letter.last_failed_at, letter.id);
  if (letter.status == DeadLetterStatus::kReprocessing) leased_.emplace(letter.lease_until, letter.id);
  ++counts_[index_of(letter.status)];
  meter_.used += bytes_of(letter);
}

void DeadLetters::unlink(const Item& item) {
  const DeadLetter& letter = *item.letter;
  by_last_failure_.erase({letter.last_failed_at, letter.id});
  leased_.erase({letter.lease_until, letter.id});
  --counts_[index_of(letter.status)];
  meter_.used -= bytes_of(letter);
}

void DeadLetters::end_leases(TimePoint now) {
  while (!leased_.empty() && leased_.begin()->first <= now) {
    Item& item = by_id_.find(leased_.begin()->second)->second->second;
    unlink(item);
    item.letter->status = DeadLetterStatus::kPending;
    link(item);
  }
}

const DeadLetter* DeadLetters::find(const MessageId& id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : it->second->second.letter.get();
}

void DeadLetters::put(DeadLetter record) {
  const DeadLetter* known = find(record.id);
  record.version = known == nullptr ? 1 : known->version + 1;
  if (known != nullptr) erase(record.id);
  Item item;
  item.topic = hash_of(record.topic);
  item.group = hash_of(record.group);
  item.error_type = hash_of(record.error_type);
  item.fingerprint = hash_of(record.fingerprint);
  item.reason = record.reason;
  item.letter = std::make_unique<DeadLetter>(std::move(record));
  const DeadLetter& letter = *item.letter;
  const auto it = items_.emplace_hint(items_.end(), key_of(letter), std::move(item));
  by_id_.emplace(letter.id, it);
  link(it->second);
}

void DeadLetters::update(const spi::UpdateDeadLetter& write) {
  const auto it = by_id_.find(write.id);
  if (it == by_id_.end()) return;
  Item& item = it->second->second;
  unlink(item);
  item.letter->status = write.status;
  item.letter->lease_until = write.lease_until;
  item.letter->reprocess_count = write.reprocess_count;
  ++item.letter->version;
  link(item);
}

void DeadLetters::erase(const MessageId& id) {
  const auto it = by_id_.find(id);
  if (it == by_id_.end()) return;
  const Items::iterator item = it->second;
  unlink(item->second);
  by_id_.erase(it);
  items_.erase(item);
}

Result<std::uint64_t> DeadLetters::check(const DeadLetterQuery& query) {
  if (query.count_max == 0 || query.count_max > kPageCountMax) {
    return Error{ErrorCode::kInvalidArgument, "count_max of the dead-letter query is " +
                                                  std::to_string(query.count_max) +
                                                  "; it must be in [1, 1000]"};
  }
  QueryFingerprint fingerprint;
  fingerprint.add("dead letters")
      .add(query.topic)
      .add(query.group)
      .add(query.error_type)
      .add(query.fingerprint);
  fingerprint.add(query.text).add(query.status ? index_of(*query.status) + 1 : 0);
  fingerprint.add(query.reason ? static_cast<std::uint64_t>(*query.reason) + 1 : 0);
  for (const auto& bound : {query.created_from, query.created_before}) {
    fingerprint.add(bound ? 1 : 0).add(bound ? static_cast<std::uint64_t>(to_us(*bound)) : 0);
  }
  return fingerprint.value();
}

Result<Page<DeadLetter>> DeadLetters::list(const DeadLetterQuery& query) const {
  const auto fingerprint = check(query);
  if (!fingerprint) return fingerprint.error();
  const Filter filter(query);
  auto it = items_.begin();
  if (!query.cursor.empty()) {
    const auto after = parse_cursor(query.cursor, *fingerprint);
    if (!after) return after.error();
    it = items_.upper_bound(*after);
  } else if (query.created_from) {
    it = items_.lower_bound({to_us(*query.created_from), {}});
  }
  Page<DeadLetter> page;
  for (; it != items_.end(); ++it) {
    if (query.created_before && it->first.rank >= to_us(*query.created_before)) break;
    if (!filter.matches(it->second)) continue;
    if (page.items.size() == query.count_max) {
      page.cursor = make_cursor(key_of(page.items.back()), *fingerprint);
      break;
    }
    page.items.push_back(*it->second.letter);
  }
  return page;
}

Result<std::vector<DeadLetterGroup>> DeadLetters::group(const DeadLetterQuery& query) const {
  if (const auto checked = check(query); !checked) return checked.error();
  struct Tally {
    std::uint64_t count = 0;
    const DeadLetter* oldest = nullptr;
    const DeadLetter* newest = nullptr;
  };
  const Filter filter(query);
  std::unordered_map<std::string_view, Tally> tallies;
  for (const auto& [key, item] : items_) {
    if (!filter.matches(item)) continue;
    Tally& tally = tallies[item.letter->fingerprint];
    ++tally.count;
    // In order of creation, so the last one seen is the newest.
    tally.newest = item.letter.get();
    if (tally.oldest == nullptr) tally.oldest = tally.newest;
  }
  std::vector<DeadLetterGroup> result;
  for (const auto& [fingerprint, tally] : tallies) {
    const DeadLetter& newest = *tally.newest;
    result.push_back({newest.fingerprint, newest.topic, newest.error_type, newest.error_message, tally.count,
                      tally.oldest->created_at, newest.created_at});
  }
  std::sort(result.begin(), result.end(), [](const DeadLetterGroup& a, const DeadLetterGroup& b) {
    return a.count != b.count ? a.count > b.count : a.fingerprint < b.fingerprint;
  });
  if (result.size() > query.count_max) result.resize(query.count_max);
  return result;
}

std::uint64_t DeadLetters::sweep(const spi::SweepRequest& request, std::size_t count_max) {
  std::uint64_t removed = 0;
  for (auto it = by_last_failure_.begin(); removed < count_max && it != by_last_failure_.end();) {
    if (it->first >= request.dead_letters_before) break;
    const MessageId id = it->second;
    ++it;
    if (find(id)->status == DeadLetterStatus::kReprocessing) continue;
    erase(id);
    ++removed;
  }
  for (auto it = items_.begin(); removed < count_max && it != items_.end();) {
    if (items_.size() <= request.dead_letter_count_max) break;
    const DeadLetter& letter = *it->second.letter;
    ++it;
    if (letter.status == DeadLetterStatus::kReprocessing) continue;
    erase(MessageId(letter.id));
    ++removed;
  }
  return removed;
}

}  // namespace towline::drivers::memory
