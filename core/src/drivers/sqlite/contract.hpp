#pragma once
// The contract for SQL of others (README.md): the outbox, and the views that other programs write to.

namespace towline::drivers::sqlite {

/// The statements that make them; belongs to version 5 of the schema.
[[nodiscard]] const char* contract_sql();

}  // namespace towline::drivers::sqlite
