// ClusterFixture: a real cluster on loopback: etcd members, placement daemons and nodes as processes, and clients of
// it.
//
//   StartEtcd(3);
//   StartPlacements(3);
//   StartNodes(5);
//   AwaitSettled(5);
//   nodes_[2].Kill();
//
// Every daemon reaches the next by a link of its own (LinkProxy), which a test can stall as a partition of the network
// would.
//
// Thread-safety: one thread at a time; what NewTransport gives may be used by others.
#ifndef KDN_INTEGRATION_SYSTEM_CLUSTER_FIXTURE_H_
#define KDN_INTEGRATION_SYSTEM_CLUSTER_FIXTURE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "integration/link/link_proxy.h"
#include "integration/process/child_process.h"
#include "integration/process/etcd_cluster.h"
#include "kdn-client/client.h"
#include "kdn-client/cluster/cluster_transport.h"
#include "kdn/v1/placement.pb.h"
#include "placement/remote/placement_channel.h"
#include "placement/remote/topology_source.h"

namespace kdn {

class ClusterFixture : public testing::Test {
 protected:
  // A daemon that is started again at the address that it had before.
  struct Daemon {
    std::string name;
    std::vector<std::string> argv;  // without --listen
    std::string address;
    std::string metrics_address;
    std::filesystem::path directory;
    std::optional<ChildProcess> process;

    void Kill() {
      process->Kill();
      process.reset();
    }
    // SIGTERM; expects a clean exit.
    void Stop();
    bool Running() const { return process.has_value(); }
  };

  void StartEtcd(size_t members);
  // Over etcd when there is one, else one daemon with the embedded registry.
  void StartPlacements(int count, const std::vector<std::string>& flags = {});
  // `count` more nodes, one zone for each two.
  void StartNodes(int count, const std::vector<std::string>& flags = {});
  // Starts it, or starts it again.
  void Start(Daemon& daemon);

  // Addresses of the placement daemons, as nodes and clients of this process reach them.
  std::vector<std::string> PlacementAddresses() const;
  std::shared_ptr<PlacementChannel> Placement() const;
  // A follower of its own with a transport over it.
  std::shared_ptr<ClusterTransport> NewTransport(const std::string& zone = "") const;
  v1::ListNodesResponse ListNodes() const;
  // Waits until `active` nodes are active, the others own nothing, and nothing moves; fails the test after a minute.
  void AwaitSettled(int active) const;
  // Waits until the node is in `state`.
  void AwaitState(const std::string& id, v1::NodeState state) const;
  // The sum of a metric over its labels, at a daemon.
  double Metric(const Daemon& daemon, const std::string& name) const;
  // For each chunk of a document that some owner lacks: the owners by the topology, and which nodes hold it. May be
  // called from any thread, while no node is being added.
  std::string WhereIs(uint64_t document) const;
  // What all daemons printed, for a test that failed.
  void PrintLogs() const;

  void TearDown() override;

  TemporaryDirectory directory_{"kdn-cluster-"};
  std::unique_ptr<EtcdCluster> etcd_;
  std::vector<Daemon> placements_;
  std::vector<Daemon> nodes_;
};

// A document: a few chunks of tokens and KV that follow from its number alone.
class Document {
 public:
  static constexpr uint32_t kChunkTokens = 32;
  static constexpr uint32_t kChunks = 8;
  static constexpr uint32_t kTokens = kChunkTokens * kChunks;

  // The space of all documents.
  static KvSpace Space();

  explicit Document(uint64_t number);

  // True once all of it is stored as `ack` says.
  bool Store(Client& client, Ack ack, absl::Duration deadline) const;

  enum class Outcome : uint8_t { kWhole, kPart, kWrong };
  // What came of fetching it: all of it and right, less, or bytes that are wrong. `why` tells of what is missing.
  Outcome Fetch(Client& client, absl::Duration deadline, std::string* why = nullptr) const;

  const std::vector<ChunkRef>& chunks() const { return chunks_; }

 private:
  uint64_t number_;
  std::vector<Token> tokens_;
  std::vector<ChunkRef> chunks_;
};

std::unique_ptr<Client> NewDocumentClient(std::shared_ptr<Transport> transport);

}  // namespace kdn

#endif  // KDN_INTEGRATION_SYSTEM_CLUSTER_FIXTURE_H_
