// The rows. What a row cannot do through the public API (holding the store's write lock, damaging stored
// bytes) is done behind the engine's back here, so that the tests stay free of any one technology.

#include "conformance/providers.hpp"

#include <cstdlib>
#include <memory>
#include <sstream>
#include <stdexcept>

#include <sqlite3.h>

namespace towline::conformance {
namespace {

ProviderRow memory_row() {
  ProviderRow row;
  row.name = "memory";
  row.make_url = [](const std::filesystem::path&, const std::string& unique) { return "memory:" + unique; };
  row.fences = true;
  row.virtual_clock_possible = true;
  return row;
}

/// A connection of its own to the file of a `sqlite:` URL, as another program would have one.
class Intruder {
 public:
  explicit Intruder(const std::string& url) {
    const std::string path = url.substr(url.find(':') + 1);
    if (sqlite3_open_v2(path.c_str(), &connection_, SQLITE_OPEN_READWRITE, nullptr) != SQLITE_OK)
      fail("open");
    sqlite3_busy_timeout(connection_, 10'000);
  }
  ~Intruder() { sqlite3_close(connection_); }
  Intruder(const Intruder&) = delete;
  Intruder& operator=(const Intruder&) = delete;

  std::string run(const std::string& sql) {
    std::string first;
    const auto keep = [](void* to, int count, char** values, char**) {
      *static_cast<std::string*>(to) = count > 0 && values[0] != nullptr ? values[0] : "";
      return 0;
    };
    if (sqlite3_exec(connection_, sql.c_str(), keep, &first, nullptr) != SQLITE_OK) fail(sql);
    return first;
  }

 private:
  [[noreturn]] void fail(const std::string& what) {
    throw std::runtime_error(what + ": " + sqlite3_errmsg(connection_));
  }
  sqlite3* connection_ = nullptr;
};

void stall_sqlite(const std::string& url, const std::function<void()>& body) {
  Intruder intruder(url);
  intruder.run("BEGIN IMMEDIATE");
  body();
  intruder.run("ROLLBACK");
}

void damage_sqlite(const std::string& url, const std::string& topic) {
  Intruder(url).run(
      "UPDATE message SET extras = x'ff00ff00ff00ff00', payload = CASE WHEN count IS NULL THEN payload ELSE"
      " substr(payload, 1, 2) || x'ffffffffffffffffffff' || substr(payload, 13) END"
      " WHERE seq = (SELECT min(seq) FROM message, log, topic"
      " WHERE seq >> 40 = log.id AND log.topic_id = topic.id AND topic.name = '" +
      topic + "')");
}

ProviderRow sqlite_row() {
  ProviderRow row;
  row.name = "sqlite";
  row.make_url = [](const std::filesystem::path& folder, const std::string& unique) {
    return "sqlite:" + (folder / (unique + ".db")).string();
  };
  row.durable = true;
  row.shared_between_processes = true;
  row.fences = true;
  row.runs_sql = true;
  row.stall = stall_sqlite;
  row.damage_message = damage_sqlite;
  row.connect = [](const std::string& url) -> Sql {
    return [own = std::make_shared<Intruder>(url)](const std::string& text) { return own->run(text); };
  };
  return row;
}

}  // namespace

std::vector<ProviderRow> all_providers() { return {memory_row(), sqlite_row()}; }

std::vector<ProviderRow> providers() {
  const std::vector<ProviderRow> all = all_providers();
  const char* wanted = std::getenv("TOWLINE_PROVIDERS");
  if (wanted == nullptr || *wanted == '\0') return all;
  std::vector<ProviderRow> result;
  std::istringstream names(wanted);
  for (std::string name; std::getline(names, name, ',');) {
    for (const ProviderRow& row : all) {
      if (row.name == name) result.push_back(row);
    }
  }
  return result;
}

}  // namespace towline::conformance
