#include "placement/remote/held_topology.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "placement/remote/topology_source.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// When to look again whether `time` has come: clocks may part, so within an hour.
std::chrono::steady_clock::time_point SteadyIn(absl::Duration left) {
  left = std::clamp(left, absl::ZeroDuration(), absl::Hours(1));
  return std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(left);
}

class FixedTopologySource final : public TopologySource {
 public:
  explicit FixedTopologySource(TopologyPtr topology) { held_.Set(std::move(topology)); }
  TopologyPtr Current() const override { return held_.Current(); }
  TopologyPtr AwaitNewer(Epoch than, absl::Time deadline) override { return held_.AwaitNewer(than, deadline); }
  absl::Status Health() const override { return absl::OkStatus(); }

 private:
  HeldTopology held_;
};

}  // namespace

TopologyPtr HeldTopology::Current() const {
  MutexLock lock(mu_);
  return topology_;
}

TopologyPtr HeldTopology::AwaitNewer(Epoch than, absl::Time deadline) {
  MutexLock lock(mu_);
  while (true) {
    if (topology_ != nullptr && topology_->epoch() > than) return topology_;
    const absl::Duration left = deadline - Clock::Real().Now();
    if (stopped_ || left <= absl::ZeroDuration()) return nullptr;
    changed_.WaitUntil(mu_, SteadyIn(left));
  }
}

absl::Status HeldTopology::Health() const {
  MutexLock lock(mu_);
  return absl::Status(health_code_, health_message_);
}

void HeldTopology::Set(TopologyPtr topology) {
  MutexLock lock(mu_);
  topology_.swap(topology);
  changed_.NotifyAll();
}

bool HeldTopology::SetHealth(const absl::Status& health) {
  std::string message = MessageOf(health);
  MutexLock lock(mu_);
  if (health_code_ == health.code() && health_message_ == message) return false;
  health_code_ = health.code();
  health_message_ = std::move(message);
  return true;
}

void HeldTopology::Stop() {
  MutexLock lock(mu_);
  stopped_ = true;
  changed_.NotifyAll();
}

bool Pause::For(absl::Duration duration) {
  const auto until = SteadyIn(duration);
  MutexLock lock(mu_);
  while (!stopped_ && !woken_ && changed_.WaitUntil(mu_, until)) {
  }
  woken_ = false;
  return !stopped_;
}

void Pause::Wake() {
  MutexLock lock(mu_);
  woken_ = true;
  changed_.NotifyAll();
}

void Pause::Stop() {
  MutexLock lock(mu_);
  stopped_ = true;
  changed_.NotifyAll();
}

bool Pause::stopped() const {
  MutexLock lock(mu_);
  return stopped_;
}

absl::Status CheckFollows(const Topology& have, const Topology& next) {
  if (next.cluster() != have.cluster() || next.parts().cluster_id != have.parts().cluster_id) {
    return FailedPrecondition(
        "it is of cluster {} ({:016x}), what is known is of {} ({:016x}); point everyone at the same cluster's daemons",
        next.cluster(), next.parts().cluster_id, have.cluster(), have.parts().cluster_id);
  }
  if (next.epoch() < have.epoch()) {
    return FailedPrecondition("it goes backwards, from epoch {} to {}; was the registry set back?", have.epoch(),
                              next.epoch());
  }
  if (next.epoch() == have.epoch() && &next != &have && next.parts() != have.parts()) {
    return FailedPrecondition("it is another topology of epoch {}; change one only together with its epoch",
                              have.epoch());
  }
  return absl::OkStatus();
}

std::shared_ptr<TopologySource> FixedTopology(TopologyPtr topology) {
  return std::make_shared<FixedTopologySource>(std::move(topology));
}

}  // namespace kdn
