#pragma once
// Reads orders from JSON Lines and refuses what cannot be used, saying in which line and why.

#include <towline/result.hpp>

#include <cstdint>
#include <istream>
#include <string>
#include <vector>

namespace towline::demo {

/// One order: one message. `line` is the payload, byte for byte.
struct Order {
  std::string id;
  std::string customer;
  std::int64_t total_cents = 0;
  std::string line;
};

/// Reads every order of `in`; `name` is what errors call it. `count_max` 0: no limit. Empty lines are passed
/// over.
///
/// Every line must be a JSON object with an "order_id" (or "id") and a "customer_id" (or "customer"), each a
/// non-empty text or a whole number; ids must differ. Errors: kInvalidArgument with one line per problem, the
/// first five, each beginning "name:line:".
[[nodiscard]] Result<std::vector<Order>> read_orders(std::istream& in, const std::string& name,
                                                     std::size_t count_max);

/// Opens and reads `path`; "-" is standard input. Errors: as read_orders, and kNotFound naming the path.
[[nodiscard]] Result<std::vector<Order>> read_orders_from(const std::string& path, std::size_t count_max);

/// Repeats `sample` until there are `count` orders; each round gives its orders a new id ("A-1001" ->
/// "A-1001-r2").
[[nodiscard]] std::vector<Order> cycle_orders(const std::vector<Order>& sample, std::size_t count);

}  // namespace towline::demo
