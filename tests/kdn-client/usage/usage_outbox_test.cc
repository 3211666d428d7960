#include "kdn-client/usage/usage_outbox.h"

#include <gtest/gtest.h>

namespace kdn {
namespace {

class UsageOutboxTest : public testing::Test {
 protected:
  UsageOutboxTest() {
    options_.space.bytes.fill(5);
    options_.description.model = "m";
    options_.interval = absl::Seconds(5);
    outbox_.emplace(options_, clock_.Now());
  }
  static UseReport Tokens(double tokens) {
    return {.prefilled_tokens = tokens, .prefill_seconds = tokens / 100, .blend = {.prompts = 1}};
  }
  bool IsDue() const { return outbox_->Due() <= clock_.Now(); }
  void End(const UseReport& report, UsageOutcome outcome) { outbox_->Ended(report, outcome, clock_.Now()); }
  void SendFirst() { End(outbox_->Take(), UsageOutcome::kCounted); }

  ManualSteadyClock clock_;
  UsageOutbox::Options options_;
  std::optional<UsageOutbox> outbox_;
};

TEST_F(UsageOutboxTest, SaysAtOnceWhatTheSpaceIsAndThenNothing) {
  ASSERT_TRUE(IsDue());
  const UseReport first = outbox_->Take();
  EXPECT_EQ(first.space, options_.space);
  EXPECT_EQ(first.description.model, "m");
  EXPECT_FALSE(first.HasCounts());
  End(first, UsageOutcome::kCounted);
  clock_.Advance(absl::Hours(24));
  EXPECT_FALSE(outbox_->Pending());
}

TEST_F(UsageOutboxTest, CountsAreAddedUpAndDueAnIntervalAfterTheFirst) {
  SendFirst();
  outbox_->Add(Tokens(100), clock_.Now());
  clock_.Advance(absl::Seconds(4));
  outbox_->Add(Tokens(50), clock_.Now());
  EXPECT_FALSE(IsDue());
  clock_.Advance(absl::Seconds(1));
  ASSERT_TRUE(IsDue());
  const UseReport report = outbox_->Take();
  EXPECT_EQ(report.prefilled_tokens, 150);
  EXPECT_DOUBLE_EQ(report.prefill_seconds, 1.5);
  EXPECT_EQ(report.blend.prompts, 2);
  EXPECT_FALSE(outbox_->Pending());
}

TEST_F(UsageOutboxTest, WhatWasNotCountedGoesWithTheNext) {
  SendFirst();
  outbox_->Add(Tokens(100), clock_.Now());
  const UseReport report = outbox_->Take();
  outbox_->Add(Tokens(10), clock_.Now());  // while it is being sent
  End(report, UsageOutcome::kNotCounted);
  EXPECT_FALSE(IsDue()) << "a pause first";
  clock_.Advance(absl::Seconds(5));
  ASSERT_TRUE(IsDue());
  EXPECT_EQ(outbox_->Take().prefilled_tokens, 110);
}

TEST_F(UsageOutboxTest, WhatMayHaveBeenCountedOrIsRefusedIsGivenUp) {
  SendFirst();
  for (const UsageOutcome outcome : {UsageOutcome::kUnknown, UsageOutcome::kRefused}) {
    outbox_->Add(Tokens(100), clock_.Now());
    const UseReport report = outbox_->Take();
    outbox_->Add(Tokens(10), clock_.Now());
    End(report, outcome);
    clock_.Advance(absl::Minutes(2));
    ASSERT_TRUE(IsDue());
    EXPECT_EQ(outbox_->Take().prefilled_tokens, 10);
  }
  EXPECT_FALSE(outbox_->Pending());
}

TEST_F(UsageOutboxTest, PausesGrowUpToALimitAndEndWithASuccess) {
  absl::Duration longest;
  for (int i = 0; i < 20; ++i) {
    End(outbox_->Take(), UsageOutcome::kNotCounted);
    ASSERT_FALSE(IsDue());
    const auto pause = absl::FromChrono(outbox_->Due() - clock_.Now());
    EXPECT_LE(pause, options_.longest_pause);
    longest = std::max(longest, pause);
    clock_.Advance(pause);
    ASSERT_TRUE(IsDue());
  }
  EXPECT_GE(longest, options_.longest_pause / 2);
  SendFirst();
  outbox_->Add(Tokens(1), clock_.Now());
  EXPECT_EQ(absl::FromChrono(outbox_->Due() - clock_.Now()), options_.interval);
}

TEST_F(UsageOutboxTest, CountsThatComeDuringAPauseWaitForItsEnd) {
  End(outbox_->Take(), UsageOutcome::kUnknown);
  const auto begin = clock_.Now();
  outbox_->Add(Tokens(1), clock_.Now());
  EXPECT_GE(outbox_->Due() - begin, absl::ToChronoNanoseconds(options_.interval));
}

TEST_F(UsageOutboxTest, AnEngineAtWorkSaysAgainWhatItsSpaceIs) {
  SendFirst();
  outbox_->Add({}, clock_.Now());
  EXPECT_FALSE(outbox_->Pending()) << "it was said a moment ago";
  clock_.Advance(options_.describe_every);
  outbox_->Add({}, clock_.Now());
  ASSERT_TRUE(IsDue());
  EXPECT_EQ(outbox_->Take().description.model, "m");
}

}  // namespace
}  // namespace kdn
