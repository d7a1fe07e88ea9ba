// A delayed message has rows in three places: `schedule` in order of due time, `body` and its index in the
// order they were put in. Removing them one by one would change a page of each for every message; so
// cancelling only notes it, and what was cancelled is either passed over when it comes due, or removed in a
// pass once it is a good part of all that wait. Then many lie on each page.
//
// It is noted as a bit, in a row that stands for some thousands of bodies. Of a million bodies there are many
// such rows, and what is cancelled in no order would change all of them with every commit; so the latest are
// noted in a small table of their own, `cancelled_recent`, until they are so many that all bits are set at
// once.
//
// A pass walks along `schedule` first and removes the rows there, and then along the bits, in the order of
// the bodies, and removes each body whose row is gone, together with its bit. What was cancelled behind the
// first half is left for the next pass. Each step is right by itself: a pass that was cut short begins anew.

#include "drivers/sqlite/cancelled.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "drivers/sqlite/due_rows.hpp"

namespace towline::drivers::sqlite {
namespace {

/// Bodies whose bits share a row.
constexpr int kBlockShift = 12;
constexpr std::int64_t kBlockMask = (std::int64_t{1} << kBlockShift) - 1;
constexpr std::size_t kBlockBytes = std::size_t{1} << (kBlockShift - 3);

/// A pass begins when this part of what waits was cancelled.
constexpr std::int64_t kPartOfScheduled = 4;
/// What one transaction does at most, so that nobody waits long behind it: rows of `schedule` looked at, and
/// bodies removed.
constexpr std::int64_t kRowsPerStep = 4'096;
constexpr std::size_t kBodiesPerStep = 512;
/// A page has room for some hundreds of them.
constexpr std::int64_t kRecentMax = 2'048;

constexpr const char* kBits = "SELECT bits FROM cancelled WHERE block = ?1";
constexpr const char* kIsCancelled =
    "SELECT EXISTS(SELECT 1 FROM cancelled_recent WHERE body_id = ?1),"
    " (SELECT bits FROM cancelled WHERE block = ?2)";
constexpr const char* kAny =
    "SELECT EXISTS(SELECT 1 FROM cancelled_recent) OR EXISTS(SELECT 1 FROM cancelled)";
constexpr const char* kPutRecent = "INSERT INTO cancelled_recent VALUES(?1)";
constexpr const char* kCountRecent = "SELECT count(*) FROM cancelled_recent";
constexpr const char* kRecent = "SELECT body_id FROM cancelled_recent ORDER BY body_id";
constexpr const char* kForgetAllRecent = "DELETE FROM cancelled_recent";
constexpr const char* kForgetRecent = "DELETE FROM cancelled_recent WHERE body_id = ?1";
constexpr const char* kPutBits = "INSERT OR REPLACE INTO cancelled VALUES(?1, ?2)";
constexpr const char* kForgetBits = "DELETE FROM cancelled WHERE block = ?1";
constexpr const char* kNextBits =
    "SELECT block, bits FROM cancelled WHERE block >= ?1 ORDER BY block LIMIT 1";
constexpr const char* kDeleteBody = "DELETE FROM body WHERE body_id = ?1";
constexpr const char* kHasRow = "SELECT 1 FROM body b WHERE b.body_id = ?1 AND " TOWLINE_HAS_DUE_ROW;
constexpr const char* kCounter = "SELECT value FROM counter WHERE name = ?1";

std::int64_t block_of(std::int64_t body_id) noexcept { return body_id >> kBlockShift; }

struct Bit {
  std::size_t byte;
  unsigned mask;
};
Bit bit_of(std::int64_t body_id) noexcept {
  const auto at = static_cast<std::size_t>(body_id & kBlockMask);
  return {at / 8, 1U << (at % 8)};
}

bool has(std::string_view bits, std::int64_t body_id) noexcept {
  const Bit bit = bit_of(body_id);
  return bit.byte < bits.size() && (static_cast<unsigned char>(bits[bit.byte]) & bit.mask) != 0;
}

void flip(std::string& bits, std::int64_t body_id) noexcept {
  const Bit bit = bit_of(body_id);
  bits[bit.byte] = static_cast<char>(static_cast<unsigned char>(bits[bit.byte]) ^ bit.mask);
}

std::string read_bits(Connection& sql, std::int64_t block) {
  std::string bits;
  {
    Query row(sql, kBits, block);
    if (row.row()) bits = row.blob(0);
  }
  bits.resize(kBlockBytes);
  return bits;
}

void write_bits(Connection& sql, std::int64_t block, const std::string& bits) {
  if (bits.find_first_not_of('\0') == std::string::npos) {
    execute(sql, kForgetBits, block);
  } else {
    execute(sql, kPutBits, block, Blob{bits});
  }
}

/// Sets the bits of the latest.
void gather_recent(Tx& tx) {
  std::vector<std::int64_t> recent;
  {
    Query rows(tx.sql, kRecent);
    while (rows.row())
      recent.push_back(rows.integer(0));
  }
  for (auto first = recent.begin(); first != recent.end();) {
    const std::int64_t block = block_of(*first);
    std::string bits = read_bits(tx.sql, block);
    for (; first != recent.end() && block_of(*first) == block; ++first)
      flip(bits, *first);
    write_bits(tx.sql, block, bits);
  }
  execute(tx.sql, kForgetAllRecent);
}

bool is_worthwhile(Tx& tx) {
  const std::int64_t cancelled = select_integer(tx.sql, kCounter, "cancelled").value_or(0);
  if (cancelled <= 0) return false;
  return cancelled * kPartOfScheduled >= select_integer(tx.sql, kCounter, "scheduled").value_or(0);
}

/// The first half of a pass: a step along `schedule`.
void remove_rows(Tx& tx, CancelledPass& pass) {
  std::vector<std::pair<std::int64_t, std::int64_t>> cancelled;
  std::int64_t looked = 0;
  {
    Query rows(tx.sql, kDueRows, pass.due_us, pass.body_id, INT64_MAX, kRowsPerStep);
    for (; rows.row(); ++looked) {
      pass.due_us = rows.integer(0);
      pass.body_id = rows.integer(1);
      if (is_cancelled(tx.sql, pass.body_id)) cancelled.emplace_back(pass.due_us, pass.body_id);
    }
  }
  for (const auto& [due_us, body_id] : cancelled)
    delete_due_row(tx, due_us, body_id);
  pass.rows_gone = looked < kRowsPerStep;
}

/// The second half: a step along the bodies. True: there are more.
bool remove_bodies(Tx& tx, CancelledPass& pass) {
  for (std::size_t left = kBodiesPerStep; left > 0;) {
    std::int64_t block = 0;
    std::string bits;
    {
      Query row(tx.sql, kNextBits, block_of(pass.body_id));
      if (!row.row()) return false;
      block = row.integer(0);
      bits = row.blob(1);
    }
    bits.resize(kBlockBytes);
    const std::int64_t end = (block + 1) << kBlockShift;
    pass.body_id = std::max(pass.body_id, block << kBlockShift);
    for (; pass.body_id < end && left > 0; ++pass.body_id) {
      if (!has(bits, pass.body_id)) continue;
      --left;
      if (select_integer(tx.sql, kHasRow, pass.body_id)) continue;
      execute(tx.sql, kDeleteBody, pass.body_id);
      flip(bits, pass.body_id);
      --tx.cancelled;
    }
    write_bits(tx.sql, block, bits);
    if (!tx.sql.ok()) return false;
  }
  return true;
}

}  // namespace

bool is_cancelled(Connection& sql, std::int64_t body_id) {
  Query row(sql, kIsCancelled, body_id, block_of(body_id));
  return row.row() && (row.integer(0) != 0 || (!row.is_null(1) && has(row.blob(1), body_id)));
}

bool any_cancelled(Connection& sql) { return select_integer(sql, kAny).value_or(0) != 0; }

void note_cancelled(Tx& tx, std::int64_t body_id) {
  execute(tx.sql, kPutRecent, body_id);
  tx.cancelled_some = true;
  --tx.scheduled;
  ++tx.cancelled;
}

void settle_cancelled(Tx& tx) {
  if (!tx.cancelled_some) return;
  if (select_integer(tx.sql, kCountRecent).value_or(0) > kRecentMax) gather_recent(tx);
}

void remove_cancelled(Tx& tx, std::int64_t body_id) {
  execute(tx.sql, kDeleteBody, body_id);
  execute(tx.sql, kForgetRecent, body_id);
  if (tx.sql.changes() > 0) {
    --tx.cancelled;
    return;
  }
  std::string bits = read_bits(tx.sql, block_of(body_id));
  if (!has(bits, body_id)) return;
  flip(bits, body_id);
  write_bits(tx.sql, block_of(body_id), bits);
  --tx.cancelled;
}

bool sweep_cancelled(Tx& tx, CancelledPass& pass) {
  if (!pass.runs) {
    if (!is_worthwhile(tx)) return false;
    pass = {};
    pass.runs = true;
  }
  if (!pass.rows_gone) {
    remove_rows(tx, pass);
    tx.catalog.due_generation = kNoGeneration;
    if (!pass.rows_gone) return true;
    gather_recent(tx);  // of some the rows went just now
    pass.body_id = 0;
  }
  pass.runs = remove_bodies(tx, pass);
  return pass.runs;
}

}  // namespace towline::drivers::sqlite
