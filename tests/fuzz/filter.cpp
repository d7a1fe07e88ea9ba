// Filters: any text is refused with an offset or compiles to something that obeys logic.

#include "policy/filter.hpp"

#include "fuzz/input.hpp"

namespace {

towline::spi::Envelope sample() {
  towline::spi::Envelope envelope;
  envelope.topic = "orders.eu";
  envelope.key = "k";
  envelope.priority = 5;
  envelope.payload = "0123456789";
  envelope.headers = {{"a", "x"}, {"b", "10"}, {"c", ""}, {"d", "1.5e3"}, {"in", "y"}};
  return envelope;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace towline;
  static const spi::Envelope envelope = sample();
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto filter = policy::Filter::compile(text);
  if (!filter.ok()) {
    fuzz::require(filter.error().code == ErrorCode::kInvalidFilter, "a refused filter is kInvalidFilter");
    fuzz::require(fuzz::is_one_line(filter.error().message), "the error is one line");
    return 0;
  }
  fuzz::require(size <= policy::kFilterLengthMax, "a filter is bounded");
  const bool holds = filter->matches(envelope);
  fuzz::require(filter->matches(envelope) == holds, "the same question has the same answer");
  if (filter->empty()) return 0;
  // These may be refused for their length or depth, but when they compile they must agree.
  const auto negated = policy::Filter::compile("not (" + text + ")");
  if (negated.ok()) fuzz::require(negated->matches(envelope) == !holds, "not turns the answer around");
  const auto doubled = policy::Filter::compile("(" + text + ") and (" + text + ")");
  if (doubled.ok()) fuzz::require(doubled->matches(envelope) == holds, "x and x is x");
  const auto always = policy::Filter::compile("(" + text + ") or not (" + text + ")");
  if (always.ok()) fuzz::require(always->matches(envelope), "x or not x holds");
  const auto never = policy::Filter::compile("(" + text + ") and not (" + text + ")");
  if (never.ok()) fuzz::require(!never->matches(envelope), "x and not x does not hold");
  return 0;
}
