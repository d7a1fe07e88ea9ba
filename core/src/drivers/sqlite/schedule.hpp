#pragma once
// Records with a due time, parked records, and the keys they are parked behind.

#include <optional>
#include <vector>

#include <towline/spi/store.hpp>

#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

/// A record that waits: for its due time, or parked.
struct Waiting {
  std::int64_t body_id = 0;
  spi::Version version = 0;
  TimePoint due_at{};
  bool parked = false;
  bool claimed = false;
  std::int64_t topic_id = 0;
  std::uint8_t priority = 0;
  bool has_rule = false;  ///< a misfire rule
  bool addressed = false;
  bool has_extras = false;
};

/// Finds a body by its index.
#define TOWLINE_RECORD_IS_1                                                               \
  "substr(record_id, 3, 5) || substr(record_id, 14) = substr(?1, 3, 5) || substr(?1, 14)" \
  " AND record_id = ?1"

[[nodiscard]] std::optional<Waiting> find_waiting(Connection& sql, const MessageId& id);

// ---- writes: what they need was checked ----
void put_schedule(Tx& tx, const spi::ScheduleRecord& record);
void erase_schedule(Tx& tx, const spi::EraseSchedule& write);
/// The same, of a record that was just found.
void erase_schedule(Tx& tx, const spi::EraseSchedule& write, const Waiting& waiting);
void move_schedule(Tx& tx, const spi::MoveSchedule& write);
void put_key_block(Tx& tx, const spi::KeyBlock& block);
void unpark_next(Tx& tx, const spi::UnparkNext& write);
[[nodiscard]] bool is_blocked(Connection& sql, const std::string& group, const std::string& topic,
                              std::uint32_t partition, const std::string& key);

/// The earliest due time, also of what was cancelled; kNever: none.
[[nodiscard]] TimePoint next_due(Tx& tx);
/// Takes what is due: moves it to the logs (`promote`), or claims it and returns it.
void take_due(Tx& tx, const spi::DueRequest& request, bool promote, spi::DueBatch& out);

// ---- reads, on any connection ----
[[nodiscard]] std::optional<spi::ScheduleRecord> find_schedule(Connection& sql, const MessageId& id);
[[nodiscard]] Result<Page<spi::ScheduleRecord>> list_schedule(Connection& sql,
                                                              const spi::ScheduleQuery& query);
[[nodiscard]] std::vector<spi::KeyBlock> list_key_blocks(Connection& sql, std::string_view group,
                                                         std::string_view topic,
                                                         std::optional<std::uint32_t> partition);

}  // namespace towline::drivers::sqlite
