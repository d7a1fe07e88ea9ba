#pragma once
// Batches of events whose handlers run elsewhere. The engine's thread that would run a handler waits here
// until the binding says what came of the batch; so a checkpoint moves, an error backs off and closing waits
// as with a handler of its own. Handlers hold it by shared pointer: they may outlive the port by a moment.

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

#include <towline/event_store.hpp>

#include "port/mailbox.hpp"

namespace towline::port {

class EventDesk : public std::enable_shared_from_this<EventDesk> {
 public:
  explicit EventDesk(std::shared_ptr<Mailbox> mailbox) : mailbox_(std::move(mailbox)) {}

  /// Puts each batch into the mailbox under this id, and returns or throws what finish() is told of it.
  [[nodiscard]] EventHandler handler(std::uint64_t id);
  /// What came of the batch that is out; of none, nothing.
  void finish(std::uint64_t id, std::optional<ErrorInfo> error);
  /// The batch that is out, and those that come, fail at once. Idempotent.
  void leave(std::uint64_t id);
  /// leave() of all, and of those to come.
  void shut();

 private:
  struct Seat {
    bool is_out = false;
    std::optional<ErrorInfo> error = std::nullopt;
  };
  void work(std::uint64_t id, std::span<const RecordedEvent> events);

  const std::shared_ptr<Mailbox> mailbox_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::uint64_t, Seat> seats_;
  bool shut_ = false;
};

}  // namespace towline::port
