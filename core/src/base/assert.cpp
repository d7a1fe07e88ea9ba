// The failure path of TOWLINE_ASSERT: tell the installed handler, or abort with one line on standard error.

#include "base/assert.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace towline::base {
namespace {

std::atomic<AssertionHandler> installed_handler{nullptr};

}  // namespace

AssertionHandler set_assertion_handler(AssertionHandler handler) noexcept {
  return installed_handler.exchange(handler, std::memory_order_acq_rel);
}

bool assertion_failed(const char* condition, const char* file, int line) noexcept {
  const AssertionFailure failure{condition, file, line};
  if (const AssertionHandler handler = installed_handler.load(std::memory_order_acquire); handler != nullptr) {
    handler(failure);
    return false;
  }
  std::fprintf(stderr, "towline: assertion failed: %s (%s:%d)\n", condition, file, line);
  std::abort();
}

}  // namespace towline::base
