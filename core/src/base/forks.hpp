#pragma once
// What fork() leaves behind. A child has the parent's handles and memory but none of its threads, and may not
// touch the parent's files, so it must know that it is a child.

#include <cstdint>

namespace towline::base {

/// Grows in each forked child: what was made under another generation is not this process's. Thread-safe.
[[nodiscard]] std::uint64_t fork_generation() noexcept;

/// The descriptor is closed in forked children: a lock that a child shares would outlive the parent.
void close_in_child(int file);
void forget_in_child(int file) noexcept;

}  // namespace towline::base
