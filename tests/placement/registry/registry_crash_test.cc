// The embedded registry in a process that is killed.
#include <memory>
#include <random>
#include <string>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "integration/process/child_process.h"
#include "placement/registry/registry.h"
#include "storage/base/status.h"
#include "tests/placement/last_acknowledged.h"

namespace kdn {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);

class RegistryCrashTest : public testing::Test {
 protected:
  // Returns once it has acknowledged `more` commits.
  ChildProcess StartWorker(int more) {
    absl::StatusOr<ChildProcess> worker = ChildProcess::Start({KDN_REGISTRY_CRASH_WORKER_PATH, path_}, output_);
    EXPECT_TRUE(worker.ok()) << worker.status();
    const int goal = LastAcknowledged(output_) + more;
    const absl::Time end = absl::Now() + kPatience;
    while (LastAcknowledged(output_) < goal && worker->Running() && absl::Now() < end) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    EXPECT_GE(LastAcknowledged(output_), goal);
    return *std::move(worker);
  }

  TemporaryDirectory directory_{"kdn-registry-crash-"};
  const std::string path_ = (directory_.path() / "registry").string();
  const std::string output_ = (directory_.path() / "acknowledged").string();
};

TEST_F(RegistryCrashTest, WhatWasAcknowledgedSurvivesEveryKill) {
  std::mt19937 random(5);
  Revision before = 0;
  for (int round = 0; round < 20; ++round) {
    StartWorker(static_cast<int>(1 + random() % 40)).Kill();
    const int acknowledged = LastAcknowledged(output_);
    const absl::StatusOr<std::unique_ptr<Registry>> registry = OpenEmbeddedRegistry({.path = path_});
    ASSERT_TRUE(registry.ok()) << registry.status();
    const absl::StatusOr<Snapshot> now = (*registry)->Read("", absl::InfiniteFuture());
    ASSERT_TRUE(now.ok()) << now.status();
    ASSERT_NE(now->Find("left"), nullptr);
    ASSERT_NE(now->Find("right"), nullptr);
    const int count = std::stoi(now->Find("left")->value);
    EXPECT_EQ(now->Find("right")->value, std::to_string(count)) << "half a commit";
    EXPECT_GE(count, acknowledged) << "an acknowledged commit is gone";
    EXPECT_LE(count, acknowledged + 1);
    EXPECT_EQ(now->RevisionOf("left"), now->RevisionOf("right"));
    EXPECT_GT(now->revision, before);
    before = now->revision;
    EXPECT_TRUE((*registry)->KeepAlive(now->Find("right")->lease, absl::InfiniteFuture()).ok());
  }
}

TEST_F(RegistryCrashTest, ASecondProcessIsRefusedForAsLongAsTheFirstRuns) {
  ChildProcess worker = StartWorker(1);
  const absl::Status refused = OpenEmbeddedRegistry({.path = path_}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition) << refused;
  EXPECT_THAT(MessageOf(refused), testing::HasSubstr(path_));
  EXPECT_TRUE(worker.Running()) << "and the first is none the worse";
  worker.Kill();
  EXPECT_TRUE(OpenEmbeddedRegistry({.path = path_}).ok());
}

}  // namespace
}  // namespace kdn
