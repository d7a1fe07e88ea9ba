#pragma once
// Decorators over any provider. They do three things: let a call fail, stall or kill the process, as the host
// draws it; write what really happened into the history; and tell the host what may have become possible for
// others.
//
// A process dies by an exception that unwinds the engine up to the simulator's step, and whatever the dead
// engine still calls throws again, so nothing that runs on the way out reaches the store.

#include <cstdint>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include <towline/spi/driver.hpp>

#include "simulation/clock.hpp"
#include "simulation/history.hpp"

namespace towline::simulation {

/// Thrown through the engine of a process that dies.
struct ProcessDied {};

/// What a provider call is for.
enum class Call : std::uint8_t {
  kPublish,
  kCommit,
  kReceive,
  kRenew,
  kDue,
  kRead,
  kSweep,
  kSubscribe,
  kClose
};

struct CallFaults {
  bool fail_before = false, fail_after = false, die_before = false, die_after = false, refuse = false,
       power_loss = false;
  Duration stall_before{0}, stall_after{0};
};

/// Which process a call comes from.
struct Seat {
  std::uint32_t process = 0;
  std::uint32_t generation = 0;
};

/// The world, as the decorators see it.
class Host {
 public:
  virtual ~Host() = default;
  [[nodiscard]] virtual const WorldTime& time() const noexcept = 0;
  virtual void note(Record record) = 0;
  [[nodiscard]] virtual CallFaults draw(const Seat& seat, Call call) = 0;
  /// One of the pieces of a unit that could be refused: is it?
  [[nodiscard]] virtual bool refuses(const Seat& seat) = 0;
  [[nodiscard]] virtual bool alive(const Seat& seat) const noexcept = 0;
  /// The calling thread of this process stands still while everybody else goes on.
  virtual void stall(const Seat& seat, Duration time) = 0;
  [[noreturn]] virtual void die(const Seat& seat) = 0;
  /// The power will be lost in the call that comes now.
  virtual void await_power_loss() = 0;
  /// Says, when the call is over, that it was lost in its middle; false: what the call did is gone as well.
  /// The processes learn of it by power_is_lost().
  [[nodiscard]] virtual bool lose_power() = 0;
  /// Everybody dies.
  [[noreturn]] virtual void power_is_lost() = 0;
  /// Something became receivable, or due earlier.
  virtual void touch() = 0;
  /// A scheduler of this process learned when it must look again.
  virtual void next_due(const Seat& seat, TimePoint due_at) = 0;
  [[nodiscard]] virtual std::uint32_t new_session() = 0;
  /// A dead letter was stored, and whose it is.
  virtual void know_entry(const MessageId& entry, std::uint32_t message, std::uint8_t group) = 0;
  [[nodiscard]] virtual std::pair<std::uint32_t, std::uint8_t> whose_entry(const MessageId& entry) const = 0;
  /// An envelope was seen on its way in.
  virtual void know_message(const MessageId& id, std::uint32_t message) = 0;
};

/// The number of a message, from its payload; kNobody when it is none of ours.
[[nodiscard]] std::uint32_t number_of(std::string_view payload) noexcept;
[[nodiscard]] Bytes payload_of(std::uint32_t number);

/// `provider` behind decorators that belong to one process.
[[nodiscard]] spi::Provider with_faults(spi::Provider provider, Host& host, Seat seat);

}  // namespace towline::simulation
