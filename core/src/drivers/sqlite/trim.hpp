#pragma once
// Removing messages that nobody is owed any more.

#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

struct Trimmed {
  std::uint64_t messages = 0;
  bool more = false;
};

/// Removes at most `count_max` messages from the low ends of all logs.
[[nodiscard]] Trimmed trim_all(Tx& tx, std::size_t count_max);
/// The same for logs of which much was settled in this process; cheap when there is none.
void trim_settled(Tx& tx, std::size_t count_max);
/// Writes Log::trimmed and Log::body_last where they changed.
void flush_logs(Tx& tx);

}  // namespace towline::drivers::sqlite
