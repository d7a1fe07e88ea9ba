// Provider URLs: what they mean, what is refused and how it is said, and that no error ever shows a password.

#include "codec/url.hpp"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/property.hpp"

namespace towline::codec {
namespace {

Url parsed(const std::string& text) {
  auto url = parse_url(text);
  EXPECT_TRUE(url.ok()) << text << ": " << (url.ok() ? "" : url.error().message);
  return url.ok() ? *std::move(url) : Url{};
}

void expect_refused(const std::string& text, const std::string& part,
                    ErrorCode code = ErrorCode::kInvalidUrl) {
  const auto url = parse_url(text);
  ASSERT_FALSE(url.ok()) << text;
  EXPECT_EQ(url.error().code, code) << text;
  EXPECT_NE(url.error().message.find(part), std::string::npos) << text << " -> " << url.error().message;
}

TEST(Url, NamesAMemoryStoreOrNone) {
  EXPECT_EQ(parsed("memory:").scheme, "memory");
  EXPECT_EQ(parsed("memory:").location, "");
  EXPECT_EQ(parsed("memory:orders-1").location, "orders-1");
  EXPECT_EQ(parsed("MEMORY:a").scheme, "memory");
  expect_refused("memory:a/b", "letters, digits");
  expect_refused("memory:" + std::string(101, 'x'), "at most 100");
  expect_refused("memory://a", "write memory: or memory:name");
}

TEST(Url, TakesThePathOfAFile) {
  EXPECT_EQ(parsed("sqlite:orders.db").location, "orders.db");
  EXPECT_EQ(parsed("sqlite:/var/lib/a.db").location, "/var/lib/a.db");
  EXPECT_EQ(parsed("sqlite:///var/lib/a.db").location, "/var/lib/a.db");
  EXPECT_EQ(parsed("sqlite:../a%20b%3F.db").location, "../a b?.db");
  EXPECT_EQ(parsed("sqlite:user@host:1.db").location, "user@host:1.db");
  EXPECT_EQ(parsed("sqlite:gr\xc3\xbcn.db").location, "gr\xc3\xbcn.db");
  expect_refused("sqlite:", "the path is missing");
  expect_refused("sqlite:?a=b", "the path is missing");
  expect_refused("sqlite://orders.db", "sqlite:file.db for a relative");
  expect_refused("sqlite::memory:", "write memory:");
  expect_refused("sqlite:a b.db", "%20");
  expect_refused("sqlite:a#b.db", "%23");
  expect_refused("sqlite:a%00b.db", "control byte");
  expect_refused("sqlite:a%0ab.db", "control byte");
}

TEST(Url, ReadsHostsPortsUsersAndPaths) {
  const Url url = parsed("postgres://us%65r:p%40ss%3Aword@Host-1.example:5433/db%2Fname?sslmode=require");
  EXPECT_EQ(url.scheme, "postgres");
  EXPECT_EQ(url.user, "user");
  EXPECT_EQ(url.password, "p@ss:word");
  ASSERT_EQ(url.hosts.size(), 1u);
  EXPECT_EQ(url.hosts[0].name, "host-1.example");
  EXPECT_EQ(url.hosts[0].port, 5433);
  EXPECT_EQ(url.path, "db/name");
  EXPECT_EQ(url.location, "//us%65r:p%40ss%3Aword@Host-1.example:5433/db%2Fname");
  EXPECT_EQ(*url.find_parameter("sslmode"), "require");
  EXPECT_EQ(url.redacted, "postgres://***@Host-1.example:5433/db%2Fname?sslmode=require");
}

TEST(Url, KnowsTheUsualPorts) {
  const std::pair<const char*, int> ports[] = {
      {"postgres", 5432}, {"redis", 6379}, {"nats", 4222}, {"amqp", 5672}, {"kafka", 9092}};
  for (const auto& [scheme, port] : ports) {
    EXPECT_EQ(parsed(std::string(scheme) + "://h").hosts.at(0).port, port) << scheme;
  }
  EXPECT_EQ(url_schemes().size(), 7u);
}

TEST(Url, ReadsSeveralHostsAndIpv6Addresses) {
  const Url url = parsed("kafka://a,b:1,[2001:DB8::1]:65535,[::1]");
  ASSERT_EQ(url.hosts.size(), 4u);
  EXPECT_EQ(url.hosts[0].port, 9092);
  EXPECT_EQ(url.hosts[1].name + std::to_string(url.hosts[1].port), "b1");
  EXPECT_EQ(url.hosts[2].name, "2001:db8::1");
  EXPECT_EQ(url.hosts[2].port, 65535);
  EXPECT_EQ(url.hosts[3].port, 9092);
}

TEST(Url, TellsAnEmptyPasswordFromNone) {
  EXPECT_EQ(parsed("redis://u@h").password, std::nullopt);
  EXPECT_EQ(parsed("redis://u:@h").password, "");
  EXPECT_EQ(parsed("redis://:p@h").user, std::nullopt);
  EXPECT_EQ(parsed("redis://:p@h").password, "p");
}

TEST(Url, AllowsALocalSocketForPostgresOnly) {
  EXPECT_EQ(parsed("postgres:///db").hosts.at(0).name, "");
  expect_refused("redis:///0", "the host is missing");
  expect_refused("postgres://a,,b/db", "the host is missing");
}

TEST(Url, RefusesHostsAndPortsThatCannotBe) {
  for (const char* url : {"redis://h:99999", "redis://h:0", "redis://h:65536", "redis://h:x",
                          "redis://h:", "redis://h:-1", "redis://h:+1", "redis://h:1:2", "redis://[::1]:x"}) {
    expect_refused(url, "1 to 65535");
  }
  expect_refused("redis://h_%41", "not a name or an address");
  expect_refused("redis://" + std::string(256, 'h'), "not a name or an address");
  expect_refused("redis://[::1", "not closed");
  expect_refused("redis://[h]", "not an IPv6 address");
  expect_refused("redis://[::1]x", "only a port");
  expect_refused("redis:h", "write redis://host");
  expect_refused("redis:/h", "write redis://host");
}

TEST(Url, NamesTheSchemesItKnows) {
  expect_refused("orders.db", "there is no scheme; begin with one of memory:, sqlite:");
  expect_refused("", "it is empty");
  expect_refused(
      "mysql://h",
      "unknown scheme; it must be one of memory:, sqlite:, postgres:, redis:, nats:, amqp:, kafka:");
  expect_refused("file:x?mode=memory&vfs=unix-none", "for a file write sqlite:path");
  expect_refused("://h", "unknown scheme");
}

TEST(Url, DecodesParametersInTheirOrder) {
  const Url url = parsed("sqlite:a.db?lease_ms=5000&name=a%26b%3Dc&empty=&x.y-z=1=2");
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"lease_ms", "5000"}, {"name", "a&b=c"}, {"empty", ""}, {"x.y-z", "1=2"}};
  EXPECT_EQ(url.parameters, expected);
  EXPECT_EQ(url.find_parameter("nope"), nullptr);
  EXPECT_TRUE(parsed("sqlite:a.db?").parameters.empty());
}

TEST(Url, RefusesParametersThatAreNone) {
  expect_refused("sqlite:a.db?x", "?name=value");
  expect_refused("sqlite:a.db?=1", "?name=value");
  expect_refused("sqlite:a.db?a=1&&b=2", "?name=value");
  expect_refused("sqlite:a.db?a b=1", "%20");
  expect_refused("sqlite:a.db?a%20b=1", "the name of a parameter");
  expect_refused("sqlite:a.db?a=1?b=2", "two '?'");
  expect_refused("sqlite:a.db?a=%1", "two hex digits");
  expect_refused("sqlite:a.db?a=1&b=2&a=3", "'a' is given twice", ErrorCode::kInvalidConfig);
  expect_refused("sqlite:a.db?a=1&%61=3", "'a' is given twice", ErrorCode::kInvalidConfig);
}

TEST(Url, RefusesAnAtWhereNobodyCanTellWhatThePasswordIs) {
  expect_refused("redis://user:a/b@h", "%40");
  expect_refused("redis://user:a?b=c@h", "%40");
  expect_refused("redis://user:a@b@h", "two '@'");
  expect_refused("redis://h/path@x", "%40");
}

TEST(Url, RefusesWhatIsTooLongOrHoldsControlBytes) {
  expect_refused("sqlite:" + std::string(5000, 'x'), "longer than 4096");
  expect_refused(std::string("sqlite:a\0b", 10), "control byte");
  expect_refused("redis://h\r\nSET a b", "control byte");
  expect_refused("redis://u:%0d%0a@h", "control byte");
}

TEST(Url, NeverShowsAPasswordInAnError) {
  const std::vector<std::string> forms = {"redis://u:hunter2@h:99999",
                                          "redis://u:hunter2@",
                                          "redis://u:hunter2",
                                          "redis:u:hunter2@h",
                                          "rediss://u:hunter2@h",
                                          "u:hunter2@h",
                                          "redis://u:hunter2@h?x",
                                          "redis://u:hunter2@h#x",
                                          "redis://u:%zzhunter2@h",
                                          "redis://u:a@hunter2@h",
                                          "redis://u:a/hunter2@h",
                                          "redis://h?password=hunter2&x",
                                          "redis://h?password=hunter2&password=hunter2",
                                          "redis://u:hunter2\n@h",
                                          "redis://h:hunter2",
                                          "redis://u:hunter2,x@h:0"};
  for (const std::string& form : forms) {
    const auto url = parse_url(form);
    ASSERT_FALSE(url.ok()) << form;
    EXPECT_EQ(url.error().message.find("hunter2"), std::string::npos) << url.error().message;
  }
}

TEST(Url, NeverShowsAPasswordWhateverStandsAroundIt) {
  support::for_all(
      [](const std::string& before, const std::string& after, const std::string& rest) {
        const std::string text = "redis://user:" + before + "hunter2" + after + "@" + rest;
        const auto url = parse_url(text);
        RC_ASSERT((url.ok() ? url->redacted : url.error().message).find("hunter2") == std::string::npos);
      },
      3000);
}

TEST(Percent, SurvivesEncodingAndDecoding) {
  support::for_all(
      [](const std::string& bytes) { RC_ASSERT(decode_percent(encode_percent(bytes)) == bytes); });
}

TEST(Percent, EncodesWhatIsNotSafe) {
  EXPECT_EQ(encode_percent("a/b-c.d_e~1"), "a/b-c.d_e~1");
  EXPECT_EQ(encode_percent("a b%@?#&=\xc3"), "a%20b%25%40%3F%23%26%3D%C3");
  EXPECT_EQ(decode_percent("%4a%4A"), "JJ");
  for (const char* bad : {"%", "%4", "%zz", "a%4g"})
    EXPECT_EQ(decode_percent(bad), std::nullopt) << bad;
}

TEST(Url, OfAnyPathIsReadBack) {
  support::for_all([](const std::string& bytes) {
    std::string path = "x";
    for (const char c : bytes) {
      if (static_cast<unsigned char>(c) >= 0x20 && c != 0x7F) path.push_back(c);
    }
    const auto url = parse_url("sqlite:" + encode_percent(path));
    RC_ASSERT(url.ok());
    RC_ASSERT(url->location == path);
  });
}

}  // namespace
}  // namespace towline::codec
