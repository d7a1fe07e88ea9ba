// Bounds and parsing of option values. A wrong value is refused with the option's name, the value and the
// bound, so that the reader can mend it without opening a manual.

#include "base/option_checks.hpp"

#include <algorithm>
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

/// The group that an option of this name holds: "dead_letters" is of DeadLetters.
std::string group_of(std::string_view name) {
  std::string group;
  bool capital = true;
  for (const char c : name) {
    if (c != '_') group += capital ? static_cast<char>(c - 'a' + 'A') : c;
    capital = c == '_';
  }
  return group;
}

/// All that set_option() of the group takes.
std::vector<std::string> names_of(std::string_view group) {
  std::vector<std::string> names;
  for (const auto& row : detail::option_table()) {
    if (row.group != group) continue;
    if (row.type == "struct") {
      for (const std::string& inner : names_of(group_of(row.name)))
        names.push_back(std::string(row.name) + "." + inner);
    } else if (row.type != "code" || row.name == "start") {
      names.emplace_back(row.name);
    }
  }
  return names;
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
  // Whole milliseconds and decimals are read apart, so that nothing is rounded.
  const std::size_t point = text.find('.');
  const std::string_view decimals = point == std::string_view::npos ? "0" : text.substr(point + 1);
  std::int64_t value = 0;
  std::uint32_t parts = 0;
  if (!parse_number(text.substr(0, point), value) || value < 0 || text[0] == '-' ||
      value >= std::numeric_limits<std::int64_t>::max() / 1000 || decimals.size() > 3 ||
      !parse_number(decimals, parts)) {
    return bad_value(option, text, "a number of milliseconds, with three decimals at most");
  }
  for (std::size_t i = decimals.size(); i < 3; ++i)
    parts *= 10;
  field = Duration(value * 1000 + parts);
  return {};
}

Result<void> set_text(std::string_view, std::string_view text, std::string& field) {
  field = std::string(text);
  return {};
}

Result<void> set_start(std::string_view option, std::string_view text, spi::StartPosition& field) {
  using Kind = spi::StartPosition::Kind;
  constexpr std::string_view kExpected =
      "'earliest', 'latest', 'after:' and a message id, or 'at:' and microseconds since 1970";
  if (text == "earliest") {
    field = {};
  } else if (text == "latest") {
    field = {Kind::kLatest, {}, {}};
  } else if (text.starts_with("after:")) {
    auto id = MessageId::parse(text.substr(6));
    if (!id) return bad_value(option, text, kExpected);
    field = {Kind::kAfterId, *id, {}};
  } else if (std::int64_t us = 0; text.starts_with("at:") && parse_number(text.substr(3), us)) {
    field = {Kind::kAtTime, {}, from_us(us)};
  } else {
    return bad_value(option, text, kExpected);
  }
  return {};
}

Result<void> add_text(std::string_view, std::string_view text, std::vector<std::string>& field) {
  field.emplace_back(text);
  return {};
}

Result<void> add_count(std::string_view option, std::string_view text, std::vector<std::uint32_t>& field) {
  std::uint32_t value = 0;
  if (!parse_number(text, value)) return bad_value(option, text, "a whole number");
  field.push_back(value);
  return {};
}

Result<void> add_duration(std::string_view option, std::string_view text, std::vector<Duration>& field) {
  Duration value{0};
  if (auto bad = set_duration(option, text, value); !bad) return bad;
  field.push_back(value);
  return {};
}

Result<std::size_t> place_of_name(std::string_view option, std::string_view text,
                                  std::span<const std::string_view> names) {
  std::string known;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] == text) return i;
    known.append(i == 0 ? "" : ", ").append(names[i]);
  }
  return bad_value(option, text, "one of " + known);
}

bool is_option(std::string_view group, std::string_view name) {
  const auto names = names_of(group);
  return std::find(names.begin(), names.end(), name) != names.end();
}

Result<void> unknown_option(std::string_view group, std::string_view name) {
  const std::vector<std::string> names = names_of(group);
  const std::vector<std::string_view> known(names.begin(), names.end());
  return Error{ErrorCode::kInvalidConfig, "unknown option '" + escape(name, 64) + "'; did you mean '" +
                                              std::string(nearest_name(name, known)) + "'?"};
}

}  // namespace towline::base
