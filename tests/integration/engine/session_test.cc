#include "integration/engine/session.h"

#include <cmath>
#include <cstring>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/base/status.h"
#include "tests/integration/engine/fixtures.h"

namespace kdn::engine {
namespace {

using testing::HasSubstr;

constexpr uint32_t kChunk = 64;

std::vector<float> AllLogits(const std::shared_ptr<const Model>& model, std::span<const Token> tokens,
                             SessionOptions options) {
  options.capacity = static_cast<uint32_t>(tokens.size());
  const std::unique_ptr<Session> session = NewSession(model, options);
  std::vector<float> logits;
  EXPECT_TRUE(session->Append(tokens, &logits).ok());
  return logits;
}

std::string Bits(std::span<const float> values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size_bytes());
}

void ExpectNear(std::span<const float> a, std::span<const float> b, float tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance) << "at " << i;
}

// 700 tokens cross key blocks, row tiles and chunks at different places.
TEST(SessionTest, StepSizeChangesOnlyRounding) {
  const auto model = SmallModel();
  const std::vector<Token> tokens = SomeTokens(700);
  const std::vector<float> whole = AllLogits(model, tokens, {.kv_dtype = DType::kF32, .chunk_tokens = 1024});
  for (const uint32_t chunk : {1u, 7u, 256u, 300u}) {
    ExpectNear(AllLogits(model, tokens, {.kv_dtype = DType::kF32, .chunk_tokens = chunk}), whole, 1e-4f);
  }
}

TEST(SessionTest, DecodingTokenByTokenAgreesWithPrefill) {
  const auto model = SmallModel();
  const std::vector<Token> tokens = SomeTokens(150);
  const auto session = NewSession(model, {.kv_dtype = DType::kF32, .chunk_tokens = kChunk, .capacity = 150});
  std::vector<float> one_by_one;
  for (const Token token : tokens) {
    ASSERT_TRUE(session->Append({token}).ok());
    one_by_one.insert(one_by_one.end(), session->logits().begin(), session->logits().end());
  }
  ExpectNear(one_by_one, AllLogits(model, tokens, {.kv_dtype = DType::kF32, .chunk_tokens = kChunk}), 1e-4f);
}

TEST(SessionTest, ALaterTokenNeverChangesEarlierLogits) {
  const auto model = SmallModel();
  std::vector<Token> tokens = SomeTokens(300);
  const SessionOptions options{.chunk_tokens = kChunk};
  const std::string before = Bits(AllLogits(model, tokens, options));
  for (const size_t changed : {299u, 200u, 130u, 64u}) {
    tokens[changed] ^= 1;
    const std::string after = Bits(AllLogits(model, tokens, options));
    const size_t earlier = changed * model->config().vocab_size * sizeof(float);
    EXPECT_EQ(after.substr(0, earlier), before.substr(0, earlier)) << "token " << changed;
    EXPECT_NE(after.substr(earlier), before.substr(earlier)) << "token " << changed;
    tokens[changed] ^= 1;
  }
}

class ReuseTest : public testing::TestWithParam<DType> {};

// What the whole system promises: a prefix from the cache gives the very bits that computing it gives.
TEST_P(ReuseTest, CopiedPrefixGivesTheSameBitsAsAComputedOne) {
  const auto model = SmallModel();
  const std::vector<Token> tokens = SomeTokens(5 * kChunk + 9);
  const SessionOptions options{.kv_dtype = GetParam(), .chunk_tokens = kChunk, .capacity = 6 * kChunk};
  const auto cold = NewSession(model, options);
  ASSERT_TRUE(cold->Append(tokens).ok());
  const std::string cold_first = Bits(cold->logits());
  std::vector<std::string> cold_steps;
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(cold->Append({cold->Greedy()}).ok());
    cold_steps.push_back(Bits(cold->logits()));
  }

  for (uint32_t chunks = 1; chunks <= 5; ++chunks) {
    // Another capacity puts the caches at other addresses; another number of threads splits the work otherwise.
    SessionOptions other = options;
    other.capacity += 3 * chunks;
    other.threads = 1 + chunks % 3;
    const auto warm = NewSession(model, other);
    for (uint32_t layer = 0; layer < warm->kv().layers(); ++layer) {
      const size_t bytes = chunks * kChunk * warm->kv().RowBytes();
      std::memcpy(warm->kv().k(layer), cold->kv().k(layer), bytes);
      std::memcpy(warm->kv().v(layer), cold->kv().v(layer), bytes);
    }
    warm->kv().set_length(chunks * kChunk);
    ASSERT_TRUE(warm->Append(std::span(tokens).subspan(chunks * kChunk)).ok());
    EXPECT_EQ(Bits(warm->logits()), cold_first) << chunks << " chunks reused";
    for (const std::string& step : cold_steps) {
      ASSERT_TRUE(warm->Append({warm->Greedy()}).ok());
      EXPECT_EQ(Bits(warm->logits()), step) << chunks << " chunks reused";
    }
    EXPECT_EQ(KvBytes(warm->kv(), warm->kv().length()), KvBytes(cold->kv(), cold->kv().length()));
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, ReuseTest, testing::Values(DType::kBf16, DType::kF16, DType::kF32),
                         [](const auto& test) { return std::string(DTypeName(test.param)); });

TEST(SessionTest, NumberOfThreadsChangesNotABit) {
  const auto model = SmallModel("layers=2,hidden=320,heads=5,kv_heads=5,vocab=600,seed=2");
  const std::vector<Token> tokens = SomeTokens(200);
  const std::string one = Bits(AllLogits(model, tokens, {.threads = 1}));
  EXPECT_EQ(Bits(AllLogits(model, tokens, {.threads = 2})), one);
  EXPECT_EQ(Bits(AllLogits(model, tokens, {.threads = 5})), one);
}

TEST(SessionTest, HalfPrecisionKvStaysCloseToFull) {
  const auto model = SmallModel();
  const std::vector<Token> tokens = SomeTokens(200);
  const std::vector<float> full = AllLogits(model, tokens, {.kv_dtype = DType::kF32});
  ExpectNear(AllLogits(model, tokens, {.kv_dtype = DType::kF16}), full, 0.02f);
  ExpectNear(AllLogits(model, tokens, {.kv_dtype = DType::kBf16}), full, 0.1f);
}

TEST(SessionTest, RefusesWhatItCannotRun) {
  const auto model = SmallModel();
  const auto session = NewSession(model, {.capacity = 4});
  EXPECT_THAT(MessageOf(session->Append({})), HasSubstr("no tokens"));
  EXPECT_THAT(MessageOf(session->Append({1, 260})), HasSubstr("token 1 is 260; the vocabulary has 260"));
  EXPECT_EQ(session->Append({1, 2, 3, 4, 5}).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(session->kv().length(), 0u) << "a refused call leaves nothing behind";
  EXPECT_THAT(MessageOf(Session::Create(model, {.chunk_tokens = 0}).status()), HasSubstr("chunk_tokens"));
  EXPECT_THAT(MessageOf(Session::Create(model, {.capacity = 0}).status()), HasSubstr("capacity"));
  EXPECT_THAT(MessageOf(Session::Create(model, {.threads = 0}).status()), HasSubstr("threads"));
  EXPECT_THAT(MessageOf(Session::Create(model, {.kv_dtype = DType::kI8}).status()), HasSubstr("dtype"));
}

}  // namespace
}  // namespace kdn::engine
