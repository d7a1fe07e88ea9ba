#pragma once
// The cast: the publishers and workers of one run, each a seat that is filled by one process life after
// another.

#include <csignal>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common.hpp"
#include "languages.hpp"
#include "processes.hpp"

namespace towline::demo {

enum class Role : std::uint8_t { kPublisher, kWorker };

/// What every child is told on its command line.
struct CastOptions {
  Place place;
  std::uint64_t seed = 0;
  std::int64_t concurrency = 0;
  std::int64_t work_ms = 0;
  std::vector<std::string> publisher;   ///< the command of a publisher
  std::vector<double> publisher_rates;  ///< one publisher each, orders per second
  std::uint32_t workers = 0;
  std::vector<Language> languages;  ///< dealt to the workers in turn
};

struct Seat {
  Role role = Role::kWorker;
  std::uint32_t index = 0;
  std::string kind;   ///< "publisher", or the name of the worker's language
  std::string title;  ///< for people
  std::uint32_t lives = 0;
  std::optional<Child> child;
  bool done = false;                 ///< a publisher that has published everything
  std::optional<double> start_at_s;  ///< killed, and to be started again then

  /// Of the present life, or of the last one.
  [[nodiscard]] std::string name() const {
    return kind + "-" + std::to_string(index) + "." + std::to_string(lives);
  }
};

class Cast {
 public:
  explicit Cast(CastOptions options);
  /// Starts the next life of a seat.
  Result<void> start(Seat& seat);
  Result<void> start_all();
  [[nodiscard]] std::vector<Seat>& seats() { return seats_; }
  [[nodiscard]] std::size_t running(Role role) const;
  [[nodiscard]] bool publishers_done() const;
  /// SIGTERM to all, and SIGKILL to who has not ended after `patience_s`. Returns a sentence for each that
  /// did not end well.
  std::vector<std::string> stop_all(double patience_s);

 private:
  [[nodiscard]] std::vector<std::string> command_of(const Seat& seat) const;
  CastOptions options_;
  std::vector<Seat> seats_;
};

}  // namespace towline::demo
