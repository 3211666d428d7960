#include <algorithm>
#include <thread>
#include <utility>

#include "kdn-client/call_rules.h"
#include "kdn-client/transport.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"
#include "storage/delivery_recode.h"
#include "storage/prefetch_queue.h"

namespace kdn {
namespace {

// One fetch out of a store in this process.
class EmbeddedFetch {
 public:
  EmbeddedFetch(TieredStore& store, const FetchQuery& query, absl::Time deadline, SlabSink& sink)
      : store_(store),
        query_(query),
        deadline_(deadline),
        sink_(sink),
        recoder_(query.codec, query.least, query.heads) {}

  absl::Status ChunkMajor() {
    for (size_t i = 0; i < query_.keys.size(); ++i) {
      KDN_RETURN_IF_ERROR(CheckWanted());
      FetchedChunk got = store_.Fetch(query_.space, query_.keys[i], query_.layers, query_.least);
      recoder_.Recode(got);
      if (got.miss.reason != MissReason::kNone) {
        sink_.OnMiss(i, got.miss);
      } else if (sink_.OnChunk(i, got.manifest, got.tier)) {
        Deliver(i, got);
      }
    }
    return absl::OkStatus();
  }

  // Reads layer by layer, so that no more than one layer of one chunk is held at a time, or one chunk to recode it.
  absl::Status LayerMajor() {
    std::vector<Accepted> accepted(query_.keys.size());
    uint32_t end = query_.layers.end;
    for (uint32_t layer = query_.layers.begin; layer < end; ++layer) {
      uint32_t last_layer = 0;
      for (size_t i = 0; i < query_.keys.size(); ++i) {
        KDN_RETURN_IF_ERROR(CheckWanted());
        const bool first = layer == query_.layers.begin;
        if (first || accepted[i].stored != nullptr) LayerOf(i, layer, first, accepted[i]);
        if (accepted[i].stored != nullptr) last_layer = std::max(last_layer, accepted[i].stored->slabs.back().layer);
      }
      end = std::min(end, last_layer + 1);
    }
    return absl::OkStatus();
  }

 private:
  // A chunk that the sink takes; null when it does not, or no longer comes.
  struct Accepted {
    ManifestPtr stored;     // what the store has
    ManifestPtr announced;  // what the sink was told: the same, unless slabs are recoded
  };

  void LayerOf(size_t chunk, uint32_t layer, bool first, Accepted& accepted) {
    if (first) {
      // A manifest has the checksums of all layers, so what is recoded is recoded whole for it, and then by layer.
      FetchedChunk got =
          Read(chunk, recoder_.MayChange() ? query_.layers : LayerRange{.begin = layer, .end = layer + 1});
      if (got.miss.reason != MissReason::kNone) return sink_.OnMiss(chunk, got.miss);
      const ManifestPtr stored = got.manifest;
      recoder_.Recode(got);
      if (!sink_.OnChunk(chunk, got.manifest, got.tier)) return;
      accepted = {.stored = stored, .announced = got.manifest};
      for (const SlabBytes& slab : got.slabs) {
        if (got.manifest->slabs[slab.index].layer == layer) sink_.OnPart(chunk, slab.index, 0, slab.bytes);
      }
      return;
    }
    FetchedChunk got = Read(chunk, {.begin = layer, .end = layer + 1});
    Miss miss = got.miss;
    if (miss.reason == MissReason::kNone && !BringToAnnounced(accepted, got)) {
      miss = {MissReason::kInternal, "the chunk was replaced while it was being fetched"};
    }
    if (miss.reason != MissReason::kNone) {
      accepted = {};
      return sink_.OnMiss(chunk, miss);
    }
    Deliver(chunk, got);
  }

  // False when the layer is of another chunk, or has become something else than what was announced.
  bool BringToAnnounced(const Accepted& accepted, FetchedChunk& got) const {
    if (got.manifest != accepted.stored && *got.manifest != *accepted.stored) return false;
    if (accepted.announced == accepted.stored) return true;
    recoder_.Recode(got);
    return std::all_of(got.slabs.begin(), got.slabs.end(), [&](const SlabBytes& slab) {
      return got.manifest->slabs[slab.index] == accepted.announced->slabs[slab.index];
    });
  }

  FetchedChunk Read(size_t chunk, LayerRange layers) {
    return store_.Fetch(query_.space, query_.keys[chunk], layers, query_.least);
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
  const DeliveryRecoder recoder_;
};

// Brings chunks up on a thread of its own, which starts with the first of them.
class Prefetcher {
 public:
  explicit Prefetcher(TieredStore& store) : queue_(store, kMaxPrefetchChunks) {}
  // Finishes the chunk that it is at.
  ~Prefetcher() {
    {
      MutexLock lock(mu_);
      stopping_ = true;
    }
    arrived_.NotifyOne();
    if (thread_.joinable()) thread_.join();
  }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  PrefetchCounts Add(const SpaceId& space, std::span<const ChunkKey> keys) {
    return queue_.Add(space, keys, [this] {
      MutexLock lock(mu_);
      if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
      ++to_run_;
      arrived_.NotifyOne();
      return true;
    });
  }

 private:
  static constexpr size_t kMaxPrefetchChunks = 256;

  void Run() {
    while (true) {
      {
        MutexLock lock(mu_);
        while (to_run_ == 0 && !stopping_) arrived_.Wait(mu_);
        if (stopping_) return;
        --to_run_;
      }
      queue_.RunOne();
    }
  }

  PrefetchQueue queue_;
  Mutex mu_;
  CondVar arrived_;
  size_t to_run_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // started under mu_
};

class EmbeddedTransport final : public Transport {
 public:
  explicit EmbeddedTransport(std::shared_ptr<TieredStore> store) : store_(std::move(store)), prefetcher_(*store_) {}

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

  absl::StatusOr<PrefetchCounts> Prefetch(const SpaceId& space, std::span<const ChunkKey> keys,
                                          absl::Time deadline) override {
    KDN_RETURN_IF_ERROR(CheckTime(deadline));
    return prefetcher_.Add(space, keys);
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
  Prefetcher prefetcher_;
};

}  // namespace

std::shared_ptr<Transport> MakeEmbeddedTransport(std::shared_ptr<TieredStore> store) {
  return std::make_shared<EmbeddedTransport>(std::move(store));
}

}  // namespace kdn
