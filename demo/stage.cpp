// The table of effects is made by plain SQLite after the engine that laid out the file was closed, and before
// any process starts; it is read the same way at the end. The engine is asked for two things only: its dead
// letters, which are compared with the plan, and whether anything is left.

#include "stage.hpp"

#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <limits>
#include <utility>

#include <fmt/format.h>
#include <sys/stat.h>

namespace towline::demo {
namespace {

namespace fs = std::filesystem;

Error io_error(const std::string& path, const char* verb, int code) {
  return {ErrorCode::kIoError, fmt::format("{}: cannot {}: {}", path, verb, std::strerror(code)), code};
}

Result<void> make_folder(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0) return io_error(path, "be created", errno);
  return {};
}

Result<Place> temporary_place() {
  std::error_code code;
  const auto parent = fs::temp_directory_path(code);
  if (code) return io_error("the folder for temporary files", "be found", code.value());
  std::string folder = (parent / "towline-demo-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) return io_error(folder, "be created", errno);
  return Place{folder + "/orders.db", folder};
}

Result<Place> named_place(const std::string& database) {
  if (database.find_first_of("?#%") != std::string::npos) {
    return Error{ErrorCode::kInvalidArgument,
                 database + ": a path with '?', '#' or '%' cannot be part of a URL"};
  }
  const std::string folder = database + ".run";
  for (const auto& path : {database, folder}) {
    std::error_code ignored;
    if (!fs::exists(path, ignored)) continue;
    return Error{
        ErrorCode::kInvalidArgument,
        path + ": exists already; the demo starts from nothing, so name another file or remove this one"};
  }
  auto made = make_folder(folder);
  if (!made.ok()) return made.error();
  return Place{database, folder};
}

std::uint32_t number_in(const Headers& headers) {
  std::uint32_t number = std::numeric_limits<std::uint32_t>::max();
  for (const auto& [name, value] : headers) {
    if (name == kNumberHeader) std::from_chars(value.data(), value.data() + value.size(), number);
  }
  return number;
}

Result<std::vector<std::string>> list_left_over(Engine& engine) {
  std::vector<std::string> left;
  const auto backlog = engine.backlog();
  if (!backlog.ok()) return backlog.error();
  for (const auto& entry : *backlog) {
    if (entry.waiting == 0 && entry.in_flight == 0) continue;
    left.push_back(fmt::format("topic {}, group {}: {} messages wait and {} are in flight", entry.topic,
                               entry.group, entry.waiting, entry.in_flight));
  }
  const auto pending = engine.pending(kTopic);
  if (!pending.ok()) return pending.error();
  for (const auto& entry : pending->items)
    left.push_back(fmt::format("message {} is still scheduled", entry.id.to_string()));
  SagaQuery unfinished;
  unfinished.unfinished = true;
  const auto sagas = engine.sagas().list(unfinished);
  if (!sagas.ok()) return sagas.error();
  for (const auto& saga : sagas->items)
    left.push_back(fmt::format("saga {} is {} at \"{}\"", saga.id, name_of(saga.status), saga.step));
  const auto blocked = engine.blocked_keys(kGroup, kTopic);
  if (!blocked.ok()) return blocked.error();
  for (const auto& entry : *blocked) {
    left.push_back(
        fmt::format("customer {} is still blocked, with {} orders behind", entry.key, entry.parked_count));
  }
  return left;
}

}  // namespace

Result<Stage> Stage::make(const std::string& database) {
  auto place = database.empty() ? temporary_place() : named_place(database);
  if (!place.ok()) return place.error();
  Stage stage(std::move(*place), !database.empty());
  auto made = make_folder(stage.place().ledgers());
  if (made.ok()) made = make_folder(stage.place().world());
  if (!made.ok()) return made.error();
  return stage;
}

Stage::Stage(Stage&& other) noexcept
    : place_(std::move(other.place_)), keep_(std::exchange(other.keep_, true)) {}

Stage::~Stage() {
  std::error_code ignored;
  if (!keep_) fs::remove_all(place_.folder, ignored);
}

Result<void> Stage::prepare_database() const {
  auto engine = open_engine(place_.url(), "coordinator");
  if (!engine.ok()) return engine.error();
  auto declared = engine->declare_topic(kTopic);
  if (!declared.ok()) return declared;
  auto closed = engine->close();
  if (!closed.ok()) return closed.error();
  return create_effects_table(place_.database);
}

Result<std::vector<ListedDeadLetter>> list_dead_letters(Engine& engine) {
  std::vector<ListedDeadLetter> listed;
  DeadLetterQuery query;
  query.topic = std::string(kTopic);
  query.count_max = 1000;
  do {
    auto page = engine.dead_letters(query);
    if (!page.ok()) return page.error();
    for (const auto& entry : page->items) {
      listed.push_back({number_in(entry.headers), entry.attempt, entry.reason == DeadLetterReason::kExhausted,
                        entry.key.value_or(""), hash_of(entry.payload)});
    }
    query.cursor = page->cursor;
  } while (!query.cursor.empty());
  return listed;
}

Result<Evidence> gather_evidence(const Plan& plan, const Place& place, Engine& engine, std::size_t& torn) {
  Evidence evidence;
  evidence.plan = &plan;
  LedgerReader reader(place.ledgers());
  auto read = reader.poll([&](const std::string& source, const Record& record) {
    evidence.testimonies.push_back({source, record});
  });
  if (!read.ok()) return read.error();
  torn = reader.torn_count();
  auto effects = read_effects(place.database);
  if (!effects.ok()) return effects.error();
  evidence.effects = std::move(*effects);
  auto saga_effects = World::read(place.world());
  if (!saga_effects.ok()) return saga_effects.error();
  evidence.saga_effects = std::move(*saga_effects);
  auto dead_letters = list_dead_letters(engine);
  if (!dead_letters.ok()) return dead_letters.error();
  evidence.dead_letters = std::move(*dead_letters);
  auto left_over = list_left_over(engine);
  if (!left_over.ok()) return left_over.error();
  evidence.left_over = std::move(*left_over);
  return evidence;
}

}  // namespace towline::demo
