#pragma once
// The log of a saga: what is written before a step runs and after it, in the order it happened. All that a
// saga is follows from its log; nothing about it is kept elsewhere.

#include <cstdint>
#include <optional>
#include <string_view>

#include <towline/saga.hpp>

namespace towline::saga {

using Mark = SagaMark;
using Entry = SagaEntry;
inline constexpr std::size_t kMarkCount = 17;

/// The mark of that name, as name_of(SagaMark) gives it.
[[nodiscard]] std::optional<Mark> mark_of(std::string_view name) noexcept;

}  // namespace towline::saga
