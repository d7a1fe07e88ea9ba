// Filters are checked against every entry in order of creation: a hundred thousand of them take a few
// milliseconds, and an index per column would cost more at each entry than it ever saves here.

#include "drivers/memory/dead_letters.hpp"

#include <algorithm>

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

bool matches(const DeadLetter& letter, const DeadLetterQuery& query) {
  if (query.status && letter.status != *query.status) return false;
  if (query.reason && letter.reason != *query.reason) return false;
  if (query.created_from && letter.created_at < *query.created_from) return false;
  if (query.created_before && letter.created_at >= *query.created_before) return false;
  if (!query.topic.empty() && letter.topic != query.topic) return false;
  if (!query.group.empty() && letter.group != query.group) return false;
  if (!query.error_type.empty() && letter.error_type != query.error_type) return false;
  if (!query.fingerprint.empty() && letter.fingerprint != query.fingerprint) return false;
  return query.text.empty() || contains(letter.error_message, query.text) ||
         contains(letter.payload, query.text);
}

}  // namespace

PageKey DeadLetters::key_of(const DeadLetter& letter) noexcept {
  return {to_us(letter.created_at), letter.id.bytes};
}

void DeadLetters::link(const DeadLetter& letter) {
  by_last_failure_.emplace(letter.last_failed_at, letter.id);
  if (letter.status == DeadLetterStatus::kReprocessing) leased_.emplace(letter.lease_until, letter.id);
  ++counts_[index_of(letter.status)];
  meter_.used += bytes_of(letter);
}

void DeadLetters::unlink(const DeadLetter& letter) {
  by_last_failure_.erase({letter.last_failed_at, letter.id});
  leased_.erase({letter.lease_until, letter.id});
  --counts_[index_of(letter.status)];
  meter_.used -= bytes_of(letter);
}

void DeadLetters::end_leases(TimePoint now) {
  while (!leased_.empty() && leased_.begin()->first <= now) {
    DeadLetter& letter = by_id_.find(leased_.begin()->second)->second->second;
    unlink(letter);
    letter.status = DeadLetterStatus::kPending;
    link(letter);
  }
}

const DeadLetter* DeadLetters::find(const MessageId& id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : &it->second->second;
}

void DeadLetters::put(DeadLetter record) {
  const DeadLetter* known = find(record.id);
  record.version = known == nullptr ? 1 : known->version + 1;
  if (known != nullptr) erase(record.id);
  const MessageId id = record.id;
  const PageKey key = key_of(record);
  const auto it = letters_.emplace(key, std::move(record)).first;
  by_id_.emplace(id, it);
  link(it->second);
}

void DeadLetters::update(const spi::UpdateDeadLetter& write) {
  const auto it = by_id_.find(write.id);
  if (it == by_id_.end()) return;
  DeadLetter& letter = it->second->second;
  unlink(letter);
  letter.status = write.status;
  letter.lease_until = write.lease_until;
  letter.reprocess_count = write.reprocess_count;
  ++letter.version;
  link(letter);
}

void DeadLetters::erase(const MessageId& id) {
  const auto it = by_id_.find(id);
  if (it == by_id_.end()) return;
  unlink(it->second->second);
  letters_.erase(it->second);
  by_id_.erase(it);
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
  auto it = letters_.begin();
  if (!query.cursor.empty()) {
    const auto after = parse_cursor(query.cursor, *fingerprint);
    if (!after) return after.error();
    it = letters_.upper_bound(*after);
  } else if (query.created_from) {
    it = letters_.lower_bound({to_us(*query.created_from), {}});
  }
  Page<DeadLetter> page;
  for (; it != letters_.end(); ++it) {
    if (query.created_before && it->second.created_at >= *query.created_before) break;
    if (!matches(it->second, query)) continue;
    if (page.items.size() == query.count_max) {
      page.cursor = make_cursor(key_of(page.items.back()), *fingerprint);
      break;
    }
    page.items.push_back(it->second);
  }
  return page;
}

Result<std::vector<DeadLetterGroup>> DeadLetters::group(const DeadLetterQuery& query) const {
  if (const auto checked = check(query); !checked) return checked.error();
  std::map<std::string, DeadLetterGroup> groups;
  for (const auto& [key, letter] : letters_) {
    if (!matches(letter, query)) continue;
    DeadLetterGroup& group = groups[letter.fingerprint];
    if (group.count == 0) group.first_at = letter.created_at;
    ++group.count;
    // In order of creation, so the last one seen is the newest.
    group.last_at = letter.created_at;
    group.fingerprint = letter.fingerprint;
    group.topic = letter.topic;
    group.error_type = letter.error_type;
    group.error_message = letter.error_message;
  }
  std::vector<DeadLetterGroup> result;
  for (auto& [fingerprint, group] : groups)
    result.push_back(std::move(group));
  std::stable_sort(result.begin(), result.end(),
                   [](const DeadLetterGroup& a, const DeadLetterGroup& b) { return a.count > b.count; });
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
  for (auto it = letters_.begin(); removed < count_max && it != letters_.end();) {
    if (letters_.size() <= request.dead_letter_count_max) break;
    const DeadLetter& letter = it->second;
    ++it;
    if (letter.status == DeadLetterStatus::kReprocessing) continue;
    erase(MessageId(letter.id));
    ++removed;
  }
  return removed;
}

}  // namespace towline::drivers::memory
