// Publishing, promoting and sweeping. Publishing first checks everything, so that a refused batch leaves no
// trace, and then moves the envelopes into one batch that the logs share.

#include "drivers/memory/hub.hpp"

#include <algorithm>
#include <utility>

namespace towline::drivers::memory {

bool Hub::make_room(std::uint64_t bytes, Moment now) {
  if (meter.fits(bytes)) return true;
  bool more = false;
  (void)queue.trim(now, SIZE_MAX, more);
  schedule.forget_fired(now);
  (void)dedup_ids.sweep(now.wall, SIZE_MAX);
  (void)inbox.sweep(now.wall, SIZE_MAX);
  (void)idempotency.sweep(now.wall, SIZE_MAX);
  return meter.fits(bytes);
}

std::optional<MessageId> Hub::find_dedup(std::string_view topic, std::string_view dedup_id,
                                         TimePoint now) const {
  if (dedup_id.empty()) return std::nullopt;
  const MessageId* holder = dedup_ids.find(joined(topic, dedup_id), now);
  return holder == nullptr ? std::nullopt : std::optional(*holder);
}

void Hub::hold_dedup(const spi::Envelope& envelope) {
  const bool window = envelope.dedup_mode == DedupMode::kWindow;
  dedup_ids.put(joined(envelope.topic, envelope.dedup_id), envelope.id,
                window ? envelope.dedup_until : kNever);
}

Result<std::vector<spi::PublishAnswer>> Hub::publish(std::span<spi::Envelope> envelopes, Moment now) {
  std::vector<spi::PublishAnswer> answers;
  std::uint64_t bytes = 0;
  std::uint32_t partition_count = 0;
  for (std::size_t i = 0; i < envelopes.size(); ++i) {
    const spi::Envelope& envelope = envelopes[i];
    if (i == 0 || envelope.topic != envelopes[i - 1].topic)
      partition_count = queue.partition_count(envelope.topic);
    if (auto bad = base::check_envelope(envelope, partition_count); !bad) {
      answers.resize(envelopes.size());
      answers[i].rejected = std::move(bad).error();
    } else if (!deduplicates(envelope) || !find_dedup(envelope.topic, envelope.dedup_id, now.wall)) {
      bytes += size_of(envelope);
    }
  }
  if (bytes > 0 && !make_room(bytes, now)) {
    return Error{ErrorCode::kOverloaded, "the memory provider keeps " + std::to_string(meter.used) +
                                             " bytes and " + std::to_string(bytes) +
                                             " more would exceed bytes_max=" + std::to_string(meter.max) +
                                             "; consume, wait, or raise bytes_max"};
  }
  std::vector<spi::Envelope> stored;
  stored.reserve(envelopes.size());
  for (std::size_t i = 0; i < envelopes.size(); ++i) {
    if (!answers.empty() && answers[i].rejected) continue;
    if (deduplicates(envelopes[i])) {
      if (const auto holder = find_dedup(envelopes[i].topic, envelopes[i].dedup_id, now.wall)) {
        answers.resize(envelopes.size());
        answers[i].duplicate = true;
        answers[i].original = *holder;
        continue;
      }
      hold_dedup(envelopes[i]);
    }
    stored.push_back(std::move(envelopes[i]));
  }
  queue.append(std::move(stored), now);
  return answers;
}

Streams& Hub::streams(spi::StreamSpace space) noexcept {
  switch (space) {
    case spi::StreamSpace::kEvents:
      return events;
    case spi::StreamSpace::kConversations:
      return conversations;
    case spi::StreamSpace::kSagas:
      break;
  }
  return saga_logs;
}

void Hub::promote_due(const spi::DueRequest& request, Moment now, spi::DueBatch& out) {
  std::vector<spi::Envelope> promoted;
  schedule.take_due(request, now, &promoted, out);
  queue.append(std::move(promoted), now);
}

spi::SweepReport Hub::sweep(const spi::SweepRequest& request, Moment now) {
  spi::SweepReport report;
  std::size_t left = request.count_max;
  const auto took = [&left](std::uint64_t count) {
    left -= std::min<std::size_t>(left, static_cast<std::size_t>(count));
    return count;
  };
  schedule.forget_fired(now);
  report.dead_letters = took(dead_letters.sweep(request, left));
  report.idempotency_records = took(idempotency.sweep(now.wall, left));
  report.inbox_records = took(inbox.sweep(now.wall, left));
  report.dedup_ids = took(dedup_ids.sweep(now.wall, left));
  for (const std::string& stream : sagas.sweep(now.wall, left)) {
    saga_logs.erase(stream);
    ++report.sagas;
  }
  left -= static_cast<std::size_t>(report.sagas);
  report.client_positions = took(clients.sweep_positions(now.wall, left));
  report.missed_messages = took(clients.sweep_missed(now.wall, left));
  report.messages = took(queue.trim(now, left, report.more));
  report.more = report.more || left == 0;
  return report;
}

}  // namespace towline::drivers::memory
