#include "integration/engine/blend_samples.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/base/status.h"

namespace kdn::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kVocab = 260;

std::string ErrorOf(std::string_view text) { return MessageOf(ParseBlendSamples(text, kVocab).status()); }

TEST(BlendSamplesTest, ATextIsItsBytesAndAnArrayIsTokenIds) {
  const auto samples = ParseBlendSamples(R"({"segments": ["ab", [256, 7]], "question": "c", "answer": [9]})"
                                         "\n\n \r\n"
                                         R"({"answer": "y", "question": "x", "segments": []})",
                                         kVocab)
                           .value();
  ASSERT_EQ(samples.size(), 2u);
  EXPECT_THAT(samples[0].prompt.segments, ElementsAre(ElementsAre(97, 98), ElementsAre(256, 7)));
  EXPECT_THAT(samples[0].prompt.question, ElementsAre(99));
  EXPECT_THAT(samples[0].answer, ElementsAre(9));
  EXPECT_TRUE(samples[1].prompt.segments.empty());
}

TEST(BlendSamplesTest, ErrorsNameTheLineAndTheField) {
  const std::string good = R"({"segments": ["ab"], "question": "c", "answer": "d"})";
  EXPECT_THAT(ErrorOf(""), HasSubstr("no samples"));
  EXPECT_THAT(ErrorOf("\n \n"), HasSubstr("no samples"));
  EXPECT_THAT(ErrorOf(good + "\n{"), HasSubstr("line 2: it is not a JSON object"));
  EXPECT_THAT(ErrorOf("[]"), HasSubstr("line 1: it is not a JSON object"));
  EXPECT_THAT(ErrorOf(R"({"question": "c", "answer": "d"})"), HasSubstr("line 1: it has no segments"));
  EXPECT_THAT(ErrorOf(R"({"segments": "ab", "question": "c", "answer": "d"})"), HasSubstr("it has no segments"));
  EXPECT_THAT(ErrorOf(R"({"segments": [], "answer": "d"})"), HasSubstr("it has no question"));
  EXPECT_THAT(ErrorOf(R"({"segments": [], "question": "c"})"), HasSubstr("it has no answer"));
  EXPECT_THAT(ErrorOf(R"({"segments": ["a", 3], "question": "c", "answer": "d"})"),
              HasSubstr("segment 1: it is neither a text nor an array"));
  EXPECT_THAT(ErrorOf(R"({"segments": ["a", ""], "question": "c", "answer": "d"})"),
              HasSubstr("segment 1: it has no tokens"));
  EXPECT_THAT(ErrorOf(R"({"segments": [[1, -2]], "question": "c", "answer": "d"})"),
              HasSubstr("segment 0: -2 is not a token id"));
  EXPECT_THAT(ErrorOf(R"({"segments": [], "question": [4294967296], "answer": "d"})"),
              HasSubstr("question: 4294967296 is not a token id"));
  EXPECT_THAT(ErrorOf(R"({"segments": [], "question": "c", "answer": [260]})"),
              HasSubstr("answer: token 260 is outside the vocabulary of 260"));
  EXPECT_THAT(ErrorOf(R"({"segments": [], "question": "c", "answer": "d", "tail": 1})"),
              HasSubstr(R"(there is no field "tail")"));
}

TEST(BlendSamplesTest, AFilesErrorsNameIt) {
  EXPECT_THAT(MessageOf(ReadBlendSamples("/nowhere/samples.jsonl", kVocab).status()), HasSubstr("/nowhere/samples"));
}

}  // namespace
}  // namespace kdn::engine
