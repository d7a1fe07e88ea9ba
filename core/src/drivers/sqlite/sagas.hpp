#pragma once
// What is known of sagas without their logs, which are streams.

#include <cstdint>
#include <optional>
#include <string_view>

#include <towline/spi/store.hpp>

#include "drivers/sqlite/connection.hpp"
#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

void put_saga(Tx& tx, const spi::PutSaga& write);
[[nodiscard]] std::optional<SagaInfo> find_saga(Connection& sql, std::string_view type, std::string_view id);
[[nodiscard]] Result<Page<SagaInfo>> list_sagas(Connection& sql, const SagaQuery& query);
/// Removes at most so many of those that have expired, with their streams.
[[nodiscard]] std::uint64_t sweep_sagas(Tx& tx, TimePoint now, std::size_t count_max);

}  // namespace towline::drivers::sqlite
