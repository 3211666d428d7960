#include "kdn-client/usage/usage_reporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <thread>
#include <vector>

#include "storage/base/status.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

KvSpace TestSpace() {
  KvSpace space;
  space.model_id = "acme/tiny";
  space.weights_revision = "1";
  space.tenant_salt = "very-secret-salt";
  space.chunk_tokens = 64;
  space.layers = {{.count = 2, .kv_heads = 1, .k_dim = 8, .v_dim = 8, .rope = {}}};
  return space;
}

// Keeps what it gets; answers what it is told to, then that all is well.
class ListSink final : public UsageSink {
 public:
  Sent Send(const UseReport& report, absl::Time /*deadline*/) override {
    MutexLock lock(mu_);
    reports_.push_back(report);
    if (answers_.empty()) return {};
    const UsageOutcome answer = answers_.front();
    answers_.pop_front();
    return {answer, Unavailable("as the test says")};
  }
  void Answer(std::vector<UsageOutcome> answers) {
    MutexLock lock(mu_);
    answers_.assign(answers.begin(), answers.end());
  }
  std::vector<UseReport> reports() const {
    MutexLock lock(mu_);
    return reports_;
  }

 private:
  mutable Mutex mu_;
  std::vector<UseReport> reports_ ABSL_GUARDED_BY(mu_);
  std::deque<UsageOutcome> answers_ ABSL_GUARDED_BY(mu_);
};

class UsageReporterTest : public testing::Test {
 protected:
  void Start(absl::Duration interval = absl::Hours(1)) {
    auto started = UsageReporter::Start({.space = TestSpace(), .tenant = "blue", .interval = interval}, sink_);
    ASSERT_TRUE(started.ok()) << started.status();
    reporter_ = *std::move(started);
  }
  UseReport Sum() const {
    UseReport sum;
    for (const UseReport& report : sink_->reports()) {
      sum.prefilled_tokens += report.prefilled_tokens;
      sum.prefill_seconds += report.prefill_seconds;
      sum.blend += report.blend;
    }
    return sum;
  }

  std::shared_ptr<ListSink> sink_ = std::make_shared<ListSink>();
  std::unique_ptr<UsageReporter> reporter_;
};

TEST_F(UsageReporterTest, SendsWhatWasAddedUpAndWhatTheSpaceIsCalled) {
  Start();
  reporter_->Prefilled(100, absl::Seconds(2));
  reporter_->Prefilled(300, absl::Seconds(2));
  reporter_->Prefilled(1, absl::Seconds(9));  // of a prompt that was held: says nothing of the engine's speed
  reporter_->Blended({.prompts = 1, .moved_tokens = 7});
  reporter_->Refused(BlendRefusal::kNotFaster);
  ASSERT_TRUE(reporter_->Flush(kPatience));
  EXPECT_EQ(Sum().prefilled_tokens, 400);
  EXPECT_DOUBLE_EQ(Sum().prefill_seconds, 4);
  EXPECT_EQ(Sum().blend.moved_tokens, 7);
  EXPECT_EQ(Sum().blend.refused[static_cast<size_t>(BlendRefusal::kNotFaster)], 1);
  const UseReport last = sink_->reports().back();
  EXPECT_EQ(last.space, *ComputeSpaceId(TestSpace()));
  EXPECT_EQ(last.description.model, "acme/tiny");
  EXPECT_EQ(last.description.tenant, "blue");
  EXPECT_EQ(reporter_->counts().kept + reporter_->counts().lost, 0u);
}

TEST_F(UsageReporterTest, GoingSendsTheRest) {
  Start();
  ASSERT_TRUE(reporter_->Flush(kPatience));
  reporter_->Prefilled(100, absl::Seconds(1));
  reporter_.reset();
  EXPECT_EQ(Sum().prefilled_tokens, 100);
}

TEST_F(UsageReporterTest, WhatFailsIsSentAgainOnceAndWhatMayHaveArrivedIsNot) {
  Start();
  ASSERT_TRUE(reporter_->Flush(kPatience));
  sink_->Answer({UsageOutcome::kNotCounted});
  reporter_->Prefilled(100, absl::Seconds(1));
  EXPECT_FALSE(reporter_->Flush(kPatience));
  EXPECT_EQ(reporter_->counts().kept, 1u);
  EXPECT_THAT(MessageOf(reporter_->counts().last_failure), HasSubstr("as the test says"));
  reporter_->Prefilled(200, absl::Seconds(1));
  ASSERT_TRUE(reporter_->Flush(kPatience));
  EXPECT_EQ(sink_->reports().back().prefilled_tokens, 300);

  sink_->Answer({UsageOutcome::kUnknown});
  reporter_->Prefilled(1000, absl::Seconds(1));
  EXPECT_FALSE(reporter_->Flush(kPatience));
  EXPECT_EQ(reporter_->counts().lost, 1u);
  reporter_->Prefilled(2000, absl::Seconds(1));
  ASSERT_TRUE(reporter_->Flush(kPatience));
  EXPECT_EQ(sink_->reports().back().prefilled_tokens, 2000);
}

TEST_F(UsageReporterTest, SendsByItself) {
  Start(absl::Milliseconds(1));
  reporter_->Prefilled(100, absl::Seconds(1));
  const absl::Time end = absl::Now() + kPatience;
  while (Sum().prefilled_tokens < 100 && absl::Now() < end) std::this_thread::yield();
  EXPECT_EQ(Sum().prefilled_tokens, 100);
}

TEST_F(UsageReporterTest, CountsFromManyThreadsOnceEach) {
  Start(absl::Microseconds(100));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this] {
      for (int i = 0; i < 250; ++i) reporter_->Prefilled(100, absl::Milliseconds(1));
    });
  }
  for (std::thread& thread : threads) thread.join();
  reporter_.reset();
  EXPECT_EQ(Sum().prefilled_tokens, 100'000);
}

TEST_F(UsageReporterTest, ATenantThatGivesTheSaltAwayIsRefused) {
  const auto start = [&](const std::string& tenant, const std::string& salt) {
    KvSpace space = TestSpace();
    space.tenant_salt = salt;
    return UsageReporter::Start({.space = space, .tenant = tenant}, sink_).status();
  };
  EXPECT_THAT(MessageOf(start("very-secret-salt", "very-secret-salt")), HasSubstr("tenant_salt"));
  EXPECT_THAT(MessageOf(start("blue very-secret-salt", "very-secret-salt")), HasSubstr("tenant_salt"));
  EXPECT_THAT(MessageOf(start("x", "x")), HasSubstr("tenant_salt"));
  EXPECT_TRUE(start("box", "x").ok()) << "a letter is in many names";
  EXPECT_TRUE(start("", "").ok());
  EXPECT_THAT(MessageOf(start("a\nb", "")), HasSubstr("tenant"));
  EXPECT_THAT(MessageOf(start(std::string(200, 'x'), "")), HasSubstr("tenant: 200 bytes"));
  KvSpace none;
  EXPECT_EQ(UsageReporter::Start({.space = none}, sink_).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(UsageReporter::Start({.space = TestSpace(), .interval = absl::ZeroDuration()}, sink_).status()),
              HasSubstr("interval"));
}

}  // namespace
}  // namespace kdn
