#pragma once
// The languages that workers are written in, and the command that starts a worker of each.
//
// Every worker takes the same words behind its command (README.md) and writes the same ledger, so that
// neither the coordinator nor the verdict cares which of them took an order.

#include <string>
#include <string_view>
#include <vector>

#include <towline/result.hpp>

namespace towline::demo {

struct Language {
  std::string name;   ///< as in `--languages`, and in the names of process lives: "node-2.1"
  std::string title;  ///< for people
  std::vector<std::string> command;
  std::string missing = {};  ///< why this build has no workers in it; empty when it has
};

/// The command that starts this executable again, as `role`.
[[nodiscard]] std::vector<std::string> own_command(const std::string& role);

/// "node" of "node-2.1".
[[nodiscard]] std::string_view language_of(std::string_view life);

/// All that the demo knows, in the order in which workers are given to them.
[[nodiscard]] std::vector<Language> known_languages();

/// Those that are named, or all that are there when none is. Errors: kInvalidArgument when a named one is not
/// known or not there, saying why.
[[nodiscard]] Result<std::vector<Language>> choose_languages(const std::vector<Language>& known,
                                                             const std::vector<std::string>& names);

}  // namespace towline::demo
