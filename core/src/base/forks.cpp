// The child's handler may only do what is safe in a signal handler: it stores and closes.

#include "base/forks.hpp"

#include <array>
#include <atomic>

#include <pthread.h>
#include <unistd.h>

namespace towline::base {
namespace {

constexpr int kNone = 0;  // otherwise a descriptor plus one
constexpr std::size_t kFileCountMax = 256;

std::atomic<std::uint64_t> g_generation{0};
std::array<std::atomic<int>, kFileCountMax> g_files{};

void in_child() noexcept {
  g_generation.fetch_add(1);
  for (auto& file : g_files) {
    const int number = file.exchange(kNone);
    if (number != kNone) ::close(number - 1);
  }
}

const bool g_watched = ::pthread_atfork(nullptr, nullptr, &in_child) == 0;

}  // namespace

std::uint64_t fork_generation() noexcept {
  (void)g_watched;
  return g_generation.load(std::memory_order_relaxed);
}

void close_in_child(int file) noexcept {
  for (auto& slot : g_files) {
    int none = kNone;
    if (slot.compare_exchange_strong(none, file + 1)) return;
  }
}

void forget_in_child(int file) noexcept {
  for (auto& slot : g_files) {
    int number = file + 1;
    if (slot.compare_exchange_strong(number, kNone)) return;
  }
}

}  // namespace towline::base
