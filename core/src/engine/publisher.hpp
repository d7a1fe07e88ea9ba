#pragma once
// Publisher: validates a message, gives it its identity and partition, and stores it.

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <towline/event_store.hpp>
#include <towline/message.hpp>
#include <towline/options.hpp>
#include <towline/spi/store.hpp>

#include "engine/context.hpp"
#include "engine/permits.hpp"

namespace towline::engine {

/// Any thread; has no state of its own but the bound on calls in flight.
class Publisher {
 public:
  explicit Publisher(std::shared_ptr<Context> context);

  [[nodiscard]] Receipt publish(Message message);
  [[nodiscard]] Result<std::vector<Receipt>> publish_batch(std::vector<Message> messages);
  [[nodiscard]] Receipt publish_with_retry(Message message, const RetryOptions& retry,
                                           std::optional<Duration> timeout);
  /// The write that publishing the message is, for somebody else's transaction.
  [[nodiscard]] Result<spi::Write> as_write(Message message) {
    return as_write(std::move(message), context_->clock->now());
  }
  /// As if it were published then.
  [[nodiscard]] Result<spi::Write> as_write(Message message, TimePoint at);
  /// The same for events of the store, each under its own id and with where it is from; in a commit of the
  /// store, whatever the transport is.
  [[nodiscard]] Result<std::vector<spi::Write>> as_writes(
      std::span<const RecordedEvent> events,
      const std::function<std::string(const RecordedEvent&)>& topic_of);
  /// The copy that goes with a message of a conversation, but for its sequence, which the store knows.
  [[nodiscard]] Result<spi::Envelope> as_copy(std::string_view conversation, const RecordedEvent& message,
                                              const std::string& topic);

 private:
  struct Prepared {
    spi::Envelope envelope;
    std::optional<TimePoint> due_at;  ///< in the future, else now
    Duration skip_if_late_by{0};
  };
  [[nodiscard]] Result<Prepared> prepare(Message&& message, const MessageId& id, TimePoint now,
                                         MonotonicTime begin_by = spi::kPatient);
  /// In a commit of the store: what is due now goes to its topic at once where the transport is the store,
  /// and is put into the schedule where it is not.
  [[nodiscard]] spi::Write to_write(Prepared&& prepared, TimePoint now) const;
  /// What goes to the transport at once.
  struct Direct {
    std::vector<spi::Envelope> envelopes;
    std::vector<std::size_t> places;  ///< of their receipts
    /// Of each that waits in the schedule as well: how its dedup id is given back. Empty: none does.
    std::vector<std::optional<spi::ForgetDedup>> held;

    [[nodiscard]] bool is_held(std::size_t i) const { return !held.empty() && held[i].has_value(); }
  };
  /// Where the transport is not the store: the store alone knows the dedup ids. What has one is put into the
  /// schedule first, as if this engine had claimed it, and erased once it is published.
  void hold(std::vector<Receipt>& receipts, Direct& direct, TimePoint now, MonotonicTime begin_by);
  void let_go(std::vector<Receipt>& receipts, const Direct& direct,
              const std::vector<spi::PublishAnswer>& answers);
  void store_now(std::vector<Receipt>& receipts, Direct& direct, MonotonicTime begin_by);
  void store_later(std::vector<Receipt>& receipts, std::vector<spi::Unit>& units,
                   const std::vector<std::size_t>& places, MonotonicTime begin_by);
  /// After the write began: rejected or unknown, as the error says.
  void note(Receipt& receipt, const Error& error);
  /// Before any write, so surely not stored, whatever the error.
  void reject(Receipt& receipt, const Error& error);
  void give_up(Message message, Receipt& receipt);

  const std::shared_ptr<Context> context_;
  PermitGate in_flight_;
};

}  // namespace towline::engine
