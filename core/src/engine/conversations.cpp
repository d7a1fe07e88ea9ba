// What a client missed begins behind its position, which only the client moves. So everything here may fail
// or be repeated at any point: at worst a client is given again what it has not acknowledged.

#include "engine/conversations.hpp"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/random.hpp"
#include "base/text.hpp"
#include "base/validate.hpp"
#include "engine/core.hpp"
#include "engine/events.hpp"

namespace towline::engine {
namespace {

constexpr std::size_t kReadCountMax = 10'000;
constexpr std::size_t kListCountMax = 1'000;
constexpr std::size_t kPageBytesMax = 4 << 20;
/// Conversations of a client that are read at once, and those that one reconnect() looks at.
constexpr std::size_t kLookCount = 256;
constexpr std::size_t kLooksMax = 4;
/// Conversations that the janitor looks at in one step.
constexpr std::size_t kTrimCount = 100;
/// How long it rests when it has seen them all. Number and bytes are kept by those who append.
constexpr Duration kTrimRest = std::chrono::seconds(60);
constexpr std::size_t kFeedMax = 10'000;

/// What it names is a name, not an id.
Result<void> check_named(std::string_view name, std::string_view field) {
  if (auto bad = base::check_id(name, field); !bad) {
    Error error = std::move(bad).error();
    error.code = ErrorCode::kInvalidName;
    return error;
  }
  return {};
}

Result<void> check_client(std::string_view user, std::string_view client) {
  if (auto bad = check_named(user, "user"); !bad) return bad;
  return check_named(client, "client");
}

Result<void> check_count(std::size_t count, std::size_t max) {
  if (count >= 1 && count <= max) return {};
  return Error{ErrorCode::kInvalidArgument,
               "count_max is " + std::to_string(count) + ", but must be in [1, " + std::to_string(max) + "]"};
}

/// The least name behind this one: names have no byte before '!'.
std::string behind(std::string_view name) { return std::string(name) + '!'; }

ConversationMessage message_of(RecordedEvent&& event) {
  ConversationMessage message;
  message.conversation = std::move(event.stream);
  message.sequence = event.version;
  message.id = event.id;
  message.sender = std::move(event.type);
  message.payload = std::move(event.payload);
  message.content_type = std::move(event.content_type);
  message.headers = std::move(event.headers);
  message.sent_at = event.recorded_at;
  return message;
}

/// `after`: behind which sequence was asked; nullopt: behind one that is not there any more.
ConversationPage page_of(spi::StreamSlice&& slice, std::optional<std::uint64_t> after) {
  ConversationPage page;
  page.messages.reserve(slice.events.size());
  for (RecordedEvent& event : slice.events)
    page.messages.push_back(message_of(std::move(event)));
  page.end = slice.end;
  if (!after || slice.oldest_version > *after + 1)
    page.gap = ConversationGap{slice.oldest_version, slice.newest_version};
  return page;
}

spi::StreamRead reading(std::string_view conversation, std::size_t count_max) {
  spi::StreamRead read;
  read.space = spi::StreamSpace::kConversations;
  read.stream = std::string(conversation);
  read.count_max = count_max;
  read.payload_bytes_max = kPageBytesMax;
  return read;
}

Error not_so_far(std::string_view conversation, std::string_view field, std::uint64_t sequence,
                 std::uint64_t newest) {
  return {ErrorCode::kInvalidArgument, std::string(field) + " is " + std::to_string(sequence) +
                                           ", but the newest message of conversation " +
                                           base::escape(conversation, 64) + " is " + std::to_string(newest) +
                                           "; whoever has that number has it from another conversation"};
}

/// Where a page of reconnect() begins.
struct Place {
  std::string from;         ///< a conversation
  std::uint64_t after = 0;  ///< a sequence of it

  [[nodiscard]] std::string cursor() const { return std::to_string(after) + ":" + from; }
  static Result<Place> parse(std::string_view cursor) {
    Place place;
    if (cursor.empty()) return place;
    const auto colon = cursor.find(':');
    const auto digits = cursor.substr(0, std::min(colon, cursor.size()));
    const auto [end, bad] = std::from_chars(digits.data(), digits.data() + digits.size(), place.after);
    const bool whole = bad == std::errc{} && end == digits.data() + digits.size();
    if (colon != std::string_view::npos && whole) {
      place.from = std::string(cursor.substr(colon + 1));
      // One more byte than a name: what follows the longest one.
      if (!place.from.empty() && check_named(std::string_view(place.from).substr(0, 255), "cursor") &&
          place.from.size() <= 256)
        return place;
    }
    return Error{ErrorCode::kInvalidCursor,
                 "cursor " + base::escape(cursor, 64) + " is not one that reconnect gave; begin without one"};
  }
};

}  // namespace

// ---- append and read ------------------------------------------------------------------------------

Result<void> Conversations::commit(spi::Unit unit) {
  auto done = context_->store->commit({&unit, 1});
  if (!done) return std::move(done).error();
  return done->empty() ? Result<void>{} : std::move(done->front());
}

Result<AppendedMessage> Conversations::append(std::string_view conversation, NewConversationMessage message) {
  if (auto bad = check_named(conversation, "conversation"); !bad) return std::move(bad).error();
  if (auto bad = check_named(message.sender, "sender"); !bad) return std::move(bad).error();
  if (auto bad = base::check_content_type(message.content_type); !bad) return std::move(bad).error();
  if (auto bad = base::check_headers(message.headers); !bad) return std::move(bad).error();
  const auto bytes_max = static_cast<std::size_t>(context_->options.payload_bytes_max);
  if (message.payload.size() > bytes_max) {
    return Error{ErrorCode::kPayloadTooLarge,
                 "the payload of a message has " + std::to_string(message.payload.size()) +
                     " bytes, but payload_bytes_max is " + std::to_string(bytes_max)};
  }
  const TimePoint now = context_->clock->now();
  const std::size_t bytes = message.payload.size();
  spi::AppendEvents write;
  write.space = spi::StreamSpace::kConversations;
  write.stream = std::string(conversation);
  RecordedEvent& event = write.events.emplace_back();
  event.id = message.id.empty() ? context_->make_id(now) : message.id;
  event.type = std::move(message.sender);
  event.payload = std::move(message.payload);
  event.content_type = std::move(message.content_type);
  event.headers = std::move(message.headers);
  event.recorded_at = now;
  const std::string& topic = context_->options.conversations.fanout_topic;
  if (!topic.empty()) {
    auto copy = publisher_.as_copy(conversation, event, topic);
    if (!copy) return std::move(copy).error();
    write.copies.push_back(std::move(*copy));
    if (!context_->capabilities.is_store) write.copies_due_at = now;
  }
  AppendedMessage result;
  result.id = event.id;
  Appended appended;
  write.appended = &appended;
  if (auto done = commit({{std::move(write)}}); !done) return std::move(done).error();
  result.sequence = appended.first_version;
  result.duplicate = appended.duplicate;
  if (!result.duplicate) trim_after(conversation, result, bytes);
  return result;
}

Result<ConversationPage> Conversations::messages_since(std::string_view conversation,
                                                       std::uint64_t after_sequence, std::size_t count_max) {
  if (auto bad = check_named(conversation, "conversation"); !bad) return std::move(bad).error();
  if (auto bad = check_count(count_max, kReadCountMax); !bad) return std::move(bad).error();
  spi::StreamRead read = reading(conversation, count_max);
  read.from = after_sequence == UINT64_MAX ? after_sequence : after_sequence + 1;
  auto slice = context_->store->read_stream(read);
  if (!slice) return std::move(slice).error();
  if (after_sequence > slice->newest_version)
    return not_so_far(conversation, "after_sequence", after_sequence, slice->newest_version);
  return page_of(std::move(*slice), after_sequence);
}

Result<ConversationPage> Conversations::messages_since(std::string_view conversation, const MessageId& after,
                                                       std::size_t count_max) {
  if (after.empty()) return messages_since(conversation, 0, count_max);
  if (auto bad = check_named(conversation, "conversation"); !bad) return std::move(bad).error();
  if (auto bad = check_count(count_max, kReadCountMax); !bad) return std::move(bad).error();
  spi::StreamRead read = reading(conversation, count_max);
  read.after_id = after;
  auto slice = context_->store->read_stream(read);
  // Behind a message that is there nothing is missing: what is trimmed is before all that stays.
  if (slice) return page_of(std::move(*slice), slice->newest_version);
  if (slice.error().code != ErrorCode::kNotFound) return std::move(slice).error();
  Error unknown = std::move(slice).error();
  read.after_id = {};
  slice = context_->store->read_stream(read);
  if (!slice) return std::move(slice).error();
  if (slice->oldest_version <= 1) return unknown;
  return page_of(std::move(*slice), std::nullopt);
}

Result<ConversationGap> Conversations::extent(std::string_view conversation) {
  spi::StreamRead read = reading(conversation, 1);
  read.from = UINT64_MAX;  // no message is read
  auto slice = context_->store->read_stream(read);
  if (!slice) return std::move(slice).error();
  return ConversationGap{slice->oldest_version, slice->newest_version};
}

Result<std::optional<ConversationGap>> Conversations::find(std::string_view conversation) {
  if (auto bad = check_named(conversation, "conversation"); !bad) return std::move(bad).error();
  auto found = extent(conversation);
  if (!found) return std::move(found).error();
  return found->newest == 0 ? std::optional<ConversationGap>() : std::optional(*found);
}

// ---- what clients have read -----------------------------------------------------------------------

Result<void> Conversations::check_sequence(std::string_view conversation, std::uint64_t sequence) {
  if (auto bad = check_named(conversation, "conversation"); !bad) return bad;
  if (sequence == 0)
    return Error{ErrorCode::kInvalidArgument, "sequence is 0, but messages are numbered from 1"};
  auto found = extent(conversation);
  if (!found) return std::move(found).error();
  // What is there now stays there or is trimmed: a conversation never gets shorter at this end.
  if (sequence > found->newest) return not_so_far(conversation, "sequence", sequence, found->newest);
  return {};
}

Result<void> Conversations::acknowledge(std::string_view user, std::string_view client,
                                        std::string_view conversation, std::uint64_t sequence) {
  if (auto bad = check_client(user, client); !bad) return bad;
  if (auto bad = check_sequence(conversation, sequence); !bad) return bad;
  spi::ClientPosition position{std::string(user), std::string(client), std::string(conversation), sequence};
  position.expires_at = context_->clock->now() + context_->options.conversations.client_expiry;
  spi::ClearMissed seen{position.user, position.conversation, sequence};
  return commit({{spi::PutClientPosition{std::move(position)}, std::move(seen)}});
}

Result<std::optional<std::uint64_t>> Conversations::position(std::string_view user, std::string_view client,
                                                             std::string_view conversation) {
  if (auto bad = check_client(user, client); !bad) return std::move(bad).error();
  if (auto bad = check_named(conversation, "conversation"); !bad) return std::move(bad).error();
  auto found = context_->store->client_positions(user, client, conversation, 1);
  if (!found) return std::move(found).error();
  const bool there =
      !found->empty() && found->front().conversation == conversation && found->front().sequence > 0;
  return there ? std::optional(found->front().sequence) : std::nullopt;
}

Result<void> Conversations::note_missed(std::string_view user, std::string_view conversation,
                                        std::uint64_t sequence) {
  if (auto bad = check_named(user, "user"); !bad) return bad;
  if (auto bad = check_sequence(conversation, sequence); !bad) return bad;
  spi::AddMissed write{std::string(user), std::string(conversation), sequence};
  write.expires_at = context_->clock->now() + context_->options.conversations.missed_expiry;
  return commit({{std::move(write)}});
}

Result<Page<MissedConversation>> Conversations::missed(std::string_view user, std::size_t count_max,
                                                       std::string_view cursor) {
  if (auto bad = check_named(user, "user"); !bad) return std::move(bad).error();
  if (auto bad = check_count(count_max, kListCountMax); !bad) return std::move(bad).error();
  if (!cursor.empty() && !check_named(cursor, "cursor")) {
    return Error{ErrorCode::kInvalidCursor,
                 "cursor " + base::escape(cursor, 64) + " is not one that missed gave; begin without one"};
  }
  auto found =
      context_->store->missed_messages(user, cursor.empty() ? std::string() : behind(cursor), count_max + 1);
  if (!found) return std::move(found).error();
  Page<MissedConversation> page;
  for (spi::MissedMessages& missed : *found) {
    if (page.items.size() == count_max) {
      page.cursor = page.items.back().conversation;
      break;
    }
    page.items.push_back(
        {std::move(missed.conversation), missed.count, missed.first_sequence, missed.last_sequence});
  }
  return page;
}

Result<std::optional<std::uint64_t>> Conversations::beginning(const std::string& user,
                                                              const std::string& client,
                                                              std::string_view conversation) {
  auto positions = context_->store->client_positions(user, client, conversation, 1);
  if (!positions) return std::move(positions).error();
  if (!positions->empty() && positions->front().conversation == conversation)
    return std::optional(positions->front().sequence);
  auto missed = context_->store->missed_messages(user, conversation, 1);
  if (!missed) return std::move(missed).error();
  if (!missed->empty() && missed->front().conversation == conversation)
    return std::optional(missed->front().first_sequence - 1);
  return std::optional<std::uint64_t>();
}

// ---- reconnect --------------------------------------------------------------------------------------

/// One page: reads what fits, and collects what has to be written before it may be given away.
class Conversations::CatchingUp {
 public:
  CatchingUp(Context& context, std::string_view user, std::string_view client, std::size_t count_max)
      : context_(context), user_(user), client_(client), left_(count_max) {}

  Result<void> run(Place place) {
    for (std::size_t looks = 0; looks < kLooksMax; ++looks) {
      auto looked = look(place);
      if (!looked) return std::move(looked).error();
      if (*looked) return {};
    }
    page.cursor = place.cursor();
    return {};
  }

  Page<CatchUp> page;
  spi::Unit unit;

 private:
  struct Known {
    std::optional<spi::ClientPosition> position;
    std::optional<spi::MissedMessages> missed;
  };

  /// Some conversations from `place` on, and moves it behind them. True: the page is done.
  Result<bool> look(Place& place) {
    auto positions = context_.store->client_positions(user_, client_, place.from, kLookCount);
    if (!positions) return std::move(positions).error();
    auto missed = context_.store->missed_messages(user_, place.from, kLookCount);
    if (!missed) return std::move(missed).error();
    // A full list may go on, so of the other one only what is not behind its end can be looked at.
    std::optional<std::string> last;
    if (positions->size() == kLookCount) last = positions->back().conversation;
    if (missed->size() == kLookCount)
      last = std::min(last.value_or(missed->back().conversation), missed->back().conversation);
    std::map<std::string, Known> known;
    for (spi::ClientPosition& position : *positions)
      known[position.conversation].position = std::move(position);
    for (spi::MissedMessages& one : *missed)
      known[one.conversation].missed = std::move(one);
    for (const auto& [conversation, what] : known) {
      if (last && conversation > *last) break;
      const std::uint64_t after = conversation == place.from ? place.after : 0;
      if (left_ == 0 || bytes_left_ == 0) {
        page.cursor = Place{conversation, after}.cursor();
        return true;
      }
      auto all = take(conversation, what, after);
      if (!all) return std::move(all).error();
      if (!*all) return true;
    }
    if (last) place = {behind(*last), 0};
    return !last.has_value();
  }

  /// What was missed of one conversation; false: there is more.
  Result<bool> take(const std::string& conversation, const Known& known, std::uint64_t given) {
    const std::uint64_t begin = known.position ? known.position->sequence : known.missed->first_sequence - 1;
    const std::uint64_t after = std::max(begin, given);
    spi::StreamRead read = reading(conversation, left_);
    read.from = after + 1;
    read.payload_bytes_max = bytes_left_;
    auto slice = context_.store->read_stream(read);
    if (!slice) return std::move(slice).error();
    ConversationPage found = page_of(std::move(*slice), after);
    const std::uint64_t through = found.messages.empty() ? after : found.messages.back().sequence;
    keep(conversation, known, begin, through);
    if (found.messages.empty()) return true;
    left_ -= found.messages.size();
    for (const ConversationMessage& message : found.messages)
      bytes_left_ -= std::min(bytes_left_, message.payload.size());
    if (!found.end) page.cursor = Place{conversation, through}.cursor();
    const bool end = found.end;
    page.items.push_back({conversation, std::move(found.messages), end, found.gap});
    return end;
  }

  /// A counter goes only together with a position that stands for it, so that whoever dies now, or does not
  /// hear of it, finds the same messages again.
  void keep(const std::string& conversation, const Known& known, std::uint64_t begin, std::uint64_t through) {
    const Duration expiry = context_.options.conversations.client_expiry;
    const TimePoint now = context_.clock->now();
    const bool found_some = through > begin;
    const bool renew = known.position && known.position->expires_at - now < expiry / 2;
    if (renew || (!known.position && found_some)) {
      unit.writes.emplace_back(spi::PutClientPosition{
          {std::string(user_), std::string(client_), conversation, begin, now + expiry}});
    }
    if (known.missed && through >= known.missed->first_sequence)
      unit.writes.emplace_back(spi::ClearMissed{std::string(user_), conversation, through});
  }

  Context& context_;
  const std::string_view user_;
  const std::string_view client_;
  std::size_t left_;
  std::size_t bytes_left_ = kPageBytesMax;
};

Result<Page<CatchUp>> Conversations::reconnect(std::string_view user, std::string_view client,
                                               std::size_t count_max, std::string_view cursor) {
  if (auto bad = check_client(user, client); !bad) return std::move(bad).error();
  if (auto bad = check_count(count_max, kReadCountMax); !bad) return std::move(bad).error();
  auto place = Place::parse(cursor);
  if (!place) return std::move(place).error();
  CatchingUp catching_up(*context_, user, client, count_max);
  if (auto failed = catching_up.run(std::move(*place)); !failed) return std::move(failed).error();
  if (!catching_up.unit.writes.empty()) {
    if (auto failed = commit(std::move(catching_up.unit)); !failed) return std::move(failed).error();
  }
  return std::move(catching_up.page);
}

// ---- trimming -------------------------------------------------------------------------------------

Result<void> Conversations::trim(std::string_view conversation, std::uint64_t before_sequence) {
  if (auto bad = check_named(conversation, "conversation"); !bad) return bad;
  return commit(
      {{spi::TruncateStream{spi::StreamSpace::kConversations, std::string(conversation), before_sequence}}});
}

spi::TrimConversation Conversations::by_options(std::string_view conversation) const {
  const ConversationsOptions& options = context_->options.conversations;
  spi::TrimConversation write;
  write.conversation = std::string(conversation);
  write.count_max = static_cast<std::uint64_t>(options.count_max);
  if (options.bytes_max > 0) write.bytes_max = static_cast<std::uint64_t>(options.bytes_max);
  if (options.age_max.count() > 0) write.recorded_before = context_->clock->now() - options.age_max;
  write.keep_unread = options.keep_unread;
  return write;
}

void Conversations::trim_after(std::string_view conversation, const AppendedMessage& appended,
                               std::size_t bytes) {
  const ConversationsOptions& options = context_->options.conversations;
  const auto count_max = static_cast<std::uint64_t>(options.count_max);
  // One append in so many, whoever appends: nothing has to be remembered, or is forgotten by a restart.
  const bool many =
      appended.sequence > count_max && appended.sequence % std::max<std::uint64_t>(count_max / 10, 1) == 0;
  bool large = false;
  if (options.bytes_max > 0) {
    std::uint64_t draw = 0;
    for (const std::uint8_t byte : appended.id.bytes)
      draw = base::mix(draw ^ byte);
    large = draw % static_cast<std::uint64_t>(options.bytes_max / 10 + 1) < bytes;
  }
  if (!many && !large) return;
  // The message is there, whatever comes of this; the janitor comes by as well.
  if (auto failed = commit({{by_options(conversation)}}); !failed)
    context_->log(LogLevel::kWarning, "conversations", failed.error().to_string());
}

Result<bool> Conversations::wants_trim(const StreamInfo& conversation) {
  const ConversationsOptions& options = context_->options.conversations;
  const std::uint64_t count = conversation.newest_version - conversation.oldest_version + 1;
  if (count == 1) return false;
  const auto count_max = static_cast<std::uint64_t>(options.count_max);
  if (options.bytes_max > 0 || count > count_max + count_max / 10) return true;
  if (options.age_max.count() == 0) return false;
  spi::StreamRead read = reading(conversation.name, 1);
  auto slice = context_->store->read_stream(read);
  if (!slice) return std::move(slice).error();
  return !slice->events.empty() &&
         slice->events.front().recorded_at < context_->clock->now() - options.age_max;
}

void Conversations::trim_some() {
  const MonotonicTime now = context_->clock->monotonic();
  if (now < rests_until_) return;
  auto page = context_->store->list_streams(spi::StreamSpace::kConversations, {}, kTrimCount, looked_at_);
  if (!page) return context_->log(LogLevel::kWarning, "conversations", page.error().to_string());
  std::vector<spi::Unit> units;
  for (const StreamInfo& conversation : page->items) {
    auto wanted = wants_trim(conversation);
    if (!wanted) return context_->log(LogLevel::kWarning, "conversations", wanted.error().to_string());
    if (*wanted) units.push_back({{by_options(conversation.name)}});
  }
  if (!units.empty()) {
    if (auto done = context_->store->commit(units); !done)
      return context_->log(LogLevel::kWarning, "conversations", done.error().to_string());
  }
  looked_at_ = std::move(page->cursor);
  if (!looked_at_.empty()) return;
  const Duration age_max = context_->options.conversations.age_max;
  rests_until_ = now + (age_max.count() > 0 ? std::min(age_max / 10, kTrimRest) : kTrimRest);
}

// ---- feed -----------------------------------------------------------------------------------------

Result<std::uint64_t*> Feed::place(std::string_view conversation, std::optional<std::uint64_t> otherwise) {
  if (const auto it = given_.find(conversation); it != given_.end()) return &it->second;
  auto begin = core_->conversations().beginning(user_, client_, conversation);
  if (!begin) return std::move(begin).error();
  if (!*begin) *begin = otherwise;
  if (!*begin) return static_cast<std::uint64_t*>(nullptr);
  return remember(conversation, **begin);
}

Result<std::uint64_t*> Feed::remember(std::string_view conversation, std::uint64_t sequence) {
  if (given_.size() >= kFeedMax) {
    return Error{ErrorCode::kLimitExceeded, "the feed has " + std::to_string(kFeedMax) +
                                                " conversations, and has no room for another; serve the "
                                                "client with several feeds"};
  }
  return &given_.emplace(conversation, sequence).first->second;
}

Result<ConversationPage> Feed::fill(std::string_view conversation, std::uint64_t& given,
                                    std::size_t count_max) {
  auto page = core_->conversations().messages_since(conversation, given, count_max);
  if (page && !page->messages.empty()) given = page->messages.back().sequence;
  return page;
}

Result<ConversationPage> Feed::offer(const ConversationMessage& message, std::size_t count_max) {
  if (auto open = core_->context().check_open(); !open) return std::move(open).error();
  if (auto bad = check_named(message.conversation, "conversation"); !bad) return std::move(bad).error();
  if (auto bad = check_count(count_max, kReadCountMax); !bad) return std::move(bad).error();
  if (message.sequence == 0)
    return Error{ErrorCode::kInvalidArgument, "sequence is 0, but messages are numbered from 1"};
  const std::lock_guard lock(mutex_);
  auto at = place(message.conversation, message.sequence - 1);
  if (!at) return std::move(at).error();
  std::uint64_t& given = **at;
  ConversationPage page;
  page.end = true;
  if (message.sequence <= given) return page;
  if (message.sequence == given + 1) {
    given = message.sequence;
    page.messages.push_back(message);
    return page;
  }
  auto filled = fill(message.conversation, given, count_max);
  if (filled && filled->messages.empty())
    return not_so_far(message.conversation, "sequence", message.sequence, given);
  return filled;
}

Result<ConversationPage> Feed::next(std::string_view conversation, std::size_t count_max) {
  if (auto open = core_->context().check_open(); !open) return std::move(open).error();
  if (auto bad = check_named(conversation, "conversation"); !bad) return std::move(bad).error();
  if (auto bad = check_count(count_max, kReadCountMax); !bad) return std::move(bad).error();
  const std::lock_guard lock(mutex_);
  auto at = place(conversation, std::nullopt);
  if (!at) return std::move(at).error();
  if (*at != nullptr) return fill(conversation, **at, count_max);
  ConversationPage nothing;
  nothing.end = true;
  return nothing;
}

Result<void> Feed::begin(std::string_view conversation, std::uint64_t sequence) {
  if (auto bad = check_named(conversation, "conversation"); !bad) return bad;
  const std::lock_guard lock(mutex_);
  const auto it = given_.find(conversation);
  if (it != given_.end()) {
    it->second = std::max(it->second, sequence);
    return {};
  }
  auto at = remember(conversation, sequence);
  return at ? Result<void>{} : Result<void>(std::move(at).error());
}

std::optional<std::uint64_t> Feed::given(std::string_view conversation) const {
  const std::lock_guard lock(mutex_);
  const auto it = given_.find(conversation);
  return it == given_.end() ? std::nullopt : std::optional(it->second);
}

}  // namespace towline::engine
