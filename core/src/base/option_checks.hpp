#pragma once
// What the generated option code calls: bounds with messages that name the option, its value and its bound,
// and the parsing of option values from text.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <towline/options.hpp>

namespace towline::base {

Result<void> check_count(std::string_view option, std::int64_t value, std::int64_t low, std::int64_t high);
Result<void> check_ratio(std::string_view option, double value, double low, double high);
/// `low_ms` and `high_ms` are the table's bounds.
Result<void> check_duration(std::string_view option, Duration value, std::int64_t low_ms,
                            std::int64_t high_ms);

/// `names`: of the enumerators, from 0 on.
template <typename Enum>
Result<void> check_enum(std::string_view option, Enum value, std::span<const std::string_view> names) {
  return check_count(option, static_cast<std::int64_t>(value), 0,
                     static_cast<std::int64_t>(names.size()) - 1);
}

Result<void> set_bool(std::string_view option, std::string_view text, bool& field);
Result<void> set_count(std::string_view option, std::string_view text, std::int64_t& field);
Result<void> set_ratio(std::string_view option, std::string_view text, double& field);
/// Milliseconds, as the table's unit says; up to three decimals.
Result<void> set_duration(std::string_view option, std::string_view text, Duration& field);
Result<void> set_text(std::string_view option, std::string_view text, std::string& field);
/// "earliest", "latest", "after:<message id>", "at:<microseconds since 1970>".
Result<void> set_start(std::string_view option, std::string_view text, spi::StartPosition& field);
Result<void> add_text(std::string_view option, std::string_view text, std::vector<std::string>& field);
Result<void> add_count(std::string_view option, std::string_view text, std::vector<std::uint32_t>& field);
Result<void> add_duration(std::string_view option, std::string_view text, std::vector<Duration>& field);
/// The place of the text among the names; none of them is an error that lists them.
Result<std::size_t> place_of_name(std::string_view option, std::string_view text,
                                  std::span<const std::string_view> names);
template <typename Enum>
Result<void> set_enum(std::string_view option, std::string_view text, std::span<const std::string_view> names,
                      Enum& field) {
  auto place = place_of_name(option, text, names);
  if (!place) return std::move(place).error();
  field = static_cast<Enum>(*place);
  return {};
}

/// Whether set_option() of this group of the table knows the name.
[[nodiscard]] bool is_option(std::string_view group, std::string_view name);
/// kInvalidConfig naming the nearest option of the group.
Result<void> unknown_option(std::string_view group, std::string_view name);

}  // namespace towline::base
