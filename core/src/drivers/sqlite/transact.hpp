#pragma once
// What the parts around handler transactions must know of them.

#include "drivers/sqlite/connection.hpp"

namespace towline::drivers::sqlite {

class Database;

/// Whether the calling thread runs the body of a handler transaction of this database, and so leads its
/// writer: it must not wait for itself.
[[nodiscard]] bool leads_transaction(const Database& database) noexcept;

/// Sets what SQL of handler transactions may do on the connection.
void restrict_user_sql(Connection& connection);

}  // namespace towline::drivers::sqlite
