#pragma once
// What is known of sagas without their logs, which are streams. Not thread-safe: the hub's mutex is held
// around every call.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <towline/spi/store.hpp>

#include "drivers/memory/queue.hpp"

namespace towline::drivers::memory {

class Sagas {
 public:
  explicit Sagas(Meter& meter) : meter_(meter) {}

  void put(const spi::PutSaga& write);
  [[nodiscard]] std::optional<SagaInfo> find(std::string_view type, std::string_view id) const;
  [[nodiscard]] Result<Page<SagaInfo>> list(const SagaQuery& query) const;
  /// Removes at most so many of those that have expired, and returns their streams.
  [[nodiscard]] std::vector<std::string> sweep(TimePoint now, std::size_t count_max);

 private:
  Meter& meter_;
  std::map<std::uint64_t, spi::PutSaga> sagas_;  ///< in order of starting
  std::unordered_map<std::string, std::uint64_t> numbers_;
  std::set<std::pair<TimePoint, std::uint64_t>> ends_;
  std::uint64_t number_last_ = 0;
};

}  // namespace towline::drivers::memory
