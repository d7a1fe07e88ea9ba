// The rows. What a row cannot do through the public API (holding the store's write lock, damaging stored
// bytes) is done behind the engine's back here, so that the tests stay free of any one technology.

#include "conformance/providers.hpp"

#include <cstdlib>
#include <sstream>

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
