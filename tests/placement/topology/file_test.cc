// Topologies from files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kdn/v1/placement.pb.h"
#include "placement/topology/topology_wire.h"
#include "tests/placement/topology/topologies.h"

namespace kdn {
namespace {

using testing::HasSubstr;

constexpr std::string_view kGood =
    "# three nodes\n"
    "cluster demo\n"
    "\n"
    "replicas 2   # of everything\n"
    "partitions 8\n"
    "node a 10.0.0.1:7401 zone=z1 weight=200\r\n"
    "\tnode b 10.0.0.2:7401 zone=z2\n"
    "node c [::1]:7401";

std::string Refusal(const std::string& text) {
  const auto topology = ParseStaticTopology(text);
  EXPECT_EQ(topology.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(topology.status().message());
}

TEST(StaticTopologyTest, ReadsAFile) {
  const auto topology = ParseStaticTopology(kGood);
  ASSERT_TRUE(topology.ok()) << topology.status();
  EXPECT_EQ((*topology)->cluster(), "demo");
  EXPECT_EQ((*topology)->epoch(), 1u);
  EXPECT_EQ((*topology)->replicas(), 2u);
  EXPECT_EQ((*topology)->partitions(), 256u);
  EXPECT_EQ((*topology)->FindNode("a")->zone, "z1");
  EXPECT_EQ((*topology)->FindNode("a")->weight, 200u);
  EXPECT_EQ((*topology)->FindNode("c")->address, "[::1]:7401");
  for (const NodeInfo& node : (*topology)->parts().nodes) EXPECT_EQ(node.state, NodeState::kActive);
  EXPECT_TRUE((*topology)->parts().moves.empty());
}

TEST(StaticTopologyTest, SameNodesSameTopology) {
  const TopologyPtr topology = *ParseStaticTopology(kGood);
  EXPECT_TRUE((*ParseStaticTopology(kGood))->parts() == topology->parts());
  EXPECT_TRUE((*ParseStaticTopology("replicas 2\npartitions 8\ncluster demo\n"
                                    "node a 10.0.0.1:7401 weight=200 zone=z1\n"
                                    "node b 10.0.0.2:7401 zone=z2\nnode c [::1]:7401\n"))
                  ->parts() == topology->parts());
}

TEST(StaticTopologyTest, ALaterFileFollowsAnEarlierOne) {
  const TopologyPtr one = *ParseStaticTopology(kGood);
  const TopologyPtr two = *ParseStaticTopology(std::string(kGood) + "\nnode d d:1\nepoch 2\n");
  EXPECT_EQ(two->epoch(), 2u);
  EXPECT_EQ(two->parts().cluster_id, one->parts().cluster_id);
  EXPECT_TRUE(ApplyUpdate(one, MakeUpdate(one.get(), *two)).ok());
}

TEST(StaticTopologyTest, NamesTheLine) {
  EXPECT_THAT(Refusal("cluster a\nnodes b\n"), HasSubstr("line 2: 'nodes' is unknown"));
  EXPECT_THAT(Refusal("cluster a\n\nnode b\n"), HasSubstr("line 3: a node without an address"));
  EXPECT_THAT(Refusal("cluster a\nnode b b:1 zome=1\n"), HasSubstr("line 2: 'zome=1'"));
  EXPECT_THAT(Refusal("cluster a\nnode b b:1 weight=0\n"), HasSubstr("line 2: weight '0'"));
  EXPECT_THAT(Refusal("cluster a\nnode b b:x\n"), HasSubstr("line 2: node 'b': 'b:x' is no address"));
  EXPECT_THAT(Refusal("cluster a\nnode b b:1\nnode b c:1\n"), HasSubstr("line 3: node 'b' a second time"));
  EXPECT_THAT(Refusal("cluster a\nnode b b:1\nnode c b:1\n"), HasSubstr("line 3: node 'c': another node has the"));
  EXPECT_THAT(Refusal("cluster a\ncluster b\n"), HasSubstr("line 2: 'cluster' a second time"));
  EXPECT_THAT(Refusal("cluster a b\n"), HasSubstr("line 1: 'cluster' with 2 values"));
  EXPECT_THAT(Refusal("cluster\n"), HasSubstr("line 1: 'cluster' with 0 values"));
  EXPECT_THAT(Refusal("cluster a/b\n"), HasSubstr("line 1: cluster name"));
  EXPECT_THAT(Refusal("cluster a\nreplicas 9\n"), HasSubstr("line 2: replicas '9'"));
  EXPECT_THAT(Refusal("cluster a\npartitions 40\n"), HasSubstr("line 2: partition bits '40'"));
  EXPECT_THAT(Refusal("cluster a\nepoch -1\n"), HasSubstr("line 2: epoch '-1'"));
  EXPECT_THAT(Refusal("node a a:1\n"), HasSubstr("add 'cluster NAME'"));
  EXPECT_THAT(Refusal("cluster a\n"), HasSubstr("add 'node ID HOST:PORT'"));
  EXPECT_THAT(Refusal(""), HasSubstr("cluster"));
  EXPECT_THAT(Refusal(std::string(5'000'000, '\n')), HasSubstr("at most"));
}

}  // namespace
}  // namespace kdn
