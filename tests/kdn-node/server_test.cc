#include "kdn-node/server.h"

#include <arpa/inet.h>
#include <grpcpp/generic/generic_stub.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/kdn-node/node_test.h"

namespace kdn {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// What an HTTP/1.0 GET answers, headers included.
std::string HttpGet(const Endpoint& endpoint, const std::string& path) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(endpoint.port);
  inet_pton(AF_INET, endpoint.host.c_str(), &address.sin_addr);
  std::string answer;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
    EXPECT_EQ(write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
    char buffer[4096];
    for (ssize_t n = 0; (n = read(fd, buffer, sizeof buffer)) > 0;) answer.append(buffer, static_cast<size_t>(n));
  }
  close(fd);
  return answer;
}

class NodeServerTest : public NodeTest {
 protected:
  // Sends one message to a method whose stub is not at hand, and returns the first that comes back.
  std::string Call(const std::string& method, const std::string& request) {
    grpc::GenericStub generic(Channel());
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    const auto stream = generic.PrepareCall(&context, method, &queue);
    const auto next = [&] {
      void* tag = nullptr;
      bool ok = false;
      return queue.Next(&tag, &ok) && ok;
    };
    stream->StartCall(nullptr);
    EXPECT_TRUE(next());
    const grpc::Slice slice(request);
    stream->WriteLast(grpc::ByteBuffer(&slice, 1), {}, nullptr);
    EXPECT_TRUE(next());
    grpc::ByteBuffer answer;
    stream->Read(&answer, nullptr);
    EXPECT_TRUE(next());
    grpc::Status status;
    stream->Finish(&status, nullptr);
    EXPECT_TRUE(next());
    EXPECT_TRUE(status.ok()) << status.error_message();
    std::vector<grpc::Slice> slices;
    std::string bytes;
    if (answer.Dump(&slices).ok()) {
      for (const grpc::Slice& part : slices) bytes.append(part.begin(), part.end());
    }
    return bytes;
  }
};

TEST_F(NodeServerTest, LookupCountsThePrefixThatIsHeld) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(4);
  MustStore({chunks[0], chunks[1], chunks[3]});
  const v1::LookupResponse found = Lookup(chunks);
  ASSERT_EQ(found.chunks_size(), 4);
  EXPECT_EQ(found.prefix_chunks(), 2u);
  EXPECT_EQ(found.chunks(2).miss(), v1::MISS_REASON_NOT_FOUND);
  EXPECT_EQ(found.chunks(3).miss(), v1::MISS_REASON_UNSPECIFIED);
  EXPECT_EQ(Lookup({}).chunks_size(), 0);

  v1::LookupRequest bad;
  v1::LookupResponse response;
  grpc::ClientContext context;
  const grpc::Status status = stub_->Lookup(&context, bad, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("space_id has 0 bytes"));
}

TEST_F(NodeServerTest, DeleteErasesAndSaysWhatWasNotThere) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(2);
  MustStore({chunks[0]});
  v1::DeleteRequest request;
  request.set_space_id(SpaceBytes());
  request.set_keys(KeysOf(chunks));
  v1::DeleteResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->Delete(&context, request, &response).ok());
  EXPECT_EQ(response.chunks(0).code(), 0);
  EXPECT_EQ(response.chunks(1).code(), static_cast<int>(absl::StatusCode::kNotFound));
  EXPECT_EQ(Lookup(chunks).prefix_chunks(), 0u);
}

TEST_F(NodeServerTest, APinIsALeaseThatCanBeGivenBackOnce) {
  store_options_.max_pin = absl::Minutes(1);
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(2);
  MustStore({chunks[0]});
  v1::PinRequest request;
  request.set_space_id(SpaceBytes());
  request.set_keys(KeysOf(chunks));
  request.set_duration_ms(~uint64_t{0});  // for ever is not granted
  v1::PinResponse lease;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(stub_->Pin(&context, request, &lease).ok());
  }
  EXPECT_EQ(lease.pinned(), 1u);
  EXPECT_GT(lease.granted_ms(), 0u);
  EXPECT_LE(lease.granted_ms(), 60'000u);
  EXPECT_EQ(Stats().leases(), 1u);
  EXPECT_EQ(Stats().pinned_chunks(), 1u);

  v1::UnpinRequest unpin;
  unpin.set_lease_id(lease.lease_id());
  for (const grpc::StatusCode expected : {grpc::StatusCode::OK, grpc::StatusCode::NOT_FOUND}) {
    v1::UnpinResponse response;
    grpc::ClientContext context;
    EXPECT_EQ(stub_->Unpin(&context, unpin, &response).error_code(), expected);
  }
  request.set_duration_ms(0);
  grpc::ClientContext context;
  EXPECT_EQ(stub_->Pin(&context, request, &lease).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(NodeServerTest, StatsTellVersionTiersAndResults) {
  StartNode();
  MustStore(MakeChunks(2));
  const v1::StatsResponse stats = Stats();
  EXPECT_EQ(stats.version(), KDN_VERSION);
  EXPECT_EQ(stats.memory().chunks(), 2u);
  EXPECT_EQ(stats.memory().budget_bytes(), store_options_.memory_bytes);
  EXPECT_FALSE(stats.has_disk());
}

// grpc.health.v1.Health/Check: a request's field 1 is the service, an answer's field 1 the status; 1 is SERVING.
TEST_F(NodeServerTest, HealthAnswersForTheServerAndTheService) {
  StartNode();
  for (const std::string& request : {std::string(), std::string("\x0a\x12kdn.v1.NodeService")}) {
    EXPECT_EQ(Call("/grpc.health.v1.Health/Check", request), "\x08\x01");
  }
}

// ServerReflectionInfo: a request's field 7 asks for the list of services; their names are in the answer.
TEST_F(NodeServerTest, ReflectionNamesTheServices) {
  StartNode();
  EXPECT_THAT(Call("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", std::string("\x3a\0", 2)),
              AllOf(HasSubstr("kdn.v1.NodeService"), HasSubstr("grpc.health.v1.Health")));
}

TEST_F(NodeServerTest, MetricsAreServedAsPrometheusReadsThem) {
  server_options_.metrics_listen = Endpoint{.host = "127.0.0.1", .port = 0};
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(2);
  MustStore({chunks[0]});
  (void)Fetch(FetchRequestFor(chunks));
  const std::string text = HttpGet(*server_->metrics_endpoint(), "/metrics");
  for (const char* line :
       {"200 OK", "kdn_node_requests_total{code=\"OK\",method=\"Store\"} 1",
        "kdn_node_requests_total{code=\"OK\",method=\"Fetch\"} 1", "kdn_node_request_seconds_count{method=\"Fetch\"} 1",
        "kdn_node_fetch_chunks_total{result=\"none\"} 1", "kdn_node_fetch_chunks_total{result=\"not_found\"} 1",
        "kdn_node_fetch_chunks_total{result=\"corrupt\"} 0", "kdn_node_store_chunks_total{code=\"OK\"} 1",
        "kdn_node_received_bytes_total 8192", "kdn_node_sent_bytes_total 8192", "kdn_tier_chunks{tier=\"memory\"} 1",
        "kdn_tier_budget_bytes{tier=\"memory\"}", "kdn_tier_evictions_total{tier=\"memory\"} 0", "kdn_store_leases 0",
        "kdn_store_write_back_pending_bytes 0", "kdn_node_waiting_tasks", "kdn_node_upload_bytes 0",
        "kdn_node_fetch_bytes", "kdn_build_info{version=\"" KDN_VERSION "\"} 1"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST_F(NodeServerTest, TwoServersOnOnePortIsAClearError) {
  StartNode();
  ServerOptions second;
  second.listen = server_->endpoint();
  const absl::Status refused = Server::Start(*store_, second).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(refused.message()), HasSubstr(server_->endpoint().ToString()));

  second.listen.port = 0;
  second.metrics_listen = server_->endpoint();
  const absl::Status refused_metrics = Server::Start(*store_, second).status();
  EXPECT_EQ(refused_metrics.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(refused_metrics.message()),
              AllOf(HasSubstr("metrics"), HasSubstr(server_->endpoint().ToString())));
}

TEST_F(NodeServerTest, ListensOnIpv6) {
  server_options_.listen.host = "::1";
  absl::StatusOr<std::unique_ptr<TieredStore>> store = TieredStore::Open(store_options_);
  ASSERT_TRUE(store.ok());
  if (!Server::Start(**store, server_options_).ok()) GTEST_SKIP() << "this machine has no IPv6 loopback";
  StartNode();
  EXPECT_THAT(server_->endpoint().ToString(), HasSubstr("[::1]:"));
  EXPECT_EQ(Stats().version(), KDN_VERSION);
}

TEST_F(NodeServerTest, OverloadIsRefusedAtOnce) {
  server_options_.service.workers = 1;
  server_options_.service.max_waiting_tasks = 1;
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(1);
  MustStore(chunks);
  Gate gate;
  store_->before_fetch = [&](const ChunkKey&, LayerRange) { gate.Pass(); };
  std::thread fetching([&] { EXPECT_TRUE(Fetch(FetchRequestFor(chunks)).status.ok()); });
  gate.AwaitArrival();
  std::thread waiting([&] { (void)Stats(); });
  EXPECT_TRUE(Eventually([&] { return Gauge("kdn_node_waiting_tasks") == 1; }));
  {
    v1::StatsResponse response;
    grpc::ClientContext context;
    const grpc::Status refused = stub_->Stats(&context, {}, &response);
    EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_THAT(refused.error_message(), HasSubstr("--workers"));
  }
  EXPECT_EQ(Fetch(FetchRequestFor(chunks)).status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  v1::StoreResponse response;
  EXPECT_EQ(SendStore(FramesOf(chunks[0]), &response).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  gate.Open();
  fetching.join();
  waiting.join();
}

TEST_F(NodeServerTest, StopLetsARunningFetchEnd) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(10);
  MustStore(chunks);
  Gate gate;
  store_->before_fetch = [&](const ChunkKey&, LayerRange) { gate.Pass(); };
  Fetched fetched;
  std::thread client([&] { fetched = Fetch(FetchRequestFor(chunks)); });
  gate.AwaitArrival();
  std::thread stopper([&] { server_->Stop(absl::Seconds(30)); });
  EXPECT_TRUE(Eventually([&] {
    v1::StatsResponse response;
    grpc::ClientContext context;
    return stub_->Stats(&context, {}, &response).error_code() == grpc::StatusCode::UNAVAILABLE;
  }));
  gate.Open();
  stopper.join();
  client.join();
  EXPECT_TRUE(fetched.status.ok()) << fetched.status.error_message();
  for (uint32_t i = 0; i < chunks.size(); ++i) ExpectWhole(fetched, i, chunks[i]);
}

TEST_F(NodeServerTest, StopCancelsAFetchThatNobodyReads) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(8, /*tokens=*/20'000);  // 10 MB each: more than sockets hold
  MustStore(chunks);
  grpc::ClientContext context;
  const auto reader = stub_->Fetch(&context, FetchRequestFor(chunks));
  v1::FetchFrame frame;
  ASSERT_TRUE(reader->Read(&frame));
  server_->Stop(absl::Milliseconds(20));  // returns: nothing of the call is left
  while (reader->Read(&frame)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
}

}  // namespace
}  // namespace kdn
