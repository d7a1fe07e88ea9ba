#pragma once
// A short program that does everything which writes: publishes, batches, delays, cancels, settles in every
// way, runs handler transactions, redrives, remembers. FLT-03, 04, 10 and 13 run it and end it somewhere;
// survey() then says whether what its ledger promises agrees with what the store holds.

#include <cstdint>
#include <string>
#include <vector>

#include <towline/towline.hpp>

#include "faults/notes.hpp"

namespace towline::faults {

inline constexpr std::int64_t kFarCancelled = 21;  ///< due in an hour, and cancelled
inline constexpr std::int64_t kFarKept = 22;       ///< due in an hour
inline constexpr std::int64_t kTwice = 23;         ///< published twice with one dedup id
inline constexpr std::int64_t kRedriven = 40;      ///< the dead letter that is sent back
inline constexpr std::int64_t kBatchFirst = 10;
inline constexpr std::int64_t kBatchLast = 19;

/// Everything the script publishes, in its order. Kinds: ok, once (naked the first time), park (to the dead
/// letters, unless redriven), tx (booked in the table `effect` within the acknowledgement's transaction),
/// far.
[[nodiscard]] const std::vector<Item>& script_items();

/// What a handler of the script does. `note` is told "acking" before and "gone" or "dead" after a settlement
/// that has answered well, and "unsettled" with the error after one that has not.
using Noting = void (*)(void* self, const char* what, std::int64_t number, const std::string& text);
void handle_script_item(Delivery& delivery, Noting note, void* self);
[[nodiscard]] Result<void> book_effect(Delivery& delivery, std::int64_t number);

struct Survey {
  std::uint64_t acked = 0, unknown = 0, rejected = 0;
  std::uint64_t recovered = 0;        ///< unknown, and there
  std::uint64_t lost = 0;             ///< promised, and not there
  std::vector<std::string> findings;  ///< every disagreement, losses among them
  /// The store was still being made when it ended, and what is there is refused as none.
  bool unmade = false;
  [[nodiscard]] bool clean() const noexcept { return findings.empty(); }
  [[nodiscard]] std::string to_string() const;
};

/// Opens the store, drains it and compares. `notes`: of the script's life.
[[nodiscard]] Survey survey(const std::string& url, const std::string& database,
                            const std::vector<Note>& notes);

}  // namespace towline::faults
