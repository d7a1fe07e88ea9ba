#pragma once
// What this process holds, read from the kernel: for tests that must give back everything they took.

#include <cstddef>

namespace towline::support {

/// Threads of this process.
[[nodiscard]] std::size_t thread_count();
/// Open file descriptors of this process.
[[nodiscard]] std::size_t fd_count();
/// Resident memory in bytes.
[[nodiscard]] std::size_t resident_bytes();

}  // namespace towline::support
