#pragma once
// Conversations: appends messages with their copies, reads what clients missed, and trims. Whatever a store
// does in one unit is decided there; what is decided here first is read, and holds whoever comes between.

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <towline/conversations.hpp>
#include <towline/spi/store.hpp>

#include "engine/context.hpp"
#include "engine/publisher.hpp"

namespace towline::engine {

class Core;

/// Any thread, except where a member says otherwise.
class Conversations {
 public:
  Conversations(std::shared_ptr<Context> context, Publisher& publisher)
      : context_(std::move(context)), publisher_(publisher) {}

  [[nodiscard]] Result<AppendedMessage> append(std::string_view conversation, NewConversationMessage message);
  [[nodiscard]] Result<ConversationPage> messages_since(std::string_view conversation,
                                                        std::uint64_t after_sequence, std::size_t count_max);
  [[nodiscard]] Result<ConversationPage> messages_since(std::string_view conversation, const MessageId& after,
                                                        std::size_t count_max);
  [[nodiscard]] Result<std::optional<ConversationGap>> find(std::string_view conversation);
  Result<void> acknowledge(std::string_view user, std::string_view client, std::string_view conversation,
                           std::uint64_t sequence);
  [[nodiscard]] Result<std::optional<std::uint64_t>> position(std::string_view user, std::string_view client,
                                                              std::string_view conversation);
  Result<void> note_missed(std::string_view user, std::string_view conversation, std::uint64_t sequence);
  [[nodiscard]] Result<Page<MissedConversation>> missed(std::string_view user, std::size_t count_max,
                                                        std::string_view cursor);
  [[nodiscard]] Result<Page<CatchUp>> reconnect(std::string_view user, std::string_view client,
                                                std::size_t count_max, std::string_view cursor);
  Result<void> trim(std::string_view conversation, std::uint64_t before_sequence);

  /// Behind which sequence a client begins; nullopt: nothing is known of it here.
  [[nodiscard]] Result<std::optional<std::uint64_t>> beginning(const std::string& user,
                                                               const std::string& client,
                                                               std::string_view conversation);
  /// The janitor's part: looks at some conversations, and at the next ones next time. One thread.
  void trim_some();

 private:
  class CatchingUp;

  [[nodiscard]] Result<void> commit(spi::Unit unit);
  /// kInvalidArgument unless the conversation has such a message or had it.
  [[nodiscard]] Result<void> check_sequence(std::string_view conversation, std::uint64_t sequence);
  /// The sequences there are; 0 and 0: no such conversation.
  [[nodiscard]] Result<ConversationGap> extent(std::string_view conversation);
  [[nodiscard]] spi::TrimConversation by_options(std::string_view conversation) const;
  void trim_after(std::string_view conversation, const AppendedMessage& appended, std::size_t bytes);
  [[nodiscard]] Result<bool> wants_trim(const StreamInfo& conversation);

  const std::shared_ptr<Context> context_;
  Publisher& publisher_;
  std::string looked_at_;  ///< of trim_some()
  MonotonicTime rests_until_{};
};

/// Any thread.
class Feed {
 public:
  Feed(std::shared_ptr<Core> core, std::string user, std::string client)
      : core_(std::move(core)), user_(std::move(user)), client_(std::move(client)) {}

  [[nodiscard]] Result<ConversationPage> offer(const ConversationMessage& message, std::size_t count_max);
  [[nodiscard]] Result<ConversationPage> next(std::string_view conversation, std::size_t count_max);
  [[nodiscard]] Result<void> begin(std::string_view conversation, std::uint64_t sequence);
  [[nodiscard]] std::optional<std::uint64_t> given(std::string_view conversation) const;

 private:
  /// The number for a conversation, from what is known of the client; `otherwise` where nothing is.
  [[nodiscard]] Result<std::uint64_t*> place(std::string_view conversation,
                                             std::optional<std::uint64_t> otherwise);
  [[nodiscard]] Result<std::uint64_t*> remember(std::string_view conversation, std::uint64_t sequence);
  [[nodiscard]] Result<ConversationPage> fill(std::string_view conversation, std::uint64_t& given,
                                              std::size_t count_max);

  const std::shared_ptr<Core> core_;
  const std::string user_;
  const std::string client_;
  mutable std::mutex mutex_;
  std::map<std::string, std::uint64_t, std::less<>> given_;
};

}  // namespace towline::engine
