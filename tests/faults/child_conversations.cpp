// The modes of conversations: who says something, who counts what a user misses, and a client that reconnects
// again and again. All are killed at any moment and started again.

#include <chrono>
#include <thread>

#include <signal.h>

#include "faults/child.hpp"

namespace towline::faults {
namespace {

using namespace std::chrono_literals;

bool told_to_stop() {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  const timespec none{};
  return ::sigtimedwait(&stop, nullptr, &none) == SIGTERM;
}

MessageId message_id(std::int64_t number) {
  MessageId id;
  for (std::size_t i = 0; i < 8; ++i)
    id.bytes[15 - i] = static_cast<std::uint8_t>(static_cast<std::uint64_t>(number + 1) >> (8 * i));
  return id;
}

}  // namespace

/// Appends the numbers from `from` to `to`, each under its id, so a later life repeats the append that its
/// predecessor died in.
int run_talker(const Orders& orders) {
  Notebook notes(orders.folder, orders.name);
  Engine engine = open_engine(orders);
  Conversations talk = engine.conversations();
  const std::int64_t to = orders.number("to", 0);
  const std::int64_t room_count = orders.number("rooms", 3);
  say("ready");
  for (std::int64_t number = orders.number("from", 0); number < to && !told_to_stop(); ++number) {
    NewConversationMessage message;
    message.sender = orders.name;
    message.payload = std::to_string(number);
    message.id = message_id(number);
    const auto appended = talk.append("room-" + std::to_string(number % room_count), message).value();
    notes.note(appended.duplicate ? "repeated" : "said", number);
    notes.note("next", number + 1);
  }
  return engine.close().ok() ? 0 : 3;
}

/// Counts each copy as missed by bob, whom nobody has seen.
int run_service(const Orders& orders) {
  Engine engine = open_engine(orders);
  ConsumerOptions options = member_options(orders);
  options.group = "service";
  options.order = Order::kKeyOrdered;
  Consumer consumer =
      engine
          .consume("conversations", options,
                   [&](Delivery& delivery) {
                     const auto copy = conversation_message(delivery).value();
                     engine.conversations().note_missed("bob", copy.conversation, copy.sequence).value();
                   })
          .value();
  say("ready");
  wait_for_term();
  return engine.close(5s).value() == 0 ? 0 : 3;
}

/// Notes each message that bob's phone is given, and then acknowledges it, now and then.
int run_client(const Orders& orders) {
  Notebook notes(orders.folder, orders.name);
  Engine engine = open_engine(orders);
  Conversations talk = engine.conversations();
  ConversationFeed feed = talk.feed("bob", "phone").value();
  say("ready");
  while (!told_to_stop()) {
    std::string cursor;
    do {
      const auto page = talk.reconnect("bob", "phone", 7, cursor).value();
      for (const CatchUp& one : page.items) {
        for (const ConversationMessage& message : one.messages) {
          for (const ConversationMessage& given : feed.offer(message).value().messages) {
            notes.note("got", static_cast<std::int64_t>(given.sequence), given.conversation);
            if (given.sequence % 3 != 0) continue;
            notes.note("acknowledges", static_cast<std::int64_t>(given.sequence), given.conversation);
            talk.acknowledge("bob", "phone", given.conversation, given.sequence).value();
          }
        }
      }
      cursor = page.cursor;
    } while (!cursor.empty());
    std::this_thread::sleep_for(2ms);  // sleeps: what a client does between two connections
  }
  return engine.close(5s).value() == 0 ? 0 : 3;
}

}  // namespace towline::faults
