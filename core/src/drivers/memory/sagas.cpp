// Sagas by name and in order of starting.

#include "drivers/memory/sagas.hpp"

#include "drivers/memory/cursor.hpp"
#include "drivers/memory/records.hpp"

namespace towline::drivers::memory {
namespace {

std::uint64_t size_of(const spi::PutSaga& record) noexcept {
  const SagaInfo& saga = record.saga;
  return 2 * sizeof(spi::PutSaga) + saga.type.size() + saga.id.size() + saga.fingerprint.size() +
         saga.step.size() + saga.error.size() + record.stream.size();
}

bool matches(const SagaQuery& query, const SagaInfo& saga) {
  const bool finished = saga.status == SagaStatus::kCompleted || saga.status == SagaStatus::kCompensated;
  return (query.type.empty() || query.type == saga.type) && (!query.status || *query.status == saga.status) &&
         (!query.definition_version || *query.definition_version == saga.definition_version) &&
         !(query.unfinished && finished) &&
         (!query.started_before || saga.started_at < *query.started_before);
}

std::uint64_t fingerprint_of(const SagaQuery& query) noexcept {
  QueryFingerprint print;
  print.add("sagas").add(query.type);
  print.add(query.status ? static_cast<std::uint64_t>(*query.status) + 1 : 0);
  print.add(query.definition_version ? *query.definition_version + std::uint64_t{1} : 0);
  print.add(query.unfinished ? std::uint64_t{1} : std::uint64_t{0});
  print.add(query.started_before
                ? static_cast<std::uint64_t>(query.started_before->time_since_epoch().count())
                : std::uint64_t{0});
  return print.value();
}

}  // namespace

void Sagas::put(const spi::PutSaga& write) {
  std::uint64_t& number = numbers_[joined(write.saga.type, write.saga.id)];
  if (number == 0) {
    number = ++number_last_;
  } else {
    const spi::PutSaga& known = sagas_.at(number);
    meter_.used -= size_of(known);
    ends_.erase({known.expires_at, number});
  }
  sagas_[number] = write;
  meter_.used += size_of(write);
  if (write.expires_at != kNever) ends_.emplace(write.expires_at, number);
}

std::optional<SagaInfo> Sagas::find(std::string_view type, std::string_view id) const {
  const auto it = numbers_.find(joined(type, id));
  return it == numbers_.end() ? std::nullopt : std::optional(sagas_.at(it->second).saga);
}

Result<Page<SagaInfo>> Sagas::list(const SagaQuery& query) const {
  const std::uint64_t print = fingerprint_of(query);
  PageKey after;
  if (!query.cursor.empty()) {
    auto parsed = parse_cursor(query.cursor, print);
    if (!parsed) return std::move(parsed).error();
    after = *parsed;
  }
  Page<SagaInfo> page;
  for (auto it = sagas_.upper_bound(static_cast<std::uint64_t>(after.rank)); it != sagas_.end(); ++it) {
    if (!matches(query, it->second.saga)) continue;
    if (page.items.size() == query.count_max) {
      page.cursor = make_cursor(after, print);
      break;
    }
    page.items.push_back(it->second.saga);
    after.rank = static_cast<std::int64_t>(it->first);
  }
  return page;
}

std::vector<std::string> Sagas::sweep(TimePoint now, std::size_t count_max) {
  std::vector<std::string> streams;
  while (streams.size() < count_max && !ends_.empty() && ends_.begin()->first <= now) {
    const auto it = sagas_.find(ends_.begin()->second);
    meter_.used -= size_of(it->second);
    streams.push_back(it->second.stream);
    numbers_.erase(joined(it->second.saga.type, it->second.saga.id));
    sagas_.erase(it);
    ends_.erase(ends_.begin());
  }
  return streams;
}

}  // namespace towline::drivers::memory
