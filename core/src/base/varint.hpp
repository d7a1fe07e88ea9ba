#pragma once
// Writing and reading of bytes for the codecs: variable-length numbers, numbers of fixed length
// (little-endian), and texts with their length before them.
//
// A varint is LEB128: seven bits a byte, the lowest first, the top bit set on all bytes but the last. Signed
// numbers are zigzagged first (0, -1, 1, -2 become 0, 1, 2, 3), so that small ones stay small. A number has
// exactly one form: the reader refuses a longer one, so equal values have equal bytes.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace towline::base {

[[nodiscard]] constexpr std::uint64_t zigzag(std::int64_t value) noexcept {
  return static_cast<std::uint64_t>(value) << 1 ^ static_cast<std::uint64_t>(value >> 63);
}
[[nodiscard]] constexpr std::int64_t unzigzag(std::uint64_t value) noexcept {
  return static_cast<std::int64_t>(value >> 1 ^ (0 - (value & 1)));
}

/// Appends to a string that it does not own.
class ByteWriter {
 public:
  explicit ByteWriter(std::string& out) noexcept : out_(out) {}

  void u8(std::uint8_t value) { out_.push_back(static_cast<char>(value)); }
  void u32(std::uint32_t value) {
    for (int shift = 0; shift < 32; shift += 8)
      u8(static_cast<std::uint8_t>(value >> shift));
  }
  void varint(std::uint64_t value) {
    while (value >= 0x80) {
      u8(static_cast<std::uint8_t>(value | 0x80));
      value >>= 7;
    }
    u8(static_cast<std::uint8_t>(value));
  }
  void signed_varint(std::int64_t value) { varint(zigzag(value)); }
  /// The bytes alone.
  void raw(std::string_view bytes) { out_.append(bytes); }
  /// Their number, then the bytes.
  void text(std::string_view bytes) {
    varint(bytes.size());
    raw(bytes);
  }

 private:
  std::string& out_;
};

/// Reads from bytes that it does not own, and never beyond them. The first read that does not fit makes the
/// reader fail; from then on every read answers zero or empty text, so a decoder may read all it wants and
/// look at ok() once.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) noexcept : rest_(bytes) {}

  [[nodiscard]] bool ok() const noexcept { return ok_; }
  [[nodiscard]] std::size_t remaining() const noexcept { return rest_.size(); }
  [[nodiscard]] bool at_end() const noexcept { return rest_.empty(); }
  /// For a decoder that finds a value without meaning.
  void fail() noexcept {
    ok_ = false;
    rest_ = {};
  }

  std::uint8_t u8() noexcept {
    const std::string_view byte = raw(1);
    return byte.empty() ? std::uint8_t{0} : static_cast<std::uint8_t>(byte[0]);
  }

  std::uint32_t u32() noexcept {
    const std::string_view bytes = raw(4);
    std::uint32_t value = 0;
    for (std::size_t i = bytes.size(); i-- > 0;)
      value = value << 8 | static_cast<std::uint8_t>(bytes[i]);
    return value;
  }

  std::uint64_t varint() noexcept {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const std::uint8_t byte = u8();
      if (!ok_) return 0;
      const std::uint64_t bits = byte & 0x7Fu;
      // The tenth byte has room for one bit; a last byte of zero would make the form longer than needed.
      if ((shift == 63 && bits > 1) || (byte == 0 && shift > 0)) break;
      value |= bits << shift;
      if (byte < 0x80) return value;
    }
    fail();
    return 0;
  }

  std::int64_t signed_varint() noexcept { return unzigzag(varint()); }

  /// A varint that must not be above `maximum`.
  std::uint64_t varint_up_to(std::uint64_t maximum) noexcept {
    const std::uint64_t value = varint();
    if (value <= maximum) return value;
    fail();
    return 0;
  }

  /// The next `length` bytes.
  std::string_view raw(std::size_t length) noexcept {
    if (length > rest_.size()) {
      fail();
      return {};
    }
    const std::string_view bytes = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return bytes;
  }

  /// A length and that many bytes.
  std::string_view text() noexcept { return raw(static_cast<std::size_t>(varint())); }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace towline::base
