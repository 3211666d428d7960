// What tests of a cluster's members share: a topology that a test sets by hand, time that it moves, nodes of the
// cluster as stores in this process, and a placement that answers as it is told.
#ifndef KDN_TESTS_KDN_NODE_CLUSTER_MEMBER_TEST_H_
#define KDN_TESTS_KDN_NODE_CLUSTER_MEMBER_TEST_H_

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kdn-node/cluster/chunk_puller.h"
#include "kdn-node/cluster/member_metrics.h"
#include "kdn-node/cluster/member_view.h"
#include "kdn-node/cluster/partition_index.h"
#include "kdn-node/cluster/partition_sync.h"
#include "kdn-node/cluster/pauses.h"
#include "kdn-node/cluster/peer.h"
#include "kdn/v1/placement.pb.h"
#include "placement/remote/placement_channel.h"
#include "placement/remote/topology_source.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"
#include "storage/tiered_store.h"
#include "tests/storage/test_chunks.h"

namespace kdn {

// A clock that waits move, instead of waiting for it.
class ManualPauses final : public Pauses {
 public:
  explicit ManualPauses(ManualSteadyClock& clock) : Pauses(clock), clock_(clock) {}
  bool Until(SteadyClock::Point time) override {
    if (time > clock_.Now()) clock_.Advance(absl::FromChrono(time - clock_.Now()));
    return !stopped();
  }

 private:
  ManualSteadyClock& clock_;
};

class SetTopology final : public TopologySource {
 public:
  TopologyPtr Current() const override {
    MutexLock lock(mu_);
    return topology_;
  }
  TopologyPtr AwaitNewer(Epoch, absl::Time) override { return nullptr; }
  absl::Status Health() const override {
    MutexLock lock(mu_);
    return health_;
  }

  void Set(TopologyPtr topology) {
    MutexLock lock(mu_);
    topology_ = std::move(topology);
  }
  void SetHealth(absl::Status health) {
    MutexLock lock(mu_);
    health_ = std::move(health);
  }

 private:
  mutable Mutex mu_;
  TopologyPtr topology_ ABSL_GUARDED_BY(mu_);
  absl::Status health_ ABSL_GUARDED_BY(mu_);
};

inline constexpr uint64_t kTestCluster = 42;
inline constexpr uint64_t kTestIncarnation = 7;
inline constexpr uint32_t kTestBits = 4;

// Nodes a, b, c …, at slots 0, 1, 2 …, each reached at its own id; all partitions have the same owners and the same
// move.
inline TopologyPtr MakeTopology(
    Epoch epoch, size_t nodes, std::vector<NodeSlot> owners, const Move& move = {},
    const std::function<void(TopologyParts&)>& change = [](TopologyParts&) {}) {
  TopologyParts parts;
  parts.cluster = "test";
  parts.cluster_id = kTestCluster;
  parts.epoch = epoch;
  parts.partition_bits = kTestBits;
  parts.replicas = static_cast<uint32_t>(std::max<size_t>(owners.size(), 1));
  for (size_t i = 0; i < nodes; ++i) {
    const std::string id(1, static_cast<char>('a' + i));
    NodeInfo node;
    node.id = id;
    node.slot = static_cast<NodeSlot>(i);
    node.address = id + ":1";
    node.state = NodeState::kActive;
    node.incarnation = kTestIncarnation;
    parts.nodes.push_back(std::move(node));
  }
  owners.resize(parts.replicas, kNoSlot);
  for (Partition partition = 0; partition < 1u << kTestBits; ++partition) {
    parts.owners.insert(parts.owners.end(), owners.begin(), owners.end());
    if (move != Move()) parts.moves[partition] = move;
  }
  change(parts);
  absl::StatusOr<TopologyPtr> topology = Topology::Make(std::move(parts));
  EXPECT_TRUE(topology.ok()) << topology.status();
  return topology.ok() ? *topology : nullptr;
}

// What goes through it can be changed, counted and broken off by a test.
class HookedTransport final : public Transport {
 public:
  explicit HookedTransport(std::shared_ptr<TieredStore> store) : real_(MakeEmbeddedTransport(std::move(store))) {}

  // A chunk's bytes as they arrive; a test may flip some.
  std::function<void(const ChunkKey&, std::vector<uint8_t>&)> on_part = {};
  std::atomic<int> fetched_chunks{0};
  std::atomic<int> stored_chunks{0};
  std::atomic<int> break_after{1 << 30};  // chunks

  absl::Status Fetch(const FetchQuery& query, absl::Time deadline, SlabSink& sink) override {
    for (size_t i = 0; i < query.keys.size(); ++i) {
      if (fetched_chunks >= break_after) return Unavailable("the node has died");
      ++fetched_chunks;
      One one{*this, sink, i, query.keys[i]};
      FetchQuery part = query;
      part.keys = query.keys.subspan(i, 1);
      KDN_RETURN_IF_ERROR(real_->Fetch(part, deadline, one));
    }
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<FoundChunk>> Lookup(const SpaceId& space, std::span<const ChunkKey> keys, Fidelity least,
                                                 absl::Time deadline) override {
    if (fetched_chunks >= break_after) return Unavailable("the node has died");
    return real_->Lookup(space, keys, least, deadline);
  }
  absl::StatusOr<std::vector<absl::Status>> Store(std::span<const Chunk> chunks, Ack ack,
                                                  absl::Time deadline) override {
    stored_chunks += static_cast<int>(chunks.size());
    return real_->Store(chunks, ack, deadline);
  }
  absl::StatusOr<PrefetchCounts> Prefetch(const SpaceId& space, std::span<const ChunkKey> keys,
                                          absl::Time deadline) override {
    return real_->Prefetch(space, keys, deadline);
  }
  absl::StatusOr<std::vector<absl::Status>> Delete(const SpaceId& space, std::span<const ChunkKey> keys,
                                                   absl::Time deadline) override {
    return real_->Delete(space, keys, deadline);
  }
  absl::StatusOr<Lease> Pin(const SpaceId& space, std::span<const ChunkKey> keys, absl::Duration duration,
                            absl::Time deadline) override {
    return real_->Pin(space, keys, duration, deadline);
  }
  absl::Status Unpin(uint64_t lease, absl::Time deadline) override { return real_->Unpin(lease, deadline); }
  absl::StatusOr<StoreStats> Stats(absl::Time deadline) override { return real_->Stats(deadline); }

 private:
  struct One final : SlabSink {
    One(HookedTransport& owner_in, SlabSink& sink_in, size_t index_in, const ChunkKey& key_in)
        : owner(owner_in), sink(sink_in), index(index_in), key(key_in) {}
    bool OnChunk(size_t, const ManifestPtr& manifest, TierKind tier) override {
      return sink.OnChunk(index, manifest, tier);
    }
    void OnPart(size_t, uint32_t slab, uint64_t offset, ByteSpan part) override {
      std::vector<uint8_t> bytes(part.begin(), part.end());
      if (owner.on_part) owner.on_part(key, bytes);
      sink.OnPart(index, slab, offset, bytes);
    }
    void OnMiss(size_t, const Miss& miss) override { sink.OnMiss(index, miss); }

    HookedTransport& owner;
    SlabSink& sink;
    const size_t index;
    const ChunkKey key;
  };

  const std::shared_ptr<Transport> real_;
};

// Another node of the cluster.
class FakePeer final : public Peer {
 public:
  explicit FakePeer(const TieredStoreOptions& options) : store(TieredStore::Open(options).value()), transport_(store) {}

  const std::shared_ptr<TieredStore> store;
  std::atomic<bool> away{false};
  std::atomic<int> digest_calls{0};
  std::atomic<int> list_calls{0};

  HookedTransport& hooks() { return transport_; }

  absl::StatusOr<std::vector<PartitionDigest>> Digests(uint32_t bits, std::span<const Partition> partitions,
                                                       Cancellation*) override {
    ++digest_calls;
    if (away) return Unavailable("the node is away");
    const PartitionIndex index(store->Keys());
    std::vector<PartitionDigest> digests;
    for (const Partition partition : partitions) digests.push_back(index.DigestOf(partition, bits));
    return digests;
  }
  absl::Status ListChunks(uint32_t bits, std::span<const Partition> partitions, Cancellation*,
                          absl::FunctionRef<bool(const PeerChunk&)> visit) override {
    ++list_calls;
    if (away) return Unavailable("the node is away");
    const PartitionIndex index(store->Keys());
    for (const Partition partition : partitions) {
      for (const ChunkKey& key : index.KeysOf(partition, bits)) {
        const absl::StatusOr<ChunkDescription> chunk = store->Describe(key);
        if (!chunk.ok()) continue;
        const bool more = visit({.space = chunk->manifest->space,
                                 .key = key,
                                 .encoded_bytes = chunk->manifest->EncodedBytes(),
                                 .retention = chunk->retention,
                                 .durable = chunk->on_disk});
        if (!more) return absl::OkStatus();
      }
    }
    return absl::OkStatus();
  }
  Transport& transport() override { return transport_; }

 private:
  HookedTransport transport_;
};

// Node a of a cluster, whose other nodes are FakePeers.
class MemberTest : public ::testing::Test {
 protected:
  explicit MemberTest(const TieredStoreOptions& options = DefaultOptions())
      : store_(TieredStore::Open(options).value()) {}

  static TieredStoreOptions DefaultOptions() {
    TieredStoreOptions options;
    options.memory_bytes = uint64_t{64} << 20;
    return options;
  }

  // The node at slot `slot`.
  FakePeer& PeerAt(NodeSlot slot) {
    std::shared_ptr<FakePeer>& peer = fakes_[std::string(1, static_cast<char>('a' + slot)) + ":1"];
    if (peer == nullptr) peer = std::make_shared<FakePeer>(DefaultOptions());
    return *peer;
  }

  Chunk Make(uint32_t seed) const { return testing::MakeChunk(space_, seed); }
  std::vector<Chunk> MakeSome(uint32_t count, uint32_t first = 1) const {
    std::vector<Chunk> chunks;
    for (uint32_t i = 0; i < count; ++i) chunks.push_back(Make(first + i));
    return chunks;
  }
  static void Put(TieredStore& store, const std::vector<Chunk>& chunks) {
    for (const Chunk& chunk : chunks) ASSERT_TRUE(store.Put(chunk, Ack::kMemory).ok());
  }
  // That this node delivers the chunk's very bytes.
  bool HasWhole(const Chunk& chunk) {
    const FetchedChunk got = store_->Fetch(testing::IdOf(space_), chunk.manifest->key, {}, Fidelity::kExact);
    if (got.miss.reason != MissReason::kNone || got.slabs.size() != chunk.slabs.size()) return false;
    for (size_t i = 0; i < got.slabs.size(); ++i) {
      if (AsStringView(got.slabs[i].bytes) != AsStringView(chunk.slabs[i])) return false;
    }
    return true;
  }
  bool Has(TieredStore& store, const Chunk& chunk) const { return store.Describe(chunk.manifest->key).ok(); }

  // Of a series, with the labels' values joined by ','.
  double Metric(const std::string& name, const std::string& labels = "") {
    for (const prometheus::MetricFamily& family : metrics_.Collect()) {
      if (family.name != name) continue;
      for (const prometheus::ClientMetric& metric : family.metric) {
        std::string values;
        for (const auto& label : metric.label) values += (values.empty() ? "" : ",") + label.value;
        if (values == labels) {
          return family.type == prometheus::MetricType::Counter ? metric.counter.value : metric.gauge.value;
        }
      }
    }
    return 0;
  }

  const KvSpace space_ = testing::MakeSpace();
  ManualSteadyClock clock_;
  ManualPauses pauses_{clock_};
  const std::unique_ptr<TieredStore> store_;
  std::map<std::string, std::shared_ptr<FakePeer>> fakes_;
  MemberIdentity identity_{"a", kTestIncarnation, kTestCluster};
  SetTopology topology_;
  MemberMetrics metrics_;
  RateLimit limit_{0, pauses_};
  PeerDirectory peers_{[this](const std::string& address) {
    PeerAt(static_cast<NodeSlot>(address[0] - 'a'));
    return fakes_[address];
  }};
  PartitionIndexCache indexes_{*store_, clock_};
  // One batch at a time, of one chunk: what happens follows one order.
  ChunkPuller puller_{*store_, metrics_, limit_, pauses_, {.parallel = 1, .batch_chunks = 1}};
  PartitionSync sync_{indexes_, puller_, pauses_};
};

// Placement that answers what a test tells it to, and keeps what it was asked.
class FakeMembers final : public PlacementChannel {
 public:
  absl::Status Register(const v1::RegisterRequest& request, absl::Time, v1::RegisterResponse& response) override {
    MutexLock lock(mu_);
    registered_.push_back(request);
    response.set_session(100 + registered_.size());
    response.set_ttl_ms(ttl_ms_);
    response.set_cluster_id(cluster_id_);
    return register_;
  }
  absl::Status Heartbeat(const v1::HeartbeatRequest& request, absl::Time, v1::HeartbeatResponse& response) override {
    MutexLock lock(mu_);
    heartbeats_.push_back(request);
    response.set_ttl_ms(ttl_ms_);
    return heartbeat_;
  }
  absl::Status Deregister(const v1::DeregisterRequest& request, absl::Time, v1::DeregisterResponse&) override {
    std::function<void()> hook;
    {
      MutexLock lock(mu_);
      deregistered_.push_back(request);
      hook = on_deregister_;
    }
    if (hook) hook();
    return absl::OkStatus();
  }
  absl::Status Drain(const v1::DrainRequest&, absl::Time, v1::DrainResponse&) override { return NotAsked(); }
  absl::Status SetWeight(const v1::SetWeightRequest&, absl::Time, v1::SetWeightResponse&) override {
    return NotAsked();
  }
  absl::Status GetTopology(const v1::GetTopologyRequest&, absl::Time, v1::TopologyUpdate&) override {
    return NotAsked();
  }
  absl::Status Route(const v1::RouteRequest&, absl::Time, v1::RouteResponse&) override { return NotAsked(); }
  absl::Status ListNodes(const v1::ListNodesRequest&, absl::Time, v1::ListNodesResponse&) override {
    return NotAsked();
  }
  absl::Status WatchTopology(const v1::WatchTopologyRequest&,
                             const std::function<bool(const v1::TopologyUpdate&)>&) override {
    return NotAsked();
  }
  void StopWatches() override {}

  void AnswerRegister(absl::Status status) {
    MutexLock lock(mu_);
    register_ = std::move(status);
  }
  void AnswerHeartbeat(absl::Status status) {
    MutexLock lock(mu_);
    heartbeat_ = std::move(status);
  }
  void SetCluster(uint64_t id) {
    MutexLock lock(mu_);
    cluster_id_ = id;
  }
  void OnDeregister(std::function<void()> hook) {
    MutexLock lock(mu_);
    on_deregister_ = std::move(hook);
  }
  std::vector<v1::RegisterRequest> registered() const {
    MutexLock lock(mu_);
    return registered_;
  }
  std::vector<v1::HeartbeatRequest> heartbeats() const {
    MutexLock lock(mu_);
    return heartbeats_;
  }
  std::vector<v1::DeregisterRequest> deregistered() const {
    MutexLock lock(mu_);
    return deregistered_;
  }

 private:
  static absl::Status NotAsked() { return Unimplemented("a member does not ask this"); }

  mutable Mutex mu_;
  absl::Status register_ ABSL_GUARDED_BY(mu_);
  absl::Status heartbeat_ ABSL_GUARDED_BY(mu_);
  uint64_t cluster_id_ ABSL_GUARDED_BY(mu_) = kTestCluster;
  uint64_t ttl_ms_ ABSL_GUARDED_BY(mu_) = 3000;
  std::function<void()> on_deregister_ ABSL_GUARDED_BY(mu_);
  std::vector<v1::RegisterRequest> registered_ ABSL_GUARDED_BY(mu_);
  std::vector<v1::HeartbeatRequest> heartbeats_ ABSL_GUARDED_BY(mu_);
  std::vector<v1::DeregisterRequest> deregistered_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_TESTS_KDN_NODE_CLUSTER_MEMBER_TEST_H_
