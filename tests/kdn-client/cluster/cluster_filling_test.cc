// Lookups while a node fills, and answers sooner than the one that is filled.
#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "kdn-client/client.h"
#include "tests/kdn-client/cluster/test_cluster.h"
#include "tests/kdn-client/engine_memory.h"

namespace kdn {
namespace {

constexpr absl::Duration kPlenty = absl::Seconds(60);
constexpr uint32_t kTokens = 4 * kChunkTokens;

// A node that had been restarted and lacked what was stored meanwhile said so before the owner that had it answered,
// and was believed: a miss in the middle of a rolling restart.
TEST(ClusterFillingTest, ThatAFillingNodeLacksAChunkIsNoAnswerForASlowOwner) {
  TestCluster cluster({.nodes = 2, .replicas = 2});
  const KvSpace space = TinySpace();
  const std::vector<ChunkRef> chunks = Chain(space, kTokens);
  const EngineMemory computed = EngineMemory::WithKv(space, kTokens);
  cluster.info("b").state = NodeState::kDown;
  cluster.Publish();
  const auto storer = Client::Create(space, cluster.Connect({})).value();
  ASSERT_EQ(storer->Store(chunks, computed.view(), {.deadline = kPlenty})->Stored(), chunks.size());
  cluster.info("b").state = NodeState::kActive;
  for (Partition p = 0; p < cluster.topology()->partitions(); ++p) cluster.parts.moves[p].filling = {1};
  cluster.Publish();

  // The longer the first readers took, the longer the others may take.
  const auto client =
      Client::Create(space, cluster.Connect({.hedge = {.delay = absl::Milliseconds(300), .budget = 10}})).value();
  HeldTransport& owner = *cluster.node("a").transport;
  const size_t begun = owner.begun();
  owner.Hold();
  PrefixHit hit;
  std::thread lookup([&] { hit = client->LookupPrefix(SomeTokens(kTokens), {.deadline = kPlenty}); });
  cluster.node("b").transport->AwaitBegun(1);
  owner.AwaitBegun(begun + 2);  // first, and once more when b has nothing
  owner.Open();
  lookup.join();
  EXPECT_EQ(hit.hits, chunks.size()) << hit.stopped_by.detail;
}

}  // namespace
}  // namespace kdn
