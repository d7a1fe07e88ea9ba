// Functions that must run once per key: called by several processes, which die while they run, lose their
// lease, or never learn whether the result was stored. On SQLite also in one transaction with the result.

#include <charconv>
#include <utility>

#include "simulation/world.hpp"

namespace towline::simulation {
namespace {

constexpr const char* kScope = "once";
constexpr const char* kScopeOfTx = "once-tx";

Answer answer_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::kInProgress:
      return Answer::kInProgress;
    case ErrorCode::kLeaseLost:
      return Answer::kLost;
    case ErrorCode::kConflict:
      return Answer::kConflict;
    case ErrorCode::kUnavailable:
    case ErrorCode::kTimeout:
    case ErrorCode::kIoError:
      return Answer::kUnknown;
    default:
      return Answer::kRejected;
  }
}

std::uint64_t number_in_bytes(std::string_view bytes) {
  std::uint64_t number = 0;
  (void)std::from_chars(bytes.data(), bytes.data() + bytes.size(), number);
  return number;
}

}  // namespace

void World::begin_once() {
  once_busy_.resize(plan_.once_client_count);
  for (std::uint32_t c = 0; c < plan_.once_client_count; ++c)
    after(Duration(0), Task::kOnce, c);
  if (plan_.once_client_count == 0 || plan_.world != WorldKind::kSqlite) return;
  const auto made = bench_.store->transact(
      [](spi::SqlSession& session) -> Result<void> {
        auto done = session.execute("CREATE TABLE effects(key INTEGER, result INTEGER)", {});
        return done ? Result<void>{} : Result<void>(std::move(done).error());
      },
      {}, nullptr);
  if (!made) violate("setup", made.error().to_string());
}

void World::step_once(std::uint32_t client) {
  if (healed_) return;
  after(dice_.between(Duration(0), std::chrono::milliseconds(300)), Task::kOnce, client);
  Process* process = somebody();
  if (process == nullptr || once_busy_[client]) return;
  const auto key = static_cast<std::uint32_t>(dice_.below(plan_.once_key_count));
  const bool in_tx = plan_.world == WorldKind::kSqlite && dice_.chance(0.5);
  in_tx ? call_once_in_tx(process->life, client, key) : call_once(process->life, client, key);
}

void World::call_once(const std::shared_ptr<Life>& of_process, std::uint32_t client, std::uint32_t key) {
  const auto life = of_process;
  IdempotencyOptions options;
  options.scope = kScope;
  options.lease = dice_.pick<Duration>({std::chrono::milliseconds(100), std::chrono::seconds(1)});
  const Duration takes =
      dice_.chance(0.1) ? options.lease * 3 / 2 : dice_.between(Duration(0), std::chrono::milliseconds(20));
  const bool fails = dice_.chance(0.1);
  Record r;
  r.event = Event::kOnceAsked;
  r.process = life->seat.process;
  r.session = client;
  r.index = key;
  r.lease = ++once_last_;
  r.until = time_.monotonic + options.lease;
  r.answer = Answer::kUnknown;
  note(r);
  const auto effect = [&]() -> Bytes {
    Record does = r;
    does.event = Event::kOnceEffect;
    does.number = r.lease;
    note(does);
    ++figures_.once_effects;
    if (takes > Duration(0)) stall(life->seat, takes);
    if (!alive(life->seat)) throw ProcessDied{};
    does.event = Event::kOnceReturn;
    note(does);
    if (fails) throw HandlerError("NoLuck");
    return std::to_string(r.lease);
  };
  as(life, once_busy_[client], [&] {
    try {
      const auto answer = life->core->idempotency().once("key-" + std::to_string(key), effect, options);
      r.answer = answer ? Answer::kOk : answer_of(answer.error());
      if (answer) r.number = number_in_bytes(answer->bytes);
    } catch (const HandlerError&) {
      r.answer = Answer::kRejected;
    }
  });
  r.event = Event::kOnce;
  note(r);
}

void World::call_once_in_tx(const std::shared_ptr<Life>& of_process, std::uint32_t client,
                            std::uint32_t key) {
  const auto life = of_process;
  Record r;
  r.event = Event::kOnceInTx;
  r.process = life->seat.process;
  r.session = client;
  r.index = key;
  r.number = ++once_last_;
  r.answer = Answer::kUnknown;
  const auto body = [&](spi::SqlSession& session) -> Result<void> {
    const spi::SqlSession::Value values[] = {static_cast<std::int64_t>(key),
                                             static_cast<std::int64_t>(r.number)};
    auto done = session.execute("INSERT INTO effects VALUES(?1, ?2)", values);
    if (!done) return std::move(done).error();
    spi::PutIdempotency put;
    put.record.scope = kScopeOfTx;
    put.record.key = "key-" + std::to_string(key);
    put.record.state = spi::IdempotencyRecord::State::kDone;
    put.record.has_result = true;
    put.record.result = std::to_string(r.number);
    put.record.expires_at = life->clock->now() + IdempotencyOptions{}.ttl;
    return session.write(put);
  };
  as(life, once_busy_[client], [&] {
    for (int round = 0; round < 3 && r.answer == Answer::kUnknown && alive(life->seat); ++round) {
      const auto done = life->core->context().store->transact(body, {}, nullptr);
      r.answer = done.ok() ? Answer::kOk : answer_of(done.error());
    }
  });
  note(r);
}

std::map<std::uint32_t, std::vector<std::uint64_t>> World::survey_effects() {
  std::map<std::uint32_t, std::vector<std::uint64_t>> effects;
  if (plan_.once_client_count == 0 || plan_.world != WorldKind::kSqlite) return effects;
  const auto read = bench_.store->transact(
      [&](spi::SqlSession& session) -> Result<void> {
        auto rows = session.execute("SELECT key, result FROM effects", {});
        if (!rows) return std::move(rows).error();
        for (const auto& row : *rows) {
          effects[static_cast<std::uint32_t>(std::get<std::int64_t>(row[0]))].push_back(
              static_cast<std::uint64_t>(std::get<std::int64_t>(row[1])));
        }
        return {};
      },
      {}, nullptr);
  if (!read) violate("K9", "the effects cannot be read: " + read.error().to_string());
  return effects;
}

}  // namespace towline::simulation
