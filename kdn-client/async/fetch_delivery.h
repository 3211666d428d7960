// FetchDelivery: lets what several replicas send, one after another, into the sink of one fetch. It knows how far each
// chunk has come, so that another replica can go on where one broke off, and it closes: from then on the sink is not
// touched, whatever is still on its way.
//
// A replica that takes over sends a chunk from its beginning, or from a layer's; what the sink has of it is left out.
// That is possible because replicas hold the same bytes. Where the manifests differ in what is still to come (one holds
// the chunk by another codec), a chunk that has begun is a miss.
//
// Thread-safety: all methods may be called from any thread. The sink is used by one thread at a time.
#ifndef KDN_KDN_CLIENT_ASYNC_FETCH_DELIVERY_H_
#define KDN_KDN_CLIENT_ASYNC_FETCH_DELIVERY_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kdn-client/transport.h"
#include "storage/base/mutex.h"
#include "storage/chunk.h"

namespace kdn {

class FetchDelivery {
 public:
  // Chunks that are still wanted, and the layers of them.
  struct Rest {
    std::vector<size_t> chunks;
    LayerRange layers;
  };

  // For a fetch of `layers` of `chunks` chunks. `sink` is not used after Close.
  FetchDelivery(size_t chunks, LayerRange layers, SlabSink& sink);

  // As SlabSink; only for the one replica whose answers count. OnChunk may return false because there is nothing to do.
  bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier);
  void OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part);
  void OnMiss(size_t chunk, const Miss& miss);

  // What is to be asked for next: a chunk alone as long as a slab of it has come in part, since sinks want a slab's
  // parts without other slabs between them. No chunks: all have come, or were missed.
  Rest Wanted();

  void Close();

 private:
  struct Progress {
    ManifestPtr manifest;  // once it was announced
    bool over = false;     // came, was missed, or is not wanted
    uint32_t slab = 0;     // the next one that must come …
    uint64_t offset = 0;   // … from here
  };
  void SeekSlab(Progress& progress) const;
  // Whether `manifest` tells of what is still to come of a chunk as the one that it began with does.
  bool SameRest(const Progress& progress, const Manifest& manifest) const;

  const LayerRange layers_;
  Mutex mu_;
  SlabSink* sink_ ABSL_GUARDED_BY(mu_);  // null once closed
  std::vector<Progress> progress_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_ASYNC_FETCH_DELIVERY_H_
