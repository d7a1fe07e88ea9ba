#pragma once
// Janitor: what must happen now and then whether or not messages flow: removing what has expired, alerts,
// automatic redrives.

#include <memory>

#include "engine/context.hpp"
#include "engine/dead_letters.hpp"

namespace towline::engine {

/// Driven by one thread.
class Janitor {
 public:
  Janitor(std::shared_ptr<Context> context, DeadLetters& dead_letters);
  /// One bounded step. Returns when it wants the next one.
  MonotonicTime step(MonotonicTime now);

 private:
  const std::shared_ptr<Context> context_;
  DeadLetters& dead_letters_;
};

}  // namespace towline::engine
