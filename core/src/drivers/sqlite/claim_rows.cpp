// See the header for the format of the entries and for why one empty row stays.

#include "drivers/sqlite/claim_rows.hpp"

#include <string>
#include <utility>

#include "base/varint.hpp"

namespace towline::drivers::sqlite {
namespace {

constexpr const char* kSelect =
    "SELECT id, group_id, member_id, log_id, first_seq, count, remaining, entries, settled, lease_us, "
    "lease_until_us"
    " FROM claim WHERE remaining > 0";
constexpr const char* kInsert =
    "INSERT INTO claim(id, group_id, member_id, log_id, first_seq, count, remaining, entries, settled, "
    "lease_us,"
    " lease_until_us) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, NULL, ?8, ?9)";
constexpr const char* kUpdate = "UPDATE claim SET remaining = ?2, settled = ?3 WHERE id = ?1";
constexpr const char* kEmpty =
    "UPDATE claim SET member_id = 0, remaining = 0, entries = NULL, settled = NULL WHERE id = ?1";
constexpr const char* kDelete = "DELETE FROM claim WHERE id = ?1";
constexpr const char* kExists = "SELECT 1 FROM claim WHERE id = ?1 AND remaining > 0";
constexpr const char* kLast = "SELECT id, remaining FROM claim ORDER BY id DESC LIMIT 1";

std::string encode(const std::vector<Entry>& entries, Seq first) {
  std::string blob;
  blob.reserve(entries.size() * 3);
  base::ByteWriter writer(blob);
  Seq before = first;
  for (const Entry& entry : entries) {
    writer.signed_varint(entry.seq - before);
    writer.varint(entry.partition);
    writer.varint(std::uint64_t{entry.crashes} << 1 | (entry.suspect ? 1 : 0));
    before = entry.seq;
  }
  return blob;
}

std::vector<Entry> decode(std::string_view blob, Seq first, std::uint32_t count) {
  std::vector<Entry> entries;
  base::ByteReader reader(blob);
  Seq before = first;
  while (entries.size() < count) {
    const std::int64_t step = reader.signed_varint();
    const std::uint64_t partition = reader.varint();
    const std::uint64_t flags = reader.varint();
    if (!reader.ok()) break;
    // Damaged bytes may say anything; they must not run over.
    before = static_cast<Seq>(static_cast<std::uint64_t>(before) + static_cast<std::uint64_t>(step));
    entries.push_back({before, static_cast<std::uint32_t>(partition), static_cast<std::uint32_t>(flags >> 1),
                       (flags & 1) != 0});
  }
  return entries;
}

}  // namespace

void load_lease_last(Tx& tx) {
  Catalog& catalog = tx.catalog;
  if (catalog.numbers_generation == catalog.generation) return;
  Query last(tx.sql, kLast);
  const bool any = last.row();
  catalog.lease_last = any ? last.integer(0) : 0;
  catalog.lease_mark = any && last.integer(1) == 0;
  catalog.numbers_generation = catalog.generation;
}

void for_each_claim(Tx& tx, const std::function<void(Claim&&)>& visit) {
  Query rows(tx.sql, kSelect);
  while (rows.row()) {
    Claim claim;
    claim.lease = rows.integer(0);
    claim.group_id = rows.integer(1);
    claim.member_id = rows.integer(2);
    claim.log_id = rows.integer(3);
    claim.first = rows.integer(4);
    claim.count = rows.u32(5);
    claim.remaining = rows.u32(6);
    if (!rows.is_null(7)) {
      claim.entries = decode(rows.blob(7), claim.first, claim.count);
      claim.count = static_cast<std::uint32_t>(claim.entries.size());
    }
    const std::string_view settled = rows.blob(8);
    if (settled.size() == (claim.count + 7) / 8) claim.settled.assign(settled.begin(), settled.end());
    claim.lease_duration = Duration(rows.integer(9));
    claim.lease_until_wall = from_us(rows.integer(10));
    visit(std::move(claim));
  }
}

void insert_claim(Tx& tx, Claim& claim) {
  load_lease_last(tx);
  Catalog& catalog = tx.catalog;
  if (catalog.lease_mark) execute(tx.sql, kDelete, catalog.lease_last);
  catalog.lease_mark = false;
  claim.lease = ++catalog.lease_last;
  claim.generation = catalog.generation;
  std::string entries;
  std::optional<Blob> blob;
  if (!claim.entries.empty()) {
    entries = encode(claim.entries, claim.first);
    blob = Blob{entries};
  }
  execute(tx.sql, kInsert, claim.lease, claim.group_id, claim.member_id, claim.log_id, claim.first,
          claim.count, blob, claim.lease_duration.count(), to_us(claim.lease_until_wall));
}

void update_claim(Tx& tx, const Claim& claim) {
  if (claim.remaining > 0) {
    const std::string_view bits(reinterpret_cast<const char*>(claim.settled.data()), claim.settled.size());
    execute(tx.sql, kUpdate, claim.lease, claim.remaining, Blob{bits});
    return;
  }
  load_lease_last(tx);
  if (claim.lease == tx.catalog.lease_last) {
    execute(tx.sql, kEmpty, claim.lease);
    tx.catalog.lease_mark = true;
  } else {
    execute(tx.sql, kDelete, claim.lease);
  }
}

bool claim_exists(Tx& tx, std::int64_t lease) { return select_integer(tx.sql, kExists, lease).has_value(); }

}  // namespace towline::drivers::sqlite
