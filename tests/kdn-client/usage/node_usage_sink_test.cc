// Reports over gRPC to nodes in this process, and to none.
#include "kdn-client/cluster/cluster_usage.h"
#include "kdn-client/usage/usage_sink.h"
#include "kdn-node/analytics_service.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"
#include "tests/kdn-node/node_test.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

constexpr const char* kNobody = "127.0.0.1:1";  // a port that nobody may listen at
const absl::Duration kPatience = absl::Seconds(60);

class NodeUsageSinkTest : public NodeTest {
 protected:
  void StartCounting() {
    analytics_ = std::make_shared<AnalyticsRecorder>(AnalyticsOptions());
    ServeAnalytics(analytics_, server_options_);
    StartNode();
    target_ = server_->endpoint().ToString();
  }
  UseReport Report(double tokens) const {
    return {.space = testing::IdOf(space()),
            .description = {.model = "m"},
            .prefilled_tokens = tokens,
            .prefill_seconds = 1};
  }
  double CountedTokens() const {
    double tokens = 0;
    for (const SpaceAnalytics& space : analytics_->Snapshot({}).spaces) tokens += space.measured_prefill_tokens;
    return tokens;
  }

  std::shared_ptr<AnalyticsRecorder> analytics_;
  std::string target_;
};

TEST_F(NodeUsageSinkTest, ANodeCountsAReportOnce) {
  StartCounting();
  const auto sink = NodeUsageSink(target_);
  EXPECT_EQ(sink->Send(Report(100), RealNow() + kPatience).outcome, UsageOutcome::kCounted);
  EXPECT_NEAR(CountedTokens(), 100, 1);
  EXPECT_EQ(analytics_->Snapshot({}).spaces.at(0).description.model, "m");
}

TEST_F(NodeUsageSinkTest, WhatTheNodeRefusesIsNotSentAgain) {
  StartCounting();
  UseReport bad = Report(100);
  bad.description.tenant = "a\nb";
  const UsageSink::Sent sent = NodeUsageSink(target_)->Send(bad, RealNow() + kPatience);
  EXPECT_EQ(sent.outcome, UsageOutcome::kRefused);
  EXPECT_THAT(MessageOf(sent.why), HasSubstr("tenant"));
  EXPECT_EQ(CountedTokens(), 0);
  EXPECT_EQ(NodeUsageSink("nonsense")->Send(Report(1), RealNow() + kPatience).outcome, UsageOutcome::kRefused);
}

TEST_F(NodeUsageSinkTest, ANodeThatIsAwayOrTooOldCountsNothingForCertain) {
  const UsageSink::Sent away = NodeUsageSink(kNobody)->Send(Report(1), RealNow() + kPatience);
  EXPECT_EQ(away.outcome, UsageOutcome::kNotCounted);
  EXPECT_THAT(MessageOf(away.why), HasSubstr(kNobody));
  StartNode();  // without analytics, as nodes of older builds
  EXPECT_EQ(NodeUsageSink(server_->endpoint().ToString())->Send(Report(1), RealNow() + kPatience).outcome,
            UsageOutcome::kNotCounted);
}

TEST_F(NodeUsageSinkTest, OfSeveralNodesOneThatAnswersGetsIt) {
  StartCounting();
  std::vector<std::string> targets = {kNobody, target_};
  const auto sink = AnyNodeUsageSink([&targets] { return targets; });
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(sink->Send(Report(100), RealNow() + kPatience).outcome, UsageOutcome::kCounted);
  }
  EXPECT_NEAR(CountedTokens(), 800, 8);
  targets = {kNobody};
  EXPECT_EQ(sink->Send(Report(100), RealNow() + kPatience).outcome, UsageOutcome::kNotCounted)
      << "the node has left the cluster";
  targets = {};
  EXPECT_EQ(sink->Send(Report(100), RealNow() + kPatience).outcome, UsageOutcome::kNotCounted);
  EXPECT_NEAR(CountedTokens(), 800, 8);
}

TEST_F(NodeUsageSinkTest, AnEmbeddedStoresRecorderCountsDirectly) {
  analytics_ = std::make_shared<AnalyticsRecorder>(AnalyticsOptions());
  const auto sink = RecorderUsageSink(analytics_);
  EXPECT_EQ(sink->Send(Report(100), RealNow()).outcome, UsageOutcome::kCounted);
  EXPECT_NEAR(CountedTokens(), 100, 1);
  EXPECT_EQ(sink->Send(Report(-1), RealNow()).outcome, UsageOutcome::kRefused);
}

}  // namespace
}  // namespace kdn
