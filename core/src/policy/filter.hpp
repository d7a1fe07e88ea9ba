#pragma once
// The filter language: which messages of a topic a consumer wants, by their headers and by what the envelope
// says.
//
//     region = 'eu' and $priority >= 5
//     type in ('order.created', 'order.paid') or exists vip
//     not (tenant prefix 'test-')
//
// Grammar (words in any case; blanks anywhere between them):
//
//     filter     = and { "or" and }
//     and        = term { "and" term }
//     term       = "not" term | "(" filter ")" | test
//     test       = name op literal                    op: =  !=  <  <=  >  >=
//                | name "in" "(" literal { "," literal } ")"
//                | name "prefix" text
//                | "exists" name
//     name       = header | '"' any header '"' | "$" field
//     literal    = text | number
//     text       = "'" any bytes, '' for one quote "'"
//     number     = [-] digits [. digits] [e [+-] digits]
//
// A bare name is a header, compared byte for byte, made of letters, digits, '_', '-' and '.', and begins with
// a letter or '_'. A header of another form, or named like a word of the language, is put in double quotes.
//
// A "$" names a field of the envelope: $topic $key $id $content_type $correlation_id $causation_id $dedup_id
// (texts), $priority $partition $attempt $redrives $size (numbers; $size is of the payload in bytes). A text
// field that is empty and the key of a message without one count as missing, as a header that is not there
// does; an empty header and an empty key are present.
//
// Truth. The literal decides how a value is compared:
//
//     value              literal   =  != in        <  <=  >  >=         prefix
//     missing            any       false           false                false      "exists" is false
//     text               text      byte by byte    byte by byte         byte by byte
//     text that is a     number    as numbers      as numbers           -
//       number, or a
//       numeric field
//     other text         number    never equal:    false                -
//                                  = in false,
//                                  != true
//     numeric field      text      as the field's digits
//
// So a test of a missing value is always false, also with "!=", and "not (a = 'x')" is true where a is
// missing, which is how to ask for that. There is no third truth value: not, and, or are the ordinary ones.
// Whole numbers are compared exactly, others as doubles; a value is a number only if the whole text has the
// form above, without blanks and within the range of doubles.
//
// Evaluation is pure, allocates nothing and takes at most one pass over the headers per test. Bounds: 4,096
// bytes, 64 levels of parentheses and "not".

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <towline/result.hpp>
#include <towline/spi/envelope.hpp>

namespace towline::policy {

inline constexpr std::size_t kFilterLengthMax = 4096;
inline constexpr std::size_t kFilterDepthMax = 64;

/// A compiled filter. Immutable, so any number of threads may share it. The default one lets everything
/// through.
class Filter {
 public:
  Filter() = default;
  /// Blank text is the filter that lets everything through. Errors: kInvalidFilter with the offset of the
  /// first byte that does not fit, and what was expected there.
  [[nodiscard]] static Result<Filter> compile(std::string_view text);

  [[nodiscard]] bool matches(const spi::Envelope& envelope) const noexcept;
  /// Whether it lets everything through because it says nothing.
  [[nodiscard]] bool empty() const noexcept { return program_.empty(); }

 private:
  friend class FilterParser;

  enum class Field : std::uint8_t {
    kHeader,
    kTopic,
    kKey,
    kId,
    kContentType,
    kCorrelationId,
    kCausationId,
    kDedupId,
    kPriority,
    kPartition,
    kAttempt,
    kRedrives,
    kSize
  };
  enum class Operator : std::uint8_t {
    kEqual,
    kNotEqual,
    kLess,
    kLessEqual,
    kGreater,
    kGreaterEqual,
    kIn,
    kPrefix,
    kExists
  };
  struct Literal {
    enum class Kind : std::uint8_t { kText, kWhole, kReal } kind = Kind::kText;
    std::string text;
    std::int64_t whole = 0;
    double real = 0;
  };
  struct Test {
    Field field = Field::kHeader;
    Operator op = Operator::kExists;
    std::string header;
    std::vector<Literal> literals;
  };
  // The expression as a straight program over one truth value, so that evaluation needs no recursion and
  // stops as soon as the answer is known.
  struct Step {
    enum class Kind : std::uint8_t { kTest, kNot, kSkipIfFalse, kSkipIfTrue } kind = Kind::kTest;
    std::uint32_t operand = 0;  // kTest: which test; kSkip...: the step to go on with
  };

  [[nodiscard]] static bool holds(const Test& test, const spi::Envelope& envelope) noexcept;
  [[nodiscard]] static bool compare(const Test& test, const Literal& literal, std::string_view text) noexcept;

  std::vector<Test> tests_;
  std::vector<Step> program_;
};

}  // namespace towline::policy
