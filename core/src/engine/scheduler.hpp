#pragma once
// Scheduler: moves due records to their topics.
//
// A delayed message, a retry, a deferral and an outbox message are the same record here. Where the transport
// is the store the move is one transaction. Elsewhere the order is claim, publish, erase: dying between the
// last two publishes twice under the same id, which the inbox drops; the other order would lose the message.

#include <memory>
#include <vector>

#include <towline/message.hpp>
#include <towline/spi/store.hpp>

#include "engine/context.hpp"
#include "engine/dead_letter_entry.hpp"
#include "policy/rate_limit.hpp"

namespace towline::engine {

/// step() is driven by one thread; the rest may be called from any.
class Scheduler {
 public:
  explicit Scheduler(std::shared_ptr<Context> context);

  /// Moves what is due, waiting until `wait_until` for something to come due. Returns when it wants to be
  /// called again: at once, or later when the provider failed or the catch-up rate is spent.
  MonotonicTime step(MonotonicTime wait_until);
  void wake() noexcept { context_->store->wake(); }

  [[nodiscard]] Result<ScheduleAnswer> cancel(const MessageId& id);
  [[nodiscard]] Result<std::vector<ScheduleAnswer>> cancel_batch(const std::vector<MessageId>& ids);
  [[nodiscard]] Result<ScheduleAnswer> reschedule(const MessageId& id, TimePoint due_at);
  [[nodiscard]] Result<Page<Scheduled>> pending(std::string_view topic, std::size_t count_max,
                                                std::string_view cursor);

 private:
  Result<void> relay(std::vector<spi::ScheduleRecord>& records);
  /// The record becomes a dead letter, unless somebody else has it by now.
  Result<void> give_up(const spi::ScheduleRecord& record, spi::Version version, EntryFacts facts);
  void give_up_if_rejected(const spi::EraseSchedule& claimed, const Error& error);
  /// True when the record was too late by its own rule and became a dead letter.
  Result<bool> give_up_if_too_late(const spi::ScheduleRecord& record, TimePoint now);
  [[nodiscard]] Result<ScheduleAnswer> change(const MessageId& id, const spi::Unit& unit);
  /// What it means for the message that the store did this.
  [[nodiscard]] Result<ScheduleAnswer> answer_of(const MessageId& id, const Result<void>& done);

  const std::shared_ptr<Context> context_;
  policy::RateLimit catch_up_;
};

}  // namespace towline::engine
