#include "placement/daemon/records.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "placement/topology/topology_change.h"
#include "placement/topology/topology_wire.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

// Every partition is on its way: as long as a topology gets.
TopologyPtr LargeTopology() {
  TopologyChange change(**NewCluster({.id = 7, .partition_bits = kMaxPartitionBits, .replicas = 3}));
  const auto join = [](TopologyChange& to, int i) {
    ASSERT_TRUE(to.Join({.id = "n" + std::to_string(i), .address = "127.0.0.1:1", .zone = "", .incarnation = 1}).ok());
  };
  for (int i = 0; i < 20; ++i) join(change, i);
  change.Rebalance();
  TopologyChange restart(**std::move(change).Finish());
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(
        restart.Join({.id = "n" + std::to_string(i), .address = "127.0.0.1:1", .zone = "", .incarnation = 2}).ok());
  }
  return *std::move(restart).Finish();
}

TEST(TopologyRecord, FitsIntoARegistryAndComesBack) {
  const TopologyPtr small = *NewCluster({.id = 7});
  EXPECT_EQ(EncodeTopologyRecord(*small), EncodeTopology(*small));
  EXPECT_EQ((*DecodeTopologyRecord(EncodeTopologyRecord(*small)))->parts(), small->parts());
  const TopologyPtr large = LargeTopology();
  ASSERT_GT(EncodeTopology(*large).size(), kMaxRegistryValueBytes);  // plain, it would not
  const std::string record = EncodeTopologyRecord(*large);
  EXPECT_LT(record.size(), kMaxRegistryValueBytes);
  EXPECT_EQ((*DecodeTopologyRecord(record))->parts(), large->parts());
}

TEST(TopologyRecord, DamageIsFound) {
  const std::string record = EncodeTopologyRecord(*LargeTopology());
  EXPECT_FALSE(DecodeTopologyRecord("").ok());
  for (size_t size = 0; size < 64; ++size) EXPECT_FALSE(DecodeTopologyRecord(record.substr(0, size)).ok()) << size;
  EXPECT_FALSE(DecodeTopologyRecord(record.substr(0, record.size() - 1)).ok());
  for (size_t at = 0; at < record.size(); at += record.size() / 50) {
    std::string bad = record;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    EXPECT_FALSE(DecodeTopologyRecord(bad).ok()) << at;
  }
}

class NodeRecordTest : public testing::Test {
 protected:
  static NodeInfo Node() {
    return {.id = "n1", .address = "10.0.0.1:7401", .zone = "z", .weight = 7, .incarnation = 3, .capacity_bytes = 9};
  }
  static std::string Why(const Record& record) {
    const absl::Status status = DecodeNode(record).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    return MessageOf(status);
  }
};

TEST_F(NodeRecordTest, ComesBack) {
  NodeInfo node = Node();
  node.slot = 4;
  node.state = NodeState::kActive;
  const NodeRecord record = *DecodeNode({.key = "nodes/n1", .value = EncodeNode(node), .revision = 5, .lease = 11});
  EXPECT_EQ(record.node, Node());  // slot and state are not the record's
  EXPECT_EQ(record.session, 11);
  EXPECT_EQ(record.revision, 5);
}

TEST_F(NodeRecordTest, GarbageIsRefusedByName) {
  EXPECT_THAT(Why({.key = "nodes/n1", .value = "\xff", .revision = 5, .lease = 11}), HasSubstr("'nodes/n1'"));
  EXPECT_THAT(Why({.key = "nodes/n1", .value = "", .revision = 5, .lease = 11}), HasSubstr("'nodes/n1'"));
  EXPECT_THAT(Why({.key = "nodes/n2", .value = EncodeNode(Node()), .revision = 5, .lease = 11}), HasSubstr("'n1'"));
  EXPECT_THAT(Why({.key = "nodes/n1", .value = EncodeNode(Node()), .revision = 5}), HasSubstr("no lease"));
}

}  // namespace
}  // namespace kdn
