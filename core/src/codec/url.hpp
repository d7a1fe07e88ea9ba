#pragma once
// Provider URLs: scheme:rest?name=value&name=value
//
//     memory:                          private to one engine
//     memory:orders                    shared by the engines of this process that name it;
//     [A-Za-z0-9._-]{0,100} sqlite:orders.db                 a path, relative to the working directory
//     sqlite:/var/lib/app/orders.db    or absolute; sqlite:///var/lib/app/orders.db is the same
//     redis://user:password@host:6379/0
//     postgres://u:p@host1,host2:5433/database     several hosts, each with its port
//     nats://[::1]:4222
//
// '%41' stands for the byte 'A', everywhere but in the scheme. A '%' that is meant as itself is written %25,
// an '@' in a user name or password %40, a '?' in a path %3F, a '#' %23. Schemes and host names ignore case.
//
// No error text shows a password: the URL is shown as base::redact_url shows it, and nothing else of it is
// quoted.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <towline/result.hpp>

namespace towline::codec {

inline constexpr std::size_t kUrlLengthMax = 4096;

/// The one list of schemes. Which of them this build has a driver for is the registry's business.
struct Scheme {
  std::string_view name;
  /// False: memory and sqlite, whose rest is a name or a path.
  bool has_hosts = false;
  std::uint16_t port = 0;  ///< the usual one
};
[[nodiscard]] std::span<const Scheme> url_schemes() noexcept;
/// nullptr when there is none of that name.
[[nodiscard]] const Scheme* find_scheme(std::string_view name) noexcept;

struct Url {
  struct Host {
    std::string
        name;  ///< lower case; an IPv6 address without its brackets; "" for a local socket (postgres:///db)
    std::uint16_t port = 0;
  };

  /// One of url_schemes(), in lower case.
  std::string_view scheme;
  /// What a driver is opened with (spi::DriverOptions::location). memory: the name. sqlite: the path,
  /// decoded. Others: everything between the scheme's colon and the parameters as it was written, for client
  /// libraries that parse it themselves. Holds the password then: never log it.
  std::string location;
  /// Decoded, in their order; each name once.
  std::vector<std::pair<std::string, std::string>> parameters;

  // Only where the scheme has hosts, decoded:
  std::optional<std::string> user;
  std::optional<std::string> password;
  std::vector<Host> hosts;  ///< at least one
  std::string path;         ///< without the leading slash: database, virtual host

  /// May be shown.
  std::string redacted;

  [[nodiscard]] const std::string* find_parameter(std::string_view name) const noexcept;
};

/// Errors: kInvalidUrl, saying what is wrong and how it is written right; kInvalidConfig for a parameter
/// given twice.
[[nodiscard]] Result<Url> parse_url(std::string_view text);

/// Replaces %XX by bytes. nullopt when a '%' is not followed by two hex digits.
[[nodiscard]] std::optional<std::string> decode_percent(std::string_view text);

/// Makes any bytes safe as part of a path, name or value: everything but letters, digits, '-', '.', '_', '~'
/// and '/' becomes %XX.
[[nodiscard]] std::string encode_percent(std::string_view bytes);

}  // namespace towline::codec
