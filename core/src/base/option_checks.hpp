#pragma once
// What the generated option code calls: bounds with messages that name the option, its value and its bound,
// and the parsing of option values from text.

#include <cstdint>
#include <string>
#include <string_view>

#include <towline/options.hpp>

namespace towline::base {

Result<void> check_count(std::string_view option, std::int64_t value, std::int64_t low, std::int64_t high);
Result<void> check_ratio(std::string_view option, double value, double low, double high);
/// `low_ms` and `high_ms` are the table's bounds.
Result<void> check_duration(std::string_view option, Duration value, std::int64_t low_ms,
                            std::int64_t high_ms);

Result<void> set_bool(std::string_view option, std::string_view text, bool& field);
Result<void> set_count(std::string_view option, std::string_view text, std::int64_t& field);
Result<void> set_ratio(std::string_view option, std::string_view text, double& field);
/// Milliseconds, as the table's unit says.
Result<void> set_duration(std::string_view option, std::string_view text, Duration& field);
Result<void> set_text(std::string_view option, std::string_view text, std::string& field);
/// "process" or "host".
Result<void> set_durability(std::string_view text, Durability& field);
/// kInvalidConfig naming the nearest engine option.
Result<void> unknown_option(std::string_view name);

}  // namespace towline::base
