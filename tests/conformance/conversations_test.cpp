// Conversations: numbered and fanned out once, read by clients that come and go, trimmed without a word left
// out.

#include <atomic>
#include <map>
#include <thread>

#include "conformance/fixture.hpp"

namespace towline::conformance {
namespace {

TOWLINE_SUITE(ConversationsSuite);

NewConversationMessage text(std::string payload, std::string sender = "ann") {
  NewConversationMessage message;
  message.sender = std::move(sender);
  message.payload = std::move(payload);
  return message;
}

MessageId numbered(int number) {
  std::string id = "018f0000-0000-7000-8000-000000000000";
  id[35] = static_cast<char>('0' + number % 10);
  id[34] = static_cast<char>('0' + number / 10 % 10);
  return MessageId::parse(id).value();
}

std::vector<std::uint64_t> sequences(const std::vector<ConversationMessage>& messages) {
  std::vector<std::uint64_t> sequences;
  for (const ConversationMessage& one : messages)
    sequences.push_back(one.sequence);
  return sequences;
}

std::vector<std::uint64_t> range(std::uint64_t first, std::uint64_t last) {
  std::vector<std::uint64_t> numbers;
  for (std::uint64_t n = first; n <= last; ++n)
    numbers.push_back(n);
  return numbers;
}

void say(Engine& engine, int count, const std::string& room = "room") {
  for (int i = 0; i < count; ++i)
    ASSERT_OK(engine.conversations().append(room, text(std::to_string(i + 1))));
}

std::uint64_t missed_count(Engine& engine, const std::string& user) {
  const auto page = engine.conversations().missed(user);
  EXPECT_OK(page);
  std::uint64_t count = 0;
  for (const MissedConversation& one : page->items)
    count += one.count;
  return count;
}

TEST_P(ConversationsSuite, Conf98_EightWritersGetSequencesWithoutGapsAndEachMessageIsFannedOutOnceInOrder) {
  std::vector<Engine> engines = {open(), open()};
  constexpr int kWriters = 8, kEach = 25;
  std::mutex mutex;
  std::map<std::string, std::vector<std::uint64_t>> copies;
  std::atomic<int> count{0};
  ConsumerOptions options = member("service");
  options.order = Order::kKeyOrdered;
  auto consumer = engines[1].consume("conversations", options, [&](Delivery& delivery) {
    const auto message = conversation_message(delivery);
    ASSERT_OK(message);
    EXPECT_EQ(message->sender, "ann");
    const std::lock_guard lock(mutex);
    copies[message->conversation].push_back(message->sequence);
    ++count;
  });
  ASSERT_OK(consumer);
  std::vector<std::thread> writers;
  for (int w = 0; w < kWriters; ++w) {
    writers.emplace_back([&, w] {
      Conversations talk = engines[static_cast<std::size_t>(w) % 2].conversations();
      for (int i = 0; i < kEach; ++i)
        ASSERT_OK(talk.append(i % 2 == 0 ? "room" : "hall", text("hello")));
    });
  }
  for (std::thread& writer : writers)
    writer.join();
  EXPECT_TRUE(eventually([&] { return count == kWriters * kEach; }));
  EXPECT_TRUE(eventually([&] { return is_done(engines[0], "conversations"); }));
  const std::lock_guard lock(mutex);
  EXPECT_EQ(copies["room"], range(1, kWriters * 13));
  EXPECT_EQ(copies["hall"], range(1, kWriters * 12));
  EXPECT_EQ(sequences(engines[0].conversations().messages_since("room", 0, 1000)->messages),
            range(1, kWriters * 13));
}

TEST_P(ConversationsSuite, Conf98_AnAppendCanBeRepeatedAndIsFannedOutOnce) {
  Engine engine = open();
  make_group(engine, "conversations", "service");
  NewConversationMessage first = text("one");
  first.id = numbered(1);
  first.headers = {{"mood", "fine"}};
  first.content_type = "text/plain";
  for (int time = 0; time < 3; ++time) {
    const auto appended = engine.conversations().append("room", first);
    ASSERT_OK(appended);
    EXPECT_EQ(appended->sequence, 1U);
    EXPECT_EQ(appended->id, numbered(1));
    EXPECT_EQ(appended->duplicate, time > 0);
  }
  EXPECT_EQ(waiting(engine, "conversations", "service"), 1U);
  std::optional<ConversationMessage> copy;
  std::atomic<bool> came{false};
  auto consumer = engine.consume("conversations", member("service"), [&](Delivery& delivery) {
    copy = conversation_message(delivery).value();
    came = true;
  });
  ASSERT_OK(consumer);
  ASSERT_TRUE(eventually([&] { return came.load(); }));
  const auto page = engine.conversations().messages_since("room");
  ASSERT_EQ(page->messages.size(), 1U);
  for (const ConversationMessage& one : {page->messages[0], *copy}) {
    EXPECT_EQ(one.conversation, "room");
    EXPECT_EQ(one.sequence, 1U);
    EXPECT_EQ(one.id, numbered(1));
    EXPECT_EQ(one.sender, "ann");
    EXPECT_EQ(one.payload, "one");
    EXPECT_EQ(one.content_type, "text/plain");
    EXPECT_EQ(one.headers, first.headers);
    EXPECT_EQ(one.sent_at, page->messages[0].sent_at);
  }
}

TEST_P(ConversationsSuite, Conf99_PagesAreExclusiveAndWhatWasTrimmedIsAGap) {
  Engine engine = open();
  Conversations talk = engine.conversations();
  for (int i = 1; i <= 9; ++i) {
    NewConversationMessage message = text(std::to_string(i));
    message.id = numbered(i);
    ASSERT_OK(talk.append("room", message));
  }
  std::vector<std::uint64_t> read;
  for (bool end = false; !end;) {
    const auto page = talk.messages_since("room", read.empty() ? 0 : read.back(), 4);
    ASSERT_OK(page);
    EXPECT_FALSE(page->gap);
    for (const ConversationMessage& one : page->messages)
      read.push_back(one.sequence);
    end = page->end;
  }
  EXPECT_EQ(read, range(1, 9));
  EXPECT_EQ(sequences(talk.messages_since("room", numbered(7))->messages), range(8, 9));
  EXPECT_ERROR(talk.messages_since("room", numbered(33)), ErrorCode::kNotFound);
  ASSERT_OK(talk.trim("room", 5));
  for (const auto& page : {talk.messages_since("room", 3), talk.messages_since("room", numbered(3))}) {
    ASSERT_OK(page);
    ASSERT_TRUE(page->gap);
    EXPECT_EQ(page->gap->oldest, 5U);
    EXPECT_EQ(page->gap->newest, 9U);
    EXPECT_EQ(sequences(page->messages), range(5, 9));
  }
  EXPECT_FALSE(talk.messages_since("room", 4)->gap);
  EXPECT_EQ(talk.append("room", text("more"))->sequence, 10U);
}

TEST_P(ConversationsSuite, Conf100_AClientThatWasAwayGetsExactlyWhatItMissedOverTwoLives) {
  {
    Engine engine = open();
    say(engine, 5);
    say(engine, 3, "hall");
    Conversations talk = engine.conversations();
    ASSERT_OK(talk.acknowledge("bob", "phone", "room", 2));
    for (const std::uint64_t sequence : {2, 3, 3})
      ASSERT_OK(talk.note_missed("bob", "hall", sequence));
    EXPECT_EQ(missed_count(engine, "bob"), 2U);
    const auto page = talk.reconnect("bob", "phone");
    ASSERT_OK(page);
    EXPECT_EQ(missed_count(engine, "bob"), 0U);
    close(engine);
  }
  // Nothing was acknowledged, so all of it comes again.
  Engine engine = open();
  Conversations talk = engine.conversations();
  const auto page = talk.reconnect("bob", "phone");
  ASSERT_OK(page);
  ASSERT_EQ(page->items.size(), 2U);
  EXPECT_EQ(page->items[0].conversation, "hall");
  EXPECT_EQ(sequences(page->items[0].messages), range(2, 3));
  EXPECT_EQ(sequences(page->items[1].messages), range(3, 5));
  EXPECT_TRUE(page->items[1].end);
  EXPECT_TRUE(page->cursor.empty());
  ASSERT_OK(talk.acknowledge("bob", "phone", "hall", 3));
  ASSERT_OK(talk.acknowledge("bob", "phone", "room", 4));
  ASSERT_OK(talk.trim("room", 5));
  say(engine, 1);
  const auto rest = talk.reconnect("bob", "phone");
  ASSERT_OK(rest);
  ASSERT_EQ(rest->items.size(), 1U);
  EXPECT_EQ(sequences(rest->items[0].messages), range(5, 6));
  EXPECT_FALSE(rest->items[0].gap);
  EXPECT_TRUE(talk.reconnect("bob", "desk")->items.empty());
}

TEST_P(ConversationsSuite, Conf101_PositionsOnlyMoveForwardWhoeverWritesThemAndExpire) {
  auto clock = std::make_shared<VirtualClock>();
  set_keeper_clock(clock);
  EngineOptions options = quick_options();
  options.clock = clock;
  options.conversations.client_expiry = 1h;
  Engine engine = open(options), other = open(options);
  say(engine, 100);
  std::vector<std::thread> writers;
  for (int w = 0; w < 4; ++w) {
    writers.emplace_back([&, w] {
      Conversations talk = (w % 2 == 0 ? engine : other).conversations();
      std::uint64_t before = 0;
      for (int i = 1; i <= 30; ++i) {
        ASSERT_OK(
            talk.acknowledge("bob", "phone", "room", static_cast<std::uint64_t>(1 + (i * 37 + w) % 100)));
        const auto position = talk.position("bob", "phone", "room");
        ASSERT_OK(position);
        EXPECT_GE(position->value_or(0), before);
        before = position->value_or(0);
      }
    });
  }
  for (std::thread& writer : writers)
    writer.join();
  std::uint64_t furthest = 0;
  for (int w = 0; w < 4; ++w) {
    for (int i = 1; i <= 30; ++i)
      furthest = std::max(furthest, static_cast<std::uint64_t>(1 + (i * 37 + w) % 100));
  }
  EXPECT_EQ(engine.conversations().position("bob", "phone", "room").value(), furthest);
  clock->advance(1h);
  EXPECT_EQ(engine.conversations().position("bob", "phone", "room").value(), std::nullopt);
  ASSERT_OK(other.conversations().acknowledge("bob", "phone", "room", 3));
  EXPECT_EQ(engine.conversations().position("bob", "phone", "room").value(), 3U);
}

TEST_P(ConversationsSuite, Conf101_WhatWasMissedIsForgottenInItsTime) {
  auto clock = std::make_shared<VirtualClock>();
  set_keeper_clock(clock);
  EXPECT_EQ(EngineOptions().conversations.missed_expiry, 24h);
  EXPECT_EQ(EngineOptions().conversations.client_expiry, 24h * 30);
  EngineOptions options = quick_options();
  options.clock = clock;
  options.conversations.missed_expiry = 1h;
  Engine engine = open(options);
  say(engine, 3);
  ASSERT_OK(engine.conversations().acknowledge("bob", "phone", "room", 1));
  ASSERT_OK(engine.conversations().note_missed("bob", "room", 3));
  EXPECT_EQ(engine.conversations().missed("bob")->items.size(), 1U);
  clock->advance(59min);
  EXPECT_EQ(engine.conversations().missed("bob")->items.size(), 1U);
  clock->advance(2min);
  EXPECT_EQ(engine.conversations().missed("bob")->items.size(), 0U);
  EXPECT_EQ(engine.conversations().position("bob", "phone", "room").value(), 1U) << "it has its own time";
}

TEST_P(ConversationsSuite, Conf102_TheLiveAndTheDurablePathGiveAClientEachMessageOnce) {
  Engine engine = open();
  Conversations talk = engine.conversations();
  say(engine, 20);
  ASSERT_OK(talk.acknowledge("bob", "phone", "room", 5));
  auto feed = talk.feed("bob", "phone");
  ASSERT_OK(feed);
  std::mutex mutex;
  std::vector<std::uint64_t> got;
  const auto give = [&](const ConversationMessage& message) {
    const std::lock_guard lock(mutex);
    auto page = feed->offer(message, 3);
    ASSERT_OK(page);
    for (;;) {
      for (const ConversationMessage& one : page->messages)
        got.push_back(one.sequence);
      if (page->end) break;
      page = feed->next("room", 3);
      ASSERT_OK(page);
    }
  };
  ConsumerOptions live = member("");
  auto consumer = engine.consume("conversations", live,
                                 [&](Delivery& delivery) { give(conversation_message(delivery).value()); });
  ASSERT_OK(consumer);
  std::thread writer([&] { say(engine, 60); });
  for (int times = 0; times < 5; ++times) {
    const auto page = talk.reconnect("bob", "phone", 1000);
    ASSERT_OK(page);
    for (const CatchUp& one : page->items) {
      for (const ConversationMessage& message : one.messages)
        give(message);
    }
  }
  writer.join();
  EXPECT_TRUE(eventually([&] {
    const std::lock_guard lock(mutex);
    return got.size() >= 75;
  }));
  ASSERT_OK(engine.settle_down());
  const std::lock_guard lock(mutex);
  EXPECT_EQ(got, range(6, 80));
}

TEST_P(ConversationsSuite, Conf103_TrimmingKeepsTheNewestAndTakesNothingFromAGroup) {
  EngineOptions options = quick_options();
  options.conversations.count_max = 10;
  Engine engine = open(options);
  make_group(engine, "conversations", "service");
  say(engine, 100);
  const auto extent = engine.conversations().find("room");
  ASSERT_OK(extent);
  EXPECT_EQ((*extent)->newest, 100U);
  EXPECT_GE((*extent)->oldest, 90U);
  EXPECT_LE((*extent)->oldest, 91U);
  Recorder recorder;
  auto consumer = engine.consume("conversations", member("service"), recorder.handler());
  ASSERT_OK(consumer);
  EXPECT_TRUE(recorder.reaches(100));
}

TEST_P(ConversationsSuite, Conf103_TrimmingByBytesKeepsTheNewest) {
  EngineOptions options = quick_options();
  options.conversations.bytes_max = 1000;
  Engine engine = open(options);
  Conversations talk = engine.conversations();
  for (int i = 0; i < 20; ++i)
    ASSERT_OK(talk.append("room", text(std::string(200, 'x'))));
  ASSERT_TRUE(eventually([&] { return talk.find("room").value()->oldest > 10; }));
  const auto page = talk.messages_since("room", 0);
  ASSERT_OK(page);
  ASSERT_FALSE(page->messages.empty());
  EXPECT_LE(page->messages.size(), 5U);
  EXPECT_EQ(page->messages.back().sequence, 20U);
  ASSERT_TRUE(page->gap);
  EXPECT_EQ(page->gap->oldest, page->messages.front().sequence);
}

TEST_P(ConversationsSuite, Conf103_WhatIsOldGoesFromQuietConversationsUnlessItIsUnread) {
  auto clock = std::make_shared<VirtualClock>();
  set_keeper_clock(clock);
  EngineOptions options = quick_options();
  options.clock = clock;
  options.conversations.age_max = 1h;
  options.conversations.keep_unread = true;
  Engine engine = open(options);
  say(engine, 5, "quiet");
  say(engine, 5, "unread");
  ASSERT_OK(engine.conversations().acknowledge("bob", "phone", "unread", 2));
  clock->advance(2h);
  EXPECT_TRUE(eventually([&] {
    clock->advance(1s);
    return engine.conversations().find("quiet").value()->oldest == 5 &&
           engine.conversations().find("unread").value()->oldest == 3;
  }));
  const auto page = engine.conversations().reconnect("bob", "phone");
  ASSERT_OK(page);
  ASSERT_EQ(page->items.size(), 1U);
  EXPECT_FALSE(page->items[0].gap);
  EXPECT_EQ(sequences(page->items[0].messages), range(3, 5));
}

TEST_P(ConversationsSuite, Bad56_WhatNoConversationCanHave) {
  Engine engine = open();
  Conversations talk = engine.conversations();
  say(engine, 2);
  for (const std::string& name :
       {std::string(), std::string("a b"), std::string("a\n"), std::string(256, 'a')}) {
    EXPECT_ERROR(talk.append(name, text("x")), ErrorCode::kInvalidName);
    EXPECT_ERROR(talk.append("room", text("x", name)), ErrorCode::kInvalidName);
    EXPECT_ERROR(talk.messages_since(name), ErrorCode::kInvalidName);
    EXPECT_ERROR(talk.acknowledge(name, "phone", "room", 1), ErrorCode::kInvalidName);
    EXPECT_ERROR(talk.acknowledge("bob", name, "room", 1), ErrorCode::kInvalidName);
    EXPECT_ERROR(talk.acknowledge("bob", "phone", name, 1), ErrorCode::kInvalidName);
    EXPECT_ERROR(talk.note_missed(name, "room", 1), ErrorCode::kInvalidName);
    EXPECT_ERROR(talk.reconnect(name, "phone"), ErrorCode::kInvalidName);
    EXPECT_ERROR(talk.feed("bob", name), ErrorCode::kInvalidName);
  }
  for (const std::uint64_t sequence : {std::uint64_t{0}, std::uint64_t{3}, UINT64_MAX}) {
    EXPECT_ERROR(talk.acknowledge("bob", "phone", "room", sequence), ErrorCode::kInvalidArgument);
    EXPECT_ERROR(talk.note_missed("bob", "room", sequence), ErrorCode::kInvalidArgument);
    if (sequence == 0) continue;
    EXPECT_ERROR(talk.messages_since("room", sequence), ErrorCode::kInvalidArgument);
  }
  for (const std::size_t count_max : {std::size_t{0}, std::size_t{10'001}, SIZE_MAX}) {
    EXPECT_ERROR(talk.messages_since("room", 0, count_max), ErrorCode::kInvalidArgument);
    EXPECT_ERROR(talk.reconnect("bob", "phone", count_max), ErrorCode::kInvalidArgument);
    EXPECT_ERROR(talk.missed("bob", count_max), ErrorCode::kInvalidArgument);
  }
  EXPECT_ERROR(talk.reconnect("bob", "phone", 1, "no cursor"), ErrorCode::kInvalidCursor);
  EXPECT_ERROR(talk.trim("nowhere", 1), ErrorCode::kNotFound);
  ASSERT_OK(talk.trim("room", UINT64_MAX));
  EXPECT_EQ(sequences(talk.messages_since("room")->messages), range(2, 2));
  EXPECT_FALSE(talk.position("bob", "phone", "room").value());
  EXPECT_EQ(missed_count(engine, "bob"), 0U);
  EXPECT_ERROR(Engine::open(url() + (url().find('?') == std::string::npos ? "?" : "&") +
                            "conversations.fanout_topic=a..b"),
               ErrorCode::kInvalidTopic);
}

}  // namespace
}  // namespace towline::conformance
