// The blob of rare fields: whatever decodes encodes to the same bytes, and columns are left alone.

#include "codec/extras.hpp"

#include "fuzz/input.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace towline;
  const std::string blob(reinterpret_cast<const char*>(data), size);
  spi::Envelope into;
  into.topic = "orders";
  into.attempt = 7;
  const auto result = codec::decode_extras(blob, into);
  fuzz::require(into.topic == "orders" && into.attempt == 7, "columns are left alone");
  if (result.ok()) {
    fuzz::require(codec::encode_extras(into) == blob, "what decodes encodes to the same bytes");
    return 0;
  }
  fuzz::require(result.error().code == ErrorCode::kCorruptEnvelope, "damage is kCorruptEnvelope");
  fuzz::require(fuzz::is_one_line(result.error().message), "the error is one line");
  // A count that lies must not become memory: the content is never more than the bytes that it came from.
  std::size_t content = 0;
  for (const auto& [name, value] : into.headers)
    content += name.size() + value.size();
  for (const auto& failure : into.history)
    content += failure.error_type.size() + failure.error_message.size();
  fuzz::require(content <= size, "no more is read than there is");
  return 0;
}
