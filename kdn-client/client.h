// Client: what an engine links. One client serves one space (model, weights, adapter, dtype, geometry, tenant).
//
//   absl::StatusOr<std::unique_ptr<Client>> client = Client::Create(space, MakeRemoteTransport("127.0.0.1:7401"));
//   PrefixHit hit = (*client)->LookupPrefix(prompt, {.deadline = absl::Milliseconds(50)});
//   absl::StatusOr<FetchReport> got = (*client)->Fetch(hit.HitChunks(), kv, {.deadline = absl::Milliseconds(500)});
//   engine.PrefillFrom(got->ReadyTokens());                     // computes whatever did not come
//   (*client)->Store(hit.MissedChunks(), kv, {.ack = Ack::kMemory});
//
// Failure is a miss with a reason, inside the deadline: an engine that ignores every reason and computes what is
// missing is right. Only misuse by the caller is an error.
//
// Each call is a span of the calling thread's trace (storage/base/trace_context.h), which travels to the nodes and into
// their logs; without one it begins a trace of its own.
//
// Thread-safety: all methods may be called from any thread. A destination must not be used while it is being fetched
// into.
#ifndef KDN_KDN_CLIENT_CLIENT_H_
#define KDN_KDN_CLIENT_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/cancellation.h"
#include "kdn-client/kv_layout.h"
#include "kdn-client/transport.h"
#include "storage/base/trace_context.h"
#include "storage/chunk.h"
#include "storage/format/chunk_key.h"
#include "storage/format/kv_space.h"

namespace kdn {

struct LookupOptions {
  absl::Duration deadline = absl::Milliseconds(100);
  Fidelity least = Fidelity::kExact;
};

// How much of a prompt is held, from its front.
struct PrefixHit {
  std::vector<ChunkRef> chunks;  // all whole chunks of the prompt
  size_t hits = 0;               // the first `hits` of them are held
  Miss stopped_by;               // why the chunk after them is not (kNone when all are held)
  std::vector<TierKind> tiers;   // where each that is held was found
  TraceContext trace = {};       // as FetchReport has it

  std::span<const ChunkRef> HitChunks() const { return std::span(chunks).first(hits); }
  std::span<const ChunkRef> MissedChunks() const { return std::span(chunks).subspan(hits); }
  uint32_t HitTokens() const { return hits == 0 ? 0 : chunks[hits - 1].first_token + chunks[hits - 1].tokens; }
};

struct FetchOptions {
  absl::Duration deadline = absl::Seconds(1);
  LayerRange layers = {};
  Fidelity least = Fidelity::kExact;
  // Added to each chunk's first_token: where in the destination its tokens go. The bytes are not changed.
  uint32_t destination_token = 0;
  // Instead of that, for each chunk its own place: chunks of several segments, or parts of them, fetched at once.
  std::vector<ChunkPlace> places = {};
  // Positions of the destination that are written; what chunks hold beyond them is verified, but not written, and needs
  // no room there.
  TokenRange tokens = {};
  // A layer of all chunks, then the next layer, so that an engine can run a layer while the next ones come. Otherwise
  // all layers of a chunk, then the next chunk.
  bool layer_major = false;
  // Called with each layer of the model, in any order, once it is in place and verified for all of `chunks`: never for
  // a layer of which a chunk is missing. Called on a thread that the fetch needs, before Fetch returns; must be quick.
  std::function<void(uint32_t layer)> on_layer = {};
  Cancellation* cancel = nullptr;  // what has not come by then is missed by kCancelled
  // By which codec chunks should travel (Codec::name()); empty: as they are stored. It is a wish: what is stored
  // lossily already comes as it is, and so does everything where a lossy codec is wished that `least` or whoever stored
  // it (StoreOptions::lossy_allowed) does not allow.
  std::string codec = {};
};

struct ChunkOutcome {
  Miss miss = {};  // reason kNone: all of it is in the destination, verified
  TierKind tier = TierKind::kNone;
  uint64_t encoded_bytes = 0;  // as they came
  uint64_t raw_bytes = 0;      // as they were written: the tokens and heads that were, in the destination's dtype
};

struct FetchReport {
  std::vector<ChunkOutcome> chunks;  // one per chunk asked for, in order
  size_t ready = 0;                  // so many from the front are all in place
  uint64_t encoded_bytes = 0;
  uint64_t raw_bytes = 0;
  absl::Duration elapsed;
  absl::Duration work;  // processor time in this process: receiving, verifying, decoding and writing
  // The call's span, of the caller's trace (ScopedTrace) or of a new one. What nodes log of the call has its request
  // id, and this span as the parent. Not valid when the call was never made.
  TraceContext trace = {};

  bool AllReady() const { return ready == chunks.size(); }
};

struct StoreOptions {
  absl::Duration deadline = absl::Seconds(10);
  Ack ack = Ack::kMemory;
  std::string codec = "zstd";  // see Codec::name(); lossless codecs fall back to raw for a slab that does not shrink
  absl::Duration ttl = absl::InfiniteDuration();  // how long the chunks may be delivered; the node may allow less
  // Colder tiers may keep them by a lossy codec, and fetches that accept it may get them by one.
  bool lossy_allowed = false;
};

struct StoreReport {
  std::vector<absl::Status> chunks;  // one per chunk, in order
  uint64_t encoded_bytes = 0;
  uint64_t raw_bytes = 0;
  absl::Duration elapsed;
  TraceContext trace = {};  // as FetchReport has it

  size_t Stored() const;  // how many are OK
};

class Client {
 public:
  // INVALID_ARGUMENT naming the field when the space is not valid.
  static absl::StatusOr<std::unique_ptr<Client>> Create(KvSpace space, std::shared_ptr<Transport> transport);
  virtual ~Client() = default;

  virtual const SpaceId& space_id() const = 0;
  virtual const KvSpace& space() const = 0;

  // Looks up the whole chunks of `tokens`. Never fails: what keeps it from answering is in `stopped_by`.
  virtual PrefixHit LookupPrefix(std::span<const Token> tokens, const LookupOptions& options) = 0;

  // Looks up these chunks: one answer each, in order. Never fails: what keeps it from answering is in each miss.
  virtual std::vector<FoundChunk> Lookup(std::span<const ChunkRef> chunks, const LookupOptions& options) = 0;

  // Fetches `chunks` into `destination` (kdn-client/kv_layout.h). Where a chunk that is not reported as a hit would
  // lie, bytes are unspecified; all others that were not asked for stay as they are. INVALID_ARGUMENT when the
  // destination does not fit the space or the chunks, or there is no such codec.
  virtual absl::StatusOr<FetchReport> Fetch(std::span<const ChunkRef> chunks, const KvLayout& destination,
                                            const FetchOptions& options) = 0;

  // Encodes and stores `chunks` out of `source`, where each lies at its first_token.
  // INVALID_ARGUMENT when the source does not fit the space or the chunks or does not hold all heads, the codec is
  // unknown, or the ttl is not positive.
  virtual absl::StatusOr<StoreReport> Store(std::span<const ChunkRef> chunks, const KvLayout& source,
                                            const StoreOptions& options) = 0;

  // Says that `chunks` will soon be fetched, so that the node brings those that lie on a disk to memory. A hint, which
  // returns before that is done; what comes of it is counted.
  virtual absl::StatusOr<PrefetchCounts> Prefetch(std::span<const ChunkRef> chunks, absl::Duration deadline) = 0;

  virtual absl::StatusOr<std::vector<absl::Status>> Delete(std::span<const ChunkKey> keys, absl::Duration deadline) = 0;
  virtual absl::StatusOr<Lease> Pin(std::span<const ChunkKey> keys, absl::Duration duration,
                                    absl::Duration deadline) = 0;
  virtual absl::Status Unpin(uint64_t lease, absl::Duration deadline) = 0;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_CLIENT_H_
