// Draws the plan. Every share is a prefix of its own shuffled order of all numbers, so shares are exact and
// independent.

#include "plan.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>
#include <unordered_map>
#include <utility>

#include <nlohmann/json.hpp>

#include "common.hpp"

namespace towline::demo {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kOnceShare = 0.15;
constexpr double kThriceShare = 0.02;
constexpr double kAlwaysShare = 0.005;
constexpr double kDelayedShare = 0.05;
constexpr double kTwiceShare = 0.03;
constexpr double kSagaShare = 0.05;
constexpr std::size_t kSmallCount = 20;  // from here on every kind of trouble happens at least once
constexpr std::uint64_t kDelayMsMin = 1000;
constexpr std::uint64_t kDelayMsMax = 4000;

std::vector<std::uint32_t> shuffled(std::size_t count, Random& random) {
  std::vector<std::uint32_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 0U);
  for (std::size_t i = count; i > 1; --i)
    std::swap(numbers[i - 1], numbers[random.below(i)]);
  return numbers;
}

std::size_t share_of(std::size_t count, double share) {
  const auto exact = static_cast<std::size_t>(std::llround(static_cast<double>(count) * share));
  return exact == 0 && count >= kSmallCount ? 1 : exact;
}

/// Of ten sagas one is refused when it charges and one when it ships, half of them late; in one of five a
/// part fails once.
SagaFate saga_fate(std::size_t n) {
  SagaFate fate;
  fate.wanted = true;
  if (n % 10 < 2) {
    fate.refused_at = kSagaSteps[1 + n % 10];
    fate.refused_late = n / 10 % 2 == 1;
  }
  if (n % 20 == 0) fate.fails_once = "reserve/compensate";
  if (n % 20 == 7 || n % 20 == 11 || n % 20 == 13)
    fate.fails_once = std::string(kSagaSteps[n / 20 % kSagaSteps.size()]) + "/execute";
  return fate;
}

void draw_sagas(std::vector<PlannedOrder>& orders, Random& random) {
  std::size_t drawn = 0;
  const std::size_t wanted = share_of(orders.size(), kSagaShare);
  for (const auto number : shuffled(orders.size(), random)) {
    if (drawn == wanted) break;
    // What is never booked has nothing to reserve.
    if (!orders[number].fate.dead()) orders[number].fate.saga = saga_fate(drawn++);
  }
}

void draw_fates(std::vector<PlannedOrder>& orders, Random& random) {
  const std::size_t count = orders.size();
  const auto failing = shuffled(count, random);
  auto next = failing.begin();
  const auto assign = [&](double share, std::uint32_t failures) {
    for (std::size_t i = share_of(count, share); i > 0 && next != failing.end(); --i) {
      orders[*next++].fate.failure_count = failures;
    }
  };
  assign(kAlwaysShare, kAlwaysFails);
  assign(kThriceShare, 3);
  assign(kOnceShare, 1);
  const auto delayed = shuffled(count, random);
  for (std::size_t i = 0; i < share_of(count, kDelayedShare); ++i) {
    const auto ms = kDelayMsMin + random.below(kDelayMsMax - kDelayMsMin + 1);
    orders[delayed[i]].fate.delay = std::chrono::milliseconds(ms);
  }
  const auto twice = shuffled(count, random);
  for (std::size_t i = 0; i < share_of(count, kTwiceShare); ++i)
    orders[twice[i]].fate.twice = true;
  draw_sagas(orders, random);
}

/// What the retry policy of the workers adds up to for `failures` failures, at the upper end of its jitter.
std::chrono::milliseconds wait_of(std::uint32_t failures) {
  std::chrono::milliseconds sum{0};
  auto wait = std::chrono::milliseconds(kRetryFirst);
  for (std::uint32_t i = 0; i < std::min(failures, kAttemptsMax - 1); ++i) {
    sum += wait + wait / 10;
    wait = std::min(wait * 2, std::chrono::milliseconds(kRetryMax));
  }
  return sum;
}

}  // namespace

std::uint64_t Random::next() {
  state_ += 0x9e3779b97f4a7c15ULL;
  std::uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

std::size_t Plan::dead_count() const {
  return static_cast<std::size_t>(std::count_if(orders.begin(), orders.end(),
                                                [](const PlannedOrder& order) { return order.fate.dead(); }));
}

std::size_t Plan::saga_count() const {
  return static_cast<std::size_t>(std::count_if(
      orders.begin(), orders.end(), [](const PlannedOrder& order) { return order.fate.saga.wanted; }));
}

std::chrono::milliseconds Plan::longest_wait() const {
  std::unordered_map<std::string, std::chrono::milliseconds> waits;
  std::chrono::milliseconds longest{0};
  for (const auto& planned : orders) {
    auto& wait = waits[planned.order.customer];
    wait += wait_of(planned.fate.failure_count);
    longest = std::max(longest, wait);
  }
  return longest;
}

Plan make_plan(std::vector<Order> orders, std::uint64_t seed, std::uint32_t publisher_count) {
  Plan plan;
  plan.seed = seed;
  plan.orders.resize(orders.size());
  std::unordered_map<std::string, std::uint32_t> sequences;
  for (std::size_t i = 0; i < orders.size(); ++i) {
    auto& planned = plan.orders[i];
    planned.order = std::move(orders[i]);
    planned.number = static_cast<std::uint32_t>(i);
    planned.sequence = sequences[planned.order.customer]++;
    planned.publisher = static_cast<std::uint32_t>(
        static_cast<std::uint64_t>(hash_of(planned.order.customer)) % publisher_count);
  }
  Random random(seed);
  draw_fates(plan.orders, random);
  return plan;
}

Result<void> write_plan(const Plan& plan, const std::string& path) {
  std::ofstream out(path, std::ios::binary);
  for (const auto& planned : plan.orders) {
    const Json line = {{"number", planned.number},
                       {"order_id", planned.order.id},
                       {"customer", planned.order.customer},
                       {"sequence", planned.sequence},
                       {"publisher", planned.publisher},
                       {"failures", planned.fate.failure_count},
                       {"delay_ms", planned.fate.delay.count()},
                       {"twice", planned.fate.twice},
                       {"saga", planned.fate.saga.wanted ? planned.fate.saga.context(planned.number) : ""},
                       {"payload", planned.order.line}};
    out << line.dump() << '\n';
  }
  out.close();
  if (!out) return Error{ErrorCode::kIoError, path + ": the plan could not be written"};
  return {};
}

Result<Plan> read_plan(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return Error{ErrorCode::kNotFound, path + ": the plan cannot be opened"};
  Plan plan;
  try {
    for (std::string line; std::getline(in, line);) {
      const Json object = Json::parse(line);
      PlannedOrder planned;
      planned.number = object.at("number");
      planned.order.id = object.at("order_id");
      planned.order.customer = object.at("customer");
      planned.order.line = object.at("payload");
      planned.sequence = object.at("sequence");
      planned.publisher = object.at("publisher");
      planned.fate.failure_count = object.at("failures");
      planned.fate.delay = std::chrono::milliseconds(object.at("delay_ms").get<std::int64_t>());
      planned.fate.twice = object.at("twice");
      planned.saga_context = object.at("saga");
      plan.orders.push_back(std::move(planned));
    }
  } catch (const Json::exception& error) {
    return Error{ErrorCode::kInvalidArgument, path + ": " + error.what()};
  }
  return plan;
}

}  // namespace towline::demo
