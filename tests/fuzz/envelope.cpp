// Envelope bytes: whatever decodes encodes to the same bytes, and every change of one bit is found.
//
// The first byte chooses: the rest as it is, or the rest under a fitting head and checksum, so that the
// fuzzer reaches the fields behind them.

#include "codec/envelope.hpp"

#include "base/crc32c.hpp"
#include "base/varint.hpp"
#include "fuzz/input.hpp"

namespace {

using namespace towline;

void check_decoding(const std::string& bytes) {
  spi::Envelope readable;
  const bool ok = codec::decode_into(bytes, readable).ok();
  const auto decoded = codec::decode(bytes);
  fuzz::require(decoded.ok() == ok, "decode and decode_into agree");
  if (ok) {
    fuzz::require(codec::encode(*decoded) == bytes, "what decodes encodes to the same bytes");
  } else {
    fuzz::require(decoded.error().code == ErrorCode::kCorruptEnvelope, "damage is kCorruptEnvelope");
    fuzz::require(fuzz::is_one_line(decoded.error().message), "the error is one line");
    // What was readable must itself be an envelope that can be written down.
    fuzz::require(codec::decode(codec::encode(readable)).ok(), "what was readable encodes and decodes");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const std::uint8_t mode = input.byte();
  std::string bytes(input.rest());
  if (mode % 2 == 1) {
    bytes = std::string("TWLN\x01", 5) + bytes;
    const std::uint32_t checksum = base::crc32c(bytes);
    base::ByteWriter(bytes).u32(checksum);
  }
  check_decoding(bytes);
  if (const auto decoded = codec::decode(bytes); decoded.ok()) {
    const std::size_t at = mode * std::size_t{37} % bytes.size();
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << mode % 8));
    fuzz::require(!codec::decode(bytes).ok(), "a changed bit is found");
  }
  return 0;
}
