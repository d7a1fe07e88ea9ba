// K9 finds what is planted in a clean history of events, and finds nothing in a clean one.

#include <gtest/gtest.h>

#include "simulation/story.hpp"

namespace towline::simulation {
namespace {

/// Appends of two streams, told one after the other, and one follower of them all.
class EventStory : public Story {
 public:
  EventStory() : Story(0) {
    facts.events.append_count = 10;
    facts.events.followers.emplace_back();
  }
  Record& call(Event event, std::uint32_t number, std::uint32_t stream, std::uint32_t count,
               std::uint64_t version) {
    Record& r = note(event);
    r.session = 9;
    r.number = number;
    r.index = stream;
    r.attempt = count;
    r.redrives = number * 10;  // its first event
    r.lease = version;
    return r;
  }
  /// `expected`: -1: any.
  void append(std::uint32_t number, std::uint32_t stream, std::uint32_t count, std::int64_t expected = -1) {
    call(Event::kAppending, number, stream, count, static_cast<std::uint64_t>(expected + 1));
    call(Event::kEventsThere, number, stream, count, 0);
    call(Event::kAppended, number, stream, count, versions_[stream] + 1);
    for (std::uint32_t i = 0; i < count; ++i)
      end.events.push_back({++position_, ++versions_[stream], stream, number * 10 + i});
  }
  void refuse(std::uint32_t number, std::uint32_t stream, std::uint64_t expected) {
    call(Event::kAppending, number, stream, 1, expected + 1);
    call(Event::kAppended, number, stream, 1, 0).answer = Answer::kConflict;
  }
  void follow(std::size_t place) {
    Record& r = note(Event::kFollow);
    r.session = 0;
    r.index = end.events[place - 1].event;
    r.number = place;
  }
  void checkpoint(std::uint64_t place) {
    Record& r = note(Event::kCheckpoint);
    r.session = 0;
    r.number = place;
  }
  void follow_all() {
    for (std::size_t i = 1; i <= end.events.size(); ++i)
      follow(i);
  }

 private:
  std::uint64_t position_ = 0;
  std::map<std::uint32_t, std::uint64_t> versions_;
};

TEST(EventChecker, FindsNothingInACleanStory) {
  EventStory story;
  story.append(1, 0, 2, 0);
  story.append(2, 1, 1);
  story.refuse(3, 0, 0);
  story.append(4, 0, 1, 2);
  story.follow(1);
  story.follow(2);
  story.checkpoint(1);
  story.follow(2);
  story.follow(3);
  story.follow(4);
  story.checkpoint(4);
  story.end.pages.push_back({2, true, 0, {story.end.events.begin() + 1, story.end.events.end()}});
  EXPECT_EQ(story.findings(), "");
}

TEST(EventChecker, FindsGapsDoublesAndWhatIsGone) {
  EventStory gap;
  gap.append(1, 0, 3);
  gap.end.events.erase(gap.end.events.begin() + 1);
  EXPECT_EQ(gap.finds("K9", "has version 3 behind version 1"), 1U);
  EXPECT_EQ(gap.finds("K9", "event e11 is gone"), 1U);
  EXPECT_EQ(gap.finds("K9", "half of append 1"), 1U);
  EventStory twice;
  twice.append(1, 0, 1);
  twice.end.events.push_back({2, 2, 0, 10});
  EXPECT_EQ(twice.finds("K9", "event e10 is there 2 times"), 1U);
}

TEST(EventChecker, FindsAppendsThatCompareWrongly) {
  EventStory blind;
  blind.append(1, 0, 1);
  blind.append(2, 0, 1, 0);
  EXPECT_EQ(blind.finds("K9", "expected version 0 and was put behind version 1"), 1U);
  EventStory fussy;
  fussy.append(1, 0, 1);
  fussy.refuse(2, 0, 1);
  EXPECT_EQ(fussy.finds("K9", "a conflict that there never was"), 1U);
  EventStory lies;
  lies.refuse(1, 0, 5);
  lies.end.events.push_back({1, 1, 0, 10});
  EXPECT_EQ(lies.finds("K9", "append 1 was refused, and is there"), 1U);
  EventStory again;
  again.append(1, 0, 1);
  again.call(Event::kAppending, 1, 0, 1, 0);
  again.call(Event::kAppended, 1, 0, 1, 1);
  EXPECT_EQ(again.finds("K9", "its repetition did not say so"), 1U);
}

TEST(EventChecker, FindsAnOrderThatIsNotThatOfTime) {
  EventStory story;
  story.append(1, 0, 1);
  story.append(2, 1, 1);
  std::swap(story.end.events[0].position, story.end.events[1].position);
  std::swap(story.end.events[0], story.end.events[1]);
  EXPECT_EQ(story.finds("K9", "event e20 stands before what was answered"), 1U);
}

TEST(EventChecker, FindsPagesThatPassSomething) {
  EventStory story;
  story.append(1, 0, 3);
  story.end.pages.push_back({1, false, 0, {story.end.events[0], story.end.events[2]}});
  EXPECT_EQ(story.finds("K9", "a page of all events passes over event e11"), 1U);
}

TEST(EventChecker, FindsFollowersThatMissGoBackOrSeeWhatIsNotThere) {
  EventStory misses;
  misses.append(1, 0, 3);
  misses.follow(1);
  misses.follow(3);
  EXPECT_EQ(misses.finds("K9", "was given event e12 and not what is before it"), 1U);
  EXPECT_EQ(misses.finds("K9", "event e11 never came"), 1U);
  EventStory replays;
  replays.append(1, 0, 2);
  replays.follow_all();
  replays.checkpoint(2);
  replays.follow(1);
  EXPECT_EQ(replays.finds("K9", "was given event e10 again behind its checkpoint"), 1U);
  replays.facts.may_stand_still = true;
  EXPECT_EQ(replays.findings(), "");
  EventStory back;
  back.append(1, 0, 2);
  back.follow_all();
  back.checkpoint(2);
  back.checkpoint(1);
  EXPECT_EQ(back.finds("K9", "the checkpoint of follower-0 went back"), 1U);
  EventStory ghost;
  ghost.append(1, 0, 2);
  ghost.follow_all();
  ghost.end.events.pop_back();
  EXPECT_EQ(ghost.finds("K9", "was given event e11, which is not there"), 1U);
}

}  // namespace
}  // namespace towline::simulation
