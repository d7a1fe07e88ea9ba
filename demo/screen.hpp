#pragma once
// What a person sees while the demo runs: a table that is redrawn in place on a terminal, with events
// scrolling above it; one plain line a second otherwise.

#include "progress.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace towline::demo {

struct View {
  std::string database;
  std::uint64_t seed = 0;
  std::size_t order_count = 0;
  std::size_t finished = 0;
  std::size_t publishers = 0;  ///< that run now
  std::size_t workers = 0;
  std::size_t kills = 0;
  Figures figures;
  double elapsed_s = 0;
  double rate_per_second = 0;
};

class Screen {
 public:
  Screen();
  ~Screen();
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  /// Something happened: scrolls by, with the time since the start.
  void event(double elapsed_s, const std::string& text);
  /// Draws when it is time to: ten times a second on a terminal, once a second otherwise. `now`: draw anyway.
  void show(const View& view, bool now = false);
  /// The table stays where it is; what is printed next comes below it.
  void finish();
  /// A line below everything, green or red on a terminal.
  void verdict(const std::string& line, bool good) const;

 private:
  void draw_table(const View& view);
  void erase_table();
  bool terminal_;
  bool colours_;
  int table_lines_ = 0;
  double next_s_ = 0;
};

}  // namespace towline::demo
