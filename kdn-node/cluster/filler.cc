#include "kdn-node/cluster/filler.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "storage/base/status.h"

namespace kdn {
namespace {

// How soon a new topology is seen.
constexpr auto kFillPollInterval = std::chrono::milliseconds(100);

}  // namespace

Filler::Filler(const MemberIdentity& identity, TopologySource& topology, PeerDirectory& peers, PartitionSync& sync,
               Pauses& pauses, const FillPlanOptions& options, std::function<void()> on_filled)
    : identity_(identity),
      topology_(topology),
      peers_(peers),
      sync_(sync),
      pauses_(pauses),
      on_filled_(std::move(on_filled)),
      plan_(options) {}

SteadyClock::Point Filler::Step() {
  while (!pauses_.stopped() && TakeTopology()) {
    TellFilled();
    const std::optional<FillPlan::Task> task = plan_.Next(pauses_.clock().Now());
    if (!task.has_value()) break;
    Read(*task);
  }
  return pauses_.clock().Now() + kFillPollInterval;
}

bool Filler::TakeTopology() {
  const uint64_t incarnation = identity_.incarnation();
  if (incarnation != std::exchange(incarnation_, incarnation)) {
    plan_.Clear();
    taken_ = nullptr;
  }
  const std::optional<MemberView> view = ViewOf(topology_.Current(), identity_);
  if (!view.has_value()) {
    // Whoever does not know this node may have given its place to others meanwhile.
    plan_.Clear();
    taken_ = nullptr;
    MutexLock lock(mu_);
    filled_ = {};
    return false;
  }
  if (view->topology != taken_) {
    plan_.Update(*view->topology, view->me, pauses_.clock().Now());
    peers_.KeepOnly(*view->topology);
    taken_ = view->topology;
  }
  return true;
}

void Filler::Read(const FillPlan::Task& task) {
  const NodeInfo* source = taken_->NodeAt(task.source);
  if (source == nullptr) return;
  const std::shared_ptr<Peer> peer = peers_.At(source->address);
  const PartitionSync::Result read =
      sync_.Run(*peer, taken_->parts().partition_bits, task.partitions, MoveReason::kFill);
  if (read.kept > 0) {
    spdlog::info("cluster: {} chunks of {} partitions came from node {}", read.kept, task.partitions.size(),
                 source->id);
  }
  if (read.status.ok()) return plan_.Done(task, pauses_.clock().Now());
  if (!pauses_.stopped()) {
    spdlog::warn("cluster: reading {} partitions from node {} broke off: {}", task.partitions.size(), source->id,
                 MessageOf(read.status));
  }
  plan_.Failed(task, pauses_.clock().Now());
}

void Filler::TellFilled() {
  FilledReport report = {.partitions = plan_.Filled(), .epoch = taken_->epoch()};
  bool more;
  {
    MutexLock lock(mu_);
    more = !report.partitions.empty() && report.partitions != filled_.partitions;
    filled_ = std::move(report);
  }
  if (more) on_filled_();
}

FilledReport Filler::Filled() const {
  MutexLock lock(mu_);
  return filled_;
}

}  // namespace kdn
