#pragma once
// The checked-in lists of the suite: scenarios.txt (what is proved, under which id) and capabilities.txt (why
// a provider, or a language, passes one over). Every language's runner reads the same two files.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace towline::conformance {

struct Scenario {
  std::string id;      ///< "CONF-05"
  std::string name;    ///< "nak_now"
  std::string proves;  ///< "G-06"
};

struct Skip {
  std::string id;
  std::string provider;  ///< "*": all
  std::string language;  ///< "*": all
  std::string reason;
};

/// In the order of the file. Throws std::runtime_error naming the line when one does not parse or an id comes
/// twice.
[[nodiscard]] const std::vector<Scenario>& scenarios();
/// Those that are about this language.
[[nodiscard]] const std::vector<Skip>& skips();

[[nodiscard]] const Scenario* find_scenario(std::string_view id);
/// Why `provider` passes over `id`, when the table says that it does.
[[nodiscard]] std::optional<std::string> skip_reason(std::string_view id, std::string_view provider);

/// "CONF-05" of a test named "Conf05_...", "BAD-01" of "Bad01_..."; empty for any other name.
[[nodiscard]] std::string id_of_test(std::string_view test_name);

}  // namespace towline::conformance
