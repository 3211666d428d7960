#include <spdlog/spdlog.h>

#include <random>
#include <thread>
#include <utility>

#include "kdn/v1/placement.pb.h"
#include "placement/remote/held_topology.h"
#include "placement/remote/topology_cache.h"
#include "placement/remote/topology_source.h"
#include "placement/topology/topology_wire.h"
#include "storage/base/backoff.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(50);
constexpr absl::Duration kLongestPause = absl::Seconds(1);
// For all daemons together.
constexpr absl::Duration kAskTimeout = absl::Seconds(3);

class FollowedTopology final : public TopologySource {
 public:
  FollowedTopology(std::shared_ptr<PlacementChannel> placement, const FollowOptions& options)
      : placement_(std::move(placement)),
        options_(options),
        held_(Unavailable("no placement daemon has answered yet")),
        backoff_(kFirstPause, kLongestPause, std::random_device()()) {
    ReadCache();
    thread_ = std::thread([this] { Follow(); });
  }
  ~FollowedTopology() override {
    pause_.Stop();
    held_.Stop();
    placement_->StopWatches();
    thread_.join();
  }
  FollowedTopology(const FollowedTopology&) = delete;
  FollowedTopology& operator=(const FollowedTopology&) = delete;

  TopologyPtr Current() const override { return held_.Current(); }
  TopologyPtr AwaitNewer(Epoch than, absl::Time deadline) override { return held_.AwaitNewer(than, deadline); }
  void Suspect() override { pause_.Wake(); }
  absl::Status Health() const override { return held_.Health(); }

 private:
  void Follow() {
    do {
      const absl::Status status = FollowOnce();
      if (pause_.stopped()) return;
      if (held_.SetHealth(status)) spdlog::warn("topology: {}", MessageOf(status));
    } while (pause_.For(backoff_.Next()));
  }

  // Asks, which tells at once whether anybody answers, and then watches. Returns why that ended.
  absl::Status FollowOnce() {
    v1::GetTopologyRequest ask;
    NameKnown(ask);
    v1::TopologyUpdate answer;
    KDN_RETURN_IF_ERROR(placement_->GetTopology(ask, Clock::Real().Now() + kAskTimeout, answer));
    absl::Status taken = Take(answer);
    if (pause_.stopped()) return taken;

    // Where the answer was refused the daemon is watched all the same: if that is refused too, the next one is asked.
    v1::WatchTopologyRequest watch;
    NameKnown(watch);
    const absl::Status ended = placement_->WatchTopology(watch, [&](const v1::TopologyUpdate& update) {
      taken = Take(update);
      return taken.ok() && !pause_.stopped();
    });
    return taken.ok() ? ended : taken;
  }

  template <typename Request>
  void NameKnown(Request& request) const {
    const TopologyPtr have = held_.Current();
    if (have == nullptr || want_all_) return;
    request.set_have_epoch(have->epoch());
    request.set_have_cluster_id(have->parts().cluster_id);
  }

  // Takes what the update leads to, or says why not.
  absl::Status Take(const v1::TopologyUpdate& update) {
    absl::Status taken = TryTake(update);
    // What cannot be applied to what is known may be of use when all of it comes.
    want_all_ = !taken.ok();
    if (!taken.ok()) return Annotate(taken, "a topology from a placement daemon was refused");
    backoff_.Reset();
    if (held_.SetHealth(absl::OkStatus())) spdlog::info("topology: a placement daemon answers");
    return absl::OkStatus();
  }

  absl::Status TryTake(const v1::TopologyUpdate& update) {
    const TopologyPtr have = held_.Current();
    KDN_ASSIGN_OR_RETURN(const TopologyPtr next, ApplyUpdate(update.has_full() ? nullptr : have, update));
    if (next == nullptr) return DataLoss("it has nothing in it");
    KDN_RETURN_IF_ERROR(CheckCluster(*next));
    if (have != nullptr) {
      if (from_cache_ && options_.cluster_id == 0 && next->parts().cluster_id != have->parts().cluster_id) {
        spdlog::warn("topology: {} is of another cluster than the daemons, {} ({:016x}), and is passed over",
                     options_.cache_file, next->cluster(), next->parts().cluster_id);
      } else {
        KDN_RETURN_IF_ERROR(CheckFollows(*have, *next));
      }
    }
    from_cache_ = false;
    if (have != nullptr && next->parts().cluster_id == have->parts().cluster_id && next->epoch() == have->epoch()) {
      return absl::OkStatus();
    }
    held_.Set(next);
    WriteCache(*next);
    return absl::OkStatus();
  }

  absl::Status CheckCluster(const Topology& topology) const {
    if (!options_.cluster.empty() && topology.cluster() != options_.cluster) {
      return FailedPrecondition("it is of cluster {}, and this is cluster {}; give the addresses of its daemons",
                                topology.cluster(), options_.cluster);
    }
    if (options_.cluster_id != 0 && topology.parts().cluster_id != options_.cluster_id) {
      return FailedPrecondition(
          "it is of cluster {} ({:016x}), and this is one with the id {:016x}; give the addresses of its daemons",
          topology.cluster(), topology.parts().cluster_id, options_.cluster_id);
    }
    return absl::OkStatus();
  }

  void ReadCache() {
    if (options_.cache_file.empty()) return;
    absl::StatusOr<TopologyPtr> cached = ReadTopologyCache(options_.cache_file);
    if (absl::IsNotFound(cached.status())) return;
    absl::Status usable = cached.status();
    if (usable.ok()) usable = Annotate(CheckCluster(**cached), options_.cache_file);
    if (!usable.ok()) return spdlog::warn("topology: passed over: {}", MessageOf(usable));
    spdlog::info("topology: epoch {} from {}, until a placement daemon answers", (*cached)->epoch(),
                 options_.cache_file);
    from_cache_ = true;
    held_.Set(*std::move(cached));
  }

  void WriteCache(const Topology& topology) {
    if (options_.cache_file.empty()) return;
    const absl::Status written = WriteTopologyCache(options_.cache_file, topology);
    if (!written.ok() && written != cache_failure_)
      spdlog::warn("topology: not kept in a file: {}", MessageOf(written));
    cache_failure_ = written;
  }

  const std::shared_ptr<PlacementChannel> placement_;
  const FollowOptions options_;
  HeldTopology held_;
  Pause pause_;
  // The thread's own, once it runs.
  Backoff backoff_;
  bool from_cache_ = false;  // what is known, and no daemon has confirmed it
  bool want_all_ = false;    // instead of what has changed
  absl::Status cache_failure_;
  std::thread thread_;
};

}  // namespace

std::shared_ptr<TopologySource> FollowTopology(std::shared_ptr<PlacementChannel> placement,
                                               const FollowOptions& options) {
  return std::make_shared<FollowedTopology>(std::move(placement), options);
}

}  // namespace kdn
