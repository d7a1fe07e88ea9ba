#pragma once
// Idempotency: one running execution per key, among threads and processes, and its result for everybody who
// asks again.
//
// begin is one compare-and-set from "absent, failed, expired or lease ended" to "in progress with a higher
// fence"; complete and fail are compare-and-sets on the version that begin wrote. So a holder that lost its
// lease can change nothing.

#include <functional>
#include <memory>

#include <towline/idempotency.hpp>
#include <towline/options.hpp>
#include <towline/spi/store.hpp>

#include "engine/context.hpp"

namespace towline::engine {

/// Errors: kInvalidKey, kInvalidName. An empty scope is one.
[[nodiscard]] Result<void> check_idempotency(std::string_view scope, std::string_view key);
/// Errors: kPayloadTooLarge.
[[nodiscard]] Result<void> check_result_size(const Context& context, const Bytes& result);

/// Any thread.
class Idempotency {
 public:
  explicit Idempotency(std::shared_ptr<Context> context) : context_(std::move(context)) {}

  [[nodiscard]] Result<IdempotencyAnswer> begin(std::string_view key, const IdempotencyOptions& options);
  Result<void> complete(const IdempotencyToken& token, Bytes result, const IdempotencyOptions& options,
                        std::string content_type);
  Result<void> fail(const IdempotencyToken& token);
  [[nodiscard]] Result<IdempotencyResult> once(std::string_view key, const std::function<Bytes()>& f,
                                               const IdempotencyOptions& options);

 private:
  Result<void> write(const spi::IdempotencyRecord& record, spi::Version expected);
  [[nodiscard]] Result<IdempotencyAnswer> acquire(spi::IdempotencyRecord record,
                                                  const IdempotencyOptions& options, TimePoint now);

  const std::shared_ptr<Context> context_;
};

}  // namespace towline::engine
