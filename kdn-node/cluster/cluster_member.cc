#include "kdn-node/cluster/cluster_member.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <random>
#include <thread>
#include <utility>

#include "kdn-node/cluster/anti_entropy.h"
#include "kdn-node/cluster/chunk_puller.h"
#include "kdn-node/cluster/filler.h"
#include "kdn-node/cluster/hot_holder.h"
#include "kdn-node/cluster/load_meter.h"
#include "kdn-node/cluster/member_file.h"
#include "kdn-node/cluster/member_view.h"
#include "kdn-node/cluster/partition_index.h"
#include "kdn-node/cluster/partition_sync.h"
#include "kdn-node/cluster/pauses.h"
#include "kdn-node/cluster/peer_service.h"
#include "kdn-node/cluster/releaser.h"
#include "kdn-node/cluster/session.h"
#include "kdn-node/cluster/step_thread.h"
#include "kdn-node/cluster/topology_watch.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// How long placement may take to hear that this node leaves.
constexpr absl::Duration kLeaveTimeout = absl::Seconds(1);

uint64_t RandomSeed() {
  std::random_device random;
  return (uint64_t{random()} << 32 | random()) | 1;
}

// What runs between Start and Leave. The threads are last, and end first.
class Membership {
 public:
  Membership(const MemberOptions& options, const std::string& address, MemberIdentity& identity, TieredStore& store,
             PartitionIndexCache& indexes, MemberMetrics& metrics, PlacementChannel& placement,
             TopologySource& topology, const PeerDirectory::Connect& connect, LoadMeter::Sources load)
      : limit_(options.move_bytes_per_second, pauses_),
        peers_(connect),
        puller_(store, metrics, limit_, pauses_, {.request_log = options.request_log}),
        sync_(indexes, puller_, pauses_),
        watch_(identity, topology, metrics),
        load_(std::move(load)),
        filler_(identity, topology, peers_, sync_, pauses_, {}, [this] { session_thread_->Wake(); }),
        releaser_(identity, topology, peers_, store, indexes, metrics, pauses_, options.release_after),
        anti_entropy_(identity, topology, peers_, sync_, metrics, pauses_, options.anti_entropy_interval,
                      identity.incarnation()),
        hot_holder_(identity, topology, peers_, store, puller_, metrics, pauses_),
        session_({.cluster = options.cluster,
                  .address = address,
                  .zone = options.zone,
                  .weight = options.weight,
                  .capacity_bytes = options.capacity_bytes,
                  .data_directory = options.data_directory,
                  .seed = identity.incarnation()},
                 identity, placement, metrics,
                 {.load = [this] { return load_.Measure(); }, .filled = [this] { return filler_.Filled(); }}) {
    session_thread_.emplace([this] { return session_.Step(); });
    threads_.push_back(std::make_unique<StepThread>([this] { return watch_.Step(); }));
    threads_.push_back(std::make_unique<StepThread>([this] { return filler_.Step(); }));
    threads_.push_back(std::make_unique<StepThread>([this] { return releaser_.Step(); }));
    threads_.push_back(std::make_unique<StepThread>([this] { return anti_entropy_.Step(); }));
    threads_.push_back(std::make_unique<StepThread>([this] { return hot_holder_.Step(); }));
  }

  ~Membership() { StopWork(); }

  void StopWork() {
    pauses_.Stop();
    threads_.clear();
    session_thread_->Stop();
  }

  void Leave(absl::Time deadline) { session_.Leave(deadline); }

 private:
  Pauses pauses_;
  RateLimit limit_;
  PeerDirectory peers_;
  ChunkPuller puller_;
  PartitionSync sync_;
  TopologyWatch watch_;
  LoadMeter load_;
  Filler filler_;
  Releaser releaser_;
  AntiEntropy anti_entropy_;
  HotHolder hot_holder_;
  Session session_;
  std::optional<StepThread> session_thread_;
  std::vector<std::unique_ptr<StepThread>> threads_;
};

class ClusterMemberImpl final : public ClusterMember {
 public:
  ClusterMemberImpl(const MemberOptions& options, TieredStore& store, Parts parts, uint64_t cluster_id)
      : options_(options),
        store_(store),
        parts_(std::move(parts)),
        identity_(options.node_id, RandomSeed(), cluster_id),
        indexes_(store),
        metrics_(std::make_shared<MemberMetrics>()),
        hot_keys_(std::make_shared<HotKeys>()) {}

  ~ClusterMemberImpl() override { End(/*grace=*/absl::ZeroDuration()); }

  void AddTo(ServerOptions& server) override {
    server.services.push_back([this](ServiceState& state) { return MakePeerService(state, indexes_); });
    server.series.push_back(metrics_);
    server.service.hot_keys = hot_keys_;
    server.service.missed_elsewhere = [this](std::span<const ChunkKey> keys) { return MissedElsewhere(keys); };
    server.admin.standing = [this] {
      return ClusterStanding{.node_id = options_.node_id,
                             .cluster = options_.cluster,
                             .cluster_id = identity_.cluster_id(),
                             .epoch = metrics_->epoch(),
                             .registered = metrics_->registered()};
    };
  }

  void Start(const std::string& listens, std::function<NodeActivity()> activity) override {
    if (parts_.topology == nullptr) {
      parts_.topology =
          FollowTopology(parts_.placement, {.cluster_id = identity_.cluster_id(), .cluster = options_.cluster});
    }
    following_ = parts_.topology.get();
    LoadMeter::Sources load = {
        .store = &store_, .hot_keys = hot_keys_.get(), .metrics = metrics_.get(), .activity = std::move(activity)};
    membership_.emplace(options_, options_.advertise.empty() ? listens : options_.advertise, identity_, store_,
                        indexes_, *metrics_, *parts_.placement, *parts_.topology, parts_.connect, std::move(load));
  }

  void Leave() override { End(options_.leave_grace); }

  MemberMetrics& metrics() override { return *metrics_; }

 private:
  std::vector<bool> MissedElsewhere(std::span<const ChunkKey> keys) const {
    std::vector<bool> elsewhere(keys.size());
    TopologySource* const source = following_.load();
    const std::optional<MemberView> view = source == nullptr ? std::nullopt : ViewOf(source->Current(), identity_);
    if (!view.has_value()) return elsewhere;
    for (size_t i = 0; i < keys.size(); ++i) elsewhere[i] = !view->CountsMissOf(keys[i]);
    return elsewhere;
  }

  void End(absl::Duration grace) {
    if (!membership_.has_value()) return;
    membership_->StopWork();
    membership_->Leave(Clock::Real().Now() + kLeaveTimeout);
    membership_.reset();
    std::this_thread::sleep_for(absl::ToChronoNanoseconds(grace));
  }

  const MemberOptions options_;
  TieredStore& store_;
  Parts parts_;
  // What `parts_` has, once this has joined: calls may come before that.
  std::atomic<TopologySource*> following_ = nullptr;
  MemberIdentity identity_;
  PartitionIndexCache indexes_;
  const std::shared_ptr<MemberMetrics> metrics_;
  const std::shared_ptr<HotKeys> hot_keys_;
  std::optional<Membership> membership_;  // between Start and Leave
};

}  // namespace

absl::StatusOr<std::unique_ptr<ClusterMember>> ClusterMember::Open(const MemberOptions& options, TieredStore& store,
                                                                   Parts parts) {
  KDN_RETURN_IF_ERROR(CheckMemberOptions(options));
  MemberFile file;
  if (!options.data_directory.empty()) {
    KDN_ASSIGN_OR_RETURN(file, ReadMemberFile(options.data_directory));
    if (file.cluster_id != 0 && file.cluster != options.cluster) {
      return FailedPrecondition(
          "--cluster: this node's data belong to cluster '{}', not '{}'; give --cluster {}, or start with an empty "
          "disk, or remove {} if the data may be used in the other one",
          file.cluster, options.cluster, file.cluster, MemberFilePath(options.data_directory));
    }
  }
  if (parts.placement == nullptr) {
    absl::StatusOr<std::shared_ptr<PlacementChannel>> placement = PlacementChannel::Open(options.placement);
    if (!placement.ok()) return Annotate(placement.status(), "--placement");
    parts.placement = *std::move(placement);
  }
  if (parts.connect == nullptr) parts.connect = ConnectToPeer;
  return std::make_unique<ClusterMemberImpl>(options, store, std::move(parts), file.cluster_id);
}

}  // namespace kdn
