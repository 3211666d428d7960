// What a node's analytics tells of calls that came by gRPC and by the bulk protocol.
#include <prometheus/metric_family.h>

#include "kdn-client/transport.h"
#include "kdn-node/analytics_metrics.h"
#include "kdn-node/analytics_service.h"
#include "kdn/v1/analytics.grpc.pb.h"
#include "storage/analytics/snapshot_wire.h"
#include "storage/base/trace_context.h"
#include "tests/kdn-node/node_test.h"

namespace kdn {
namespace {

class AnalyticsServiceTest : public NodeTest {
 protected:
  void StartCounting(const AnalyticsOptions& options = {}) {
    analytics_ = std::make_shared<AnalyticsRecorder>(options);
    store_options_.observer = analytics_;
    ServeAnalytics(analytics_, server_options_);
    StartNode();
  }

  AnalyticsSnapshot Get(const v1::GetAnalyticsRequest& request = {}) {
    const auto stub = v1::AnalyticsService::NewStub(Channel());
    grpc::ClientContext context;
    v1::AnalyticsSnapshot response;
    const grpc::Status status = stub->GetAnalytics(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    absl::StatusOr<AnalyticsSnapshot> snapshot = FromWire(response);
    EXPECT_TRUE(snapshot.ok()) << snapshot.status();
    return snapshot.value_or(AnalyticsSnapshot());
  }

  static double MissedBy(const SpaceAnalytics& space, MissCause cause) {
    return space.missed[static_cast<size_t>(cause)].chunks;
  }

  std::shared_ptr<AnalyticsRecorder> analytics_;
};

// Takes what comes and forgets it.
class IgnoringSink final : public SlabSink {
 public:
  bool OnChunk(size_t, const ManifestPtr&, TierKind) override { return true; }
  MutableByteSpan Room(size_t, uint32_t) override { return {}; }
  void OnPart(size_t, uint32_t, uint64_t, ByteSpan) override {}
  void OnMiss(size_t, const Miss&) override {}
};

TEST_F(AnalyticsServiceTest, WhatAnotherNodeCountsAsMissedIsNotCountedHere) {
  const std::vector<Chunk> chunks = MakeChunks(4);
  const ChunkKey others = chunks[1].manifest->key;
  server_options_.service.missed_elsewhere = [others](std::span<const ChunkKey> keys) {
    std::vector<bool> elsewhere;
    for (const ChunkKey& key : keys) elsewhere.push_back(key == others);
    return elsewhere;
  };
  StartCounting();
  Lookup(chunks);
  (void)Fetch(FetchRequestFor({chunks[1]}));
  Lookup({chunks[1]});
  const SpaceAnalytics missed = Get().spaces.at(0);
  EXPECT_EQ(missed.requests, 1u);
  EXPECT_EQ(missed.asked.chunks, 3);
  EXPECT_EQ(MissedBy(missed, MissCause::kNeverStored), 3);
  // A hit is this node's own.
  MustStore({chunks[1]});
  Lookup({chunks[1]});
  const SpaceAnalytics hit = Get().spaces.at(0);
  EXPECT_EQ(hit.asked.chunks, 4);
  EXPECT_EQ(hit.Hit().chunks, 1);
}

TEST_F(AnalyticsServiceTest, GrpcAndBulkCountAlike) {
  StartCounting({.prefill_tokens_per_second = 16});
  const std::vector<Chunk> chunks = MakeChunks(4);
  MustStore({chunks[0], chunks[1], chunks[2]});
  const auto bulk = MakeRemoteTransport(server_->endpoint().ToString(), {.bulk = true, .shared_memory = false});
  std::vector<ChunkKey> keys;
  for (const Chunk& chunk : chunks) keys.push_back(chunk.manifest->key);

  Lookup(chunks);
  EXPECT_TRUE(Fetch(FetchRequestFor({chunks[0], chunks[1], chunks[2]})).status.ok());
  const AnalyticsSnapshot by_grpc = Get();
  ASSERT_TRUE(bulk->Lookup(testing::IdOf(space()), keys, Fidelity::kExact, absl::InfiniteFuture()).ok());
  IgnoringSink sink;
  const FetchQuery query = {.space = testing::IdOf(space()), .keys = std::span(keys).first(3)};
  ASSERT_TRUE(bulk->Fetch(query, absl::InfiniteFuture(), sink).ok());
  ASSERT_TRUE(Eventually([&] { return Get().spaces.at(0).delivered[0].chunks == 6; }));
  const AnalyticsSnapshot by_both = Get();

  ASSERT_EQ(by_grpc.spaces.size(), 1u);
  const SpaceAnalytics& once = by_grpc.spaces[0];
  EXPECT_EQ(once.space, testing::IdOf(space()));
  EXPECT_EQ(once.requests, 1u);
  EXPECT_EQ(once.asked.chunks, 4);
  EXPECT_EQ(once.asked.tokens, 64) << "a chunk that was never seen is taken to be like the others";
  EXPECT_EQ(once.Hit().chunks, 3);
  EXPECT_EQ(MissedBy(once, MissCause::kNeverStored), 1);
  EXPECT_EQ(once.delivered[0].chunks, 3);
  EXPECT_EQ(once.delivered[0].bytes, 3.0 * static_cast<double>(chunks[0].manifest->EncodedBytes()));
  EXPECT_EQ(once.stored.chunks, 3);
  EXPECT_DOUBLE_EQ(once.prefill_seconds_saved, 3);

  const SpaceAnalytics& twice = by_both.spaces[0];
  EXPECT_EQ(twice.requests, 2u);
  EXPECT_EQ(twice.asked, once.asked * 2);
  EXPECT_EQ(twice.Missed(), once.Missed() * 2);
  EXPECT_EQ(twice.delivered[0], once.delivered[0] * 2);
  // Six of the eight that were asked for had been stored.
  EXPECT_GT(by_both.curve.HitRatio(uint64_t{64} << 20, By::kChunks), 0.7);
  EXPECT_GT(by_both.tiers[0].budget_bytes, by_both.tiers[0].held_bytes);
  EXPECT_GT(by_both.tiers[0].held_bytes, 0u);
}

TEST_F(AnalyticsServiceTest, AnEvictedChunkIsToldFromOneThatNeverWas) {
  const std::vector<Chunk> chunks = MakeChunks(60);
  store_options_.memory_bytes = 20 * (chunks[0].manifest->EncodedBytes() + 2048);
  store_options_.memory_policy = PolicyKind::kLru;
  StartCounting();
  MustStore(chunks);
  Lookup(chunks);
  Lookup({testing::MakeChunk(space(), 999, 16)});
  const AnalyticsSnapshot snapshot = Get();
  const TierAnalytics& memory = snapshot.tiers[static_cast<size_t>(CountedTier::kMemory)];
  EXPECT_GT(memory.evicted_chunks, 20u);
  EXPECT_EQ(static_cast<uint64_t>(MissedBy(snapshot.spaces.at(0), MissCause::kEvicted)), memory.evicted_chunks);
  EXPECT_EQ(memory.evicted_wanted, memory.evicted_chunks);
  EXPECT_EQ(MissedBy(snapshot.spaces.at(0), MissCause::kNeverStored), 1);
}

TEST_F(AnalyticsServiceTest, ADeletedChunkIsMissedAsDeleted) {
  StartCounting();
  const std::vector<Chunk> chunks = MakeChunks(1);
  MustStore(chunks);
  v1::DeleteRequest request;
  request.set_space_id(SpaceBytes());
  request.set_keys(KeysOf(chunks));
  v1::DeleteResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->Delete(&context, request, &response).ok());
  Lookup(chunks);
  EXPECT_EQ(MissedBy(Get().spaces.at(0), MissCause::kDeleted), 1);
}

TEST_F(AnalyticsServiceTest, EventsAreToldFromANumberOn) {
  StartCounting();
  MustStore(MakeChunks(1));
  const AnalyticsSnapshot first = Get();
  ASSERT_EQ(first.events.size(), 1u);
  EXPECT_EQ(first.events[0].kind, EventKind::kSpaceSeen);
  EXPECT_EQ(first.events[0].space, testing::IdOf(space()));
  v1::GetAnalyticsRequest later;
  later.set_events_after(first.events[0].sequence);
  later.set_without_curves(true);
  EXPECT_TRUE(Get(later).events.empty());
  EXPECT_FALSE(Get(later).spaces.at(0).curve.has_value());
}

TEST_F(AnalyticsServiceTest, PrometheusSeriesHaveBoundedLabels) {
  StartCounting({.spaces = 1});
  Lookup(MakeChunks(3));
  v1::LookupRequest other;
  other.set_space_id(std::string(32, 'x'));
  other.set_keys(KeysOf(MakeChunks(1)));
  for (int i = 0; i < 5; ++i) {
    other.mutable_space_id()->back() = static_cast<char>('a' + i);
    v1::LookupResponse response;
    grpc::ClientContext context;
    ASSERT_TRUE(stub_->Lookup(&context, other, &response).ok());
  }
  const auto families = AnalyticsMetrics(analytics_).Collect();
  const auto missed = std::ranges::find(families, "kdn_cache_missed_chunks_total", &prometheus::MetricFamily::name);
  ASSERT_NE(missed, families.end());
  EXPECT_EQ(missed->metric.size(), 2 * kMissCauseCount) << "the space that was first, and all others";
  double chunks = 0;
  for (const auto& metric : missed->metric) chunks += metric.counter.value;
  EXPECT_EQ(chunks, 8);
}

TEST_F(AnalyticsServiceTest, WhatEnginesReportIsToldAndABadReportChangesNothing) {
  StartCounting();
  const auto stub = v1::AnalyticsService::NewStub(Channel());
  const auto report = [&](const v1::ReportUseRequest& request) {
    grpc::ClientContext context;
    v1::ReportUseResponse response;
    return stub->ReportUse(&context, request, &response);
  };
  UseReport good = {.space = testing::IdOf(space()), .description = {.model = "acme/tiny", .tenant = "blue"}};
  good.prefilled_tokens = 1600;
  good.prefill_seconds = 100;
  good.blend = {.prompts = 1, .prompt_tokens = 64, .moved_tokens = 48};
  ASSERT_TRUE(report(ToWire(good)).ok());
  v1::ReportUseRequest bad = ToWire(good);
  bad.mutable_description()->set_model("worse");
  bad.mutable_blend()->set_late_tokens(-5);
  const grpc::Status refused = report(bad);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.error_message(), ::testing::HasSubstr("late_tokens"));

  const std::vector<Chunk> chunks = MakeChunks(2);
  MustStore(chunks);
  ASSERT_TRUE(Fetch(FetchRequestFor(chunks)).status.ok());
  const AnalyticsSnapshot snapshot = Get();
  ASSERT_EQ(snapshot.spaces.size(), 1u);
  const SpaceAnalytics& told = snapshot.spaces[0];
  EXPECT_EQ(told.description.model, "acme/tiny");
  EXPECT_EQ(told.blend, good.blend);
  EXPECT_EQ(told.prefill_source, PrefillSource::kEngines);
  EXPECT_DOUBLE_EQ(told.prefill_seconds_saved, 2);

  const auto families = AnalyticsMetrics(analytics_).Collect();
  const auto info = std::ranges::find(families, "kdn_cache_space_info", &prometheus::MetricFamily::name);
  ASSERT_NE(info, families.end());
  ASSERT_EQ(info->metric.size(), 1u);
  EXPECT_EQ(info->metric[0].label.at(1).value, "acme/tiny");
  EXPECT_EQ(info->metric[0].label.at(2).value, "blue");
  const auto moved = std::ranges::find(families, "kdn_cache_blend_moved_tokens_total", &prometheus::MetricFamily::name);
  ASSERT_NE(moved, families.end());
  EXPECT_EQ(moved->metric.at(0).counter.value, 48);
}

TEST_F(AnalyticsServiceTest, WhatNodesAndOperatorsAskForIsNoDemand) {
  StartCounting();
  const std::vector<Chunk> chunks = MakeChunks(3);
  MustStore({chunks[0], chunks[1]});
  std::vector<ChunkKey> keys;
  for (const Chunk& chunk : chunks) keys.push_back(chunk.manifest->key);
  for (const bool bulk : {true, false}) {
    for (const Asker asker : {Asker::kNode, Asker::kOperator, Asker::kEngine}) {
      const auto transport =
          MakeRemoteTransport(server_->endpoint().ToString(), {.bulk = bulk, .shared_memory = false, .asker = asker});
      ASSERT_TRUE(transport->Lookup(testing::IdOf(space()), keys, Fidelity::kExact, absl::InfiniteFuture()).ok());
      IgnoringSink sink;
      const FetchQuery query = {.space = testing::IdOf(space()), .keys = keys};
      ASSERT_TRUE(transport->Fetch(query, absl::InfiniteFuture(), sink).ok());
      if (asker != Asker::kEngine && bulk) {
        EXPECT_TRUE(Get().spaces.at(0).asked.chunks == 0) << "nothing but the stores is counted";
      }
    }
  }
  ASSERT_TRUE(Eventually([&] { return Get().spaces.at(0).delivered[0].chunks == 4; }));
  const SpaceAnalytics space = Get().spaces.at(0);
  EXPECT_EQ(space.requests, 2u);
  EXPECT_EQ(space.asked.chunks, 6);
  EXPECT_EQ(MissedBy(space, MissCause::kNeverStored), 2);
}

TEST_F(AnalyticsServiceTest, AFetchThatWasLookedUpElsewhereIsNoDemandOfItsOwn) {
  StartCounting();
  const std::vector<Chunk> chunks = MakeChunks(2);
  MustStore(chunks);
  const std::vector<ChunkKey> keys = {chunks[0].manifest->key, chunks[1].manifest->key};
  for (const bool bulk : {true, false}) {
    const auto transport = MakeRemoteTransport(server_->endpoint().ToString(), {.bulk = bulk, .shared_memory = false});
    IgnoringSink sink;
    const FetchQuery query = {.space = testing::IdOf(space()), .keys = keys, .looked_up = true};
    ASSERT_TRUE(transport->Fetch(query, absl::InfiniteFuture(), sink).ok());
  }
  ASSERT_TRUE(Eventually([&] { return Get().spaces.at(0).delivered[0].chunks == 4; }));
  const SpaceAnalytics space = Get().spaces.at(0);
  EXPECT_EQ(space.requests, 0u);
  EXPECT_EQ(space.asked.chunks, 0);
  EXPECT_EQ(space.Missed().chunks, 0);
}

TEST_F(AnalyticsServiceTest, RequestsAreToldToWhoeverListensAndTheStreamEndsWithTheNode) {
  StartCounting();
  const std::vector<Chunk> chunks = MakeChunks(2);
  MustStore({chunks[0]});
  const auto stub = v1::AnalyticsService::NewStub(Channel());
  grpc::ClientContext context;
  const auto stream = stub->RecordRequests(&context, {});
  v1::RecordedRequests message;
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_TRUE(message.listening());
  const TraceContext trace = NewTrace();
  {
    const ScopedTrace scope(trace);
    const auto bulk = MakeRemoteTransport(server_->endpoint().ToString(), {.shared_memory = false});
    const std::vector<ChunkKey> keys = {chunks[0].manifest->key, chunks[1].manifest->key};
    const std::vector<uint32_t> positions = {3, 5};
    ASSERT_TRUE(
        bulk->LookupPart(testing::IdOf(space()), keys, positions, Fidelity::kExact, absl::InfiniteFuture()).ok());
  }
  ASSERT_TRUE(stream->Read(&message));
  ASSERT_EQ(message.requests_size(), 1);
  const v1::RecordedRequest& request = message.requests(0);
  EXPECT_EQ(request.space_id(), SpaceBytes());
  EXPECT_EQ(request.keys(), KeysOf(chunks));
  EXPECT_EQ(request.trace_id(), std::string(trace.trace_id.begin(), trace.trace_id.end()));
  EXPECT_THAT(std::vector<uint32_t>(request.positions().begin(), request.positions().end()),
              ::testing::ElementsAre(3u, 5u));
  EXPECT_EQ(request.prefix_tokens(0), chunks[0].manifest->tokens);
  EXPECT_EQ(request.prefix_tokens(1), 0u);
  EXPECT_FALSE(request.fetch());

  v1::RecordRequestsRequest bad;
  bad.set_sample(2);
  grpc::ClientContext bad_context;
  const auto refused = stub->RecordRequests(&bad_context, bad);
  EXPECT_FALSE(refused->Read(&message));
  EXPECT_EQ(refused->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);

  server_->Stop(absl::Minutes(1));
  EXPECT_FALSE(stream->Read(&message));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace kdn
