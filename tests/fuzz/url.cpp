// Provider URLs: no text that is shown ever holds a password, and what parses is within its bounds.
//
// The input's lines are put around a password in the places where a password can stand, and also parsed as
// they are.

#include "codec/url.hpp"

#include <set>

#include "base/text.hpp"
#include "fuzz/input.hpp"

namespace {

using namespace towline;

constexpr std::string_view kSecret = "hunter2-S3CRET";

void check(const std::string& text, bool holds_secret) {
  const auto url = codec::parse_url(text);
  const std::string shown = url.ok() ? url->redacted : url.error().message;
  if (holds_secret) fuzz::require(shown.find(kSecret) == std::string::npos, "a password is never shown");
  fuzz::require(base::is_utf8(shown) && fuzz::is_one_line(shown), "what is shown is one line of text");
  if (!url.ok()) {
    fuzz::require(url.error().code == ErrorCode::kInvalidUrl || url.error().code == ErrorCode::kInvalidConfig,
                  "a refused URL is kInvalidUrl, or kInvalidConfig");
    return;
  }
  const codec::Scheme* scheme = codec::find_scheme(url->scheme);
  fuzz::require(scheme != nullptr, "the scheme is a known one");
  fuzz::require(scheme->has_hosts == !url->hosts.empty(), "hosts are there where the scheme has them");
  for (const auto& host : url->hosts)
    fuzz::require(host.port != 0, "a port is never 0");
  std::set<std::string> names;
  for (const auto& [name, value] : url->parameters) {
    fuzz::require(names.insert(name).second, "each parameter is there once");
    fuzz::require(value.find('\0') == std::string::npos, "no control byte is decoded");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  check(std::string(input.rest()), false);
  // Where the fuzzer has put the password into a place that is shown, there is nothing to hide.
  if (input.rest().find(kSecret) != std::string_view::npos) return 0;
  const std::string before = input.line();
  const std::string after = input.line();
  const std::string rest(input.rest());
  const std::string secret(kSecret);
  check("redis://user:" + before + secret + after + "@" + rest, true);
  check("postgres:" + before + ":" + secret + after + "@" + rest, true);
  check(before + "://user:" + after + secret + "@" + rest, true);
  check("nats://host?password=" + secret + after, true);
  check("sqlite:a.db?auth_token=" + secret + "&" + rest, true);
  check("amqp://user:" + secret + after, true);
  const auto decoded = codec::decode_percent(codec::encode_percent(rest));
  fuzz::require(decoded == rest, "percent encoding is undone by decoding");
  return 0;
}
