// The public handles Conversations and ConversationFeed hand on to the station.

#include <charconv>
#include <utility>

#include <towline/engine.hpp>

#include "base/validate.hpp"
#include "engine/conversations.hpp"
#include "engine/core.hpp"

namespace towline {
namespace {

Error not_open() {
  return Error{ErrorCode::kClosed, "this handle holds no engine; use Engine::conversations()"};
}

Error no_feed() { return Error{ErrorCode::kClosed, "this handle holds no feed; use Conversations::feed"}; }

constexpr std::string_view kConversation = "towline-conversation";
constexpr std::string_view kSequence = "towline-sequence";
constexpr std::string_view kSender = "towline-sender";

}  // namespace

#define TOWLINE_REQUIRE_CORE()             \
  if (core_ == nullptr) return not_open(); \
  if (auto open = core_->context().check_open(); !open) return std::move(open).error()

Conversations Engine::conversations() const { return Conversations(core_); }

Result<AppendedMessage> Conversations::append(std::string_view conversation, NewConversationMessage message) {
  TOWLINE_REQUIRE_CORE();
  return core_->conversations().append(conversation, std::move(message));
}

Result<ConversationPage> Conversations::messages_since(std::string_view conversation,
                                                       std::uint64_t after_sequence, std::size_t count_max) {
  TOWLINE_REQUIRE_CORE();
  return core_->conversations().messages_since(conversation, after_sequence, count_max);
}

Result<ConversationPage> Conversations::messages_since(std::string_view conversation, const MessageId& after,
                                                       std::size_t count_max) {
  TOWLINE_REQUIRE_CORE();
  return core_->conversations().messages_since(conversation, after, count_max);
}

Result<std::optional<ConversationGap>> Conversations::find(std::string_view conversation) {
  TOWLINE_REQUIRE_CORE();
  return core_->conversations().find(conversation);
}

Result<void> Conversations::acknowledge(std::string_view user, std::string_view client,
                                        std::string_view conversation, std::uint64_t sequence) {
  TOWLINE_REQUIRE_CORE();
  return core_->conversations().acknowledge(user, client, conversation, sequence);
}

Result<std::optional<std::uint64_t>> Conversations::position(std::string_view user, std::string_view client,
                                                             std::string_view conversation) {
  TOWLINE_REQUIRE_CORE();
  return core_->conversations().position(user, client, conversation);
}

Result<void> Conversations::note_missed(std::string_view user, std::string_view conversation,
                                        std::uint64_t sequence) {
  TOWLINE_REQUIRE_CORE();
  return core_->conversations().note_missed(user, conversation, sequence);
}

Result<Page<MissedConversation>> Conversations::missed(std::string_view user, std::size_t count_max,
                                                       std::string_view cursor) {
  TOWLINE_REQUIRE_CORE();
  return core_->conversations().missed(user, count_max, cursor);
}

Result<Page<CatchUp>> Conversations::reconnect(std::string_view user, std::string_view client,
                                               std::size_t count_max, std::string_view cursor) {
  TOWLINE_REQUIRE_CORE();
  return core_->conversations().reconnect(user, client, count_max, cursor);
}

Result<ConversationFeed> Conversations::feed(std::string_view user, std::string_view client) {
  TOWLINE_REQUIRE_CORE();
  for (const auto& [name, field] : {std::pair(user, "user"), std::pair(client, "client")}) {
    if (auto bad = base::check_id(name, field); !bad)
      return Error{ErrorCode::kInvalidName, std::move(bad).error().message};
  }
  return ConversationFeed(std::make_shared<engine::Feed>(core_, std::string(user), std::string(client)));
}

Result<void> Conversations::trim(std::string_view conversation, std::uint64_t before_sequence) {
  TOWLINE_REQUIRE_CORE();
  return core_->conversations().trim(conversation, before_sequence);
}

Result<ConversationMessage> conversation_message(const Delivery& delivery) {
  const auto conversation = delivery.header(kConversation);
  const auto sequence = delivery.header(kSequence);
  const auto sender = delivery.header(kSender);
  ConversationMessage message;
  bool whole = false;
  if (sequence) {
    const auto [end, bad] =
        std::from_chars(sequence->data(), sequence->data() + sequence->size(), message.sequence);
    whole = bad == std::errc{} && end == sequence->data() + sequence->size() && message.sequence > 0;
  }
  if (!conversation || !sender || !whole) {
    return Error{ErrorCode::kInvalidArgument,
                 "message " + delivery.id().to_string() +
                     " is no copy of a message of a conversation: it lacks the headers towline-conversation, "
                     "towline-sequence and towline-sender"};
  }
  message.conversation = *conversation;
  message.sender = *sender;
  message.id = delivery.id();
  message.payload = delivery.payload();
  message.content_type = delivery.content_type();
  for (const auto& header : delivery.headers()) {
    const bool ours = header.first == kConversation || header.first == kSequence || header.first == kSender;
    if (!ours) message.headers.push_back(header);
  }
  message.sent_at = delivery.published_at();
  return message;
}

// ---- ConversationFeed ---------------------------------------------------------------------------

Result<ConversationPage> ConversationFeed::offer(const ConversationMessage& message, std::size_t count_max) {
  if (feed_ == nullptr) return no_feed();
  return feed_->offer(message, count_max);
}

Result<ConversationPage> ConversationFeed::next(std::string_view conversation, std::size_t count_max) {
  if (feed_ == nullptr) return no_feed();
  return feed_->next(conversation, count_max);
}

Result<void> ConversationFeed::begin(std::string_view conversation, std::uint64_t sequence) {
  if (feed_ == nullptr) return no_feed();
  return feed_->begin(conversation, sequence);
}

std::optional<std::uint64_t> ConversationFeed::given(std::string_view conversation) const {
  return feed_ == nullptr ? std::nullopt : feed_->given(conversation);
}

}  // namespace towline
