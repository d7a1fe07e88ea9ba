#pragma once
// One row per provider: what the technology is like, as far as the suite must know. A new provider joins the
// suite by a new row in providers.cpp (and rows in capabilities.txt for what it cannot do); no test names a
// provider.

#include <filesystem>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

namespace towline::conformance {

/// A connection of somebody's own: runs a text of statements, answers the first value of the last row or "",
/// and throws std::runtime_error with what the database says.
using Sql = std::function<std::string(const std::string& text)>;

struct ProviderRow {
  std::string name;
  /// A URL of a store that nobody used before. `unique` differs for every call; `folder` is the test's own.
  std::function<std::string(const std::filesystem::path& folder, const std::string& unique)> make_url;
  bool durable = false;                   ///< what is stored survives when the last engine closes, or dies
  bool shared_between_processes = false;  ///< another process can open the same URL
  bool fences = false;                    ///< refuses a late settlement of a lost lease
  bool runs_sql = false;                  ///< handler transactions
  bool rings_across_engines = true;        ///< engines on one store learn of each other's changes at once
  bool keeps_deadlines = true;            ///< a publish that waits for the store ends at its deadline
  bool refuses_after_fork = true;         ///< its own calls know the child of a fork
  bool virtual_clock_possible = false;    ///< nothing in it goes by another clock than the engine's
  /// Lets `body` run while every writer of the store waits; empty: nothing outside the engine can make it
  /// wait.
  std::function<void(const std::string& url, const std::function<void()>& body)> stall;
  /// Damages the stored bytes of the oldest message of a topic so that it no longer decodes; empty: there are
  /// no bytes.
  std::function<void(const std::string& url, const std::string& topic)> damage_message;

  /// Connects with the technology's own client, as a user's program would; empty: no SQL.
  std::function<Sql(const std::string& url)> connect;

  friend std::ostream& operator<<(std::ostream& out, const ProviderRow& row) { return out << row.name; }
};

[[nodiscard]] std::vector<ProviderRow> all_providers();
/// All rows, or those that the environment variable TOWLINE_PROVIDERS names (comma separated).
[[nodiscard]] std::vector<ProviderRow> providers();

}  // namespace towline::conformance
