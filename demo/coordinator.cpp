// One run, from the first process to the verdict.
//
// The order that matters: the plan is written before any process starts; a kill is followed by reading what
// the dead process left in its ledger and in the table; workers run until every order has reached its end,
// every planned kill has happened, all dead letters are listed and the ledgers have been quiet for longer
// than a lease, so that a message that would be handled twice had its chance; only then the workers are
// stopped and the evidence is read, from the beginning.

#include "coordinator.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <utility>

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include "cast.hpp"
#include "common.hpp"
#include "effects.hpp"
#include "languages.hpp"
#include "ledger.hpp"
#include "plan.hpp"
#include "progress.hpp"
#include "screen.hpp"
#include "stage.hpp"
#include "verdict.hpp"

namespace towline::demo {
namespace {

constexpr std::size_t kDefaultCount = 10'000;
constexpr std::size_t kFewOrders = 10;     // with fewer nothing is killed: there is no "on the way"
constexpr std::size_t kHitCountMin = 500;  // from here on half of the kills must hit a running handler
constexpr double kPublishSecondsPerKill = 1.5;  // at least: a worker that was killed has to come up again
constexpr double kRateMax = 1250;
constexpr double kRestartAfterS = 0.3;
constexpr double kBetweenKillsS = 1.0;
constexpr double kHuntMaxS = 2.0;
constexpr double kPublisherKillAt = 0.3;  // of all orders published
constexpr double kQuietS = 2.5;           // longer than a lease
constexpr double kSettleMaxS = 20;
constexpr double kStopPatienceS = 10;
constexpr std::size_t kFindingsPerKind = 3;

std::atomic<int> stop_signal{0};
extern "C" void note_signal(int signal) { stop_signal.store(signal); }

void catch_signals() {
  struct sigaction action {};
  action.sa_handler = note_signal;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE})
    ::sigaction(signal, &action, nullptr);
}

/// Why a run ends without a verdict.
struct Stop {
  int status = kExitBreach;
  std::string text;
};

class Coordinator {
 public:
  Coordinator(const CoordinatorOptions& options, std::vector<Language> languages, Plan plan, Stage stage)
      : options_(options),
        languages_(std::move(languages)),
        plan_(std::move(plan)),
        stage_(std::move(stage)),
        progress_(plan_),
        reader_(stage_.place().ledgers()),
        random_(options.seed) {}
  int run();

 private:
  using Clock = std::chrono::steady_clock;

  std::optional<Stop> prepare();
  std::optional<Stop> play();
  std::optional<Stop> watch();
  std::optional<Stop> reap();
  std::optional<Stop> start_again();
  std::optional<Stop> settle();
  std::optional<Stop> conclude(int& status);
  void kill_when_due();
  void kill_a_publisher();
  void hunt_a_worker();
  void kill(Seat& seat);
  [[nodiscard]] bool is_caught_at_work(const Seat& seat);
  Result<void> read_ledgers();
  void show(bool now = false);
  void tell(const Verdict& verdict, std::size_t torn);
  int end_without_verdict(const Stop& stop);

  [[nodiscard]] double elapsed_s() const {
    return std::chrono::duration<double>(Clock::now() - began_).count();
  }
  [[nodiscard]] std::string interruption() const;
  [[nodiscard]] double publish_rate() const;
  [[nodiscard]] double deadline_s() const;
  [[nodiscard]] std::uint32_t worker_kills() const { return few_orders() ? 0 : options_.worker_kills; }
  [[nodiscard]] std::uint32_t publisher_kills() const { return few_orders() ? 0 : options_.publisher_kills; }
  [[nodiscard]] std::string title_of(const std::string& language) const;
  [[nodiscard]] bool few_orders() const { return plan_.orders.size() < kFewOrders; }
  [[nodiscard]] bool all_kills_done() const { return kills_.size() == worker_kills() + publisher_kills(); }
  [[nodiscard]] std::size_t kill_count(bool worker) const;
  static Stop stop_for(const Error& error) { return {kExitBreach, error.to_string()}; }

  CoordinatorOptions options_;
  std::vector<Language> languages_;  ///< of the workers; no more than there are workers
  Plan plan_;
  Stage stage_;
  Progress progress_;
  LedgerReader reader_;
  Random random_;
  std::optional<Screen> screen_;
  std::optional<Cast> cast_;
  std::optional<Ledger> ledger_;
  std::optional<Engine> engine_;
  std::vector<Kill> kills_;
  std::size_t hits_ = 0;  ///< workers that had orders in hand when they were killed
  Clock::time_point began_ = Clock::now();
  double last_start_s_ = 0;   ///< when a process was last started
  double hunt_since_s_ = -1;  ///< since when a kill is due and waits for a good moment
  double handled_took_s_ = 0;
  double rate_at_s_ = 0, rate_ = 0;
  std::size_t rate_count_ = 0;
};

double Coordinator::publish_rate() const {
  if (options_.rate_per_second > 0) return options_.rate_per_second;
  const double seconds_min = kPublishSecondsPerKill * std::max(2U, worker_kills());
  return std::min(kRateMax, static_cast<double>(plan_.orders.size()) / seconds_min);
}

/// What the plan itself takes, several times over, and a minute.
double Coordinator::deadline_s() const {
  if (options_.deadline_s > 0) return options_.deadline_s;
  const double publishing = static_cast<double>(plan_.orders.size()) / publish_rate();
  const double waiting = std::chrono::duration<double>(plan_.longest_wait()).count();
  return 60 + 2 * publishing + 3 * waiting + 5.0 * (worker_kills() + publisher_kills());
}

std::size_t Coordinator::kill_count(bool worker) const {
  return static_cast<std::size_t>(
      std::count_if(kills_.begin(), kills_.end(), [&](const Kill& kill) { return kill.worker == worker; }));
}

std::optional<Stop> Coordinator::prepare() {
  auto written = write_plan(plan_, stage_.place().plan());
  if (!written.ok()) return stop_for(written.error());
  auto prepared = stage_.prepare_database();
  if (!prepared.ok()) return stop_for(prepared.error());
  auto ledger = Ledger::create(stage_.place().ledger_of("coordinator"));
  if (!ledger.ok()) return stop_for(ledger.error());
  ledger_.emplace(std::move(*ledger));

  CastOptions cast{.place = stage_.place(),
                   .seed = plan_.seed,
                   .concurrency = options_.concurrency,
                   .work_ms = options_.work_ms,
                   .publisher = own_command("run-publisher"),
                   .publisher_rates = {},
                   .workers = options_.workers,
                   .languages = languages_};
  std::vector<std::size_t> shares(options_.publishers, 0);
  for (const auto& planned : plan_.orders)
    ++shares[planned.publisher];
  for (const auto share : shares) {
    const double part = static_cast<double>(share) / static_cast<double>(plan_.orders.size());
    cast.publisher_rates.push_back(publish_rate() * part);
  }
  cast_.emplace(std::move(cast));
  return std::nullopt;
}

void Coordinator::show(bool now) {
  const double at_s = elapsed_s();
  if (at_s - rate_at_s_ >= 1.0) {
    rate_ = static_cast<double>(progress_.finished() - rate_count_) / (at_s - rate_at_s_);
    rate_at_s_ = at_s;
    rate_count_ = progress_.finished();
  }
  View view;
  view.database = stage_.place().database;
  view.seed = plan_.seed;
  view.order_count = plan_.orders.size();
  view.finished = progress_.finished();
  view.publishers = cast_->running(Role::kPublisher);
  view.workers = cast_->running(Role::kWorker);
  view.kills = kills_.size();
  view.figures = progress_.figures(wall_us());
  view.elapsed_s = at_s;
  view.rate_per_second = rate_;
  screen_->show(view, now);
}

/// Kills with SIGKILL, and then looks at what the process left behind.
void Coordinator::kill(Seat& seat) {
  const auto pid = seat.child->pid();
  seat.child->send(SIGKILL);
  seat.child->wait();
  seat.child.reset();
  kills_.push_back({seat.name(), seat.role == Role::kWorker});
  ledger_->append({.what = What::kKilled, .at_us = wall_us(), .text = seat.name()});
  seat.start_at_s = elapsed_s() + kRestartAfterS;
  const auto read = read_ledgers();
  std::string detail;
  if (seat.role == Role::kWorker && read.ok()) {
    const auto in_hand = progress_.open_count(seat.name());
    if (in_hand > 0) ++hits_;
    detail = fmt::format(", {} orders in hand", in_hand);
    // It may have committed an effect that it could not write down any more.
    const auto effects = read_effects(stage_.place().database, seat.name());
    if (effects.ok()) {
      for (const auto& row : *effects)
        progress_.note_effect(row.number);
    }
  }
  progress_.forget(seat.name());
  screen_->event(elapsed_s(), fmt::format("kill -9 {} (process {}){}", seat.title, pid, detail));
}

void Coordinator::kill_a_publisher() {
  Seat* victim = nullptr;
  std::size_t most = 0;
  for (auto& seat : cast_->seats()) {
    if (seat.role != Role::kPublisher || !seat.child) continue;
    const auto share = static_cast<std::size_t>(
        std::count_if(plan_.orders.begin(), plan_.orders.end(),
                      [&](const PlannedOrder& order) { return order.publisher == seat.index; }));
    if (victim != nullptr && share <= most) continue;
    victim = &seat;
    most = share;
  }
  if (victim != nullptr) kill(*victim);
}

/// Stops it where it is and looks at what it has written down; it goes on when nothing is in its hands.
bool Coordinator::is_caught_at_work(const Seat& seat) {
  if (seat.child->stop() && read_ledgers().ok() && progress_.open_count(seat.name()) > 0) return true;
  seat.child->send(SIGCONT);
  return false;
}

Result<void> Coordinator::read_ledgers() {
  return reader_.poll(
      [&](const std::string& source, const Record& record) { progress_.note(source, record); });
}

std::string Coordinator::interruption() const {
  const int signal = stop_signal.load();
  return fmt::format("stopped by {}; {} of {} orders had reached their end, so there is no verdict",
                     signal == SIGINT ? "Ctrl-C" : ::strsignal(signal), progress_.finished(),
                     plan_.orders.size());
}

/// The languages take turns in being killed. Waits for a moment when a worker has orders in hand, then
/// strikes somewhere in the next dozen milliseconds, so that over many kills every point of a handling is
/// hit; half of the kills, though, strike only a worker that is caught at work.
void Coordinator::hunt_a_worker() {
  if (hunt_since_s_ < 0) hunt_since_s_ = elapsed_s();
  const auto& language = languages_[kill_count(true) % languages_.size()];
  Seat* victim = nullptr;
  for (auto& seat : cast_->seats()) {
    if (seat.role != Role::kWorker || seat.kind != language.name || !seat.child) continue;
    if (victim == nullptr || progress_.open_count(seat.name()) > progress_.open_count(victim->name()))
      victim = &seat;
  }
  if (victim == nullptr) return;
  const bool busy = progress_.open_count(victim->name()) > 0;
  if (!busy && elapsed_s() - hunt_since_s_ < kHuntMaxS) return;
  const auto spread = static_cast<std::uint64_t>(std::max<std::int64_t>(1, options_.work_ms));
  ::poll(nullptr, 0, static_cast<int>(random_.below(spread)));
  if (busy && hits_ * 2 <= kill_count(true) && !is_caught_at_work(*victim)) return;
  hunt_since_s_ = -1;
  kill(*victim);
}

void Coordinator::kill_when_due() {
  const auto count = static_cast<double>(plan_.orders.size());
  if (kill_count(false) < publisher_kills() &&
      static_cast<double>(progress_.published()) >= kPublisherKillAt * count) {
    kill_a_publisher();
  }
  const auto killed = kill_count(true);
  if (killed >= worker_kills()) return;
  // 4 kills: at 20, 40, 60 and 80 %.
  const double at = static_cast<double>(killed + 1) / (worker_kills() + 1);
  if (static_cast<double>(progress_.finished()) < at * count) return;
  const bool all_run = cast_->running(Role::kWorker) == options_.workers;
  if (all_run && elapsed_s() - last_start_s_ >= kBetweenKillsS) hunt_a_worker();
}

std::optional<Stop> Coordinator::reap() {
  for (auto& seat : cast_->seats()) {
    if (!seat.child) continue;
    const auto ending = seat.child->poll();
    if (!ending) continue;
    seat.child.reset();
    if (seat.role == Role::kPublisher && ending->clean()) {
      seat.done = true;
      screen_->event(elapsed_s(), seat.title + " has published everything");
      continue;
    }
    const auto log = last_lines(stage_.place().log_of(seat.name()), 10);
    return Stop{kExitBreach,
                fmt::format("{} {} by itself; it must not.\n{}", seat.name(), ending->to_string(),
                            log.empty() ? "    (its log is empty)\n" : log)};
  }
  return std::nullopt;
}

std::optional<Stop> Coordinator::start_again() {
  for (auto& seat : cast_->seats()) {
    if (!seat.start_at_s || *seat.start_at_s > elapsed_s()) continue;
    auto started = cast_->start(seat);
    if (!started.ok()) return stop_for(started.error());
    last_start_s_ = elapsed_s();
    screen_->event(last_start_s_,
                   fmt::format("{} started again (process {})", seat.title, seat.child->pid()));
  }
  return std::nullopt;
}

/// One look at everything; says why the run cannot go on, if so.
std::optional<Stop> Coordinator::watch() {
  ::poll(nullptr, 0, hunt_since_s_ >= 0 ? 2 : 10);
  if (stop_signal.load() != 0) return Stop{kExitInterrupted, interruption()};
  if (const auto read = read_ledgers(); !read.ok()) return stop_for(read.error());
  if (auto stop = reap()) return stop;
  if (auto stop = start_again()) return stop;
  kill_when_due();
  show();
  if (elapsed_s() < deadline_s()) return std::nullopt;
  std::string ids;
  for (const auto& id : progress_.unfinished(5))
    ids += (ids.empty() ? "" : ", ") + id;
  return Stop{kExitBreach,
              fmt::format("DEADLINE  not done after {:.0f} s: {} of {} orders have reached their end, {} are "
                          "published; the first ones that have not: {}",
                          deadline_s(), progress_.finished(), plan_.orders.size(), progress_.published(),
                          ids.empty() ? "none" : ids)};
}

std::optional<Stop> Coordinator::play() {
  screen_.emplace();
  std::string titles;
  for (const auto& language : languages_)
    titles += (titles.empty() ? "" : ", ") + language.title;
  screen_->event(
      0, fmt::format("{} orders of {} publishers for {} workers ({}), seed {}, {}", plan_.orders.size(),
                     options_.publishers, options_.workers, titles, plan_.seed, stage_.place().database));
  for (const auto& language : known_languages()) {
    if (options_.languages.empty() && !language.missing.empty())
      screen_->event(0, fmt::format("NO WORKERS IN {}: {}", language.title, language.missing));
  }
  auto started = cast_->start_all();
  if (!started.ok()) return stop_for(started.error());
  last_start_s_ = elapsed_s();
  while (!progress_.complete() || !all_kills_done() || !cast_->publishers_done() ||
         cast_->running(Role::kWorker) < options_.workers) {
    if (auto stop = watch()) return stop;
  }
  handled_took_s_ = elapsed_s();
  return settle();
}

/// The last dead letters arrive, and whatever would be handled twice has its chance.
std::optional<Stop> Coordinator::settle() {
  screen_->event(
      elapsed_s(),
      "every order has reached its end; waiting longer than a lease for anything that comes twice");
  auto engine = open_engine(stage_.place().url(), "coordinator");
  if (!engine.ok()) return stop_for(engine.error());
  engine_ = std::move(*engine);
  const double since_s = elapsed_s();
  bool all_listed = false;
  while (elapsed_s() - since_s < kSettleMaxS) {
    if (auto stop = watch()) return stop;
    if (!all_listed) {
      const auto listed = list_dead_letters(*engine_);
      if (!listed.ok()) return stop_for(listed.error());
      all_listed = listed->size() >= plan_.dead_count();
    }
    const double quiet_s = static_cast<double>(wall_us() - progress_.last_at_us()) / 1e6;
    if (all_listed && quiet_s >= kQuietS) break;
  }
  return std::nullopt;
}

std::string Coordinator::title_of(const std::string& language) const {
  const auto found = std::find_if(languages_.begin(), languages_.end(),
                                  [&](const Language& one) { return one.name == language; });
  return found == languages_.end() ? language : found->title;
}

void Coordinator::tell(const Verdict& verdict, std::size_t torn) {
  Figures f = progress_.figures(wall_us());
  fmt::print(
      "\n{} orders reached their end in {:.1f} s ({:.0f} per second, publishing paced at {:.0f} per "
      "second)\n",
      plan_.orders.size(), handled_took_s_, static_cast<double>(plan_.orders.size()) / handled_took_s_,
      publish_rate());
  fmt::print(
      "from publishing, or the due time, to the handler: p50 {:.1f} ms, p99 {:.1f} ms, kills included\n",
      static_cast<double>(f.p50_us) / 1000, static_cast<double>(f.p99_us) / 1000);
  fmt::print(
      "{} of {} killed workers had orders in hand; {} attempts began again elsewhere; {} ledgers end in half "
      "a line\n",
      verdict.kills_into_work, kill_count(true), f.redelivered, torn);
  for (const auto& share : verdict.languages) {
    fmt::print("{} booked {} orders, killed {} times\n", title_of(share.name), share.effects, share.kills);
  }
  fmt::print("{} orders were begun in one language and booked in another\n", verdict.handed_over);
  if (verdict.sagas.planned > 0) {
    fmt::print(
        "{} orders had a saga, {} of them to be undone; {} went on in another process; {} steps were asked "
        "for "
        "again, under the same key\n",
        verdict.sagas.planned, verdict.sagas.undone, verdict.sagas.handed_over, verdict.sagas.asked_again);
  }
  if (few_orders()) fmt::print("fewer than {} orders: nothing was killed on the way\n", kFewOrders);
  for (const auto& line : verdict.first_findings(kFindingsPerKind))
    fmt::print("  {}\n", line);
  if (const auto sagas = verdict.saga_line(); !sagas.empty()) fmt::print("{}\n", sagas);
  screen_->verdict(verdict.line(), verdict.pass());
}

std::optional<Stop> Coordinator::conclude(int& status) {
  const auto complaints = cast_->stop_all(kStopPatienceS);
  show(true);
  screen_->finish();
  std::size_t torn = 0;
  auto evidence = gather_evidence(plan_, stage_.place(), *engine_, torn);
  if (!evidence.ok()) return stop_for(evidence.error());
  evidence->kills = kills_;
  evidence->kills_planned = worker_kills() + publisher_kills();
  evidence->kills_must_hit = plan_.orders.size() >= kHitCountMin && options_.work_ms > 0;
  evidence->languages_must_act = plan_.orders.size() >= kHitCountMin;
  evidence->languages_known = known_languages().size();
  for (const auto& language : languages_)
    evidence->languages.push_back(language.name);
  for (const auto& complaint : complaints)
    evidence->left_over.push_back(complaint);
  const Verdict verdict = judge(*evidence);
  tell(verdict, torn);
  const auto closed = engine_->close();
  if (!closed.ok()) return stop_for(closed.error());
  status = verdict.pass() ? kExitPass : kExitBreach;
  return std::nullopt;
}

int Coordinator::end_without_verdict(const Stop& stop) {
  if (cast_) {
    // Nobody waits for a drain any more.
    cast_->stop_all(stop.status == kExitInterrupted ? 2.0 : 5.0);
    if (screen_) show(true);
  }
  if (screen_) screen_->finish();
  screen_.reset();
  fmt::print(stderr, "towline_demo: {}\n", stop.text);
  if (stop.status == kExitBreach) stage_.keep();
  return stop.status;
}

int Coordinator::run() {
  if (options_.keep) stage_.keep();
  catch_signals();
  int status = kExitBreach;
  auto stop = prepare();
  if (!stop) stop = play();
  if (!stop) stop = conclude(status);
  if (stop) {
    status = end_without_verdict(*stop);
  } else if (status != kExitPass) {
    stage_.keep();
  }
  screen_.reset();
  if (stage_.kept()) {
    fmt::print("kept: {} (database), {} (plan, ledgers, logs)\n", stage_.place().database,
               stage_.place().folder);
  }
  return status;
}

Result<std::vector<Order>> orders_for(const CoordinatorOptions& options) {
  if (!options.input.empty()) return read_orders_from(options.input, options.count);
  auto sample = read_orders_from(options.sample, 0);
  if (!sample.ok()) return sample;
  return cycle_orders(*sample, options.count == 0 ? kDefaultCount : options.count);
}

}  // namespace

int run_coordinator(const CoordinatorOptions& options) {
  auto orders = orders_for(options);
  if (!orders.ok()) {
    fmt::print(stderr, "towline_demo: the orders cannot be used\n{}\n", orders.error().message);
    return kExitUsage;
  }
  auto stage = Stage::make(options.database);
  if (!stage.ok()) {
    fmt::print(stderr, "towline_demo: {}\n", stage.error().message);
    return kExitUsage;
  }
  auto languages = choose_languages(known_languages(), options.languages);
  if (!languages.ok()) {
    fmt::print(stderr, "towline_demo: {}\n", languages.error().message);
    return kExitUsage;
  }
  if (languages->size() > options.workers) languages->resize(options.workers);
  return Coordinator(options, std::move(*languages),
                     make_plan(std::move(*orders), options.seed, options.publishers), std::move(*stage))
      .run();
}

}  // namespace towline::demo
