#include "placement/analytics/placement_analytics_service.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

#include "kdn/v1/placement_analytics.grpc.pb.h"
#include "tests/placement/analytics/fake_nodes.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

// A node's side.
class OneNode final : public v1::AnalyticsService::CallbackService {
 public:
  grpc::ServerUnaryReactor* GetAnalytics(grpc::CallbackServerContext* context, const v1::GetAnalyticsRequest*,
                                         v1::AnalyticsSnapshot* response) override {
    *response = ToWire(SnapshotOf({.tokens = 500, .missed = 100}));
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

class PlacementAnalyticsServiceTest : public testing::Test {
 protected:
  PlacementAnalyticsServiceTest() {
    history_ = *History::Open({}, clock_);
    collector_ = std::make_unique<Collector>(Collector::Options{.topology = [this] { return nodes_.topology(); }},
                                             nodes_, *history_, clock_);
    const LoadLookup loads = [](const std::string& id) {
      auto load = std::make_shared<v1::NodeLoad>();
      load->set_chunks(id == "a" ? 7 : 8);
      load->add_hot();
      return load;
    };
    service_ = std::make_unique<PlacementAnalyticsService>(*collector_, loads, absl::Seconds(5));
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(service_.get());
    builder.RegisterService(&node_);
    server_ = builder.BuildAndStart();
    stub_ = v1::PlacementAnalyticsService::NewStub(
        grpc::CreateChannel("127.0.0.1:" + std::to_string(port_), grpc::InsecureChannelCredentials()));
  }
  ~PlacementAnalyticsServiceTest() override { server_->Shutdown(); }

  ManualClock clock_{absl::FromUnixSeconds(1'000'010)};
  FakeNodes nodes_;
  OneNode node_;
  int port_ = 0;
  std::unique_ptr<History> history_;
  std::unique_ptr<Collector> collector_;
  std::unique_ptr<PlacementAnalyticsService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::PlacementAnalyticsService::Stub> stub_;
};

TEST_F(PlacementAnalyticsServiceTest, GivesTheClusterAsItIs) {
  AnalyticsSnapshot a = SnapshotOf({.tokens = 100, .missed = 40});
  a.events = {{.sequence = 1, .time = absl::FromUnixSeconds(5), .kind = EventKind::kCorrupt, .chunks = 3}};
  nodes_.Set("a", a);
  nodes_.Set("b", Unavailable("away"));
  collector_->Round();
  grpc::ClientContext context;
  v1::ClusterAnalytics cluster;
  const grpc::Status status = stub_->GetCluster(&context, {}, &cluster);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(cluster.cluster(), "test");
  EXPECT_EQ(cluster.interval_ms(), 5000u);
  const absl::StatusOr<AnalyticsSnapshot> total = FromWire(cluster.total());
  ASSERT_TRUE(total.ok()) << total.status();
  EXPECT_DOUBLE_EQ(total->Total().HitRatio(By::kTokens), 0.6);
  ASSERT_THAT(cluster.nodes(), SizeIs(2));
  EXPECT_EQ(cluster.nodes(0).hit().tokens(), 60);
  EXPECT_EQ(cluster.nodes(0).load().chunks(), 7u);
  EXPECT_THAT(cluster.nodes(0).load().hot(), SizeIs(0));
  EXPECT_FALSE(cluster.nodes(1).answered());
  EXPECT_EQ(cluster.nodes(1).error(), "away");
  ASSERT_THAT(cluster.events(), SizeIs(1));
  EXPECT_EQ(cluster.events(0).node_id(), "a");
  EXPECT_EQ(cluster.events(0).event().chunks(), 3u);
}

TEST_F(PlacementAnalyticsServiceTest, SaysSoBeforeTheNodesWereAsked) {
  grpc::ClientContext context;
  v1::ClusterAnalytics cluster;
  EXPECT_EQ(stub_->GetCluster(&context, {}, &cluster).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(PlacementAnalyticsServiceTest, GivesTheHistoryOfTheClusterAndOfASpace) {
  nodes_.Set("a", SnapshotOf({.tokens = 100, .missed = 40}));
  collector_->Round();
  for (const std::string& space : {std::string(), std::string(32, '\x01')}) {
    grpc::ClientContext context;
    v1::GetHistoryRequest request;
    request.set_range_seconds(600);
    request.set_space_id(space);
    v1::CacheHistory history;
    const grpc::Status status = stub_->GetHistory(&context, request, &history);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(history.step_seconds(), 10u);
    EXPECT_NEAR(history.total().asked().tokens(), 100, 1e-6);
    EXPECT_THAT(history.spaces(), SizeIs(1));
  }
}

TEST_F(PlacementAnalyticsServiceTest, QuestionsBeyondTheLimitsAreRefused) {
  const auto ask = [this](uint64_t range, uint32_t points, const std::string& space) {
    grpc::ClientContext context;
    v1::GetHistoryRequest request;
    request.set_range_seconds(range);
    request.set_max_points(points);
    request.set_space_id(space);
    v1::CacheHistory history;
    return stub_->GetHistory(&context, request, &history);
  };
  EXPECT_EQ(ask(0, 0, "").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(ask(UINT64_MAX, 0, "").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(ask(60, 100'000, "").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(ask(60, 0, "short").error_message(), HasSubstr("space_id"));
  EXPECT_EQ(ask(60, 0, std::string(32, 'x')).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(PlacementAnalyticsServiceTest, NodesAreAskedOverTheWire) {
  GrpcNodeAnalytics source;
  const auto ask = [&source](const std::string& address) {
    struct Got {
      Mutex mu;
      CondVar changed;
      std::optional<absl::StatusOr<v1::AnalyticsSnapshot>> answer;
    };
    const auto got = std::make_shared<Got>();
    source.Ask(address, {}, absl::Seconds(10), [got](absl::StatusOr<v1::AnalyticsSnapshot> answer) {
      MutexLock lock(got->mu);
      got->answer = std::move(answer);
      got->changed.NotifyAll();
    });
    MutexLock lock(got->mu);
    while (!got->answer.has_value()) got->changed.Wait(got->mu);
    return *got->answer;
  };
  const std::string address = "127.0.0.1:" + std::to_string(port_);
  const absl::StatusOr<v1::AnalyticsSnapshot> answer = ask(address);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->spaces(0).asked().tokens(), 500);
  EXPECT_FALSE(ask("127.0.0.1:1").ok());  // nobody is there
  source.Cancel();
  EXPECT_TRUE(absl::IsCancelled(ask(address).status()));
}

}  // namespace
}  // namespace kdn
