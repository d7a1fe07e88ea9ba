// ANSI by hand: the table is erased by going up as many lines as it had, so nothing but its own lines is ever
// touched.

#include "screen.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace towline::demo {
namespace {

constexpr double kTerminalEvery = 0.1;
constexpr double kPlainEvery = 1.0;
constexpr std::size_t kBarWidth = 40;

void put(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

std::size_t terminal_width() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

/// 12345678 -> "12 345 678"
std::string grouped(std::size_t number) {
  std::string text = std::to_string(number);
  for (std::size_t at = text.size(); at > 3;)
    text.insert(at -= 3, " ");
  return text;
}

std::string as_time(std::int64_t us) {
  const double ms = static_cast<double>(us) / 1000;
  if (ms < 10) return fmt::format("{:.1f} ms", ms);
  if (ms < 1000) return fmt::format("{:.0f} ms", ms);
  return fmt::format("{:.2f} s", ms / 1000);
}

std::string clock_of(double s) {
  const auto whole = static_cast<int>(s);
  return fmt::format("{:02}:{:02}", whole / 60, whole % 60);
}

std::string bar_of(const View& view) {
  const std::size_t full =
      view.order_count == 0 ? 0 : kBarWidth * std::min(view.finished, view.order_count) / view.order_count;
  return "[" + std::string(full, '#') + std::string(kBarWidth - full, '.') + "]";
}

std::vector<std::string> table_of(const View& view) {
  const Figures& f = view.figures;
  const std::size_t percent = view.order_count == 0 ? 0 : 100 * view.finished / view.order_count;
  return {fmt::format(" towline demo   sqlite:{}", view.database),
          fmt::format(" {} {:>3} %   elapsed {}   seed {}   publishers {}   workers {}", bar_of(view),
                      percent, clock_of(view.elapsed_s), view.seed, view.publishers, view.workers),
          fmt::format(" {:>9} {:>8} {:>9} {:>8} {:>13} {:>6} {:>12} {:>6} {:>8} {:>8} {:>8}", "published",
                      "handled", "retrying", "delayed", "dead letters", "sagas", "redelivered", "kills",
                      "rate/s", "p50", "p99"),
          fmt::format(" {:>9} {:>8} {:>9} {:>8} {:>13} {:>6} {:>12} {:>6} {:>8} {:>8} {:>8}",
                      grouped(f.published), grouped(f.handled), grouped(f.retrying), grouped(f.delayed),
                      grouped(f.dead_letters), grouped(f.sagas), grouped(f.redelivered), view.kills,
                      grouped(static_cast<std::size_t>(view.rate_per_second)), as_time(f.p50_us),
                      as_time(f.p99_us))};
}

std::string line_of(const View& view) {
  const Figures& f = view.figures;
  return fmt::format(
      "{}  published {}  handled {}  retrying {}  delayed {}  dead letters {}  sagas {}  redelivered {}  "
      "kills {}  rate {:.0f}/s  "
      "p50 {}  p99 {}\n",
      clock_of(view.elapsed_s), f.published, f.handled, f.retrying, f.delayed, f.dead_letters, f.sagas,
      f.redelivered, view.kills, view.rate_per_second, as_time(f.p50_us), as_time(f.p99_us));
}

}  // namespace

Screen::Screen() {
  const char* term = std::getenv("TERM");
  terminal_ = ::isatty(STDOUT_FILENO) == 1 && term != nullptr && std::string(term) != "dumb";
  colours_ = terminal_ && std::getenv("NO_COLOR") == nullptr;
  if (terminal_) put("\x1b[?25l");
}

Screen::~Screen() {
  if (terminal_) put("\x1b[?25h");
  std::fflush(stdout);
}

void Screen::erase_table() {
  if (table_lines_ > 0) put(fmt::format("\x1b[{}A\x1b[J", table_lines_));
  table_lines_ = 0;
}

void Screen::draw_table(const View& view) {
  const std::size_t width = terminal_width();
  erase_table();
  const auto lines = table_of(view);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    // A line that wraps would be two lines, and erasing would miss one.
    const std::string line = lines[i].substr(0, width - 1);
    put(colours_ && i == 3 ? "\x1b[1m" + line + "\x1b[0m\n" : line + "\n");
  }
  table_lines_ = static_cast<int>(lines.size());
}

void Screen::event(double elapsed_s, const std::string& text) {
  erase_table();
  put(fmt::format("{}  {}\n", clock_of(elapsed_s), text));
  next_s_ = terminal_ ? 0 : next_s_;
  std::fflush(stdout);
}

void Screen::show(const View& view, bool now) {
  if (!now && view.elapsed_s < next_s_) return;
  next_s_ = view.elapsed_s + (terminal_ ? kTerminalEvery : kPlainEvery);
  if (terminal_) {
    draw_table(view);
  } else {
    put(line_of(view));
  }
  std::fflush(stdout);
}

void Screen::finish() { table_lines_ = 0; }

void Screen::verdict(const std::string& line, bool good) const {
  put(colours_ ? fmt::format("\x1b[1;{}m{}\x1b[0m\n", good ? 32 : 31, line) : line + "\n");
  std::fflush(stdout);
}

}  // namespace towline::demo
