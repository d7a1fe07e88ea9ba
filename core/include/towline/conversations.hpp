#pragma once
// Conversations: streams of messages that clients read, who come and go.
//
// Each conversation numbers its messages 1, 2, 3, ... without gaps. What a client has read is kept as a
// position, so a client that was away gets exactly what it missed, in order. A copy of each message goes to
// one topic (option `conversations.fanout_topic`), which the processes that serve clients consume; a copy, so
// trimming a conversation takes nothing from a group that has not read it yet.
//
// A process that serves clients does three things. It consumes the fan-out topic, and for each message either
// offers it to the feeds of the clients that are connected to it, or counts it as missed. When a client
// connects it makes a feed and gives it what reconnect() finds. When a client says that it has seen a message
// it calls acknowledge(); nothing else moves a position, so whatever dies on the way, nothing is lost.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <towline/consumer.hpp>
#include <towline/event_store.hpp>
#include <towline/message.hpp>
#include <towline/options.hpp>
#include <towline/result.hpp>

namespace towline {

namespace engine {
class Core;
class Feed;
}  // namespace engine

/// A message to append to a conversation.
struct NewConversationMessage {
  /// 1..255 bytes of visible ASCII. Errors: kInvalidName.
  std::string sender;
  Bytes payload;
  std::string content_type = {};
  /// As those of a message.
  Headers headers = {};
  /// Appending again under the same id changes nothing, as long as the message was not trimmed. Empty: the
  /// engine makes a new one.
  MessageId id = {};
};

/// A message of a conversation. Never changes.
struct ConversationMessage {
  std::string conversation;
  std::uint64_t sequence = 0;  ///< in its conversation, from 1, without gaps
  MessageId id;
  std::string sender;
  Bytes payload;
  std::string content_type;
  Headers headers;
  TimePoint sent_at{};  ///< the engine's clock; says nothing about order
};

/// What an append came to.
struct AppendedMessage {
  std::uint64_t sequence = 0;
  MessageId id;
  /// True when it was there already, and nothing was changed or fanned out: the sequence is that of the
  /// first time.
  bool duplicate = false;
};

/// Some of what was asked for was trimmed. There are messages from `oldest` to `newest`, which are included.
struct ConversationGap {
  std::uint64_t oldest = 0;
  std::uint64_t newest = 0;
};

/// Messages in a row.
struct ConversationPage {
  std::vector<ConversationMessage> messages;
  bool end = false;                    ///< nothing more is there now
  std::optional<ConversationGap> gap;  ///< between what was asked for and the first of `messages`
};

/// What a client missed of one conversation.
struct CatchUp {
  std::string conversation;
  std::vector<ConversationMessage> messages;  ///< in a row; never empty
  bool end = false;                           ///< false: the next page goes on with this conversation
  std::optional<ConversationGap> gap;         ///< before the first of `messages`
};

/// What a user missed of one conversation while no client of the user was there.
struct MissedConversation {
  std::string conversation;
  std::uint64_t count = 0;
  std::uint64_t first_sequence = 0;
  std::uint64_t last_sequence = 0;
};

/// What one client gets, of everything that comes on any path: each message once, and in order. A message
/// that is not the next is not an error: one that was given before is passed over, and what lies between is
/// read from the store first. So what reconnect() found and what comes live can both be offered, from where
/// they are, and nothing is given twice.
///
/// It begins a conversation behind the position of its client; without one behind what the user missed; and
/// where nothing is known of either, with the first message that is offered. It remembers one number for each
/// of at most 10,000 conversations. Thread-safe, but whoever offers from several threads has to hand on the
/// answers in the order of the calls. Copies share it. It keeps the engine open.
class ConversationFeed {
 public:
  ConversationFeed() = default;

  /// What the client is to get now: empty when it had this message. At most `count_max` [1, 10000] messages
  /// come at once; while not `end`, ask for more with next(). After an error nothing counts as given: offer
  /// the message again. Errors: kInvalidName, kInvalidArgument (a message without a sequence), kLimitExceeded
  /// (conversations), those of the store.
  Result<ConversationPage> offer(const ConversationMessage& message, std::size_t count_max = 100);
  /// What is in the store behind what was given of a conversation. Errors: as offer().
  Result<ConversationPage> next(std::string_view conversation, std::size_t count_max = 100);
  /// The client has everything up to this sequence, so it gets what is behind it. It moves only forward.
  /// Errors: kInvalidName, kLimitExceeded.
  Result<void> begin(std::string_view conversation, std::uint64_t sequence);
  /// The last sequence that was given of a conversation; nullopt: nothing is known of it yet.
  [[nodiscard]] std::optional<std::uint64_t> given(std::string_view conversation) const;

 private:
  friend class Conversations;
  explicit ConversationFeed(std::shared_ptr<engine::Feed> feed) : feed_(std::move(feed)) {}
  std::shared_ptr<engine::Feed> feed_;
};

/// The conversations of an engine. A handle, as Engine is; got by Engine::conversations(). Thread-safe; every
/// call answers kClosed after Engine::close(). The names of conversations, users and clients have 1..255
/// bytes of visible ASCII: kInvalidName. A conversation is made by its first message. Reads give at most 4
/// MiB of payloads at once. Errors that every call may give besides those named: kUnavailable, kTimeout,
/// kIoError; after those of a write it is unknown whether it happened, and repeating it does no harm.
class Conversations {
 public:
  Conversations() = default;

  /// Numbers the message, keeps it, and fans it out, all or nothing. The copy has the id of the message, the
  /// conversation as its key, and the headers towline-conversation, towline-sequence and towline-sender.
  /// Where the provider is not its own store it goes through the schedule. An append whose outcome is unknown
  /// may be repeated with the same id. Errors: kInvalidHeader, kPayloadTooLarge, kStorageFull, kConflict
  /// (with an id of the caller's: a delayed message has it).
  Result<AppendedMessage> append(std::string_view conversation, NewConversationMessage message);
  /// Messages behind a sequence, which is not included; 0: from the beginning. `count_max` [1, 10000].
  /// Errors: kInvalidArgument (the conversation has not come that far: whoever asks has seen another one).
  Result<ConversationPage> messages_since(std::string_view conversation, std::uint64_t after_sequence = 0,
                                          std::size_t count_max = 100);
  /// The same behind a message that is known by its id. One that is not there counts as trimmed, and gives a
  /// gap, once something was trimmed. Errors: kNotFound (nothing was, so it was never there).
  Result<ConversationPage> messages_since(std::string_view conversation, const MessageId& after,
                                          std::size_t count_max = 100);
  /// The sequences there are; nullopt: no such conversation.
  Result<std::optional<ConversationGap>> find(std::string_view conversation);

  /// The client has seen everything up to this sequence, which is kept for `client_expiry` from then on. It
  /// moves only forward: a smaller sequence changes nothing, whoever comes first. What the user missed up to
  /// here is not counted as missed any more. Errors: kInvalidArgument (0, or there is no such message yet).
  Result<void> acknowledge(std::string_view user, std::string_view client, std::string_view conversation,
                           std::uint64_t sequence);
  /// The last sequence that was acknowledged; nullopt: none, or it expired.
  Result<std::optional<std::uint64_t>> position(std::string_view user, std::string_view client,
                                                std::string_view conversation);
  /// Counts a message that came while no client of the user was there. A message counts once, however often
  /// it is noted; out of order it does so within 64 of the last. Errors: kInvalidArgument (0).
  Result<void> note_missed(std::string_view user, std::string_view conversation, std::uint64_t sequence);
  /// By conversation; gone `missed_expiry` after the last message was noted. `count_max` [1, 1000].
  Result<Page<MissedConversation>> missed(std::string_view user, std::size_t count_max = 100,
                                          std::string_view cursor = {});
  /// What a client missed: of conversations that it has a position in, what is behind it; of others where its
  /// user missed something, from the first of it on. By conversation, at most `count_max` [1, 10000]
  /// messages; with a cursor, call again with it for what follows (a page may be empty and have one). What is
  /// returned is not counted as missed any more. It is not acknowledged: until it is, a reconnect gives it
  /// again, since a client whose first position comes from what its user missed gets one before that. Errors:
  /// kInvalidCursor.
  Result<Page<CatchUp>> reconnect(std::string_view user, std::string_view client, std::size_t count_max = 100,
                                  std::string_view cursor = {});
  /// For one connection of a client.
  Result<ConversationFeed> feed(std::string_view user, std::string_view client);

  /// Removes messages before a sequence, whether they were read or not; the newest one stays. Whoever still
  /// asks for them is told so by a gap. Errors: kNotFound.
  Result<void> trim(std::string_view conversation, std::uint64_t before_sequence);

 private:
  friend class Engine;
  explicit Conversations(std::shared_ptr<engine::Core> core) : core_(std::move(core)) {}
  std::shared_ptr<engine::Core> core_;
};

/// The message that a delivery of the fan-out topic is a copy of. Errors: kInvalidArgument (it is none).
[[nodiscard]] Result<ConversationMessage> conversation_message(const Delivery& delivery);

}  // namespace towline
