#pragma once
// What is left of delayed messages that fired and are done: the ids of which remain for a day, so that
// cancel() can say that it came too late, and the bodies, which go later, many at once.

#include <cstddef>
#include <string_view>

#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

/// On any connection.
[[nodiscard]] bool has_fired(Connection& sql, const MessageId& id);
/// Remembers that these records (16 bytes each) fired.
void remember_fired(Tx& tx, std::string_view record_ids);
/// Forgets a part of what fired more than a day ago, or more than some two million ids ago; false: nothing
/// more is that old.
bool forget_fired(Tx& tx);

/// Notes the bodies of messages that were trimmed since the last time.
void gather_fired(Tx& tx, LogState& log);
/// Removes some of the bodies that `settled_count` settled messages may have left, once there are many; every
/// transaction that settles pays for its share.
void remove_fired(Tx& tx, std::size_t settled_count);
/// For a log that rests: removes bodies however few there are, at most `count_max`. True: there are more.
bool remove_all_fired(Tx& tx, std::size_t count_max);

}  // namespace towline::drivers::sqlite
