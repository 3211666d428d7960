#include "kdn-node/cluster/hot_holder.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <span>

#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr auto kHotPollInterval = std::chrono::milliseconds(200);
// Long enough for a node that has a lot to do, short enough for one that has lost its cluster.
constexpr absl::Duration kLease = absl::Seconds(60);
constexpr auto kRenewal = std::chrono::seconds(5);
constexpr auto kRetry = std::chrono::seconds(1);

}  // namespace

SteadyClock::Point HotHolder::Step() {
  const SteadyClock::Point next = pauses_.clock().Now() + kHotPollInterval;
  const std::optional<MemberView> view = ViewOf(topology_.Current(), identity_);
  if (!view.has_value()) return next;  // what is pinned stays so until its lease ends
  const std::map<ChunkKey, HotChunk>& listed = view->topology->parts().hot;
  for (const auto& [key, chunk] : listed) {
    if (pauses_.stopped()) return next;
    if (!view->IsExtraHolderOf(chunk)) continue;
    Hot& hot = hot_.try_emplace(key, Hot{.space = chunk.space}).first->second;
    if (pauses_.clock().Now() >= hot.act_at) Hold(*view, key, hot);
  }
  if (topology_.Health().ok()) {
    for (auto it = hot_.begin(); it != hot_.end();) {
      const auto still = listed.find(it->first);
      if (still != listed.end() && view->IsExtraHolderOf(still->second)) {
        ++it;
      } else {
        LetGo(*view, it->first, it->second);
        it = hot_.erase(it);
      }
    }
  }
  metrics_.SetHotChunks(
      static_cast<size_t>(std::ranges::count_if(hot_, [](const auto& each) { return each.second.lease != 0; })));
  return next;
}

void HotHolder::Hold(const MemberView& view, const ChunkKey& key, Hot& hot) {
  hot.act_at = pauses_.clock().Now() + kRetry;
  if (!store_.Describe(key).ok() && !Bring(view, key)) return;
  // It is asked for all the time: memory is its place, whatever the policy has seen of it so far.
  store_.Prefetch(hot.space, key).IgnoreError();
  const absl::StatusOr<Lease> lease = store_.Pin(hot.space, std::span(&key, 1), kLease);
  if (hot.lease != 0) store_.Unpin(hot.lease).IgnoreError();  // it may have run out
  hot.lease = lease.ok() && lease->pinned == 1 ? lease->id : 0;
  if (hot.lease == 0) {
    if (lease.ok()) store_.Unpin(lease->id).IgnoreError();
    return;
  }
  hot.act_at = pauses_.clock().Now() + kRenewal;
}

bool HotHolder::Bring(const MemberView& view, const ChunkKey& key) {
  const Topology& topology = *view.topology;
  const Partition partition = topology.PartitionOf(key);
  const NodeList readers = topology.Readers(key);
  for (const NodeSlot slot : readers.slots()) {
    if (slot == view.me || pauses_.stopped()) continue;
    const std::shared_ptr<Peer> peer = peers_.At(topology.NodeAt(slot)->address);
    // A listing says how long the chunk is to be kept, which a fetch does not.
    std::optional<PeerChunk> chunk;
    const absl::Status listed = peer->ListChunks(topology.parts().partition_bits, std::span(&partition, 1),
                                                 &pauses_.cancellation(), [&](const PeerChunk& each) {
                                                   if (each.key == key) chunk = each;
                                                   return !chunk.has_value();
                                                 });
    if (chunk.has_value() && puller_.Pull(*peer, std::span(&*chunk, 1), MoveReason::kHot).kept > 0) return true;
    if (!listed.ok() && !pauses_.stopped()) {
      spdlog::warn("cluster: hot chunk {} did not come from node {}: {}", key.ToShortHex(), topology.NodeAt(slot)->id,
                   MessageOf(listed));
    }
  }
  return false;
}

void HotHolder::LetGo(const MemberView& view, const ChunkKey& key, const Hot& hot) {
  if (hot.lease == 0) return;
  store_.Unpin(hot.lease).IgnoreError();
  if (!view.Holds(view.topology->PartitionOf(key))) store_.Delete(hot.space, key).IgnoreError();
}

}  // namespace kdn
