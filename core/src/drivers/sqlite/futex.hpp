#pragma once
// Waiting for a word to change, by the kernel's futex: across processes for the shared page, inside this one
// for the writer. Waking touches nothing but the address, so the word may be gone by then.

#include <atomic>
#include <cstdint>

namespace towline::drivers::sqlite {

using Word = std::atomic<std::uint32_t>;
static_assert(Word::is_always_lock_free && sizeof(Word) == 4);

enum class Reach : std::uint8_t { kThreads, kProcesses };

/// Returns when the word is woken or is not `expected` (any more), for no reason, or after `timeout_us`;
/// negative: no time-out.
void futex_wait(Word& word, std::uint32_t expected, std::int64_t timeout_us, Reach reach) noexcept;
void futex_wake(Word& word, int count, Reach reach) noexcept;

}  // namespace towline::drivers::sqlite
