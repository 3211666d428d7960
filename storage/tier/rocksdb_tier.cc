#include "storage/tier/rocksdb_tier.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "storage/base/status.h"

namespace kdn {

absl::StatusOr<std::unique_ptr<RocksDbTier>> RocksDbTier::Open(const RocksDbTierOptions& options, TierHooks hooks) {
  KDN_ASSIGN_OR_RETURN(
      std::unique_ptr<ChunkDb> db,
      ChunkDb::Open(
          {.path = options.path, .direct_io = options.direct_io, .env = options.env, .files = options.files}));
  std::unique_ptr<RocksDbTier> tier(new RocksDbTier(options, std::move(hooks), std::move(db)));
  KDN_RETURN_IF_ERROR(tier->Load());
  return tier;
}

RocksDbTier::RocksDbTier(const RocksDbTierOptions& options, TierHooks hooks, std::unique_ptr<ChunkDb> db)
    : path_(options.path), budget_(options.budget_bytes), hooks_(std::move(hooks)), db_(std::move(db)) {}

absl::Status RocksDbTier::Load() {
  KDN_ASSIGN_OR_RETURN(ChunkDb::Loaded loaded, db_->Load());
  for (uint64_t i = 0; i < loaded.damaged; ++i) counters_.Corrupt();

  // Two uploads of one chunk stand when a crash came between the second's commit and the first's removal.
  std::vector<ChunkDb::Loaded::Row>& rows = loaded.rows;
  size_t kept = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (kept == 0 || rows[kept - 1].id.key != rows[i].id.key) {
      rows[kept++] = rows[i];
      continue;
    }
    ChunkDb::Loaded::Row& other = rows[kept - 1];
    const bool better = std::pair(rows[i].fidelity, rows[i].durable) > std::pair(other.fidelity, other.durable);
    const ChunkDb::Loaded::Row worse = better ? std::exchange(other, rows[i]) : rows[i];
    KDN_RETURN_IF_ERROR(db_->Remove(worse.id, worse.extent));
  }
  rows.resize(kept);

  // Uses are not written down; the order of uploads is the best that is known.
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.id.generation < b.id.generation; });
  std::vector<Removed> evicted;
  {
    MutexLock lock(mu_);
    rows_.reserve(rows.size());
    for (const ChunkDb::Loaded::Row& row : rows) {
      rows_.emplace(row.id.key, Row{.generation = row.id.generation,
                                    .extent = row.extent,
                                    .fidelity = row.fidelity,
                                    .safety = row.durable ? Safety::kDurable : Safety::kDoubtful});
      lru_.Insert(row.id.key, row.disk_bytes);
    }
    KDN_RETURN_IF_ERROR(Evict(0, ChunkKey{}, evicted));
  }
  RemoveEvicted(evicted);
  return absl::OkStatus();
}

absl::Status RocksDbTier::Put(const Chunk& chunk, Ack ack) {
  const Manifest& manifest = *chunk.manifest;
  const ChunkKey& key = manifest.key;
  KDN_ASSIGN_OR_RETURN(const std::string encoded, EncodeManifest(manifest));
  const uint64_t cost = DiskBytesOf(manifest, encoded.size());
  const auto held = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) -> const Row* {
    const auto it = rows_.find(key);
    return it != rows_.end() && it->second.fidelity >= manifest.fidelity ? &it->second : nullptr;
  };

  std::vector<Removed> evicted;
  for (bool has_room = false; !has_room;) {
    Row not_durable;
    {
      MutexLock lock(mu_);
      if (const Row* row = held()) {
        lru_.Touch(key);
        if (ack != Ack::kDurable || row->safety == Safety::kDurable) return absl::OkStatus();
        not_durable = *row;
      } else {
        const absl::Status room = Evict(cost, key, evicted);
        if (!room.ok()) {
          counters_.Refused();
          return room;
        }
        reserved_ += cost;
        has_room = true;
      }
    }
    if (has_room) break;
    const absl::Status durable = MakeDurable(key, not_durable);
    if (!absl::IsNotFound(durable)) return durable;
  }
  RemoveEvicted(evicted);

  const UploadId id{key, db_->NextGeneration()};
  const absl::StatusOr<Extent> extent = db_->Write(id, chunk, encoded, ack == Ack::kDurable);
  Removed loser;
  Row quicker;
  {
    MutexLock lock(mu_);
    reserved_ -= cost;
    if (!extent.ok()) return extent.status();
    if (const Row* row = held()) {
      quicker = *row;
      loser = {id, *extent};  // another upload of the chunk was quicker
    } else {
      Row& row_of_key = rows_[key];
      if (row_of_key.generation != 0) loser = {{key, row_of_key.generation}, row_of_key.extent};
      row_of_key = {.generation = id.generation,
                    .extent = *extent,
                    .fidelity = manifest.fidelity,
                    .safety = ack == Ack::kDurable ? Safety::kDurable : Safety::kWritten};
      lru_.Insert(key, cost);
    }
  }
  counters_.Put(cost);
  if (loser.id.generation != 0) {
    if (const absl::Status removed = db_->Remove(loser.id, loser.extent); !removed.ok()) {
      spdlog::warn("{}; what chunk {} replaced is removed later", MessageOf(removed), key.ToShortHex());
    }
  }
  if (quicker.generation != 0 && ack == Ack::kDurable) return Put(chunk, ack);  // sees to it that that one is durable
  return absl::OkStatus();
}

absl::Status RocksDbTier::Evict(uint64_t bytes, const ChunkKey& spared, std::vector<Removed>& evicted) {
  const uint64_t wanted = lru_.bytes() + reserved_ + bytes;
  const uint64_t excess = wanted > budget_ ? wanted - budget_ : 0;
  const auto keep = [&](const ChunkKey& key) { return key == spared || hooks_.pinned(key); };
  const auto victims = bytes > budget_ ? std::nullopt : lru_.Victims(excess, keep);
  if (!victims.has_value()) {
    return ResourceExhausted(
        "chunk {} needs {} bytes; the disk budget of {} bytes at {} has no room that pins leave free; raise the "
        "budget, "
        "unpin chunks or store smaller ones",
        spared.ToShortHex(), bytes, budget_, path_);
  }
  for (const Lru::Entry& victim : *victims) {
    const auto it = rows_.find(victim.key);
    evicted.push_back({{victim.key, it->second.generation}, it->second.extent});
    rows_.erase(it);
    lru_.Erase(victim.key);
    counters_.Evicted(victim.bytes);
  }
  return absl::OkStatus();
}

void RocksDbTier::RemoveEvicted(const std::vector<Removed>& evicted) {
  for (const Removed& chunk : evicted) {
    const absl::StatusOr<ManifestPtr> manifest = db_->ReadManifest(chunk.id);
    if (const absl::Status removed = db_->Remove(chunk.id, chunk.extent); !removed.ok()) {
      spdlog::warn("{}; evicted chunk {} is removed later", MessageOf(removed), chunk.id.key.ToShortHex());
    }
    if (manifest.ok()) hooks_.evicted(*manifest);
  }
}

absl::Status RocksDbTier::MakeDurable(const ChunkKey& key, const Row& row) {
  if (row.safety == Safety::kDoubtful) {
    // Reads all of it, and drops it when it is damaged: then the caller's copy takes its place.
    const absl::Status whole = ReadChunk(key, /*use=*/false, {}).status();
    if (absl::IsDataLoss(whole)) return NotFound("{}", MessageOf(whole));
    KDN_RETURN_IF_ERROR(whole);
  }
  KDN_RETURN_IF_ERROR(db_->Sync(row.extent));
  MutexLock lock(mu_);
  const auto it = rows_.find(key);
  if (it == rows_.end() || it->second.generation != row.generation) {
    return NotFound("chunk {} was removed meanwhile", key.ToShortHex());
  }
  it->second.safety = Safety::kDurable;
  return absl::OkStatus();
}

template <typename T>
absl::StatusOr<T> RocksDbTier::ReadRow(
    const ChunkKey& key, bool use,
    absl::FunctionRef<absl::StatusOr<T>(const UploadId&, const SegmentStore::Pin&)> read) {
  uint64_t tried = 0;
  while (true) {
    UploadId id{key, 0};
    SegmentStore::Pin pin;
    {
      MutexLock lock(mu_);
      if (const auto it = rows_.find(key); it != rows_.end()) {
        id.generation = it->second.generation;
        pin = db_->Hold(it->second.extent);
      }
      if (use) lru_.Touch(key);
    }
    if (id.generation == 0) return NotFound("chunk {} is not on disk", key.ToShortHex());
    absl::StatusOr<T> result = read(id, pin);
    // Rows go missing under a reader when the chunk is erased or replaced meanwhile; then the index says so. Rows of an
    // upload that still stands are lost.
    if (absl::IsNotFound(result.status())) {
      if (tried != id.generation) {
        tried = id.generation;
        continue;
      }
      result = DataLoss("chunk {}: {}", key.ToShortHex(), MessageOf(result.status()));
    }
    if (absl::IsDataLoss(result.status())) DropCorrupt(id, result.status());
    return result;
  }
}

absl::StatusOr<ManifestPtr> RocksDbTier::Find(const ChunkKey& key) {
  return ReadRow<ManifestPtr>(key, /*use=*/false,
                              [&](const UploadId& id, const SegmentStore::Pin&) { return db_->ReadManifest(id); });
}

absl::StatusOr<TierRead> RocksDbTier::ReadChunk(const ChunkKey& key, bool use, LayerRange layers) {
  return ReadRow<TierRead>(key, use, [&](const UploadId& id, const SegmentStore::Pin& pin) -> absl::StatusOr<TierRead> {
    KDN_ASSIGN_OR_RETURN(ManifestPtr manifest, db_->ReadManifest(id));
    KDN_ASSIGN_OR_RETURN(std::vector<SlabBytes> slabs, db_->ReadSlabs(pin, *manifest, layers));
    return TierRead{std::move(manifest), std::move(slabs)};
  });
}

absl::StatusOr<TierRead> RocksDbTier::Read(const ChunkKey& key, LayerRange layers) {
  absl::StatusOr<TierRead> read = ReadChunk(key, /*use=*/true, layers);
  if (read.ok()) {
    uint64_t bytes = 0;
    for (const SlabBytes& slab : read->slabs) bytes += slab.bytes.size();
    counters_.Hit(bytes);
  } else if (absl::IsNotFound(read.status())) {
    counters_.Miss();
  }
  return read;
}

void RocksDbTier::DropCorrupt(const UploadId& id, const absl::Status& why) {
  Extent extent;
  {
    MutexLock lock(mu_);
    const auto it = rows_.find(id.key);
    if (it == rows_.end() || it->second.generation != id.generation) return;  // another reader was quicker
    extent = it->second.extent;
    rows_.erase(it);
    lru_.Erase(id.key);
  }
  counters_.Corrupt();
  spdlog::warn("disk tier {}: dropped a damaged chunk: {}", path_, MessageOf(why));
  if (const absl::Status removed = db_->Remove(id, extent); !removed.ok()) {
    spdlog::warn("{}; the damaged chunk is removed later", MessageOf(removed));
  }
}

absl::Status RocksDbTier::Erase(const ChunkKey& key) {
  Removed erased;
  {
    MutexLock lock(mu_);
    const auto it = rows_.find(key);
    if (it == rows_.end()) return NotFound("chunk {} is not on disk", key.ToShortHex());
    erased = {{key, it->second.generation}, it->second.extent};
    rows_.erase(it);
    lru_.Erase(key);
  }
  return db_->Remove(erased.id, erased.extent);
}

void RocksDbTier::ForEach(absl::FunctionRef<void(const ManifestPtr&)> visit) {
  std::vector<ChunkKey> keys;
  {
    MutexLock lock(mu_);
    keys.reserve(rows_.size());
    for (const auto& [key, row] : rows_) keys.push_back(key);
  }
  for (const ChunkKey& key : keys) {
    if (const absl::StatusOr<ManifestPtr> manifest = Find(key); manifest.ok()) visit(*manifest);
  }
}

TierStats RocksDbTier::Stats() const {
  TierStats stats = counters_.Snapshot();
  MutexLock lock(mu_);
  stats.chunks = lru_.size();
  stats.bytes = lru_.bytes();
  stats.budget_bytes = budget_;
  return stats;
}

}  // namespace kdn
