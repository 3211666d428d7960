#include "kdn-node/cluster/releaser.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr uint64_t kChunksPerSecond = 2000;
constexpr size_t kBatch = 256;
constexpr absl::Duration kLookupTimeout = absl::Seconds(5);
constexpr absl::Duration kStoreTimeout = absl::Seconds(30);
constexpr absl::Duration kShortestInterval = absl::Milliseconds(100);
constexpr absl::Duration kLongestInterval = absl::Seconds(10);

// As TieredStore::SpareBytes sees it, from afar.
bool HasRoomToSpare(const StoreStats& stats) {
  const TierStats& tier = stats.disks.empty() ? stats.memory : stats.disks.front();
  return tier.bytes < tier.budget_bytes - tier.budget_bytes / 20;
}

}  // namespace

Releaser::Releaser(const MemberIdentity& identity, TopologySource& topology, PeerDirectory& peers, TieredStore& store,
                   PartitionIndexCache& indexes, MemberMetrics& metrics, Pauses& pauses, absl::Duration release_after)
    : identity_(identity),
      topology_(topology),
      peers_(peers),
      store_(store),
      indexes_(indexes),
      metrics_(metrics),
      pauses_(pauses),
      release_after_(release_after),
      chunks_(kChunksPerSecond, pauses) {}

SteadyClock::Point Releaser::Step() {
  const SteadyClock::Point now = pauses_.clock().Now();
  const SteadyClock::Point next =
      now + absl::ToChronoNanoseconds(std::clamp(release_after_ / 4, kShortestInterval, kLongestInterval));
  const std::optional<MemberView> view = ViewOf(topology_.Current(), identity_);
  if (!view.has_value() || !topology_.Health().ok()) return next;

  const uint32_t bits = view->topology->parts().partition_bits;
  const std::shared_ptr<const PartitionIndex> index = indexes_.Get();
  std::vector<Partition> due;
  for (Partition partition = 0; partition < view->topology->partitions(); ++partition) {
    if (view->Holds(partition) || index->KeysOf(partition, bits).empty()) {
      foreign_since_.erase(partition);
      continue;
    }
    const SteadyClock::Point since = foreign_since_.try_emplace(partition, now).first->second;
    if (now - since >= absl::ToChronoNanoseconds(release_after_)) due.push_back(partition);
  }
  for (const Partition partition : due) {
    if (!ReleasePartition(*view, partition)) break;
  }
  return next;
}

bool Releaser::StillValid(const MemberView& view) const {
  return !pauses_.stopped() && topology_.Health().ok() && topology_.Current() == view.topology;
}

bool Releaser::ReleasePartition(const MemberView& view, Partition partition) {
  const Topology& topology = *view.topology;
  if (topology.MoveOf(partition) != nullptr) return true;
  const std::vector<const NodeInfo*> owners = view.SettledOthers(partition);
  if (owners.empty()) return true;

  std::map<SpaceId, std::vector<Held>> chunks;
  const std::shared_ptr<const PartitionIndex> index = indexes_.Get();
  for (const ChunkKey& key : index->KeysOf(partition, topology.parts().partition_bits)) {
    const auto hot = topology.parts().hot.find(key);
    if (hot != topology.parts().hot.end() && view.IsExtraHolderOf(hot->second)) continue;
    const absl::StatusOr<ChunkDescription> held = store_.Describe(key);
    if (held.ok()) chunks[held->manifest->space].push_back({.key = key, .durable = held->on_disk});
  }
  for (const auto& [space, of_space] : chunks) {
    for (size_t first = 0; first < of_space.size(); first += kBatch) {
      const auto batch = std::span(of_space).subspan(first, std::min(kBatch, of_space.size() - first));
      if (!chunks_.Take(batch.size()) || !StillValid(view)) return false;
      // The first owner that answers will do.
      absl::Status released;
      for (const NodeInfo* owner : owners) {
        released = ReleaseTo(*owner, space, batch);
        if (released.ok()) break;
      }
      if (!released.ok()) {
        spdlog::warn("cluster: chunks that other nodes own stay here for now: {}", MessageOf(released));
        return false;
      }
    }
  }
  indexes_.Outdate();
  return true;
}

absl::Status Releaser::ReleaseTo(const NodeInfo& owner, const SpaceId& space, std::span<const Held> chunks) {
  const std::shared_ptr<Peer> peer = peers_.At(owner.address);
  std::vector<ChunkKey> keys;
  for (const Held& chunk : chunks) keys.push_back(chunk.key);
  KDN_ASSIGN_OR_RETURN(
      const std::vector<FoundChunk> found,
      peer->transport().Lookup(space, keys, Fidelity::kApproximate, Clock::Real().Now() + kLookupTimeout));
  bool asked = false;
  bool takes = false;
  for (size_t i = 0; i < chunks.size(); ++i) {
    if (found[i].miss.reason != MissReason::kNone) {
      if (!std::exchange(asked, true)) {
        KDN_ASSIGN_OR_RETURN(const StoreStats stats, peer->transport().Stats(Clock::Real().Now() + kLookupTimeout));
        takes = HasRoomToSpare(stats);
      }
      if (takes) {
        KDN_RETURN_IF_ERROR(HandOver(peer->transport(), space, chunks[i]));
      } else {
        metrics_.Refused();
      }
    }
    if (store_.Delete(space, chunks[i].key).ok()) metrics_.Released();
  }
  return absl::OkStatus();
}

absl::Status Releaser::HandOver(Transport& owner, const SpaceId& space, const Held& held) {
  const FetchedChunk fetched = store_.Fetch(space, held.key, {}, Fidelity::kApproximate);
  if (fetched.miss.reason != MissReason::kNone)
    return absl::OkStatus();  // evicted, or damaged: there is nothing to give
  Chunk chunk = {.manifest = fetched.manifest, .slabs = {}, .retention = fetched.retention};
  for (const SlabBytes& slab : fetched.slabs) chunk.slabs.push_back(slab.bytes);
  const auto store = [&](Ack ack) -> absl::Status {
    KDN_ASSIGN_OR_RETURN(const std::vector<absl::Status> stored,
                         owner.Store(std::span(&chunk, 1), ack, Clock::Real().Now() + kStoreTimeout));
    return stored.front();
  };
  absl::Status stored = store(held.durable ? Ack::kDurable : Ack::kMemory);
  // An owner without disks.
  if (held.durable && absl::IsFailedPrecondition(stored)) stored = store(Ack::kMemory);
  KDN_RETURN_IF_ERROR(stored);
  metrics_.HandedOver();
  return absl::OkStatus();
}

}  // namespace kdn
