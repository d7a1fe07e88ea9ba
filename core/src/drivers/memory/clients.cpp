// Positions and counters by name. What has expired is not found, whether it was swept yet or not.

#include "drivers/memory/clients.hpp"

#include <algorithm>

#include "base/clients.hpp"

namespace towline::drivers::memory {

std::uint64_t size_of(const spi::ClientPosition& position) noexcept {
  // Its names are in the keys of the map and of both sets as well.
  return 4 * (sizeof(spi::ClientPosition) + position.user.size() + position.client.size() +
              position.conversation.size());
}

std::uint64_t size_of(const spi::MissedMessages& missed) noexcept {
  return 3 * (sizeof(spi::MissedMessages) + missed.user.size() + missed.conversation.size());
}

void Clients::put(const spi::ClientPosition& position, TimePoint now) {
  const PositionKey key(position.user, position.client, position.conversation);
  const auto [it, made] = positions_.try_emplace(key);
  if (made) {
    meter_.used += size_of(position);
    readers_[position.conversation].insert(key);
  } else {
    position_ends_.erase({it->second.expires_at, key});
  }
  base::advance(it->second, position, now);
  position_ends_.emplace(it->second.expires_at, key);
}

void Clients::add_missed(const spi::AddMissed& write, TimePoint now) {
  const MissedKey key(write.user, write.conversation);
  const auto [it, made] = missed_.try_emplace(key);
  spi::MissedMessages& missed = it->second;
  if (!made) {
    missed_ends_.erase({missed.expires_at, key});
    meter_.used -= size_of(missed);
  }
  if (missed.expires_at <= now) missed = {write.user, write.conversation};
  base::count_missed(missed, write.sequence);
  missed.expires_at = std::max(missed.expires_at, write.expires_at);
  meter_.used += size_of(missed);
  missed_ends_.emplace(missed.expires_at, key);
}

void Clients::clear_missed(const spi::ClearMissed& write) {
  const auto it = missed_.find({write.user, write.conversation});
  if (it != missed_.end()) base::take_missed(it->second, write.through_sequence);
}

std::vector<spi::ClientPosition> Clients::positions(std::string_view user, std::string_view client,
                                                    std::string_view from, std::size_t count_max,
                                                    TimePoint now) const {
  std::vector<spi::ClientPosition> found;
  auto it = positions_.lower_bound({std::string(user), std::string(client), std::string(from)});
  for (; it != positions_.end() && found.size() < count_max; ++it) {
    const spi::ClientPosition& position = it->second;
    if (position.user != user || position.client != client) break;
    if (position.expires_at > now) found.push_back(position);
  }
  return found;
}

std::vector<spi::MissedMessages> Clients::missed(std::string_view user, std::string_view from,
                                                 std::size_t count_max, TimePoint now) const {
  std::vector<spi::MissedMessages> found;
  auto it = missed_.lower_bound({std::string(user), std::string(from)});
  for (; it != missed_.end() && it->second.user == user && found.size() < count_max; ++it) {
    if (it->second.expires_at > now && it->second.count > 0) found.push_back(it->second);
  }
  return found;
}

std::optional<std::uint64_t> Clients::first_unread(const std::string& conversation, TimePoint now) const {
  const auto readers = readers_.find(conversation);
  if (readers == readers_.end()) return std::nullopt;
  std::optional<std::uint64_t> first;
  for (const PositionKey& key : readers->second) {
    const spi::ClientPosition& position = positions_.at(key);
    if (position.expires_at <= now) continue;
    first = std::min(first.value_or(UINT64_MAX), position.sequence + 1);
  }
  return first;
}

std::uint64_t Clients::sweep_positions(TimePoint now, std::size_t count_max) {
  std::uint64_t removed = 0;
  for (; removed < count_max && !position_ends_.empty() && position_ends_.begin()->first <= now; ++removed) {
    const auto it = positions_.find(position_ends_.begin()->second);
    meter_.used -= size_of(it->second);
    const auto readers = readers_.find(it->second.conversation);
    readers->second.erase(it->first);
    if (readers->second.empty()) readers_.erase(readers);
    positions_.erase(it);
    position_ends_.erase(position_ends_.begin());
  }
  return removed;
}

std::uint64_t Clients::sweep_missed(TimePoint now, std::size_t count_max) {
  std::uint64_t removed = 0;
  for (; removed < count_max && !missed_ends_.empty() && missed_ends_.begin()->first <= now; ++removed) {
    const auto it = missed_.find(missed_ends_.begin()->second);
    meter_.used -= size_of(it->second);
    missed_.erase(it);
    missed_ends_.erase(missed_ends_.begin());
  }
  return removed;
}

}  // namespace towline::drivers::memory
