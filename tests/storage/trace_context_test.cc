// TraceContext: what other tracers send is understood, what they may not send is refused, and ids are the process's
// own.
#include "storage/base/trace_context.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>
#include <string>
#include <thread>
#include <vector>

namespace kdn {
namespace {

using ::testing::HasSubstr;

// The standard's own example.
constexpr char kExample[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceContextTest, TheStandardsExampleIsReadAndWrittenAsItIs) {
  const absl::StatusOr<TraceContext> trace = ParseTraceparent(kExample);
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->RequestId(), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(trace->SpanHex(), "00f067aa0ba902b7");
  EXPECT_TRUE(trace->sampled);
  EXPECT_EQ(FormatTraceparent(*trace), kExample);
}

TEST(TraceContextTest, OfTheFlagsOnlySampledIsKept) {
  const auto flags = [](const std::string& hex) {
    return ParseTraceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-" + hex);
  };
  EXPECT_FALSE(flags("00")->sampled);
  EXPECT_FALSE(flags("fe")->sampled);
  ASSERT_TRUE(flags("ff")->sampled);
  EXPECT_TRUE(FormatTraceparent(*flags("ff")).ends_with("-01"));
}

TEST(TraceContextTest, WhatIsNoTraceparentIsRefusedAndSaysWhy) {
  const std::string good = kExample;
  for (const auto& [text, why] : std::vector<std::pair<std::string, std::string>>{
           {"", "0 characters"},
           {good.substr(0, good.size() - 1), "54 characters"},
           {good + "0", "version 00"},
           {good + "-00", "version 00"},
           {"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", "lower case"},
           {"00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01", "lower case"},
           {"00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "form"},
           {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x", "form"},
           {"00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01", "form"},
           {"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "version ff"},
           {"00-00000000000000000000000000000000-00f067aa0ba902b7-01", "zeros"},
           {"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", "zeros"},
           {std::string(55, '\0'), "form"},
           {std::string(55, '\xff'), "form"}}) {
    const absl::StatusOr<TraceContext> trace = ParseTraceparent(text);
    ASSERT_EQ(trace.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(trace.status().message()), HasSubstr(why)) << text;
  }
}

// A later version may add fields behind a dash; what is known of it is used, and sent on as version 00.
TEST(TraceContextTest, OfALaterVersionWhatIsKnownIsTaken) {
  const std::string ids = "-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  for (const std::string& text : {"01" + ids, "cc" + ids + "-what-comes-then", "fe" + ids + "-"}) {
    const absl::StatusOr<TraceContext> trace = ParseTraceparent(text);
    ASSERT_TRUE(trace.ok()) << text << ": " << trace.status();
    EXPECT_EQ(FormatTraceparent(*trace), kExample);
  }
  EXPECT_FALSE(ParseTraceparent("cc" + ids + ".what").ok());
  EXPECT_FALSE(ParseTraceparent("cc" + ids + "0").ok());
}

TEST(TraceContextTest, EveryNewTraceIsReadBackAsItIs) {
  for (int i = 0; i < 1000; ++i) {
    const TraceContext trace = NewTrace(/*sampled=*/i % 2 == 0);
    ASSERT_TRUE(trace.valid());
    const absl::StatusOr<TraceContext> back = ParseTraceparent(FormatTraceparent(trace));
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(*back, trace);
  }
  EXPECT_EQ(FormatTraceparent(TraceContext()), "");
}

TEST(TraceContextTest, AChildIsAnotherSpanOfTheSameTrace) {
  const TraceContext trace = NewTrace(/*sampled=*/true);
  const TraceContext child = trace.Child();
  EXPECT_EQ(child.trace_id, trace.trace_id);
  EXPECT_NE(child.span_id, trace.span_id);
  EXPECT_TRUE(child.sampled);
  EXPECT_FALSE(TraceContext().Child().valid());
}

TEST(TraceContextTest, IdsDoNotRepeatOverThreads) {
  constexpr size_t kThreads = 8;
  constexpr size_t kEach = 1000;
  std::vector<std::vector<TraceContext>> made(kThreads);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&mine = made[t]] {
      for (size_t i = 0; i < kEach; ++i) mine.push_back(NewTrace());
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<TraceId> traces;
  std::set<SpanId> spans;
  for (const std::vector<TraceContext>& of_thread : made) {
    for (const TraceContext& trace : of_thread) {
      traces.insert(trace.trace_id);
      spans.insert(trace.span_id);
    }
  }
  EXPECT_EQ(traces.size(), kThreads * kEach);
  EXPECT_EQ(spans.size(), kThreads * kEach);
}

// Engines fork their workers, which then begin with the same memory.
TEST(TraceContextTest, AForkedProcessMakesItsOwnIds) {
  (void)NewTrace();  // the state that would be copied
  int ends[2] = {};
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    const std::string text = FormatTraceparent(NewTrace());
    const bool written = write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size());
    _exit(written ? 0 : 1);
  }
  ASSERT_GT(child, 0);
  const std::string ours = FormatTraceparent(NewTrace());
  std::string theirs(ours.size(), '\0');
  EXPECT_EQ(read(ends[0], theirs.data(), theirs.size()), static_cast<ssize_t>(theirs.size()));
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  close(ends[0]);
  close(ends[1]);
  EXPECT_EQ(status, 0);
  ASSERT_TRUE(ParseTraceparent(theirs).ok()) << theirs;
  EXPECT_NE(ParseTraceparent(theirs)->trace_id, ParseTraceparent(ours)->trace_id);
  EXPECT_NE(ParseTraceparent(theirs)->span_id, ParseTraceparent(ours)->span_id);
}

TEST(ScopedTraceTest, TheInnermostScopeCountsAndEndsWithItsBlock) {
  EXPECT_FALSE(CurrentTrace().valid());
  const TraceContext outer = NewTrace();
  const TraceContext inner = NewTrace();
  {
    const ScopedTrace first(outer);
    EXPECT_EQ(CurrentTrace(), outer);
    {
      const ScopedTrace second(inner);
      EXPECT_EQ(CurrentTrace(), inner);
    }
    EXPECT_EQ(CurrentTrace(), outer);
  }
  EXPECT_FALSE(CurrentTrace().valid());
}

TEST(ScopedTraceTest, AnotherThreadHasNoneUntilItIsHandedOn) {
  const ScopedTrace scope(NewTrace());
  TraceContext seen;
  TraceContext handed_on;
  std::thread([&, trace = CurrentTrace()] {
    seen = CurrentTrace();
    const ScopedTrace theirs(trace);
    handed_on = CurrentTrace();
  }).join();
  EXPECT_FALSE(seen.valid());
  EXPECT_EQ(handed_on, CurrentTrace());
}

TEST(ScopedTraceTest, ACallIsSentUnderTheCurrentTraceOrANewOne) {
  EXPECT_TRUE(CurrentOrNewTrace().valid());
  EXPECT_TRUE(ChildOfCurrentOrNewTrace().valid());
  const ScopedTrace scope(NewTrace());
  EXPECT_EQ(CurrentOrNewTrace(), CurrentTrace());
  EXPECT_EQ(ChildOfCurrentOrNewTrace().trace_id, CurrentTrace().trace_id);
  EXPECT_NE(ChildOfCurrentOrNewTrace().span_id, CurrentTrace().span_id);
}

}  // namespace
}  // namespace kdn
