// Bounds and parsing of option values. A wrong value is refused with the option's name, the value and the
// bound, so that the reader can mend it without opening a manual.

#include "base/option_checks.hpp"

#include <charconv>
#include <cmath>
#include <limits>

#include "base/text.hpp"

namespace towline::base {
namespace {

Error bad_value(std::string_view option, std::string_view text, std::string_view expected) {
  return Error{ErrorCode::kInvalidConfig,
               std::string(option) + ": '" + escape(text, 64) + "' is not " + std::string(expected)};
}

Error out_of_bounds(std::string_view option, const std::string& value, const std::string& low,
                    const std::string& high) {
  return Error{ErrorCode::kInvalidConfig,
               std::string(option) + " is " + value + ", but must be between " + low + " and " + high};
}

template <typename T>
bool parse_number(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size();
}

}  // namespace

Result<void> check_count(std::string_view option, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value >= low && value <= high) return {};
  return out_of_bounds(option, std::to_string(value), std::to_string(low), std::to_string(high));
}

Result<void> check_ratio(std::string_view option, double value, double low, double high) {
  if (std::isfinite(value) && value >= low && value <= high) return {};
  return out_of_bounds(option, std::to_string(value), std::to_string(low), std::to_string(high));
}

Result<void> check_duration(std::string_view option, Duration value, std::int64_t low_ms,
                            std::int64_t high_ms) {
  // Compared in microseconds; the table's bounds are small enough to be multiplied.
  if (value.count() >= low_ms * 1000 && value.count() <= high_ms * 1000) return {};
  const std::string text = value.count() % 1000 == 0
                               ? std::to_string(value.count() / 1000)
                               : std::to_string(static_cast<double>(value.count()) / 1000.0);
  return out_of_bounds(option, text + " ms", std::to_string(low_ms) + " ms", std::to_string(high_ms) + " ms");
}

Result<void> set_bool(std::string_view option, std::string_view text, bool& field) {
  if (text == "true" || text == "1" || text == "on") {
    field = true;
  } else if (text == "false" || text == "0" || text == "off") {
    field = false;
  } else {
    return bad_value(option, text, "true or false");
  }
  return {};
}

Result<void> set_count(std::string_view option, std::string_view text, std::int64_t& field) {
  std::int64_t value = 0;
  if (!parse_number(text, value)) return bad_value(option, text, "a whole number");
  field = value;
  return {};
}

Result<void> set_ratio(std::string_view option, std::string_view text, double& field) {
  double value = 0;
  if (!parse_number(text, value)) return bad_value(option, text, "a number");
  field = value;
  return {};
}

Result<void> set_duration(std::string_view option, std::string_view text, Duration& field) {
  std::int64_t value = 0;
  if (!parse_number(text, value) || value < 0 || value > std::numeric_limits<std::int64_t>::max() / 1000) {
    return bad_value(option, text, "a whole number of milliseconds");
  }
  field = Duration(value * 1000);
  return {};
}

Result<void> set_text(std::string_view, std::string_view text, std::string& field) {
  field = std::string(text);
  return {};
}

Result<void> set_durability(std::string_view text, Durability& field) {
  if (text == "process") {
    field = Durability::kProcess;
  } else if (text == "host") {
    field = Durability::kHost;
  } else {
    return bad_value("durability", text, "'process' or 'host'");
  }
  return {};
}

Result<void> unknown_option(std::string_view name) {
  std::vector<std::string_view> known;
  for (const auto& row : detail::option_table()) {
    if (row.group == "Engine") known.push_back(row.name);
  }
  return Error{ErrorCode::kInvalidConfig, "unknown option '" + escape(name, 64) + "'; did you mean '" +
                                              std::string(nearest_name(name, known)) + "'?"};
}

}  // namespace towline::base
