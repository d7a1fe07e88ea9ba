#pragma once
// Checks of our own state machines, kept in release builds. A false one is a bug of towline, never of its
// user: bad input is refused with an Error long before. We live inside somebody's process, so in release the
// engine installs a handler that stops the *engine* (every later call answers kInternal) and the process
// lives on. Without a handler, as in unit tests and tools, the process aborts, because a test must not pass
// over a broken invariant.
//
// The handler is the one piece of state that is shared by the whole process: an assertion deep in a pure
// function has no path to the engine that called it.

namespace towline::base {

/// What the handler is told. All three are literals and live for ever.
struct AssertionFailure {
  const char* condition;
  const char* file;
  int line;
};

/// Called on the thread that found the failure. May return; the code after the assertion then goes on. Must
/// not throw.
using AssertionHandler = void (*)(const AssertionFailure& failure) noexcept;

/// Installs `handler` for the process and returns the one before; nullptr: abort. Any thread.
AssertionHandler set_assertion_handler(AssertionHandler handler) noexcept;

/// Reports a failure to the handler, or aborts. Returns false, so that TOWLINE_ASSERT can be a condition.
bool assertion_failed(const char* condition, const char* file, int line) noexcept;

}  // namespace towline::base

/// True when `condition` holds. Where going on would do harm, leave: `if (!TOWLINE_ASSERT(n > 0)) return
/// error;`
#define TOWLINE_ASSERT(condition) \
  ((condition) ? true : ::towline::base::assertion_failed(#condition, __FILE__, __LINE__))
