#pragma once
// Janitor: what must happen now and then whether or not messages flow: removing what has expired, trimming
// conversations, alerts, automatic redrives.

#include <memory>

#include "engine/context.hpp"
#include "engine/conversations.hpp"
#include "engine/dead_letters.hpp"
#include "engine/saga_records.hpp"

namespace towline::engine {

/// Driven by one thread.
class Janitor {
 public:
  Janitor(std::shared_ptr<Context> context, DeadLetters& dead_letters, Conversations& conversations,
          SagaRecords& sagas);
  /// One bounded step. Returns when it wants the next one.
  MonotonicTime step(MonotonicTime now);

 private:
  const std::shared_ptr<Context> context_;
  DeadLetters& dead_letters_;
  Conversations& conversations_;
  SagaRecords& sagas_;
};

}  // namespace towline::engine
