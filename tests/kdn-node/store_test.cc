#include <grpcpp/generic/generic_stub.h>

#include <atomic>
#include <latch>

#include "storage/base/status.h"
#include "tests/kdn-node/node_test.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;
using testing::WithFlippedByte;

constexpr int Code(absl::StatusCode code) { return static_cast<int>(code); }

class NodeStoreTest : public NodeTest {
 protected:
  void ExpectNotHeld(const Chunk& chunk) {
    EXPECT_EQ(Lookup({chunk}).chunks(0).miss(), v1::MISS_REASON_NOT_FOUND);
    EXPECT_EQ(Stats().memory().chunks(), 0u);
  }

  // `bad` between two good chunks: the good ones are stored, and `bad` is answered with what is returned.
  v1::ChunkStatus StoreBetweenGoodChunks(const std::vector<v1::StoreFrame>& bad) {
    const Chunk before = testing::MakeChunk(space(), 101);
    const Chunk after = testing::MakeChunk(space(), 102);
    std::vector<v1::StoreFrame> frames = FramesOf(before);
    frames.insert(frames.end(), bad.begin(), bad.end());
    for (v1::StoreFrame& frame : FramesOf(after)) frames.push_back(std::move(frame));
    v1::StoreResponse response;
    const grpc::Status status = SendStore(frames, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    if (response.chunks_size() != 3) {
      ADD_FAILURE() << "answers for " << response.chunks_size() << " chunks, not 3";
      return {};
    }
    EXPECT_EQ(response.chunks(0).code(), 0) << response.chunks(0).message();
    EXPECT_EQ(response.chunks(2).code(), 0) << response.chunks(2).message();
    EXPECT_EQ(Lookup({before, after}).prefix_chunks(), 2u);
    EXPECT_EQ(Gauge("kdn_node_upload_bytes"), 0);
    return response.chunks(1);
  }
};

TEST_F(NodeStoreTest, APlainProtobufClientStoresAndFindsChunks) {
  const testing::TempDir disk;
  store_options_.disks = {{.path = disk.path()}};
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(3);
  MustStore(chunks, v1::ACK_DURABLE);
  const v1::LookupResponse found = Lookup(chunks);
  EXPECT_EQ(found.prefix_chunks(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(found.chunks(i).miss(), v1::MISS_REASON_UNSPECIFIED);
    EXPECT_EQ(found.chunks(i).tokens(), 16u);
    EXPECT_EQ(found.chunks(i).encoded_bytes(), chunks[0].manifest->EncodedBytes());
    EXPECT_EQ(found.chunks(i).fidelity(), v1::FIDELITY_EXACT);
  }
  EXPECT_EQ(Stats().disk().chunks(), 3u);
}

TEST_F(NodeStoreTest, SlabsMayArriveInManySmallPartsAndInterleaved) {
  StartNode();
  const Chunk chunk = testing::MakeChunk(space(), 1);
  std::vector<v1::StoreFrame> frames = FramesOf(chunk, v1::ACK_MEMORY, /*frame_bytes=*/100);
  // Still in order within each slab.
  std::stable_sort(frames.begin() + 1, frames.end(),
                   [](const auto& a, const auto& b) { return a.offset() < b.offset(); });
  v1::StoreResponse response;
  ASSERT_TRUE(SendStore(frames, &response).ok());
  ASSERT_EQ(response.chunks(0).code(), 0) << response.chunks(0).message();
  ExpectWhole(Fetch(FetchRequestFor({chunk})), 0, chunk);
}

TEST_F(NodeStoreTest, AStreamThatEndsMidChunkLeavesNothingVisible) {
  StartNode();
  const Chunk chunk = testing::MakeChunk(space(), 1);
  std::vector<v1::StoreFrame> frames = FramesOf(chunk);
  frames.pop_back();
  v1::StoreResponse response;
  ASSERT_TRUE(SendStore(frames, &response).ok());
  EXPECT_EQ(response.chunks(0).code(), Code(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(response.chunks(0).message(), HasSubstr("incomplete"));
  ExpectNotHeld(chunk);
}

TEST_F(NodeStoreTest, AClientThatCancelsMidChunkLeavesNothingVisible) {
  StartNode();
  const Chunk chunk = testing::MakeChunk(space(), 1);
  std::vector<v1::StoreFrame> frames = FramesOf(chunk);
  frames.pop_back();
  grpc::ClientContext context;
  v1::StoreResponse response;
  const auto writer = stub_->Store(&context, &response);
  for (const v1::StoreFrame& frame : frames) ASSERT_TRUE(writer->Write(frame));
  ASSERT_TRUE(Eventually([&] { return Gauge("kdn_node_upload_bytes") > 0; }));
  context.TryCancel();
  EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([&] { return Gauge("kdn_node_upload_bytes") == 0; }));
  ExpectNotHeld(chunk);
}

TEST_F(NodeStoreTest, AGarbageManifestFailsItsChunkAlone) {
  StartNode();
  v1::StoreFrame begin;
  begin.mutable_begin()->set_manifest("not a manifest");
  const v1::ChunkStatus status = StoreBetweenGoodChunks({begin, DataFrame(0, 0, "data for nobody")});
  EXPECT_EQ(status.code(), Code(absl::StatusCode::kDataLoss)) << status.message();
}

TEST_F(NodeStoreTest, AFlippedByteFailsItsChunkByChecksum) {
  StartNode();
  const Chunk bad = WithFlippedByte(testing::MakeChunk(space(), 1), 3);
  const v1::ChunkStatus status = StoreBetweenGoodChunks(FramesOf(bad));
  EXPECT_EQ(status.code(), Code(absl::StatusCode::kDataLoss));
  EXPECT_THAT(status.message(), HasSubstr("slab 3"));
  EXPECT_EQ(Lookup({bad}).chunks(0).miss(), v1::MISS_REASON_NOT_FOUND);
}

TEST_F(NodeStoreTest, AnUnknownCodecIsRefusedByNumber) {
  StartNode();
  // Patch the codec of the first slab: it is where the manifests of two codecs differ first.
  Manifest manifest = *testing::MakeChunk(space(), 1).manifest;
  std::string bytes = EncodeManifest(manifest).value();
  manifest.slabs[0].codec = CodecId::kZstd;
  const std::string other = EncodeManifest(manifest).value();
  const size_t at = static_cast<size_t>(std::mismatch(bytes.begin(), bytes.end(), other.begin()).first - bytes.begin());
  bytes[at] = 77;
  const size_t body = bytes.size() - sizeof(uint64_t);
  const uint64_t checksum = SlabChecksum(AsBytes(bytes).first(body));
  for (size_t i = 0; i < sizeof checksum; ++i) bytes[body + i] = static_cast<char>(checksum >> (8 * i));
  v1::StoreFrame begin;
  begin.mutable_begin()->set_manifest(bytes);
  const v1::ChunkStatus status = StoreBetweenGoodChunks({begin, DataFrame(0, 0, "?")});
  EXPECT_EQ(status.code(), Code(absl::StatusCode::kUnimplemented)) << status.message();
  EXPECT_THAT(status.message(), HasSubstr("77"));
}

TEST_F(NodeStoreTest, PartsThatContradictTheManifestFailTheirChunkAlone) {
  StartNode();
  const Chunk chunk = testing::MakeChunk(space(), 1);
  const std::string_view slab = AsStringView(chunk.slabs[0].span());
  const std::pair<v1::StoreFrame, const char*> kCases[] = {
      {DataFrame(0, 1, slab.substr(1)), "gap"},
      {DataFrame(0, 0, std::string(slab) + "x"), "exceed"},
      {DataFrame(8, 0, slab), "8 slabs"},
  };
  for (const auto& [bad, names] : kCases) {
    std::vector<v1::StoreFrame> frames = FramesOf(chunk);
    frames.insert(frames.begin() + 1, bad);  // what follows belongs to the failed chunk and is skipped
    const v1::ChunkStatus status = StoreBetweenGoodChunks(frames);
    EXPECT_EQ(status.code(), Code(absl::StatusCode::kInvalidArgument));
    EXPECT_THAT(status.message(), HasSubstr(names));
    EXPECT_EQ(Lookup({chunk}).chunks(0).miss(), v1::MISS_REASON_NOT_FOUND);
  }
}

TEST_F(NodeStoreTest, AnUnknownAckFailsItsChunkAlone) {
  StartNode();
  const v1::ChunkStatus status =
      StoreBetweenGoodChunks(FramesOf(testing::MakeChunk(space(), 1), static_cast<v1::Ack>(9)));
  EXPECT_EQ(status.code(), Code(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(status.message(), HasSubstr("ack 9"));
}

TEST_F(NodeStoreTest, DurableWithoutADiskIsRefusedNotPretended) {
  StartNode();
  const v1::ChunkStatus status = StoreBetweenGoodChunks(FramesOf(testing::MakeChunk(space(), 1), v1::ACK_DURABLE));
  EXPECT_EQ(status.code(), Code(absl::StatusCode::kFailedPrecondition)) << status.message();
}

TEST_F(NodeStoreTest, AFullMemoryBudgetRefusesTheChunkAndNamesTheBudget) {
  store_options_.memory_bytes = 1 << 20;
  StartNode();
  const v1::ChunkStatus status = StoreBetweenGoodChunks(FramesOf(testing::MakeChunk(space(), 1, /*tokens=*/4096)));
  EXPECT_EQ(status.code(), Code(absl::StatusCode::kResourceExhausted)) << status.message();
  EXPECT_THAT(status.message(), HasSubstr("1048576"));
}

TEST_F(NodeStoreTest, UploadsBeyondTheirBudgetAreRefusedChunkByChunk) {
  server_options_.service.max_upload_bytes = 1 << 20;
  StartNode();
  const v1::ChunkStatus status = StoreBetweenGoodChunks(FramesOf(testing::MakeChunk(space(), 1, /*tokens=*/4096)));
  EXPECT_EQ(status.code(), Code(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(status.message(), HasSubstr("--max-upload-bytes"));
}

TEST_F(NodeStoreTest, DataBeforeBeginEndsTheCall) {
  StartNode();
  v1::StoreResponse response;
  const grpc::Status status = SendStore({DataFrame(0, 0, "early")}, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("before the first `begin`"));
}

TEST_F(NodeStoreTest, OversizedFramesEndTheCall) {
  StartNode();
  const v1::StoreFrame begin = BeginFrame(testing::MakeChunk(space(), 1));
  v1::StoreResponse response;
  grpc::Status status = SendStore({begin, DataFrame(0, 0, std::string(wire::kMaxFrameBytes + 1, 'x'))}, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("4194304"));
  status = SendStore({begin, DataFrame(0, 0, std::string(2 * wire::kMaxFrameBytes, 'x'))}, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);  // refused by the transport
  EXPECT_EQ(Stats().memory().chunks(), 0u);
}

TEST_F(NodeStoreTest, TooManyChunksEndTheCall) {
  StartNode();
  v1::StoreFrame begin;
  begin.mutable_begin()->set_manifest("x");
  v1::StoreResponse response;
  EXPECT_TRUE(SendStore(std::vector<v1::StoreFrame>(wire::kMaxKeysPerCall, begin), &response).ok());
  EXPECT_EQ(response.chunks_size(), static_cast<int>(wire::kMaxKeysPerCall));
  const grpc::Status status = SendStore(std::vector<v1::StoreFrame>(wire::kMaxKeysPerCall + 1, begin), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("4096"));
}

TEST_F(NodeStoreTest, BytesThatAreNoFrameEndTheCall) {
  StartNode();
  grpc::GenericStub generic(Channel());
  for (const std::string& bytes : {std::string("\xff\xff"), std::string("\x12\x02\x0a\x05")}) {
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    const auto stream = generic.PrepareCall(&context, "/kdn.v1.NodeService/Store", &queue);
    const auto next = [&] {
      void* tag = nullptr;
      bool ok = false;
      return queue.Next(&tag, &ok);
    };
    stream->StartCall(nullptr);
    ASSERT_TRUE(next());
    const grpc::Slice slice(bytes);
    stream->Write(grpc::ByteBuffer(&slice, 1), nullptr);
    ASSERT_TRUE(next());
    grpc::Status status;
    stream->Finish(&status, nullptr);
    ASSERT_TRUE(next());
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr("malformed frame"));
  }
}

TEST_F(NodeStoreTest, AnEmptyStreamIsFine) {
  StartNode();
  v1::StoreResponse response;
  EXPECT_TRUE(SendStore({}, &response).ok());
  EXPECT_EQ(response.chunks_size(), 0);
}

TEST_F(NodeStoreTest, AStreamIsNotReadFurtherWhileItsCommitsWait) {
  server_options_.service.commit_window_bytes = 1;  // one chunk fills it
  server_options_.service.workers = 8;              // commits never keep the calls below from being served
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(6, /*tokens=*/4096);  // 2 MiB each
  std::atomic<uint64_t> put_bytes = 0;
  // While a chunk is being committed, no data of the chunk after it are taken in: only what has been handed over.
  store_->before_put = [&](const Chunk& chunk) {
    const uint64_t handed_over = put_bytes += chunk.manifest->EncodedBytes();
    for (int i = 0; i < 20; ++i) (void)Stats();  // round trips in which a node that read on would have done so
    EXPECT_EQ(Counter("kdn_node_received_bytes_total"), static_cast<double>(handed_over));
  };
  MustStore(chunks);
  EXPECT_EQ(put_bytes, 6 * chunks[0].manifest->EncodedBytes());
}

TEST_F(NodeStoreTest, TwoClientsThatStoreTheSameChunkBothSucceed) {
  StartNode();
  const Chunk chunk = testing::MakeChunk(space(), 1, /*tokens=*/1024);
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) clients.emplace_back([&] { MustStore({chunk}); });
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(Stats().memory().chunks(), 1u);
  ExpectWhole(Fetch(FetchRequestFor({chunk})), 0, chunk);
}

}  // namespace
}  // namespace kdn
