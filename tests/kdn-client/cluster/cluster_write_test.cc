// What stores, deletes and leases promise in a cluster, whatever its nodes do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kdn-client/cluster/cluster_transport.h"
#include "tests/kdn-client/cluster/test_cluster.h"
#include "tests/kdn-client/engine_memory.h"

namespace kdn {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

constexpr absl::Duration kWritePatience = absl::Seconds(60);
constexpr uint32_t kWrittenTokens = 12 * kChunkTokens + 5;

class ClusterWriteTest : public testing::Test {
 protected:
  ClusterWriteTest() { Connect({}); }
  void Connect(const ClusterTransportOptions& options) {
    transport_ = cluster_.Connect(options);
    client_ = Client::Create(space_, transport_).value();
  }
  StoreReport Store(Ack ack, absl::Duration deadline = kWritePatience) {
    return client_->Store(chunks_, computed_.view(), {.deadline = deadline, .ack = ack}).value();
  }
  HeldTransport& node(const std::string& id) { return *cluster_.node(id).transport; }
  bool OwnedBy(const ChunkRef& chunk, const std::string& id) {
    return std::ranges::count(cluster_.OwnersOf(chunk.key), id) > 0;
  }
  size_t HeldCopies() {
    size_t copies = 0;
    for (const ChunkRef& chunk : chunks_) {
      for (const std::string& id : cluster_.ids()) copies += cluster_.node(id).Holds(id_, chunk.key) ? 1 : 0;
    }
    return copies;
  }
  std::vector<ChunkKey> Keys() {
    std::vector<ChunkKey> keys;
    for (const ChunkRef& chunk : chunks_) keys.push_back(chunk.key);
    return keys;
  }

  TestCluster cluster_{{.nodes = 3, .replicas = 2}};
  const KvSpace space_ = TinySpace();
  const SpaceId id_ = ComputeSpaceId(space_).value();
  const std::vector<ChunkRef> chunks_ = Chain(space_, kWrittenTokens);
  const EngineMemory computed_ = EngineMemory::WithKv(space_, kWrittenTokens);
  std::shared_ptr<ClusterTransport> transport_;
  std::unique_ptr<Client> client_;
};

TEST_F(ClusterWriteTest, EveryWriterGetsTheChunk) {
  for (const Ack ack : {Ack::kMemory, Ack::kDurable}) {
    EXPECT_EQ(Store(ack).Stored(), chunks_.size());
    EXPECT_EQ(HeldCopies(), 2 * chunks_.size());
  }
}

TEST_F(ClusterWriteTest, WhoIsFillingOrDownIsToldOrNot) {
  // a is down; c fills in its place what it does not own yet, and gets what is stored meanwhile.
  cluster_.info("a").state = NodeState::kDown;
  for (uint32_t p = 0; p < 16; ++p) cluster_.parts.moves[p] = {};
  cluster_.parts.moves.clear();
  cluster_.Publish();
  EXPECT_EQ(Store(Ack::kDurable).Stored(), chunks_.size());
  for (const ChunkRef& chunk : chunks_) {
    EXPECT_FALSE(cluster_.node("a").Holds(id_, chunk.key));
    for (const char* id : {"b", "c"}) EXPECT_EQ(cluster_.node(id).Holds(id_, chunk.key), OwnedBy(chunk, id));
  }
}

TEST_F(ClusterWriteTest, MemoryNeedsOneWriter) {
  node("a").Fail(Unavailable("connection refused"));
  EXPECT_EQ(Store(Ack::kMemory).Stored(), chunks_.size());
  node("b").Fail(Unavailable("connection refused"));
  const StoreReport report = Store(Ack::kMemory);
  for (size_t i = 0; i < chunks_.size(); ++i) {
    EXPECT_EQ(report.chunks[i].ok(), OwnedBy(chunks_[i], "c"));
    if (!report.chunks[i].ok()) {
      EXPECT_TRUE(absl::IsUnavailable(report.chunks[i]));
      EXPECT_THAT(MessageOf(report.chunks[i]), HasSubstr("node"));
    }
  }
  node("c").Fail(Unavailable("connection refused"));
  EXPECT_THAT(Store(Ack::kMemory).chunks, Each(testing::Property(&absl::Status::code, absl::StatusCode::kUnavailable)));
}

TEST_F(ClusterWriteTest, MemoryDoesNotWaitForAWriterThatHangs) {
  node("a").Hold(/*stubborn=*/true);
  EXPECT_EQ(Store(Ack::kMemory).Stored(), chunks_.size());
  node("a").Open();
}

TEST_F(ClusterWriteTest, DurableNeedsAllWriters) {
  node("a").Fail(ResourceExhausted("the disk is full"));
  const StoreReport report = Store(Ack::kDurable);
  for (size_t i = 0; i < chunks_.size(); ++i) {
    EXPECT_EQ(report.chunks[i].code(),
              OwnedBy(chunks_[i], "a") ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kOk);
  }
}

TEST_F(ClusterWriteTest, DurableThatFailsAtOneWriterIsUnavailableAtTheDeadline) {
  node("a").Fail(Unavailable("connection refused"));
  const StoreReport report = Store(Ack::kDurable, absl::Milliseconds(200));
  for (size_t i = 0; i < chunks_.size(); ++i) {
    EXPECT_EQ(report.chunks[i].code(),
              OwnedBy(chunks_[i], "a") ? absl::StatusCode::kUnavailable : absl::StatusCode::kOk);
  }
  EXPECT_GT(cluster_.source->suspected(), 0u);
}

TEST_F(ClusterWriteTest, DurableIsStoredAgainToAWriterThatIsBack) {
  node("a").Fail(Unavailable("connection refused"), 2);
  EXPECT_EQ(Store(Ack::kDurable).Stored(), chunks_.size());
  EXPECT_EQ(HeldCopies(), 2 * chunks_.size());
  EXPECT_EQ(node("b").stores().size(), 1u) << "who has it is not told again";
}

TEST_F(ClusterWriteTest, DurableGoesToTheWritersOfALaterTopology) {
  node("a").Fail(Unavailable("connection refused"));
  std::thread placement([&] {
    node("a").AwaitBegun(1);
    // a is given up: b and c own everything, and c fills.
    cluster_.info("a").state = NodeState::kDown;
    for (uint32_t p = 0; p < 16; ++p) {
      cluster_.parts.owners[2 * p] = 1;
      cluster_.parts.owners[2 * p + 1] = 2;
    }
    cluster_.Publish();
  });
  EXPECT_EQ(Store(Ack::kDurable).Stored(), chunks_.size());
  placement.join();
  for (const ChunkRef& chunk : chunks_) {
    EXPECT_TRUE(cluster_.node("b").Holds(id_, chunk.key));
    EXPECT_TRUE(cluster_.node("c").Holds(id_, chunk.key));
  }
}

TEST_F(ClusterWriteTest, DurableDoesNotWaitForAWriterThatHangsOnceItIsDown) {
  node("a").Hold(/*stubborn=*/true);
  std::thread placement([&] {
    node("a").AwaitBegun(1);
    cluster_.info("a").state = NodeState::kDown;
    cluster_.Publish();
  });
  EXPECT_EQ(Store(Ack::kDurable).Stored(), chunks_.size());
  placement.join();
  node("a").Open();
}

TEST_F(ClusterWriteTest, WithoutAWriterThatIsUpThePartitionIsNamed) {
  for (const char* id : {"a", "b", "c"}) cluster_.info(id).state = NodeState::kDown;
  cluster_.Publish();
  const StoreReport report = Store(Ack::kMemory);
  const std::string partition = std::to_string(cluster_.topology()->PartitionOf(chunks_[0].key));
  EXPECT_TRUE(absl::IsUnavailable(report.chunks[0]));
  EXPECT_THAT(MessageOf(report.chunks[0]), HasSubstr("partition " + partition));
}

TEST_F(ClusterWriteTest, DeleteReachesAllThatMayHoldTheChunk) {
  // While all moves from (p, p + 1) to (p + 1, p + 2), three nodes may hold each chunk.
  EXPECT_EQ(Store(Ack::kMemory).Stored(), chunks_.size());
  for (uint32_t p = 0; p < 16; ++p) {
    cluster_.parts.owners[2 * p] = static_cast<NodeSlot>((p + 1) % 3);
    cluster_.parts.owners[2 * p + 1] = static_cast<NodeSlot>((p + 2) % 3);
    cluster_.parts.moves[p] = {.filling = {static_cast<NodeSlot>((p + 2) % 3)},
                               .leaving = {static_cast<NodeSlot>(p % 3)}};
  }
  cluster_.Publish();
  EXPECT_EQ(Store(Ack::kMemory).Stored(), chunks_.size());
  EXPECT_EQ(HeldCopies(), 3 * chunks_.size());
  EXPECT_THAT(client_->Delete(Keys(), kWritePatience).value(), Each(absl::OkStatus()));
  EXPECT_EQ(HeldCopies(), 0u);
  EXPECT_THAT(client_->Delete(Keys(), kWritePatience).value(),
              Each(testing::Property(&absl::Status::code, absl::StatusCode::kNotFound)));
}

TEST_F(ClusterWriteTest, DeleteFailsWhereAHolderCannotBeReached) {
  EXPECT_EQ(Store(Ack::kMemory).Stored(), chunks_.size());
  cluster_.info("a").state = NodeState::kDown;
  cluster_.Publish();
  const std::vector<absl::Status> deleted = client_->Delete(Keys(), kWritePatience).value();
  for (size_t i = 0; i < chunks_.size(); ++i) {
    EXPECT_EQ(deleted[i].code(), OwnedBy(chunks_[i], "a") ? absl::StatusCode::kUnavailable : absl::StatusCode::kOk);
    for (const char* id : {"b", "c"}) EXPECT_FALSE(cluster_.node(id).Holds(id_, chunks_[i].key));
  }

  class Away final : public ForwardingTransport {
   public:
    using ForwardingTransport::ForwardingTransport;
    absl::StatusOr<std::vector<absl::Status>> Delete(const SpaceId&, std::span<const ChunkKey>, absl::Time) override {
      return Unavailable("connection refused");
    }
  };
  cluster_.info("a").state = NodeState::kActive;
  cluster_.Publish();
  EXPECT_EQ(Store(Ack::kMemory).Stored(), chunks_.size());
  ClusterTransportOptions options;
  options.connect = [&](const std::string& address) -> std::shared_ptr<Transport> {
    std::shared_ptr<Transport> to = cluster_.node(address.substr(0, 1)).transport;
    return address == "a:7401" ? std::make_shared<Away>(to) : to;
  };
  Connect(options);
  const std::vector<absl::Status> again = client_->Delete(Keys(), kWritePatience).value();
  for (size_t i = 0; i < chunks_.size(); ++i) {
    EXPECT_EQ(again[i].code(), OwnedBy(chunks_[i], "a") ? absl::StatusCode::kUnavailable : absl::StatusCode::kOk);
    if (OwnedBy(chunks_[i], "a")) {
      EXPECT_THAT(MessageOf(again[i]), HasSubstr("node a"));
    }
  }
}

TEST_F(ClusterWriteTest, OneLeaseStandsForThoseOfAllNodes) {
  EXPECT_EQ(Store(Ack::kMemory).Stored(), chunks_.size());
  const auto leases = [&] {
    uint64_t held = 0;
    for (const std::string& id : cluster_.ids()) held += cluster_.node(id).store->Stats().leases;
    return held;
  };
  const Lease lease = client_->Pin(Keys(), absl::Minutes(1), kWritePatience).value();
  EXPECT_EQ(lease.pinned, chunks_.size());
  EXPECT_LE(lease.expires, absl::Now() + absl::Minutes(1));
  EXPECT_EQ(leases(), 3u);
  EXPECT_EQ(transport_->Stats(absl::Now() + kWritePatience).value().pinned_chunks, chunks_.size());

  const Lease other = client_->Pin(std::vector{chunks_[0].key}, absl::Minutes(1), kWritePatience).value();
  EXPECT_NE(other.id, lease.id);
  EXPECT_EQ(client_->Unpin(lease.id, kWritePatience), absl::OkStatus());
  EXPECT_EQ(leases(), 1u);
  EXPECT_EQ(client_->Unpin(lease.id, kWritePatience).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client_->Unpin(other.id, kWritePatience), absl::OkStatus());
  EXPECT_EQ(leases(), 0u);
}

TEST_F(ClusterWriteTest, PinAndPrefetchGoOnToTheOtherReadersWhenANodeIsAway) {
  EXPECT_EQ(Store(Ack::kMemory).Stored(), chunks_.size());
  class Away final : public ForwardingTransport {
   public:
    using ForwardingTransport::ForwardingTransport;
    absl::StatusOr<Lease> Pin(const SpaceId&, std::span<const ChunkKey>, absl::Duration, absl::Time) override {
      return Unavailable("connection refused");
    }
    absl::StatusOr<PrefetchCounts> Prefetch(const SpaceId&, std::span<const ChunkKey>, absl::Time) override {
      return Unavailable("connection refused");
    }
  };
  for (const std::string away : {"a", "b", "c"}) {
    ClusterTransportOptions options = {.rest = absl::ZeroDuration()};
    options.connect = [&](const std::string& address) -> std::shared_ptr<Transport> {
      std::shared_ptr<Transport> to = cluster_.node(address.substr(0, 1)).transport;
      return address.substr(0, 1) == away ? std::make_shared<Away>(to) : to;
    };
    Connect(options);
    const Lease lease = client_->Pin(Keys(), absl::Minutes(1), kWritePatience).value();
    EXPECT_EQ(lease.pinned, chunks_.size());
    EXPECT_EQ(client_->Unpin(lease.id, kWritePatience), absl::OkStatus());
    EXPECT_EQ(client_->Prefetch(chunks_, kWritePatience).value().in_memory, chunks_.size());
  }
}

TEST_F(ClusterWriteTest, StatsAreThoseOfAllNodesThatAnswer) {
  EXPECT_EQ(Store(Ack::kMemory).Stored(), chunks_.size());
  const StoreStats stats = transport_->Stats(absl::Now() + kWritePatience).value();
  EXPECT_EQ(stats.memory.chunks, 2 * chunks_.size());
  EXPECT_EQ(stats.memory.budget_bytes, 3 * TieredStoreOptions().memory_bytes);
  cluster_.info("a").state = NodeState::kDown;
  cluster_.Publish();
  EXPECT_EQ(transport_->Stats(absl::Now() + kWritePatience).value().memory.budget_bytes,
            2 * TieredStoreOptions().memory_bytes);
  for (const char* id : {"b", "c"}) cluster_.info(id).state = NodeState::kDown;
  cluster_.Publish();
  EXPECT_TRUE(absl::IsUnavailable(transport_->Stats(absl::Now() + kWritePatience).status()));
}

TEST_F(ClusterWriteTest, NoMoreChunksThanOneCallMayNameAreStored) {
  const std::vector<Chunk> too_many(kMaxChunksPerCall + 1);
  EXPECT_TRUE(
      absl::IsInvalidArgument(transport_->Store(too_many, Ack::kMemory, absl::Now() + kWritePatience).status()));
}

}  // namespace
}  // namespace kdn
