#include "storage/analytics/trace_writer.h"

#include <gtest/gtest.h>

#include <sstream>

#include "storage/eviction/replay/replay.h"
#include "storage/eviction/replay/trace.h"
#include "storage/eviction/replay/workload.h"

namespace kdn {
namespace {

std::vector<ChunkKey> KeysOf(const std::vector<uint32_t>& blocks) {
  std::vector<ChunkKey> keys;
  for (const uint32_t block : blocks) keys.push_back(replay::KeyOfBlock(block));
  return keys;
}

TEST(TraceWriterTest, ATraceThatIsWrittenAndReadIsTheSame) {
  const replay::Trace trace = GenerateTrace(replay::Workload::kAgent, 2);
  std::stringstream file;
  TraceWriter writer(file);
  for (const replay::Request& request : trace.requests) {
    const auto blocks = trace.BlocksOf(request);
    ASSERT_TRUE(writer
                    .Add({.milliseconds = request.timestamp_ms,
                          .input_tokens = request.input_tokens,
                          .output_tokens = request.output_tokens,
                          .keys = KeysOf({blocks.begin(), blocks.end()})})
                    .ok());
  }
  EXPECT_EQ(writer.cut_chunks(), 0u);
  const absl::StatusOr<replay::Trace> back = replay::ParseTrace(file, "back");
  ASSERT_TRUE(back.ok()) << back.status();
  ASSERT_EQ(back->requests.size(), trace.requests.size());
  EXPECT_EQ(back->blocks, trace.blocks);
  EXPECT_EQ(back->distinct_blocks, trace.distinct_blocks);
  for (size_t i = 0; i < trace.requests.size(); ++i) {
    EXPECT_EQ(back->requests[i].timestamp_ms, trace.requests[i].timestamp_ms);
    EXPECT_EQ(back->requests[i].input_tokens, trace.requests[i].input_tokens);
  }
}

TEST(TraceWriterTest, APartOfAChainIsCutSoThatTheTraceCanBeRead) {
  std::stringstream file;
  TraceWriter writer(file);
  ASSERT_TRUE(writer.Add({.keys = KeysOf({1, 2, 3})}).ok());
  ASSERT_TRUE(writer.Add({.keys = KeysOf({1, 3})}).ok());
  ASSERT_TRUE(writer.Add({.keys = KeysOf({2, 3})}).ok());
  EXPECT_EQ(writer.cut_chunks(), 3u);
  const absl::StatusOr<replay::Trace> back = replay::ParseTrace(file, "back");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->blocks, (std::vector<uint32_t>{0, 1, 2, 0}));
}

TEST(TraceWriterTest, RemembersNoMoreChunksThanItMay) {
  std::stringstream file;
  TraceWriter writer(file, /*max_chunks=*/2);
  ASSERT_TRUE(writer.Add({.keys = KeysOf({1, 2, 3, 4})}).ok());
  EXPECT_EQ(writer.chunks(), 2u);
  EXPECT_EQ(writer.cut_chunks(), 2u);
}

TEST(TraceWriterTest, AFullDiskIsSaid) {
  std::stringstream file;
  file.setstate(std::ios::badbit);
  TraceWriter writer(file);
  EXPECT_EQ(writer.Add({.keys = {}}).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace kdn
