#include <algorithm>
#include <utility>

#include "kdn-client/call_rules.h"
#include "kdn-client/transport.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// One fetch out of a store in this process.
class EmbeddedFetch {
 public:
  EmbeddedFetch(TieredStore& store, const FetchQuery& query, absl::Time deadline, SlabSink& sink)
      : store_(store), query_(query), deadline_(deadline), sink_(sink) {}

  absl::Status ChunkMajor() {
    for (size_t i = 0; i < query_.keys.size(); ++i) {
      KDN_RETURN_IF_ERROR(CheckWanted());
      const FetchedChunk got = store_.Fetch(query_.space, query_.keys[i], query_.layers, query_.least);
      if (got.miss.reason != MissReason::kNone) {
        sink_.OnMiss(i, got.miss);
      } else if (sink_.OnChunk(i, got.manifest, got.tier)) {
        Deliver(i, got);
      }
    }
    return absl::OkStatus();
  }

  // Reads layer by layer, so that no more than one layer of one chunk is held at a time.
  absl::Status LayerMajor() {
    std::vector<ManifestPtr> accepted(query_.keys.size());
    uint32_t end = query_.layers.end;
    for (uint32_t layer = query_.layers.begin; layer < end; ++layer) {
      uint32_t last_layer = 0;
      for (size_t i = 0; i < query_.keys.size(); ++i) {
        KDN_RETURN_IF_ERROR(CheckWanted());
        const bool first = layer == query_.layers.begin;
        if (first || accepted[i] != nullptr) LayerOf(i, layer, first, accepted[i]);
        if (accepted[i] != nullptr) last_layer = std::max(last_layer, accepted[i]->slabs.back().layer);
      }
      end = std::min(end, last_layer + 1);
    }
    return absl::OkStatus();
  }

 private:
  void LayerOf(size_t chunk, uint32_t layer, bool first, ManifestPtr& accepted) {
    const LayerRange range = {.begin = layer, .end = layer + 1};
    const FetchedChunk got = store_.Fetch(query_.space, query_.keys[chunk], range, query_.least);
    Miss miss = got.miss;
    if (miss.reason == MissReason::kNone && !first && *got.manifest != *accepted) {
      miss = {MissReason::kInternal, "the chunk was replaced while it was being fetched"};
    }
    if (miss.reason != MissReason::kNone) {
      accepted = nullptr;
      return sink_.OnMiss(chunk, miss);
    }
    if (first && sink_.OnChunk(chunk, got.manifest, got.tier)) accepted = got.manifest;
    if (accepted != nullptr) Deliver(chunk, got);
  }

  absl::Status CheckWanted() const {
    if (query_.cancel != nullptr && query_.cancel->cancelled()) return Cancelled("the fetch was cancelled");
    return CheckTime(deadline_);
  }

  void Deliver(size_t chunk, const FetchedChunk& got) {
    for (const SlabBytes& slab : got.slabs) sink_.OnPart(chunk, slab.index, 0, slab.bytes);
  }

  TieredStore& store_;
  const FetchQuery& query_;
  const absl::Time deadline_;
  SlabSink& sink_;
};

class EmbeddedTransport final : public Transport {
 public:
  explicit EmbeddedTransport(std::shared_ptr<TieredStore> store) : store_(std::move(store)) {}

  absl::StatusOr<std::vector<FoundChunk>> Lookup(const SpaceId& space, std::span<const ChunkKey> keys, Fidelity least,
                                                 absl::Time deadline) override {
    KDN_RETURN_IF_ERROR(CheckTime(deadline));
    return store_->Lookup(space, keys, least);
  }

  absl::Status Fetch(const FetchQuery& query, absl::Time deadline, SlabSink& sink) override {
    EmbeddedFetch fetch(*store_, query, deadline, sink);
    return query.layer_major ? fetch.LayerMajor() : fetch.ChunkMajor();
  }

  absl::StatusOr<std::vector<absl::Status>> Store(std::span<const Chunk> chunks, Ack ack,
                                                  absl::Time deadline) override {
    KDN_RETURN_IF_ERROR(CheckCount(chunks.size()));
    std::vector<absl::Status> stored;
    for (const Chunk& chunk : chunks) {
      absl::Status status = CheckTime(deadline);
      if (status.ok()) status = store_->Put(chunk, ack);
      stored.push_back(std::move(status));
    }
    return stored;
  }

  absl::StatusOr<std::vector<absl::Status>> Delete(const SpaceId& space, std::span<const ChunkKey> keys,
                                                   absl::Time deadline) override {
    KDN_RETURN_IF_ERROR(CheckTime(deadline));
    std::vector<absl::Status> deleted;
    for (const ChunkKey& key : keys) deleted.push_back(store_->Delete(space, key));
    return deleted;
  }

  absl::StatusOr<Lease> Pin(const SpaceId& space, std::span<const ChunkKey> keys, absl::Duration duration,
                            absl::Time deadline) override {
    KDN_RETURN_IF_ERROR(CheckCount(keys.size()));
    KDN_RETURN_IF_ERROR(CheckTime(deadline));
    return store_->Pin(space, keys, duration);
  }

  absl::Status Unpin(uint64_t lease, absl::Time deadline) override {
    KDN_RETURN_IF_ERROR(CheckTime(deadline));
    return store_->Unpin(lease);
  }

  absl::StatusOr<StoreStats> Stats(absl::Time deadline) override {
    KDN_RETURN_IF_ERROR(CheckTime(deadline));
    return store_->Stats();
  }

 private:
  const std::shared_ptr<TieredStore> store_;
};

}  // namespace

std::shared_ptr<Transport> MakeEmbeddedTransport(std::shared_ptr<TieredStore> store) {
  return std::make_shared<EmbeddedTransport>(std::move(store));
}

}  // namespace kdn
