// The timing wheel beside an ordered set, for what leases and timeouts do: be armed, and almost always be
// cancelled before they fire.

#include <memory>
#include <random>
#include <set>

#include "base/timing_wheel.hpp"
#include "scenarios.hpp"

namespace towline::bench {
namespace {

using base::Timer;
using base::TimingWheel;

MonotonicTime at_us(std::int64_t us) { return MonotonicTime(Duration(us)); }

/// Times to arm for, drawn before the measurement: within an hour, in microseconds.
std::vector<std::int64_t> times(std::size_t count) {
  std::mt19937_64 random(11);
  std::uniform_int_distribution<std::int64_t> due(1, 3'600'000'000);
  std::vector<std::int64_t> out(count);
  for (std::int64_t& value : out)
    value = due(random);
  return out;
}

/// Arms all, then cancels all in another order. Returns the cancels per second.
double cancel_in_wheel(const std::vector<std::int64_t>& due, const std::vector<std::uint32_t>& order) {
  TimingWheel wheel;
  const std::unique_ptr<Timer[]> timers(new Timer[due.size()]);
  for (std::size_t i = 0; i < due.size(); ++i)
    wheel.arm(timers[i], at_us(due[i]));
  const auto start = Steady::now();
  for (const std::uint32_t i : order)
    wheel.cancel(timers[i]);
  return static_cast<double>(order.size()) / seconds_since(start);
}

double cancel_in_set(const std::vector<std::int64_t>& due, const std::vector<std::uint32_t>& order) {
  std::set<std::pair<std::int64_t, std::uint32_t>> set;
  for (std::uint32_t i = 0; i < due.size(); ++i)
    set.emplace(due[i], i);
  const auto start = Steady::now();
  for (const std::uint32_t i : order)
    set.erase({due[i], i});
  return static_cast<double>(order.size()) / seconds_since(start);
}

/// The oldest of those in flight is cancelled and a new one armed, again and again.
double lease_in_wheel(const std::vector<std::int64_t>& due, std::size_t in_flight) {
  TimingWheel wheel;
  const std::unique_ptr<Timer[]> timers(new Timer[in_flight]);
  const auto start = Steady::now();
  for (std::size_t i = 0; i < due.size(); ++i) {
    Timer& timer = timers[i % in_flight];
    wheel.cancel(timer);
    wheel.arm(timer, at_us(due[i]));
  }
  const double rate = static_cast<double>(due.size()) / seconds_since(start);
  for (std::size_t i = 0; i < in_flight; ++i)
    wheel.cancel(timers[i]);
  return rate;
}

double lease_in_set(const std::vector<std::int64_t>& due, std::size_t in_flight) {
  std::set<std::pair<std::int64_t, std::size_t>> set;
  const auto start = Steady::now();
  for (std::size_t i = 0; i < due.size(); ++i) {
    if (i >= in_flight) set.erase({due[i - in_flight], i - in_flight});
    set.emplace(due[i], i);
  }
  return static_cast<double>(due.size()) / seconds_since(start);
}

}  // namespace

void timing_wheel(Bench& bench) {
  const std::size_t count = bench.size<std::size_t>(1'000'000, 10'000);
  const std::size_t in_flight = count / 10;
  const Conditions conditions{"in process", 0, 0, "due within an hour"};
  const Series wheel_cancel{"wheel, cancel", "timers/s", conditions};
  const Series set_cancel{"std::set, cancel", "timers/s", conditions};
  const Series wheel_lease{"wheel, arm and cancel", "timers/s", conditions};
  const Series set_lease{"std::set, arm and cancel", "timers/s", conditions};
  const std::vector<std::int64_t> due = times(count);
  std::vector<std::uint32_t> order(count);
  for (std::uint32_t i = 0; i < count; ++i)
    order[i] = i;
  std::mt19937 random(13);
  std::shuffle(order.begin(), order.end(), random);
  bench.interleave({[&](int round) { bench.sample(wheel_cancel, round, cancel_in_wheel(due, order)); },
                    [&](int round) { bench.sample(set_cancel, round, cancel_in_set(due, order)); },
                    [&](int round) { bench.sample(wheel_lease, round, lease_in_wheel(due, in_flight)); },
                    [&](int round) { bench.sample(set_lease, round, lease_in_set(due, in_flight)); }});
  bench.compare("a million armed, cancelled in random order", wheel_cancel, set_cancel, at_least(15));
  bench.compare("a hundred thousand in flight, the oldest replaced", wheel_lease, set_lease, at_least(15));
}

}  // namespace towline::bench
