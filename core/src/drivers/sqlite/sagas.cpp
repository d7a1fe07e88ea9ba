// One row per saga. Its states are kept by name, since people read this table too.

#include "drivers/sqlite/sagas.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "drivers/sqlite/page_cursor.hpp"
#include "drivers/sqlite/streams.hpp"

namespace towline::drivers::sqlite {
namespace {

#define TOWLINE_COLUMNS                                                                              \
  "number, type, id, definition_version, fingerprint, status, step, error, started_us, updated_us, " \
  "deadline_us, retention_us"

constexpr const char* kPut =
    "INSERT INTO saga(type, id, definition_version, fingerprint, status, step, error, started_us, updated_us,"
    " deadline_us, retention_us, expires_us, stream)"
    " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
    " ON CONFLICT(type, id) DO UPDATE SET status = excluded.status, step = excluded.step,"
    " error = excluded.error, updated_us = excluded.updated_us, expires_us = excluded.expires_us";
constexpr const char* kFind = "SELECT " TOWLINE_COLUMNS " FROM saga WHERE type = ?1 AND id = ?2";
// The conditions of a query; what it does not ask for is NULL. Each begins with the index that fits.
#define TOWLINE_CONDITIONS                                                     \
  " AND (?2 IS NULL OR type = ?2) AND (?3 IS NULL OR definition_version = ?3)" \
  " AND (?4 IS NULL OR started_us < ?4) ORDER BY number LIMIT ?5"
constexpr const char* kList = "SELECT " TOWLINE_COLUMNS " FROM saga WHERE number > ?1" TOWLINE_CONDITIONS;
constexpr const char* kListUnfinished = "SELECT " TOWLINE_COLUMNS
                                        " FROM saga WHERE number > ?1"
                                        " AND status NOT IN ('completed', 'compensated')" TOWLINE_CONDITIONS;
constexpr const char* kListByStatus =
    "SELECT " TOWLINE_COLUMNS " FROM saga WHERE status = ?6 AND number > ?1" TOWLINE_CONDITIONS;
// The stream with the newest entry stays, or its position would be given out again.
constexpr const char* kExpired =
    "SELECT number, stream FROM saga WHERE expires_us <= ?1 AND stream <> coalesce((SELECT s.name"
    " FROM saga_stream s JOIN saga_record r ON r.stream_id = s.id ORDER BY r.position DESC LIMIT 1), '')"
    " ORDER BY expires_us LIMIT ?2";
constexpr const char* kErase = "DELETE FROM saga WHERE number = ?1";

SagaStatus status_of(std::string_view name) noexcept {
  for (const SagaStatus status :
       {SagaStatus::kCompensating, SagaStatus::kCompleted, SagaStatus::kCompensated, SagaStatus::kStuck}) {
    if (name_of(status) == name) return status;
  }
  return SagaStatus::kRunning;
}

std::optional<std::int64_t> us_unless_never(TimePoint at) {
  return at == kNever ? std::nullopt : std::optional(to_us(at));
}

SagaInfo saga_of(const Query& row) {
  SagaInfo saga;
  saga.type = row.text(1);
  saga.id = row.text(2);
  saga.definition_version = static_cast<std::uint32_t>(row.integer(3));
  saga.fingerprint = row.text(4);
  saga.status = status_of(row.text(5));
  saga.step = row.text(6);
  saga.error = row.text(7);
  saga.started_at = from_us(row.integer(8));
  saga.updated_at = from_us(row.integer(9));
  if (!row.is_null(10)) saga.deadline_at = from_us(row.integer(10));
  saga.retention = Duration(row.integer(11));
  return saga;
}

QuerySeal seal_of(const SagaQuery& query) {
  QuerySeal seal;
  seal.add("sagas").add(query.type);
  seal.add(query.status ? static_cast<std::uint64_t>(*query.status) + 1 : std::uint64_t{0});
  seal.add(query.definition_version ? *query.definition_version + std::uint64_t{1} : std::uint64_t{0});
  seal.add(query.unfinished ? std::uint64_t{1} : std::uint64_t{0});
  seal.add(query.started_before ? static_cast<std::uint64_t>(to_us(*query.started_before))
                                : std::uint64_t{0});
  return seal;
}

}  // namespace

void put_saga(Tx& tx, const spi::PutSaga& write) {
  const SagaInfo& saga = write.saga;
  execute(tx.sql, kPut, saga.type, saga.id, saga.definition_version, saga.fingerprint, name_of(saga.status),
          saga.step, saga.error, to_us(saga.started_at), to_us(saga.updated_at),
          us_unless_never(saga.deadline_at), saga.retention.count(), us_unless_never(write.expires_at),
          write.stream);
}

std::optional<SagaInfo> find_saga(Connection& sql, std::string_view type, std::string_view id) {
  Query row(sql, kFind, type, id);
  return row.row() ? std::optional(saga_of(row)) : std::nullopt;
}

Result<Page<SagaInfo>> list_sagas(Connection& sql, const SagaQuery& query) {
  const QuerySeal seal = seal_of(query);
  std::int64_t after = 0;
  if (!query.cursor.empty()) {
    auto place = parse_cursor(query.cursor, seal);
    if (!place) return std::move(place).error();
    after = place->rank;
  }
  std::optional<std::string> type;
  if (!query.type.empty()) type = query.type;
  std::optional<std::int64_t> started;
  if (query.started_before) started = to_us(*query.started_before);
  const auto limit = static_cast<std::int64_t>(query.count_max) + 1;
  Query rows(sql, query.status ? kListByStatus : query.unfinished ? kListUnfinished : kList);
  rows.bind(after, type, query.definition_version, started, limit);
  if (query.status) rows.set(6, name_of(*query.status));
  Page<SagaInfo> page;
  while (rows.row()) {
    if (page.items.size() == query.count_max) {
      page.cursor = make_cursor({after, {}}, seal);
      break;
    }
    SagaInfo saga = saga_of(rows);
    after = rows.integer(0);
    if (query.unfinished &&
        (saga.status == SagaStatus::kCompleted || saga.status == SagaStatus::kCompensated))
      continue;
    page.items.push_back(std::move(saga));
  }
  return page;
}

std::uint64_t sweep_sagas(Tx& tx, TimePoint now, std::size_t count_max) {
  std::vector<std::pair<std::int64_t, std::string>> expired;
  {
    Query rows(tx.sql, kExpired, to_us(now), static_cast<std::int64_t>(count_max));
    while (rows.row())
      expired.emplace_back(rows.integer(0), rows.text(1));
  }
  for (const auto& [number, stream] : expired) {
    execute(tx.sql, kErase, number);
    erase_stream(tx, spi::StreamSpace::kSagas, stream);
  }
  return expired.size();
}

}  // namespace towline::drivers::sqlite
