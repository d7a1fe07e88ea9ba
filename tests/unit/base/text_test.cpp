// Text for people: one line, bounded, without passwords; and the name that was probably meant.

#include "base/text.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/property.hpp"

namespace towline::base {
namespace {

TEST(DurationText, TakesTheUnitInWhichPeopleSayIt) {
  using namespace std::chrono_literals;
  EXPECT_EQ(duration_text(30s), "30 s");
  EXPECT_EQ(duration_text(1500ms), "1.5 s");
  EXPECT_EQ(duration_text(1h), "3600 s");
  EXPECT_EQ(duration_text(250ms), "250 ms");
  EXPECT_EQ(duration_text(1050us), "1.05 ms");
  EXPECT_EQ(duration_text(1s + 1us), "1000.001 ms");
  EXPECT_EQ(duration_text(20us), "20 us");
  EXPECT_EQ(duration_text(0us), "0 us");
  EXPECT_EQ(duration_text(-2s), "-2 s");
}

TEST(Escape, LeavesPlainTextAsItIs) {
  EXPECT_EQ(escape("orders.eu-1 (100 %)"), "orders.eu-1 (100 %)");
  EXPECT_EQ(escape(""), "");
  EXPECT_EQ(escape("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80"),
            "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80");
}

TEST(Escape, WritesControlBytesAndBackslashesInAVisibleForm) {
  EXPECT_EQ(escape("a\nb\r\tc\\"), "a\\nb\\r\\tc\\\\");
  EXPECT_EQ(escape(std::string("\0\x1b[31m\x7f", 7)), "\\x00\\x1b[31m\\x7f");
}

TEST(Escape, WritesWhatIsNotUtf8ByteByByte) {
  EXPECT_EQ(escape("\xff"), "\\xff");
  EXPECT_EQ(escape("\xc3"), "\\xc3");                             // cut off
  EXPECT_EQ(escape("\xc0\x80"), "\\xc0\\x80");                    // overlong
  EXPECT_EQ(escape("\xed\xa0\x80"), "\\xed\\xa0\\x80");           // a surrogate
  EXPECT_EQ(escape("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");  // above U+10FFFF
}

TEST(Escape, HidesCharactersThatBreakOrReverseALine) {
  EXPECT_EQ(escape("a\xe2\x80\xa8z"), "a\\xe2\\x80\\xa8z");  // line separator
  EXPECT_EQ(escape("\xe2\x80\xae"), "\\xe2\\x80\\xae");      // right-to-left override
  EXPECT_EQ(escape("\xc2\x85"), "\\xc2\\x85");               // next line
}

TEST(Escape, CutsAtTheBoundBetweenCharacters) {
  EXPECT_EQ(escape("abcdefgh", 8), "abcdefgh");
  EXPECT_EQ(escape("abcdefghi", 8), "abcde...");
  EXPECT_EQ(escape("abcd\n\n\n", 8), "abcd...");                    // "\\n" would not fit whole
  EXPECT_EQ(escape("abcd\xe2\x82\xac\xe2\x82\xac", 8), "abcd...");  // nor would the euro sign
  EXPECT_EQ(escape("abcdef", 0), "...");
}

TEST(Escape, AlwaysGivesOneBoundedLineOfUtf8) {
  support::for_all([](const std::string& text, std::uint8_t bound) {
    const std::string shown = escape(text, bound);
    RC_ASSERT(shown.size() <= std::max<std::size_t>(bound, 3));
    RC_ASSERT(is_utf8(shown));
    RC_ASSERT(std::none_of(shown.begin(), shown.end(),
                           [](char c) { return static_cast<unsigned char>(c) < 0x20; }));
  });
}

TEST(IsUtf8, AcceptsWellFormedTextAndNothingElse) {
  for (const char* good : {"", "a", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
                           "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(is_utf8(good)) << escape(good);
  }
  for (const char* bad : {"\x80", "\xbf", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xe2\x82", "a\xc3", "\xc3\x28"}) {
    EXPECT_FALSE(is_utf8(bad)) << escape(bad);
  }
}

TEST(RedactUrl, HidesUserAndPasswordAndKeepsTheRest) {
  EXPECT_EQ(redact_url("redis://user:hunter2@host:6379/0?db=1"), "redis://***@host:6379/0?db=1");
  EXPECT_EQ(redact_url("redis://:hunter2@h"), "redis://***@h");
  EXPECT_EQ(redact_url("postgres://hunter2@h/d"), "postgres://***@h/d");
}

TEST(RedactUrl, LeavesUrlsWithoutSecretsAsTheyAre) {
  for (const char* url :
       {"sqlite:orders.db", "sqlite:/var/lib/a.db?synchronous=normal", "memory:", "memory:a", "nats://h:4222",
        "kafka://a:1,b:2/x", "amqp://[::1]:5672/v", "nats://[::1]", "orders.db", "", "postgres:///db"}) {
    EXPECT_EQ(redact_url(url), url);
  }
}

TEST(RedactUrl, HidesParametersThatSoundSecret) {
  EXPECT_EQ(redact_url("nats://h?token=abc&x=1"), "nats://h?token=***&x=1");
  EXPECT_EQ(redact_url("nats://h?x=1&SSLPassWord=a;b c"), "nats://h?x=1&SSLPassWord=***");
  EXPECT_EQ(redact_url("nats://h?pass%77ord=abc"), "nats://h?pass%77ord=***");
  EXPECT_EQ(redact_url("nats://h?api_key=a&b&c=d"), "nats://h?api_key=***&c=d");
}

TEST(RedactUrl, NeverShowsThePasswordOfAMalformedUrl) {
  const std::string secret = "hunter2";
  const std::array<std::string, 22> forms = {"redis://user:" + secret,
                                             "redis://user:" + secret + "/0",
                                             "redis://:" + secret,
                                             "redis:/user:" + secret + "@h",
                                             "redis:user:" + secret + "@h",
                                             "redis:user:" + secret,
                                             "redis//user:" + secret + "@h",
                                             "user:" + secret + "@h",
                                             "user:" + secret,
                                             "://user:" + secret,
                                             ":" + secret,
                                             "redis ://u:" + secret,
                                             "redis://user:a@b" + secret + "@h",
                                             "redis://user:a/b" + secret + "@h",
                                             "redis://user:a?b=" + secret + "@h",
                                             "redis://user:a#" + secret + "@h",
                                             "redis://user:1," + secret + "@h",
                                             "redis://a:1,user:" + secret,
                                             "redis://[user:" + secret,
                                             "redis://[::1]:" + secret,
                                             "host=h password=" + secret + " dbname=d",
                                             "redis://h?password=x&" + secret};
  for (const std::string& url : forms) {
    EXPECT_EQ(redact_url(url).find(secret), std::string::npos) << url << " -> " << redact_url(url);
  }
}

TEST(RedactUrl, NeverShowsAPasswordBeforeAnAt) {
  support::for_all([](const std::string& before, const std::string& after, const std::string& host) {
    const std::string url = "redis://user:" + before + "hunter2" + after + "@" + host;
    RC_ASSERT(redact_url(url).find("hunter2") == std::string::npos);
  });
}

TEST(RedactUrl, GivesOneBoundedLine) {
  const std::string shown = redact_url("sqlite:" + std::string(5000, '\n'));
  EXPECT_LE(shown.size(), 256u);
  EXPECT_EQ(shown.find('\n'), std::string::npos);
}

std::string_view nearest(std::string_view name) {
  static constexpr std::array<std::string_view, 4> kNames = {"lease_ms", "delay_ms_max", "seed", "name"};
  return nearest_name(name, kNames);
}

TEST(NearestName, FindsWhatWasMeant) {
  EXPECT_EQ(nearest("leese_ms"), "lease_ms");
  EXPECT_EQ(nearest("lease"), "lease_ms");
  EXPECT_EQ(nearest("LEASE_MS"), "lease_ms");
  EXPECT_EQ(nearest("delay_max_ms"), "delay_ms_max");
  EXPECT_EQ(nearest("nmae"), "name");
  EXPECT_EQ(nearest("sede"), "seed");
}

TEST(NearestName, TakesAWordForTheNameThatItBegins) {
  constexpr std::array<std::string_view, 4> kNames = {"key", "priority_of", "priority", "trio"};
  EXPECT_EQ(nearest_name("prio", kNames), "priority");
}

TEST(NearestName, CountsSwappedNeighboursAsOneEdit) {
  constexpr std::array<std::string_view, 2> kNames = {"aXcY", "ba"};
  EXPECT_EQ(nearest_name("ab", kNames), "ba");
}

TEST(NearestName, TakesTheFirstOfEqualsAndNothingFromNothing) {
  constexpr std::array<std::string_view, 2> kNames = {"aa", "bb"};
  EXPECT_EQ(nearest_name("ab", kNames), "aa");
  EXPECT_EQ(nearest_name("x", {}), "");
}

TEST(NearestName, IsQuickForHostileInput) {
  // A name of a megabyte is compared by its first 64 bytes only; without that this test would not end.
  const std::string name(1 << 20, 'a');
  const std::vector<std::string_view> names(1000, "lease_ms");
  EXPECT_EQ(nearest_name(name, names), "lease_ms");
}

TEST(CaseInsensitiveComparison, ChangesAsciiLettersOnly) {
  EXPECT_TRUE(equals_ignoring_case("X-Death", "x-dEATH"));
  EXPECT_FALSE(equals_ignoring_case("[", "{"));
  EXPECT_FALSE(equals_ignoring_case("a", "ab"));
  EXPECT_TRUE(starts_with_ignoring_case("NATS-Msg", "nats-"));
  EXPECT_FALSE(starts_with_ignoring_case("nat", "nats-"));
  EXPECT_EQ(to_lower("ABC-\xc3\x84"), "abc-\xc3\x84");
}

}  // namespace
}  // namespace towline::base
