#include "placement/analytics/cluster_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "tests/placement/analytics/fake_nodes.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

class ClusterMetricsTest : public testing::Test {
 protected:
  ClusterMetricsTest() {
    history_ = *History::Open({}, clock_);
    collector_ = std::make_unique<Collector>(Collector::Options{.topology = [this] { return nodes_.topology(); }},
                                             nodes_, *history_, clock_);
  }
  std::string Text() const { return prometheus::TextSerializer().Serialize(ClusterMetrics(*collector_).Collect()); }

  ManualClock clock_{absl::FromUnixSeconds(1'000'010)};
  FakeNodes nodes_;
  std::unique_ptr<History> history_;
  std::unique_ptr<Collector> collector_;
};

TEST_F(ClusterMetricsTest, TellOfTheWholeCluster) {
  nodes_.Set("a", SnapshotOf({.tokens = 100, .missed = 40}));
  nodes_.Set("b", SnapshotOf({.space = SpaceOf(2), .tokens = 300, .missed = 60}));
  nodes_.Set("c", Unavailable("away"));
  collector_->Round();
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("kdn_cluster_cache_asked_tokens_total{space=\"010101010101\"} 100"));
  EXPECT_THAT(text, HasSubstr("kdn_cluster_cache_missed_tokens_total{cause=\"never_stored\"} 100"));
  EXPECT_THAT(text, HasSubstr("kdn_cluster_cache_delivered_tokens_total{tier=\"memory\"} 300"));
  EXPECT_THAT(text, HasSubstr("kdn_cluster_cache_budget_bytes{tier=\"memory\"} 8000"));
  EXPECT_THAT(text, HasSubstr("kdn_cluster_cache_nodes{answer=\"stale\"} 1"));
  EXPECT_THAT(text, HasSubstr("kdn_cluster_cache_unanswered_total 1"));
}

AnalyticsSnapshot BlendingSnapshot() {
  AnalyticsSnapshot snapshot = SnapshotOf({.tokens = 100, .missed = 40});
  snapshot.spaces[0].description = {.model = "acme/\"tiny\"", .tenant = "blue", .told = absl::UnixEpoch()};
  snapshot.spaces[0].blend = {.prompts = 3, .moved_tokens = 70};
  snapshot.spaces[0].blend.refused[static_cast<size_t>(BlendRefusal::kNoProfile)] = 2;
  return snapshot;
}

TEST_F(ClusterMetricsTest, TellOfNamesAndBlending) {
  nodes_.Set("a", BlendingSnapshot());
  nodes_.Set("b", SnapshotOf({.space = SpaceOf(2), .tokens = 300, .missed = 60}));
  collector_->Round();
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("kdn_cluster_cache_space_info{space=\"010101010101\",model=\"acme/\\\"tiny\\\"\",tenant="
                              "\"blue\"} 1"));
  EXPECT_THAT(text, HasSubstr("kdn_cluster_cache_blend_prompts_total{space=\"010101010101\"} 3"));
  EXPECT_THAT(text, HasSubstr("kdn_cluster_cache_blend_moved_tokens_total{space=\"010101010101\"} 70"));
  EXPECT_THAT(text, HasSubstr("kdn_cluster_cache_blend_refused_total{space=\"010101010101\",reason=\"no_profile\"} 2"));
  EXPECT_THAT(text, testing::Not(HasSubstr("kdn_cluster_cache_blend_prompts_total{space=\"020202020202\"}")));
}

TEST_F(ClusterMetricsTest, PassPromtool) {
  if (std::system("command -v promtool >/dev/null") != 0) GTEST_SKIP() << "promtool is not installed";
  nodes_.Set("a", BlendingSnapshot());
  collector_->Round();
  FILE* promtool = popen("promtool check metrics", "w");
  ASSERT_NE(promtool, nullptr);
  std::fputs(Text().c_str(), promtool);
  EXPECT_EQ(pclose(promtool), 0);
}

}  // namespace
}  // namespace kdn
