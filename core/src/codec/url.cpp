// The parser cuts first and decodes last: only the bytes as written decide where a part ends. An '@' outside
// the place for user and password is refused, because then nobody can tell which part was meant as a
// password.

#include "codec/url.hpp"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/text.hpp"

namespace towline::codec {
namespace {

constexpr std::array<Scheme, 7> kSchemes = {{{"memory", false, 0},
                                             {"sqlite", false, 0},
                                             {"postgres", true, 5432},
                                             {"redis", true, 6379},
                                             {"nats", true, 4222},
                                             {"amqp", true, 5672},
                                             {"kafka", true, 9092}}};

constexpr std::size_t kMemoryNameLengthMax = 100;
constexpr std::size_t kHostLengthMax = 255;

constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
constexpr bool is_letter(char c) noexcept { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
constexpr bool is_name_byte(char c) noexcept {
  return is_letter(c) || is_digit(c) || c == '.' || c == '_' || c == '-';
}
constexpr bool is_control(char c) noexcept { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }

int hex_value(char c) noexcept {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Parses one URL. Every step answers an error text, or nullopt when it went well.
class UrlParser {
 public:
  explicit UrlParser(std::string_view text) : text_(text) {}

  Result<Url> parse() {
    url_.redacted = base::redact_url(text_);
    if (const Problem problem = parse_all()) {
      return Error{code_, "url '" + url_.redacted + "': " + *problem};
    }
    return std::move(url_);
  }

 private:
  using Problem = std::optional<std::string>;

  Problem parse_all() {
    if (text_.size() > kUrlLengthMax) return "it is longer than " + std::to_string(kUrlLengthMax) + " bytes";
    if (std::any_of(text_.begin(), text_.end(), [](char c) { return is_control(c) || c == ' '; })) {
      return "it holds a blank or a control byte; write a blank as %20";
    }
    std::string_view rest = text_;
    if (const Problem problem = parse_scheme(rest)) return problem;
    if (rest.find('#') != std::string_view::npos) return "it holds a '#'; write it as %23";
    const std::size_t question = std::min(rest.find('?'), rest.size());
    const std::string_view place = rest.substr(0, question);
    if (scheme_->has_hosts) {
      if (rest.substr(std::min(rest.find_first_of("/?", 2), rest.size())).find('@') !=
          std::string_view::npos) {
        return "it holds an '@' behind the host; in a user name, password or path write it as %40";
      }
      if (const Problem problem = parse_network(place)) return problem;
    } else {
      if (const Problem problem = scheme_->name == "memory" ? parse_memory(place) : parse_sqlite(place))
        return problem;
    }
    return question == rest.size() ? std::nullopt : parse_parameters(rest.substr(question + 1));
  }

  Problem parse_scheme(std::string_view& rest) {
    if (text_.empty()) return "it is empty; write for example sqlite:orders.db or memory:";
    std::string known;
    for (const Scheme& scheme : kSchemes)
      known.append(known.empty() ? "" : ", ").append(scheme.name).append(":");
    const std::size_t colon = text_.find(':');
    if (colon == std::string_view::npos) return "there is no scheme; begin with one of " + known;
    const std::string name = base::to_lower(text_.substr(0, colon));
    scheme_ = find_scheme(name);
    if (scheme_ == nullptr) {
      // What stands before the colon may be a user name or worse, so it is not repeated beyond what the URL
      // shows.
      const bool is_file = name == "file";
      return "unknown scheme; " + (is_file ? "for a file write sqlite:path" : "it must be one of " + known);
    }
    url_.scheme = scheme_->name;
    rest = text_.substr(colon + 1);
    return std::nullopt;
  }

  // ---- memory and sqlite --------------------------------------------------------------------------------

  Problem parse_memory(std::string_view place) {
    if (place.starts_with("//")) return "a memory store has no host; write memory: or memory:name";
    if (place.size() > kMemoryNameLengthMax || !std::all_of(place.begin(), place.end(), is_name_byte)) {
      return "the name of a memory store has at most 100 letters, digits, '.', '_' and '-'";
    }
    url_.location = place;
    return std::nullopt;
  }

  Problem parse_sqlite(std::string_view place) {
    if (place.starts_with("//")) {
      if (!place.starts_with("///"))
        return "write sqlite:file.db for a relative and sqlite:/folder/file.db for an absolute path";
      place.remove_prefix(2);
    }
    const auto path = decode(place);
    if (!path) return std::string(kBadPercent);
    if (path->empty()) return "the path is missing; write sqlite:file.db";
    if (*path == ":memory:") return "an SQLite store is a file; for a store in memory write memory:";
    url_.location = *path;
    return std::nullopt;
  }

  // ---- hosts --------------------------------------------------------------------------------------------

  Problem parse_network(std::string_view place) {
    url_.location = place;
    if (!place.starts_with("//")) return "write " + std::string(scheme_->name) + "://host";
    place.remove_prefix(2);
    const std::size_t slash = std::min(place.find('/'), place.size());
    std::string_view authority = place.substr(0, slash);
    if (slash < place.size()) {
      const auto path = decode(place.substr(slash + 1));
      if (!path) return std::string(kBadPercent);
      url_.path = *path;
    }
    if (const std::size_t at = authority.rfind('@'); at != std::string_view::npos) {
      if (const Problem problem = parse_user(authority.substr(0, at))) return problem;
      authority.remove_prefix(at + 1);
    }
    return parse_hosts(authority);
  }

  Problem parse_user(std::string_view info) {
    if (info.find('@') != std::string_view::npos)
      return "it holds two '@'; in a user name or password write %40";
    const std::size_t colon = info.find(':');
    const auto user = decode(info.substr(0, colon));
    if (!user) return std::string(kBadPercent);
    if (!user->empty()) url_.user = *user;
    if (colon == std::string_view::npos) return std::nullopt;
    const auto password = decode(info.substr(colon + 1));
    if (!password) return std::string(kBadPercent);
    url_.password = *password;
    return std::nullopt;
  }

  Problem parse_hosts(std::string_view list) {
    while (true) {
      const std::size_t comma = std::min(list.find(','), list.size());
      if (const Problem problem = parse_host(list.substr(0, comma))) return problem;
      if (comma == list.size()) break;
      list.remove_prefix(comma + 1);
    }
    const bool local = url_.hosts.size() == 1 && url_.hosts[0].name.empty() && scheme_->name == "postgres";
    const bool nameless =
        std::any_of(url_.hosts.begin(), url_.hosts.end(), [](const auto& h) { return h.name.empty(); });
    if (nameless && !local) return "the host is missing";
    return std::nullopt;
  }

  Problem parse_host(std::string_view text) {
    Url::Host host;
    host.port = scheme_->port;
    std::string_view port;
    if (text.starts_with('[')) {
      const std::size_t close = text.find(']');
      if (close == std::string_view::npos) return "the bracket of the IPv6 address is not closed";
      const std::string_view address = text.substr(1, close - 1);
      const bool fits = !address.empty() && address.find(':') != std::string_view::npos &&
                        std::all_of(address.begin(), address.end(),
                                    [](char c) { return hex_value(c) >= 0 || c == ':' || c == '.'; });
      if (!fits) return "what stands in brackets is not an IPv6 address";
      host.name = base::to_lower(address);
      port = text.substr(close + 1);
      if (!port.empty() && port[0] != ':') return "behind the brackets only a port may follow";
    } else {
      const std::size_t colon = std::min(text.find(':'), text.size());
      const std::string_view name = text.substr(0, colon);
      if (name.size() > kHostLengthMax || !std::all_of(name.begin(), name.end(), is_name_byte)) {
        return "the host is not a name or an address";
      }
      host.name = base::to_lower(name);
      port = text.substr(colon);
    }
    if (!port.empty()) {
      const char* const end = port.data() + port.size();
      const auto parsed = std::from_chars(port.data() + 1, end, host.port);
      if (parsed.ec != std::errc{} || parsed.ptr != end || host.port == 0)
        return "the port must be a number from 1 to 65535";
    }
    url_.hosts.push_back(std::move(host));
    return std::nullopt;
  }

  // ---- parameters ---------------------------------------------------------------------------------------

  Problem parse_parameters(std::string_view text) {
    if (text.find('?') != std::string_view::npos) return "it holds two '?'; in a value write %3F";
    while (!text.empty()) {
      const std::size_t end = std::min(text.find('&'), text.size());
      const std::string_view piece = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      const std::size_t equals = piece.find('=');
      if (equals == std::string_view::npos || equals == 0)
        return "parameters are written ?name=value&name=value";
      const auto name = decode(piece.substr(0, equals));
      const auto value = decode(piece.substr(equals + 1));
      if (!name || !value) return std::string(kBadPercent);
      if (!std::all_of(name->begin(), name->end(), is_name_byte)) {
        return "the name of a parameter has letters, digits, '.', '_' and '-'";
      }
      if (url_.find_parameter(*name) != nullptr) {
        code_ = ErrorCode::kInvalidConfig;
        return "the parameter '" + *name + "' is given twice; give it once";
      }
      url_.parameters.emplace_back(*name, *value);
    }
    return std::nullopt;
  }

  // Decoded text must not smuggle in what the text itself may not hold.
  static std::optional<std::string> decode(std::string_view text) {
    std::optional<std::string> decoded = decode_percent(text);
    if (decoded && std::any_of(decoded->begin(), decoded->end(), is_control)) return std::nullopt;
    return decoded;
  }

  static constexpr std::string_view kBadPercent =
      "a '%' must be followed by two hex digits, and not stand for a control byte; write a '%' itself as %25";

  std::string_view text_;
  const Scheme* scheme_ = nullptr;
  Url url_;
  ErrorCode code_ = ErrorCode::kInvalidUrl;
};

}  // namespace

std::span<const Scheme> url_schemes() noexcept { return kSchemes; }

const Scheme* find_scheme(std::string_view name) noexcept {
  const auto found = std::find_if(kSchemes.begin(), kSchemes.end(),
                                  [&](const Scheme& scheme) { return scheme.name == name; });
  return found == kSchemes.end() ? nullptr : &*found;
}

const std::string* Url::find_parameter(std::string_view name) const noexcept {
  const auto found =
      std::find_if(parameters.begin(), parameters.end(), [&](const auto& p) { return p.first == name; });
  return found == parameters.end() ? nullptr : &found->second;
}

Result<Url> parse_url(std::string_view text) { return UrlParser(text).parse(); }

std::optional<std::string> decode_percent(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const int high = hex_value(text[i + 1]);
    const int low = hex_value(text[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    out.push_back(static_cast<char>(high << 4 | low));
    i += 2;
  }
  return out;
}

std::string encode_percent(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : bytes) {
    if (is_name_byte(c) || c == '~' || c == '/') {
      out.push_back(c);
      continue;
    }
    const auto value = static_cast<unsigned char>(c);
    out.push_back('%');
    out.push_back(kDigits[value >> 4]);
    out.push_back(kDigits[value & 15]);
  }
  return out;
}

}  // namespace towline::codec
