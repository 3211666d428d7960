// Topologies and deltas as bytes: what comes back is what was sent, or an error.
#include <gmock/gmock.h>
#include <google/protobuf/stubs/logging.h>
#include <gtest/gtest.h>

#include <functional>

#include "kdn/v1/placement.pb.h"
#include "placement/topology/topology_wire.h"
#include "tests/placement/topology/topologies.h"

namespace kdn {
namespace {

using testing::HasSubstr;

// With everything that a topology can have.
TopologyPtr RichTopology() {
  return Changed(ClusterOf(4, 2, 4), [](TopologyChange& change) {
    NodeInfo node = NodeNamed("new", "zone 9", 250);
    node.capacity_bytes = uint64_t{1} << 40;
    node.incarnation = 0x123456789abcdef0u;
    EXPECT_TRUE(change.Join(node).ok());
    EXPECT_TRUE(change.Drain("n1", false).ok());
    change.Rebalance();
    EXPECT_TRUE(change.Lost("n1").ok());
    ChunkKey key;
    key.bytes.fill(0x77);
    SpaceId space;
    space.bytes.fill(0x11);
    std::map<ChunkKey, HotChunk> hot;
    for (NodeSlot slot = 0; slot < 5; ++slot) hot[key].extra.push_back(slot);
    hot[key].space = space;
    change.SetHot(hot);
  });
}

TEST(TopologyWireTest, ComesBackAsItWas) {
  const TopologyPtr topology = RichTopology();
  EXPECT_FALSE(topology->parts().moves.empty());
  EXPECT_FALSE(topology->parts().hot.empty());
  const auto decoded = DecodeTopology(EncodeTopology(*topology));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_TRUE((*decoded)->parts() == topology->parts());
  EXPECT_EQ(TopologyChecksum(**decoded), TopologyChecksum(*topology));
}

TEST(TopologyWireTest, EveryCutAndEveryFlippedBitIsSeen) {
  const google::protobuf::LogSilencer no_complaints_about_utf8;
  const TopologyPtr topology = RichTopology();
  const std::string bytes = EncodeTopology(*topology);
  const auto check = [&](const std::string& damaged) {
    const auto decoded = DecodeTopology(damaged);
    EXPECT_TRUE(!decoded.ok() || (*decoded)->parts() == topology->parts());
  };
  for (size_t size = 0; size < bytes.size(); ++size) check(bytes.substr(0, size));
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    check(damaged);
  }
}

TEST(TopologyWireTest, DamageIsDataLoss) {
  v1::Topology wire;
  ToWire(*RichTopology(), wire);
  wire.set_epoch(wire.epoch() + 1);
  EXPECT_EQ(FromWire(wire).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(DecodeTopology("garbage").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(DecodeTopology("").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(DecodeTopology(std::string(kMaxTopologyBytes + 1, 'x')).status().ToString(), HasSubstr("at most"));
}

TEST(TopologyWireTest, WhatIsOutOfRangeIsNamed) {
  const auto refusal = [](const std::function<void(v1::Topology&)>& edit) {
    v1::Topology wire;
    ToWire(*RichTopology(), wire);
    edit(wire);
    return FromWire(wire).status().ToString();
  };
  EXPECT_THAT(refusal([](v1::Topology& t) { t.mutable_nodes(0)->set_slot(65536); }), HasSubstr("slot 65536"));
  EXPECT_THAT(refusal([](v1::Topology& t) { t.mutable_nodes(0)->set_weight(0); }), HasSubstr("weight 0"));
  EXPECT_THAT(refusal([](v1::Topology& t) { t.mutable_nodes(0)->set_state(static_cast<v1::NodeState>(7)); }),
              HasSubstr("no state"));
  EXPECT_THAT(refusal([](v1::Topology& t) { t.mutable_nodes(0)->set_address("x"); }), HasSubstr("HOST:PORT"));
  EXPECT_THAT(refusal([](v1::Topology& t) { t.mutable_nodes(0)->set_zone("a\tb"); }), HasSubstr("zone"));
  EXPECT_THAT(refusal([](v1::Topology& t) { t.mutable_nodes(0)->set_id(""); }), HasSubstr("node id"));
  EXPECT_THAT(refusal([](v1::Topology& t) { t.mutable_owners()->push_back('x'); }), HasSubstr("bytes of slots"));
  EXPECT_THAT(refusal([](v1::Topology& t) { *t.add_moves() = t.moves(0); }), HasSubstr("moves twice"));
  EXPECT_THAT(refusal([](v1::Topology& t) { *t.add_hot() = t.hot(0); }), HasSubstr("appears twice"));
  EXPECT_THAT(refusal([](v1::Topology& t) { t.mutable_moves(0)->add_filling(70000); }), HasSubstr("slot 70000"));
  EXPECT_THAT(refusal([](v1::Topology& t) { t.mutable_hot(0)->set_key("short"); }), HasSubstr("32"));
}

TEST(TopologyWireTest, ANodeThatRegistersHasNoSlotAndNoStateYet) {
  v1::Node wire;
  wire.set_id("a");
  wire.set_address("a:1");
  wire.set_weight(100);
  const auto node = FromWire(wire);
  ASSERT_TRUE(node.ok()) << node.status();
  EXPECT_EQ(node->state, NodeState::kJoining);
}

TEST(TopologyDeltaTest, LeadsFromOneToTheOther) {
  const TopologyPtr from = ClusterOf(4, 2, 4);
  const TopologyPtr rich = RichTopology();
  const TopologyPtr later = AllFilled(Changed(rich, [](TopologyChange& change) {
    EXPECT_TRUE(change.Forget("n1", true).ok());
    change.SetHot({});
    change.Rebalance();
  }));
  for (const auto& [a, b] : {std::pair(from, rich), {rich, later}, {from, later}}) {
    v1::TopologyDelta delta;
    MakeDelta(*a, *b, delta);
    const auto applied = ApplyDelta(*a, delta);
    ASSERT_TRUE(applied.ok()) << applied.status();
    EXPECT_TRUE((*applied)->parts() == b->parts());
  }
}

TEST(TopologyDeltaTest, IsSmallForASmallChange) {
  const TopologyPtr from = ClusterOf(200, 2, 14);
  const TopologyPtr to = Changed(from, [](TopologyChange& change) { EXPECT_TRUE(change.Lost("n7").ok()); });
  const v1::TopologyUpdate update = MakeUpdate(from.get(), *to);
  EXPECT_TRUE(update.has_delta());
  EXPECT_LT(update.ByteSizeLong(), 200u);
}

TEST(TopologyDeltaTest, IsRefusedByAnyOtherTopology) {
  const TopologyPtr one = ClusterOf(3, 2, 4);
  const TopologyPtr two = Changed(one, [](TopologyChange& change) { EXPECT_TRUE(change.Lost("n0").ok()); });
  const TopologyPtr three = Changed(two, [](TopologyChange& change) { EXPECT_TRUE(change.Lost("n1").ok()); });
  v1::TopologyDelta delta;
  MakeDelta(*two, *three, delta);
  EXPECT_EQ(ApplyDelta(*one, delta).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ApplyDelta(*three, delta).status().code(), absl::StatusCode::kFailedPrecondition);
  delta.set_cluster_id(99);
  EXPECT_EQ(ApplyDelta(*two, delta).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(TopologyDeltaTest, EveryFlippedBitIsSeen) {
  const google::protobuf::LogSilencer no_complaints_about_utf8;
  const TopologyPtr from = ClusterOf(4, 2, 4);
  const TopologyPtr to = RichTopology();
  v1::TopologyDelta delta;
  MakeDelta(*from, *to, delta);
  const std::string bytes = delta.SerializeAsString();
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    v1::TopologyDelta wire;
    if (!wire.ParseFromString(damaged)) continue;
    const auto applied = ApplyDelta(*from, wire);
    EXPECT_TRUE(!applied.ok() || (*applied)->parts() == to->parts());
  }
}

TEST(TopologyUpdateTest, SaysNoMoreThanItHasTo) {
  const TopologyPtr one = ClusterOf(3, 2, 4);
  const TopologyPtr two = Changed(one, [](TopologyChange& change) { EXPECT_TRUE(change.Lost("n0").ok()); });
  EXPECT_TRUE(MakeUpdate(nullptr, *two).has_full());
  EXPECT_TRUE(MakeUpdate(one.get(), *two).has_delta());
  EXPECT_TRUE(MakeUpdate(two.get(), *two).unchanged());
  // A holder of a later epoch than ours, or of another cluster, is told all that we know.
  EXPECT_TRUE(MakeUpdate(two.get(), *one).has_full());
  TopologyParts other = two->parts();
  other.cluster_id = 99;
  EXPECT_TRUE(MakeUpdate((*Topology::Make(other)).get(), *two).has_full());
}

TEST(TopologyUpdateTest, NeverGoesBackwardsNorToAnotherCluster) {
  const TopologyPtr one = ClusterOf(3, 2, 4);
  const TopologyPtr two = Changed(one, [](TopologyChange& change) { EXPECT_TRUE(change.Lost("n0").ok()); });
  EXPECT_EQ(*ApplyUpdate(two, MakeUpdate(two.get(), *two)), two);
  EXPECT_TRUE((*ApplyUpdate(nullptr, MakeUpdate(nullptr, *two)))->parts() == two->parts());
  EXPECT_TRUE((*ApplyUpdate(one, MakeUpdate(one.get(), *two)))->parts() == two->parts());
  EXPECT_EQ(*ApplyUpdate(two, MakeUpdate(nullptr, *two)), two) << "the same is kept";
  const auto code = [](const TopologyPtr& have, const v1::TopologyUpdate& update) {
    return ApplyUpdate(have, update).status().code();
  };
  EXPECT_EQ(code(two, MakeUpdate(nullptr, *one)), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(code(nullptr, MakeUpdate(one.get(), *two)), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(code(nullptr, MakeUpdate(two.get(), *two)), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(code(two, v1::TopologyUpdate()), absl::StatusCode::kInvalidArgument);
  TopologyParts parts = two->parts();
  parts.cluster_id = 99;
  EXPECT_EQ(code(one, MakeUpdate(nullptr, **Topology::Make(parts))), absl::StatusCode::kFailedPrecondition);
  // Two answers to one epoch: somebody is wrong.
  parts = two->parts();
  parts.nodes[0].weight = 7;
  EXPECT_EQ(code(two, MakeUpdate(nullptr, **Topology::Make(parts))), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace kdn
