#pragma once
// Records that are found by a name and forgotten after a while: idempotency records and inbox entries.

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <towline/spi/store.hpp>

#include "drivers/sqlite/cancelled.hpp"
#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

/// What has expired does not exist.
[[nodiscard]] std::optional<spi::IdempotencyRecord> find_idempotency(Connection& sql, std::string_view scope,
                                                                     std::string_view key, TimePoint now);
/// 0: there is none.
[[nodiscard]] spi::Version idempotency_version(Connection& sql, std::string_view scope, std::string_view key,
                                               TimePoint now);
void put_idempotency(Tx& tx, const spi::PutIdempotency& write);
void erase_idempotency(Tx& tx, const spi::EraseIdempotency& write);

[[nodiscard]] bool inbox_holds(Connection& sql, std::string_view group, const MessageId& id, TimePoint now);
void put_inbox(Tx& tx, const spi::PutInbox& write);

/// Where the last sweep of a table stopped. There is no index on the time of expiry, which would cost more at
/// each write than it saves: a sweep walks along the primary key, a bounded piece at a time.
struct SweepPlace {
  std::string first, second;
  std::int64_t number = 0;
  bool started = false;
};
struct SweepPlaces {
  SweepPlace idempotency, inbox, dedup;
  std::int64_t dedup_number = 0;  ///< in `dedup_recent`
  CancelledPass cancelled;
};

/// Removes expired records among the next `count_max * 4` at most; returns how many, and whether it stopped
/// by a bound.
struct Swept {
  std::uint64_t removed = 0;
  bool more = false;
};
[[nodiscard]] Swept sweep_idempotency(Tx& tx, SweepPlace& place, TimePoint now, std::size_t count_max);
[[nodiscard]] Swept sweep_inbox(Tx& tx, SweepPlace& place, TimePoint now, std::size_t count_max);
/// Of the table `dedup` alone; dedup.hpp has the others.
[[nodiscard]] Swept sweep_old_dedup(Tx& tx, SweepPlace& place, TimePoint now, std::size_t count_max);

}  // namespace towline::drivers::sqlite
