// From the text of a filter to its program: a recursive descent over the grammar of filter.hpp that writes
// steps as it goes. The depth is bounded before each descent, so no input can exhaust the stack.

#include <array>
#include <string>
#include <utility>

#include "base/text.hpp"
#include "policy/filter.hpp"
#include "policy/filter_number.hpp"

namespace towline::policy {
namespace {

constexpr bool is_letter(char c) noexcept { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
constexpr bool is_blank(char c) noexcept { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
constexpr bool begins_name(char c) noexcept { return is_letter(c) || c == '_'; }
constexpr bool continues_name(char c) noexcept {
  return begins_name(c) || is_digit(c) || c == '-' || c == '.';
}

constexpr std::array<std::string_view, 6> kWords = {"and", "or", "not", "in", "prefix", "exists"};

bool is_word_of_the_language(std::string_view name) noexcept {
  for (const std::string_view word : kWords) {
    if (base::equals_ignoring_case(word, name)) return true;
  }
  return false;
}

}  // namespace

class FilterParser {
 public:
  explicit FilterParser(std::string_view text) : text_(text) {}

  Result<Filter> parse() {
    if (text_.size() > kFilterLengthMax) {
      return Error{ErrorCode::kInvalidFilter, "filter has " + std::to_string(text_.size()) +
                                                  " bytes; at most " + std::to_string(kFilterLengthMax) +
                                                  " are allowed"};
    }
    skip_blanks();
    if (text_.empty()) return Filter{};
    if (at_ == text_.size()) fail("an expression (a filter that takes everything is an empty text)");
    if (!error_ && parse_or() && at_ != text_.size()) fail("'and', 'or' or the end");
    if (error_) return *std::move(error_);
    return std::move(filter_);
  }

 private:
  using Step = Filter::Step;
  using Test = Filter::Test;
  using Literal = Filter::Literal;
  using Operator = Filter::Operator;
  using Field = Filter::Field;

  // ---- text ---------------------------------------------------------------------------------------------

  bool fail_at(std::size_t offset, const std::string& problem) {
    if (!error_) {
      error_ = Error{ErrorCode::kInvalidFilter, "filter '" + base::escape(text_, 120) + "', at offset " +
                                                    std::to_string(offset) + ": " + problem};
    }
    return false;
  }

  bool fail(std::string_view expected) {
    const std::string found =
        at_ == text_.size() ? "the end" : "'" + base::escape(text_.substr(at_, 12), 40) + "'";
    return fail_at(at_, "expected " + std::string(expected) + ", found " + found);
  }

  void skip_blanks() {
    while (at_ < text_.size() && is_blank(text_[at_]))
      ++at_;
  }

  void advance(std::size_t count) {
    at_ += count;
    skip_blanks();
  }

  [[nodiscard]] std::string_view peek_name() const {
    if (at_ == text_.size() || !begins_name(text_[at_])) return {};
    std::size_t end = at_ + 1;
    while (end < text_.size() && continues_name(text_[end]))
      ++end;
    return text_.substr(at_, end - at_);
  }

  bool take_word(std::string_view word) {
    if (!base::equals_ignoring_case(peek_name(), word)) return false;
    advance(word.size());
    return true;
  }

  bool take(std::string_view symbol) {
    if (!text_.substr(at_).starts_with(symbol)) return false;
    advance(symbol.size());
    return true;
  }

  // ---- expressions --------------------------------------------------------------------------------------

  // Operands joined by `word`: after each but the last, a step that leaves the chain when the answer is
  // known. A skip out of "a and b" lands behind the chain with the truth value that decided it.
  template <typename Operand>
  bool parse_chain(std::string_view word, Step::Kind skip, Operand operand) {
    std::vector<std::size_t> skips;
    if (!operand()) return false;
    while (take_word(word)) {
      skips.push_back(filter_.program_.size());
      filter_.program_.push_back({skip, 0});
      if (!operand()) return false;
    }
    for (const std::size_t step : skips) {
      filter_.program_[step].operand = static_cast<std::uint32_t>(filter_.program_.size());
    }
    return true;
  }

  bool parse_or() {
    return parse_chain("or", Step::Kind::kSkipIfTrue, [this] { return parse_and(); });
  }

  bool parse_and() {
    return parse_chain("and", Step::Kind::kSkipIfFalse, [this] { return parse_term(); });
  }

  bool parse_term() {
    const bool negated = take_word("not");
    if (!negated && !take("(")) return parse_test();
    if (depth_ == kFilterDepthMax) {
      return fail_at(at_,
                     "more than " + std::to_string(kFilterDepthMax) + " levels of parentheses and 'not'");
    }
    ++depth_;
    if (negated) {
      if (!parse_term()) return false;
      filter_.program_.push_back({Step::Kind::kNot, 0});
    } else {
      if (!parse_or()) return false;
      if (!take(")")) return fail("'and', 'or' or ')'");
    }
    --depth_;
    return true;
  }

  // ---- tests --------------------------------------------------------------------------------------------

  bool parse_test() {
    Test test;
    if (take_word("exists")) {
      if (!parse_attribute(test)) return false;
    } else {
      if (!parse_attribute(test) || !parse_operator(test) || !parse_operands(test)) return false;
    }
    filter_.program_.push_back({Step::Kind::kTest, static_cast<std::uint32_t>(filter_.tests_.size())});
    filter_.tests_.push_back(std::move(test));
    return true;
  }

  bool parse_attribute(Test& test) {
    if (at_ < text_.size() && text_[at_] == '"') return parse_quoted_header(test);
    if (at_ < text_.size() && text_[at_] == '$') return parse_field(test);
    const std::string_view name = peek_name();
    if (name.empty()) return fail("a header name, a $field, 'exists', 'not' or '('");
    if (is_word_of_the_language(name)) {
      return fail_at(at_, "'" + std::string(name) +
                              "' is a word of the language; a header of that name goes in double "
                              "quotes");
    }
    test.header = name;
    advance(name.size());
    return true;
  }

  bool parse_quoted_header(Test& test) {
    const std::size_t end = text_.find('"', at_ + 1);
    if (end == std::string_view::npos) return fail_at(at_, "the double quote is not closed");
    if (end == at_ + 1) return fail_at(at_, "the header name is empty");
    test.header = text_.substr(at_ + 1, end - at_ - 1);
    advance(end + 1 - at_);
    return true;
  }

  bool parse_field(Test& test) {
    static constexpr std::array<std::pair<std::string_view, Field>, 12> kFields = {
        {{"topic", Field::kTopic},
         {"key", Field::kKey},
         {"id", Field::kId},
         {"content_type", Field::kContentType},
         {"correlation_id", Field::kCorrelationId},
         {"causation_id", Field::kCausationId},
         {"dedup_id", Field::kDedupId},
         {"priority", Field::kPriority},
         {"partition", Field::kPartition},
         {"attempt", Field::kAttempt},
         {"redrives", Field::kRedrives},
         {"size", Field::kSize}}};
    const std::size_t start = at_++;
    const std::string_view name = peek_name();
    std::vector<std::string_view> names;
    for (const auto& [known, field] : kFields) {
      if (known == name) {
        test.field = field;
        advance(name.size());
        return true;
      }
      names.push_back(known);
    }
    return fail_at(start, "there is no field '$" + base::escape(name, 40) + "'; did you mean '$" +
                              std::string(base::nearest_name(name, names)) + "'?");
  }

  bool parse_operator(Test& test) {
    static constexpr std::array<std::pair<std::string_view, Operator>, 6> kSymbols = {
        {{"!=", Operator::kNotEqual},
         {"<=", Operator::kLessEqual},
         {">=", Operator::kGreaterEqual},
         {"=", Operator::kEqual},
         {"<", Operator::kLess},
         {">", Operator::kGreater}}};
    for (const auto& [symbol, op] : kSymbols) {
      if (take(symbol)) {
        test.op = op;
        return true;
      }
    }
    if (take_word("in")) {
      test.op = Operator::kIn;
    } else if (take_word("prefix")) {
      test.op = Operator::kPrefix;
    } else {
      return fail("one of = != < <= > >= in prefix");
    }
    return true;
  }

  bool parse_operands(Test& test) {
    if (test.op != Operator::kIn) {
      if (test.op == Operator::kPrefix && (at_ == text_.size() || text_[at_] != '\''))
        return fail("a text in quotes");
      return parse_literal(test);
    }
    if (!take("(")) return fail("'(' and a list");
    do {
      if (!parse_literal(test)) return false;
    } while (take(","));
    return take(")") || fail("',' or ')'");
  }

  bool parse_literal(Test& test) {
    if (at_ < text_.size() && text_[at_] == '\'') return parse_text(test);
    const std::size_t length = filter_number_length(text_.substr(at_));
    if (length == 0) return fail("a text in single quotes or a number");
    const auto number = parse_filter_number(text_.substr(at_, length));
    const bool runs_on = at_ + length < text_.size() && (continues_name(text_[at_ + length]));
    if (!number || runs_on)
      return fail_at(at_, "not a number that can be compared; a text goes in single quotes");
    Literal literal;
    literal.kind = number->is_whole ? Literal::Kind::kWhole : Literal::Kind::kReal;
    literal.whole = number->whole;
    literal.real = number->real;
    test.literals.push_back(std::move(literal));
    advance(length);
    return true;
  }

  bool parse_text(Test& test) {
    const std::size_t start = at_;
    Literal literal;
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] == '\'') {
        const bool doubled = at_ + 1 < text_.size() && text_[at_ + 1] == '\'';
        if (!doubled) {
          test.literals.push_back(std::move(literal));
          advance(1);
          return true;
        }
        ++at_;
      }
      literal.text.push_back(text_[at_]);
    }
    return fail_at(start, "the quote is not closed");
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t depth_ = 0;
  Filter filter_;
  std::optional<Error> error_;
};

Result<Filter> Filter::compile(std::string_view text) { return FilterParser(text).parse(); }

}  // namespace towline::policy
