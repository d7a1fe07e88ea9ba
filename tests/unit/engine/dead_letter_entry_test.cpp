// A dead letter and the message it stands for: nothing that a redrive needs is lost on the way there and
// back, and nothing that stands in an entry can do harm on the way back.

#include "engine/dead_letter_entry.hpp"

#include <set>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <rapidcheck.h>

#include "support/property.hpp"

namespace towline::engine {
namespace {

using nlohmann::json;

MessageId id_of(std::uint8_t number) {
  MessageId id;
  id.bytes[15] = number;
  return id;
}

spi::Envelope full_envelope() {
  spi::Envelope envelope;
  envelope.id = id_of(1);
  envelope.topic = "orders.eu";
  envelope.partition = 17;
  envelope.key = "customer-9";
  envelope.group = "billing";
  envelope.headers = {{"b", "2"}, {"a", "1"}};
  envelope.content_type = "application/json";
  envelope.payload = std::string("\0\xff{}", 4);
  envelope.priority = 7;
  envelope.published_at = from_us(1000);
  envelope.correlation_id = "corr";
  envelope.causation_id = "cause";
  envelope.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  envelope.dedup_id = "d";
  envelope.attempt = 3;
  envelope.crashes = 1;
  envelope.redrives = 2;
  envelope.first_failed_at = from_us(2000);
  envelope.history = {{from_us(2000), 1, "E1", "first"}, {from_us(3000), 2, "E2", "second"}};
  return envelope;
}

EntryFacts facts() {
  EntryFacts facts;
  facts.id = id_of(2);
  facts.reason = DeadLetterReason::kExhausted;
  facts.error = {"ns::Broken", "could not", "at f()"};
  facts.now = from_us(4000);
  facts.crashes = 1;
  facts.failures = 3;
  return facts;
}

TEST(DeadLetterEntry, KeepsTheMessageItsOriginAndWhatWentWrong) {
  const DeadLetter entry = make_dead_letter(full_envelope(), "billing", facts());
  EXPECT_EQ(entry.id, id_of(2));
  EXPECT_EQ(entry.message_id, id_of(1));
  EXPECT_EQ(entry.topic, "orders.eu");
  EXPECT_EQ(entry.group, "billing");
  EXPECT_EQ(entry.key, "customer-9");
  EXPECT_EQ(entry.partition, 17U);
  EXPECT_EQ(entry.headers, (Headers{{"b", "2"}, {"a", "1"}}));
  EXPECT_EQ(entry.content_type, "application/json");
  EXPECT_EQ(entry.payload, std::string("\0\xff{}", 4));
  EXPECT_EQ(entry.reason, DeadLetterReason::kExhausted);
  EXPECT_EQ(entry.error_type, "ns::Broken");
  EXPECT_EQ(entry.error_message, "could not");
  EXPECT_EQ(entry.error_stack, "at f()");
  EXPECT_EQ(entry.fingerprint.size(), 16U);
  EXPECT_EQ(entry.attempt, 3U);
  EXPECT_EQ(entry.crashes, 1U);
  EXPECT_EQ(entry.published_at, from_us(1000));
  EXPECT_EQ(entry.first_failed_at, from_us(2000));
  EXPECT_EQ(entry.last_failed_at, from_us(4000));
  EXPECT_EQ(entry.created_at, from_us(4000));
  EXPECT_EQ(entry.reprocess_count, 2U);
  EXPECT_EQ(entry.status, DeadLetterStatus::kPending);
}

TEST(DeadLetterEntry, TheFirstFailureIsNowWhenThereWasNoneBefore) {
  spi::Envelope envelope = full_envelope();
  envelope.first_failed_at.reset();
  EXPECT_EQ(make_dead_letter(envelope, "g", facts()).first_failed_at, from_us(4000));
}

TEST(DeadLetterEntry, MetadataIsJsonWithTheFailuresInOrder) {
  const json metadata = json::parse(make_dead_letter(full_envelope(), "g", facts()).metadata);
  ASSERT_EQ(metadata["history"].size(), 2U);
  EXPECT_EQ(metadata["history"][0],
            (json{{"at_us", 2000}, {"attempt", 1}, {"type", "E1"}, {"message", "first"}}));
  EXPECT_EQ(metadata["history"][1]["attempt"], 2);
  EXPECT_EQ(metadata["priority"], 7);
}

TEST(DeadLetterEntry, ARedrivenMessageIsTheOneThatWasPublishedWithAttemptsFromTheStart) {
  const DeadLetter entry = make_dead_letter(full_envelope(), "billing", facts());
  const spi::Envelope again = to_envelope(entry);
  const spi::Envelope was = full_envelope();
  EXPECT_EQ(again.id, was.id);
  EXPECT_EQ(again.topic, was.topic);
  EXPECT_EQ(again.group, "billing") << "the other groups have handled it";
  EXPECT_EQ(again.key, was.key);
  EXPECT_EQ(again.partition, was.partition);
  EXPECT_EQ(again.headers, was.headers);
  EXPECT_EQ(again.content_type, was.content_type);
  EXPECT_EQ(again.payload, was.payload);
  EXPECT_EQ(again.priority, was.priority);
  EXPECT_EQ(again.correlation_id, was.correlation_id);
  EXPECT_EQ(again.causation_id, was.causation_id);
  EXPECT_EQ(again.traceparent, was.traceparent);
  EXPECT_EQ(again.published_at, was.published_at);
  EXPECT_EQ(again.attempt, 1U);
  EXPECT_EQ(again.crashes, 0U);
  EXPECT_TRUE(again.history.empty());
  EXPECT_EQ(again.redrives, 3U);
  EXPECT_FALSE(again.heads_key);
  EXPECT_EQ(again.expires_at, kNever) << "its time to live was for the first time";
  EXPECT_TRUE(again.dedup_id.empty()) << "it is not a second publish";
}

TEST(DeadLetterEntry, AMessageWithoutAKeyComesBackWithoutOneAndAnEmptyKeyIsAKey) {
  spi::Envelope envelope = full_envelope();
  envelope.key.reset();
  EXPECT_EQ(to_envelope(make_dead_letter(envelope, "g", facts())).key, std::nullopt);
  envelope.key = "";
  EXPECT_EQ(to_envelope(make_dead_letter(envelope, "g", facts())).key, "");
}

TEST(DeadLetterEntry, WithoutTheOriginalOnlyTheFactsAreKept) {
  EntryFacts without = facts();
  without.keep_original = false;
  const DeadLetter entry = make_dead_letter(full_envelope(), "g", without);
  EXPECT_TRUE(entry.payload.empty());
  EXPECT_TRUE(entry.headers.empty());
  EXPECT_EQ(entry.error_type, "ns::Broken");
  EXPECT_FALSE(has_original(entry));
  EXPECT_TRUE(has_original(make_dead_letter(full_envelope(), "g", facts())));
}

TEST(DeadLetterEntry, MetadataThatNobodyCanReadCostsOnlyTheOptionalFields) {
  for (const char* damaged :
       {"", "{", "null", "[]", "17", "\"text\"", R"({"priority":"high"})", R"({"priority":1e300})",
        R"({"correlation_id":17})", R"({"priority":300})", R"({"priority":-1})"}) {
    DeadLetter entry = make_dead_letter(full_envelope(), "g", facts());
    entry.metadata = damaged;
    const spi::Envelope again = to_envelope(entry);
    EXPECT_EQ(again.payload, full_envelope().payload) << damaged;
    EXPECT_EQ(again.id, id_of(1)) << damaged;
    EXPECT_EQ(again.priority, 0) << damaged;
    EXPECT_EQ(again.correlation_id, "") << damaged;
    EXPECT_TRUE(has_original(entry)) << damaged;
  }
}

TEST(DeadLetterEntry, WhateverBytesAnErrorHoldsTheMetadataIsJson) {
  support::for_all([](const std::string& type, const std::string& message, const std::string& stack,
                      const std::string& correlation) {
    spi::Envelope envelope = full_envelope();
    envelope.history = {{from_us(1), 1, type, message}};
    envelope.correlation_id = correlation;
    EntryFacts of_error = facts();
    of_error.error = {type, message, stack};
    const DeadLetter entry = make_dead_letter(envelope, "g", of_error);
    const json metadata = json::parse(entry.metadata, nullptr, false);
    RC_ASSERT(metadata.is_object());
    RC_ASSERT(entry.error_type == type);
    RC_ASSERT(entry.error_message == message);
    RC_ASSERT(entry.fingerprint.size() == 16U);
    (void)to_envelope(entry);
  });
}

TEST(DeadLetterEntry, BytesThatLookLikeUtf8ButAreNotAreEscaped) {
  // Overlong, a surrogate, beyond the end of Unicode, cut off.
  for (const char* bytes : {"\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"}) {
    spi::Envelope envelope = full_envelope();
    envelope.history = {{from_us(1), 1, "E", bytes}};
    const json metadata = json::parse(make_dead_letter(envelope, "g", facts()).metadata, nullptr, false);
    ASSERT_TRUE(metadata.is_object());
    EXPECT_NE(metadata["history"][0]["message"], "") << "shown, not dropped";
  }
}

TEST(DeadLetterEntry, EveryReasonHasANameOfItsOwn) {
  std::set<std::string_view> names;
  for (int reason = 0; reason <= static_cast<int>(DeadLetterReason::kMaxAge); ++reason)
    names.insert(name_of(static_cast<DeadLetterReason>(reason)));
  EXPECT_EQ(names.size(), 8U);
  EXPECT_FALSE(names.contains("unknown"));
  EXPECT_EQ(name_of(DeadLetterReason::kCrashLoop), "crash_loop");
  EXPECT_EQ(name_of(DeadLetterReason::kPublishFailed), "publish_failed");
}

}  // namespace
}  // namespace towline::engine
