#include "storage/format/quantise.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/storage/format/lossy/lossy_inputs.h"

namespace kdn {
namespace {

TEST(PackCodesTest, EveryCodeComesBackFromItsPlaceInTheBlock) {
  std::mt19937 random(1);
  for (const int bits : {4, 7}) {
    for (const size_t blocks : {1u, 3u}) {
      Bytes codes(blocks * kCodesPerBlock);
      for (uint8_t& code : codes) code = static_cast<uint8_t>(random() % (1u << bits));
      Bytes packed(PackedSize(bits, codes.size())), unpacked(codes.size());
      PackCodes(bits, codes.data(), codes.size(), packed.data());
      UnpackCodes(bits, packed.data(), codes.size(), unpacked.data());
      EXPECT_EQ(unpacked, codes);
      // The definition, at a few places.
      const uint8_t* const block = codes.data();
      for (const size_t i : {0u, 1u, 17u, 31u}) {
        if (bits == 4) {
          EXPECT_EQ(packed[2 * 32 + i], block[2 * 32 + i] | block[6 * 32 + i] << 4);
        } else {
          EXPECT_EQ(packed[5 * 32 + i], block[5 * 32 + i] | (block[7 * 32 + i] >> 5 & 1) << 7);
        }
      }
    }
  }
}

TEST(StepTest, TheLeastStepIsAtLeastWhatWasAskedForAndAtMostAnEighthMore) {
  std::mt19937 random(2);
  for (int i = 0; i < 10000; ++i) {
    const float x = std::ldexp(1 + static_cast<float>(random() % 4096) / 4096, static_cast<int>(random() % 200) - 99);
    const float step = StepFromCode(StepCodeAtLeast(x));
    ASSERT_GE(step, x);
    ASSERT_LE(step, x * 1.125F);
  }
}

// Through load and dequantise with step 1 and the value as offset: all that is left is the rounding to the type.
TEST(DequantiseTest, RoundsToTheNearestOfTheTypeTiesToEven) {
  for (const DType dtype : kFloatTypes) {
    std::mt19937 random(3);
    std::vector<float> offsets(kTile), steps(kTile, 1);
    const Bytes codes(kTile);
    Bytes words(kTile * DTypeSize(dtype));
    for (int turn = 0; turn < 2000; ++turn) {
      for (float& x : offsets) {
        x = std::ldexp(static_cast<float>(random() % 8192), static_cast<int>(random() % 34) - 30);
        if (random() % 2 == 0) x = -x;
      }
      DequantiseRow(dtype, codes.data(), kTile, 0, Spread::kPerColumn, steps.data(), offsets.data(), words.data());
      for (size_t i = 0; i < kTile; ++i) {
        const double y = ValueOf(dtype, &words[i * DTypeSize(dtype)]);
        const double ulp = UlpOf(dtype, offsets[i]);
        if (std::abs(offsets[i]) >= 65504 && dtype == DType::kF16) continue;
        ASSERT_EQ(y, std::nearbyint(offsets[i] / ulp) * ulp) << DTypeName(dtype) << " " << offsets[i];
      }
    }
  }
}

TEST(LoadTileTest, EveryHalfIsReadAsItsDefinitionSaysAndPaddingIsNoNumber) {
  for (const DType dtype : {DType::kBf16, DType::kF16}) {
    for (uint32_t first = 0; first < 65536; first += 30 * 31) {
      Bytes words(30 * 31 * 2);
      for (uint32_t i = 0; i < 30 * 31; ++i) StoreLe(static_cast<uint16_t>(first + i), &words[2 * i]);
      float tile[kTile * kTile];
      LoadTile(dtype, words.data(), 31 * 2, 30, 31, tile);
      for (size_t r = 0; r < kTile; ++r) {
        for (size_t c = 0; c < kTile; ++c) {
          const float x = tile[r * kTile + c];
          if (r >= 30 || c >= 31) {
            ASSERT_TRUE(std::isnan(x));
            continue;
          }
          const double expected = ValueOf(dtype, &words[2 * (r * 31 + c)]);
          if (std::isnan(expected)) {
            ASSERT_TRUE(std::isnan(x));
          } else {
            ASSERT_EQ(x, expected);
          }
        }
      }
    }
  }
}

TEST(ColumnExtremesTest, AreTheTwoLargestAndSmallestThatCanBeQuantised) {
  float tile[kTile * kTile] = {};
  for (size_t r = 0; r < kTile; ++r) tile[r * kTile + 3] = static_cast<float>(r);
  tile[5 * kTile + 3] = NAN;
  tile[31 * kTile + 3] = INFINITY;
  tile[0 * kTile + 3] = -3e38F;
  ColumnExtremes extremes;
  FindColumnExtremes(tile, kTile, QuantisableLimit(DType::kBf16), extremes);
  EXPECT_EQ(extremes.max[3], 30);
  EXPECT_EQ(extremes.second_max[3], 29);
  EXPECT_EQ(extremes.min[3], 1);
  EXPECT_EQ(extremes.second_min[3], 2);
  EXPECT_EQ(extremes.max[4], 0);
  EXPECT_EQ(extremes.second_min[4], 0);
}

}  // namespace
}  // namespace kdn
