// Chunk and its companions: the values that travel between tiers, node and client.
//
// Thread-safety: values; the bytes they share are immutable.
#ifndef KDN_STORAGE_CHUNK_H_
#define KDN_STORAGE_CHUNK_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "storage/base/buffer.h"
#include "storage/format/manifest.h"

namespace kdn {

using ManifestPtr = std::shared_ptr<const Manifest>;

// How whoever stored a chunk wants it kept.
struct Retention {
  absl::Time expires = absl::InfiniteFuture();  // not delivered from then on; in whole milliseconds on disk
  bool lossy_allowed = false;                   // a colder tier may keep it by a lossy codec

  bool ExpiredAt(absl::Time now) const { return expires <= now; }
  friend bool operator==(const Retention&, const Retention&) = default;
};

// What holds when a chunk is stored twice: the later end, and a lossy codec only where both allow it.
Retention Merge(const Retention& a, const Retention& b);

// A whole chunk: its manifest and all its encoded slabs, in the manifest's order.
struct Chunk {
  ManifestPtr manifest;
  std::vector<SharedBuffer> slabs;
  Retention retention = {};
};

// That `encoded` is slab `index` of `manifest`, by size and checksum. DATA_LOSS naming chunk and slab.
absl::Status VerifySlab(const Manifest& manifest, size_t index, ByteSpan encoded);
// That `chunk` has every slab of its manifest, each as VerifySlab wants it. INVALID_ARGUMENT when one is missing.
absl::Status VerifySlabs(const Chunk& chunk);

// What a store's acknowledgement means.
enum class Ack : uint8_t {
  kMemory = 1,   // held in memory; may be lost when the process dies
  kDurable = 2,  // survives kill -9 and power loss
};

// Who asks for chunks; demand is what engines ask for. The numbers are part of the protocol.
enum class Asker : uint8_t {
  kEngine = 1,
  kNode = 2,      // that fills, repairs or rebalances what it holds
  kOperator = 3,  // somebody who looks, copies or checks
};

// Where a chunk was found. The numbers are part of the protocol.
enum class TierKind : uint8_t {
  kNone = 0,
  kMemory = 1,
  kDisk = 2,      // the first disk tier
  kColdDisk = 4,  // any disk tier below it (3 is taken by a tier to come)
};
std::string_view TierKindName(TierKind tier);

// KV layers [begin, end), cut to those that a chunk has.
struct LayerRange {
  uint32_t begin = 0;
  uint32_t end = std::numeric_limits<uint32_t>::max();

  bool Contains(uint32_t layer) const { return layer >= begin && layer < end; }
  friend bool operator==(const LayerRange&, const LayerRange&) = default;
};

// KV heads [begin, end) of each layer. All of them unless it says otherwise: an end left open is the layer's last head.
struct HeadRange {
  uint32_t begin = 0;
  uint32_t end = std::numeric_limits<uint32_t>::max();

  // The same for a layer of `heads` heads, its end not left open; nothing when it is no range of them.
  std::optional<HeadRange> Of(uint32_t heads) const;
  uint32_t Count() const { return end - begin; }
  friend bool operator==(const HeadRange&, const HeadRange&) = default;
};

// Why a chunk was not delivered. An engine answers every one of them by computing. The numbers are part of the
// protocol.
enum class MissReason : uint8_t {
  kNone = 0,          // a hit
  kNotFound = 1,      // no tier holds the key
  kWrongSpace = 2,    // the key is held for another space
  kFidelity = 3,      // held, but less exact than was asked for
  kCorrupt = 4,       // a checksum or a decoder refused the bytes; nothing of them was delivered
  kGeometry = 5,      // the manifest does not describe a chunk of this space
  kUnknownCodec = 6,  // encoded by a codec that this build does not have
  kDeadline = 7,      // not delivered in time
  kUnreachable = 8,   // no node answered
  kRefused = 9,       // the node was overloaded or out of budget
  kCancelled = 10,    // the caller gave up
  kProtocol = 11,     // the peer broke the protocol
  kInternal = 12,     // anything else; the detail says what
};
inline constexpr uint8_t kMissReasonCount = 13;
std::string_view MissReasonName(MissReason reason);

// A miss and the sentence that explains it.
struct Miss {
  MissReason reason = MissReason::kNone;
  std::string detail;
};

// The reason that stands for a failed call. OK gives kNone.
Miss MissFromStatus(const absl::Status& status);

}  // namespace kdn

#endif  // KDN_STORAGE_CHUNK_H_
