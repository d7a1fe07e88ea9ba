// Janitor: each step is bounded, so that it never stands in the way of settling for long.

#include "engine/janitor.hpp"

namespace towline::engine {
namespace {

constexpr std::size_t kSweepCount = 2000;
constexpr Duration kMoreSoon = std::chrono::milliseconds(10);

}  // namespace

Janitor::Janitor(std::shared_ptr<Context> context, DeadLetters& dead_letters, Conversations& conversations,
                 SagaRecords& sagas)
    : context_(std::move(context)),
      dead_letters_(dead_letters),
      conversations_(conversations),
      sagas_(sagas) {}

MonotonicTime Janitor::step(MonotonicTime now) {
  spi::SweepRequest request;
  request.now = context_->clock->now();
  request.count_max = kSweepCount;
  request.dead_letters_before = request.now - context_->options.dead_letter_age_max;
  request.dead_letter_count_max = static_cast<std::uint64_t>(context_->options.dead_letter_count_max);
  auto report = context_->store->sweep(request);
  if (!report) {
    if (report.error().code == ErrorCode::kIoError) context_->fail(report.error());
    context_->log(LogLevel::kWarning, "janitor", report.error().to_string());
    return now + context_->options.sweep_interval;
  }
  context_->counters.swept.fetch_add(
      report->dead_letters + report->idempotency_records + report->inbox_records + report->dedup_ids,
      std::memory_order_relaxed);
  if (report->dead_letters > 0) {
    context_->log(LogLevel::kInfo, "janitor",
                  "removed " + std::to_string(report->dead_letters) + " dead letters by age or count");
  }
  dead_letters_.watch(now);
  conversations_.trim_some();
  sagas_.watch(now);
  return now + (report->more ? kMoreSoon : context_->options.sweep_interval);
}

}  // namespace towline::engine
