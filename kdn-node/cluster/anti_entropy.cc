#include "kdn-node/cluster/anti_entropy.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <memory>
#include <optional>

#include "storage/base/status.h"

namespace kdn {
namespace {

// How far an interval may be from the one that was asked for, so that nodes that started together do not go on so.
constexpr double kJitter = 0.2;
constexpr auto kIdle = std::chrono::seconds(1);

}  // namespace

AntiEntropy::AntiEntropy(const MemberIdentity& identity, TopologySource& topology, PeerDirectory& peers,
                         PartitionSync& sync, MemberMetrics& metrics, Pauses& pauses, absl::Duration interval,
                         uint64_t seed)
    : identity_(identity),
      topology_(topology),
      peers_(peers),
      sync_(sync),
      metrics_(metrics),
      pauses_(pauses),
      interval_(interval),
      random_(seed),
      next_(NextTime()) {}

SteadyClock::Point AntiEntropy::NextTime() {
  const double factor = std::uniform_real_distribution<double>(1 - kJitter, 1 + kJitter)(random_);
  return pauses_.clock().Now() + absl::ToChronoNanoseconds(interval_ * factor);
}

SteadyClock::Point AntiEntropy::Step() {
  if (interval_ <= absl::ZeroDuration()) return pauses_.clock().Now() + kIdle;
  if (pauses_.clock().Now() < next_) return next_;
  if (const std::optional<MemberView> view = ViewOf(topology_.Current(), identity_)) CompareWithNext(*view);
  return next_ = NextTime();
}

void AntiEntropy::CompareWithNext(const MemberView& view) {
  const Topology& topology = *view.topology;
  std::map<NodeSlot, std::vector<Partition>> shared;
  for (Partition partition = 0; partition < topology.partitions(); ++partition) {
    if (topology.MoveOf(partition) != nullptr || !view.Owns(partition)) continue;
    for (const NodeInfo* other : view.SettledOthers(partition)) shared[other->slot].push_back(partition);
  }
  if (shared.empty()) return;
  auto turn = last_ == kNoSlot ? shared.begin() : shared.upper_bound(last_);
  if (turn == shared.end()) turn = shared.begin();
  last_ = turn->first;
  const NodeInfo& other = *topology.NodeAt(last_);
  const std::shared_ptr<Peer> peer = peers_.At(other.address);
  const PartitionSync::Result result =
      sync_.Run(*peer, topology.parts().partition_bits, turn->second, MoveReason::kRepair);
  metrics_.DigestMismatches(result.differing);
  if (result.kept > 0)
    spdlog::info("cluster: {} chunks that were missing here came from node {}", result.kept, other.id);
  if (!result.status.ok() && !pauses_.stopped()) {
    spdlog::warn("cluster: comparing chunks with node {} broke off: {}", other.id, MessageOf(result.status));
  }
}

}  // namespace kdn
