#pragma once
// The idempotency store: one running execution per key, and its result for everybody who asks again.

#include <cstdint>
#include <optional>
#include <string>

#include <towline/message.hpp>

namespace towline {

/// Held by the caller who may run. Give it back with complete() or fail(); a holder that dies loses it after
/// the lease.
struct IdempotencyToken {
  std::string scope;
  std::string key;
  std::uint64_t fence = 0;  ///< grows with every acquisition: hand it to systems that can refuse an older one
  std::uint64_t version = 0;
};

/// A stored result. Empty bytes are a result.
struct IdempotencyResult {
  Bytes bytes;
  std::string content_type;
};

/// What begin() found.
struct IdempotencyAnswer {
  enum class Kind : std::uint8_t {
    kAcquired,    ///< run it: `token` is yours
    kInProgress,  ///< somebody runs it: ask again after `retry_after`
    kCompleted    ///< it ran: `result`
  } kind = Kind::kAcquired;
  IdempotencyToken token;
  Duration retry_after{0};
  IdempotencyResult result;
};

}  // namespace towline
