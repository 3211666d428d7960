// FetchSink: puts what a fetch delivers into an engine's memory, and believes nothing that it has not checked:
// geometry, place in the chain, codec, fidelity, order of the parts, checksum.
//
//   FetchSink sink(id, space, chunks, view, {.least = Fidelity::kExact});
//   absl::Status ended = transport->Fetch(query, deadline, sink);
//   std::vector<ChunkOutcome> outcomes = std::move(sink).Finish(ended);
//
// A raw slab goes straight into its place, one copy in all, unless elements change their type. Any other is gathered
// first, unless it comes in one part, then verified, then decoded: into its place where that is in one piece, otherwise
// into a buffer that is then copied to where it belongs.
// What was gathered is decoded on other threads while the next slabs arrive; when they have enough to do, on this one.
// A chunk is a hit once every slab asked for was verified and written; from then on nothing that the peer says changes
// it.
//
// Thread-safety: one thread at a time. Memory is written to by others too, but not after Finish.
#ifndef KDN_KDN_CLIENT_FETCH_SINK_H_
#define KDN_KDN_CLIENT_FETCH_SINK_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "kdn-client/client.h"
#include "kdn-client/kv_view.h"
#include "kdn-client/transport.h"
#include "kdn-client/verifying_writer.h"
#include "storage/base/mutex.h"
#include "storage/format/codec.h"

namespace kdn {

class FetchSink final : public SlabSink {
 public:
  struct Want {
    LayerRange layers = {};
    Fidelity least = Fidelity::kExact;
    uint32_t token_offset = 0;                          // added to each chunk's first_token
    std::function<void(uint32_t layer)> on_layer = {};  // as FetchOptions has it
  };

  // `space`, `chunks` and `view` must outlive the sink, and have passed KvView's checks.
  FetchSink(const SpaceId& id, const KvSpace& space, std::span<const ChunkRef> chunks, const KvView& view, Want want);

  // Waits for what is being decoded.
  ~FetchSink() override;
  FetchSink(const FetchSink&) = delete;
  FetchSink& operator=(const FetchSink&) = delete;

  bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) override;
  MutableByteSpan Room(size_t chunk, uint32_t slab) override;
  void OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) override;
  void OnMiss(size_t chunk, const Miss& miss) override;

  // How each chunk ended, given how the fetch ended: what is not whole by now is a miss. `*work_apart`, unless null, is
  // the processor time of other threads that went into it.
  std::vector<ChunkOutcome> Finish(const absl::Status& fetch, absl::Duration* work_apart = nullptr) &&;

 private:
  enum class Phase : uint8_t { kAwaited, kArriving, kHit, kMissed };
  struct Arrival {
    Phase phase = Phase::kAwaited;
    ManifestPtr manifest;
    uint32_t next_slab = 0;  // the slab that must come next, among those asked for
    uint32_t decoding = 0;   // slabs that came and are not in place yet
    ChunkOutcome outcome;
  };
  // A slab on its way to its place.
  struct Slab {
    size_t chunk = 0;
    const SlabInfo* info = nullptr;  // of the arrival's manifest
    const Codec* codec = nullptr;
    SlabPlace place;

    // Whether parts can be written as they come.
    bool Streams() const { return info->codec == CodecId::kRaw && !place.Converts(); }
  };
  // The slab whose parts are arriving. Slabs come one after another, so there is one at most.
  struct OpenSlab : Slab {
    bool open = false;
    uint64_t received = 0;
  };
  // A buffer that was given out by Room.
  struct GivenRoom {
    uint64_t size;  // of the slab; the buffer may be larger
    Buffer buffer;
  };
  struct Decoded {
    Slab slab;
    ManifestPtr manifest;  // that the slab is described in
    absl::Status status;
    absl::Duration work;
    Buffer encoded;
  };

  Miss Examine(const ChunkRef& asked, const Manifest& manifest) const;
  // `manifest` with slabs that have the heads alone that were asked for described as whole ones.
  Manifest Uncut(Manifest manifest) const;
  // The first slab at or after `slab` that was asked for; the number of slabs when there is none.
  uint32_t NextWanted(const Manifest& manifest, uint32_t slab) const;
  Slab SlabOf(size_t chunk, const SlabInfo& info) const;
  void Begin(size_t chunk, const SlabInfo& info);
  // `room`: the buffer that the slab came into, once it is whole and `in_room`.
  void Append(ByteSpan part, bool in_room, Buffer room);
  // The open slab has arrived.
  Slab Close();
  void DecodeGathered(const Slab& slab, Buffer encoded);
  void Complete(const Slab& slab, const absl::Status& verified);
  void CompleteDecoded();
  void Fail(size_t chunk, MissReason reason, std::string detail);
  // Of at least `size` bytes.
  Buffer BufferOf(uint64_t size);
  // Whether `part` lies in the oldest room, and that room's buffer, if it is the room's end.
  Buffer TakeRoom(ByteSpan part, bool* in_room);

  const SpaceId id_;
  const KvSpace& space_;
  const std::span<const ChunkRef> chunks_;
  const KvView& view_;
  const Want want_;
  std::vector<Arrival> arrivals_;
  std::vector<uint64_t> awaited_;  // slabs of each layer, of all chunks
  OpenSlab open_;
  VerifyingWriter writer_;
  std::deque<GivenRoom> rooms_;  // in the order in which they were given out
  Buffer gathered_;              // of the open slab, where its parts are copied
  Buffer decoded_;               // reused from slab to slab
  std::vector<Buffer> spare_;
  size_t apart_ = 0;  // slabs given to other threads and not yet taken back from them
  absl::Duration work_apart_;

  Mutex mu_;
  CondVar decoded_one_;
  size_t decoding_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<Decoded> done_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_FETCH_SINK_H_
