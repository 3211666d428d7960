// What admin.proto's messages say of spaces, keys and times, to and from the store's values.
//
// Thread-safety: pure functions.
#ifndef KDN_KDN_NODE_ADMIN_ADMIN_WIRE_H_
#define KDN_KDN_NODE_ADMIN_ADMIN_WIRE_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/base/buffer.h"
#include "storage/base/status.h"
#include "storage/format/digest.h"

namespace kdn {

inline std::string DigestToWire(const auto& digest) { return std::string(AsStringView(digest.span())); }

inline uint64_t WholeMilliseconds(absl::Duration duration) {
  return static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Milliseconds(duration)));
}

// A chunk's key, or nothing for empty bytes.
inline absl::StatusOr<std::optional<ChunkKey>> ParseOptionalKey(const char* field, const std::string& bytes) {
  if (bytes.empty()) return std::nullopt;
  absl::StatusOr<ChunkKey> key = ChunkKey::FromBytes(AsBytes(bytes));
  if (!key.ok()) return Annotate(key.status(), field);
  return *key;
}

inline absl::StatusOr<std::optional<SpaceId>> ParseOptionalSpace(const std::string& bytes) {
  if (bytes.empty()) return std::nullopt;
  absl::StatusOr<SpaceId> space = SpaceId::FromBytes(AsBytes(bytes));
  if (!space.ok()) return Annotate(space.status(), "space_id");
  return *space;
}

}  // namespace kdn

#endif  // KDN_KDN_NODE_ADMIN_ADMIN_WIRE_H_
