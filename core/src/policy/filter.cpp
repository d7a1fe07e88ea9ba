// Evaluation of compiled filters; filter_parser.cpp makes them.

#include "policy/filter.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <compare>
#include <optional>

#include "policy/filter_number.hpp"

namespace towline::policy {
namespace {

bool holds_order(std::partial_ordering order, bool less, bool equal, bool greater) noexcept {
  return (less && order < 0) || (equal && order == 0) || (greater && order > 0);
}

// Room for the text of a number or an id, so that evaluating allocates nothing.
struct TextBuffer {
  std::array<char, 40> bytes{};

  std::string_view write(std::uint64_t value) noexcept {
    const auto end = std::to_chars(bytes.data(), bytes.data() + bytes.size(), value).ptr;
    return {bytes.data(), static_cast<std::size_t>(end - bytes.data())};
  }
  std::string_view write(const MessageId& id) noexcept {
    constexpr char kDigits[] = "0123456789abcdef";
    std::size_t at = 0;
    for (std::size_t i = 0; i < id.bytes.size(); ++i) {
      if (i == 4 || i == 6 || i == 8 || i == 10) bytes[at++] = '-';
      bytes[at++] = kDigits[id.bytes[i] >> 4];
      bytes[at++] = kDigits[id.bytes[i] & 15];
    }
    return {bytes.data(), at};
  }
};

std::optional<std::string_view> unless_empty(std::string_view text) noexcept {
  if (text.empty()) return std::nullopt;
  return text;
}

std::optional<std::string_view> find_header(const Headers& headers, std::string_view name) noexcept {
  for (const auto& [header, value] : headers) {
    if (header == name) return value;
  }
  return std::nullopt;
}

}  // namespace

bool Filter::compare(const Test& test, const Literal& literal, std::string_view text) noexcept {
  std::partial_ordering order = std::partial_ordering::unordered;
  if (literal.kind == Literal::Kind::kText) {
    if (test.op == Operator::kPrefix) return text.starts_with(literal.text);
    order = text <=> std::string_view(literal.text);
  } else if (const auto number = parse_filter_number(text)) {
    const bool both_whole = number->is_whole && literal.kind == Literal::Kind::kWhole;
    order =
        both_whole ? std::partial_ordering(number->whole <=> literal.whole) : number->real <=> literal.real;
  }
  switch (test.op) {
    case Operator::kEqual:
    case Operator::kIn:
      return holds_order(order, false, true, false);
    case Operator::kNotEqual:
      return !holds_order(order, false, true, false);
    case Operator::kLess:
      return holds_order(order, true, false, false);
    case Operator::kLessEqual:
      return holds_order(order, true, true, false);
    case Operator::kGreater:
      return holds_order(order, false, false, true);
    case Operator::kGreaterEqual:
      return holds_order(order, false, true, true);
    case Operator::kPrefix:
    case Operator::kExists:
      break;
  }
  return false;
}

bool Filter::holds(const Test& test, const spi::Envelope& envelope) noexcept {
  TextBuffer buffer;
  std::optional<std::string_view> value;
  switch (test.field) {
    case Field::kHeader:
      value = find_header(envelope.headers, test.header);
      break;
    case Field::kTopic:
      value = unless_empty(envelope.topic);
      break;
    case Field::kKey:
      if (envelope.key) value = *envelope.key;
      break;
    case Field::kId:
      if (!envelope.id.empty()) value = buffer.write(envelope.id);
      break;
    case Field::kContentType:
      value = unless_empty(envelope.content_type);
      break;
    case Field::kCorrelationId:
      value = unless_empty(envelope.correlation_id);
      break;
    case Field::kCausationId:
      value = unless_empty(envelope.causation_id);
      break;
    case Field::kDedupId:
      value = unless_empty(envelope.dedup_id);
      break;
    case Field::kPriority:
      value = buffer.write(std::uint64_t{envelope.priority});
      break;
    case Field::kPartition:
      value = buffer.write(std::uint64_t{envelope.partition});
      break;
    case Field::kAttempt:
      value = buffer.write(std::uint64_t{envelope.attempt});
      break;
    case Field::kRedrives:
      value = buffer.write(std::uint64_t{envelope.redrives});
      break;
    case Field::kSize:
      value = buffer.write(std::uint64_t{envelope.payload.size()});
      break;
  }
  if (!value) return false;
  if (test.op == Operator::kExists) return true;
  return std::any_of(test.literals.begin(), test.literals.end(),
                     [&](const Literal& literal) { return compare(test, literal, *value); });
}

bool Filter::matches(const spi::Envelope& envelope) const noexcept {
  bool truth = true;
  for (std::size_t at = 0; at < program_.size();) {
    const Step& step = program_[at];
    switch (step.kind) {
      case Step::Kind::kTest:
        truth = holds(tests_[step.operand], envelope);
        ++at;
        break;
      case Step::Kind::kNot:
        truth = !truth;
        ++at;
        break;
      case Step::Kind::kSkipIfFalse:
        at = truth ? at + 1 : step.operand;
        break;
      case Step::Kind::kSkipIfTrue:
        at = truth ? step.operand : at + 1;
        break;
    }
  }
  return truth;
}

}  // namespace towline::policy
