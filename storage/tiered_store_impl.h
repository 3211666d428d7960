// TieredStoreImpl: TieredStore over its tiers, and what moves chunks between them. Private to the library.
//
// tiered_store.cc opens it and keeps its books; tiered_store_put.cc takes chunks in, tiered_store_read.cc finds and
// reads them, tiered_store_inspect.cc tells of them.
//
// Whoever looks through the tiers from above may miss a chunk that moves up meanwhile: it looks again when there were
// moves (LookAgainAfterMoves).
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_STORAGE_TIERED_STORE_IMPL_H_
#define KDN_STORAGE_TIERED_STORE_IMPL_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/clock.h"
#include "storage/base/mutex.h"
#include "storage/tier/key_locks.h"
#include "storage/tier/lease_table.h"
#include "storage/tier/memory_tier.h"
#include "storage/tier/mover.h"
#include "storage/tier/read_flights.h"
#include "storage/tier/scrubber.h"
#include "storage/tier/write_back.h"
#include "storage/tiered_store.h"

namespace kdn {

class TieredStoreImpl final : public TieredStore {
 public:
  TieredStoreImpl(const TieredStoreOptions& options, const Clock& clock)
      : options_(options), clock_(clock), leases_(clock), memory_(MemoryOptions(options), Context(), options.arena) {}

  // Opens the disks; once, before anything else.
  absl::Status Start(const DiskFactory& open_disk);

  absl::Status Put(const Chunk& chunk, Ack ack, Checksums checksums) override;
  absl::Status Adopt(const Chunk& chunk, Ack ack, Checksums checksums) override;
  uint64_t SpareBytes(const SpaceId& space) override;
  std::vector<ChunkKey> Keys() override;
  absl::StatusOr<ChunkDescription> Describe(const ChunkKey& key) override;
  absl::StatusOr<std::vector<Holding>> Holdings(const ChunkKey& key) override;
  bool IsPinned(const ChunkKey& key) override { return leases_.IsPinned(key); }
  std::vector<ChunkKey> KeysOf(size_t level) override;
  absl::StatusOr<uint64_t> Examine(const ChunkKey& key, size_t level) override;
  std::vector<FoundChunk> Lookup(const SpaceId& space, std::span<const ChunkKey> keys, Fidelity least) override;
  FetchedChunk Fetch(const SpaceId& space, const ChunkKey& key, LayerRange layers, Fidelity least) override;
  absl::StatusOr<TierKind> Prefetch(const SpaceId& space, const ChunkKey& key) override;
  absl::Status Delete(const SpaceId& space, const ChunkKey& key) override;
  absl::StatusOr<Lease> Pin(const SpaceId& space, std::span<const ChunkKey> keys, absl::Duration duration) override;
  absl::Status Unpin(uint64_t lease) override { return leases_.Remove(lease); }
  void Flush() override {
    if (write_back_.has_value()) write_back_->Flush();
  }
  void Settle() override { mover_->Settle(); }
  void Scrub() override { scrubber_->Scrub(); }
  absl::StatusOr<std::vector<QuotaOutcome>> SetQuotas(const SpaceQuotas& quotas) override;
  StoreStats Stats() override;
  const std::shared_ptr<SharedArena>& arena() const override { return options_.arena; }

 private:
  static ResidentsOptions MemoryOptions(const TieredStoreOptions& options) {
    return {.budget_bytes = options.memory_bytes,
            .policy = options.memory_policy,
            .whole_chains = options.whole_chains && options.disks.empty(),
            .quotas = options.quotas};
  }
  TierContext Context() { return {.pins = &leases_, .clock = &clock_, .observer = options_.observer.get()}; }

  // tiered_store_put.cc
  // `given` with its time to live cut to what is allowed; an error when it may not be stored.
  absl::StatusOr<Chunk> Checked(const Chunk& given, Checksums checksums) const;
  // Under the chunk's key lock. `present`: what Find says of it.
  absl::Status PutChecked(Chunk chunk, Ack ack, const FoundChunk& present);
  // Where else than in the write-back queue an at least as exact chunk is held gets to know of it once more. False when
  // none of the disks holds it.
  absl::StatusOr<bool> PutWhereHeld(const Chunk& chunk, Ack ack);
  absl::Status PutOnFirstDisk(const Chunk& chunk, Ack ack);
  uint64_t SpareMemoryBytes(const SpaceId& space);
  uint64_t SpareDiskBytes(const SpaceId& space, size_t level);

  // tiered_store_read.cc
  static Miss NotHeld(const ChunkKey& key);
  // What `look` finds; once more, if it does not find what was asked for and chunks moved between tiers meanwhile.
  template <typename T>
  T LookAgainAfterMoves(const ChunkKey& key, absl::FunctionRef<T()> look);
  FoundChunk Find(const SpaceId& space, const ChunkKey& key, Fidelity least);
  FoundChunk FindOnce(const SpaceId& space, const ChunkKey& key, Fidelity least);
  // What waits to be written to the first disk; there is one.
  std::optional<Chunk> FindWaiting(const ChunkKey& key);
  FetchedChunk Read(const SpaceId& space, const ChunkKey& key, LayerRange layers, Fidelity least);
  FetchedChunk ReadOnce(const SpaceId& space, const ChunkKey& key, LayerRange layers, Fidelity least);
  absl::StatusOr<TierRead> ReadDisk(size_t level, const ManifestPtr& manifest, const ChunkKey& key, LayerRange layers);
  absl::StatusOr<TierRead> ReadAndPromote(size_t level, const ManifestPtr& manifest, const ChunkKey& key);

  // tiered_store_inspect.cc
  // Adds all keys that are visible in some tier at this moment.
  void CollectKeys(std::vector<ChunkKey>& keys);

  const TieredStoreOptions options_;  // the quotas are those of the start
  const Clock& clock_;
  Mutex quotas_mu_;  // one change of quotas at a time
  LeaseTable leases_;
  // Held by whoever changes which tiers hold a chunk: Put, Delete, promotion, demotion, write-back.
  KeyLocks locks_;
  ReadFlights flights_;
  MemoryTier memory_;
  std::vector<DiskLevel> disks_;
  // Their threads end before the tiers do, write-back's first.
  std::optional<Mover> mover_;
  std::optional<Scrubber> scrubber_;
  std::optional<WriteBack> write_back_;  // there when a disk is
  std::array<std::atomic<uint64_t>, kMissReasonCount> misses_{};
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIERED_STORE_IMPL_H_
