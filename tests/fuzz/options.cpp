// Options from text: a name or value that is wrong is refused in one line, and what is accepted and valid
// stays within the bounds of the table. Two lines: the name (or the number of a row of the table) and the
// value.

#include <charconv>

#include <towline/options.hpp>

#include "fuzz/input.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace towline;
  fuzz::Input input(data, size);
  const std::uint8_t choice = input.byte();
  std::string name = input.line();
  const std::string value = input.line();
  const auto table = detail::option_table();
  if (choice != 0) name = table[choice % table.size()].name;
  EngineOptions options;
  const auto set = set_option(options, name, value);
  if (!set.ok()) {
    fuzz::require(set.error().code == ErrorCode::kInvalidConfig, "a refused option is kInvalidConfig");
    fuzz::require(fuzz::is_one_line(set.error().message), "the error is one line");
    EngineOptions untouched;
    fuzz::require(
        options.lease == untouched.lease && options.seed == untouched.seed && options.name == untouched.name,
        "a refused value changes nothing");
    return 0;
  }
  const auto valid = validate(options);
  if (!valid.ok()) {
    fuzz::require(fuzz::is_one_line(valid.error().message), "the error is one line");
    return 0;
  }
  for (const auto& row : table) {
    if (row.group != "Engine" || row.name != name || (row.type != "count" && row.type != "duration"))
      continue;
    // It was accepted, so it is a number, and within the bounds that the table prints.
    double number = 0, low = 0, high = 0;
    const auto parse = [](std::string_view text, double& into) {
      return std::from_chars(text.data(), text.data() + text.size(), into).ec == std::errc{};
    };
    fuzz::require(parse(value, number), "an accepted number is a number");
    if (parse(row.minimum, low)) fuzz::require(number >= low, "not below the minimum");
    if (parse(row.maximum, high)) fuzz::require(number <= high, "not above the maximum");
  }
  return 0;
}
