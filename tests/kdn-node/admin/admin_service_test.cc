// AdminService over a real server, asked with plain gRPC.
#include "kdn-node/admin/admin_service.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "kdn-node/admin/chunk_answers.h"
#include "kdn/v1/admin.grpc.pb.h"
#include "tests/kdn-node/node_test.h"

namespace kdn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::string BytesOfKey(const ChunkKey& key) { return std::string(AsStringView(key.span())); }

class NodeAdminServiceTest : public NodeTest {
 protected:
  void StartAdmin(bool with_disk = true) {
    if (with_disk) {
      store_options_.disks = {{.path = directory_.path(), .bytes = uint64_t{1} << 30}};
      server_options_.admin.disk_paths = {directory_.path()};
    }
    StartNode();
    admin_ = v1::AdminService::NewStub(Channel());
  }
  void TearDown() override {
    admin_.reset();
    NodeTest::TearDown();
  }

  // Chunks 1 to n of one segment, one after another.
  std::vector<Chunk> MakeChain(uint32_t n) const {
    std::vector<Chunk> chain;
    ChunkKey parent;
    for (uint32_t i = 0; i < n; ++i) {
      Chunk chunk = testing::MakeChunk(space(), 1000 + i);
      Manifest manifest = *chunk.manifest;
      manifest.parent = parent;
      manifest.first_token = i * manifest.tokens;
      parent = manifest.key;
      chunk.manifest = std::make_shared<Manifest>(manifest);
      chain.push_back(std::move(chunk));
    }
    return chain;
  }

  grpc::Status List(const v1::ListHeldChunksRequest& request, std::vector<v1::HeldChunk>* chunks) {
    grpc::ClientContext context;
    const auto reader = admin_->ListHeldChunks(&context, request);
    v1::HeldChunksPage page;
    while (reader->Read(&page)) chunks->insert(chunks->end(), page.chunks().begin(), page.chunks().end());
    return reader->Finish();
  }
  grpc::Status Clear(const v1::ClearRequest& request, v1::ClearProgress* last) {
    grpc::ClientContext context;
    const auto reader = admin_->Clear(&context, request);
    while (reader->Read(last)) {
    }
    return reader->Finish();
  }
  grpc::Status Verify(uint32_t level, v1::VerifyProgress* last, std::vector<v1::DamagedChunk>* damaged) {
    v1::VerifyRequest request;
    request.set_level(level);
    grpc::ClientContext context;
    const auto reader = admin_->Verify(&context, request);
    while (reader->Read(last)) damaged->insert(damaged->end(), last->damaged().begin(), last->damaged().end());
    return reader->Finish();
  }
  v1::ExplainResponse Explain(const std::vector<Chunk>& chunks) {
    v1::ExplainRequest request;
    request.set_keys(KeysOf(chunks));
    v1::ExplainResponse response;
    grpc::ClientContext context;
    const grpc::Status status = admin_->Explain(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  testing::TempDir directory_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
};

TEST_F(NodeAdminServiceTest, InspectTellsOfTiersAndOfTheirDisks) {
  server_options_.admin.standing = [] {
    return ClusterStanding{.node_id = "n7", .cluster = "kdn", .cluster_id = 9, .epoch = 42, .registered = true};
  };
  StartAdmin();
  MustStore(MakeChunks(2), v1::ACK_DURABLE);
  v1::InspectResponse who;
  grpc::ClientContext context;
  ASSERT_TRUE(admin_->Inspect(&context, {}, &who).ok());
  EXPECT_EQ(who.version(), KDN_VERSION);
  EXPECT_GT(who.unix_ms(), 0u);
  EXPECT_EQ(who.node_id(), "n7");
  EXPECT_EQ(who.epoch(), 42u);
  EXPECT_TRUE(who.registered());
  ASSERT_THAT(who.tiers(), SizeIs(2));
  EXPECT_EQ(who.tiers(0).tier(), v1::TIER_MEMORY);
  EXPECT_EQ(who.tiers(0).stats().chunks(), 2u);
  EXPECT_EQ(who.tiers(1).path(), directory_.path());
  EXPECT_EQ(who.tiers(1).stats().chunks(), 2u);
  EXPECT_GT(who.tiers(1).total_bytes(), 0u);
}

TEST_F(NodeAdminServiceTest, SpacesAreCountedByChunkAndByTier) {
  StartAdmin();
  const std::vector<Chunk> chunks = MakeChunks(3);
  const KvSpace other = testing::MakeSpace("test/other");
  MustStore({chunks[0], chunks[1]}, v1::ACK_DURABLE);
  MustStore({testing::MakeChunk(other, 1)});
  store_->Flush();
  v1::ListSpacesResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(admin_->ListSpaces(&context, {}, &response).ok());
  ASSERT_THAT(response.spaces(), SizeIs(2));
  const v1::SpaceHeld& most = response.spaces(0);
  EXPECT_EQ(most.space_id(), SpaceBytes());
  EXPECT_EQ(most.chunks(), 2u);
  EXPECT_EQ(most.tokens(), 32u);
  EXPECT_EQ(most.encoded_bytes(), 2 * chunks[0].manifest->EncodedBytes());
  EXPECT_EQ(most.roots(), 2u);
  EXPECT_EQ(most.layers(), 4u);
  EXPECT_EQ(most.heads(), 2u);
  EXPECT_EQ(most.dim(), 16u);
  ASSERT_THAT(most.tiers(), SizeIs(2));
  EXPECT_EQ(most.tiers(0).chunks(), 2u);
  EXPECT_EQ(most.tiers(1).level(), 1u);
  EXPECT_EQ(response.spaces(1).chunks(), 1u);
}

TEST_F(NodeAdminServiceTest, ListsEveryChunkOnceInTheOrderOfKeysAndGoesOnAfterAKey) {
  StartAdmin();
  const std::vector<Chunk> chunks = MakeChunks(1100, 1);  // more than two pages
  MustStore(chunks);
  std::vector<v1::HeldChunk> all;
  ASSERT_TRUE(List({}, &all).ok());
  ASSERT_THAT(all, SizeIs(1100));
  EXPECT_TRUE(std::ranges::is_sorted(all, {}, [](const v1::HeldChunk& chunk) { return chunk.key(); }));
  v1::ListHeldChunksRequest rest;
  rest.set_after_key(all[1000].key());
  std::vector<v1::HeldChunk> after;
  ASSERT_TRUE(List(rest, &after).ok());
  ASSERT_THAT(after, SizeIs(99));
  EXPECT_EQ(after.front().key(), all[1001].key());
}

TEST_F(NodeAdminServiceTest, ListsASpaceOrAChainAlone) {
  StartAdmin();
  const std::vector<Chunk> chain = MakeChain(5);
  MustStore(chain);
  MustStore({testing::MakeChunk(testing::MakeSpace("test/other"), 1)});
  v1::ListHeldChunksRequest request;
  request.set_space_id(SpaceBytes());
  std::vector<v1::HeldChunk> of_space;
  ASSERT_TRUE(List(request, &of_space).ok());
  EXPECT_THAT(of_space, SizeIs(5));
  request.set_under_key(BytesOfKey(chain[2].manifest->key));
  std::vector<v1::HeldChunk> of_chain;
  ASSERT_TRUE(List(request, &of_chain).ok());
  EXPECT_THAT(of_chain, SizeIs(3));
}

TEST_F(NodeAdminServiceTest, ExplainTellsWhereAChunkIsAndThatNothingWasEverLost) {
  StartAdmin();
  const std::vector<Chunk> chunks = MakeChunks(2);
  MustStore({chunks[0]}, v1::ACK_DURABLE);
  ASSERT_TRUE(store_->Pin(testing::IdOf(space()), std::vector<ChunkKey>{chunks[0].manifest->key}, absl::Hours(1)).ok());
  const v1::ExplainResponse explained = Explain(chunks);
  ASSERT_THAT(explained.keys(), SizeIs(2));
  const v1::HeldChunk& held = explained.keys(0).held();
  EXPECT_EQ(held.space_id(), SpaceBytes());
  EXPECT_EQ(held.tokens(), 16u);
  EXPECT_EQ(held.fidelity(), v1::FIDELITY_EXACT);
  EXPECT_TRUE(held.pinned());
  EXPECT_EQ(held.ttl_ms(), 0u);
  ASSERT_THAT(held.copies(), SizeIs(2));
  EXPECT_EQ(held.copies(0).tier(), v1::TIER_MEMORY);
  EXPECT_EQ(held.copies(1).tier(), v1::TIER_DISK);
  EXPECT_THAT(held.copies(1).codecs(), ElementsAre("raw"));
  EXPECT_FALSE(explained.keys(1).has_held());
  EXPECT_THAT(explained.keys(1).detail(), HasSubstr("never stored here"));
}

TEST_F(NodeAdminServiceTest, ExplainCountsWhatWasEvicted) {
  const std::vector<Chunk> chunks = MakeChunks(4, 256);
  store_options_.memory_bytes = 2 * chunks[0].manifest->EncodedBytes();
  store_options_.memory_policy = PolicyKind::kLru;
  StartAdmin(/*with_disk=*/false);
  MustStore(chunks);
  const v1::ExplainResponse explained = Explain({chunks[0]});
  ASSERT_FALSE(explained.keys(0).has_held());
  EXPECT_THAT(explained.keys(0).detail(), HasSubstr("evicted 3"));
}

TEST_F(NodeAdminServiceTest, ClearErasesASpaceFromAllTiersPinnedOrNotAndNothingElse) {
  StartAdmin();
  const std::vector<Chunk> chunks = MakeChunks(200, 1);
  MustStore(chunks, v1::ACK_DURABLE);
  const Chunk other = testing::MakeChunk(testing::MakeSpace("test/other"), 1);
  MustStore({other});
  ASSERT_TRUE(store_->Pin(testing::IdOf(space()), std::vector<ChunkKey>{chunks[0].manifest->key}, absl::Hours(1)).ok());
  v1::ClearRequest request;
  request.set_space_id(SpaceBytes());
  v1::ClearProgress last;
  ASSERT_TRUE(Clear(request, &last).ok());
  EXPECT_TRUE(last.done());
  EXPECT_EQ(last.cleared(), 200u);
  EXPECT_EQ(last.total(), 200u);
  EXPECT_EQ(last.cleared_bytes(), 200 * chunks[0].manifest->EncodedBytes());
  EXPECT_THAT(store_->Keys(), ElementsAre(other.manifest->key));
}

TEST_F(NodeAdminServiceTest, ClearOfAChainLeavesWhatComesBefore) {
  StartAdmin();
  const std::vector<Chunk> chain = MakeChain(5);
  MustStore(chain);
  v1::ClearRequest request;
  request.set_space_id(SpaceBytes());
  request.set_under_key(BytesOfKey(chain[3].manifest->key));
  v1::ClearProgress last;
  ASSERT_TRUE(Clear(request, &last).ok());
  EXPECT_EQ(last.cleared(), 2u);
  const v1::ExplainResponse explained = Explain(chain);
  EXPECT_TRUE(explained.keys(2).has_held());
  EXPECT_FALSE(explained.keys(3).has_held());
  EXPECT_FALSE(explained.keys(4).has_held());
}

TEST_F(NodeAdminServiceTest, VerifyNamesAndDropsWhatIsDamagedOnADisk) {
  store_options_.memory_bytes = uint64_t{1} << 20;
  StartAdmin();
  const std::vector<Chunk> chunks = MakeChunks(100);
  MustStore(chunks, v1::ACK_DURABLE);
  testing::FlipBitUnder(directory_.path() + "/segments", chunks[17].slabs[2].span());
  v1::VerifyProgress last;
  std::vector<v1::DamagedChunk> damaged;
  ASSERT_TRUE(Verify(1, &last, &damaged).ok());
  EXPECT_TRUE(last.done());
  EXPECT_EQ(last.chunks(), 100u);
  EXPECT_EQ(last.total(), 100u);
  ASSERT_THAT(damaged, SizeIs(1));
  EXPECT_EQ(damaged[0].key(), BytesOfKey(chunks[17].manifest->key));
  // Memory's copy is whole, and the disk's is gone.
  damaged.clear();
  ASSERT_TRUE(Verify(0, &last, &damaged).ok());
  EXPECT_THAT(damaged, IsEmpty());
  ASSERT_TRUE(Verify(1, &last, &damaged).ok());
  EXPECT_EQ(last.total(), 99u);
}

TEST_F(NodeAdminServiceTest, BadRequestsAreRefusedByName) {
  StartAdmin();
  v1::ClearProgress cleared;
  EXPECT_THAT(Clear({}, &cleared).error_message(), HasSubstr("no space_id"));
  v1::ListHeldChunksRequest list;
  list.set_after_key("short");
  std::vector<v1::HeldChunk> chunks;
  const grpc::Status listed = List(list, &chunks);
  EXPECT_EQ(listed.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(listed.error_message(), HasSubstr("after_key"));
  v1::VerifyProgress last;
  std::vector<v1::DamagedChunk> damaged;
  EXPECT_THAT(Verify(2, &last, &damaged).error_message(), HasSubstr("there is no tier 2"));
  const auto explain = [this](size_t bytes) {
    v1::ExplainRequest request;
    request.set_keys(std::string(bytes, 'k'));
    v1::ExplainResponse response;
    grpc::ClientContext context;
    return admin_->Explain(&context, request, &response);
  };
  EXPECT_THAT(explain(33).error_message(), HasSubstr("keys have 33 bytes"));
  EXPECT_THAT(explain((kMaxExplainKeys + 1) * kDigestSize).error_message(), HasSubstr("at most 256"));
}

TEST_F(NodeAdminServiceTest, OnlyOneVerifyRunsAtATime) {
  StartAdmin();
  Gate gate;
  store_->before_examine = [&gate](const ChunkKey&) { gate.Pass(); };
  MustStore(MakeChunks(3));
  grpc::ClientContext first_context;
  const auto first = admin_->Verify(&first_context, v1::VerifyRequest());
  gate.AwaitArrival();
  std::vector<v1::DamagedChunk> damaged;
  v1::VerifyProgress last;
  const grpc::Status second = Verify(0, &last, &damaged);
  EXPECT_EQ(second.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(second.error_message(), HasSubstr("1 calls of Verify run already"));
  gate.Open();
  v1::VerifyProgress progress;
  while (first->Read(&progress)) {
  }
  EXPECT_TRUE(first->Finish().ok());
  EXPECT_TRUE(progress.done());
  EXPECT_TRUE(Verify(0, &last, &damaged).ok()) << "the seat came back";
}

TEST_F(NodeAdminServiceTest, APeerThatLeavesEndsAVerifyAndGivesItsSeatBack) {
  StartAdmin();
  Gate gate;
  store_->before_examine = [&gate](const ChunkKey&) { gate.Pass(); };
  MustStore(MakeChunks(3));
  {
    grpc::ClientContext context;
    const auto reader = admin_->Verify(&context, v1::VerifyRequest());
    gate.AwaitArrival();
    context.TryCancel();
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  gate.Open();
  EXPECT_TRUE(Eventually([this] {
    std::vector<v1::DamagedChunk> damaged;
    v1::VerifyProgress last;
    return Verify(0, &last, &damaged).ok();
  }));
}

}  // namespace
}  // namespace kdn
