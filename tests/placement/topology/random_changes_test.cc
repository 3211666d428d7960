// Thousands of random changes, and beside them simulated nodes that store, copy and drop chunks as the topology tells
// them: whatever happens, no chunk is forgotten, and every rule of a topology holds.
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "kdn/v1/placement.pb.h"
#include "placement/topology/fair_shares.h"
#include "placement/topology/topology_wire.h"
#include "tests/placement/topology/topologies.h"

namespace kdn {
namespace {

constexpr uint32_t kBits = 5;
constexpr int kSteps = 250;

using Chunks = std::map<Partition, std::set<uint32_t>>;

class RandomCluster {
 public:
  explicit RandomCluster(uint64_t seed) : random_(seed) {
    topology_ = EmptyCluster(1 + Below(4), kBits);
    zones_ = Below(5);
  }

  void Run() {
    for (int step = 0; step < kSteps && !testing::Test::HasFailure(); ++step) {
      Step();
      CheckRules();
      CheckDelta();
      Store();
      CheckChunks();
      before_ = topology_;
    }
    ComeToRest();
  }

 private:
  uint32_t Below(uint32_t limit) { return static_cast<uint32_t>(random_() % limit); }
  std::string AnyId() { return fmt::format("n{}", Below(9)); }

  // When everybody is back and has filled, nothing moves any more.
  void ComeToRest() {
    what_ = "end";
    Edit([&](TopologyChange& change) {
      for (NodeInfo node : topology_->parts().nodes) {
        if (node.Serves()) continue;
        EXPECT_TRUE(change.Join(node).ok());
      }
    });
    const std::vector<NodeInfo> nodes = topology_->parts().nodes;
    for (const NodeInfo& node : nodes) {
      for (int i = 0; i < 20; ++i) Fill(node);
    }
    for (const NodeInfo& node : topology_->parts().nodes)
      EXPECT_EQ(topology_->ShareOf(node.slot).filling, 0u) << node.id;
    CheckChunks();
  }

  void Edit(const std::function<void(TopologyChange&)>& edit) {
    TopologyChange change(*topology_);
    edit(change);
    auto next = std::move(change).Finish();
    ASSERT_TRUE(next.ok()) << what_ << ": " << next.status();
    before_ = topology_;
    topology_ = *next;
    Drop();
  }

  void Step() {
    const std::string id = AnyId();
    const NodeInfo* node = topology_->FindNode(id);
    switch (Below(14)) {
      case 0:
      case 1:
      case 2: {
        what_ = "join " + id;
        NodeInfo joins = NodeNamed(id, zones_ == 0 ? "" : fmt::format("z{}", Below(zones_)),
                                   Below(3) == 0 ? 1 + Below(300) : kDefaultWeight);
        if (node != nullptr && Below(4) != 0) joins.zone = node->zone;
        joins.incarnation = Below(3);
        Edit([&](TopologyChange& change) { EXPECT_TRUE(change.Join(joins).ok()); });
        break;
      }
      case 3:
        what_ = "lost " + id;
        Edit([&](TopologyChange& change) { EXPECT_EQ(change.Lost(id).ok(), node != nullptr); });
        break;
      case 4: {
        what_ = "drain " + id;
        const bool undo = Below(2) == 0;
        Edit(
            [&](TopologyChange& change) { EXPECT_EQ(change.Drain(id, undo).ok(), node != nullptr && node->Serves()); });
        break;
      }
      case 5:
        what_ = "weight of " + id;
        Edit([&](TopologyChange& change) { EXPECT_EQ(change.SetWeight(id, 1 + Below(300)).ok(), node != nullptr); });
        break;
      case 6:
        Forget(id);
        break;
      case 7:
        Abandon(id);
        break;
      case 8:
      case 9:
      case 10:
        what_ = "rebalance";
        Edit([&](TopologyChange& change) { change.Rebalance(); });
        CheckBalance();
        break;
      default:
        if (node != nullptr && node->Serves()) Fill(NodeInfo(*node));
    }
  }

  // Only what it alone has is lost, and nothing when it was not forced.
  void Forget(const std::string& id) {
    what_ = "forget " + id;
    const NodeInfo* node = topology_->FindNode(id);
    if (node == nullptr) return;
    const bool force = Below(4) == 0;
    const NodeSlot slot = node->slot;
    bool forgotten = false;
    Edit([&](TopologyChange& change) { forgotten = change.Forget(id, force).ok(); });
    EXPECT_TRUE(forgotten || !force);
    if (!forgotten) return;
    held_.erase(slot);
    if (!force) return;
    for (auto& [partition, chunks] : stored_) {
      std::erase_if(chunks, [&, of = partition](uint32_t chunk) { return !IsHeld(of, chunk); });
    }
  }

  void Abandon(const std::string& id) {
    what_ = "abandon " + id;
    const NodeInfo* node = topology_->FindNode(id);
    if (node == nullptr || node->Serves()) return;
    Edit([&](TopologyChange& change) { change.Rebalance(std::vector<std::string>{id}); });
  }

  // Copies all that any holder that is up has, and says so.
  void Fill(const NodeInfo& node) {
    what_ = "filled " + node.id;
    std::vector<Partition> filled;
    for (const Partition partition : FilledBy(*topology_, node.id)) {
      if (Below(3) == 0) continue;
      std::set<uint32_t>& has = held_[node.slot][partition];
      for (const NodeSlot holder : HoldersOf(partition)) {
        if (topology_->NodeAt(holder)->Serves())
          has.insert(held_[holder][partition].begin(), held_[holder][partition].end());
      }
      filled.push_back(partition);
    }
    // What it was not asked to fill says nothing.
    const Partition any = Below(topology_->partitions());
    const std::vector<Partition> fills = FilledBy(*topology_, node.id);
    if (std::count(fills.begin(), fills.end(), any) == 0) filled.push_back(any);
    Edit([&](TopologyChange& change) { EXPECT_TRUE(change.Filled(node.id, filled).ok()); });
  }

  // A chunk for some partitions, on all of their writers.
  void Store() {
    for (int i = 0; i < 4; ++i) {
      const Partition partition = Below(topology_->partitions());
      const NodeList writers = topology_->Writers(KeyIn(*topology_, partition));
      if (writers.empty()) continue;
      stored_[partition].insert(++last_chunk_);
      for (const NodeSlot slot : writers.slots()) held_[slot][partition].insert(last_chunk_);
    }
  }

  std::set<NodeSlot> HoldersOf(Partition partition) const {
    const std::span<const NodeSlot> owners = topology_->Owners(partition);
    std::set<NodeSlot> holders(owners.begin(), owners.end());
    if (const Move* move = topology_->MoveOf(partition)) holders.insert(move->leaving.begin(), move->leaving.end());
    return holders;
  }

  // Nodes drop at once what they are no holders of.
  void Drop() {
    for (auto& [slot, chunks] : held_) {
      std::erase_if(chunks, [&, by = slot](const auto& entry) { return !HoldersOf(entry.first).contains(by); });
    }
  }

  bool IsHeld(Partition partition, uint32_t chunk) {
    for (const NodeSlot slot : HoldersOf(partition)) {
      if (held_[slot][partition].contains(chunk)) return true;
    }
    return false;
  }

  void CheckChunks() {
    for (const auto& [partition, chunks] : stored_) {
      for (const uint32_t chunk : chunks) {
        ASSERT_TRUE(IsHeld(partition, chunk)) << what_ << " forgot chunk " << chunk << " of partition " << partition;
      }
    }
    // Whatever an up holder has is found by a reader, and the settled ones are said to be so rightly.
    for (Partition partition = 0; partition < topology_->partitions(); ++partition) {
      const Topology::ReaderList readers = topology_->Readers(KeyIn(*topology_, partition));
      std::set<NodeSlot> asked(readers.slots().begin(), readers.slots().end());
      EXPECT_EQ(asked.size(), readers.size());
      for (const NodeSlot slot : HoldersOf(partition)) {
        EXPECT_EQ(asked.contains(slot), topology_->NodeAt(slot)->Serves()) << what_;
      }
    }
  }

  void CheckRules() {
    ASSERT_NE(topology_, nullptr);
    // What has changed has the next epoch; what has not is the very same.
    if (before_ != nullptr && before_ != topology_) {
      EXPECT_EQ(topology_->epoch(), before_->epoch() + 1);
    }
    for (const auto& [partition, move] : topology_->parts().moves) {
      // A partition settles as soon as it can.
      EXPECT_FALSE(move.filling.empty() && !topology_->Owners(partition).empty()) << what_;
    }
    for (const NodeInfo& node : topology_->parts().nodes) {
      const Topology::Share share = topology_->ShareOf(node.slot);
      EXPECT_LE(share.filling, share.owned);
      const bool new_here = node.state == NodeState::kJoining && share.owned > 0;
      EXPECT_TRUE(!new_here || share.filling > 0) << what_ << node.id;
    }
  }

  void CheckDelta() {
    if (before_ == nullptr || before_ == topology_) return;
    v1::TopologyDelta delta;
    MakeDelta(*before_, *topology_, delta);
    const auto applied = ApplyDelta(*before_, delta);
    ASSERT_TRUE(applied.ok()) << what_ << ": " << applied.status();
    EXPECT_TRUE((*applied)->parts() == topology_->parts());
    const auto decoded = DecodeTopology(EncodeTopology(*topology_));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_TRUE((*decoded)->parts() == topology_->parts());
  }

  // After Rebalance: every row is as long as it can be, over as many zones as it can; each node has its share; and a
  // second Rebalance finds nothing to do.
  void CheckBalance() {
    std::vector<NodeInfo> takers;
    std::set<NodeSlot> keepers;
    std::vector<std::string_view> zones;
    for (const NodeInfo& node : topology_->parts().nodes) {
      if (node.state == NodeState::kDraining || node.returns_draining) continue;
      if (!node.Serves()) keepers.insert(node.slot);
      if (node.Serves()) takers.push_back(node);
    }
    if (takers.empty()) return;
    const uint32_t replicas = topology_->replicas();
    for (const NodeInfo& node : takers) zones.push_back(node.zone);
    const uint32_t zone_limit = ZoneLimit(NumberZones(zones).of, replicas);
    for (Partition partition = 0; partition < topology_->partitions(); ++partition) {
      size_t kept = 0;
      std::map<std::string, uint32_t> in_zone;
      for (const NodeSlot slot : topology_->Owners(partition)) {
        kept += keepers.count(slot);
        const std::string& zone = topology_->NodeAt(slot)->zone;
        if (!zone.empty()) ++in_zone[zone];
      }
      EXPECT_EQ(topology_->Owners(partition).size(), std::min<size_t>(replicas, kept + takers.size())) << what_;
      if (!keepers.empty()) continue;
      for (const auto& [zone, count] : in_zone) EXPECT_LE(count, zone_limit) << what_ << " " << zone;
    }
    if (keepers.empty()) {
      const std::vector<uint32_t> shares = FairShares(takers, topology_->partitions(), replicas);
      for (size_t i = 0; i < takers.size(); ++i) {
        EXPECT_NEAR(topology_->ShareOf(takers[i].slot).owned, shares[i], 1) << what_ << takers[i].id;
      }
    }
    TopologyChange again(*topology_);
    again.Rebalance();
    const auto same = std::move(again).Finish();
    ASSERT_TRUE(same.ok());
    EXPECT_EQ(*same, topology_) << "a second rebalance moved something";
  }

  std::mt19937_64 random_;
  uint32_t zones_ = 0;
  TopologyPtr topology_;
  TopologyPtr before_;
  std::string what_;
  std::map<NodeSlot, Chunks> held_;
  Chunks stored_;
  uint32_t last_chunk_ = 0;
};

TEST(RandomChangesTest, NoChunkIsForgottenAndEveryRuleHolds) {
  for (uint64_t seed = 1; seed <= 30 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    RandomCluster(seed).Run();
  }
}

}  // namespace
}  // namespace kdn
