// Repetitions and expectations of appends; see the header.

#include "base/streams.hpp"

#include <string>

#include "base/text.hpp"

namespace towline::base {

Result<std::optional<std::uint64_t>> find_repeated(
    std::string_view stream, std::span<const RecordedEvent> events,
    const std::function<std::optional<std::uint64_t>(const MessageId&)>& version_of) {
  std::optional<std::uint64_t> first;
  for (std::size_t i = 0; i < events.size(); ++i) {
    const auto version = version_of(events[i].id);
    if (i == 0) first = version;
    const bool fits = first.has_value() == version.has_value() && (!first || *version == *first + i);
    if (fits) continue;
    return Error{ErrorCode::kConflict,
                 "event " + events[i].id.to_string() + " is " + (version ? "in" : "not in") + " stream " +
                     escape(stream, 64) +
                     ", unlike those before it in this append: an append can be repeated "
                     "only as it was"};
  }
  return first;
}

Result<void> check_expected(std::string_view stream, std::uint64_t newest,
                            std::optional<std::uint64_t> expected) {
  if (!expected || *expected == newest) return {};
  const auto text = [](std::uint64_t version) {
    return version == 0 ? std::string("no event") : "version " + std::to_string(version);
  };
  return Error{ErrorCode::kConflict, "stream " + escape(stream, 64) + " has " + text(newest) +
                                         ", but the append expects " + text(*expected) +
                                         "; read on from there and decide again"};
}

Error second_append(std::string_view stream) {
  return {ErrorCode::kInvalidArgument,
          "one unit appends to stream " + escape(stream, 64) + " twice; put all events into one append"};
}

Error no_such_id(std::string_view stream, const MessageId& id) {
  return {ErrorCode::kNotFound,
          "stream " + escape(stream, 64) + " has no event " + id.to_string() + " to read on from"};
}

std::vector<spi::Write> copies_of(const spi::AppendEvents& write, std::uint64_t first_version) {
  std::vector<spi::Write> copies;
  copies.reserve(write.copies.size());
  for (std::size_t i = 0; i < write.copies.size(); ++i) {
    spi::Envelope envelope = write.copies[i];
    envelope.headers.emplace_back("towline-sequence", std::to_string(first_version + i));
    if (!write.copies_due_at) {
      copies.emplace_back(spi::Publish{std::move(envelope)});
      continue;
    }
    spi::ScheduleRecord record;
    record.id = envelope.id;
    record.envelope = std::move(envelope);
    record.due_at = *write.copies_due_at;
    copies.emplace_back(spi::PutSchedule{std::move(record)});
  }
  return copies;
}

Error no_such_version(std::string_view stream, std::uint64_t version) {
  return {ErrorCode::kNotFound, "stream " + escape(stream, 64) + " has no version " +
                                    std::to_string(version) + " that a snapshot could stand for"};
}

}  // namespace towline::base
