#pragma once
// A limit on how much runs at once, usable on its own.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>

#include <towline/result.hpp>
#include <towline/time.hpp>

namespace towline {

namespace engine {
class PermitGate;
}

/// Permission to run, given back exactly once: when released or destroyed. Move-only.
class Permit {
 public:
  Permit() = default;
  Permit(Permit&& other) noexcept;
  Permit& operator=(Permit&& other) noexcept;
  ~Permit();
  /// Idempotent.
  void release() noexcept;
  [[nodiscard]] bool held() const noexcept { return gate_ != nullptr; }

 private:
  friend class Permits;
  Permit(std::shared_ptr<engine::PermitGate> gate, std::uint64_t weight)
      : gate_(std::move(gate)), weight_(weight) {}
  std::shared_ptr<engine::PermitGate> gate_;
  std::uint64_t weight_ = 0;
};

struct PermitStatistics {
  std::uint64_t limit = 0, in_use = 0, waiting = 0, in_use_max = 0, granted = 0, refused = 0;
};

/// A counting limit with first-come-first-served hand-over: a released permit goes straight to the one who
/// waited longest, so nobody can slip in between and the limit is never exceeded. Thread-safe; may be dropped
/// while permits are out.
class Permits {
 public:
  /// `limit` [1, 2^31); `waiting_max` callers may wait, one more is refused with kOverloaded.
  /// Errors: kInvalidConfig.
  static Result<Permits> create(std::uint64_t limit, std::uint64_t waiting_max = 10000);

  /// Waits up to `timeout` (nullopt: for ever) for `weight` permits [1, limit].
  /// Errors: kTimeout, kCancelled (stop requested), kOverloaded (too many wait), kInvalidArgument.
  Result<Permit> acquire(std::optional<Duration> timeout = std::nullopt, std::stop_token stop = {},
                         std::uint64_t weight = 1);
  /// Never waits; nullopt when none is free or others wait already.
  std::optional<Permit> try_acquire(std::uint64_t weight = 1);
  /// Told of the permit, or of why it can never be granted (kInvalidArgument: the limit sank below its
  /// weight). Must not throw.
  using Granted = std::function<void(Result<Permit>)>;
  /// Asks without waiting, for callers that must not block. `granted` is called once: before this returns
  /// when a permit is free and nobody waits, else by the thread that makes room, with no lock held; never
  /// after withdraw() said yes. Errors, and then it is not called: kOverloaded, kInvalidArgument. Returns a
  /// number for withdraw().
  Result<std::uint64_t> request(std::uint64_t weight, Granted granted);
  /// False when it was granted, or refused, already; then the permit is the caller's to release.
  bool withdraw(std::uint64_t request);
  /// Takes effect at once; after a shrink nobody is stopped, new ones wait until enough came back.
  Result<void> set_limit(std::uint64_t limit);
  [[nodiscard]] PermitStatistics statistics() const;

 private:
  explicit Permits(std::shared_ptr<engine::PermitGate> gate) : gate_(std::move(gate)) {}
  std::shared_ptr<engine::PermitGate> gate_;
};

}  // namespace towline
