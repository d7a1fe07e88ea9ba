// Reads the two lists. Lines are fields between '|'; '#' begins a comment line.

#include "conformance/scenarios.hpp"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <set>
#include <stdexcept>

namespace towline::conformance {
namespace {

std::string trimmed(std::string_view text) {
  const auto is_space = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
  while (!text.empty() && is_space(text.front()))
    text.remove_prefix(1);
  while (!text.empty() && is_space(text.back()))
    text.remove_suffix(1);
  return std::string(text);
}

std::vector<std::vector<std::string>> read_table(const std::string& name, std::size_t field_count) {
  const std::string path = std::string(TOWLINE_SOURCE_DIR) + "/tests/conformance/" + name;
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::vector<std::vector<std::string>> rows;
  std::size_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (trimmed(line).empty() || line.starts_with('#')) continue;
    std::vector<std::string> fields;
    std::size_t begin = 0;
    while (begin <= line.size()) {
      const std::size_t end = std::min(line.find('|', begin), line.size());
      fields.push_back(trimmed(std::string_view(line).substr(begin, end - begin)));
      begin = end + 1;
    }
    const bool empty =
        std::any_of(fields.begin(), fields.end(), [](const std::string& f) { return f.empty(); });
    if (fields.size() != field_count || empty) {
      throw std::runtime_error(name + ":" + std::to_string(number) + ": wants " +
                               std::to_string(field_count) + " fields");
    }
    rows.push_back(std::move(fields));
  }
  return rows;
}

}  // namespace

const std::vector<Scenario>& scenarios() {
  static const std::vector<Scenario> list = [] {
    std::vector<Scenario> result;
    std::set<std::string> seen;
    for (auto& row : read_table("scenarios.txt", 4)) {
      if (!seen.insert(row[0]).second) throw std::runtime_error("scenarios.txt: " + row[0] + " comes twice");
      result.push_back({row[0], row[1], row[2]});
    }
    return result;
  }();
  return list;
}

const std::vector<Skip>& skips() {
  static const std::vector<Skip> list = [] {
    std::vector<Skip> result;
    const std::set<std::string> languages = {"*", "cpp", "node", "python"};
    for (auto& row : read_table("capabilities.txt", 4)) {
      if (find_scenario(row[0]) == nullptr)
        throw std::runtime_error("capabilities.txt: no scenario " + row[0]);
      if (!languages.contains(row[2])) throw std::runtime_error("capabilities.txt: no language " + row[2]);
      if (row[2] == "*" || row[2] == "cpp") result.push_back({row[0], row[1], row[2], row[3]});
    }
    return result;
  }();
  return list;
}

const Scenario* find_scenario(std::string_view id) {
  for (const Scenario& scenario : scenarios()) {
    if (scenario.id == id) return &scenario;
  }
  return nullptr;
}

std::optional<std::string> skip_reason(std::string_view id, std::string_view provider) {
  for (const Skip& skip : skips()) {
    if (skip.id == id && (skip.provider == provider || skip.provider == "*")) return skip.reason;
  }
  return std::nullopt;
}

std::string id_of_test(std::string_view test_name) {
  for (const auto& [prefix, word] : {std::pair{"Conf", "CONF-"}, std::pair{"Bad", "BAD-"}}) {
    if (!test_name.starts_with(prefix)) continue;
    std::string digits;
    for (std::size_t i = std::string_view(prefix).size(); i < test_name.size(); ++i) {
      if (std::isdigit(static_cast<unsigned char>(test_name[i])) == 0) break;
      digits += test_name[i];
    }
    if (digits.size() >= 2) return word + digits;
  }
  return {};
}

}  // namespace towline::conformance
