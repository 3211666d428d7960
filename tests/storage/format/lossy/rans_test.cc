#include "storage/format/rans.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "tests/storage/format/codec_inputs.h"

namespace kdn {
namespace {

struct RansCoded {
  RansModel model;
  Bytes symbols;
  size_t rows;
  std::string payload;
};

// Columns spread differently, each class with the distribution of its own symbols.
RansCoded Encode(size_t rows, size_t columns, const std::vector<double>& spreads, uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  RansCoded coded;
  coded.rows = rows;
  coded.symbols.resize(rows * columns);
  coded.model.distribution_of_column.resize(columns);
  std::vector<std::array<uint32_t, 256>> counts(spreads.size());
  for (size_t i = 0; i < coded.symbols.size(); ++i) {
    const size_t c = i % columns % spreads.size();
    coded.model.distribution_of_column[i % columns] = static_cast<uint8_t>(c);
    coded.symbols[i] = static_cast<uint8_t>(std::clamp(std::lrint(128 + spreads[c] * normal(random)), 0L, 255L));
    ++counts[c][coded.symbols[i]];
  }
  for (const auto& count : counts) coded.model.distributions.push_back(NormaliseFrequencies(count));
  ByteWriter out;
  RansEncode(coded.model, coded.symbols.data(), rows, out);
  coded.payload = out.written();
  return coded;
}

absl::Status Decode(const RansCoded& coded, std::string_view payload, Bytes& symbols) {
  symbols.assign(coded.symbols.size(), 0xA5);
  ByteReader in(AsBytes(payload));
  return RansDecode(coded.model, coded.rows, in, symbols.data());
}

TEST(RansTest, SymbolsComeBackWhateverTheirSpread) {
  for (const size_t rows : {0u, 1u, 2u, 255u}) {
    for (const size_t columns : {32u, 64u, 544u}) {
      const RansCoded coded = Encode(rows, columns, {0, 0.3, 2, 40, 300});
      Bytes symbols;
      ASSERT_TRUE(Decode(coded, coded.payload, symbols).ok()) << rows << " x " << columns;
      EXPECT_EQ(symbols, coded.symbols);
    }
  }
}

TEST(RansTest, TheSizeIsTheEntropyAndAConstantCostsNothing) {
  const RansCoded coded = Encode(2000, 64, {3});
  const double entropy = std::log2(3 * std::sqrt(2 * M_PI * M_E));
  const double head = 32 * 8;
  EXPECT_LT(static_cast<double>(coded.payload.size()) - head, 2000 * 64 * (entropy + 0.03) / 8);
  EXPECT_EQ(Encode(5000, 32, {0}).payload.size(), head);
}

TEST(RansTest, TruncationsAndFlippedBitsAreRefused) {
  const RansCoded coded = Encode(9, 64, {1, 5});
  Bytes symbols;
  for (size_t n = 0; n < coded.payload.size(); ++n) {
    ASSERT_EQ(Decode(coded, std::string(coded.payload, 0, n), symbols).code(), absl::StatusCode::kDataLoss) << n;
  }
  size_t unnoticed = 0;
  for (size_t bit = 0; bit < coded.payload.size() * 8; ++bit) {
    std::string flipped = coded.payload;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ 1 << bit % 8);
    unnoticed += Decode(coded, flipped, symbols).ok() ? 1 : 0;
  }
  // Now and then another payload of other symbols comes out; that is what checksums are for.
  EXPECT_LT(unnoticed, coded.payload.size() / 10);
}

TEST(RansTest, FrequenciesAddUpAndEverySymbolThatOccursHasOne) {
  std::mt19937 random(5);
  for (int turn = 0; turn < 300; ++turn) {
    std::array<uint32_t, 256> counts{};
    for (uint32_t& n : counts) n = random() % 3 == 0 ? 0 : static_cast<uint32_t>(random() >> random() % 32);
    const RansFrequencies frequencies = NormaliseFrequencies(counts);
    EXPECT_EQ(std::accumulate(frequencies.begin(), frequencies.end(), 0u), kRansScale);
    for (size_t s = 0; s < 256; ++s) ASSERT_EQ(frequencies[s] != 0, counts[s] != 0);
  }
}

}  // namespace
}  // namespace kdn
