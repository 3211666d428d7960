// DaemonsTest: placement daemons' parts without threads of their own over one registry in memory, by a clock that
// stands still until a test moves it.
//
//   Daemon& a = AddDaemon("a");
//   Register(a, "n1");
//   Run();                                  // all daemons, until nothing more happens at this time
//   Advance(absl::Seconds(1));              // with heartbeats of all nodes that live
#ifndef KDN_TESTS_PLACEMENT_DAEMON_DAEMONS_H_
#define KDN_TESTS_PLACEMENT_DAEMON_DAEMONS_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "placement/daemon/bootstrap.h"
#include "placement/daemon/coordinator.h"
#include "placement/daemon/presence.h"
#include "placement/daemon/sessions.h"
#include "placement/registry/memory_registry.h"
#include "placement/topology/topology_wire.h"
#include "storage/base/status.h"

namespace kdn {

class DaemonsTest : public testing::Test {
 protected:
  struct Daemon {
    Daemon(Registry& registry, const PlacementOptions& options, const std::string& name, const SteadyClock& clock)
        : loads(options.load_interval, clock),
          view(options.cluster,
               {.on_load = [this](const std::string& id, const LoadPtr& load) { loads.Told(id, load); },
                .on_gone = [this](const std::string& id) { loads.Gone(id); }}),
          sessions(registry, view, options.node_ttl),
          coordinator(registry, view, loads, options, name, clock),
          presence(registry, view, name, "127.0.0.1:1", options.node_ttl, clock) {}

    TopologyPtr topology() const { return view.topology().topology; }

    LoadBook loads;
    ClusterView view;
    Sessions sessions;
    Coordinator coordinator;
    Presence presence;
    std::unique_ptr<RegistryWatch> watch;
    SteadyClock::Point next = {};
  };

  // A daemon that has opened the cluster, and follows it.
  Daemon& AddDaemon(const std::string& name) {
    daemons_.push_back(std::make_unique<Daemon>(*registry_, options_, name, clock_));
    Daemon& daemon = *daemons_.back();
    const absl::StatusOr<Record> record = OpenCluster(*registry_, options_, Soon());
    EXPECT_TRUE(record.ok()) << record.status();
    if (record.ok()) daemon.view.Learn(*record);
    daemon.watch = registry_->Watch("", daemon.view);
    daemon.presence.Step();
    registry_->WaitForWatchers();
    return daemon;
  }
  void RemoveDaemon(const Daemon& gone) {
    std::erase_if(daemons_, [&](const auto& daemon) { return daemon.get() == &gone; });
  }

  static absl::Time Soon() { return absl::Now() + absl::Seconds(10); }

  v1::RegisterRequest RequestOf(const std::string& id, uint64_t incarnation = 1) const {
    v1::RegisterRequest request;
    request.set_cluster(options_.cluster);
    v1::Node& node = *request.mutable_node();
    node.set_id(id);
    node.set_address("127.0.0.1:" + std::to_string(1000 + std::hash<std::string>()(id) % 50'000));
    node.set_zone("zone-" + id.substr(id.size() - 1));
    node.set_weight(100);
    node.set_incarnation(incarnation);
    return request;
  }

  // The node's session; it heartbeats from now on.
  NodeRecord Register(Daemon& daemon, const std::string& id, uint64_t incarnation = 1) {
    const absl::StatusOr<NodeRecord> record = daemon.sessions.Open(RequestOf(id, incarnation), Soon());
    EXPECT_TRUE(record.ok()) << record.status();
    if (!record.ok()) return {};
    alive_[id] = record->session;
    daemon.coordinator.Admit(id, record->revision, [](const absl::StatusOr<TopologyPtr>&) {});
    return *record;
  }
  // kill -9: heartbeats end.
  void Kill(const std::string& id) { alive_.erase(id); }

  // All daemons, by turns, as long as something changes.
  void Run() {
    for (int round = 0; round < 50; ++round) {
      registry_->EndDueLeases();
      registry_->WaitForWatchers();
      const int64_t before = registry_->Read("", Soon())->revision;
      for (const auto& daemon : daemons_) {
        daemon->presence.Step();
        daemon->next = daemon->coordinator.Step();
      }
      registry_->WaitForWatchers();
      if (registry_->Read("", Soon())->revision == before) return;
    }
    ADD_FAILURE() << "the daemons never come to rest";
  }

  // In small steps, as heartbeats and daemons' own leases go on.
  void Advance(absl::Duration by) {
    const absl::Duration step = absl::Milliseconds(100);
    for (absl::Duration gone; gone < by; gone += step) {
      clock_.Advance(std::min(step, by - gone));
      for (const auto& [id, session] : alive_) (void)registry_->KeepAlive(session, Soon());
      Run();
    }
  }

  // Every node reports all that it fills.
  void FillAll(Daemon& daemon) {
    const TopologyPtr topology = daemon.topology();
    for (const auto& [id, partitions] : FillingOf(*topology)) {
      daemon.coordinator.ReportFilled(id, partitions, topology->epoch());
    }
    Run();
    Advance(options_.epoch_interval);
  }
  static std::map<std::string, std::vector<Partition>> FillingOf(const Topology& topology) {
    std::map<std::string, std::vector<Partition>> filling;
    for (const auto& [partition, move] : topology.parts().moves) {
      for (const NodeSlot slot : move.filling) filling[topology.NodeAt(slot)->id].push_back(partition);
    }
    return filling;
  }

  // What became of a request.
  struct Answer {
    bool came = false;
    absl::StatusOr<TopologyPtr> topology = absl::UnknownError("none yet");
  };
  std::shared_ptr<Answer> Submit(Daemon& daemon, std::function<absl::Status(TopologyChange&)> change,
                                 bool rebalance = true) {
    auto answer = std::make_shared<Answer>();
    daemon.coordinator.Submit({.change = std::move(change),
                               .rebalance = rebalance,
                               .done = [answer](const absl::StatusOr<TopologyPtr>& topology) {
                                 EXPECT_FALSE(answer->came) << "answered twice";
                                 answer->came = true;
                                 answer->topology = topology;
                               }});
    return answer;
  }

  static NodeState StateOf(const Topology& topology, const std::string& id) {
    const NodeInfo* node = topology.FindNode(id);
    EXPECT_NE(node, nullptr) << id;
    return node == nullptr ? NodeState::kDown : node->state;
  }
  static Topology::Share ShareOf(const Topology& topology, const std::string& id) {
    return topology.ShareOf(topology.FindNode(id)->slot);
  }

  // Nodes n1 to n`count`, settled.
  void MakeCluster(Daemon& daemon, int count) {
    for (int i = 1; i <= count; ++i) Register(daemon, "n" + std::to_string(i));
    Run();
    Advance(options_.settle + absl::Milliseconds(200));
    FillAll(daemon);
    for (int i = 1; i <= count; ++i) {
      EXPECT_EQ(StateOf(*daemon.topology(), "n" + std::to_string(i)), NodeState::kActive);
    }
    EXPECT_TRUE(daemon.topology()->parts().moves.empty());
  }

  PlacementOptions options_ = {.partition_bits = 6};
  ManualSteadyClock clock_;
  const std::unique_ptr<MemoryRegistry> registry_ = MakeTestRegistry(clock_);
  std::vector<std::unique_ptr<Daemon>> daemons_;
  std::map<std::string, LeaseId> alive_;
};

}  // namespace kdn

#endif  // KDN_TESTS_PLACEMENT_DAEMON_DAEMONS_H_
