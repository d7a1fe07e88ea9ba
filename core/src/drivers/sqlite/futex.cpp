// See the header.

#include "drivers/sqlite/futex.hpp"

#include <ctime>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace towline::drivers::sqlite {
namespace {

constexpr std::int64_t kUsPerSecond = 1'000'000;
constexpr std::int64_t kNsPerUs = 1'000;

int with_reach(int operation, Reach reach) noexcept {
  return reach == Reach::kThreads ? operation | FUTEX_PRIVATE_FLAG : operation;
}

}  // namespace

void futex_wait(Word& word, std::uint32_t expected, std::int64_t timeout_us, Reach reach) noexcept {
  timespec timeout{};
  timeout.tv_sec = timeout_us / kUsPerSecond;
  timeout.tv_nsec = timeout_us % kUsPerSecond * kNsPerUs;
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), with_reach(FUTEX_WAIT, reach), expected,
            timeout_us < 0 ? nullptr : &timeout, nullptr, 0);
}

void futex_wake(Word& word, int count, Reach reach) noexcept {
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), with_reach(FUTEX_WAKE, reach), count, nullptr,
            nullptr, 0);
}

}  // namespace towline::drivers::sqlite
