#include "storage/tier/rocksdb_tier.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr size_t kDiskQuotaStep = 256;  // chunks that one hold of the lock moves or lets go of, when quotas change

// Said often, and to callers that know the key: it costs next to nothing.
absl::Status NotOnDisk() { return NotFound("not on disk"); }

ChunkFacts RowFacts(const ChunkKey& key, const IndexRow& what) {
  return {.key = key,
          .parent = what.parent,
          .first_token = what.first_token,
          .tokens = what.tokens,
          .bytes = what.DiskBytes(),
          .recompute_cost = RecomputeCost(what.first_token, what.tokens)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<RocksDbTier>> RocksDbTier::Open(const RocksDbTierOptions& options,
                                                               const TierContext& context) {
  KDN_ASSIGN_OR_RETURN(
      std::unique_ptr<ChunkDb> db,
      ChunkDb::Open(
          {.path = options.path, .direct_io = options.direct_io, .env = options.env, .files = options.files}));
  std::unique_ptr<RocksDbTier> tier(new RocksDbTier(options, context, std::move(db)));
  KDN_RETURN_IF_ERROR(tier->Load());
  return tier;
}

RocksDbTier::RocksDbTier(const RocksDbTierOptions& options, const TierContext& context, std::unique_ptr<ChunkDb> db)
    : path_(options.path),
      kind_(options.kind),
      context_(context),
      db_(std::move(db)),
      residents_(options.residents, *context.pins) {}

absl::Status RocksDbTier::Load() {
  KDN_ASSIGN_OR_RETURN(ChunkDb::Loaded loaded, db_->Load());
  for (uint64_t i = 0; i < loaded.damaged; ++i) counters_.Corrupt();

  // Two uploads of one chunk stand when a crash came between the second's commit and the first's removal.
  using Loaded = ChunkDb::Loaded::Row;
  std::vector<Loaded>& rows = loaded.rows;
  size_t kept = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (kept == 0 || rows[kept - 1].id.key != rows[i].id.key) {
      rows[kept++] = rows[i];
      continue;
    }
    Loaded& other = rows[kept - 1];
    const auto rank = [](const Loaded& row) { return std::pair(row.what.fidelity, row.what.durable); };
    const Loaded worse = rank(rows[i]) > rank(other) ? std::exchange(other, rows[i]) : rows[i];
    KDN_RETURN_IF_ERROR(db_->Remove(worse.id, worse.what.extent));
  }
  rows.resize(kept);

  // Uses are not written down; the order of uploads is the best that is known.
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.id.generation < b.id.generation; });
  std::vector<Removed> removed;
  {
    MutexLock lock(mu_);
    rows_.Reserve(rows.size());
    for (const auto& [id, what] : rows) {
      const Residents::Share share = residents_.ShareOf(what.space);
      rows_.Set(id.key, Row{.generation = id.generation,
                            .extent = what.extent,
                            .share = share,
                            .fidelity = what.fidelity,
                            .safety = what.durable ? Safety::kDurable : Safety::kDoubtful,
                            .retention = what.retention});
      residents_.Insert(share, RowFacts(id.key, what), what.retention.expires);
    }
    // Whatever is over the budget, or over a quota, can go: nothing is pinned yet.
    for (Residents::Share share = 0; share < residents_.shares(); ++share) {
      KDN_RETURN_IF_ERROR(Reserve(share, 0, ChunkKey{}, removed));
    }
  }
  Remove(removed).IgnoreError();
  return absl::OkStatus();
}

const RocksDbTier::Row* RocksDbTier::FindLive(const ChunkKey& key) const {
  const Row* row = rows_.Find(key);
  if (row == nullptr || row->retention.expires == absl::InfiniteFuture()) return row;
  return row->retention.ExpiredAt(context_.clock->Now()) ? nullptr : row;
}

absl::Status RocksDbTier::Put(const Chunk& chunk, Ack ack) {
  const Manifest& manifest = *chunk.manifest;
  const ChunkKey& key = manifest.key;
  KDN_ASSIGN_OR_RETURN(const std::string encoded, EncodeManifest(manifest));
  const uint64_t cost = DiskBytesOf(manifest, encoded.size());
  const auto held = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) -> const Row* {
    const Row* row = FindLive(key);
    return row != nullptr && row->fidelity >= manifest.fidelity ? row : nullptr;
  };

  std::vector<Removed> removed;
  Residents::Share share = 0;
  bool durable = ack == Ack::kDurable;
  absl::Status room;
  for (bool has_room = false; !has_room;) {
    Row not_durable;
    bool merge = false;
    {
      MutexLock lock(mu_);
      share = residents_.ShareOf(manifest.space);
      if (const Row* row = held()) {
        residents_.Access(row->share, key);
        merge = Merge(row->retention, chunk.retention) != row->retention;
        if (!merge && (ack != Ack::kDurable || row->safety == Safety::kDurable)) return absl::OkStatus();
        not_durable = *row;
      } else {
        room = Reserve(share, cost, key, removed);
        if (!room.ok()) break;
        has_room = true;
        // What takes the place of a durable chunk must be no less so.
        const Row* replaced = rows_.Find(key);
        durable = durable || (replaced != nullptr && replaced->safety == Safety::kDurable);
      }
    }
    if (has_room) break;
    absl::Status kept = merge ? MergeRetention(key, chunk.retention) : absl::OkStatus();
    if (kept.ok() && ack == Ack::kDurable) kept = MakeDurable(key, not_durable);
    if (!absl::IsNotFound(kept)) return kept;
  }
  Remove(removed).IgnoreError();
  if (!room.ok()) {
    counters_.Refused();
    return room;
  }

  const UploadId id{key, db_->NextGeneration()};
  const absl::StatusOr<Extent> extent = db_->Write(id, chunk, encoded, durable);
  std::vector<Removed> losers;
  Row quicker;
  {
    MutexLock lock(mu_);
    residents_.Release(share, cost);
    if (!extent.ok()) return extent.status();
    if (const Row* row = held()) {
      quicker = *row;
      losers.push_back({id, *extent});  // another upload of the chunk was quicker
      ++removing_[key];
    } else {
      // Quotas may have changed meanwhile.
      const Residents::Share before = std::exchange(share, residents_.ShareOf(manifest.space));
      TakeRow(key, losers);
      rows_.Set(key, {.generation = id.generation,
                      .extent = *extent,
                      .share = share,
                      .fidelity = manifest.fidelity,
                      .safety = durable ? Safety::kDurable : Safety::kWritten,
                      .retention = chunk.retention});
      residents_.Insert(share, FactsOf(manifest, cost), chunk.retention.expires);
      if (share != before) TakeGone(residents_.Trim(kDiskQuotaStep), losers);
    }
  }
  counters_.Put(cost);
  Remove(losers).IgnoreError();
  if (quicker.generation != 0 && ack == Ack::kDurable) return Put(chunk, ack);  // sees to it that that one is durable
  return absl::OkStatus();
}

bool RocksDbTier::Admits(const Manifest& manifest) {
  const absl::StatusOr<std::string> encoded = EncodeManifest(manifest);
  if (!encoded.ok()) return false;
  const uint64_t cost = DiskBytesOf(manifest, encoded->size());
  MutexLock lock(mu_);
  const bool admits = residents_.Admits(residents_.ShareOf(manifest.space), FactsOf(manifest, cost));
  if (!admits) counters_.Bypassed();
  return admits;
}

absl::Status RocksDbTier::Reserve(Residents::Share share, uint64_t bytes, const ChunkKey& spared,
                                  std::vector<Removed>& removed) {
  const Residents::Reserved reserved = residents_.Reserve(share, bytes, spared, context_.clock->Now());
  TakeGone(reserved.gone, removed);
  return Annotate(reserved.status, fmt::format("disk tier {}", path_));
}

void RocksDbTier::TakeRow(const ChunkKey& key, std::vector<Removed>& removed) {
  const Row* row = rows_.Find(key);
  if (row == nullptr) return;
  removed.push_back({{key, row->generation}, row->extent});
  rows_.Erase(key);
  ++removing_[key];
}

void RocksDbTier::TakeGone(const std::vector<Residents::Gone>& gone, std::vector<Removed>& removed) {
  for (const Residents::Gone& chunk : gone) {
    TakeRow(chunk.key, removed);
    chunk.expired ? counters_.Expired() : counters_.Evicted(chunk.bytes);
    if (context_.observer == nullptr) continue;
    context_.observer->ChunkLeft(kind(), chunk.key, chunk.bytes, chunk.expired ? LeftBy::kExpiry : LeftBy::kEviction);
  }
}

absl::Status RocksDbTier::Remove(const std::vector<Removed>& removed) {
  absl::Status result;
  for (const Removed& chunk : removed) {
    const absl::Status status = db_->Remove(chunk.id, chunk.extent);
    if (!status.ok()) {
      spdlog::warn("{}; chunk {} is removed later", MessageOf(status), chunk.id.key.ToShortHex());
      result.Update(status);
    }
    MutexLock lock(mu_);
    const auto it = removing_.find(chunk.id.key);
    if (--it->second == 0) removing_.erase(it);
  }
  if (!removed.empty()) removed_.NotifyAll();
  return result;
}

absl::Status RocksDbTier::MergeRetention(const ChunkKey& key, const Retention& retention) {
  UploadId id{key, 0};
  Retention merged;
  {
    MutexLock lock(mu_);
    Row* row = rows_.Find(key);
    if (row == nullptr) return NotFound("chunk {} was removed meanwhile", key.ToShortHex());
    merged = Merge(row->retention, retention);
    row->retention = merged;
    residents_.SetExpiry(row->share, key, merged.expires);
    id.generation = row->generation;
  }
  KDN_RETURN_IF_ERROR(db_->SetRetention(id, merged));
  {
    MutexLock lock(mu_);
    const Row* row = rows_.Find(key);
    if (row != nullptr && row->generation == id.generation) return absl::OkStatus();
  }
  // It was removed meanwhile, and its row may have come back.
  KDN_RETURN_IF_ERROR(db_->RemoveRows(id));
  return NotFound("chunk {} was removed meanwhile", key.ToShortHex());
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
  Row* synced = rows_.Find(key);
  if (synced == nullptr || synced->generation != row.generation) {
    return NotFound("chunk {} was removed meanwhile", key.ToShortHex());
  }
  synced->safety = Safety::kDurable;
  return absl::OkStatus();
}

template <typename T>
absl::StatusOr<T> RocksDbTier::ReadRow(
    const ChunkKey& key, bool use,
    absl::FunctionRef<absl::StatusOr<T>(const UploadId&, const Retention&, const SegmentStore::Pin&)> read) {
  uint64_t tried = 0;
  while (true) {
    UploadId id{key, 0};
    Retention retention;
    SegmentStore::Pin pin;
    {
      MutexLock lock(mu_);
      if (const Row* row = FindLive(key)) {
        id.generation = row->generation;
        retention = row->retention;
        pin = db_->Hold(row->extent);
        if (use) residents_.Access(row->share, key);
      }
    }
    if (id.generation == 0) return NotOnDisk();
    absl::StatusOr<T> result = read(id, retention, pin);
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
  return ReadRow<ManifestPtr>(key, /*use=*/false, [&](const UploadId& id, const Retention&, const SegmentStore::Pin&) {
    return db_->ReadManifest(id);
  });
}

absl::StatusOr<TierEntry> RocksDbTier::Describe(const ChunkKey& key) {
  return ReadRow<TierEntry>(
      key, /*use=*/false,
      [&](const UploadId& id, const Retention& retention, const SegmentStore::Pin&) -> absl::StatusOr<TierEntry> {
        KDN_ASSIGN_OR_RETURN(ManifestPtr manifest, db_->ReadManifest(id));
        return TierEntry{.manifest = std::move(manifest), .retention = retention};
      });
}

bool RocksDbTier::Has(const ChunkKey& key) {
  MutexLock lock(mu_);
  return FindLive(key) != nullptr;
}

absl::StatusOr<TierRead> RocksDbTier::ReadChunk(const ChunkKey& key, bool use, LayerRange layers) {
  return ReadRow<TierRead>(
      key, use,
      [&](const UploadId& id, const Retention& retention, const SegmentStore::Pin& pin) -> absl::StatusOr<TierRead> {
        KDN_ASSIGN_OR_RETURN(ManifestPtr manifest, db_->ReadManifest(id));
        KDN_ASSIGN_OR_RETURN(std::vector<SlabBytes> slabs, db_->ReadSlabs(pin, *manifest, layers));
        return TierRead{std::move(manifest), std::move(slabs), retention};
      });
}

absl::StatusOr<TierRead> RocksDbTier::Examine(const ChunkKey& key) { return ReadChunk(key, /*use=*/false, {}); }

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
  std::vector<Removed> removed;
  {
    MutexLock lock(mu_);
    const Row* row = rows_.Find(id.key);
    if (row == nullptr || row->generation != id.generation) return;  // another reader was quicker
    residents_.Erase(row->share, id.key);
    TakeRow(id.key, removed);
  }
  counters_.Corrupt();
  if (context_.observer != nullptr) context_.observer->ChunkLeft(kind(), id.key, 0, LeftBy::kDamage);
  spdlog::warn("disk tier {}: dropped a damaged chunk: {}", path_, MessageOf(why));
  Remove(removed).IgnoreError();
}

absl::Status RocksDbTier::Erase(const ChunkKey& key) {
  std::vector<Removed> erased;
  {
    MutexLock lock(mu_);
    if (const Row* row = rows_.Find(key)) {
      residents_.Erase(row->share, key);
      TakeRow(key, erased);
    }
  }
  const absl::Status removed = Remove(erased);
  // What was evicted or replaced a moment ago must not come back after a crash either.
  MutexLock lock(mu_);
  while (removing_.contains(key)) removed_.Wait(mu_);
  return erased.empty() ? NotOnDisk() : removed;
}

std::vector<ChunkKey> RocksDbTier::TakeSurplus(uint64_t headroom_bytes) {
  MutexLock lock(mu_);
  return residents_.Surplus(headroom_bytes);
}

void RocksDbTier::DropExpired() {
  std::vector<Removed> removed;
  {
    MutexLock lock(mu_);
    TakeGone(residents_.TakeExpired(context_.clock->Now()), removed);
  }
  Remove(removed).IgnoreError();
}

uint64_t RocksDbTier::SpareBytes(const SpaceId& space, uint64_t keep_free) {
  MutexLock lock(mu_);
  return residents_.SpareBytes(residents_.ShareOf(space), keep_free);
}

absl::Status RocksDbTier::MoveMisplaced() {
  struct Misplaced {
    SpaceId space;
    ChunkFacts facts;
  };
  absl::flat_hash_map<ChunkKey, Misplaced> misplaced;
  std::vector<bool> searched;
  std::vector<ChunkDb::Loaded::Row> some;
  const auto look = [&]() {
    MutexLock lock(mu_);
    for (const auto& [id, what] : some) {
      const Row* row = rows_.Find(id.key);
      if (row == nullptr || row->generation != id.generation) continue;
      if (residents_.ShareOf(what.space) == row->share) continue;
      searched.resize(std::max<size_t>(searched.size(), row->share + 1));
      searched[row->share] = true;
      misplaced[id.key] = {.space = what.space, .facts = RowFacts(id.key, what)};
    }
    some.clear();
  };
  KDN_RETURN_IF_ERROR(db_->ForEachRow([&](const UploadId& id, const IndexRow& what) {
    some.push_back({id, what});
    if (some.size() == kDiskQuotaStep) look();
  }));
  look();
  if (misplaced.empty()) return absl::OkStatus();

  std::vector<ChunkKey> order;
  {
    MutexLock lock(mu_);
    for (Residents::Share share = 0; share < searched.size(); ++share) {
      if (!searched[share]) continue;
      for (const ChunkKey& key : residents_.ColdestFirst(share)) {
        if (misplaced.contains(key)) order.push_back(key);
      }
    }
  }
  const absl::flat_hash_set<ChunkKey> ordered(order.begin(), order.end());
  for (const auto& [key, _] : misplaced) {
    if (!ordered.contains(key)) order.push_back(key);  // what Surplus has taken
  }
  for (size_t at = 0; at < order.size(); at += kDiskQuotaStep) {
    MutexLock lock(mu_);
    for (size_t i = at; i < std::min(at + kDiskQuotaStep, order.size()); ++i) {
      Row* row = rows_.Find(order[i]);
      if (row == nullptr) continue;
      const Misplaced& chunk = misplaced.at(order[i]);
      const Residents::Share share = residents_.ShareOf(chunk.space);
      if (share != row->share && residents_.Move(row->share, share, chunk.facts)) row->share = share;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<QuotaOutcome> RocksDbTier::SetQuotas(const SpaceQuotas& quotas) {
  {
    MutexLock lock(mu_);
    residents_.SetQuotas(quotas);
  }
  // From here on chunks only come to the share of their space.
  KDN_RETURN_IF_ERROR(MoveMisplaced());
  QuotaOutcome outcome;
  while (true) {
    std::vector<Removed> removed;
    bool more = false;
    {
      MutexLock lock(mu_);
      const std::vector<Residents::Gone> gone = residents_.Trim(kDiskQuotaStep);
      TakeGone(gone, removed);
      outcome.evicted_chunks += gone.size();
      for (const Residents::Gone& chunk : gone) outcome.evicted_bytes += chunk.bytes;
      outcome.over_bytes = residents_.OverBytes();
      more = !gone.empty();
    }
    Remove(removed).IgnoreError();
    if (!more) return outcome;
  }
}

std::vector<ChunkKey> RocksDbTier::Keys() {
  const absl::Time now = context_.clock->Now();
  std::vector<ChunkKey> keys;
  std::vector<ChunkKey> part;  // so that `keys` does not grow under the lock
  for (size_t index = 0; index < KeyMap<Row>::kParts; ++index) {
    part.clear();
    {
      MutexLock lock(mu_);
      for (const auto& [key, row] : rows_.part(index)) {
        if (!row.retention.ExpiredAt(now)) part.push_back(key);
      }
    }
    keys.insert(keys.end(), part.begin(), part.end());
  }
  return keys;
}

size_t RocksDbTier::MemoryBytes() const {
  MutexLock lock(mu_);
  return residents_.MemoryBytes() + rows_.MemoryBytes();
}

TierStats RocksDbTier::Stats() const {
  TierStats stats = counters_.Snapshot();
  MutexLock lock(mu_);
  stats.chunks = residents_.size();
  stats.bytes = residents_.bytes();
  stats.budget_bytes = residents_.budget();
  stats.quota_used = residents_.FullestShare();
  return stats;
}

}  // namespace kdn
