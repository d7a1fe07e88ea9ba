// Fingerprints: equal for one cause in all its occurrences, different for different causes, and never
// changing.

#include "policy/fingerprint.hpp"

#include <string>

#include <gtest/gtest.h>

#include "support/property.hpp"

namespace towline::policy {
namespace {

TEST(NormalizeMessage, TakesOutWhatDiffersFromOneOccurrenceToTheNext) {
  const std::pair<const char*, const char*> cases[] = {
      {"order 8123 of 'anna' at 0x7f12ab not found", "order # of # at # not found"},
      {"order 99 of 'bob x' at 0xFF not found", "order # of # at # not found"},
      {"id 01890a5d-ac96-774b-bcce-b302099a8057 gone", "id # gone"},
      {"hash deadbeef01 differs", "hash # differs"},
      {"the facade decade is added", "the facade decade is added"},
      {"took 1.25s, 10.0.0.1:5432", "took #s, #:#"},
      {"can't open \"a b\" or `x`", "can't open # or #"},
      {"it's and that's", "it's and that's"},
      {"an open 'quote", "an open 'quote"},
      {"  many \t blanks\n here ", "many blanks here"},
      {"worker12 v2", "worker# v#"},
      {"", ""},
      {"0x", "#x"},
      {"-5 5. .5", "-# #. .#"},
  };
  for (const auto& [message, expected] : cases)
    EXPECT_EQ(normalize_message(message), expected) << message;
}

std::string of(const std::string& type, const std::string& message, const std::string& stack = "") {
  return fingerprint({type, message, stack});
}

TEST(Fingerprint, HasSixteenHexDigits) {
  support::for_all([](const std::string& type, const std::string& message, const std::string& stack) {
    const std::string print = of(type, message, stack);
    RC_ASSERT(print.size() == 16u);
    RC_ASSERT(print.find_first_not_of("0123456789abcdef") == std::string::npos);
    RC_ASSERT(print == of(type, message, stack));
  });
}

TEST(Fingerprint, IsStoredAndSoNeverChanges) {
  EXPECT_EQ(of("Timeout", "after 5 s"), "731896f019de1b1d");
  EXPECT_EQ(of("KeyError", "'a'",
               "Traceback (most recent call last):\n  File \"/app/x.py\", line 3, in f\n    g()\n"),
            "16ad787da899a4d7");
}

TEST(Fingerprint, IsTheSameForOneCause) {
  EXPECT_EQ(of("E", "order 1 of 'a'"), of("E", "order 22 of 'b c'"));
  EXPECT_NE(of("E", "order 1"), of("E", "customer 1"));
  EXPECT_NE(of("E", "order 1"), of("F", "order 1"));
}

constexpr char kPython[] =
    "Traceback (most recent call last):\n"
    "  File \"/usr/lib/python3.11/worker.py\", line 10, in run\n"
    "    handle(message)\n"
    "  File \"/srv/app-1.2/shop/orders.py\", line 55, in pay\n"
    "    charge(order)\n"
    "shop.errors.Declined: card 4711 declined\n";

TEST(Fingerprint, OfAPythonStackDependsOnFunctionsAndFilesOnly) {
  const std::string same =
      "Traceback (most recent call last):\n"
      "  File \"/opt/py/worker.py\", line 12, in run\n"
      "    handle(other_name)\n"
      "  File \"C:\\app\\shop\\orders.py\", line 60, in pay\n"
      "    charge(order)\n"
      "shop.errors.Declined: card 9 declined\n";
  EXPECT_EQ(of("Declined", "card 4711 declined", kPython), of("Declined", "card 9 declined", same));
  std::string other = kPython;
  other.replace(other.find("in pay"), 6, "in refund");
  EXPECT_NE(of("Declined", "card 4711 declined", kPython), of("Declined", "card 4711 declined", other));
}

TEST(Fingerprint, OfAJavaScriptStackIgnoresTheMessageLineAndPositions) {
  const std::string a =
      "Error: order 1 failed\n    at pay (/srv/a/orders.js:10:5)\n    at run (/srv/a/worker.js:3:1)\n";
  const std::string b =
      "Error: customer x\n    at pay (/home2/b/orders.js:99:7)\n    at run (/home2/b/worker.js:4:2)\n";
  const std::string c =
      "Error: order 1 failed\n    at refund (/srv/a/orders.js:10:5)\n    at run (/srv/a/worker.js:3:1)\n";
  EXPECT_EQ(of("Error", "order 1 failed", a), of("Error", "customer x", b));
  EXPECT_NE(of("Error", "order 1 failed", a), of("Error", "order 1 failed", c));
}

TEST(Fingerprint, LooksAtTheInnermostFiveFrames) {
  std::string python = "Traceback (most recent call last):\n";
  std::string script = "Error: x\n";
  for (int i = 0; i < 10; ++i) {
    const std::string name(1, static_cast<char>('a' + i));
    python += "  File \"x.py\", line 1, in " + name + "\n";
    script += "    at " + name + " (x.js:1:1)\n";
  }
  std::string outer_changed = python;
  outer_changed.replace(outer_changed.find("in a"), 4, "in z");
  std::string inner_changed = python;
  inner_changed.replace(inner_changed.find("in j"), 4, "in z");
  EXPECT_EQ(of("E", "", python), of("E", "", outer_changed));
  EXPECT_NE(of("E", "", python), of("E", "", inner_changed));
  outer_changed = script;
  outer_changed.replace(outer_changed.find("at j"), 4, "at z");
  inner_changed = script;
  inner_changed.replace(inner_changed.find("at a"), 4, "at z");
  EXPECT_EQ(of("E", "", script), of("E", "", outer_changed));
  EXPECT_NE(of("E", "", script), of("E", "", inner_changed));
}

TEST(Fingerprint, DoesNotMixUpTypeAndMessage) { EXPECT_NE(of("ab", "c"), of("a", "bc")); }

TEST(Fingerprint, IsQuickForHostileInput) {
  // Each would take minutes if a part of the text were looked at again from every position.
  for (const char byte : {'a', '0', '\'', '"', '/', '.', '-', '\n'}) {
    const std::string text(1 << 20, byte);
    EXPECT_EQ(of("E", text, text).size(), 16u);
    EXPECT_EQ(of("E", text, "File \"" + text).size(), 16u);
  }
}

}  // namespace
}  // namespace towline::policy
