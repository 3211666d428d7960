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
// Thread-safety: one thread at a time, and so is each fork. Memory is written to by others too, but not after Finish,
// by which forks have gone.
#ifndef KDN_KDN_CLIENT_FETCH_SINK_H_
#define KDN_KDN_CLIENT_FETCH_SINK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "kdn-client/client.h"
#include "kdn-client/kv_view.h"
#include "kdn-client/transport.h"

namespace kdn {

class FetchSink final : public SlabSink {
 public:
  struct Want {
    LayerRange layers = {};
    Fidelity least = Fidelity::kExact;
    std::span<const ChunkPlace> places = {};  // of each chunk; empty: at its first_token
    // As FetchOptions has it: on any thread that delivers, one at a time.
    std::function<void(uint32_t layer)> on_layer = {};
  };

  // `space`, `chunks` and `view` must outlive the sink, and have passed KvView's checks.
  FetchSink(const SpaceId& id, const KvSpace& space, std::span<const ChunkRef> chunks, const KvView& view, Want want);

  // Waits for what is being decoded.
  ~FetchSink() override;
  FetchSink(const FetchSink&) = delete;
  FetchSink& operator=(const FetchSink&) = delete;

  std::unique_ptr<SlabSink> Fork() override;
  bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) override;
  MutableByteSpan Room(size_t chunk, uint32_t slab) override;
  void OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) override;
  void OnMiss(size_t chunk, const Miss& miss) override;

  // How each chunk ended, given how the fetch ended: what is not whole by now is a miss. `*work_apart`, unless null, is
  // the processor time of decoding threads that went into it.
  std::vector<ChunkOutcome> Finish(const absl::Status& fetch, absl::Duration* work_apart = nullptr) &&;

 private:
  class Arrivals;  // of all chunks, for all threads that deliver
  class Stream;    // what one thread delivers

  const std::unique_ptr<Arrivals> arrivals_;
  const std::unique_ptr<Stream> stream_;  // this sink's own
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_FETCH_SINK_H_
