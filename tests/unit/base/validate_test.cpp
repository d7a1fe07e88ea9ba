// The bounds of all input: what is refused, with which code, and that the text names the field, the value and
// the bound.

#include "base/validate.hpp"

#include <chrono>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace towline::base {
namespace {

using namespace std::chrono_literals;

constexpr TimePoint kNow = from_us(1'767'225'600'000'000);

// The error of a refused value; "" code and text when it was accepted.
void expect_refused(const Result<void>& result, ErrorCode code, std::vector<std::string> parts,
                    const std::string& what) {
  ASSERT_FALSE(result.ok()) << what;
  EXPECT_EQ(result.error().code, code) << what;
  for (const std::string& part : parts) {
    EXPECT_NE(result.error().message.find(part), std::string::npos)
        << what << " -> " << result.error().message;
  }
  EXPECT_EQ(result.error().message.find('\n'), std::string::npos) << what;
  EXPECT_LE(result.error().message.size(), 300u) << what;
}

TEST(CheckTopic, AcceptsWordsBetweenDots) {
  for (const std::string& topic :
       {std::string("a"), std::string("orders.eu.created"), std::string("A-b_c.9"), std::string("_x"),
        std::string("amq"), std::string("-"), std::string(249, 'x')}) {
    EXPECT_TRUE(check_topic(topic).ok()) << topic;
  }
}

TEST(CheckTopic, RefusesEveryByteThatSomeProviderCannotCarry) {
  int accepted = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string topic = std::string("a") + static_cast<char>(byte) + "b";
    const bool good = std::isalnum(byte) != 0 || byte == '-' || byte == '_' || byte == '.';
    EXPECT_EQ(check_topic(topic).ok(), good && byte < 128) << byte;
    accepted += check_topic(topic).ok() ? 1 : 0;
  }
  EXPECT_EQ(accepted, 26 + 26 + 10 + 3);
}

TEST(CheckTopic, RefusesWrongLengthsAndEmptyWords) {
  const auto code = ErrorCode::kInvalidTopic;
  expect_refused(check_topic(""), code, {"topic ''", "0 bytes", "1 to 249"}, "empty");
  expect_refused(check_topic(std::string(250, 'x')), code, {"250 bytes", "1 to 249"}, "250");
  expect_refused(check_topic(std::string(1024, 'x')), code, {"1024 bytes"}, "1024");
  for (const char* topic : {".", "..", ".a", "a.", "a..b"}) {
    expect_refused(check_topic(topic), code, {"empty token", topic}, topic);
  }
}

TEST(CheckTopic, RefusesNamesThatBelongToServers) {
  for (const char* topic :
       {"$SYS.x", "$JS.API.a", "_INBOX.x", "_INBOX", "amq.direct", "__consumer_offsets", "$a"}) {
    expect_refused(check_topic(topic), ErrorCode::kInvalidTopic, {"belongs to a server", topic}, topic);
  }
}

TEST(CheckTopic, SaysThatPatternsOnlySubscribe) {
  for (const char* topic : {"a.*", "a.>", "a.#", "*", "#", "a.b*"}) {
    expect_refused(check_topic(topic), ErrorCode::kInvalidTopic, {"patterns only subscribe"}, topic);
  }
}

TEST(CheckTopic, NamesTheFieldThatItIsGiven) {
  expect_refused(check_topic("a b", "destination"), ErrorCode::kInvalidTopic,
                 {"destination 'a b'", "at byte 2"}, "field");
}

TEST(CheckTopicPattern, AcceptsWildcardsAsWholeWords) {
  for (const char* pattern :
       {"a", "*", "#", ">", "a.*", "*.a", "a.#", "#.a", "a.#.b", "a.>", "*.*", "#.#", "*.>"}) {
    EXPECT_TRUE(check_topic_pattern(pattern).ok()) << pattern;
  }
}

TEST(CheckTopicPattern, RefusesWildcardsInsideWordsAndTailsInTheMiddle) {
  for (const char* pattern : {"a*", "*a", "a.b#", "##", "**", ">a", "a.*b.c"}) {
    expect_refused(check_topic_pattern(pattern), ErrorCode::kInvalidTopic, {"not a whole token"}, pattern);
  }
  expect_refused(check_topic_pattern("a.>.b"), ErrorCode::kInvalidTopic, {"'>' before its last token"},
                 "tail");
  expect_refused(check_topic_pattern("$SYS.#"), ErrorCode::kInvalidTopic, {"belongs to a server"},
                 "reserved");
  expect_refused(check_topic_pattern("a..*"), ErrorCode::kInvalidTopic, {"empty token", "at byte 3"},
                 "empty");
}

TEST(CheckName, AcceptsOneToAHundredPortableBytes) {
  EXPECT_TRUE(check_name("billing-2.a_B", "group").ok());
  EXPECT_TRUE(check_name(std::string(100, 'x'), "group").ok());
  const auto code = ErrorCode::kInvalidName;
  expect_refused(check_name("", "group"), code, {"group ''", "1 to 100"}, "empty");
  expect_refused(check_name(std::string(101, 'x'), "group"), code, {"101 bytes"}, "long");
  for (const char* name : {"x'; drop table m;--", "x\"y", "a b", "a/b", "gr\xc3\xbcn", "a*"}) {
    expect_refused(check_name(name, "consumer"), code, {"consumer '", "not allowed"}, name);
  }
  expect_refused(check_name(std::string("a\0b", 3), "group"), code, {"at byte 2", "a\\x00b"}, "NUL");
}

TEST(CheckKey, TellsAnEmptyKeyFromALongOne) {
  EXPECT_TRUE(check_key("").ok());
  EXPECT_TRUE(check_key(std::string(255, '\0')).ok());
  expect_refused(check_key(std::string(256, 'k')), ErrorCode::kInvalidKey, {"256 bytes", "at most 255"},
                 "256");
  expect_refused(check_key(std::string(1 << 20, 'k')), ErrorCode::kInvalidKey, {"1048576 bytes"}, "1 MiB");
}

TEST(CheckId, AcceptsVisibleAsciiOnly) {
  EXPECT_TRUE(check_id("order-1/42:x~", "dedup_id").ok());
  EXPECT_TRUE(check_id(std::string(255, '!'), "dedup_id").ok());
  const auto code = ErrorCode::kInvalidId;
  expect_refused(check_id("", "dedup_id"), code, {"dedup_id ''", "1 to 255"}, "empty");
  expect_refused(check_id(std::string(1024, 'x'), "dedup_id"), code, {"1024 bytes"}, "1 KiB");
  for (const std::string& id : {std::string("a b"), std::string("a\nb"), std::string("a\0b", 3),
                                std::string("a\x7f"), std::string("\xc3\xa4")}) {
    expect_refused(check_id(id, "correlation_id"), code, {"correlation_id", "not visible ASCII"}, id);
  }
}

TEST(CheckHeaders, AcceptsPortableHeaders) {
  EXPECT_TRUE(check_headers({}).ok());
  EXPECT_TRUE(
      check_headers(
          {{"ce-type", "x"}, {"X-My", ""}, {"a!#$%&'*+-.^_`|~\"(),/;<=>?@[]{}", "gr\xc3\xbc\xc3\x9f"}})
          .ok());
  EXPECT_TRUE(check_headers({{std::string(128, 'n'), std::string(16384 - 128, 'v')}}).ok());
}

TEST(CheckHeaders, RefusesNamesThatLinesOfTextCannotCarry) {
  const auto code = ErrorCode::kInvalidHeader;
  for (const std::string& name : {std::string("a:b"), std::string("a b"), std::string("a\r\nb"),
                                  std::string("a\0", 2), std::string("gr\xc3\xbcn"), std::string("a\x7f")}) {
    expect_refused(check_headers({{name, "v"}}), code, {"header name '", "not allowed"}, name);
  }
  expect_refused(check_headers({{"", "v"}}), code, {"0 bytes", "1 to 128"}, "empty");
  expect_refused(check_headers({{std::string(129, 'n'), "v"}}), code, {"129 bytes"}, "129");
  expect_refused(check_headers({{std::string(300, 'n'), "v"}}), code, {"300 bytes"}, "300");
}

TEST(CheckHeaders, RefusesValuesThatWouldSmuggleInAHeader) {
  const auto code = ErrorCode::kInvalidHeader;
  expect_refused(check_headers({{"a", "v\r\nNats-Msg-Id: 1"}}), code,
                 {"header 'a' value 'v\\r\\nNats", "control byte at byte 2"}, "CRLF");
  for (const std::string& value :
       {std::string("\n"), std::string("\t"), std::string("\0", 1), std::string("\x7f")}) {
    expect_refused(check_headers({{"a", value}}), code, {"control byte"}, value);
  }
  expect_refused(check_headers({{"a", "\xff"}}), code, {"not UTF-8"}, "UTF-8");
}

TEST(CheckHeaders, RefusesNamesOfTheEngineAndTheProvidersInAnyCase) {
  for (const char* name : {"towline-attempt", "Towline-X", "Nats-Rollup", "nats-expected-stream", "Nats-TTL",
                           "x-death", "X-Delay", "CC", "cc", "BCC", "x-first-death-queue",
                           "x-last-death-reason", "amq", "AMQP-x", "x-delivery-count"}) {
    EXPECT_TRUE(is_reserved_header(name)) << name;
    expect_refused(check_headers({{name, "v"}}), ErrorCode::kReservedHeader, {name, "reserved"}, name);
  }
  for (const char* name :
       {"ce-id", "x-deaths", "ccc", "x-delayed", "towline", "nats", "am", "x-first-deaths"}) {
    EXPECT_FALSE(is_reserved_header(name)) << name;
  }
}

TEST(CheckHeaders, RefusesTheSameNameTwiceAlsoInAnotherCase) {
  expect_refused(check_headers({{"a", "1"}, {"b", "2"}, {"a", "3"}}), ErrorCode::kInvalidHeader,
                 {"'a'", "twice"}, "same");
  expect_refused(check_headers({{"Region", "1"}, {"region", "2"}}), ErrorCode::kInvalidHeader,
                 {"'region'", "twice"}, "case");
}

TEST(CheckHeaders, RefusesTooManyAndTooLarge) {
  Headers many;
  for (int i = 0; i < 64; ++i)
    many.emplace_back("h" + std::to_string(i), "v");
  EXPECT_TRUE(check_headers(many).ok());
  many.emplace_back("h64", "v");
  expect_refused(check_headers(many), ErrorCode::kHeadersTooLarge, {"65", "at most 64"}, "65");
  expect_refused(check_headers({{"a", std::string(16384, 'v')}}), ErrorCode::kHeadersTooLarge,
                 {"16385 bytes", "16384"}, "16 KiB");
}

TEST(CheckTraceparent, FollowsTheW3cSyntax) {
  const std::string good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  EXPECT_TRUE(check_traceparent(good).ok());
  EXPECT_TRUE(check_traceparent("cc" + good.substr(2) + "-what-the-future-brings").ok());
  const std::string zeros(32, '0');
  for (const std::string& bad :
       {std::string(), good + "-x", good.substr(1), "ff" + good.substr(2), "0A" + good.substr(2),
        good.substr(0, 54) + "g", "00-" + zeros + good.substr(35),
        good.substr(0, 36) + zeros.substr(0, 16) + "-01", good + "0", "cc" + good.substr(2) + "x",
        "cc" + good.substr(2) + "- ", std::string(55, '-'), good + std::string(300, '-')}) {
    expect_refused(check_traceparent(bad), ErrorCode::kInvalidHeader, {"traceparent '"}, bad);
  }
}

TEST(CheckContentType, AcceptsPrintableAscii) {
  EXPECT_TRUE(check_content_type("").ok());
  EXPECT_TRUE(check_content_type("application/json; charset=utf-8").ok());
  expect_refused(check_content_type("a\r\nb"), ErrorCode::kInvalidHeader,
                 {"content_type 'a\\r\\nb'", "at byte 2"}, "CRLF");
  expect_refused(check_content_type(std::string(256, 'x')), ErrorCode::kInvalidHeader,
                 {"256 bytes", "at most 255"}, "long");
}

TEST(CheckPriority, HasTenLevels) {
  for (std::uint8_t priority = 0; priority <= 9; ++priority)
    EXPECT_TRUE(check_priority(priority).ok());
  expect_refused(check_priority(10), ErrorCode::kInvalidArgument, {"priority is 10", "0 (normal) to 9"},
                 "10");
  expect_refused(check_priority(255), ErrorCode::kInvalidArgument, {"priority is 255"}, "255");
}

TEST(CheckDelay, LiesBetweenZeroAndTheMaximum) {
  EXPECT_TRUE(check_delay(0s, 1h).ok());
  EXPECT_TRUE(check_delay(1h, 1h).ok());
  for (const Duration bad : {Duration(-1), Duration::min(), Duration(3'600'000'001), Duration::max()}) {
    expect_refused(check_delay(bad, 1h, "ttl"), ErrorCode::kInvalidDelay,
                   {"ttl is ", "between 0 and 3600000000 us"}, "delay");
  }
}

TEST(CheckDueAt, AllowsThePastAndRefusesTheFarFutureWithoutOverflow) {
  EXPECT_TRUE(check_due_at(kNow, kNow, 1h).ok());
  EXPECT_TRUE(check_due_at(kNow - 24h, kNow, 1h).ok());
  EXPECT_TRUE(check_due_at(TimePoint::min(), kNow, 1h).ok());
  EXPECT_TRUE(check_due_at(kNow + 1h, kNow, 1h).ok());
  for (const TimePoint bad : {kNow + 1h + 1us, TimePoint::max()}) {
    expect_refused(check_due_at(bad, kNow, 1h), ErrorCode::kInvalidDelay, {"due_at", "3600000000 us"},
                   "due_at");
  }
  expect_refused(check_due_at(TimePoint::max(), TimePoint::min(), Duration::max()), ErrorCode::kInvalidDelay,
                 {}, "ends");
}

Message valid_message() {
  Message message;
  message.topic = "orders";
  message.payload = "x";
  return message;
}

TEST(CheckMessage, AcceptsAMessageWithEverythingSet) {
  Message message = valid_message();
  message.key = "";
  message.headers = {{"a", "b"}};
  message.content_type = "text/plain";
  message.priority = 9;
  message.ttl = 1h;
  message.dedup_id = "d";
  message.correlation_id = "c";
  message.causation_id = "c";
  message.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  message.due_at = kNow + 1h;
  message.misfire.skip_if_late_by = 1h;
  EXPECT_TRUE(check_message(message, {}, kNow).ok());
}

TEST(CheckMessage, ChecksEachFieldByItsOwnRule) {
  struct Case {
    void (*spoil)(Message&);
    ErrorCode code;
    std::string part;
  };
  const Case cases[] = {
      {[](Message& m) { m.topic = "a b"; }, ErrorCode::kInvalidTopic, "topic"},
      {[](Message& m) { m.payload.resize(101); }, ErrorCode::kPayloadTooLarge,
       "payload has 101 bytes; at most 100"},
      {[](Message& m) { m.key = std::string(256, 'k'); }, ErrorCode::kInvalidKey, "key"},
      {[](Message& m) {
         m.headers = {{"a:", ""}};
       },
       ErrorCode::kInvalidHeader, "header"},
      {[](Message& m) { m.content_type = "\n"; }, ErrorCode::kInvalidHeader, "content_type"},
      {[](Message& m) { m.priority = 10; }, ErrorCode::kInvalidArgument, "priority"},
      {[](Message& m) { m.dedup_id = "a b"; }, ErrorCode::kInvalidId, "dedup_id"},
      {[](Message& m) { m.correlation_id = "a b"; }, ErrorCode::kInvalidId, "correlation_id"},
      {[](Message& m) { m.causation_id = "a b"; }, ErrorCode::kInvalidId, "causation_id"},
      {[](Message& m) { m.traceparent = "00-x"; }, ErrorCode::kInvalidHeader, "traceparent"},
      {[](Message& m) { m.ttl = -1us; }, ErrorCode::kInvalidDelay, "ttl"},
      {[](Message& m) { m.delay = -1us; }, ErrorCode::kInvalidDelay, "delay"},
      {[](Message& m) { m.delay = 2h; }, ErrorCode::kInvalidDelay, "delay"},
      {[](Message& m) { m.due_at = kNow + 2h; }, ErrorCode::kInvalidDelay, "due_at"},
      {[](Message& m) {
         m.delay = 1s;
         m.due_at = kNow;
       },
       ErrorCode::kInvalidDelay, "both"},
      {[](Message& m) { m.misfire.skip_if_late_by = -1us; }, ErrorCode::kInvalidDelay, "misfire"},
  };
  const MessageBounds bounds{100, 1h};
  for (const Case& one : cases) {
    Message message = valid_message();
    ASSERT_TRUE(check_message(message, bounds, kNow).ok());
    one.spoil(message);
    expect_refused(check_message(message, bounds, kNow), one.code, {one.part}, one.part);
  }
}

TEST(CheckMessage, TakesEmptyOptionalIdsAsNone) {
  Message message = valid_message();
  message.dedup_id = message.correlation_id = message.causation_id = message.traceparent = "";
  EXPECT_TRUE(check_message(message, {}, kNow).ok());
}

}  // namespace
}  // namespace towline::base
