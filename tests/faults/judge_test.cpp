// The judge itself: a clean history is clean, and each planted breach is named.

#include "faults/judge.hpp"

#include <gtest/gtest.h>

namespace towline::faults {
namespace {

/// A history of two keys, one kill and one retry in which everything is as it must be.
class Play {
 public:
  Play() {
    for (std::int64_t n = 0; n < 20; ++n) {
      add("test", "invoke", n);
      add("test", "acked", n);
    }
    for (std::int64_t n = 0; n < 20; ++n) {
      if (n == 7) {
        handle("a.1", "start", n, 1);
        add("test", "killed", 0, "a.1");
        handle("b.1", "start", n, 1, true);
      } else if (n == 9) {
        handle("b.1", "start", n, 1);
        handle("b.1", "failed", n, 1);
        handle("b.1", "start", n, 2);
        handle("b.1", "done", n, 2);
        continue;
      } else {
        handle("b.1", "start", n, 1);
      }
      handle("b.1", "done", n, 1);
    }
  }

  void add(const std::string& source, const std::string& what, std::int64_t n, const std::string& text = {}) {
    notes.push_back({.at_us = clock_ += 10, .what = what, .number = n, .text = text, .source = source});
  }
  void handle(const std::string& source, const std::string& what, std::int64_t n, std::uint32_t attempt,
              bool redelivered = false) {
    notes.push_back({.at_us = clock_ += 10,
                     .what = what,
                     .group = "group",
                     .number = n,
                     .attempt = attempt,
                     .redelivered = redelivered,
                     .text = "k" + std::to_string(n % 2) + " " + std::to_string(n),
                     .source = source});
  }
  [[nodiscard]] Judgement judged() const {
    Expectation expected;
    expected.key_ordered = true;
    expected.attempts_max = 3;
    return judge(notes, expected);
  }
  Note& find(const std::string& what, std::int64_t n) {
    for (Note& note : notes) {
      if (note.what == what && note.number == n) return note;
    }
    throw std::logic_error("no such note");
  }
  void drop(const std::string& what, std::int64_t n) {
    std::erase_if(notes, [&](const Note& note) { return note.what == what && note.number == n; });
  }

  std::vector<Note> notes;

 private:
  std::int64_t clock_ = 0;
};

TEST(Judge, FindsNothingInACleanHistory) {
  const Judgement judged = Play().judged();
  EXPECT_TRUE(judged.clean()) << judged.to_string();
  EXPECT_EQ(judged.acked, 20U);
  EXPECT_EQ(judged.duplicates, 1U);
  EXPECT_EQ(judged.kills_into_work, 1U);
  ASSERT_EQ(judged.resume_us.size(), 1U);
  EXPECT_EQ(judged.resume_us[0], 10);
}

TEST(Judge, NamesALostMessage) {
  Play play;
  play.drop("start", 4);
  play.drop("done", 4);
  EXPECT_EQ(play.judged().lost, 1U);
}

TEST(Judge, NamesAMessageThatBeganAndNeverEnded) {
  Play play;
  play.drop("done", 4);
  EXPECT_EQ(play.judged().lost, 1U);
}

TEST(Judge, NamesAMessageFromNowhere) {
  Play play;
  play.handle("b.1", "start", 99, 1);
  EXPECT_EQ(play.judged().unexpected, 1U);
}

TEST(Judge, NamesARejectedMessageThatWasHandled) {
  Play play;
  play.find("acked", 3).what = "rejected";
  EXPECT_EQ(play.judged().unexpected, 1U);
}

TEST(Judge, NamesASecondHandlingThatNoKillExplains) {
  Play play;
  play.handle("b.1", "start", 19, 1, true);
  play.handle("b.1", "done", 19, 1, true);
  EXPECT_EQ(play.judged().unexplained, 1U);
}

TEST(Judge, NamesASecondHandlingThatIsNotMarked) {
  Play play;
  for (Note& note : play.notes)
    note.redelivered = false;
  EXPECT_EQ(play.judged().unexplained, 1U);
}

TEST(Judge, NamesASwapWithinAKey) {
  Play play;
  std::swap(play.find("start", 12).at_us, play.find("start", 14).at_us);
  std::swap(play.find("done", 12).at_us, play.find("done", 14).at_us);
  EXPECT_EQ(play.judged().order, 1U);
}

TEST(Judge, NamesTwoHandlersOfOneKeyAtOnce) {
  Play play;
  play.find("done", 12).at_us = play.find("start", 14).at_us + 5;
  EXPECT_EQ(play.judged().overlaps, 1U);
}

TEST(Judge, NamesAnAttemptThatWasNotCounted) {
  Play play;
  for (Note& note : play.notes) {
    if (note.number == 9 && note.attempt == 2) note.attempt = 3;
  }
  EXPECT_EQ(play.judged().attempts, 1U);
}

TEST(Judge, NamesAnAttemptBeyondTheLast) {
  Play play;
  for (Note& note : play.notes) {
    if (note.number == 8 && note.attempt == 1) note.attempt = 4;
  }
  EXPECT_EQ(play.judged().attempts, 1U);
}

}  // namespace
}  // namespace towline::faults
