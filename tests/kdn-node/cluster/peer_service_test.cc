// PeerService over a real server, and ConnectToPeer, its client.
#include "kdn-node/cluster/peer_service.h"

#include <gmock/gmock.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <set>

#include "kdn-node/cluster/peer.h"
#include "kdn/v1/peer.grpc.pb.h"
#include "tests/kdn-node/node_test.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

class NodePeerServiceTest : public NodeTest {
 protected:
  NodePeerServiceTest() {
    server_options_.services.push_back([this](ServiceState& state) {
      indexes_ = std::make_unique<PartitionIndexCache>(state.store);
      return MakePeerService(state, *indexes_);
    });
  }
  void StartPeer() {
    StartNode();
    channel_ = Channel();
    peer_stub_ = v1::PeerService::NewStub(channel_);
    peer_ = ConnectToPeer(server_->endpoint().ToString());
  }
  void TearDown() override {
    peer_.reset();
    peer_stub_.reset();
    channel_.reset();
    NodeTest::TearDown();
    indexes_.reset();
  }

  static std::vector<Partition> AllPartitions(uint32_t bits) {
    std::vector<Partition> all(size_t{1} << bits);
    for (Partition i = 0; i < all.size(); ++i) all[i] = i;
    return all;
  }
  static v1::PartitionSet Set(uint32_t bits, const std::vector<Partition>& partitions) {
    v1::PartitionSet set;
    set.set_partition_bits(bits);
    set.mutable_partitions()->Add(partitions.begin(), partitions.end());
    return set;
  }
  grpc::Status Digests(const v1::PartitionSet& set, v1::DigestsResponse* response) {
    v1::DigestsRequest request;
    *request.mutable_partitions() = set;
    grpc::ClientContext context;
    return peer_stub_->Digests(&context, request, response);
  }
  grpc::Status List(const v1::PartitionSet& set, std::vector<v1::ListChunksPage>* pages = nullptr) {
    v1::ListChunksRequest request;
    *request.mutable_partitions() = set;
    grpc::ClientContext context;
    const auto reader = peer_stub_->ListChunks(&context, request);
    v1::ListChunksPage page;
    while (reader->Read(&page)) {
      if (pages != nullptr) pages->push_back(page);
    }
    return reader->Finish();
  }

  std::unique_ptr<PartitionIndexCache> indexes_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::PeerService::Stub> peer_stub_;
  std::shared_ptr<Peer> peer_;
};

TEST_F(NodePeerServiceTest, ListsEveryChunkOnceWithWhatItTakesToKeepIt) {
  testing::TempDir dir;
  store_options_.disks = {{.path = dir.path(), .bytes = uint64_t{1} << 30}};
  StartPeer();
  const std::vector<Chunk> chunks = MakeChunks(30);
  for (size_t i = 0; i < chunks.size(); ++i) {
    Chunk chunk = chunks[i];
    if (i == 0) chunk.retention = {.expires = absl::Now() + absl::Hours(1), .lossy_allowed = true};
    ASSERT_TRUE(store_->Put(chunk, i % 2 == 0 ? Ack::kDurable : Ack::kMemory, Checksums::kToVerify).ok());
  }
  store_->Flush();
  std::map<ChunkKey, PeerChunk> listed;
  const absl::Status status = peer_->ListChunks(4, AllPartitions(4), nullptr, [&](const PeerChunk& chunk) {
    EXPECT_TRUE(listed.emplace(chunk.key, chunk).second);
    return true;
  });
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_EQ(listed.size(), chunks.size());
  for (const Chunk& chunk : chunks) {
    const PeerChunk& found = listed.at(chunk.manifest->key);
    EXPECT_EQ(found.space, chunk.manifest->space);
    EXPECT_EQ(found.encoded_bytes, chunk.manifest->EncodedBytes());
    EXPECT_TRUE(found.durable);
  }
  const Retention mortal = listed.at(chunks[0].manifest->key).retention;
  EXPECT_TRUE(mortal.lossy_allowed);
  EXPECT_GT(mortal.expires, absl::Now() + absl::Minutes(59));
  EXPECT_LT(mortal.expires, absl::Now() + absl::Minutes(61));
  EXPECT_EQ(listed.at(chunks[1].manifest->key).retention, Retention());
}

TEST_F(NodePeerServiceTest, ListsThePartitionsThatAreAskedForInPages) {
  StartPeer();
  const std::vector<Chunk> chunks = MakeChunks(2000, 1);
  for (const Chunk& chunk : chunks) ASSERT_TRUE(store_->Put(chunk, Ack::kMemory, Checksums::kVerified).ok());
  std::vector<v1::ListChunksPage> pages;
  ASSERT_TRUE(List(Set(4, AllPartitions(4)), &pages).ok());
  size_t listed = 0;
  for (const v1::ListChunksPage& page : pages) {
    EXPECT_LE(page.chunks_size(), 1024);
    listed += static_cast<size_t>(page.chunks_size());
  }
  EXPECT_EQ(listed, 2000u);
  EXPECT_GE(pages.size(), 2u);

  pages.clear();
  ASSERT_TRUE(List(Set(4, {3, 3, 9}), &pages).ok());
  std::set<std::string> keys;
  for (const v1::ListChunksPage& page : pages) {
    for (const v1::ListedChunk& chunk : page.chunks()) EXPECT_TRUE(keys.insert(chunk.key()).second) << "listed twice";
  }
  const auto wanted = std::ranges::count_if(chunks, [](const Chunk& chunk) {
    const Partition partition = Topology::PartitionOf(chunk.manifest->key, 4);
    return partition == 3 || partition == 9;
  });
  EXPECT_EQ(keys.size(), static_cast<size_t>(wanted));
  EXPECT_TRUE(List(Set(4, {})).ok());
}

TEST_F(NodePeerServiceTest, DigestsAreThoseOfWhatIsHeld) {
  StartPeer();
  for (const Chunk& chunk : MakeChunks(50)) ASSERT_TRUE(store_->Put(chunk, Ack::kMemory, Checksums::kVerified).ok());
  const auto digests = peer_->Digests(14, AllPartitions(14), nullptr);
  ASSERT_TRUE(digests.ok()) << digests.status();
  const PartitionIndex index(store_->Keys());
  for (const Partition partition : AllPartitions(14)) EXPECT_EQ((*digests)[partition], index.DigestOf(partition, 14));
  v1::DigestsResponse some;
  ASSERT_TRUE(Digests(Set(4, {7, 7, 2}), &some).ok());
  EXPECT_EQ(some.digests_size(), 3) << "one for each that is named";
  EXPECT_EQ(some.digests(0), some.digests(1));
}

TEST_F(NodePeerServiceTest, BadInputIsRefusedByName) {
  StartPeer();
  v1::DigestsResponse response;
  for (const uint32_t bits : {0u, 3u, 17u, 4'000'000'000u}) {
    for (const grpc::Status& status : {Digests(Set(bits, {0}), &response), List(Set(bits, {0}))}) {
      EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << bits;
      EXPECT_THAT(status.error_message(), HasSubstr("partition_bits"));
    }
  }
  for (const grpc::Status& status : {Digests(Set(4, {3, 16}), &response), List(Set(4, {3, 16}))}) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr("partition 16"));
  }
  for (const grpc::Status& status :
       {Digests(Set(4, std::vector<Partition>(17)), &response), List(Set(4, std::vector<Partition>(17)))}) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr("17 partitions"));
  }
}

TEST_F(NodePeerServiceTest, AFewListingsRunAtATimeAndOneThatIsGivenUpEnds) {
  StartPeer();
  for (const Chunk& chunk : MakeChunks(100)) ASSERT_TRUE(store_->Put(chunk, Ack::kMemory, Checksums::kVerified).ok());
  const auto gate = std::make_shared<Gate>();
  store_->before_describe = [gate](const ChunkKey&) { gate->Pass(); };
  v1::ListChunksRequest request;
  *request.mutable_partitions() = Set(4, AllPartitions(4));
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::ListChunksPage>>> running;
  for (size_t i = 0; i < kMaxPeerListings; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    running.push_back(peer_stub_->ListChunks(contexts.back().get(), request));
  }
  gate->AwaitArrival();
  // They are admitted in the order of their coming, but not before this call may overtake them.
  ASSERT_TRUE(Eventually([&] { return server_->metrics().running() == kMaxPeerListings; }));
  const grpc::Status refused = List(Set(4, {1}));
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  for (const auto& context : contexts) context->TryCancel();
  for (const auto& reader : running) EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  gate->Open();
  EXPECT_TRUE(Eventually([&] { return server_->metrics().running() == 0; }));
  EXPECT_TRUE(List(Set(4, AllPartitions(4))).ok()) << "their seats are free again";
}

TEST_F(NodePeerServiceTest, AListingMayBeEndedEarlyByWhoeverReadsIt) {
  StartPeer();
  for (const Chunk& chunk : MakeChunks(10)) ASSERT_TRUE(store_->Put(chunk, Ack::kMemory, Checksums::kVerified).ok());
  int seen = 0;
  const absl::Status enough = peer_->ListChunks(4, AllPartitions(4), nullptr, [&](const PeerChunk&) {
    ++seen;
    return false;
  });
  EXPECT_TRUE(enough.ok()) << enough;
  EXPECT_EQ(seen, 1);
  Cancellation cancel;
  cancel.Cancel();
  const absl::Status cancelled = peer_->ListChunks(4, AllPartitions(4), &cancel, [](const PeerChunk&) { return true; });
  EXPECT_TRUE(absl::IsCancelled(cancelled)) << cancelled;
  EXPECT_TRUE(absl::IsCancelled(peer_->Digests(4, AllPartitions(4), &cancel).status()));
}

TEST_F(NodePeerServiceTest, AStoppingNodeEndsListings) {
  StartPeer();
  for (const Chunk& chunk : MakeChunks(10)) ASSERT_TRUE(store_->Put(chunk, Ack::kMemory, Checksums::kVerified).ok());
  const auto gate = std::make_shared<Gate>();
  store_->before_describe = [gate](const ChunkKey&) { gate->Pass(); };
  grpc::Status ended;
  std::thread listing([&] { ended = List(Set(4, AllPartitions(4))); });
  gate->AwaitArrival();
  std::thread stopping([&] { server_->Stop(absl::Seconds(10)); });
  ASSERT_TRUE(Eventually([&] { return List(Set(4, {1})).error_code() == grpc::StatusCode::UNAVAILABLE; }));
  gate->Open();
  listing.join();
  stopping.join();
  EXPECT_EQ(ended.error_code(), grpc::StatusCode::UNAVAILABLE);
}

// A node that answers what a test tells it to.
class LyingPeer final : public v1::PeerService::Service {
 public:
  v1::ListedChunk chunk;
  int digests = 0;

  grpc::Status Digests(grpc::ServerContext*, const v1::DigestsRequest*, v1::DigestsResponse* response) override {
    for (int i = 0; i < digests; ++i) response->add_digests(1);
    return grpc::Status::OK;
  }
  grpc::Status ListChunks(grpc::ServerContext*, const v1::ListChunksRequest*,
                          grpc::ServerWriter<v1::ListChunksPage>* writer) override {
    v1::ListChunksPage page;
    *page.add_chunks() = chunk;
    writer->Write(page);
    return grpc::Status::OK;
  }
};

TEST_F(NodePeerServiceTest, WhatAPeerSaysIsChecked) {
  LyingPeer lies;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&lies);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  const std::shared_ptr<Peer> peer = ConnectToPeer("127.0.0.1:" + std::to_string(port));
  const auto list = [&] {
    return peer->ListChunks(4, std::vector<Partition>{0}, nullptr, [](const PeerChunk&) {
      ADD_FAILURE() << "a chunk that is none was taken";
      return true;
    });
  };
  lies.chunk.set_space_id(std::string(32, 'x'));
  lies.chunk.set_key(std::string(31, '\0'));
  EXPECT_TRUE(absl::IsDataLoss(list())) << list();
  lies.chunk.set_key(std::string(32, '\xff'));
  EXPECT_TRUE(absl::IsDataLoss(list())) << "of another partition: " << list();
  lies.chunk.set_key(std::string(32, '\0'));
  lies.chunk.set_space_id("");
  EXPECT_TRUE(absl::IsDataLoss(list())) << list();
  lies.digests = 2;
  EXPECT_TRUE(absl::IsDataLoss(peer->Digests(4, std::vector<Partition>{0, 1, 2}, nullptr).status()));
  server->Shutdown();
}

}  // namespace
}  // namespace kdn
