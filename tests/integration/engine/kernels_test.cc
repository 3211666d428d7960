#include "integration/engine/kernels.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "integration/engine/parallel.h"
#include "integration/engine/tokenizer.h"

namespace kdn::engine {
namespace {

// Every 16-bit pattern must survive the way through floats, or a cache would change by being read and written.
TEST(KernelsTest, EverySixteenBitValueSurvivesTheWayThroughFloats) {
  for (const DType dtype : {DType::kBf16, DType::kF16}) {
    std::vector<uint16_t> all(65536 + 5);  // an odd tail behind the vectors
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
    std::vector<float> floats(all.size());
    std::vector<uint16_t> back(all.size());
    ToFloats(dtype, reinterpret_cast<const uint8_t*>(all.data()), floats);
    FromFloats(dtype, floats, reinterpret_cast<uint8_t*>(back.data()));
    for (size_t i = 0; i < all.size(); ++i) {
      if (std::isnan(floats[i])) {
        EXPECT_TRUE(dtype == DType::kBf16 ? (back[i] & 0x7FFF) > 0x7F80 : (back[i] & 0x7FFF) > 0x7C00) << i;
      } else {
        ASSERT_EQ(back[i], all[i]) << DTypeName(dtype);
      }
    }
  }
}

TEST(KernelsTest, Bf16RoundsToTheNearestAndTiesToEven) {
  const std::vector<float> in = {std::bit_cast<float>(0x3F808000u), std::bit_cast<float>(0x3F818000u),
                                 std::bit_cast<float>(0x3F808001u), std::bit_cast<float>(0x3F807FFFu),
                                 std::bit_cast<float>(0x7F7FFFFFu), std::numeric_limits<float>::infinity()};
  std::vector<uint16_t> out(in.size());
  FromFloats(DType::kBf16, in, reinterpret_cast<uint8_t*>(out.data()));
  EXPECT_EQ(out, (std::vector<uint16_t>{0x3F80, 0x3F82, 0x3F81, 0x3F80, 0x7F80, 0x7F80}));
}

TEST(KernelsTest, SwiGluHoldsAtTheEnds) {
  const std::vector<float> gate = {0, 1, -1, 30, -30, 200, -200, 1e30f, -1e30f};
  const std::vector<float> up(gate.size(), 2.0f);
  std::vector<float> out(gate.size());
  SwiGlu(gate, up.data(), out.data());
  for (size_t i = 0; i < gate.size(); ++i) {
    const double want = 2.0 * double{gate[i]} / (1.0 + std::exp(-double{gate[i]}));
    EXPECT_NEAR(out[i], want, 1e-6 * std::max(1.0, std::abs(want))) << gate[i];
  }
}

TEST(KernelsTest, RunningSoftmaxOverBlocksIsTheSoftmaxOfTheWhole) {
  std::vector<float> scores(192);
  for (size_t i = 0; i < scores.size(); ++i) scores[i] = 20.0f * std::sin(static_cast<float>(i * i));
  constexpr size_t kVisible = 150;  // a row that sees into the third block
  double sum = 0;
  for (size_t i = 0; i < kVisible; ++i) sum += std::exp(double{scores[i]});

  SoftmaxState state;
  std::vector<double> got;
  std::vector<float> row = scores;
  for (size_t begin = 0; begin < scores.size(); begin += 64) {
    const size_t valid = std::min<size_t>(64, kVisible - begin);
    const float shrink = SoftmaxBlock(row.data() + begin, valid, 64, state);
    for (double& p : got) p *= shrink;
    got.insert(got.end(), row.begin() + static_cast<ptrdiff_t>(begin),
               row.begin() + static_cast<ptrdiff_t>(begin) + 64);
  }
  for (size_t i = 0; i < scores.size(); ++i) {
    EXPECT_NEAR(got[i] / state.sum, i < kVisible ? std::exp(double{scores[i]}) / sum : 0, 1e-6) << i;
  }
}

TEST(KernelsTest, ARowThatSeesNothingOfABlockIsLeftAsItWas) {
  std::vector<float> scores(64, 5.0f);
  SoftmaxState state{.max = 1.0f, .sum = 3.0f};
  EXPECT_EQ(SoftmaxBlock(scores.data(), 0, 64, state), 1.0f);
  EXPECT_EQ(state.max, 1.0f);
  EXPECT_EQ(state.sum, 3.0f);
  EXPECT_EQ(scores, std::vector<float>(64, 0.0f));
}

TEST(WorkersTest, EveryPieceIsDoneOnce) {
  for (const size_t threads : {1u, 2u, 5u}) {
    Workers workers(threads);
    for (const size_t pieces : {0u, 1u, 2u, 100u}) {
      std::vector<int> done(pieces, 0);
      workers.Run(pieces, [&](size_t piece, size_t worker) {
        EXPECT_LT(worker, threads);
        ++done[piece];
      });
      EXPECT_EQ(done, std::vector<int>(pieces, 1));
    }
  }
}

TEST(TokenizerTest, EveryByteIsATokenAndComesBack) {
  std::string text;
  for (int i = 0; i < 256; ++i) text.push_back(static_cast<char>(i));
  const std::vector<Token> tokens = EncodeText(text);
  ASSERT_EQ(tokens.size(), 256u);
  EXPECT_EQ(tokens[200], 200u);
  EXPECT_EQ(DecodeTokens(tokens), text);
}

TEST(TokenizerTest, BosComesFirstAndStandsForNoText) {
  const std::vector<Token> tokens = EncodeText("ab", /*with_bos=*/true);
  EXPECT_EQ(tokens, (std::vector<Token>{kBosToken, 'a', 'b'}));
  EXPECT_EQ(DecodeTokens(tokens), "ab");
}

}  // namespace
}  // namespace kdn::engine
