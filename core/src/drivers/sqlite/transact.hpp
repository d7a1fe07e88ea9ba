#pragma once
// What the parts around handler transactions must know of them.

#include "drivers/sqlite/connection.hpp"

namespace towline::drivers::sqlite {

/// Whether the calling thread runs the body of a handler transaction, and so leads the writer.
[[nodiscard]] bool leads_transaction() noexcept;

/// Sets what SQL of handler transactions may do on the connection.
void restrict_user_sql(Connection& connection);

}  // namespace towline::drivers::sqlite
