// Reads and checks orders. All lines are looked at before the first error is returned, so that a person sees
// the first five problems of a file at once instead of one per run.

#include "orders.hpp"

#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace towline::demo {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kIdBytesMax = 100;        // leaves room for the "-r20" of a repeated sample
constexpr std::size_t kCustomerBytesMax = 255;  // the longest key of a message
constexpr std::size_t kLineBytesMax = 1 << 20;  // the largest payload of an engine with default options
constexpr std::size_t kOrderCountMax = 1'000'000;
constexpr std::size_t kProblemsShown = 5;

/// The first of two names that the object has.
const Json* find_either(const Json& object, const char* first, const char* second) {
  for (const char* name : {first, second}) {
    const auto found = object.find(name);
    if (found != object.end()) return &*found;
  }
  return nullptr;
}

/// A text or whole number as text; a sentence about what is wrong otherwise.
Result<std::string> name_of(const Json& object, const char* first, const char* second,
                            std::size_t bytes_max) {
  const auto bad = [](std::string text) { return Error{ErrorCode::kInvalidArgument, std::move(text)}; };
  const Json* value = find_either(object, first, second);
  if (value == nullptr) return bad(fmt::format("the order has no \"{}\" (or \"{}\")", first, second));
  std::string text;
  if (value->is_string()) {
    text = value->get<std::string>();
  } else if (value->is_number_integer()) {
    text = value->dump();
  } else {
    return bad(fmt::format("\"{}\" is {}; it must be a text or a whole number", first, value->type_name()));
  }
  if (text.empty()) return bad(fmt::format("\"{}\" is empty", first));
  if (text.size() > bytes_max) {
    return bad(fmt::format("\"{}\" has {} bytes; at most {} are allowed", first, text.size(), bytes_max));
  }
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20)
      return bad(fmt::format("\"{}\" holds a control character", first));
  }
  return text;
}

/// What a JSON parser says about a line, without its prefix that speaks of "line 1" of what is one line
/// anyway.
std::string short_reason(const Json::parse_error& error) {
  std::string_view text = error.what();
  const auto colon = text.find(": ");
  if (colon != std::string_view::npos) text.remove_prefix(colon + 2);
  return fmt::format("not JSON at column {}: {}", error.byte, text);
}

Result<Order> parse_order(std::string line) {
  const auto bad = [](std::string text) { return Error{ErrorCode::kInvalidArgument, std::move(text)}; };
  if (line.size() > kLineBytesMax) {
    return bad(fmt::format("the line has {} bytes; at most {} are allowed", line.size(), kLineBytesMax));
  }
  Json object;
  try {
    object = Json::parse(line);
  } catch (const Json::parse_error& error) {
    return bad(short_reason(error));
  }
  if (!object.is_object())
    return bad(fmt::format("the line is a JSON {} and not an object", object.type_name()));
  auto id = name_of(object, "order_id", "id", kIdBytesMax);
  if (!id.ok()) return id.error();
  auto customer = name_of(object, "customer_id", "customer", kCustomerBytesMax);
  if (!customer.ok()) return customer.error();
  Order order{std::move(*id), std::move(*customer), 0, std::move(line)};
  const auto total = object.find("total_cents");
  if (total != object.end()) {
    if (!total->is_number_integer()) return bad("\"total_cents\" is not a whole number");
    order.total_cents = total->get<std::int64_t>();
  }
  return order;
}

/// Collects the first problems and counts the others.
class Problems {
 public:
  explicit Problems(std::string name) : name_(std::move(name)) {}
  void add(std::size_t line, std::string_view text) {
    if (++count_ <= kProblemsShown)
      text_ += fmt::format("{}{}:{}: {}", text_.empty() ? "" : "\n", name_, line, text);
  }
  [[nodiscard]] std::optional<Error> error() const {
    if (count_ == 0) return std::nullopt;
    std::string text = text_;
    if (count_ > kProblemsShown)
      text += fmt::format("\n... and {} more lines with problems", count_ - kProblemsShown);
    return Error{ErrorCode::kInvalidArgument, text};
  }

 private:
  std::string name_;
  std::string text_;
  std::size_t count_ = 0;
};

}  // namespace

Result<std::vector<Order>> read_orders(std::istream& in, const std::string& name, std::size_t count_max) {
  if (count_max == 0 || count_max > kOrderCountMax) count_max = kOrderCountMax + 1;
  Problems problems(name);
  std::vector<Order> orders;
  std::unordered_map<std::string, std::size_t> line_of_id;
  std::string line;
  for (std::size_t number = 1; orders.size() < count_max && std::getline(in, line); ++number) {
    if (number == 1 && line.starts_with("\xef\xbb\xbf")) line.erase(0, 3);  // a byte order mark is no JSON
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    auto order = parse_order(std::move(line));
    if (!order.ok()) {
      problems.add(number, order.error().message);
      continue;
    }
    const auto [found, is_new] = line_of_id.emplace(order->id, number);
    if (!is_new) {
      problems.add(number, fmt::format("order \"{}\" is in line {} already; ids must differ", order->id,
                                       found->second));
      continue;
    }
    orders.push_back(std::move(*order));
  }
  if (in.bad())
    return Error{ErrorCode::kIoError, fmt::format("{}: cannot be read: {}", name, std::strerror(errno)),
                 errno};
  if (auto error = problems.error()) return *std::move(error);
  if (orders.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 name + ": holds no orders; one JSON object per line is expected"};
  }
  if (orders.size() > kOrderCountMax) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: holds more than {} orders; take fewer with --count", name, kOrderCountMax)};
  }
  return orders;
}

Result<std::vector<Order>> read_orders_from(const std::string& path, std::size_t count_max) {
  if (path == "-") return read_orders(std::cin, "standard input", count_max);
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    return Error{ErrorCode::kNotFound, fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)),
                 errno};
  }
  return read_orders(in, path, count_max);
}

std::vector<Order> cycle_orders(const std::vector<Order>& sample, std::size_t count) {
  std::vector<Order> orders;
  orders.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    Order order = sample[i % sample.size()];
    const std::size_t round = i / sample.size() + 1;
    if (round > 1) {
      order.id += fmt::format("-r{}", round);
      Json object = Json::parse(order.line);
      object[object.contains("order_id") ? "order_id" : "id"] = order.id;
      order.line = object.dump();
    }
    orders.push_back(std::move(order));
  }
  return orders;
}

}  // namespace towline::demo
