// The calls of conversations; as in calls.cpp.

#include "binding.hpp"

namespace towline::node {
namespace {

using Info = const Napi::CallbackInfo&;

std::size_t count_max_from(const Napi::Value& value) {
  return static_cast<std::size_t>(whole_from(value, "countMax", 0, 1'000'000));
}

void append_message(Port& port, Info info) {
  run(port, info[0],
      [conversation = text_from(info[1], "conversation"), message = new_conversation_message_from(info[2])](
          Engine& engine) { return engine.conversations().append(conversation, message); });
}

void messages_since(Port& port, Info info) {
  run(port, info[0],
      [conversation = text_from(info[1], "conversation"), after = place_from(info[2], "after"),
       count_max = count_max_from(info[3])](Engine& engine) {
        return engine.conversations().messages_since(conversation, after, count_max);
      });
}

void messages_since_id(Port& port, Info info) {
  run(port, info[0],
      [conversation = text_from(info[1], "conversation"), after = id_from(info[2]),
       count_max = count_max_from(info[3])](Engine& engine) {
        return engine.conversations().messages_since(conversation, after, count_max);
      });
}

void find_conversation(Port& port, Info info) {
  run(port, info[0], [conversation = text_from(info[1], "conversation")](Engine& engine) {
    return engine.conversations().find(conversation);
  });
}

void trim_conversation(Port& port, Info info) {
  run(port, info[0],
      [conversation = text_from(info[1], "conversation"), before = place_from(info[2], "beforeSequence")](
          Engine& engine) { return engine.conversations().trim(conversation, before); });
}

void acknowledge_message(Port& port, Info info) {
  run(port, info[0],
      [user = text_from(info[1], "user"), client = text_from(info[2], "client"),
       conversation = text_from(info[3], "conversation"),
       sequence = place_from(info[4], "sequence")](Engine& engine) {
        return engine.conversations().acknowledge(user, client, conversation, sequence);
      });
}

void client_position(Port& port, Info info) {
  run(port, info[0],
      [user = text_from(info[1], "user"), client = text_from(info[2], "client"),
       conversation = text_from(info[3], "conversation")](Engine& engine) {
        return engine.conversations().position(user, client, conversation);
      });
}

void note_missed(Port& port, Info info) {
  run(port, info[0],
      [user = text_from(info[1], "user"), conversation = text_from(info[2], "conversation"),
       sequence = place_from(info[3], "sequence")](Engine& engine) {
        return engine.conversations().note_missed(user, conversation, sequence);
      });
}

void missed_messages(Port& port, Info info) {
  run(port, info[0],
      [user = text_from(info[1], "user"), count_max = count_max_from(info[2]),
       cursor = text_from(info[3], "cursor")](Engine& engine) {
        return engine.conversations().missed(user, count_max, cursor);
      });
}

void reconnect_client(Port& port, Info info) {
  run(port, info[0],
      [user = text_from(info[1], "user"), client = text_from(info[2], "client"),
       count_max = count_max_from(info[3]), cursor = text_from(info[4], "cursor")](Engine& engine) {
        return engine.conversations().reconnect(user, client, count_max, cursor);
      });
}

/// The feed itself is kept by JavaScript, as numbers, so that what was not handed over was not given.
Result<FedMessages> ask(Engine& engine, const std::string& user, const std::string& client,
                        const ConversationMessage& offered, std::optional<std::uint64_t> given,
                        std::size_t count_max) {
  auto feed = engine.conversations().feed(user, client);
  if (!feed) return std::move(feed).error();
  const std::string& conversation = offered.conversation;
  if (given) {
    if (auto bad = feed->begin(conversation, *given); !bad) return std::move(bad).error();
  }
  auto page = offered.sequence == 0 ? feed->next(conversation, count_max) : feed->offer(offered, count_max);
  if (!page) return std::move(page).error();
  return FedMessages{std::move(*page), feed->given(conversation)};
}

/// Of what is offered its sequence; 0: whatever is next.
void ask_feed(Port& port, Info info) {
  ConversationMessage offered;
  offered.conversation = text_from(info[3], "conversation");
  offered.sequence = place_from(info[4], "sequence");
  run(port, info[0],
      [user = text_from(info[1], "user"), client = text_from(info[2], "client"), offered,
       given = optional_place_from(info[5], "given"), count_max = count_max_from(info[6])](Engine& engine) {
        return ask(engine, user, client, offered, given, count_max);
      });
}

}  // namespace

std::vector<Call> conversation_calls() {
  return {{"appendMessage", append_message},
          {"messagesSince", messages_since},
          {"messagesSinceId", messages_since_id},
          {"findConversation", find_conversation},
          {"trimConversation", trim_conversation},
          {"acknowledgeMessage", acknowledge_message},
          {"clientPosition", client_position},
          {"noteMissed", note_missed},
          {"missedMessages", missed_messages},
          {"reconnectClient", reconnect_client},
          {"askFeed", ask_feed}};
}

}  // namespace towline::node
