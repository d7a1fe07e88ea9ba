// Positions and counters by name. What has expired is not found, whether it was swept yet or not.

#include "drivers/sqlite/clients.hpp"

#include <algorithm>
#include <string>

#include "base/clients.hpp"

namespace towline::drivers::sqlite {
namespace {

constexpr const char* kFindPosition =
    "SELECT sequence, expires_us FROM client_position WHERE user = ?1 AND client = ?2 AND conversation = ?3";
constexpr const char* kPutPosition =
    "INSERT INTO client_position(user, client, conversation, sequence, expires_us) VALUES(?1, ?2, ?3, ?4, ?5)"
    " ON CONFLICT DO UPDATE SET sequence = excluded.sequence, expires_us = excluded.expires_us";
constexpr const char* kPositions =
    "SELECT sequence, expires_us, conversation FROM client_position"
    " WHERE user = ?1 AND client = ?2 AND conversation >= ?3 AND expires_us > ?4"
    " ORDER BY conversation LIMIT ?5";
constexpr const char* kFirstUnread =
    "SELECT sequence + 1 FROM client_position WHERE conversation = ?1 AND expires_us > ?2"
    " ORDER BY sequence LIMIT 1";
constexpr const char* kSweepPositions =
    "DELETE FROM client_position WHERE (user, client, conversation) IN (SELECT user, client, conversation"
    " FROM client_position WHERE expires_us <= ?1 ORDER BY expires_us LIMIT ?2)";

#define TOWLINE_COLUMNS \
  "first_sequence, last_sequence, count, recent, taken_sequence, expires_us, conversation"
constexpr const char* kFindMissed =
    "SELECT " TOWLINE_COLUMNS " FROM missed_message WHERE user = ?1 AND conversation = ?2";
constexpr const char* kPutMissed =
    "INSERT OR REPLACE INTO missed_message(user, " TOWLINE_COLUMNS ") VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
constexpr const char* kMissed =
    "SELECT " TOWLINE_COLUMNS
    " FROM missed_message WHERE user = ?1 AND conversation >= ?2 AND expires_us > ?3 AND count > 0"
    " ORDER BY conversation LIMIT ?4";
constexpr const char* kSweepMissed =
    "DELETE FROM missed_message WHERE (user, conversation) IN (SELECT user, conversation"
    " FROM missed_message WHERE expires_us <= ?1 ORDER BY expires_us LIMIT ?2)";

spi::MissedMessages missed_of(const Query& row, std::string_view user) {
  spi::MissedMessages missed;
  missed.user = user;
  missed.conversation = row.text(6);
  missed.first_sequence = static_cast<std::uint64_t>(row.integer(0));
  missed.last_sequence = static_cast<std::uint64_t>(row.integer(1));
  missed.count = static_cast<std::uint64_t>(row.integer(2));
  missed.recent = static_cast<std::uint64_t>(row.integer(3));
  missed.taken_sequence = static_cast<std::uint64_t>(row.integer(4));
  missed.expires_at = from_us(row.integer(5));
  return missed;
}

std::optional<spi::MissedMessages> find_missed(Connection& sql, std::string_view user,
                                               std::string_view conversation) {
  Query row(sql, kFindMissed, user, conversation);
  return row.row() ? std::optional(missed_of(row, user)) : std::nullopt;
}

void put_missed(Connection& sql, const spi::MissedMessages& missed) {
  execute(sql, kPutMissed, missed.user, missed.first_sequence, missed.last_sequence, missed.count,
          missed.recent, missed.taken_sequence, to_us(missed.expires_at), missed.conversation);
}

std::int64_t limit(std::size_t count_max) noexcept {
  return static_cast<std::int64_t>(std::min<std::size_t>(count_max, INT64_MAX));
}

}  // namespace

void put_client_position(Tx& tx, const spi::ClientPosition& position) {
  spi::ClientPosition known = position;
  known.sequence = 0;
  {
    Query row(tx.sql, kFindPosition, position.user, position.client, position.conversation);
    if (row.row()) {
      known.sequence = static_cast<std::uint64_t>(row.integer(0));
      known.expires_at = from_us(row.integer(1));
    }
  }
  base::advance(known, position, tx.now.wall);
  execute(tx.sql, kPutPosition, known.user, known.client, known.conversation, known.sequence,
          to_us(known.expires_at));
}

void add_missed(Tx& tx, const spi::AddMissed& write) {
  spi::MissedMessages missed =
      find_missed(tx.sql, write.user, write.conversation).value_or(spi::MissedMessages{});
  if (missed.expires_at <= tx.now.wall) missed = {write.user, write.conversation};
  base::count_missed(missed, write.sequence);
  missed.expires_at = std::max(missed.expires_at, write.expires_at);
  put_missed(tx.sql, missed);
}

void clear_missed(Tx& tx, const spi::ClearMissed& write) {
  auto missed = find_missed(tx.sql, write.user, write.conversation);
  if (!missed || missed->taken_sequence >= write.through_sequence) return;
  base::take_missed(*missed, write.through_sequence);
  put_missed(tx.sql, *missed);
}

std::vector<spi::ClientPosition> client_positions(Connection& sql, std::string_view user,
                                                  std::string_view client, std::string_view from,
                                                  std::size_t count_max, TimePoint now) {
  std::vector<spi::ClientPosition> found;
  Query rows(sql, kPositions, user, client, from, to_us(now), limit(count_max));
  while (rows.row()) {
    found.push_back({std::string(user), std::string(client), std::string(rows.text(2)),
                     static_cast<std::uint64_t>(rows.integer(0)), from_us(rows.integer(1))});
  }
  return found;
}

std::vector<spi::MissedMessages> missed_messages(Connection& sql, std::string_view user,
                                                 std::string_view from, std::size_t count_max,
                                                 TimePoint now) {
  std::vector<spi::MissedMessages> found;
  Query rows(sql, kMissed, user, from, to_us(now), limit(count_max));
  while (rows.row())
    found.push_back(missed_of(rows, user));
  return found;
}

std::optional<std::uint64_t> first_unread(Connection& sql, std::string_view conversation, TimePoint now) {
  const auto first = select_integer(sql, kFirstUnread, conversation, to_us(now));
  return first ? std::optional(static_cast<std::uint64_t>(*first)) : std::nullopt;
}

std::uint64_t sweep_client_positions(Tx& tx, TimePoint now, std::size_t count_max) {
  execute(tx.sql, kSweepPositions, to_us(now), limit(count_max));
  return static_cast<std::uint64_t>(tx.sql.changes());
}

std::uint64_t sweep_missed(Tx& tx, TimePoint now, std::size_t count_max) {
  execute(tx.sql, kSweepMissed, to_us(now), limit(count_max));
  return static_cast<std::uint64_t>(tx.sql.changes());
}

}  // namespace towline::drivers::sqlite
