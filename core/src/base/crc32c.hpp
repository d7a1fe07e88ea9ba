#pragma once
// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78, initial and final value all ones), as in iSCSI, ext4
// and SSE 4.2: it finds every error burst of up to 32 bits and every change of a few bits in data of our
// size. It is no protection against somebody who changes data on purpose.

#include <cstdint>
#include <string_view>

namespace towline::base {

/// Of `data`; or, with the checksum of what came before it, of both together:
/// crc32c("ab") == crc32c("b", crc32c("a")).
[[nodiscard]] std::uint32_t crc32c(std::string_view data, std::uint32_t before = 0) noexcept;

namespace detail {
/// The same by tables alone, without the processor's instruction. For tests.
[[nodiscard]] std::uint32_t crc32c_by_table(std::string_view data, std::uint32_t before) noexcept;
}  // namespace detail

}  // namespace towline::base
