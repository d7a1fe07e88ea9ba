#pragma once
// A transport that is not a store, made of one that is: it does not look at dedup ids, and says so. They
// travel in a header that neither the transport below nor the engine above takes for a dedup id.

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <towline/spi/store.hpp>
#include <towline/spi/transport.hpp>

namespace towline::support {

class BlindTransport final : public spi::Transport {
 public:
  explicit BlindTransport(std::shared_ptr<spi::Transport> inner) : inner_(std::move(inner)) {}

  [[nodiscard]] spi::Capabilities capabilities() const noexcept override {
    spi::Capabilities capabilities = inner_->capabilities();
    capabilities.is_store = capabilities.deduplicates = capabilities.runs_sql = false;
    return capabilities;
  }
  Result<void> declare(const spi::Topology& topology) override { return inner_->declare(topology); }
  Result<spi::Topology> topology(std::string_view topic, std::uint32_t partition_count_default,
                                 spi::Deadline begin_by) override {
    return inner_->topology(topic, partition_count_default, begin_by);
  }
  Result<std::vector<spi::PublishAnswer>> publish(std::span<spi::Envelope> envelopes,
                                                  spi::Deadline deadline) override {
    for (spi::Envelope& envelope : envelopes)
      hide(envelope);
    auto answers = inner_->publish(envelopes, deadline);
    if (answers) return answers;
    for (spi::Envelope& envelope : envelopes)
      reveal(envelope);
    return answers;
  }
  Result<std::unique_ptr<spi::Subscription>> subscribe(const spi::SubscribeOptions& options) override {
    auto inner = inner_->subscribe(options);
    if (!inner) return inner;
    return std::unique_ptr<spi::Subscription>(std::make_unique<BlindSubscription>(std::move(*inner)));
  }
  Result<std::vector<spi::GroupStatistics>> statistics() override { return inner_->statistics(); }

 private:
  class BlindSubscription final : public spi::Subscription {
   public:
    explicit BlindSubscription(std::unique_ptr<spi::Subscription> inner) : inner_(std::move(inner)) {}
    Result<spi::Received> receive(const spi::ReceiveRequest& request) override {
      if (!request.units.empty()) return Error{ErrorCode::kUnsupported, "units need a store"};
      auto received = inner_->receive(request);
      if (!received) return received;
      for (spi::Delivery& delivery : received->deliveries) {
        if (!is_hidden(*delivery.envelope)) continue;
        auto envelope = std::make_shared<spi::Envelope>(*delivery.envelope);
        reveal(*envelope);
        delivery.envelope = std::move(envelope);
      }
      return received;
    }
    void wake() noexcept override { inner_->wake(); }
    Result<std::vector<std::uint64_t>> renew() override { return inner_->renew(); }
    Result<void> close() override { return inner_->close(); }

   private:
    const std::unique_ptr<spi::Subscription> inner_;
  };

  static constexpr std::string_view kHeader = "hidden-dedup-id";

  static bool is_hidden(const spi::Envelope& envelope) {
    return !envelope.headers.empty() && envelope.headers.back().first == kHeader;
  }
  static void hide(spi::Envelope& envelope) {
    if (envelope.dedup_id.empty()) return;
    envelope.headers.emplace_back(kHeader, std::exchange(envelope.dedup_id, {}));
  }
  static void reveal(spi::Envelope& envelope) {
    if (!is_hidden(envelope)) return;
    envelope.dedup_id = std::move(envelope.headers.back().second);
    envelope.headers.pop_back();
  }

  const std::shared_ptr<spi::Transport> inner_;
};

}  // namespace towline::support
