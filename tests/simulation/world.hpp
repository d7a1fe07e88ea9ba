#pragma once
// The world: processes with an engine each, producers, clients of the idempotency store, an operator, and
// whoever breaks things; over one shared store and one time. Everything runs on one thread, in an order that
// the seed draws.
//
// A run has two parts. First the load, with faults, until everything was published. Then all is healed and
// the load stops, and within ten minutes of virtual time nothing may be left to do; probe messages for every
// key then show that nothing stayed blocked. Checks over the history come last; see checkers.hpp.

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <vector>

#include <towline/consumer.hpp>
#include <towline/idempotency.hpp>
#include <towline/saga.hpp>

#include "drivers/memory/inspect.hpp"
#include "engine/core.hpp"
#include "simulation/checkers.hpp"
#include "simulation/crash_vfs.hpp"
#include "simulation/dice.hpp"
#include "simulation/faults.hpp"
#include "simulation/mutants.hpp"
#include "simulation/plan.hpp"

namespace towline::simulation {

/// How a run ended. Numbers are the exit codes of the program.
enum class Ending : std::uint8_t { kClean = 0, kBroken = 1, kUnsafe = 2, kStuck = 3, kNondeterministic = 4 };

struct Figures {
  std::uint64_t actions = 0, published = 0, hand_outs = 0, starts = 0, crashes = 0, dead_letters = 0,
                redrives = 0, sagas = 0, deeds = 0, events = 0, followed = 0, once_effects = 0;
  std::array<std::uint64_t, 3> saga_ends{};  ///< completed, compensated, stuck
  std::array<std::uint64_t, kFaultCount> faults{};
  Duration virtual_time{0};
  DiskFigures disk;
};

struct Verdict {
  Ending ending = Ending::kClean;
  std::vector<Violation> violations;
  Figures figures;
  std::uint64_t hash = 0;
};

using Places = std::map<MessageId, std::vector<drivers::memory::Place>>;

/// One life of a process: an engine and what of it is on the simulator's stack. The crash is that the process
/// lets go of it.
struct Life {
  ~Life();
  struct Slot {
    std::uint32_t group = 0;
    std::shared_ptr<engine::ConsumerCore> consumer;
    std::uint32_t concurrency = 1;
    std::uint32_t running = 0;
    bool lane_dirty = true, lane_busy = false, work = false, paused = false;
  };
  /// Runs the sagas of one type.
  struct SagaSlot {
    std::uint32_t type = 0;
    std::shared_ptr<engine::SagaRunner> runner;
    std::shared_ptr<engine::ConsumerCore> consumer;
    RemoteHandler handler;
    std::uint64_t fed = 0;  ///< given to the runner since its last step
    bool lane_dirty = true, lane_busy = false, runner_dirty = false, runner_busy = false;
  };
  /// Handles the commands of all sagas.
  struct Service {
    std::shared_ptr<engine::ConsumerCore> consumer;
    bool dirty = true, busy = false;
  };
  struct FollowSlot {
    std::uint32_t follower = 0;
    std::shared_ptr<engine::EventFollower> running;
    std::uint64_t handled = 0;   ///< by hand: what the next checkpoint says; 0: nothing
    std::uint64_t received = 0;  ///< up to there it has events
    MonotonicTime done_at{};     ///< when it says so
    std::uint32_t instance = 0;
    bool dirty = true;
  };
  Seat seat;
  std::shared_ptr<ProcessClock> clock;
  std::shared_ptr<engine::Core> core;
  std::vector<std::unique_ptr<Slot>> slots;
  std::vector<std::unique_ptr<SagaSlot>> saga_slots;
  std::unique_ptr<Service> service;
  std::vector<std::unique_ptr<FollowSlot>> follow_slots;
  /// A call of a follower holds what the others and the keeper wait for.
  bool is_following = false;
  TimePoint due_at{};
  bool scheduler_dirty = true, scheduler_busy = false, keeper_busy = false, janitor_busy = false,
       operator_busy = false;
  bool is_setting_up = false;
  /// Its threads have been told to end, and whoever ended them waits for them.
  bool closing = false;
  CrashMachine* machine = nullptr;  ///< null in a world without a disk
  /// Its store has stopped, and whoever watches it will end it soon.
  bool is_given_up = false;
};

struct Process {
  std::uint32_t index = 0;
  std::uint32_t generation = 0;
  std::shared_ptr<Life> life;
  MonotonicTime paused_until{};
  double weight = 1.0;
};

class World final : public Host {
 public:
  using Trace = std::function<void(const std::string&)>;

  World(Plan plan, Mutant mutant, Trace trace);
  ~World() override;

  [[nodiscard]] Verdict run();

  // ---- Host -------------------------------------------------------------------------------------
  [[nodiscard]] const WorldTime& time() const noexcept override { return time_; }
  void note(Record record) override;
  [[nodiscard]] CallFaults draw(const Seat& seat, Call call) override;
  [[nodiscard]] bool refuses(const Seat& seat) override;
  [[nodiscard]] bool alive(const Seat& seat) const noexcept override;
  void stall(const Seat& seat, Duration time) override;
  [[noreturn]] void die(const Seat& seat) override;
  void touch() override;
  void next_due(const Seat& seat, TimePoint due_at) override;
  [[nodiscard]] std::uint32_t new_session() override { return ++session_last_; }
  void know_entry(const MessageId& entry, std::uint32_t message, std::uint8_t group) override;
  [[nodiscard]] std::pair<std::uint32_t, std::uint8_t> whose_entry(const MessageId& entry) const override;
  void know_message(const MessageId& id, std::uint32_t message) override;
  void await_power_loss() override;
  [[nodiscard]] bool lose_power() override;
  [[noreturn]] void power_is_lost() override;

 private:
  enum class Task : std::uint8_t {
    kProduce,
    kFinish,
    kSettleByHand,
    kKeeper,
    kKeeperAgain,
    kJanitor,
    kPoll,
    kDue,
    kRestart,
    kOperate,
    kIdempotency,
    kLook,
    kGiveUp,
    kRoom,
    kSagaStart,
    kSagaCancel,
    kSagaFinish,
    kAppend,
    kReadAll,
    kOnce,
    kCheckpoint
  };
  struct Timed {
    MonotonicTime at;
    std::uint64_t tie = 0;
    Task task{};
    std::uint64_t who = 0;
    std::uint32_t generation = 0;
    bool operator>(const Timed& other) const noexcept {
      return at != other.at ? at > other.at : tie > other.tie;
    }
  };
  struct Running {
    std::shared_ptr<Life> life;
    Life::Slot* slot = nullptr;
    std::shared_ptr<engine::ConsumerCore> consumer;
    Delivery delivery;
    Record start;
    Outcome outcome;
    Verb verb = Verb::kAck;
    bool kills = false;
    bool slot_is_free = false;
  };
  /// Somebody who appends events.
  struct Writer {
    std::map<std::uint32_t, std::uint64_t> versions;  ///< of streams, as it knows them
    bool busy = false;
  };
  /// A call of a saga's step.
  struct SagaRunning {
    std::shared_ptr<Life> life;
    Life::SagaSlot* slot = nullptr;
    SagaCall call;
    Record deed;
    Behaviour behaviour;
  };
  struct Client {
    bool holds = false;
    std::uint32_t process = 0, generation = 0;
    std::uint32_t key = 0;
    IdempotencyToken token;
    MonotonicTime lease_until{};
  };
  /// Something that can be done at this moment.
  struct Ready {
    enum class Kind : std::uint8_t {
      kTimed,
      kScheduler,
      kLane,
      kWorker,
      kSagaLane,
      kSagaRunner,
      kService,
      kFollower
    } kind{};
    std::size_t index = 0;
    Process* process = nullptr;
    Life::Slot* slot = nullptr;
    Life::SagaSlot* saga_slot = nullptr;
    Life::FollowSlot* follow_slot = nullptr;
  };

  // world.cpp: the loop, life and death
  void run_load();
  void run_until_quiet();
  /// What handlers that outlast their timeout need, one after another.
  [[nodiscard]] Duration time_for_slow_ones() const;
  void run_until(MonotonicTime limit, const std::function<bool()>& done);
  [[nodiscard]] bool act();
  void gather(std::vector<Ready>& ready);
  void perform(const Ready& ready);
  void gather_sagas(Process& process, std::vector<Ready>& ready);
  void perform(const Timed& timed);
  void perform_side(const Timed& timed);
  void step_keeper(std::shared_ptr<Life> life);
  void step_janitor(Process& process);
  static void look_everywhere(Life& life);
  void after(Duration wait, Task task, std::uint64_t who, std::uint32_t generation = 0);
  void start_process(Process& process);
  void crash(Process& process);
  void subscribe(Process& process, std::uint32_t group, Life::Slot* into);
  void restart_in_order(Process& process);
  void break_something();
  void heal();
  [[nodiscard]] bool runs(const Process& process) const noexcept;
  /// When to look again at a process that does not run.
  [[nodiscard]] MonotonicTime when_it_runs(const Process& process) const;
  /// As a thread of that process; the death of the process ends `f`. The process may let go of its life
  /// meanwhile.
  template <typename F>
  static void as(const std::shared_ptr<Life>& life, bool& busy, F&& f) {
    const std::shared_ptr<Life> kept = life;
    busy = true;
    try {
      f();
    } catch (const ProcessDied&) {
    }
    busy = false;
  }
  void count(Fault fault, std::uint64_t how_often = 1);
  void violate(std::string checker, std::string text);
  /// In a split world: where the records are; the messages are at `location_`.
  [[nodiscard]] std::string store_location() const { return location_ + "-store"; }
  /// `machine` is null in a world without a disk.
  [[nodiscard]] Result<spi::Provider> open_provider(std::shared_ptr<spi::Clock> clock, std::uint64_t seed,
                                                    const CrashMachine* machine);

  void look_beside_records();

  // power.cpp: the disk
  void open_bench();
  /// null in a world without a disk.
  [[nodiscard]] CrashMachine* new_machine(bool can_be_disturbed);
  void let_disk_fail(bool on);
  void fill_disk();
  void give_up_what_stopped();
  /// Whether the disk is whole; and how its log looks now.
  [[nodiscard]] CrashDisk::WalHead look_over_disk();

  // actors.cpp: what processes, clients and operators do
  void step_lane(Process& process, Life::Slot& slot);
  void step_worker(Process& process, Life::Slot& slot);
  void step_scheduler(Process& process);
  void start_handler(Process& process, Life::Slot& slot, Delivery delivery);
  void decide_outcome(Running& running, const Behaviour& behaviour, Duration& takes);
  void check_content(const Delivery& delivery, std::uint32_t number, std::uint32_t group);
  void finish_handler(std::uint64_t id);
  void settle_by_hand(std::uint64_t id);
  void produce(std::uint32_t producer);
  void publish(std::shared_ptr<Life> life, const std::vector<std::uint32_t>& numbers, std::uint32_t producer);
  void note_receipt(std::uint32_t number, const Receipt& receipt, const std::shared_ptr<Life>& life,
                    TimePoint due);
  [[nodiscard]] Message message_of(std::uint32_t number) const;
  void step_client(std::uint32_t client);
  void begin(Client& client, std::uint32_t who, Process& process);
  void end(Client& client, std::uint32_t who, Process& process);
  void operate();
  void operate_on_schedule(Process& process);
  void operate_on_dead_letters(Process& process);
  void operate_on_consumers(Process& process);
  void release_keys(Process& process, bool all);
  [[nodiscard]] Process* somebody();

  // actors_of_sagas.cpp
  void set_up_sagas(Process& process);
  void begin_sagas();
  [[nodiscard]] Duration time_for_sagas() const;
  void note_saga(Event event, const Process& process, std::uint32_t saga, Answer answer);
  void start_saga(std::uint32_t saga, std::uint32_t round);
  void cancel_saga(std::uint32_t saga);
  void help_saga(Process& process);
  void step_saga_lane(Process& process, Life::SagaSlot& slot);
  void step_saga_runner(Process& process, Life::SagaSlot& slot);
  [[nodiscard]] Result<void> run_sagas(const std::shared_ptr<Life>& life, Life::SagaSlot& slot);
  void begin_deed(const std::shared_ptr<Life>& life, Life::SagaSlot& slot, const SagaCall& call);
  void check_call(const SagaCall& call, std::uint32_t saga);
  void end_deed(std::uint64_t id);
  void step_service(Process& process);
  [[nodiscard]] Result<void> subscribe_service(const std::shared_ptr<Life>& life);
  void serve(const std::shared_ptr<Life>& life, Delivery delivery);

  // actors_of_once.cpp
  void begin_once();
  void step_once(std::uint32_t client);
  void call_once(const std::shared_ptr<Life>& life, std::uint32_t client, std::uint32_t key);
  void call_once_in_tx(const std::shared_ptr<Life>& life, std::uint32_t client, std::uint32_t key);
  [[nodiscard]] std::map<std::uint32_t, std::vector<std::uint64_t>> survey_effects();

  // actors_of_events.cpp
  void set_up_followers(Process& process);
  void begin_events();
  void append_events(std::uint32_t writer);
  [[nodiscard]] Answer append_once(const std::shared_ptr<Life>& life, Writer& writer, Record asked);
  void read_all(std::uint32_t reader);
  void step_follower(Process& process, Life::FollowSlot& slot);
  void receive_by_hand(const std::shared_ptr<Life>& life, Life::FollowSlot& slot);
  [[nodiscard]] Result<void> follow(const std::shared_ptr<Life>& life, Life::FollowSlot& slot);
  void note_followed(const Life& life, const Life::FollowSlot& slot, std::span<const RecordedEvent> events);
  void checkpoint(Process& process);
  [[nodiscard]] std::vector<EventSeen> survey_events();
  [[nodiscard]] bool are_followers_done(std::string* why);

  // survey.cpp: looking at the store from outside
  [[nodiscard]] bool is_quiet(std::string* why);
  [[nodiscard]] std::string blocks_in_words() const;
  void look();
  void check_places(bool at_end);
  void check_limits();
  /// Of every message; empty in a world that cannot be looked into.
  [[nodiscard]] Places places() const;
  [[nodiscard]] FinalState survey();
  [[nodiscard]] std::vector<SagaRemains> survey_sagas();
  void publish_probes();

  const Plan plan_;
  const Mutant mutant_;
  const Trace trace_;
  Dice dice_;
  Dice fault_dice_;
  WorldTime time_;
  std::string location_;
  std::unique_ptr<CrashDisk> disk_;  ///< null in a world without one
  std::vector<std::unique_ptr<CrashMachine>> machines_;
  CrashDisk::WalHead head_before_;
  spi::Provider bench_;  ///< undisturbed, keeps the store alive and looks at it
  /// In a split world: what lies where the records are.
  std::shared_ptr<spi::Transport> beside_records_;
  std::shared_ptr<ProcessClock> bench_clock_;
  History history_;
  Facts facts_;
  std::vector<Violation> violations_;
  Figures figures_;
  Ending ending_ = Ending::kClean;

  std::vector<Process> processes_;
  std::priority_queue<Timed, std::vector<Timed>, std::greater<>> timed_;
  std::vector<Timed> arrived_;
  std::vector<Ready> ready_;
  std::map<std::uint64_t, Running> running_;
  std::uint64_t running_last_ = 0;
  std::map<std::uint64_t, SagaRunning> saga_running_;
  std::deque<Writer> writers_;
  std::uint32_t append_last_ = 0, event_last_ = 0, follow_last_ = 0;
  std::vector<PageSeen> pages_;
  std::deque<bool> once_busy_;
  std::uint64_t once_last_ = 0;
  std::uint64_t tie_last_ = 0;
  std::vector<std::vector<std::uint32_t>> to_publish_;
  std::vector<std::size_t> published_to_;
  std::deque<bool> producer_busy_;
  std::vector<Client> clients_;
  std::deque<bool> client_busy_;
  std::uint64_t result_last_ = 0;
  std::uint64_t ask_last_ = 0;
  std::uint32_t session_last_ = 0;
  std::uint32_t depth_ = 0;
  bool faults_on_ = true;
  bool healed_ = false;
  std::map<MessageId, std::pair<std::uint32_t, std::uint8_t>> entries_;
  std::map<MessageId, std::uint32_t> numbers_;
  std::vector<MessageId> ids_;
  std::vector<std::uint32_t> delayed_;
  /// Hand-outs that no handler was started for, by process, group and message; the newest last.
  std::map<std::tuple<std::uint32_t, std::uint8_t, std::uint32_t>, std::vector<Record>> handed_out_;
  std::map<std::pair<std::uint32_t, std::uint8_t>, std::uint32_t> starts_;
};

}  // namespace towline::simulation
