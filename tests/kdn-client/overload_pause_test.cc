// How long a client leaves a node alone that has refused it.
#include "kdn-client/overload_pause.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

class OverloadPauseTest : public testing::Test {
 protected:
  // How long the pause is that has just begun, to a millisecond.
  absl::Duration Length() {
    absl::Duration length = absl::ZeroDuration();
    while (!pause_.Check().ok()) {
      clock_.Advance(absl::Milliseconds(1));
      length += absl::Milliseconds(1);
    }
    return length;
  }

  ManualClock clock_;
  OverloadPause pause_{clock_};
};

TEST_F(OverloadPauseTest, BeginsWithRefusalsAndGrowsUpToASecond) {
  EXPECT_TRUE(pause_.Check().ok());
  absl::Duration longest = absl::Milliseconds(20);
  for (int i = 0; i < 12; ++i) {
    pause_.Note(absl::ResourceExhaustedError("busy"));
    const absl::Status refused = pause_.Check();
    EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
    EXPECT_THAT(MessageOf(refused), HasSubstr("ms"));
    const absl::Duration length = Length();
    EXPECT_GE(length, longest / 2) << i;
    EXPECT_LE(length, longest + absl::Milliseconds(1)) << i;
    longest = std::min(2 * longest, absl::Seconds(1));
  }
}

TEST_F(OverloadPauseTest, RefusalsDuringAPauseDoNotProlongIt) {
  for (int i = 0; i < 100; ++i) pause_.Note(absl::ResourceExhaustedError("busy"));
  EXPECT_LE(Length(), absl::Milliseconds(21));
}

TEST_F(OverloadPauseTest, AnAnswerMakesTheNextPauseShortAgain) {
  for (int i = 0; i < 8; ++i) {
    pause_.Note(absl::ResourceExhaustedError("busy"));
    Length();
  }
  pause_.Note(absl::OkStatus());
  EXPECT_TRUE(pause_.Check().ok());
  pause_.Note(absl::ResourceExhaustedError("busy"));
  EXPECT_LE(Length(), absl::Milliseconds(21));
}

TEST_F(OverloadPauseTest, WhatSaysNothingAboutTheNodeChangesNothing) {
  for (int i = 0; i < 8; ++i) {
    pause_.Note(absl::ResourceExhaustedError("busy"));
    Length();
  }
  for (const absl::StatusCode code : {absl::StatusCode::kUnavailable, absl::StatusCode::kDeadlineExceeded}) {
    pause_.Note(absl::Status(code, "nothing"));
    EXPECT_TRUE(pause_.Check().ok());
  }
  pause_.Note(absl::ResourceExhaustedError("busy"));
  EXPECT_GE(Length(), absl::Milliseconds(499));
}

}  // namespace
}  // namespace kdn
