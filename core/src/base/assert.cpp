// The failure path of TOWLINE_ASSERT: tell the installed handler, or abort with one line on standard error.

#include "base/assert.hpp"

#include <atomic>
#include <stdexcept>
#include <string>

namespace towline::base {
namespace {

std::atomic<AssertionHandler> installed_handler{nullptr};

// An exception that leaves a noexcept function ends the process, and the runtime prints its text on the way:
// the abort and the line on standard error that we want, without any I/O of our own.
[[noreturn]] void raise(const AssertionFailure& failure) {
  throw std::logic_error("towline: assertion failed: " + std::string(failure.condition) + " (" +
                         failure.file + ":" + std::to_string(failure.line) + ")");
}

}  // namespace

AssertionHandler set_assertion_handler(AssertionHandler handler) noexcept {
  return installed_handler.exchange(handler, std::memory_order_acq_rel);
}

bool assertion_failed(const char* condition, const char* file, int line) noexcept {
  const AssertionFailure failure{condition, file, line};
  if (const AssertionHandler handler = installed_handler.load(std::memory_order_acquire);
      handler != nullptr) {
    handler(failure);
    return false;
  }
  raise(failure);
}

}  // namespace towline::base
