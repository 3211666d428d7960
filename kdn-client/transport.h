// Transport: how a client reaches chunks. RemoteTransport speaks gRPC to one node; EmbeddedTransport calls a
// TieredStore in the same process. Both obey the same contract, so that a client cannot tell them apart but by speed.
//
// Thread-safety: all methods may be called from any thread, also at once.
#ifndef KDN_KDN_CLIENT_TRANSPORT_H_
#define KDN_KDN_CLIENT_TRANSPORT_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/cancellation.h"
#include "storage/chunk.h"
#include "storage/format/codec.h"
#include "storage/prefetch_queue.h"
#include "storage/tiered_store.h"

namespace kdn {

struct FetchQuery {
  SpaceId space;
  std::span<const ChunkKey> keys;
  LayerRange layers = {};
  Fidelity least = Fidelity::kExact;
  bool layer_major = false;
  Cancellation* cancel = nullptr;  // ends the fetch early with CANCELLED
  const Codec* codec = nullptr;    // as FetchOptions has it; null: as they are stored
  // That should come alone. A slab comes with these, and a shape that says how many they are, or with all its heads.
  HeadRange heads = {};
  // The caller has just looked the keys up and found them, be it at another node than the one that is asked now.
  // Nothing but what nodes tell of requests depends on it.
  bool looked_up = false;
};

// Receives a fetch, on one thread at a time, in the order in which it arrives. Sinks copy what they keep.
class SlabSink {
 public:
  virtual ~SlabSink() = default;
  // A sink for the same fetch, through which another thread may deliver other chunks at the same time: each chunk comes
  // through one of them from its beginning to its end. It goes before this one does. Null: this sink takes one thread
  // only.
  virtual std::unique_ptr<SlabSink> Fork() { return nullptr; }
  // A chunk is about to come. Returning false skips its slabs (they are dropped on arrival).
  virtual bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) = 0;
  // A part of an encoded slab. Slabs come one after another, within a chunk in the manifest's order; the parts of a
  // slab come in order, without gaps. `part` is valid for the call only.
  virtual void OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) = 0;
  // Memory where the transport may put the bytes of an encoded slab as they come, all of it or none: OnPart is then
  // called with parts that lie there. Asked for in the order in which slabs come; valid until OnPart got the slab's
  // last byte, or the fetch is over. Empty: OnPart copies.
  virtual MutableByteSpan Room(size_t /*chunk*/, uint32_t /*slab*/) { return {}; }
  // The chunk will not come, or not to its end.
  virtual void OnMiss(size_t chunk, const Miss& miss) = 0;
};

// Chunks that one Store or one Pin may name; other calls take any number.
inline constexpr size_t kMaxChunksPerCall = 4096;

class Transport {
 public:
  virtual ~Transport() = default;

  // One answer per key, in order. `manifest` may be null, as answers that travel do not carry it.
  virtual absl::StatusOr<std::vector<FoundChunk>> Lookup(const SpaceId& space, std::span<const ChunkKey> keys,
                                                         Fidelity least, absl::Time deadline) = 0;

  // The same for some chunks of a prompt: positions[i] is the place of keys[i] there, in chunks from 0. Nothing but
  // what nodes tell of requests depends on them.
  virtual absl::StatusOr<std::vector<FoundChunk>> LookupPart(const SpaceId& space, std::span<const ChunkKey> keys,
                                                             std::span<const uint32_t> /*positions*/, Fidelity least,
                                                             absl::Time deadline) {
    return Lookup(space, keys, least, deadline);
  }

  // Delivers what is there to `sink`. OK: every chunk had OnChunk or OnMiss. Otherwise the stream broke: chunks not
  // fully delivered by then are misses for the reason that the status gives.
  virtual absl::Status Fetch(const FetchQuery& query, absl::Time deadline, SlabSink& sink) = 0;

  // Stores `chunks`; one status each. The outer status is for the call as a whole (unreachable, out of time, more than
  // kMaxChunksPerCall chunks).
  virtual absl::StatusOr<std::vector<absl::Status>> Store(std::span<const Chunk> chunks, Ack ack,
                                                          absl::Time deadline) = 0;

  // Says that chunks will soon be fetched, so that those on disks are brought to memory meanwhile. A hint: returns
  // without waiting for that.
  virtual absl::StatusOr<PrefetchCounts> Prefetch(const SpaceId& space, std::span<const ChunkKey> keys,
                                                  absl::Time deadline) = 0;

  virtual absl::StatusOr<std::vector<absl::Status>> Delete(const SpaceId& space, std::span<const ChunkKey> keys,
                                                           absl::Time deadline) = 0;

  // One lease over all of `keys`; INVALID_ARGUMENT when they are more than kMaxChunksPerCall.
  virtual absl::StatusOr<Lease> Pin(const SpaceId& space, std::span<const ChunkKey> keys, absl::Duration duration,
                                    absl::Time deadline) = 0;
  virtual absl::Status Unpin(uint64_t lease, absl::Time deadline) = 0;
  virtual absl::StatusOr<StoreStats> Stats(absl::Time deadline) = 0;
};

// INVALID_ARGUMENT saying what is wrong with `target`, unless it is "host:port", "[ipv6]:port" or "unix:/path".
absl::Status ValidateTarget(std::string_view target);

struct RemoteOptions {
  bool bulk = true;  // KDN's own protocol for lookups and slabs, where the node speaks it; otherwise gRPC alone
  bool shared_memory = true;  // slabs by shared memory where node and client share a machine and a user; needs `bulk`
  Asker asker = Asker::kEngine;  // who calls: what others than engines ask for is no demand in nodes' analytics
};

// To a node at `target`. Connects on first use; a node that is away is UNAVAILABLE, within the deadline. With a target
// that ValidateTarget refuses, every call fails with its status.
std::shared_ptr<Transport> MakeRemoteTransport(const std::string& target, const RemoteOptions& options = {});

// To a store in this process.
std::shared_ptr<Transport> MakeEmbeddedTransport(std::shared_ptr<TieredStore> store);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_TRANSPORT_H_
