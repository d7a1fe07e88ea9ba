#pragma once
// A counter of what runs now that remembers its highest value: for invariants such as "never more than 7 at
// once".

#include <atomic>

namespace towline::support {

class Gauge {
 public:
  /// Counts one in for as long as it lives.
  class Scope {
   public:
    explicit Scope(Gauge& gauge) : gauge_(gauge) { gauge_.enter(); }
    ~Scope() { gauge_.leave(); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Gauge& gauge_;
  };

  int enter() {
    const int now = value_.fetch_add(1) + 1;
    int seen = max_.load();
    while (now > seen && !max_.compare_exchange_weak(seen, now)) {
    }
    return now;
  }
  void leave() { value_.fetch_sub(1); }
  [[nodiscard]] int value() const { return value_.load(); }
  [[nodiscard]] int max() const { return max_.load(); }

 private:
  std::atomic<int> value_{0};
  std::atomic<int> max_{0};
};

}  // namespace towline::support
