// What holds for every lossy codec, and what is promised for each.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "storage/base/status.h"
#include "storage/format/codec.h"
#include "tests/storage/format/lossy/lossy_inputs.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

const Codec& CodecOf(CodecId id) { return *FindCodec(id).value(); }

struct Coded {
  size_t size = 0;
  Bytes decoded;
};

Coded RoundTrip(const Codec& codec, const SlabShape& shape, SlabKind kind, const Bytes& raw,
                const EncodeHints& hints = kMiddle) {
  absl::StatusOr<Buffer> encoded = codec.Encode(shape, kind, raw, hints);
  EXPECT_TRUE(encoded.ok()) << encoded.status();
  Coded coded{encoded->size(), Bytes(raw.size(), 0xA5)};
  const absl::Status status = codec.Decode(shape, kind, encoded->span(), coded.decoded);
  EXPECT_TRUE(status.ok()) << status;
  return coded;
}

double RelativeError(const SlabShape& shape, const Bytes& raw, const Bytes& decoded) {
  const std::vector<double> x = Values(shape, raw), y = Values(shape, decoded);
  double error = 0, signal = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    error += (x[i] - y[i]) * (x[i] - y[i]);
    signal += x[i] * x[i];
  }
  return std::sqrt(error / signal);
}

class LossyCodecTest : public ::testing::TestWithParam<CodecId> {
 protected:
  const Codec& codec() const { return CodecOf(GetParam()); }
};

TEST_P(LossyCodecTest, IsNeverTakenForExact) { EXPECT_EQ(codec().fidelity(), Fidelity::kQuantised); }

TEST_P(LossyCodecTest, EveryShapeTypeAndKindComesBackCloseToWhatItWas) {
  const std::vector<SlabShape> shapes = {{1, 1, 1},   {2, 1, 1},   {1, 8, 64}, {5, 1, 3},    {31, 3, 20},
                                         {33, 1, 80}, {64, 2, 32}, {65, 5, 7}, {257, 2, 40}, {300, 1, 1}};
  for (const DType dtype : kFloatTypes) {
    for (const SlabKind kind : {SlabKind::kK, SlabKind::kV, SlabKind::kLatent}) {
      for (SlabShape shape : shapes) {
        shape.dtype = dtype;
        const Bytes raw = KvLikeSlab(shape);
        for (const uint32_t first_token : {0u, 256u}) {
          const Coded coded = RoundTrip(codec(), shape, kind, raw, {.first_token = first_token});
          ASSERT_LT(RelativeError(shape, raw, coded.decoded), 0.15)
              << shape.tokens << " x " << shape.heads << " x " << shape.dim << " " << DTypeName(dtype);
          ASSERT_LE(coded.size, raw.size() + 3);
        }
      }
    }
  }
}

TEST_P(LossyCodecTest, TheFirstTokenOfASegmentIsExactAndOthersNeedNotBe) {
  const SlabShape shape{64, 2, 64, DType::kBf16};
  const Bytes raw = KvLikeSlab(shape);
  const size_t row = raw.size() / shape.tokens;
  for (const SlabKind kind : {SlabKind::kK, SlabKind::kV}) {
    const Coded first = RoundTrip(codec(), shape, kind, raw, {.first_token = 0});
    EXPECT_TRUE(std::equal(raw.begin(), raw.begin() + static_cast<ptrdiff_t>(row), first.decoded.begin()));
    const Coded later = RoundTrip(codec(), shape, kind, raw, {.first_token = 64});
    EXPECT_FALSE(std::equal(raw.begin(), raw.begin() + static_cast<ptrdiff_t>(row), later.decoded.begin()));
  }
}

TEST_P(LossyCodecTest, NansInfinitiesAndHugeValuesComeBackBitForBit) {
  for (const DType dtype : kFloatTypes) {
    const SlabShape shape{70, 1, 48, dtype};
    Bytes raw = KvLikeSlab(shape);
    const size_t word = DTypeSize(dtype);
    std::vector<size_t> special;
    for (size_t i = 7; i < raw.size() / word; i += 97) special.push_back(i);
    const auto largest = dtype == DType::kF16 ? 65504.0F : std::numeric_limits<float>::max();
    for (size_t n = 0; n < special.size(); ++n) {
      uint8_t* const to = &raw[special[n] * word];
      if (n % 4 == 0) PutValue(dtype, n % 8 == 0 ? largest : -largest, to);
      if (n % 4 == 1) PutValue(dtype, std::numeric_limits<float>::infinity(), to);
      if (n % 4 == 2) std::fill_n(to, word, uint8_t{0xFF});  // a NaN whose payload counts
      if (n % 4 == 3) PutValue(dtype, -std::numeric_limits<float>::infinity(), to);
    }
    for (const SlabKind kind : {SlabKind::kK, SlabKind::kV}) {
      const Coded coded = RoundTrip(codec(), shape, kind, raw);
      const std::vector<double> x = Values(shape, raw), y = Values(shape, coded.decoded);
      for (size_t i = 0; i < x.size(); ++i) {
        if (std::binary_search(special.begin(), special.end(), i)) {
          ASSERT_TRUE(std::equal(&raw[i * word], &raw[i * word] + word, &coded.decoded[i * word]))
              << DTypeName(dtype) << " " << x[i] << " became " << y[i];
        } else {
          ASSERT_LT(std::abs(x[i] - y[i]), 2) << DTypeName(dtype) << ": a special value spoils its neighbours";
        }
      }
    }
  }
}

TEST_P(LossyCodecTest, EveryWordOfSixteenBitsIsTakenAndNoFiniteValueTurnsNonFinite) {
  for (const DType dtype : {DType::kBf16, DType::kF16}) {
    const SlabShape shape{256, 1, 256, dtype};
    Bytes raw(shape.RawSize());
    for (size_t i = 0; i < raw.size() / 2; ++i) StoreLe(static_cast<uint16_t>(i * 40503), &raw[2 * i]);
    for (const SlabKind kind : {SlabKind::kK, SlabKind::kV}) {
      const Coded coded = RoundTrip(codec(), shape, kind, raw);
      const std::vector<double> x = Values(shape, raw), y = Values(shape, coded.decoded);
      for (size_t i = 0; i < x.size(); ++i) {
        ASSERT_EQ(std::isfinite(x[i]), std::isfinite(y[i])) << x[i] << " became " << y[i];
        if (!std::isfinite(x[i])) {
          ASSERT_EQ(LoadLe<uint16_t>(&raw[2 * i]), LoadLe<uint16_t>(&coded.decoded[2 * i]));
        }
      }
    }
  }
}

TEST_P(LossyCodecTest, ConstantChannelsAndZerosCostNextToNothing) {
  const SlabShape shape{256, 4, 64, DType::kBf16};
  const Bytes zeros(shape.RawSize());
  const Coded zero = RoundTrip(codec(), shape, SlabKind::kK, zeros);
  for (const double y : Values(shape, zero.decoded)) ASSERT_LE(std::abs(y), 1e-29);
  EXPECT_LT(zero.size, zeros.size() / 60);
  const Bytes channels = MakeSlab(shape, [](size_t, size_t c) { return 0.375F * static_cast<float>(c % 7) - 1; });
  const Coded constant = RoundTrip(codec(), shape, SlabKind::kK, channels);
  EXPECT_LT(constant.size, channels.size() / 20);
  EXPECT_LT(RelativeError(shape, channels, constant.decoded), 1e-3);
}

TEST_P(LossyCodecTest, DenormalsAndTinyValuesStayTiny) {
  for (const DType dtype : kFloatTypes) {
    const SlabShape shape{40, 1, 40, dtype};
    Bytes raw(shape.RawSize());
    const size_t word = DTypeSize(dtype);
    for (size_t i = 0; i < raw.size() / word; ++i) {
      raw[i * word] = static_cast<uint8_t>(i);  // a denormal: only the lowest bits of the mantissa
    }
    const Coded coded = RoundTrip(codec(), shape, SlabKind::kV, raw);
    for (const double y : Values(shape, coded.decoded)) ASSERT_LE(std::abs(y), 1e-4);
  }
}

TEST_P(LossyCodecTest, EveryTruncationIsRefused) {
  for (const DType dtype : kFloatTypes) {
    for (const SlabKind kind : {SlabKind::kK, SlabKind::kV}) {
      const SlabShape shape{40, 2, 16, dtype};
      const Bytes raw = KvLikeSlab(shape);
      const Buffer encoded = codec().Encode(shape, kind, raw, {}).value();
      Bytes decoded(raw.size());
      for (size_t n = 0; n < encoded.size(); ++n) {
        const Bytes cut(encoded.data(), encoded.data() + n);
        ASSERT_EQ(codec().Decode(shape, kind, cut, decoded).code(), absl::StatusCode::kDataLoss) << n;
      }
      Bytes longer(encoded.data(), encoded.data() + encoded.size());
      longer.push_back(0);
      EXPECT_EQ(codec().Decode(shape, kind, longer, decoded).code(), absl::StatusCode::kDataLoss);
    }
  }
}

// A checksum stands before the decoder; this is the wall behind it. Run under AddressSanitizer by `./dev san asan`.
TEST_P(LossyCodecTest, FlippedBitsNeverLeadOutsideTheSpans) {
  const SlabShape shape{34, 2, 20, DType::kBf16};
  for (const SlabKind kind : {SlabKind::kK, SlabKind::kV}) {
    Bytes raw = KvLikeSlab(shape);
    StoreLe(uint16_t{0x7FC1}, &raw[600]);  // so that there is an exact value
    const Buffer encoded = codec().Encode(shape, kind, raw, {}).value();
    Bytes decoded(raw.size());
    for (size_t bit = 0; bit < encoded.size() * 8; ++bit) {
      Bytes flipped(encoded.data(), encoded.data() + encoded.size());
      flipped[bit / 8] = static_cast<uint8_t>(flipped[bit / 8] ^ 1 << bit % 8);
      const absl::Status status = codec().Decode(shape, kind, flipped, decoded);
      ASSERT_TRUE(status.ok() || status.code() == absl::StatusCode::kDataLoss) << bit << ": " << status;
    }
  }
}

TEST_P(LossyCodecTest, GarbageAfterASoundHeadIsRefusedOrDecodedInsideTheSpans) {
  const SlabShape shape{34, 2, 20, DType::kF16};
  Bytes decoded(shape.RawSize());
  for (uint32_t seed = 0; seed < 500; ++seed) {
    Bytes garbage = RandomBytes(1 + seed * 7 % 900, seed);
    const uint8_t head[] = {1, 1, 0, 0, static_cast<uint8_t>(4 + seed % 3)};
    for (size_t i = 0; i < std::min(garbage.size(), sizeof head); ++i) garbage[i] = head[i];
    const absl::Status status = codec().Decode(shape, SlabKind::kK, garbage, decoded);
    ASSERT_EQ(status.code(), absl::StatusCode::kDataLoss) << seed;
  }
}

TEST_P(LossyCodecTest, TypesThatAreQuantisedAlreadyAreRefusedByName) {
  const SlabShape shape{4, 1, 8, DType::kF8E4M3};
  const Bytes raw(shape.RawSize());
  const absl::Status status = codec().Encode(shape, SlabKind::kK, raw).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(status), HasSubstr("zstd or raw"));
}

TEST_P(LossyCodecTest, SizesThatDoNotFitTheShapeAreRefused) {
  const SlabShape shape{2, 2, 8, DType::kBf16};
  Bytes raw(shape.RawSize() + 1);
  const Buffer encoded = codec().Encode(shape, SlabKind::kK, ByteSpan(raw).first(shape.RawSize())).value();
  for (const size_t size : {size_t{0}, raw.size() - 2, raw.size()}) {
    const MutableByteSpan wrong = MutableByteSpan(raw).first(size);
    EXPECT_EQ(codec().Encode(shape, SlabKind::kK, wrong).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(codec().Decode(shape, SlabKind::kK, {encoded.data(), encoded.size()}, wrong).code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST_P(LossyCodecTest, UnalignedBytesAreAsGood) {
  const SlabShape shape{33, 2, 33, DType::kBf16};
  const Bytes raw = KvLikeSlab(shape);
  Bytes shifted(raw.size() + 1);
  std::copy(raw.begin(), raw.end(), shifted.begin() + 1);
  const Coded expected = RoundTrip(codec(), shape, SlabKind::kV, raw);
  const Buffer encoded = codec().Encode(shape, SlabKind::kV, ByteSpan(shifted).subspan(1), kMiddle).value();
  Bytes payload(encoded.size() + 1), decoded(raw.size() + 1);
  std::copy(encoded.data(), encoded.data() + encoded.size(), payload.begin() + 1);
  ASSERT_TRUE(
      codec().Decode(shape, SlabKind::kV, ByteSpan(payload).subspan(1), MutableByteSpan(decoded).subspan(1)).ok());
  EXPECT_TRUE(std::equal(expected.decoded.begin(), expected.decoded.end(), decoded.begin() + 1));
}

// In a model's first layer a token's value does not depend on where it stands. If all its occurrences erred alike,
// attention over many of them would see the error undiminished.
TEST_P(LossyCodecTest, ErrorsOfEqualTokensCancel) {
  const SlabShape shape{256, 2, 64, DType::kF32};
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  constexpr size_t kTokens = 5;
  std::vector<float> rows(kTokens * 128);
  for (float& x : rows) x = normal(random);
  const Bytes raw = MakeSlab(shape, [&](size_t t, size_t c) { return rows[t % kTokens * 128 + c]; });
  const Coded coded = RoundTrip(codec(), shape, SlabKind::kV, raw);
  const std::vector<double> x = Values(shape, raw), y = Values(shape, coded.decoded);
  double squares = 0, square_of_means = 0;
  for (size_t token = 0; token < kTokens; ++token) {
    for (size_t c = 0; c < 128; ++c) {
      double sum = 0, n = 0;
      for (size_t t = token; t < shape.tokens; t += kTokens, ++n) {
        const double error = y[t * 128 + c] - x[t * 128 + c];
        sum += error;
        squares += error * error / static_cast<double>(x.size());
      }
      square_of_means += (sum / n) * (sum / n) / (kTokens * 128);
    }
  }
  EXPECT_LT(square_of_means, squares / 20);
}

INSTANTIATE_TEST_SUITE_P(Codecs, LossyCodecTest, ::testing::Values(CodecId::kQ8, CodecId::kQ4, CodecId::kCacheGen),
                         [](const auto& id) { return std::string(CodecOf(id.param).name()); });

// --- q8 and q4 -------------------------------------------------------------------------------------------------------

struct GroupCodec {
  CodecId id;
  int levels;
};

class GroupCodecTest : public ::testing::TestWithParam<GroupCodec> {};

// A step is at most 9/8 of range / (levels - 1): that fits, and steps are 9/8 apart or closer.
TEST_P(GroupCodecTest, NoValueIsOffByMoreThanHalfItsGroupsStep) {
  for (const DType dtype : kFloatTypes) {
    for (const SlabShape shape : {SlabShape{100, 2, 40, dtype}, SlabShape{64, 1, 64, dtype}}) {
      const Bytes raw = KvLikeSlab(shape);
      const std::vector<double> x = Values(shape, raw);
      const size_t columns = size_t{shape.heads} * shape.dim;
      for (const SlabKind kind : {SlabKind::kK, SlabKind::kV}) {
        const Coded coded = RoundTrip(CodecOf(GetParam().id), shape, kind, raw);
        const std::vector<double> y = Values(shape, coded.decoded);
        for (size_t t = 0; t < shape.tokens; ++t) {
          for (size_t c = 0; c < columns; ++c) {
            double low = x[t * columns + c], high = low, largest = 0;
            for (size_t i = 0; i < 32; ++i) {
              const size_t row = kind == SlabKind::kK ? t / 32 * 32 + i : t;
              const size_t column = kind == SlabKind::kK ? c : c / 32 * 32 + i;
              if (row >= shape.tokens || column >= columns) continue;
              low = std::min(low, x[row * columns + column]);
              high = std::max(high, x[row * columns + column]);
            }
            largest = std::max(std::abs(low), std::abs(high));
            const double step = std::max((high - low) / (GetParam().levels - 1), largest / 1024) * 9 / 8;
            const double at = y[t * columns + c];
            ASSERT_LE(std::abs(x[t * columns + c] - at), step / 2 * 1.0001 + UlpOf(dtype, at) / 2)
                << DTypeName(dtype) << " token " << t << " column " << c;
          }
        }
      }
    }
  }
}

TEST_P(GroupCodecTest, OneOutlierDoesNotCoarsenItsGroup) {
  const SlabShape shape{64, 1, 64, DType::kBf16};
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const Bytes raw = MakeSlab(shape, [&](size_t t, size_t c) { return t == 40 && c == 9 ? 500 : normal(random); });
  for (const SlabKind kind : {SlabKind::kK, SlabKind::kV}) {
    const Coded coded = RoundTrip(CodecOf(GetParam().id), shape, kind, raw);
    const std::vector<double> x = Values(shape, raw), y = Values(shape, coded.decoded);
    EXPECT_EQ(y[40 * 64 + 9], x[40 * 64 + 9]);
    for (size_t i = 0; i < x.size(); ++i) ASSERT_LT(std::abs(x[i] - y[i]), 4.0 / (GetParam().levels - 1));
  }
}

INSTANTIATE_TEST_SUITE_P(Codecs, GroupCodecTest,
                         ::testing::Values(GroupCodec{CodecId::kQ8, 128}, GroupCodec{CodecId::kQ4, 16}),
                         [](const auto& codec) { return std::string(CodecOf(codec.param.id).name()); });

// --- What the codecs are chosen for ---------------------------------------------------------------------------------

TEST(LossyRatioTest, KvLikeSlabsShrinkAsMuchAsPromised) {
  const SlabShape shape{256, 8, 64, DType::kBf16};
  const Bytes raw = KvLikeSlab(shape);
  for (const SlabKind kind : {SlabKind::kK, SlabKind::kV}) {
    const auto ratio = [&](CodecId id) {
      return static_cast<double>(raw.size()) /
             static_cast<double>(RoundTrip(CodecOf(id), shape, kind, raw, {.layer = 3, .layer_count = 8}).size);
    };
    EXPECT_GE(ratio(CodecId::kQ8), 2.1);
    EXPECT_GE(ratio(CodecId::kQ4), 3.6);
    EXPECT_GE(ratio(CodecId::kCacheGen), 4.0);
  }
}

TEST(CacheGenTest, EarlyLayersAndKeysGetMoreBits) {
  const SlabShape shape{256, 4, 64, DType::kBf16};
  const Bytes raw = KvLikeSlab(shape);
  const auto size = [&](SlabKind kind, uint32_t layer) {
    return RoundTrip(CodecOf(CodecId::kCacheGen), shape, kind, raw, {.layer = layer, .layer_count = 9}).size;
  };
  EXPECT_GT(size(SlabKind::kK, 0), size(SlabKind::kK, 4));
  EXPECT_GT(size(SlabKind::kK, 4), size(SlabKind::kK, 8));
  EXPECT_GT(size(SlabKind::kK, 0), size(SlabKind::kV, 0));
}

}  // namespace
}  // namespace kdn
