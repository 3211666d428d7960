// SpaceId and ChunkKey: the 32-byte SHA-256 names of spaces and chunks. Never truncated for identity.
//
// Thread-safety: values.
#ifndef KDN_STORAGE_FORMAT_DIGEST_H_
#define KDN_STORAGE_FORMAT_DIGEST_H_

#include <algorithm>
#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/status/statusor.h"
#include "storage/base/buffer.h"

namespace kdn {

inline constexpr size_t kDigestSize = 32;

// SHA-256 of the concatenation of `parts`.
std::array<uint8_t, kDigestSize> Sha256(std::initializer_list<ByteSpan> parts);

// A SHA-256 digest that names one kind of thing; `Tag` keeps a space's name from being used as a chunk's.
template <typename Tag>
struct Digest {
  std::array<uint8_t, kDigestSize> bytes{};  // all zero: names nothing

  static absl::StatusOr<Digest> FromBytes(ByteSpan b);      // INVALID_ARGUMENT unless exactly 32 bytes
  static absl::StatusOr<Digest> FromHex(std::string_view);  // INVALID_ARGUMENT unless 64 hexadecimal digits

  ByteSpan span() const { return bytes; }
  std::string ToHex() const;
  // The first 6 bytes in hex: for messages to people, never for identity.
  std::string ToShortHex() const { return ToHex().substr(0, 12); }
  bool IsZero() const { return *this == Digest{}; }

  friend auto operator<=>(const Digest&, const Digest&) = default;  // NOLINT(modernize-use-nullptr): a false alarm
  // In registers: hash tables compare at every lookup, and a call would cost as much as the rest of it.
  friend bool operator==(const Digest& a, const Digest& b) {
    uint64_t x[kDigestSize / 8];
    uint64_t y[kDigestSize / 8];
    std::memcpy(x, a.bytes.data(), kDigestSize);
    std::memcpy(y, b.bytes.data(), kDigestSize);
    return ((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3])) == 0;
  }

  template <typename H>
  friend H AbslHashValue(H h, const Digest& d) {
    uint64_t prefix;  // the digest is uniform already: eight of its bytes are hash enough
    std::memcpy(&prefix, d.bytes.data(), sizeof prefix);
    return H::combine(std::move(h), prefix);
  }
};

struct SpaceTag;
struct ChunkTag;
using SpaceId = Digest<SpaceTag>;
using ChunkKey = Digest<ChunkTag>;

extern template struct Digest<SpaceTag>;
extern template struct Digest<ChunkTag>;

}  // namespace kdn

#endif  // KDN_STORAGE_FORMAT_DIGEST_H_
