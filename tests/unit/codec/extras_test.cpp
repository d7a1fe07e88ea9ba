// The blob of rare fields: empty for most messages, unique, complete in what it sets, and safe to read.

#include "codec/extras.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "support/property.hpp"
#include "unit/codec/envelopes.hpp"

namespace towline::codec {
namespace {

// The fields that have columns of their own, which the blob neither holds nor touches.
spi::Envelope without_columns(spi::Envelope envelope) {
  envelope.id = {};
  envelope.topic.clear();
  envelope.partition = 0;
  envelope.key.reset();
  envelope.group.clear();
  envelope.payload.clear();
  envelope.priority = 0;
  envelope.published_at = {};
  envelope.expires_at = kNever;
  envelope.attempt = 1;
  envelope.crashes = 0;
  envelope.redrives = 0;
  envelope.heads_key = false;
  return envelope;
}

void expect_corrupt(const std::string& blob, const std::string& part) {
  spi::Envelope into;
  const auto result = decode_extras(blob, into);
  ASSERT_FALSE(result.ok()) << part;
  EXPECT_EQ(result.error().code, ErrorCode::kCorruptEnvelope);
  EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
}

TEST(Extras, AreNoBytesForAnOrdinaryMessage) {
  EXPECT_FALSE(has_extras(small_envelope()));
  EXPECT_EQ(encode_extras(small_envelope()), "");
  spi::Envelope columns = full_envelope();
  columns = spi::Envelope{};
  columns.key = "k";
  columns.group = "g";
  columns.attempt = 4;
  columns.crashes = 2;
  columns.redrives = 1;
  columns.heads_key = true;
  columns.priority = 3;
  columns.partition = 9;
  EXPECT_EQ(encode_extras(columns), "");
}

TEST(Extras, SurviveAndTouchNoColumns) {
  support::for_all(
      [] {
        const spi::Envelope envelope = any_envelope();
        const std::string blob = encode_extras(envelope);
        RC_ASSERT(blob.empty() == !has_extras(envelope));
        spi::Envelope alone;
        RC_ASSERT(decode_extras(blob, alone).ok());
        RC_ASSERT(describe(alone) == describe(without_columns(envelope)));
        // Into an envelope that has everything: its columns stay, its extras are replaced.
        spi::Envelope beside = full_envelope();
        RC_ASSERT(decode_extras(blob, beside).ok());
        RC_ASSERT(describe(without_columns(beside)) == describe(alone));
        RC_ASSERT(beside.topic == full_envelope().topic);
        RC_ASSERT(beside.attempt == full_envelope().attempt);
      },
      2000);
}

TEST(Extras, OfNoBytesSetEverythingToItsDefault) {
  spi::Envelope into = full_envelope();
  ASSERT_TRUE(decode_extras("", into).ok());
  EXPECT_FALSE(has_extras(into));
  EXPECT_EQ(into.key, full_envelope().key);
}

TEST(Extras, KeepTheOrderOfHeaders) {
  spi::Envelope envelope;
  envelope.headers = {{"z", "1"}, {"a", "2"}, {"m", "3"}};
  spi::Envelope read;
  ASSERT_TRUE(decode_extras(encode_extras(envelope), read).ok());
  EXPECT_EQ(read.headers, envelope.headers);
}

TEST(Extras, AreRefusedWhenCutOffAnywhere) {
  const std::string blob = encode_extras(full_envelope());
  int refused = 0;
  for (std::size_t length = 1; length < blob.size(); ++length) {
    spi::Envelope into;
    // Between two fields the rest cannot be missed: there the blob of fewer fields ends.
    const auto result = decode_extras(std::string_view(blob).substr(0, length), into);
    if (result.ok()) {
      ASSERT_EQ(encode_extras(into), blob.substr(0, length));
    } else {
      ++refused;
    }
  }
  EXPECT_EQ(refused, static_cast<int>(blob.size()) - 1 - 8);
}

TEST(Extras, SayWhatIsWrong) {
  expect_corrupt("\x02", "version 2, but this build knows only version 1");
  expect_corrupt("\x01", "a version and no field");
  expect_corrupt(std::string("\x01\x0a\x01x", 4), "field 10 is unknown");
  expect_corrupt(std::string("\x01\x00\x01x", 4), "field 0 is out of order");
  expect_corrupt("\x01\x02\x05t", "field 2 is cut off");
  expect_corrupt("\x01\x03\x01x\x02\x01t", "field 2 is out of order");
  expect_corrupt("\x01\x02\x01x\x02\x01y", "field 2 is out of order");
  expect_corrupt(std::string("\x01\x02\x00", 3), "field 2 is damaged");               // present and empty
  expect_corrupt(std::string("\x01\x01\x01\x00", 4), "field 1 is damaged");           // no headers
  expect_corrupt(std::string("\x01\x08\x01\x00", 4), "field 8 is damaged");           // no delay
  expect_corrupt(std::string("\x01\x08\x02\x02\x02", 5), "field 8 is damaged");       // a byte too many
  expect_corrupt(std::string("\x01\x06\x04\x01x\x00\x02", 7), "field 6 is damaged");  // dedup mode 2
}

TEST(Extras, DoNotBelieveCountsBeyondTheirBytes) {
  // 2^32 - 1 headers, and as many failures, in a few bytes: refused before memory for them is taken.
  expect_corrupt(std::string("\x01\x01\x05\xff\xff\xff\xff\x0f", 8), "field 1 is damaged");
  expect_corrupt(std::string("\x01\x09\x05\xff\xff\xff\xff\x0f", 8), "field 9 is damaged");
}

TEST(Extras, DecodeNothingElseThanWhatTheyEncode) {
  support::for_all(
      [](const std::vector<std::pair<std::uint16_t, std::uint8_t>>& changes) {
        std::string blob = encode_extras(any_envelope());
        RC_PRE(!blob.empty());
        for (const auto& [at, value] : changes)
          blob[at % blob.size()] = static_cast<char>(value);
        spi::Envelope into;
        if (decode_extras(blob, into).ok()) RC_ASSERT(encode_extras(into) == blob);
      },
      5000, 30);
}

/// The fields of a row of the vectors, without what stands for nothing.
std::vector<std::string> fields_of(const std::string& line) {
  std::vector<std::string> fields;
  for (std::size_t begin = 0; begin <= line.size();) {
    const std::size_t end = std::min(line.find(" | ", begin), line.size());
    fields.push_back(line.substr(begin, end - begin));
    if (fields.back() == "-") fields.back().clear();
    begin = end + 3;
  }
  return fields;
}

TEST(Extras, AreTheBytesThatEveryLanguageIsHeldTo) {
  std::ifstream file(std::string(TOWLINE_SOURCE_DIR) + "/tests/vectors/envelopes.txt");
  std::size_t rows = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) continue;
    const std::vector<std::string> row = fields_of(line);
    ASSERT_EQ(row.size(), 7U) << line;
    spi::Envelope envelope;
    std::istringstream headers(row[1]);
    for (std::string pair; std::getline(headers >> std::ws, pair, ',');) {
      const std::size_t mark = pair.find('=');
      envelope.headers.emplace_back(pair.substr(0, mark), pair.substr(mark + 1));
    }
    envelope.content_type = row[2];
    envelope.correlation_id = row[3];
    envelope.causation_id = row[4];
    envelope.traceparent = row[5];
    std::string digits;
    for (const char byte : encode_extras(envelope)) {
      constexpr std::string_view kDigits = "0123456789abcdef";
      digits += kDigits[static_cast<unsigned char>(byte) >> 4U];
      digits += kDigits[static_cast<unsigned char>(byte) & 15U];
    }
    EXPECT_EQ(digits, row[6]) << row[0];
    ++rows;
  }
  EXPECT_GE(rows, 5U);
}

}  // namespace
}  // namespace towline::codec
