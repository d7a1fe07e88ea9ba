// FLT-29: those who append to conversations, count what a user misses and reconnect for the user are killed
// at any moment. What was acknowledged is there once and was copied once, sequences have no gaps, and the
// client was given each message, in order and without a hole in each of its lives.

#include <map>
#include <set>
#include <thread>

#include "faults/child.hpp"
#include "faults/experiment.hpp"

namespace towline::faults {
namespace {

constexpr std::int64_t kSpan = 1'000'000;
constexpr std::int64_t kTalkers = 3;

class ConversationKills : public Experiment {
 protected:
  /// Where the talker goes on: behind the last append that was answered.
  [[nodiscard]] std::int64_t next_of(std::int64_t talker) {
    std::int64_t next = talker * kSpan;
    for (const Note& note : history().notes()) {
      if (note.what == "next" && (note.number - 1) / kSpan == talker) next = std::max(next, note.number);
    }
    return next;
  }
  [[nodiscard]] bool is_through(std::int64_t talker, std::int64_t each) {
    return next_of(talker) >= talker * kSpan + each;
  }
  /// Every number that was to be said, once each. The newest sequence of each conversation.
  static std::map<std::string, std::uint64_t> judge_store(Engine& engine, std::int64_t each) {
    std::map<std::string, std::uint64_t> newest;
    std::set<std::int64_t> numbers;
    for (const char* room : {"room-0", "room-1", "room-2"}) {
      for (bool end = false; !end;) {
        const auto page = engine.conversations().messages_since(room, newest[room], 1'000).value();
        EXPECT_FALSE(page.gap);
        for (const ConversationMessage& message : page.messages) {
          EXPECT_EQ(message.sequence, ++newest[room]) << room;
          EXPECT_TRUE(numbers.insert(std::stoll(message.payload)).second) << message.payload << " twice";
        }
        end = page.end;
      }
    }
    for (std::int64_t talker = 0; talker < kTalkers; ++talker) {
      for (std::int64_t n = 0; n < each; ++n)
        EXPECT_TRUE(numbers.contains(talker * kSpan + n)) << "lost: " << talker << "/" << n;
    }
    return newest;
  }
  /// Each message was copied, and once, with the sequence that it has.
  static void expect_copied_once(Engine& engine, const std::map<std::string, std::uint64_t>& newest) {
    std::map<std::string, std::set<std::uint64_t>> copies;
    std::size_t count = 0, wanted = 0;
    std::mutex mutex;
    for (const auto& [room, last] : newest)
      wanted += last;
    Consumer consumer = engine
                            .consume("conversations", member_options({}),
                                     [&](Delivery& delivery) {
                                       const auto copy = conversation_message(delivery).value();
                                       const std::lock_guard lock(mutex);
                                       copies[copy.conversation].insert(copy.sequence);
                                       ++count;
                                     })
                            .value();
    EXPECT_TRUE(eventually(
        [&] {
          const std::lock_guard lock(mutex);
          return count >= wanted;
        },
        20s));
    const auto is_through = [&] {
      for (const GroupBacklog& one : engine.backlog().value()) {
        if (one.group == kGroup) return one.waiting == 0 && one.in_flight == 0;
      }
      return false;
    };
    EXPECT_TRUE(eventually(is_through, 20s));
    (void)consumer.close().value();
    EXPECT_EQ(count, wanted);
    for (const auto& [room, last] : newest)
      EXPECT_EQ(copies[room].size(), last) << room;
  }
  /// What the client noted: in each life in order and without a hole, and all of it in the end.
  [[nodiscard]] bool has_got_all(const std::map<std::string, std::uint64_t>& newest) {
    history().read();
    std::map<std::string, std::set<std::int64_t>> got;
    for (const Note& note : history().notes()) {
      if (note.what == "got") got[note.text].insert(note.number);
    }
    for (const auto& [room, last] : newest) {
      if (got[room].size() < last) return false;
    }
    return true;
  }
  std::int64_t judge_client() {
    std::map<std::pair<std::string, std::string>, std::int64_t> last;  // of a life and a conversation
    std::set<std::pair<std::string, std::int64_t>> once;
    std::int64_t again = 0;
    for (const Note& note : history().notes()) {
      if (note.what != "got") continue;
      again += once.emplace(note.text, note.number).second ? 0 : 1;
      const auto [at, first] = last.try_emplace({note.source, note.text}, note.number - 1);
      EXPECT_EQ(note.number, at->second + 1) << note.source << " in " << note.text;
      at->second = note.number;
      // Whoever begins does so behind what is known, never behind a hole.
      if (first) {
        EXPECT_TRUE(note.number == 1 || once.contains({note.text, note.number - 1})) << note.text;
      }
    }
    return again;
  }
};

TEST_F(ConversationKills, Flt29_AClientMissesNothingWhoeverIsKilled) {
  TOWLINE_EXPERIMENT("FLT-29");
  const auto each = sized<std::int64_t>(600, 10'000);
  const auto kills_wanted = sized<std::int64_t>(40, 300);
  const std::string lease = "lease_ms=300";
  // The group is there before the first copy.
  Engine engine = open();
  (void)engine.consume("conversations", member_options({}), [](Delivery&) {}).value().close().value();
  Crew talkers(kTalkers, "talker", [&](const std::string& name) {
    const std::int64_t talker = std::stoll(name.substr(name.find('-') + 1));
    history().read();
    const std::string from = "from=" + std::to_string(next_of(talker));
    return start("talk", name, {lease, from, "to=" + std::to_string(talker * kSpan + each)});
  });
  Crew services(2, "service", [&](const std::string& name) { return start("serve", name, {lease}); });
  Crew clients(1, "client", [&](const std::string& name) { return start("client", name, {lease}); });
  const std::vector<Crew*> crews = {&talkers, &services, &clients};
  std::int64_t kills = 0;
  const Stopwatch watch;
  for (bool through = false; !through || kills < kills_wanted;) {
    ASSERT_LT(watch.elapsed(), sized(120s, 1500s)) << "the talkers do not come to their end";
    Crew& crew = *crews[draw(crews.size())];
    const std::size_t seat = draw(crew.size());
    history().read();
    const bool has_work = &crew != &talkers || !is_through(static_cast<std::int64_t>(seat), each);
    if (kills < kills_wanted && has_work) {
      kill(crew.child_of(seat), crew.name_of(seat));
      crew.start_again(seat);
      ++kills;
    }
    history().read();
    through = is_through(0, each) && is_through(1, each) && is_through(2, each);
    std::this_thread::sleep_for(std::chrono::milliseconds(10 + draw(60)));  // sleeps: until the next kill
  }
  talkers.stop();
  const auto newest = judge_store(engine, each);
  EXPECT_TRUE(eventually([&] { return has_got_all(newest); }, 20s));
  clients.stop();
  services.stop();
  const std::int64_t again = judge_client();
  EXPECT_LE(again, 9 * kills) << "more than what is acknowledged at once, for each kill and conversation";
  expect_copied_once(engine, newest);
  print("FLT-29", "\"messages\":" + std::to_string(kTalkers * each) + ",\"kills\":" + std::to_string(kills) +
                      ",\"lost\":0,\"given_again\":" + std::to_string(again));
}

}  // namespace
}  // namespace towline::faults
