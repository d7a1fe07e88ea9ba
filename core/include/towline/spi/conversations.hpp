#pragma once
// What a store keeps of the clients of conversations. The messages are streams of their own space.

#include <cstdint>
#include <string>

#include <towline/message.hpp>

namespace towline::spi {

/// How far a client of a user has read a conversation.
struct ClientPosition {
  std::string user;
  std::string client;
  std::string conversation;
  std::uint64_t sequence = 0;
  TimePoint expires_at{};
};

/// What a user missed of a conversation while no client of the user was there.
struct MissedMessages {
  std::string user;
  std::string conversation;
  std::uint64_t first_sequence = 0;
  std::uint64_t last_sequence = 0;
  /// 0: all were taken. It is kept until it expires all the same, and tells a repetition from news.
  std::uint64_t count = 0;
  /// Which of the last 64 sequences up to `last_sequence` were counted; the lowest bit is the last one's.
  std::uint64_t recent = 0;
  /// What was taken is not counted again.
  std::uint64_t taken_sequence = 0;
  TimePoint expires_at{};
};

/// It moves only forward: a smaller sequence than is known, and has not expired, changes `expires_at` alone,
/// and that only to a later one.
struct PutClientPosition {
  ClientPosition position;
};
/// Counts one message, unless it was counted or taken before. One that comes more than 64 behind the last is
/// counted only when it is before the first.
struct AddMissed {
  std::string user;
  std::string conversation;
  std::uint64_t sequence = 0;
  TimePoint expires_at{};
};
/// Takes what was counted up to a sequence. No error when there is none.
struct ClearMissed {
  std::string user;
  std::string conversation;
  std::uint64_t through_sequence = 0;
};
/// Removes the oldest messages of a conversation: those beyond a number of messages, beyond a number of
/// bytes of payload, and those recorded before a time. The newest one stays. No error when there is none.
struct TrimConversation {
  std::string conversation;
  std::uint64_t count_max = UINT64_MAX;
  std::uint64_t bytes_max = UINT64_MAX;
  TimePoint recorded_before{};
  /// Not what is after the position of some client that has not expired.
  bool keep_unread = false;
};

}  // namespace towline::spi
