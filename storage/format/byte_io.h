// ByteWriter and ByteReader: little-endian fields, one after another, for the formats of this folder.
//
// The reader never reads outside its bytes: the first read that does not fit makes it !ok(), and from then on every
// read gives zeros, so a parser may read a whole record and look at ok() once, before it trusts a count and at the end.
//
//   ByteReader in(bytes);
//   const uint32_t heads = in.U32();
//   if (!in.ok() || in.remaining() != 0) return DataLoss("…");
//
// Thread-safety: for one thread at a time.
#ifndef KDN_STORAGE_FORMAT_BYTE_IO_H_
#define KDN_STORAGE_FORMAT_BYTE_IO_H_

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "storage/base/buffer.h"

namespace kdn {

// Slabs are little-endian by definition and reach the engine's memory without being swapped.
static_assert(std::endian::native == std::endian::little, "KDN supports little-endian machines only");

// The number that an enum is written as.
template <typename Enum>
constexpr std::underlying_type_t<Enum> NumberOf(Enum e) {
  return static_cast<std::underlying_type_t<Enum>>(e);
}

template <typename T>
T LoadLe(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <typename T>
void StoreLe(T value, uint8_t* to) {
  std::memcpy(to, &value, sizeof value);
}

class ByteWriter {
 public:
  void U8(uint8_t v) { Put(v); }
  void U16(uint16_t v) { Put(v); }
  void U32(uint32_t v) { Put(v); }
  void U64(uint64_t v) { Put(v); }
  void F64(double v) { Put(v); }
  void Bytes(ByteSpan b) { out_.append(AsStringView(b)); }
  // Length-framed: u32le, then the bytes.
  void String(std::string_view s) {
    U32(static_cast<uint32_t>(s.size()));
    out_.append(s);
  }

  const std::string& written() const { return out_; }
  std::string Take() && { return std::move(out_); }

 private:
  template <typename T>
  void Put(T v) {
    out_.append(reinterpret_cast<const char*>(&v), sizeof v);
  }

  std::string out_;
};

class ByteReader {
 public:
  explicit ByteReader(ByteSpan bytes) : rest_(bytes) {}

  uint8_t U8() { return Get<uint8_t>(); }
  uint16_t U16() { return Get<uint16_t>(); }
  uint32_t U32() { return Get<uint32_t>(); }
  uint64_t U64() { return Get<uint64_t>(); }
  double F64() { return Get<double>(); }
  ByteSpan Bytes(size_t n) {
    if (!ok_ || n > rest_.size()) {
      ok_ = false;
      return {};
    }
    const ByteSpan taken = rest_.first(n);
    rest_ = rest_.subspan(n);
    return taken;
  }
  // Length-framed; a length over `limit` makes the reader !ok().
  std::string String(uint32_t limit) {
    const uint32_t n = U32();
    if (n > limit) Fail();
    return std::string(AsStringView(Bytes(n)));
  }

  // For a count or a value that cannot be right.
  void Fail() { ok_ = false; }

  bool ok() const { return ok_; }
  size_t remaining() const { return rest_.size(); }

 private:
  template <typename T>
  T Get() {
    const ByteSpan b = Bytes(sizeof(T));
    return b.empty() ? T{} : LoadLe<T>(b.data());
  }

  ByteSpan rest_;
  bool ok_ = true;
};

}  // namespace kdn

#endif  // KDN_STORAGE_FORMAT_BYTE_IO_H_
