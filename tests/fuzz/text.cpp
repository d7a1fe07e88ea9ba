// Text for people and names of failures: one bounded line of UTF-8 from any bytes, and a fingerprint from any
// error. Three lines: a type, a message, and the rest is a stack.

#include "base/text.hpp"

#include <array>

#include "fuzz/input.hpp"
#include "policy/classify.hpp"
#include "policy/fingerprint.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace towline;
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  for (const std::size_t bound : {std::size_t{0}, std::size_t{7}, std::size_t{64}, std::size_t{100'000}}) {
    const std::string shown = base::escape(all, bound);
    fuzz::require(shown.size() <= std::max<std::size_t>(bound, 3), "escaped text is bounded");
    fuzz::require(base::is_utf8(shown), "escaped text is UTF-8");
    for (const char c : shown)
      fuzz::require(static_cast<unsigned char>(c) >= 0x20, "escaped text is one line");
  }
  fuzz::Input input(data, size);
  ErrorInfo error;
  error.type = input.line();
  error.message = input.line();
  error.stack = input.rest();
  const std::string print = policy::fingerprint(error);
  fuzz::require(print.size() == 16 && print.find_first_not_of("0123456789abcdef") == std::string::npos,
                "a fingerprint has 16 hex digits");
  const std::string normal = policy::normalize_message(error.message);
  fuzz::require(normal.find_first_of("0123456789\t\n\r") == std::string::npos,
                "a normal message has no numbers");
  fuzz::require(normal.find("  ") == std::string::npos, "a normal message has single blanks");
  (void)policy::classify(error, std::nullopt, {});
  constexpr std::array<std::string_view, 3> kNames = {"lease_ms", "seed", "name"};
  fuzz::require(!base::nearest_name(error.type, kNames).empty(), "some name is the nearest");
  return 0;
}
