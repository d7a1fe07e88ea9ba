#pragma once
// The checkers K1 to K3 and K5 over the ledgers of a run: nothing acknowledged is lost, nothing comes from
// nowhere, every second handling is explained by a kill, order per key holds and no two handlers of a key
// overlap. Pure functions of the notes; judge_test.cpp plants breaches and sees each of them named.

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "faults/notes.hpp"

namespace towline::faults {

struct Expectation {
  std::vector<std::string> groups = {"group"};
  bool key_ordered = false;
  std::uint32_t attempts_max = 1;
  /// False: where calls to the store fail, a second handling needs to be marked, and no kill explains it.
  bool only_kills_explain = true;
  /// Not 0: so long after a handling began its lease may have ended, which explains a second one too.
  std::int64_t lease_end_us = 0;
  /// Numbers that are dead letters of every group at the end, as the listing says; they need no handling.
  std::set<std::int64_t> dead = {};
};

struct Judgement {
  std::uint64_t acked = 0, handled = 0, kills = 0, kills_into_work = 0;
  std::uint64_t lost = 0;         ///< acknowledged, neither handled nor dead
  std::uint64_t unexpected = 0;   ///< handled, and never published or rejected
  std::uint64_t duplicates = 0;   ///< handled again under the same attempt
  std::uint64_t lease_ends = 0;   ///< of those: the lease of one that was not killed had ended
  std::uint64_t unexplained = 0;  ///< of those: no kill explains it, or it was not marked as redelivered
  std::uint64_t order = 0;        ///< a first start before that of an earlier message of its key
  std::uint64_t overlaps = 0;     ///< two handlers of one key at once
  std::uint64_t attempts = 0;     ///< attempts that do not grow by one, or are too many
  std::vector<std::int64_t> resume_us;  ///< sorted: from a kill until what it interrupted began again
  std::vector<std::string> findings;    ///< the first of each kind

  [[nodiscard]] bool clean() const noexcept {
    return lost + unexpected + unexplained + order + overlaps + attempts == 0;
  }
  [[nodiscard]] std::int64_t resume_p(double share) const;
  [[nodiscard]] std::string to_string() const;
};

/// Notes that it reads: publishers' "acked", "unknown", "rejected" and "invoke"; handlers' "start" (text:
/// "key sequence ...") and "done", "failed" or "void"; and "killed" with the source as text.
[[nodiscard]] Judgement judge(const std::vector<Note>& notes, const Expectation& expected);

}  // namespace towline::faults
