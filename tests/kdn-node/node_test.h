// NodeTest: a real node in this process (TieredStore, server on a port that the system chose) and a plain gRPC client
// to it, made of the generated stub and protobuf messages alone.
#ifndef KDN_TESTS_KDN_NODE_NODE_TEST_H_
#define KDN_TESTS_KDN_NODE_NODE_TEST_H_

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "kdn-node/server.h"
#include "kdn/v1/node.grpc.pb.h"
#include "proto/wire/frames.h"
#include "storage/base/mutex.h"
#include "storage/tiered_store.h"
#include "tests/storage/test_chunks.h"

namespace kdn {

// A TieredStore that lets a test in before a chunk is read, stored or prefetched.
class HookedStore final : public TieredStore {
 public:
  explicit HookedStore(std::unique_ptr<TieredStore> store) : store_(std::move(store)) {}

  // Set before the calls that they are for. Called on the node's threads.
  std::function<void(const ChunkKey&, LayerRange)> before_fetch = [](const ChunkKey&, LayerRange) {};
  std::function<void(const Chunk&)> before_put = [](const Chunk&) {};
  std::function<void(const ChunkKey&)> before_prefetch = [](const ChunkKey&) {};
  std::function<void(const ChunkKey&)> before_describe = [](const ChunkKey&) {};
  std::function<void(const ChunkKey&)> before_examine = [](const ChunkKey&) {};

  absl::Status Put(const Chunk& chunk, Ack ack, Checksums checksums) override {
    before_put(chunk);
    return store_->Put(chunk, ack, checksums);
  }
  absl::Status Adopt(const Chunk& chunk, Ack ack, Checksums checksums) override {
    before_put(chunk);
    return store_->Adopt(chunk, ack, checksums);
  }
  uint64_t SpareBytes(const SpaceId& space) override { return store_->SpareBytes(space); }
  std::vector<ChunkKey> Keys() override { return store_->Keys(); }
  absl::StatusOr<ChunkDescription> Describe(const ChunkKey& key) override {
    before_describe(key);
    return store_->Describe(key);
  }
  absl::StatusOr<std::vector<Holding>> Holdings(const ChunkKey& key) override {
    before_describe(key);
    return store_->Holdings(key);
  }
  bool IsPinned(const ChunkKey& key) override { return store_->IsPinned(key); }
  std::vector<ChunkKey> KeysOf(size_t level) override { return store_->KeysOf(level); }
  absl::StatusOr<uint64_t> Examine(const ChunkKey& key, size_t level) override {
    before_examine(key);
    return store_->Examine(key, level);
  }
  std::vector<FoundChunk> Lookup(const SpaceId& space, std::span<const ChunkKey> keys, Fidelity least) override {
    return store_->Lookup(space, keys, least);
  }
  FetchedChunk Fetch(const SpaceId& space, const ChunkKey& key, LayerRange layers, Fidelity least) override {
    before_fetch(key, layers);
    return store_->Fetch(space, key, layers, least);
  }
  absl::StatusOr<TierKind> Prefetch(const SpaceId& space, const ChunkKey& key) override {
    before_prefetch(key);
    return store_->Prefetch(space, key);
  }
  absl::Status Delete(const SpaceId& space, const ChunkKey& key) override { return store_->Delete(space, key); }
  absl::StatusOr<Lease> Pin(const SpaceId& space, std::span<const ChunkKey> keys, absl::Duration duration) override {
    return store_->Pin(space, keys, duration);
  }
  absl::Status Unpin(uint64_t lease) override { return store_->Unpin(lease); }
  void Flush() override { store_->Flush(); }
  void Settle() override { store_->Settle(); }
  void Scrub() override { store_->Scrub(); }
  absl::StatusOr<std::vector<QuotaOutcome>> SetQuotas(const SpaceQuotas& quotas) override {
    return store_->SetQuotas(quotas);
  }
  StoreStats Stats() override { return store_->Stats(); }
  const std::shared_ptr<SharedArena>& arena() const override { return store_->arena(); }

 private:
  const std::unique_ptr<TieredStore> store_;
};

// Holds threads up until a test lets them go.
class Gate {
 public:
  void Pass() {
    MutexLock lock(mu_);
    reached_ = true;
    changed_.NotifyAll();
    while (!open_) changed_.Wait(mu_);
  }
  void AwaitArrival() {
    MutexLock lock(mu_);
    while (!reached_) changed_.Wait(mu_);
  }
  void Open() {
    MutexLock lock(mu_);
    open_ = true;
    changed_.NotifyAll();
  }

 private:
  Mutex mu_;
  CondVar changed_;
  bool reached_ ABSL_GUARDED_BY(mu_) = false;
  bool open_ ABSL_GUARDED_BY(mu_) = false;
};

// What a Fetch delivered.
struct Fetched {
  struct Part {
    uint32_t chunk;
    uint32_t slab;
    uint64_t offset;
    size_t bytes;
  };
  struct OfChunk {
    std::vector<v1::ChunkResult> results;
    std::map<uint32_t, std::string> slabs;  // by index
  };

  grpc::Status status;
  std::map<uint32_t, OfChunk> chunks;  // by index in the request
  std::vector<Part> parts;             // in the order of their arrival

  void Take(const v1::FetchFrame& frame) {
    OfChunk& chunk = chunks[frame.chunk()];
    if (frame.has_result()) {
      chunk.results.push_back(frame.result());
      return;
    }
    EXPECT_EQ(chunk.results.size(), 1u) << "data before the result, or after a miss";
    std::string& slab = chunk.slabs[frame.slab()];
    EXPECT_EQ(frame.offset(), slab.size()) << "parts of a slab come in order, without gaps";
    slab += frame.data();
    parts.push_back({frame.chunk(), frame.slab(), frame.offset(), frame.data().size()});
  }
};

class NodeTest : public ::testing::Test {
 protected:
  // Options may be changed before StartNode.
  TieredStoreOptions store_options_;
  ServerOptions server_options_;

  NodeTest() { server_options_.listen.port = 0; }

  void StartNode() {
    absl::StatusOr<std::unique_ptr<TieredStore>> store = TieredStore::Open(store_options_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = std::make_unique<HookedStore>(*std::move(store));
    absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(*store_, server_options_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = v1::NodeService::NewStub(Channel());
  }

  // ThreadSanitizer cannot see how Debian's gRPC synchronises its threads, and calls every hand-over between them a
  // race.
  void SetUp() override {
#ifdef __SANITIZE_THREAD__
    GTEST_SKIP() << "gRPC is not instrumented";
#endif
  }

  void TearDown() override {
    stub_.reset();
    server_.reset();
    store_.reset();
  }

  std::shared_ptr<grpc::Channel> Channel() {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(wire::kMaxMessageBytes);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(server_->endpoint().ToString(), grpc::InsecureChannelCredentials(), arguments);
  }

  const KvSpace& space() const { return space_; }
  std::string SpaceBytes() const { return std::string(AsStringView(testing::IdOf(space_).span())); }

  static std::string KeysOf(const std::vector<Chunk>& chunks) {
    std::string keys;
    for (const Chunk& chunk : chunks) keys += AsStringView(chunk.manifest->key.span());
    return keys;
  }

  // `n` chunks of `tokens` tokens: 8 slabs of 64 × tokens bytes each.
  std::vector<Chunk> MakeChunks(size_t n, uint32_t tokens = 16) const {
    std::vector<Chunk> chunks;
    for (uint32_t seed = 1; seed <= n; ++seed) chunks.push_back(testing::MakeChunk(space_, seed, tokens));
    return chunks;
  }

  static v1::StoreFrame BeginFrame(const Chunk& chunk, v1::Ack ack = v1::ACK_MEMORY) {
    v1::StoreFrame frame;
    frame.mutable_begin()->set_manifest(EncodeManifest(*chunk.manifest).value());
    frame.mutable_begin()->set_ack(ack);
    return frame;
  }

  static v1::StoreFrame DataFrame(uint32_t slab, uint64_t offset, std::string_view data) {
    v1::StoreFrame frame;
    frame.set_slab(slab);
    frame.set_offset(offset);
    frame.set_data(std::string(data));
    return frame;
  }

  static std::vector<v1::StoreFrame> FramesOf(const Chunk& chunk, v1::Ack ack = v1::ACK_MEMORY,
                                              size_t frame_bytes = 1 << 20) {
    std::vector<v1::StoreFrame> frames = {BeginFrame(chunk, ack)};
    for (uint32_t slab = 0; slab < chunk.slabs.size(); ++slab) {
      const std::string_view bytes = AsStringView(chunk.slabs[slab].span());
      for (size_t at = 0; at < bytes.size(); at += frame_bytes) {
        frames.push_back(DataFrame(slab, at, bytes.substr(at, frame_bytes)));
      }
    }
    return frames;
  }

  // Sends `frames` as one Store call.
  grpc::Status SendStore(const std::vector<v1::StoreFrame>& frames, v1::StoreResponse* response) {
    grpc::ClientContext context;
    const auto writer = stub_->Store(&context, response);
    for (const v1::StoreFrame& frame : frames) {
      if (!writer->Write(frame)) break;
    }
    writer->WritesDone();
    return writer->Finish();
  }

  void MustStore(const std::vector<Chunk>& chunks, v1::Ack ack = v1::ACK_MEMORY) {
    std::vector<v1::StoreFrame> frames;
    for (const Chunk& chunk : chunks) {
      for (v1::StoreFrame& frame : FramesOf(chunk, ack)) frames.push_back(std::move(frame));
    }
    v1::StoreResponse response;
    const grpc::Status status = SendStore(frames, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    ASSERT_EQ(response.chunks_size(), static_cast<int>(chunks.size()));
    for (const v1::ChunkStatus& chunk : response.chunks()) ASSERT_EQ(chunk.code(), 0) << chunk.message();
  }

  v1::FetchRequest FetchRequestFor(const std::vector<Chunk>& chunks) const {
    v1::FetchRequest request;
    request.set_space_id(SpaceBytes());
    request.set_keys(KeysOf(chunks));
    return request;
  }

  Fetched Fetch(const v1::FetchRequest& request) {
    Fetched fetched;
    grpc::ClientContext context;
    const auto reader = stub_->Fetch(&context, request);
    v1::FetchFrame frame;
    while (reader->Read(&frame)) fetched.Take(frame);
    fetched.status = reader->Finish();
    return fetched;
  }

  v1::LookupResponse Lookup(const std::vector<Chunk>& chunks) {
    v1::LookupRequest request;
    request.set_space_id(SpaceBytes());
    request.set_keys(KeysOf(chunks));
    v1::LookupResponse response;
    grpc::ClientContext context;
    const grpc::Status status = stub_->Lookup(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  v1::StatsResponse Stats() {
    v1::StatsResponse response;
    grpc::ClientContext context;
    const grpc::Status status = stub_->Stats(&context, {}, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  // The present values of series of one sample.
  double Gauge(const std::string& name) { return Series(name).gauge.value; }
  double Counter(const std::string& name) { return Series(name).counter.value; }

  // For what the node does after the client has its answer. False when it did not come about within ten seconds.
  static bool Eventually(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::yield();
    }
    return true;
  }

  static void ExpectWhole(const Fetched& fetched, uint32_t index, const Chunk& chunk) {
    ASSERT_TRUE(fetched.chunks.contains(index)) << index;
    const Fetched::OfChunk& got = fetched.chunks.at(index);
    ASSERT_EQ(got.results.size(), 1u);
    EXPECT_EQ(got.results[0].miss(), v1::MISS_REASON_UNSPECIFIED) << got.results[0].detail();
    EXPECT_EQ(got.results[0].manifest(), EncodeManifest(*chunk.manifest).value());
    ASSERT_EQ(got.slabs.size(), chunk.slabs.size());
    for (uint32_t slab = 0; slab < chunk.slabs.size(); ++slab) {
      EXPECT_TRUE(got.slabs.at(slab) == AsStringView(chunk.slabs[slab].span())) << "slab " << slab;
    }
  }

  std::unique_ptr<HookedStore> store_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<v1::NodeService::Stub> stub_;

 private:
  prometheus::ClientMetric Series(const std::string& name) {
    for (const prometheus::MetricFamily& family : server_->metrics().Collect()) {
      if (family.name == name) return family.metric.front();
    }
    ADD_FAILURE() << "no series " << name;
    return {};
  }

  const KvSpace space_ = testing::MakeSpace();
};

}  // namespace kdn

#endif  // KDN_TESTS_KDN_NODE_NODE_TEST_H_
