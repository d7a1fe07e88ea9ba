#pragma once
// Programs of the benchmark in other languages. Each is a process of its own, which warms itself up, measures
// itself and prints one line of JSON: {"per_second": 1, "cpu_us": 1}.

#include <functional>
#include <string>
#include <vector>

#include "flow.hpp"
#include "process.hpp"
#include "scenarios.hpp"

namespace towline::bench {

inline constexpr const char* kSqliteFull = "sqlite FULL";
inline constexpr const char* kNotDurable = "memory, not durable";

/// Whether the package of the language is part of this build; when it is not, that is said loudly.
[[nodiscard]] bool has_node(Bench& bench);
[[nodiscard]] bool has_python(Bench& bench);

/// `program` is a file in bench/node or bench/python.
[[nodiscard]] Child start_node(const std::string& program, const std::vector<std::string>& arguments);
[[nodiscard]] Child start_python(const std::string& program, const std::vector<std::string>& arguments);

/// What the line says.
[[nodiscard]] FlowRate rate_in(const std::string& line);
/// Reads the child's line and waits for its end.
[[nodiscard]] FlowRate rate_of(Child child);

/// A side of a round: the plain program of P01.
[[nodiscard]] std::function<void(int)> plain_program(Bench& bench, const Series& series, std::size_t count);
[[nodiscard]] Series plain_series();

/// Messages per second, in batches of 1,000 unless it is said.
[[nodiscard]] Series series_of(std::string name, const char* durability, std::string more = {},
                               std::size_t batch = kBatch);

}  // namespace towline::bench
