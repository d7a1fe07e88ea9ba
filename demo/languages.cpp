// The commands come from the build: CMake defines the interpreter and the package of each language that it
// has built.

#include "languages.hpp"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

namespace towline::demo {
namespace {

Language python() {
#ifdef TOWLINE_DEMO_PYTHON
  return {"python",
          "Python",
          {"env", "PYTHONPATH=" TOWLINE_DEMO_PYTHONPATH, "PYTHONDONTWRITEBYTECODE=1", TOWLINE_DEMO_PYTHON,
           TOWLINE_DEMO_WORKERS "/worker.py"}};
#else
  return {"python",
          "Python",
          {},
          "this build has no Python package; configure it with -DTOWLINE_BUILD_PYTHON=ON (make demo does "
          "where Python 3.11 or newer is)"};
#endif
}

Language node() {
#ifdef TOWLINE_DEMO_NODE
  return {"node",
          "Node",
          {"env", "TOWLINE_NODE_BINARY=" TOWLINE_DEMO_NODE_BINARY, TOWLINE_DEMO_NODE,
           TOWLINE_DEMO_WORKERS "/worker.mjs"}};
#else
  return {"node",
          "Node",
          {},
          "this build has no Node package; configure it with -DTOWLINE_BUILD_NODE=ON (make demo does where "
          "Node.js 20 or newer is)"};
#endif
}

}  // namespace

std::vector<std::string> own_command(const std::string& role) {
  std::error_code code;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", code);
  return {code ? "/proc/self/exe" : self.string(), role};
}

std::string_view language_of(std::string_view life) { return life.substr(0, life.find('-')); }

std::vector<Language> known_languages() {
  return {{"cpp", "C++", own_command("run-worker")}, python(), node()};
}

Result<std::vector<Language>> choose_languages(const std::vector<Language>& known,
                                               const std::vector<std::string>& names) {
  std::vector<Language> chosen;
  for (const auto& language : known) {
    if (names.empty() && language.missing.empty()) chosen.push_back(language);
  }
  for (const auto& name : names) {
    const auto found = std::find_if(known.begin(), known.end(),
                                    [&](const Language& language) { return language.name == name; });
    if (found == known.end()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("there are no workers in \"{}\"; there are cpp, python and node", name)};
    }
    if (!found->missing.empty()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("there are no workers in {}: {}", found->title, found->missing)};
    }
    const bool is_new = std::none_of(chosen.begin(), chosen.end(),
                                     [&](const Language& language) { return language.name == name; });
    if (is_new) chosen.push_back(*found);
  }
  return chosen;
}

}  // namespace towline::demo
