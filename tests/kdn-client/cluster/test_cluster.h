// TestCluster: nodes without a network: a store in memory for each, behind a transport that a test can hold, make fail,
// or break off, and a topology that a test sets.
//
//   TestCluster cluster({.nodes = 3, .replicas = 2});
//   std::shared_ptr<ClusterTransport> transport = cluster.Connect({});
//   cluster.node("b").transport->Fail(Unavailable("away"));
//
// Partition p belongs to the nodes p, p + 1 …, counted round; nodes are called a, b, c …
#ifndef KDN_TESTS_KDN_CLIENT_CLUSTER_TEST_CLUSTER_H_
#define KDN_TESTS_KDN_CLIENT_CLUSTER_TEST_CLUSTER_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kdn-client/cluster/cluster_transport.h"
#include "placement/remote/held_topology.h"
#include "storage/base/status.h"
#include "storage/tiered_store.h"
#include "tests/kdn-client/async/test_transports.h"

namespace kdn {

// A source that says what a test tells it to.
class SetSource final : public TopologySource {
 public:
  explicit SetSource(TopologyPtr topology = nullptr) { Set(std::move(topology)); }
  ~SetSource() override { held_.Stop(); }

  void Set(TopologyPtr topology) { held_.Set(std::move(topology)); }
  void SetHealth(const absl::Status& health) { held_.SetHealth(health); }
  uint64_t suspected() const { return suspected_.load(); }

  TopologyPtr Current() const override { return held_.Current(); }
  TopologyPtr AwaitNewer(Epoch than, absl::Time deadline) override { return held_.AwaitNewer(than, deadline); }
  void Suspect() override { suspected_.fetch_add(1); }
  absl::Status Health() const override { return held_.Health(); }

 private:
  HeldTopology held_;
  std::atomic<uint64_t> suspected_{0};
};

// A store without a disk that says of everything that it is durable.
class DurableByWord final : public ForwardingTransport {
 public:
  using ForwardingTransport::ForwardingTransport;
  absl::StatusOr<std::vector<absl::Status>> Store(std::span<const Chunk> chunks, Ack, absl::Time deadline) override {
    return ForwardingTransport::Store(chunks, Ack::kMemory, deadline);
  }
};

class TestCluster {
 public:
  struct Options {
    uint32_t nodes = 3;
    uint32_t replicas = 2;
    TieredStoreOptions store = {};
  };
  struct Node {
    std::shared_ptr<TieredStore> store;
    std::shared_ptr<HeldTransport> transport;

    bool Holds(const SpaceId& space, const ChunkKey& key) const {
      return store->Lookup(space, std::span(&key, 1), Fidelity::kApproximate)[0].miss.reason == MissReason::kNone;
    }
  };

  explicit TestCluster(const Options& options) {
    parts.cluster = "test";
    parts.cluster_id = 7;
    parts.epoch = 1;
    parts.partition_bits = kMinPartitionBits;
    parts.replicas = options.replicas;
    for (uint32_t i = 0; i < options.nodes; ++i) {
      const std::string id(1, static_cast<char>('a' + i));
      parts.nodes.push_back({.id = id,
                             .slot = static_cast<NodeSlot>(i),
                             .address = id + ":7401",
                             .zone = "",
                             .weight = kDefaultWeight,
                             .state = NodeState::kActive,
                             .incarnation = 1,
                             .capacity_bytes = 1});
      Node& node = nodes_[id + ":7401"];
      node.store = TieredStore::Open(options.store).value();
      node.transport =
          std::make_shared<HeldTransport>(std::make_shared<DurableByWord>(MakeEmbeddedTransport(node.store)));
    }
    for (uint32_t p = 0; p < (uint32_t{1} << parts.partition_bits); ++p) {
      for (uint32_t r = 0; r < options.replicas; ++r) {
        parts.owners.push_back(r < options.nodes ? static_cast<NodeSlot>((p + r) % options.nodes) : kNoSlot);
      }
    }
    source = std::make_shared<SetSource>(Topology::Make(parts).value());
  }

  Node& node(const std::string& id) { return nodes_.at(id + ":7401"); }
  NodeInfo& info(const std::string& id) {
    for (NodeInfo& info : parts.nodes) {
      if (info.id == id) return info;
    }
    std::abort();
  }
  std::vector<std::string> ids() const {
    std::vector<std::string> ids;
    for (const NodeInfo& info : parts.nodes) ids.push_back(info.id);
    return ids;
  }

  // Makes what a test has done to `parts` the next epoch.
  void Publish() {
    ++parts.epoch;
    source->Set(Topology::Make(parts).value());
  }
  TopologyPtr topology() const { return source->Current(); }
  // The ids of a chunk's owners.
  std::vector<std::string> OwnersOf(const ChunkKey& key) const {
    std::vector<std::string> ids;
    for (const NodeSlot slot : topology()->Owners(topology()->PartitionOf(key))) {
      ids.push_back(topology()->NodeAt(slot)->id);
    }
    return ids;
  }

  std::shared_ptr<ClusterTransport> Connect(ClusterTransportOptions options) {
    if (options.connect == nullptr) {
      options.connect = [this](const std::string& address) { return nodes_.at(address).transport; };
    }
    return MakeClusterTransport(source, options);
  }

  TopologyParts parts;
  std::shared_ptr<SetSource> source;

 private:
  std::map<std::string, Node> nodes_;  // by address
};

}  // namespace kdn

#endif  // KDN_TESTS_KDN_CLIENT_CLUSTER_TEST_CLUSTER_H_
