#include "storage/eviction/replay/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace kdn::replay {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kGood[] = R"({"timestamp": 5, "input_length": 700, "output_length": 9, "hash_ids": [70, 71]})";

absl::StatusOr<Trace> Parse(const std::string& text) {
  std::istringstream in(text);
  return ParseTrace(in, "t");
}

TEST(TraceTest, IdsWithGapsBreakTheReplay) {
  const auto trace =
      Parse(std::string(kGood) + "\n\n" +
            R"({"timestamp": 6, "input_length": 1100, "output_length": 1, "hash_ids": [70, 71, 5]})" + "\n");
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_THAT(trace->blocks, ElementsAre(0, 1, 0, 1, 2));
  EXPECT_EQ(trace->distinct_blocks, 3);
  EXPECT_EQ(trace->requests[0].input_tokens, 700);
  EXPECT_EQ(trace->requests[1].timestamp_ms, 6);
  EXPECT_THAT(trace->BlocksOf(trace->requests[1]), ElementsAre(0, 1, 2));
}

TEST(TraceTest, BadLinesAreReadAsSomethingElse) {
  const struct {
    const char* line;
    const char* complaint;
  } kCases[] = {
      {"nonsense", "not a JSON object"},
      {"[1]", "not a JSON object"},
      {R"({"timestamp": -1, "input_length": 1, "output_length": 1, "hash_ids": []})", "'timestamp'"},
      {R"({"timestamp": 1, "output_length": 1, "hash_ids": []})", "'input_length'"},
      {R"({"timestamp": 1, "input_length": 5000000000, "output_length": 1, "hash_ids": []})", "over 4294967295"},
      {R"({"timestamp": 1, "input_length": 1, "output_length": "x", "hash_ids": []})", "'output_length'"},
      {R"({"timestamp": 1, "input_length": 1, "output_length": 1})", "'hash_ids' is not an array"},
      {R"({"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": [1.5]})", "not an unsigned number"},
      {R"({"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": [71]})", "block 71 follows another"},
  };
  for (const auto& bad : kCases) {
    const absl::Status status = Parse(std::string(kGood) + "\n" + bad.line + "\n").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.line;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.complaint));
    EXPECT_THAT(std::string(status.message()), HasSubstr("trace t, line 2"));
  }
}

TEST(TraceTest, AnEmptyOrMissingFileIsATrace) {
  EXPECT_EQ(Parse("").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadTrace("/nonexistent/trace.jsonl").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace kdn::replay
