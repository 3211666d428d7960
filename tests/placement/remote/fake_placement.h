// FakePlacement: a PlacementChannel that says what a test tells it to. Watches block until there is an update for them,
// or they are broken.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_TESTS_PLACEMENT_REMOTE_FAKE_PLACEMENT_H_
#define KDN_TESTS_PLACEMENT_REMOTE_FAKE_PLACEMENT_H_

#include <deque>
#include <functional>
#include <utility>
#include <vector>

#include "kdn/v1/placement.pb.h"
#include "placement/remote/placement_channel.h"
#include "placement/topology/topology_wire.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"

namespace kdn {

class FakePlacement final : public PlacementChannel {
 public:
  // What GetTopology answers, and a watch begins with, from now on; null: it is away.
  void Hold(TopologyPtr topology) {
    MutexLock lock(mu_);
    topology_ = std::move(topology);
    changed_.NotifyAll();
  }
  // Hands this to the watch that is running, or to the next.
  void Send(v1::TopologyUpdate update) {
    MutexLock lock(mu_);
    updates_.push_back(std::move(update));
    changed_.NotifyAll();
  }
  void Send(const Topology* have, const Topology& to) { Send(MakeUpdate(have, to)); }
  // Answers the next calls of GetTopology with this.
  void Answer(v1::TopologyUpdate update) {
    MutexLock lock(mu_);
    answers_.push_back(std::move(update));
  }
  // Ends the watch that is running.
  void Break() {
    MutexLock lock(mu_);
    ++broken_;
    changed_.NotifyAll();
  }
  void AwaitWatches(size_t watches) {
    MutexLock lock(mu_);
    while (watches_.size() < watches) changed_.Wait(mu_);
  }
  std::vector<v1::WatchTopologyRequest> watches() const {
    MutexLock lock(mu_);
    return watches_;
  }
  size_t asked() const {
    MutexLock lock(mu_);
    return asked_;
  }

  absl::Status GetTopology(const v1::GetTopologyRequest& request, absl::Time, v1::TopologyUpdate& response) override {
    MutexLock lock(mu_);
    ++asked_;
    changed_.NotifyAll();
    if (!answers_.empty()) {
      response = answers_.front();
      answers_.pop_front();
      return absl::OkStatus();
    }
    if (topology_ == nullptr) return Unavailable("no placement daemon answers; tried none");
    if (request.have_epoch() == topology_->epoch() && request.have_cluster_id() == topology_->parts().cluster_id) {
      response.set_unchanged(true);
    } else {
      response = MakeUpdate(nullptr, *topology_);
    }
    return absl::OkStatus();
  }

  absl::Status WatchTopology(const v1::WatchTopologyRequest& request,
                             const std::function<bool(const v1::TopologyUpdate&)>& on_update) override {
    mu_.Lock();
    watches_.push_back(request);
    changed_.NotifyAll();
    const size_t broken = broken_;
    if (topology_ != nullptr && request.have_epoch() != topology_->epoch()) {
      updates_.push_front(MakeUpdate(nullptr, *topology_));
    }
    while (true) {
      while (updates_.empty() && !stopped_ && broken_ == broken) changed_.Wait(mu_);
      if (stopped_ || broken_ != broken) break;
      const v1::TopologyUpdate update = std::move(updates_.front());
      updates_.pop_front();
      mu_.Unlock();
      if (!on_update(update)) return absl::OkStatus();
      mu_.Lock();
    }
    const bool stopped = stopped_;
    mu_.Unlock();
    return stopped ? Cancelled("watches were stopped") : Unavailable("the daemon went away");
  }
  void StopWatches() override {
    MutexLock lock(mu_);
    stopped_ = true;
    changed_.NotifyAll();
  }

  absl::Status Register(const v1::RegisterRequest&, absl::Time, v1::RegisterResponse&) override { return NotHere(); }
  absl::Status Heartbeat(const v1::HeartbeatRequest&, absl::Time, v1::HeartbeatResponse&) override { return NotHere(); }
  absl::Status Deregister(const v1::DeregisterRequest&, absl::Time, v1::DeregisterResponse&) override {
    return NotHere();
  }
  absl::Status Drain(const v1::DrainRequest&, absl::Time, v1::DrainResponse&) override { return NotHere(); }
  absl::Status SetWeight(const v1::SetWeightRequest&, absl::Time, v1::SetWeightResponse&) override { return NotHere(); }
  absl::Status Route(const v1::RouteRequest&, absl::Time, v1::RouteResponse&) override { return NotHere(); }
  absl::Status ListNodes(const v1::ListNodesRequest&, absl::Time, v1::ListNodesResponse&) override { return NotHere(); }

 private:
  static absl::Status NotHere() { return Unimplemented("not of this fake"); }

  mutable Mutex mu_;
  CondVar changed_;
  TopologyPtr topology_ ABSL_GUARDED_BY(mu_);
  std::deque<v1::TopologyUpdate> updates_ ABSL_GUARDED_BY(mu_);
  std::deque<v1::TopologyUpdate> answers_ ABSL_GUARDED_BY(mu_);
  std::vector<v1::WatchTopologyRequest> watches_ ABSL_GUARDED_BY(mu_);
  size_t asked_ ABSL_GUARDED_BY(mu_) = 0;
  size_t broken_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace kdn

#endif  // KDN_TESTS_PLACEMENT_REMOTE_FAKE_PLACEMENT_H_
