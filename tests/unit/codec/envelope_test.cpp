// The bytes of envelopes: fixed by example, unique, and safe to read whatever they are.

#include "codec/envelope.hpp"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/crc32c.hpp"
#include "base/varint.hpp"
#include "support/property.hpp"
#include "unit/codec/envelopes.hpp"

namespace towline::codec {
namespace {

std::string to_hex(std::string_view bytes) {
  std::string hex;
  for (const char c : bytes) {
    hex.push_back("0123456789abcdef"[static_cast<unsigned char>(c) >> 4]);
    hex.push_back("0123456789abcdef"[static_cast<unsigned char>(c) & 15]);
  }
  return hex;
}

// Makes the checksum fit again after a change.
std::string with_checksum(std::string bytes) {
  bytes.resize(bytes.size() - 4);
  std::string checksum;
  base::ByteWriter(checksum).u32(base::crc32c(bytes));
  return bytes + checksum;
}

void expect_corrupt(const std::string& bytes, const std::string& part) {
  const auto decoded = decode(bytes);
  ASSERT_FALSE(decoded.ok()) << part;
  EXPECT_EQ(decoded.error().code, ErrorCode::kCorruptEnvelope);
  EXPECT_NE(decoded.error().message.find(part), std::string::npos) << decoded.error().message;
}

TEST(Envelope, EncodesASmallOneToTheDocumentedBytes) {
  EXPECT_EQ(to_hex(encode(small_envelope())),
            "54574c4e010001890a5dac96774bbcceb302099a8057066f7264657273008080f28183898506026869670bc001");
}

TEST(Envelope, EncodesEveryFieldToTheDocumentedBytes) {
  EXPECT_EQ(to_hex(encode(full_envelope())),
            "54574c4e017f01890a5dac96774bbcceb302099a8057066f72646572732a8080f2818389850603632d39"
            "0762696c6c696e67809c8ebb83898506050301029a010101120206726567696f6e02657505656d70747900"
            "020a746578742f706c61696e0302636f04026361053730302d306166373635313931366364343364643834"
            "343865623231316338303331"
            "39632d623761643662373136393230333333312d3031060d03642d318080addf868e85060107088089ec82"
            "8389850608048092f4010917018089ec8283898506010754696d656f757404736c6f770268694ac6d45e");
}

TEST(Envelope, DecodesToWhatWasEncoded) {
  EXPECT_EQ(describe(*decode(encode(small_envelope()))), describe(small_envelope()));
  EXPECT_EQ(describe(*decode(encode(full_envelope()))), describe(full_envelope()));
  EXPECT_EQ(describe(*decode(encode(spi::Envelope{}))), describe(spi::Envelope{}));
}

TEST(Envelope, DecodesToWhatWasEncodedForAnyEnvelope) {
  support::for_all(
      [] {
        const spi::Envelope envelope = any_envelope();
        const std::string bytes = encode(envelope);
        const auto decoded = decode(bytes);
        RC_ASSERT(decoded.ok());
        RC_ASSERT(describe(*decoded) == describe(envelope));
        RC_ASSERT(encode(*decoded) == bytes);
      },
      2000);
}

TEST(Envelope, TellsAnEmptyKeyFromNone) {
  spi::Envelope with = small_envelope();
  with.key = "";
  EXPECT_EQ(decode(encode(with))->key, std::optional<std::string>(""));
  EXPECT_EQ(decode(encode(small_envelope()))->key, std::nullopt);
}

TEST(Envelope, AppendsWithoutTouchingWhatIsThere) {
  std::string out = "before";
  encode(small_envelope(), out);
  encode(full_envelope(), out);
  EXPECT_EQ(out, "before" + encode(small_envelope()) + encode(full_envelope()));
}

TEST(Envelope, IsRefusedWhenAnyBitIsChanged) {
  const std::string bytes = encode(full_envelope());
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = bytes;
      changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
      ASSERT_FALSE(decode(changed).ok()) << "byte " << i << " bit " << bit;
    }
  }
}

TEST(Envelope, IsRefusedWhenCutOffAnywhereAlsoWithAFittingChecksum) {
  const std::string bytes = encode(full_envelope());
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    const std::string cut = bytes.substr(0, length);
    ASSERT_FALSE(decode(cut).ok()) << length;
    if (length >= 9) {
      ASSERT_FALSE(decode(with_checksum(cut)).ok()) << length;
    }
  }
}

TEST(Envelope, IsRefusedWithBytesTooMany) {
  expect_corrupt(encode(small_envelope()) + "x", "checksum");
  std::string longer = encode(small_envelope());
  longer.insert(longer.size() - 4, "xyz");
  expect_corrupt(with_checksum(longer), "3 bytes too many");
}

TEST(Envelope, NamesTheVersionThatItDoesNotKnow) {
  std::string newer = encode(small_envelope());
  newer[4] = 99;
  expect_corrupt(newer, "version 99");
  expect_corrupt(newer, "newer");
  expect_corrupt(with_checksum(newer), "version 99");
  newer[4] = 0;
  expect_corrupt(newer, "version 0");
}

TEST(Envelope, SaysWhatIsWrong) {
  expect_corrupt("", "do not begin like one");
  expect_corrupt("{\"json\": true}", "do not begin like one");
  expect_corrupt("TWLN", "cut off after the magic");
  expect_corrupt(std::string("TWLN\x01\x00\x00", 7), "cut off");
  std::string changed = encode(small_envelope());
  changed[20] ^= 1;
  expect_corrupt(changed, "false checksum");
}

TEST(Envelope, RefusesLengthsBeyondItsBytesWithoutAllocatingThem) {
  // The topic's length becomes 2^32 - 1, and then 2^64 - 1.
  const std::string bytes = encode(small_envelope());
  for (const std::string& length : {std::string("\xff\xff\xff\xff\x0f"), std::string(9, '\xff') + "\x01"}) {
    std::string changed = bytes;
    changed.replace(22, 1, length);
    expect_corrupt(with_checksum(changed), "cut off or damaged");
  }
}

TEST(Envelope, RefusesASecondFormOfTheSameEnvelope) {
  std::string unknown_flag = encode(small_envelope());
  unknown_flag[5] = '\x80';
  expect_corrupt(with_checksum(unknown_flag), "unknown flags");
  // A priority of 0 must not be written: the flag, and the zero before the payload.
  std::string empty_field = encode(small_envelope());
  empty_field[5] = 0x08;
  empty_field.insert(empty_field.size() - 4 - 3, 1, '\0');
  expect_corrupt(with_checksum(empty_field), "flagged and empty");
}

TEST(Envelope, DecodesNothingElseThanWhatItEncodes) {
  // Changed bytes under a fitting checksum either are refused or are the encoding of what they decode to.
  support::for_all(
      [](const std::vector<std::pair<std::uint16_t, std::uint8_t>>& changes) {
        std::string bytes = encode(any_envelope());
        for (const auto& [at, value] : changes) {
          const std::size_t index = 5 + at % (bytes.size() - 9);
          bytes[index] = static_cast<char>(value);
        }
        bytes = with_checksum(bytes);
        const auto decoded = decode(bytes);
        if (decoded.ok()) RC_ASSERT(encode(*decoded) == bytes);
      },
      5000, 40);
}

TEST(Envelope, KeepsWhatWasReadableOfADamagedOne) {
  const std::string bytes = encode(full_envelope());
  spi::Envelope read;
  EXPECT_FALSE(decode_into(bytes.substr(0, bytes.size() - 6), read).ok());
  EXPECT_EQ(read.id, full_envelope().id);
  EXPECT_EQ(read.topic, "orders");
  EXPECT_EQ(read.key, full_envelope().key);
  std::string changed = bytes;
  changed[changed.size() - 5] ^= 1;  // the last byte of the payload
  EXPECT_FALSE(decode_into(changed, read).ok());
  EXPECT_EQ(read.headers, full_envelope().headers);
  EXPECT_EQ(read.payload, "hh");
}

TEST(Envelope, LeavesNothingOfTheEnvelopeThatItDecodesInto) {
  spi::Envelope into = full_envelope();
  ASSERT_TRUE(decode_into(encode(small_envelope()), into).ok());
  EXPECT_EQ(describe(into), describe(small_envelope()));
}

}  // namespace
}  // namespace towline::codec
