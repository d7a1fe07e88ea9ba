// The child's handler may only do what is safe in a signal handler: it stores and closes.

#include "base/forks.hpp"

#include <array>
#include <atomic>
#include <memory>

#include <pthread.h>
#include <unistd.h>

namespace towline::base {
namespace {

constexpr int kNone = 0;  // otherwise a descriptor plus one
constexpr std::size_t kFilesPerBlock = 256;

/// Blocks are added and never taken away, so the child may walk them whatever its parent was doing.
struct Block {
  std::array<std::atomic<int>, kFilesPerBlock> files{};
  std::atomic<Block*> next{nullptr};
};

std::atomic<std::uint64_t> g_generation{0};
Block g_first;

void in_child() noexcept {
  g_generation.fetch_add(1);
  for (Block* block = &g_first; block != nullptr; block = block->next.load()) {
    for (auto& file : block->files) {
      const int number = file.exchange(kNone);
      if (number != kNone) ::close(number - 1);
    }
  }
}

/// Changes the first place that holds `from`; false: none does.
bool change(Block& block, int from, int to) noexcept {
  for (auto& place : block.files) {
    int expected = from;
    if (place.compare_exchange_strong(expected, to)) return true;
  }
  return false;
}

Block& after(Block& block) {
  if (Block* next = block.next.load()) return *next;
  auto made = std::make_unique<Block>();
  Block* next = nullptr;
  // Another thread may have been faster; then its block serves both.
  if (block.next.compare_exchange_strong(next, made.get())) next = made.release();
  return *next;
}

const bool g_watched = ::pthread_atfork(nullptr, nullptr, &in_child) == 0;

}  // namespace

std::uint64_t fork_generation() noexcept {
  (void)g_watched;
  return g_generation.load(std::memory_order_relaxed);
}

void close_in_child(int file) {
  for (Block* block = &g_first; !change(*block, kNone, file + 1);)
    block = &after(*block);
}

void forget_in_child(int file) noexcept {
  for (Block* block = &g_first; block != nullptr; block = block->next.load()) {
    if (change(*block, file + 1, kNone)) return;
  }
}

}  // namespace towline::base
