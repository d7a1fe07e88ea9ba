#pragma once
// Settler: turns outcomes into durable changes, then closes the books.
//
// The order that matters: an outcome's records and its settlement are committed first, and only then is the
// delivery finished, its credit free, its key unblocked and its waiter answered. Where the transport is the
// store, records and settlement are one unit; elsewhere the records are committed before the settlement is
// sent, and dying between the two handles the message twice, never loses it.
//
// Units of one blocked key are kept in a chain. At most one of them is on its way at a time, so that none is
// stored before those in front of it, whatever the store refuses meanwhile. What is parked together travels
// as one unit.

#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <towline/spi/store.hpp>

#include "engine/context.hpp"
#include "engine/delivery_state.hpp"
#include "engine/dispatcher.hpp"
#include "policy/circuit_breaker.hpp"
#include "policy/decide.hpp"
#include "policy/retry_budget.hpp"

namespace towline::engine {

/// Driven by the consumer's lane alone, except the counters.
class Settler {
 public:
  Settler(std::shared_ptr<Context> context, const ConsumerOptions& options, Dispatcher& dispatcher);

  /// So many were handed to handlers; the retry budget is a share of them.
  void note_deliveries(std::size_t count) { budget_.note_deliveries(context_->clock->monotonic(), count); }
  void add_acked(std::vector<DeliveryPtr> states);
  void add(Decided decided);
  /// The group is done with these without a handler: filtered out, or handled before.
  void add_passed_over(DeliveryPtr state, bool duplicate);
  void add_parked(DeliveryPtr state);
  void add_released(DeliveryPtr state);
  /// What a transaction of the handler must write besides the settlement. Any thread.
  void add_finish_records(spi::Unit& unit, const DeliveryState& state) const;
  /// The group is done with the message: a dedup id that it held while it was unfinished is free.
  static void add_forgetting(spi::Unit& unit, const spi::Envelope& envelope);

  /// Never admitted: goes back to the transport as it came.
  void give_back(const spi::Token& token);

  [[nodiscard]] bool empty() const noexcept {
    return settlements_.empty() && units_.empty() && chains_.empty();
  }
  /// Before the two below: puts what may go next of each chain among the units.
  void prepare();
  [[nodiscard]] std::span<const spi::Settlement> settlements() const noexcept { return settlements_; }
  [[nodiscard]] std::span<const spi::Unit> units() const noexcept { return units_; }
  /// For a transport that is not the store: commits the units and turns those that held into settlements.
  [[nodiscard]] Result<void> commit_units();
  /// After receive() took settlements() and units(): closes the books.
  void apply(const spi::Received& received);
  /// The lease, the engine or the consumer is gone: nothing of this counts any more.
  void abandon(const Error& why);

  /// True once after a record could not be written for now: the lane should wait a moment before its next
  /// round.
  [[nodiscard]] bool take_must_pause() { return std::exchange(must_pause_, false); }
  /// Entries that were planned since the last call, for alerts.
  [[nodiscard]] std::vector<DeadLetter> take_new_entries() { return std::exchange(new_entries_, {}); }
  /// These are not ours any more: closes their books.
  void forget(std::span<const DeliveryPtr> states);
  /// So much of the engine's in-flight limits is free again.
  void release_room(std::size_t count, std::size_t bytes);
  /// Results since the last call, for the circuit breaker, equal neighbours counted together.
  struct Tally {
    policy::BreakerSignal signal{};
    std::uint64_t period = 0;
    std::uint64_t count = 0;
  };
  [[nodiscard]] std::vector<Tally> take_tally() { return std::exchange(tally_, {}); }
  /// Whether the consumer is shutting down; then a cancelled handler's message goes back unchanged.
  void set_stopping() noexcept { stopping_ = true; }
  [[nodiscard]] policy::DeliveryFacts facts_of(const DeliveryState& state, TimePoint now) const;

  struct Counts {
    std::atomic<std::uint64_t> acked{0}, failed{0}, retried{0}, deferred{0}, dead_lettered{0}, filtered{0},
        expired{0}, timed_out{0}, lease_lost{0}, duplicates{0}, discarded{0};
  };
  Counts counts;

 private:
  /// What is left to do once a unit is durable.
  enum class LaneStep : std::uint8_t { kNone, kRelease, kUnpark, kParked };
  struct Book {
    DeliveryPtr state;
    LaneStep step = LaneStep::kRelease;
    std::atomic<std::uint64_t>* counter = nullptr;
    bool clean = true;
    std::shared_ptr<Completion> completion;
  };

  /// What belongs to one delivery of a unit.
  struct Piece {
    spi::Unit unit;
    Book book;
  };
  /// What became one unit of the transport's or the store's.
  struct Bundle {
    std::string chain;  ///< empty: none
    std::vector<Piece> pieces;
  };
  struct Chain {
    std::deque<Piece> pieces;
    bool on_its_way = false;
    /// The store refused several pieces at once: now one by one, to see which it was.
    bool one_by_one = false;
  };

  void settle_plainly(DeliveryPtr state, spi::Verb verb, Book book);
  void settle_with(spi::Unit unit, Book book);
  void send(Bundle bundle);
  /// Puts pieces back to where they were, to be tried again.
  void put_back(Bundle bundle);
  void release_behind(const std::vector<DeliveryPtr>& behind);
  /// What is to be parked behind something that is not stored after all: takes it out of the chain.
  [[nodiscard]] std::vector<DeliveryPtr> take_parking(const std::string& chain);
  [[nodiscard]] std::string chain_of(const spi::Envelope& envelope) const;
  [[nodiscard]] std::atomic<std::uint64_t>* counter_of(const Decided& decided);
  void close_as_lost(const Decided& decided);
  void acknowledge(Decided decided);
  void release(Decided decided);
  /// What is written besides the settlement when the group is done with a message.
  void finish_records(spi::Unit& unit, Book& book, const DeliveryState& state, bool handled) const;
  [[nodiscard]] std::string order_key(const spi::Envelope& envelope) const;
  void commit_alone(spi::Unit unit, Book& book);
  [[nodiscard]] static bool is_passing(const Result<void>& result);
  void finish(std::span<const DeliveryPtr> states, bool clean);
  void retry(Decided decided, const policy::Decision& decision);
  void to_dead_letters(Decided decided, const policy::Decision& decision);
  void discard(Decided decided, const policy::Decision& decision);
  void end_without_success(spi::Unit unit, Book book, const policy::Decision& decision);
  [[nodiscard]] spi::Envelope next_attempt(const Decided& decided, const policy::Decision& decision) const;
  [[nodiscard]] spi::KeyBlock block_of(const DeliveryState& state, const MessageId& head, bool held) const;
  [[nodiscard]] bool plain_ack_is_enough(const spi::Envelope& envelope) const;
  void count(policy::BreakerSignal signal, const DeliveryState& state);
  void end_of_turn(const std::string& chain);
  /// What could not be parked for want of a block goes behind a head that is about to block the key again.
  [[nodiscard]] bool park_behind_next_block(Bundle& bundle);
  void close_bundle(Bundle bundle, const Result<void>& result);
  /// Takes out of a refused unit what was done already, if that is why it was refused. True: commit it again.
  [[nodiscard]] bool repair(spi::Unit& unit, Book& book, const Result<void>& result);
  /// The head is done, and the store has let the next one through or lifted the block.
  void lift_block(DeliveryState& state);
  void close_book(Book& book, const Result<void>& result);
  /// A log record about a failure; of those that come all at once most are only counted.
  void tell(LogLevel level, const DeliveryState& state, const ErrorInfo& error, const std::string& what_next);

  const std::shared_ptr<Context> context_;
  const ConsumerOptions& options_;
  Dispatcher& dispatcher_;
  base::SeededRng rng_;
  const policy::DecisionRules rules_;
  mutable policy::RetryBudget budget_;
  bool stopping_ = false;
  std::vector<spi::Settlement> settlements_;
  std::vector<Book> settlement_books_;
  std::vector<spi::Unit> units_;
  std::vector<Bundle> bundles_;  ///< one per unit
  std::map<std::string, Chain> chains_;
  std::vector<DeadLetter> new_entries_;
  bool must_pause_ = false;
  std::vector<Tally> tally_;
  /// Log records of the second that ends at `until`, and failures that had none.
  struct Told {
    MonotonicTime until = MonotonicTime::min();
    std::uint64_t count = 0, left_out = 0;
  };
  std::map<LogLevel, Told> told_;  ///< apart: no warning is left out for records that nobody asked for
};

}  // namespace towline::engine
