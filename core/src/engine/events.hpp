#pragma once
// Events: appends to streams and reads them. Checks what the user gives and hands on to the store.

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include <towline/event_store.hpp>
#include <towline/spi/store.hpp>

#include "engine/context.hpp"

namespace towline::engine {

/// 1..255 bytes of visible ASCII. kInvalidName.
[[nodiscard]] Result<void> check_stream(std::string_view stream);

/// Any thread.
class Events {
 public:
  explicit Events(std::shared_ptr<Context> context) : context_(std::move(context)) {}

  /// The write that appending is, checked; for somebody's transaction.
  [[nodiscard]] static Result<spi::AppendEvents> as_write(Context& context, std::string_view stream,
                                                          std::vector<NewEvent> events,
                                                          std::optional<std::uint64_t> expected);
  [[nodiscard]] Result<Appended> append(std::string_view stream, std::vector<NewEvent> events,
                                        std::optional<std::uint64_t> expected);
  [[nodiscard]] Result<EventPage> read(const spi::StreamRead& read);
  [[nodiscard]] Result<std::optional<StreamInfo>> find_stream(std::string_view stream);
  [[nodiscard]] Result<Page<StreamInfo>> streams(std::string_view prefix, std::size_t count_max,
                                                 std::string_view cursor);
  Result<void> truncate(std::string_view stream, std::uint64_t before_version);
  Result<void> save_snapshot(std::string_view stream, Snapshot snapshot);
  [[nodiscard]] Result<std::optional<Snapshot>> find_snapshot(std::string_view stream);

 private:
  const std::shared_ptr<Context> context_;
};

}  // namespace towline::engine
