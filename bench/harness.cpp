// Rounds, samples, load and the printed lines.

#include "harness.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <unistd.h>

namespace towline::bench {
namespace {

constexpr double kBusyMax = 0.15;
constexpr long kTmpfs = 0x01021994;

double seconds_of(const rusage& usage) {
  const auto of = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

// Four digits that matter, thousands apart: 312,345 and 1.53.
std::string number(double value) {
  if (!std::isfinite(value)) return "-";
  const double size = std::fabs(value);
  const int decimals = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  std::string text = fmt::format("{:.{}f}", value, decimals);
  const std::size_t point = text.find('.');
  std::size_t at = point == std::string::npos ? text.size() : point;
  const std::size_t first = value < 0 ? 1 : 0;
  while (at > first + 3) {
    at -= 3;
    text.insert(at, ",");
  }
  return text;
}

bool is_in_memory(const std::filesystem::path& folder) {
  struct statfs facts {};
  return ::statfs(folder.c_str(), &facts) == 0 && facts.f_type == kTmpfs;
}

std::string time_now() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char text[32];
  (void)std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

nlohmann::ordered_json conditions_json(const Conditions& conditions) {
  nlohmann::ordered_json out;
  out["durability"] = conditions.durability;
  out["payload_bytes"] = conditions.payload_bytes;
  if (conditions.batch > 0) out["batch"] = conditions.batch;
  if (!conditions.more.empty()) out["more"] = conditions.more;
  return out;
}

}  // namespace

double quantile(std::vector<double>& values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto rank = static_cast<std::size_t>(std::ceil(q * static_cast<double>(values.size())));
  return values[std::min(values.size() - 1, rank == 0 ? 0 : rank - 1)];
}

// ---- load ---------------------------------------------------------------------------------------

Load::Load() : last_(read()) {}

Load::Times Load::read() {
  std::ifstream stat("/proc/stat");
  std::string cpu;
  stat >> cpu;
  // user nice system idle iowait irq softirq steal; what guests use is in user and nice already
  double ticks[8] = {};
  for (double& tick : ticks)
    stat >> tick;
  const double hz = static_cast<double>(::sysconf(_SC_CLK_TCK));
  Times out;
  for (int i = 0; i < 8; ++i)
    out.total_s += ticks[i] / hz;
  out.busy_s = out.total_s - (ticks[3] + ticks[4]) / hz;
  rusage own{};
  rusage children{};
  ::getrusage(RUSAGE_SELF, &own);
  ::getrusage(RUSAGE_CHILDREN, &children);
  out.own_s = seconds_of(own) + seconds_of(children);
  return out;
}

Load::Shares Load::take() {
  const Times now = read();
  const double total = now.total_s - last_.total_s;
  Shares out;
  if (total > 0) {
    out.all = (now.busy_s - last_.busy_s) / total;
    out.others = std::max(0.0, (now.busy_s - last_.busy_s - (now.own_s - last_.own_s)) / total);
  }
  last_ = now;
  return out;
}

// ---- the run ------------------------------------------------------------------------------------

Bench::Bench(Settings settings)
    : settings_(std::move(settings)), core_count_(std::max(1U, std::thread::hardware_concurrency())) {
  if (settings_.samples.has_parent_path()) {
    std::filesystem::create_directories(settings_.samples.parent_path());
  }
  std::filesystem::create_directories(settings_.folder);
  samples_.open(settings_.samples, std::ios::app);
  if (!samples_) throw std::runtime_error("cannot write " + settings_.samples.string());
}

Bench::~Bench() {
  std::error_code ignored;
  if (!settings_.keep && !folder_.empty()) std::filesystem::remove_all(folder_, ignored);
}

bool Bench::may_start() {
  if (is_in_memory(settings_.folder)) {
    skip(settings_.folder.string() +
         " is in memory, where a sync costs nothing: no figure below is one of a durable store; give "
         "--folder");
  }
  if (settings_.quick) {
    note("quick: one small round, to see that everything runs; the figures mean nothing");
    return true;
  }
  const auto look = [this] {
    (void)load_.take();
    std::this_thread::sleep_for(std::chrono::seconds(1));
    return load_.take().all;
  };
  const auto start = Steady::now();
  double busy = look();
  while (busy > kBusyMax && seconds_since(start) < settings_.wait_quiet_s)
    busy = look();
  if (busy <= kBusyMax) return true;
  if (settings_.busy_ok) {
    note(fmt::format("measured although the machine was {:.0f} % busy (--busy-ok): compare ratios only",
                     busy * 100));
    return true;
  }
  fmt::print(stderr,
             "bench: the machine is {:.0f} % busy, at most {:.0f} % is allowed. Wait, or give --wait-quiet "
             "SECONDS or --busy-ok.\n",
             busy * 100, kBusyMax * 100);
  return false;
}

void Bench::wait_until_quiet() {
  const auto start = Steady::now();
  while (!settings_.quick && seconds_since(start) < settings_.wait_quiet_s) {
    (void)load_.take();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    if (load_.take().others <= kBusyMax) return;
  }
}

void Bench::begin(const std::string& id, const std::string& title) {
  id_ = id;
  values_.clear();
  others_.clear();
  load_taken_ = false;
  file_count_ = 0;
  folder_ = settings_.folder / fmt::format("{}-{}", id, ::getpid());
  std::filesystem::remove_all(folder_);
  std::filesystem::create_directories(folder_);
  fmt::print("\n{}  {}\n", id, title);
  std::fflush(stdout);
}

void Bench::end() {
  if (!others_.empty()) {
    std::vector<double> others = others_;
    fmt::print(
        "{}  other programs used {:.0f} % of the processors in the median sample, {:.0f} % in the worst\n",
        id_, quantile(others, 0.5) * 100, quantile(others, 1) * 100);
  }
  std::fflush(stdout);
  std::error_code ignored;
  if (!settings_.keep) std::filesystem::remove_all(folder_, ignored);
  folder_.clear();
  values_.clear();
}

std::filesystem::path Bench::new_file(const std::string& stem) {
  return std::filesystem::absolute(folder_) / fmt::format("{}-{}.db", stem, ++file_count_);
}

void Bench::interleave(const std::vector<std::function<void(int round)>>& sides) {
  for (int round = 1; round <= round_count(); ++round) {
    for (const auto& side : sides) {
      wait_until_quiet();
      start_sample();
      side(round);
    }
  }
}

void Bench::start_sample() {
  (void)load_.take();
  load_taken_ = false;
}

void Bench::write_line(const std::string& line) {
  samples_ << line << '\n';
  samples_.flush();
}

void Bench::sample(const Series& series, int round, double value) {
  // The first value of a side ends the stretch that its load is measured over; what follows is computed.
  if (!load_taken_) others_.push_back(load_.take().others);
  load_taken_ = true;
  const double others = others_.back();
  values_[series.name].push_back(value);
  nlohmann::ordered_json line;
  line["at"] = time_now();
  line["scenario"] = id_;
  line["series"] = series.name;
  line["round"] = round;
  line["value"] = value;
  line["unit"] = series.unit;
  line["conditions"] = conditions_json(series.conditions);
  line["core_count"] = core_count_;
  line["others_busy_ratio"] = std::round(others * 1000) / 1000;
  line["quick"] = settings_.quick;
  write_line(line.dump());
}

// ---- printing -----------------------------------------------------------------------------------

Bench::Spread Bench::spread(std::vector<double> values) {
  Spread out;
  out.count = values.size();
  if (values.empty()) return out;
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  out.median = values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
  out.min = values.front();
  out.max = values.back();
  return out;
}

const std::vector<double>& Bench::values_of(const Series& series) const {
  const auto found = values_.find(series.name);
  if (found == values_.end()) throw std::logic_error("no sample was taken of " + series.name);
  return found->second;
}

std::string Bench::describe(const Conditions& conditions, std::size_t sample_count) const {
  std::string text = conditions.durability;
  text += fmt::format(", {} cores", core_count_);
  if (conditions.payload_bytes > 0) text += fmt::format(", {} B", conditions.payload_bytes);
  if (conditions.batch > 0) text += fmt::format(", batch {}", conditions.batch);
  if (!conditions.more.empty()) text += ", " + conditions.more;
  if (sample_count > 0) text += fmt::format(", {} rounds", sample_count);
  return text;
}

std::string Bench::judge(Bar bar, double value, const std::string& unit, const std::string& what) {
  if (bar.sense == Bar::Sense::kNone) return "no bar";
  const bool at_least = bar.sense == Bar::Sense::kAtLeast;
  const bool met = at_least ? value >= bar.limit : value <= bar.limit;
  const std::string limit =
      fmt::format("{} {}{}", at_least ? ">=" : "<=", number(bar.limit), unit.empty() ? "" : " " + unit);
  if (quick()) return fmt::format("bar {}: not judged", limit);
  if (met) {
    ++met_;
  } else {
    missed_.push_back(fmt::format("{} {}: {} instead of {}", id_, what, number(value), limit));
  }
  return fmt::format("bar {}: {}", limit, met ? "met" : "NOT MET");
}

void Bench::compare(const std::string& what, const Series& engine, const Series& reference, Bar bar) {
  const std::vector<double>& ours = values_of(engine);
  const std::vector<double>& theirs = values_of(reference);
  std::vector<double> ratios;
  for (std::size_t i = 0; i < std::min(ours.size(), theirs.size()); ++i)
    ratios.push_back(ours[i] / theirs[i]);
  const Spread a = spread(ours);
  const Spread b = spread(theirs);
  const Spread r = spread(ratios);
  const double ratio = a.median / b.median;
  fmt::print("{}  {} | {} {} {} ({}..{}) | {} {} ({}..{}) | ratio {} ({}..{}) | {} | {}\n", id_, what,
             engine.name, number(a.median), engine.unit, number(a.min), number(a.max), reference.name,
             number(b.median), number(b.min), number(b.max), number(ratio), number(r.min), number(r.max),
             judge(bar, ratio, "", what), describe(engine.conditions, a.count));
  std::fflush(stdout);
}

void Bench::check(const std::string& what, const Series& series, Bar bar) {
  const Spread a = spread(values_of(series));
  fmt::print("{}  {} | {} {} {} ({}..{}) | {} | {}\n", id_, what, series.name, number(a.median), series.unit,
             number(a.min), number(a.max), judge(bar, a.median, series.unit, what),
             describe(series.conditions, a.count));
  std::fflush(stdout);
}

void Bench::check_difference(const std::string& what, const Series& more, const Series& less, Bar bar) {
  const double value = spread(values_of(more)).median - spread(values_of(less)).median;
  check_value(what, value, more.unit, more.conditions, bar);
}

void Bench::check_value(const std::string& what, double value, const std::string& unit,
                        const Conditions& conditions, Bar bar) {
  fmt::print("{}  {} | {} {} | {} | {}\n", id_, what, number(value), unit, judge(bar, value, unit, what),
             describe(conditions, 0));
  std::fflush(stdout);
}

void Bench::note(const std::string& text) {
  fmt::print("{}  {}\n", id_.empty() ? "bench" : id_, text);
  std::fflush(stdout);
}

void Bench::skip(const std::string& text) {
  skipped_.push_back((id_.empty() ? "" : id_ + " ") + text);
  fmt::print("{}  !! SKIPPED: {}\n", id_.empty() ? "bench" : id_, text);
  std::fflush(stdout);
}

void Bench::fail(const std::string& id, const std::string& why) {
  failed_.push_back(id + ": " + why);
  fmt::print("{}  !! FAILED: {}\n", id, why);
  std::fflush(stdout);
}

int Bench::finish() {
  const std::string bars =
      quick() ? "no bar was judged" : fmt::format("{} bars met, {} not met", met_, missed_.size());
  fmt::print("\nbench: {}, {} scenarios failed; every sample is in {}\n", bars, failed_.size(),
             settings_.samples.string());
  for (const std::string& line : skipped_)
    fmt::print("bench: skipped: {}\n", line);
  for (const std::string& line : missed_)
    fmt::print("bench: not met: {}\n", line);
  for (const std::string& line : failed_)
    fmt::print("bench: failed: {}\n", line);
  std::fflush(stdout);
  if (!failed_.empty()) return 1;
  return settings_.strict && !missed_.empty() ? 2 : 0;
}

}  // namespace towline::bench
