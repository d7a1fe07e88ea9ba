// Conversations over a store whose replies get lost: nothing is numbered or fanned out twice, and nothing a
// client missed is forgotten before it was acknowledged.

#include "engine/conversations.hpp"

#include "unit/engine/world.hpp"

namespace towline::engine {
namespace {

using namespace testing;

const Error kLost{ErrorCode::kUnavailable, "the reply is lost"};

NewConversationMessage text(std::string payload, std::uint8_t id = 0) {
  NewConversationMessage message;
  message.sender = "ann";
  message.payload = std::move(payload);
  message.id.bytes[15] = id;
  return message;
}

class Chat : public World {
 public:
  explicit Chat(WorldOptions options = {}) : World(std::move(options)), talk(core->conversations()) {}

  void say(int count, const std::string& room = "room", const std::string& payload = "hello") {
    for (int i = 0; i < count; ++i)
      ASSERT_TRUE(talk.append(room, text(payload)).ok());
  }
  /// "room:3 room:4|hall:1": what a page of reconnect() has; "~" is a gap, "+" more to come.
  [[nodiscard]] static std::string told(const Page<CatchUp>& page) {
    std::string told;
    for (const CatchUp& one : page.items) {
      told += told.empty() ? "" : "|";
      if (one.gap)
        told += "~" + std::to_string(one.gap->oldest) + "-" + std::to_string(one.gap->newest) + " ";
      for (const ConversationMessage& message : one.messages) {
        EXPECT_EQ(message.conversation, one.conversation);
        told += one.conversation + std::to_string(message.sequence) + " ";
      }
      told += one.end ? "." : "+";
    }
    return told;
  }
  [[nodiscard]] std::string reconnect(std::size_t count_max = 100, const std::string& client = "phone") {
    auto page = talk.reconnect("bob", client, count_max, {});
    return page ? told(*page) : std::string(page.error().wire_code());
  }
  [[nodiscard]] std::uint64_t missed(const std::string& room = "room") {
    for (const MissedConversation& one : talk.missed("bob", 100, {}).value().items) {
      if (one.conversation == room) return one.count;
    }
    return 0;
  }
  [[nodiscard]] ConversationMessage message(std::uint64_t sequence, const std::string& room = "room") {
    return talk.messages_since(room, sequence - 1, 1).value().messages.at(0);
  }
  [[nodiscard]] static std::vector<std::uint64_t> sequences(const ConversationPage& page) {
    std::vector<std::uint64_t> sequences;
    for (const ConversationMessage& one : page.messages)
      sequences.push_back(one.sequence);
    return sequences;
  }
  /// What the fan-out holds: "key/sequence/sender" each.
  [[nodiscard]] std::vector<std::string> fanned_out() {
    ConsumerOptions options;
    options.group = "service";
    std::vector<std::string> copies;
    auto consumer = consume_as(options, Handler([&](Delivery& delivery) {
                                 const auto copy = conversation_message(delivery).value();
                                 EXPECT_EQ(copy.conversation, delivery.key().value_or(""));
                                 copies.push_back(copy.conversation + "/" + std::to_string(copy.sequence) +
                                                  "/" + copy.sender + "/" + copy.payload);
                               }),
                               {"conversations"});
    play(*consumer);
    return copies;
  }

  Conversations& talk;
};

using Sequences = std::vector<std::uint64_t>;
using Copies = std::vector<std::string>;

WorldOptions with(ConversationsOptions conversations) {
  WorldOptions options;
  options.engine.conversations = std::move(conversations);
  return options;
}

TEST(Conversations, BadInputIsRefusedBeforeAnythingIsWritten) {
  WorldOptions options;
  options.engine.payload_bytes_max = 10;
  Chat chat(options);
  const auto refused = [&](const std::string& room, NewConversationMessage message) {
    const auto appended = chat.talk.append(room, std::move(message));
    return appended ? ErrorCode{} : appended.error().code;
  };
  EXPECT_EQ(refused("", text("x")), ErrorCode::kInvalidName);
  EXPECT_EQ(refused("a b", text("x")), ErrorCode::kInvalidName);
  EXPECT_EQ(refused(std::string(256, 'a'), text("x")), ErrorCode::kInvalidName);
  EXPECT_EQ(refused("room", text("12345678901")), ErrorCode::kPayloadTooLarge);
  NewConversationMessage bad = text("x");
  bad.sender = "";
  EXPECT_EQ(refused("room", bad), ErrorCode::kInvalidName);
  bad = text("x");
  bad.headers = {{"towline-sequence", "9"}};
  EXPECT_EQ(refused("room", bad), ErrorCode::kReservedHeader);
  bad = text("x");
  bad.content_type = "a\nb";
  EXPECT_EQ(refused("room", bad), ErrorCode::kInvalidHeader);
  EXPECT_EQ(chat.script->count("commit AppendEvents"), 0);
  chat.say(2);
  EXPECT_EQ(chat.talk.acknowledge("bob", "phone", "room", 0).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(chat.talk.acknowledge("bob", "phone", "room", 3).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(chat.talk.acknowledge("bob", "", "room", 1).error().code, ErrorCode::kInvalidName);
  EXPECT_EQ(chat.talk.acknowledge("b b", "phone", "room", 1).error().code, ErrorCode::kInvalidName);
  EXPECT_EQ(chat.talk.note_missed("bob", "room", 3).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(chat.talk.note_missed("bob", "hall", 1).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(chat.talk.messages_since("room", 3, 10).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(chat.talk.messages_since("room", UINT64_MAX, 10).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(chat.talk.messages_since("room", 0, 0).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(chat.talk.messages_since("room", 0, 10'001).error().code, ErrorCode::kInvalidArgument);
  for (const char* cursor : {"x", ":", "1:", "-1:room", "1:a b", "99999999999999999999:room"})
    EXPECT_EQ(chat.talk.reconnect("bob", "phone", 1, cursor).error().code, ErrorCode::kInvalidCursor);
  EXPECT_EQ(chat.talk.trim("hall", 1).error().code, ErrorCode::kNotFound);
}

TEST(Conversations, AMessageAndItsCopyAreOneUnit) {
  Chat chat;
  chat.say(2);
  EXPECT_EQ(chat.script->count("commit AppendEvents"), 2);
  chat.script->refuse_units([](const spi::Unit& unit) {
    return find_write<spi::AppendEvents>(unit) ? std::optional(Error{ErrorCode::kOverloaded, "full"})
                                               : std::nullopt;
  });
  EXPECT_EQ(chat.talk.append("room", text("no")).error().code, ErrorCode::kOverloaded);
  chat.script->refuse_units({});
  EXPECT_EQ(chat.fanned_out(), (Copies{"room/1/ann/hello", "room/2/ann/hello"}));
  EXPECT_EQ(chat.talk.find("room").value()->newest, 2U);
  EXPECT_FALSE(chat.talk.find("hall").value());
}

TEST(Conversations, AnAppendWhoseReplyIsLostIsRepeatedUnderItsId) {
  for (const bool is_store : {true, false}) {
    Chat chat({.is_store = is_store});
    chat.script->fail("commit", kLost, 1, true);
    EXPECT_EQ(chat.talk.append("room", text("one", 1)).error().code, ErrorCode::kUnavailable);
    chat.say(1);
    const auto again = chat.talk.append("room", text("one", 1)).value();
    EXPECT_TRUE(again.duplicate);
    EXPECT_EQ(again.sequence, 1U);
    EXPECT_EQ(again.id.bytes[15], 1);
    EXPECT_EQ(chat.fanned_out(), (Copies{"room/1/ann/one", "room/2/ann/hello"}));
  }
}

TEST(Conversations, WithoutATopicNothingIsFannedOut) {
  ConversationsOptions options;
  options.fanout_topic = "";
  Chat chat(with(options));
  chat.say(1);
  EXPECT_TRUE(chat.fanned_out().empty());
  EXPECT_EQ(chat.message(1).payload, "hello");
}

TEST(Conversations, WhatWasTrimmedIsToldByAGap) {
  Chat chat;
  chat.say(3);
  const MessageId first = chat.message(1).id, second = chat.message(2).id;
  EXPECT_FALSE(chat.talk.messages_since("room", 0, 10)->gap);
  MessageId never;
  never.bytes[0] = 9;
  EXPECT_EQ(chat.talk.messages_since("room", never, 10).error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(chat.talk.trim("room", 2).ok());
  for (const auto& page :
       {chat.talk.messages_since("room", 0, 10).value(), chat.talk.messages_since("room", first, 10).value(),
        chat.talk.messages_since("room", never, 10).value()}) {
    ASSERT_TRUE(page.gap);
    EXPECT_EQ(page.gap->oldest, 2U);
    EXPECT_EQ(page.gap->newest, 3U);
    EXPECT_EQ(Chat::sequences(page), (Sequences{2, 3}));
  }
  EXPECT_FALSE(chat.talk.messages_since("room", 1, 10)->gap) << "nothing between is missing";
  EXPECT_FALSE(chat.talk.messages_since("room", second, 10)->gap);
  EXPECT_EQ(Chat::sequences(chat.talk.messages_since("room", second, 10).value()), Sequences{3});
  EXPECT_TRUE(chat.talk.messages_since("hall", 0, 10)->end);
  EXPECT_FALSE(chat.talk.messages_since("hall", 0, 10)->gap);
}

TEST(Conversations, ReconnectGivesWhatIsBehindThePositionUntilItIsAcknowledged) {
  Chat chat;
  chat.say(5);
  chat.say(2, "hall");
  EXPECT_EQ(chat.reconnect(), "") << "a client that was never there";
  ASSERT_TRUE(chat.talk.acknowledge("bob", "phone", "room", 3).ok());
  EXPECT_EQ(chat.reconnect(), "room4 room5 .");
  EXPECT_EQ(chat.reconnect(), "room4 room5 .");
  ASSERT_TRUE(chat.talk.acknowledge("bob", "phone", "room", 5).ok());
  ASSERT_TRUE(chat.talk.acknowledge("bob", "phone", "room", 4).ok());
  EXPECT_EQ(chat.talk.position("bob", "phone", "room").value(), 5U);
  EXPECT_EQ(chat.reconnect(), "");
  EXPECT_EQ(chat.reconnect(100, "desk"), "");
}

TEST(Conversations, WhatAUserMissedIsGivenEvenIfTheReplyOfTheReconnectIsLost) {
  Chat chat;
  chat.say(4);
  for (const std::uint64_t sequence : {3, 2, 3})
    ASSERT_TRUE(chat.talk.note_missed("bob", "room", sequence).ok());
  EXPECT_EQ(chat.missed(), 2U);
  // Not written: everything is as it was.
  chat.script->fail("commit", kLost, 1, false);
  EXPECT_EQ(chat.reconnect(), "ERR_UNAVAILABLE");
  EXPECT_EQ(chat.missed(), 2U);
  // Written, and the reply lost: the counter is gone, and a position stands for it.
  chat.script->fail("commit", kLost, 1, true);
  EXPECT_EQ(chat.reconnect(), "ERR_UNAVAILABLE");
  EXPECT_EQ(chat.missed(), 0U);
  EXPECT_EQ(chat.talk.position("bob", "phone", "room").value(), 1U);
  EXPECT_EQ(chat.reconnect(), "room2 room3 room4 .");
  ASSERT_TRUE(chat.talk.note_missed("bob", "room", 3).ok());
  EXPECT_EQ(chat.missed(), 0U) << "its fan-out came once more";
}

TEST(Conversations, WhatIsCountedWhileAClientReconnectsStaysCounted) {
  Chat chat;
  chat.say(2);
  ASSERT_TRUE(chat.talk.note_missed("bob", "room", 2).ok());
  chat.script->before("commit", [&] {
    chat.script->before("commit", {});
    chat.say(1);
    ASSERT_TRUE(chat.talk.note_missed("bob", "room", 3).ok());
  });
  EXPECT_EQ(chat.reconnect(), "room2 .");
  EXPECT_EQ(chat.missed(), 1U);
  EXPECT_EQ(chat.reconnect(), "room2 room3 .");
  EXPECT_EQ(chat.missed(), 0U);
}

TEST(Conversations, AReconnectGoesOnByItsCursor) {
  Chat chat;
  chat.say(3, "a");
  chat.say(3, "b");
  chat.say(3, "c");
  for (const char* room : {"a", "b", "c"})
    ASSERT_TRUE(chat.talk.acknowledge("bob", "phone", room, 1).ok());
  ASSERT_TRUE(chat.talk.trim("c", 3).ok());
  std::vector<std::string> pages;
  std::string cursor;
  do {
    const auto page = chat.talk.reconnect("bob", "phone", 3, cursor).value();
    pages.push_back(Chat::told(page));
    cursor = page.cursor;
  } while (!cursor.empty());
  EXPECT_EQ(pages, (std::vector<std::string>{"a2 a3 .|b2 +", "b3 .|~3-3 c3 ."}));
  pages.clear();
  do {
    const auto page = chat.talk.reconnect("bob", "phone", 2, cursor).value();
    pages.push_back(Chat::told(page));
    cursor = page.cursor;
  } while (!cursor.empty());
  EXPECT_EQ(pages, (std::vector<std::string>{"a2 a3 .", "b2 b3 .", "~3-3 c3 ."}));
}

TEST(Conversations, AReconnectLooksAtManyConversationsInBoundedSteps) {
  Chat chat;
  constexpr int kRooms = 3000;
  const auto room = [](int i) { return "room-" + std::to_string(10'000 + i) + ":"; };
  for (int i = 0; i < kRooms; ++i) {
    chat.say(2, room(i));
    // In some a position, in some a counter, in some both.
    if (i % 3 != 0) {
      ASSERT_TRUE(chat.talk.acknowledge("bob", "phone", room(i), 1).ok());
    }
    if (i % 3 != 1) {
      ASSERT_TRUE(chat.talk.note_missed("bob", room(i), 2).ok());
    }
  }
  int given = 0, pages = 0;
  std::string cursor;
  do {
    const auto page = chat.talk.reconnect("bob", "phone", 10'000, cursor).value();
    for (const CatchUp& one : page.items) {
      EXPECT_EQ(one.conversation, room(given++));
      EXPECT_EQ(one.messages.size(), 1U);
    }
    EXPECT_LE(page.items.size(), 2048U);
    cursor = page.cursor;
    ++pages;
  } while (!cursor.empty());
  EXPECT_EQ(given, kRooms);
  EXPECT_EQ(pages, 2);
  EXPECT_TRUE(chat.talk.missed("bob", 100, {}).value().items.empty());
}

TEST(Conversations, APageOfAReconnectIsBoundedInBytes) {
  Chat chat;
  const std::string large(1 << 20, 'x');
  chat.say(6, "a", large);
  chat.say(1, "b", large);
  ASSERT_TRUE(chat.talk.note_missed("bob", "a", 1).ok());
  ASSERT_TRUE(chat.talk.note_missed("bob", "b", 1).ok());
  auto page = chat.talk.reconnect("bob", "phone", 100, {}).value();
  EXPECT_EQ(Chat::told(page), "a1 a2 a3 a4 +");
  EXPECT_EQ(chat.missed("b"), 1U) << "it was not taken yet";
  page = chat.talk.reconnect("bob", "phone", 100, page.cursor).value();
  EXPECT_EQ(Chat::told(page), "a5 a6 .|b1 .");
  EXPECT_TRUE(page.cursor.empty());
}

TEST(Conversations, PositionsExpireUnlessTheirClientComesBack) {
  ConversationsOptions options;
  options.client_expiry = 10h;
  Chat chat(with(options));
  chat.say(2);
  ASSERT_TRUE(chat.talk.acknowledge("bob", "phone", "room", 1).ok());
  ASSERT_TRUE(chat.talk.acknowledge("bob", "desk", "room", 1).ok());
  chat.clock->advance(4h);
  EXPECT_EQ(chat.reconnect(), "room2 .");
  EXPECT_EQ(chat.script->count("commit PutClientPosition"), 0) << "nothing to renew yet";
  chat.clock->advance(2h);
  EXPECT_EQ(chat.reconnect(), "room2 .");
  chat.clock->advance(9h);
  EXPECT_EQ(chat.reconnect(), "room2 .");
  EXPECT_EQ(chat.talk.position("bob", "desk", "room").value(), std::nullopt);
  EXPECT_EQ(chat.reconnect(100, "desk"), "");
}

TEST(Conversations, AcknowledgingTakesFromWhatWasMissed) {
  Chat chat;
  chat.say(3);
  for (const std::uint64_t sequence : {1, 2, 3})
    ASSERT_TRUE(chat.talk.note_missed("bob", "room", sequence).ok());
  ASSERT_TRUE(chat.talk.acknowledge("bob", "desk", "room", 2).ok());
  EXPECT_EQ(chat.missed(), 1U);
}

TEST(Conversations, TheOldestGoWhenThereAreATenthTooMany) {
  ConversationsOptions options;
  options.count_max = 20;
  Chat chat(with(options));
  chat.say(21);
  EXPECT_EQ(chat.talk.find("room").value()->oldest, 1U);
  chat.say(1);
  EXPECT_EQ(chat.talk.find("room").value()->oldest, 3U);
  for (int i = 0; i < 100; ++i) {
    chat.say(1);
    const ConversationGap extent = *chat.talk.find("room").value();
    EXPECT_LE(extent.newest - extent.oldest + 1, 22U);
    EXPECT_GE(extent.newest - extent.oldest + 1, 20U);
  }
  EXPECT_EQ(chat.fanned_out().size(), 122U) << "trimming takes nothing from a group";
}

TEST(Conversations, ATrimThatFailsDoesNotFailTheAppend) {
  ConversationsOptions options;
  options.count_max = 10;
  Chat chat(with(options));
  chat.say(10);
  chat.script->refuse_units([](const spi::Unit& unit) {
    return find_write<spi::TrimConversation>(unit) ? std::optional(Error{ErrorCode::kOverloaded, "busy"})
                                                   : std::nullopt;
  });
  EXPECT_EQ(chat.talk.append("room", text("more"))->sequence, 11U);
  chat.script->refuse_units({});
  EXPECT_EQ(chat.talk.find("room").value()->oldest, 1U);
  chat.say(1);
  EXPECT_EQ(chat.talk.find("room").value()->oldest, 3U);
}

TEST(Conversations, LargeMessagesPushTheOldestOutAtOnce) {
  ConversationsOptions options;
  options.bytes_max = 1000;
  Chat chat(with(options));
  chat.say(8, "room", std::string(300, 'x'));
  EXPECT_EQ(chat.talk.find("room").value()->oldest, 6U);
}

TEST(Conversations, SmallMessagesKeepAboutAsManyBytesAsTheyMay) {
  ConversationsOptions options;
  options.bytes_max = 1000;
  Chat chat(with(options));
  for (int i = 0; i < 50; ++i) {
    chat.say(20, "room", std::string(10, 'x'));
    const ConversationGap extent = *chat.talk.find("room").value();
    EXPECT_LE((extent.newest - extent.oldest + 1) * 10, 2000U);
  }
}

TEST(Conversations, TheJanitorTrimsQuietConversations) {
  ConversationsOptions options;
  options.age_max = 1h;
  options.keep_unread = true;
  Chat chat(with(options));
  for (int i = 0; i < 250; ++i)
    chat.say(2, "room-" + std::to_string(i));
  chat.say(1, "room-8");
  ASSERT_TRUE(chat.talk.note_missed("bob", "room-7", 1).ok());
  EXPECT_EQ(chat.reconnect(), "room-71 room-72 .");
  chat.core->step_janitor();
  EXPECT_EQ(chat.talk.find("room-0").value()->oldest, 1U);
  chat.clock->advance(2h);
  for (int i = 0; i < 3; ++i) {
    chat.core->step_janitor();
    if (i < 2) chat.clock->advance(61s);
  }
  EXPECT_EQ(chat.script->count("commit TrimConversation"), 250);
  chat.core->step_janitor();
  EXPECT_EQ(chat.script->count("commit TrimConversation"), 250) << "it rests when it has seen them all";
  for (int i = 0; i < 250; ++i)
    EXPECT_EQ(chat.talk.find("room-" + std::to_string(i)).value()->oldest, i == 7   ? 1U
                                                                           : i == 8 ? 3U
                                                                                    : 2U)
        << i;
}

TEST(Conversations, WhatIsUnreadMayBeKept) {
  ConversationsOptions options;
  options.count_max = 10;
  options.keep_unread = true;
  Chat chat(with(options));
  chat.say(3);
  ASSERT_TRUE(chat.talk.acknowledge("bob", "phone", "room", 2).ok());
  chat.say(30);
  EXPECT_EQ(chat.talk.find("room").value()->oldest, 3U);
  ASSERT_TRUE(chat.talk.trim("room", 20).ok());
  EXPECT_EQ(chat.talk.find("room").value()->oldest, 20U) << "told so";
}

// ---- feed -----------------------------------------------------------------------------------------

TEST(Feed, GivesEachMessageOnceAndInOrderWhateverComesWhen) {
  Chat chat;
  chat.say(9);
  ASSERT_TRUE(chat.talk.acknowledge("bob", "phone", "room", 2).ok());
  Feed feed(chat.core, "bob", "phone");
  EXPECT_EQ(feed.given("room"), std::nullopt);
  const ConversationMessage third = chat.message(3);
  int reads = 0;
  chat.script->before("read_stream", [&] { ++reads; });
  EXPECT_EQ(Chat::sequences(feed.offer(third, 100).value()), Sequences{3});
  EXPECT_EQ(reads, 0) << "the next one is given as it is";
  EXPECT_EQ(Chat::sequences(feed.offer(chat.message(2), 100).value()), Sequences{});
  EXPECT_EQ(Chat::sequences(feed.offer(chat.message(3), 100).value()), Sequences{});
  const ConversationPage some = feed.offer(chat.message(6), 2).value();
  EXPECT_EQ(Chat::sequences(some), (Sequences{4, 5}));
  EXPECT_FALSE(some.end);
  EXPECT_EQ(Chat::sequences(feed.next("room", 100).value()), (Sequences{6, 7, 8, 9}));
  EXPECT_EQ(Chat::sequences(feed.offer(chat.message(8), 100).value()), Sequences{});
  EXPECT_EQ(feed.given("room"), 9U);
  EXPECT_TRUE(feed.next("room", 100)->messages.empty());
  EXPECT_TRUE(feed.next("hall", 100)->end);
}

TEST(Feed, AMessageThatComesLiveBeforeTheReconnectTakesNothingAway) {
  Chat chat;
  chat.say(4);
  ASSERT_TRUE(chat.talk.note_missed("bob", "room", 2).ok());
  Feed feed(chat.core, "bob", "phone");
  EXPECT_EQ(Chat::sequences(feed.offer(chat.message(4), 100).value()), (Sequences{2, 3, 4}));
  const auto page = chat.talk.reconnect("bob", "phone", 100, {}).value();
  for (const ConversationMessage& one : page.items.at(0).messages)
    EXPECT_TRUE(feed.offer(one, 100)->messages.empty());
  Feed fresh(chat.core, "bob", "tablet");
  EXPECT_EQ(Chat::sequences(fresh.offer(chat.message(4), 100).value()), Sequences{4})
      << "nothing is known of it, so it begins here";
}

TEST(Feed, BeginsWhereItIsTold) {
  Chat chat;
  chat.say(5);
  ASSERT_TRUE(chat.talk.acknowledge("bob", "phone", "room", 1).ok());
  Feed feed(chat.core, "bob", "phone");
  ASSERT_TRUE(feed.begin("room", 3).ok());
  ASSERT_TRUE(feed.begin("room", 2).ok());
  EXPECT_EQ(feed.given("room"), 3U);
  EXPECT_EQ(Chat::sequences(feed.offer(chat.message(5), 100).value()), (Sequences{4, 5}));
  EXPECT_EQ(feed.begin("", 1).error().code, ErrorCode::kInvalidName);
}

TEST(Feed, AfterAnErrorNothingCountsAsGiven) {
  Chat chat;
  chat.say(4);
  ASSERT_TRUE(chat.talk.acknowledge("bob", "phone", "room", 1).ok());
  Feed feed(chat.core, "bob", "phone");
  const ConversationMessage last = chat.message(4);
  chat.script->fail("client_positions", kLost);
  EXPECT_EQ(feed.offer(last, 100).error().code, ErrorCode::kUnavailable);
  chat.script->fail("read_stream", kLost);
  EXPECT_EQ(feed.offer(last, 100).error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(Chat::sequences(feed.offer(last, 100).value()), (Sequences{2, 3, 4}));
}

TEST(Feed, AHoleThatWasTrimmedIsAGap) {
  Chat chat;
  chat.say(6);
  ASSERT_TRUE(chat.talk.acknowledge("bob", "phone", "room", 1).ok());
  const ConversationMessage live = chat.message(5);
  ASSERT_TRUE(chat.talk.trim("room", 4).ok());
  Feed feed(chat.core, "bob", "phone");
  const ConversationPage page = feed.offer(live, 100).value();
  ASSERT_TRUE(page.gap);
  EXPECT_EQ(page.gap->oldest, 4U);
  EXPECT_EQ(Chat::sequences(page), (Sequences{4, 5, 6}));
}

TEST(Feed, RefusesWhatCannotBe) {
  Chat chat;
  chat.say(2);
  Feed feed(chat.core, "bob", "phone");
  ConversationMessage message = chat.message(2);
  EXPECT_EQ(feed.offer(message, 0).error().code, ErrorCode::kInvalidArgument);
  ASSERT_TRUE(feed.offer(message, 1).ok());
  message.sequence = 9;
  EXPECT_EQ(feed.offer(message, 1).error().code, ErrorCode::kInvalidArgument) << "not of this store";
  message.sequence = 0;
  EXPECT_EQ(feed.offer(message, 1).error().code, ErrorCode::kInvalidArgument);
  message.conversation = "";
  EXPECT_EQ(feed.offer(message, 1).error().code, ErrorCode::kInvalidName);
  ConversationMessage other = chat.message(1);
  for (int i = 0; i < 9'999; ++i) {
    other.conversation = "other-" + std::to_string(i);
    ASSERT_TRUE(feed.offer(other, 1).ok());
  }
  other.conversation = "one-too-many";
  EXPECT_EQ(feed.offer(other, 1).error().code, ErrorCode::kLimitExceeded);
}

}  // namespace
}  // namespace towline::engine
