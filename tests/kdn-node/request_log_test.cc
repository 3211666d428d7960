// What a node's request log tells of calls by gRPC, by the bulk protocol and by shared memory.
#include <stdlib.h>

#include <filesystem>

#include "kdn-client/transport.h"
#include "storage/base/shared_arena.h"
#include "tests/kdn-node/node_test.h"
#include "tests/storage/captured_log.h"

namespace kdn {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

constexpr uint64_t kChunkBytes = uint64_t{8} * 64 * 16;  // of what MakeChunks makes

// Takes what comes and forgets it.
class ForgettingSink final : public SlabSink {
 public:
  bool OnChunk(size_t, const ManifestPtr&, TierKind) override { return true; }
  void OnPart(size_t, uint32_t, uint64_t, ByteSpan) override {}
  void OnMiss(size_t, const Miss&) override {}
};

class NodeRequestLogTest : public NodeTest {
 protected:
  void StartLogging(const RequestFilter& filter = {.all = true}) {
    log_ = std::make_unique<CapturedLog>(filter, "n1");
    server_options_.service.request_log = log_->requests();
    StartNode();
  }

  // The line of the last call of that name, once it is there.
  json LineOf(const std::string& call) {
    json found;
    const auto look = [&] {
      for (const json& line : log_->Lines()) {
        if (line["call"] == call) found = line;
      }
      return !found.is_null();
    };
    EXPECT_TRUE(Eventually(look)) << "no line of a " << call;
    return found;
  }

  std::shared_ptr<Transport> Remote(const RemoteOptions& options) {
    return MakeRemoteTransport(server_->endpoint().ToString(), options);
  }

  static std::vector<ChunkKey> KeysFrom(const std::vector<Chunk>& chunks) {
    std::vector<ChunkKey> keys;
    for (const Chunk& chunk : chunks) keys.push_back(chunk.manifest->key);
    return keys;
  }

  // Makes every kind of call that the client makes, under a trace, and checks what is logged of them.
  void ExpectAllLogged(Transport& transport, const std::string& protocol, const std::string& peer) {
    const std::vector<Chunk> chunks = MakeChunks(3);
    const std::vector<ChunkKey> keys = KeysFrom(chunks);
    const SpaceId id = testing::IdOf(space());
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    const TraceContext trace = NewTrace();
    const ScopedTrace scope(trace);
    const auto stored = transport.Store(std::span(chunks).first(2), Ack::kMemory, deadline);
    ASSERT_TRUE(stored.ok()) << stored.status();
    ASSERT_TRUE(transport.Lookup(id, keys, Fidelity::kExact, deadline).ok());
    ForgettingSink sink;
    const absl::Status fetched = transport.Fetch({.space = id, .keys = keys}, deadline, sink);
    ASSERT_TRUE(fetched.ok()) << fetched;

    const json store = LineOf("store");
    EXPECT_EQ(store["chunks"], 2);
    EXPECT_EQ(store["done"], 2);
    EXPECT_EQ(store["bytes"], 2 * kChunkBytes);
    const json lookup = LineOf("lookup");
    EXPECT_EQ(lookup["chunks"], 3);
    EXPECT_EQ(lookup["found"], (json{{"memory", 2}}));
    EXPECT_EQ(lookup["missed"], (json{{"not_found", 1}}));
    EXPECT_EQ(lookup["bytes"], 0);
    const json fetch = LineOf("fetch");
    EXPECT_EQ(fetch["chunks"], 3);
    EXPECT_EQ(fetch["found"], (json{{"memory", 2}}));
    EXPECT_EQ(fetch["missed"], (json{{"not_found", 1}}));
    EXPECT_EQ(fetch["bytes"], 2 * kChunkBytes);
    EXPECT_LE(fetch["first_byte_us"], fetch["total_us"]);
    for (const json& line : {store, lookup, fetch}) {
      EXPECT_EQ(line["status"], "OK");
      EXPECT_EQ(line["level"], "info") << "what a cache does not hold is no failure";
      EXPECT_EQ(line["node"], "n1");
      EXPECT_EQ(line["request_id"], trace.RequestId());
      EXPECT_EQ(line["parent_span_id"], trace.SpanHex());
      EXPECT_NE(line["span_id"], trace.SpanHex());
      EXPECT_EQ(line["protocol"], protocol);
      EXPECT_THAT(line["peer"].get<std::string>(), MatchesRegex(peer));
      EXPECT_EQ(line["space"], id.ToShortHex());
      EXPECT_FALSE(line.contains("error"));
    }
  }

  std::unique_ptr<CapturedLog> log_;
};

constexpr char kLoopbackPeer[] = "127\\.0\\.0\\.1:[0-9]+";

TEST_F(NodeRequestLogTest, CallsByGrpc) {
  StartLogging();
  ExpectAllLogged(*Remote({.bulk = false}), "grpc", kLoopbackPeer);
  EXPECT_TRUE(LineOf("fetch").contains("queue_us"));
}

TEST_F(NodeRequestLogTest, CallsByTheBulkProtocol) {
  StartLogging();
  ExpectAllLogged(*Remote({.bulk = true, .shared_memory = false}), "bulk", kLoopbackPeer);
}

TEST_F(NodeRequestLogTest, CallsBySharedMemory) {
  absl::StatusOr<std::shared_ptr<SharedArena>> arena = SharedArena::Create(uint64_t{64} << 20);
  ASSERT_TRUE(arena.ok()) << arena.status();
  store_options_.arena = *arena;
  StartLogging();
  ExpectAllLogged(*Remote({}), "shared-memory", "local");
}

TEST_F(NodeRequestLogTest, TheOtherCallsToo) {
  StartLogging();
  const std::vector<Chunk> chunks = MakeChunks(2);
  MustStore({chunks[0]});
  const std::shared_ptr<Transport> transport = Remote({});
  const SpaceId id = testing::IdOf(space());
  const std::vector<ChunkKey> keys = KeysFrom(chunks);
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  const ScopedTrace scope(NewTrace(/*sampled=*/true));
  const absl::StatusOr<Lease> lease = transport->Pin(id, keys, absl::Minutes(1), deadline);
  ASSERT_TRUE(lease.ok()) << lease.status();
  ASSERT_TRUE(transport->Unpin(lease->id, deadline).ok());
  ASSERT_TRUE(transport->Prefetch(id, keys, deadline).ok());
  ASSERT_TRUE(transport->Delete(id, keys, deadline).ok());
  ASSERT_TRUE(transport->Stats(deadline).ok());
  for (const char* call : {"pin", "unpin", "prefetch", "delete", "stats"}) {
    const json line = LineOf(call);
    EXPECT_EQ(line["request_id"], CurrentTrace().RequestId()) << line;
    EXPECT_EQ(line["sampled"], 1);
    EXPECT_EQ(line["level"], "info");
  }
  EXPECT_EQ(LineOf("delete")["chunks"], 2);
  EXPECT_EQ(LineOf("delete")["done"], 1);
}

TEST_F(NodeRequestLogTest, ChunksOnADiskAreTold) {
  std::string directory = ::testing::TempDir() + "kdn-request-log-XXXXXX";
  ASSERT_NE(mkdtemp(directory.data()), nullptr);
  store_options_.disks = {{.path = directory, .bytes = uint64_t{64} << 20}};
  store_options_.memory_bytes = kChunkBytes + (uint64_t{16} << 10);  // of one chunk
  StartLogging();
  const std::vector<Chunk> chunks = MakeChunks(3);
  MustStore(chunks, v1::ACK_DURABLE);
  EXPECT_TRUE(Fetch(FetchRequestFor(chunks)).status.ok());
  const json found = LineOf("fetch")["found"];
  EXPECT_EQ(found.value("memory", 0) + found.value("disk", 0), 3) << found;
  EXPECT_GE(found.value("disk", 0), 1) << found;
  TearDown();
  std::filesystem::remove_all(directory);
}

// The client is not KDN's own, and says what it likes.
TEST_F(NodeRequestLogTest, AMalformedTraceparentFailsNothing) {
  StartLogging();
  for (const char* traceparent : {"", "nonsense", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"}) {
    const size_t before = log_->Texts().size();
    v1::StatsResponse response;
    grpc::ClientContext context;
    context.AddMetadata("traceparent", traceparent);
    ASSERT_TRUE(stub_->Stats(&context, {}, &response).ok());
    ASSERT_TRUE(Eventually([&] { return log_->Texts().size() > before; }));
    const json line = log_->Lines().back();
    EXPECT_THAT(line["request_id"].get<std::string>(), MatchesRegex("[0-9a-f]{32}"));
    EXPECT_FALSE(line.contains("parent_span_id")) << line;
  }
}

TEST_F(NodeRequestLogTest, WhatIsRefusedIsAFailureAndSaysWhy) {
  StartLogging({.failed = true});
  MustStore(MakeChunks(1));
  v1::FetchRequest request = FetchRequestFor(MakeChunks(1));
  EXPECT_TRUE(Fetch(request).status.ok());
  request.set_keys("too short");
  EXPECT_EQ(Fetch(request).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const json line = LineOf("fetch");
  EXPECT_EQ(line["level"], "warning");
  EXPECT_EQ(line["status"], "INVALID_ARGUMENT");
  EXPECT_THAT(line["error"].get<std::string>(), HasSubstr("keys"));
  EXPECT_EQ(log_->Lines().size(), 1u) << "what went well is not to be logged";
}

TEST_F(NodeRequestLogTest, OnlySampledOnesWhereOnlyTheyAreWanted) {
  StartLogging({.sampled = true});
  const std::shared_ptr<Transport> transport = Remote({.shared_memory = false});
  const auto lookup = [&](const TraceContext& trace) {
    const ScopedTrace scope(trace);
    const std::vector<ChunkKey> keys = KeysFrom(MakeChunks(1));
    EXPECT_TRUE(
        transport->Lookup(testing::IdOf(space()), keys, Fidelity::kExact, absl::Now() + absl::Seconds(60)).ok());
  };
  const TraceContext wanted = NewTrace(/*sampled=*/true);
  lookup(NewTrace());
  lookup(wanted);
  lookup(NewTrace());
  EXPECT_EQ(LineOf("lookup")["request_id"], wanted.RequestId());
  EXPECT_EQ(log_->Lines().size(), 1u);
}

}  // namespace
}  // namespace kdn
