#include "storage/format/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "storage/base/status.h"
#include "tests/storage/format/codec_inputs.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

TEST(FindCodecTest, KnownOnesAreFoundByNumberAndName) {
  for (const Codec* codec : AllCodecs()) {
    EXPECT_EQ(FindCodec(codec->id()).value(), codec);
    EXPECT_EQ(FindCodec(codec->name()).value(), codec);
  }
  EXPECT_EQ(FindCodec(CodecId::kRaw).value()->name(), "raw");
  EXPECT_EQ(FindCodec(CodecId::kZstd).value()->name(), "zstd");
}

TEST(FindCodecTest, AnUnknownOneIsRefusedByWhatItWasCalled) {
  const absl::Status by_number = FindCodec(static_cast<CodecId>(77)).status();
  EXPECT_EQ(by_number.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(MessageOf(by_number), HasSubstr("77"));
  const absl::Status by_name = FindCodec("lz4").status();
  EXPECT_EQ(by_name.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(by_name), HasSubstr("\"lz4\"; there are: raw, zstd"));
}

// What holds for every codec that promises exactness.
class ExactCodecTest : public ::testing::TestWithParam<const Codec*> {
 protected:
  const Codec& codec() const { return *GetParam(); }

  void ExpectRoundTrip(const SlabShape& shape, const Bytes& raw) const {
    absl::StatusOr<Buffer> encoded = codec().Encode(shape, SlabKind::kK, raw);
    ASSERT_TRUE(encoded.ok()) << encoded.status();
    Bytes decoded(raw.size(), 0xa5);
    const absl::Status status = codec().Decode(shape, SlabKind::kK, encoded->span(), decoded);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_TRUE(decoded == raw) << shape.tokens << " x " << shape.heads << " x " << shape.dim << " "
                                << DTypeName(shape.dtype);
  }
};

TEST_P(ExactCodecTest, AllTypesAndOddShapesComeBackBitForBit) {
  EXPECT_EQ(codec().fidelity(), Fidelity::kExact);
  const std::vector<SlabShape> shapes = {{1, 1, 1},  {1, 1, 2},  {1, 3, 5},    {3, 1, 1},     {7, 3, 31},
                                         {1, 8, 64}, {2, 1, 63}, {255, 5, 33}, {256, 8, 128}, {1, 1, 65536}};
  for (const DType dtype : kAllDTypes) {
    for (SlabShape shape : shapes) {
      shape.dtype = dtype;
      ExpectRoundTrip(shape, RandomBytes(shape.RawSize()));
      ExpectRoundTrip(shape, Bytes(shape.RawSize()));
      ExpectRoundTrip(shape, Bytes(shape.RawSize(), 0xff));
    }
  }
}

TEST_P(ExactCodecTest, PieceBoundariesComeBackBitForBit) {
  for (const uint32_t elements : {131071u, 131072u, 131073u, 262143u, 262145u}) {
    uint32_t heads = 1;
    while (elements / heads > kMaxHeadDim || elements % heads != 0) ++heads;
    if (heads > kMaxHeads) continue;  // a prime: no shape has that many elements
    const SlabShape shape{1, heads, elements / heads, DType::kBf16};
    ExpectRoundTrip(shape, GaussianBf16(shape));
    ExpectRoundTrip(shape, RandomBytes(shape.RawSize()));
  }
}

TEST_P(ExactCodecTest, NansInfinitiesAndDenormalsComeBackBitForBit) {
  for (const DType dtype : {DType::kBf16, DType::kF16}) {
    const SlabShape shape{256, 1, 256, dtype};  // every 16-bit word
    Bytes raw(shape.RawSize());
    for (size_t i = 0; i < raw.size() / 2; ++i) StoreLe(static_cast<uint16_t>(i), &raw[2 * i]);
    ExpectRoundTrip(shape, raw);
  }
  const SlabShape shape{1, 1, 8, DType::kF32};
  Bytes raw;
  for (const uint32_t bits : {0x7f800000u, 0xff800000u, 0x7fc00001u, 0x7f800001u, 1u, 0x80000001u, 0x80000000u, 0u}) {
    raw.resize(raw.size() + 4);
    StoreLe(bits, &raw[raw.size() - 4]);
  }
  ExpectRoundTrip(shape, raw);
}

TEST_P(ExactCodecTest, AnUnalignedDestinationIsAsGood) {
  const SlabShape shape{16, 2, 64, DType::kBf16};
  const Bytes raw = GaussianBf16(shape);
  Buffer encoded = codec().Encode(shape, SlabKind::kV, raw).value();
  Bytes shifted(encoded.size() + 1);
  std::copy(encoded.span().begin(), encoded.span().end(), shifted.begin() + 1);
  Bytes decoded(raw.size() + 1);
  ASSERT_TRUE(
      codec().Decode(shape, SlabKind::kV, ByteSpan(shifted).subspan(1), MutableByteSpan(decoded).subspan(1)).ok());
  EXPECT_TRUE(std::equal(raw.begin(), raw.end(), decoded.begin() + 1));
}

TEST_P(ExactCodecTest, SizesThatDoNotFitTheShapeAreRefused) {
  const SlabShape shape{2, 2, 8, DType::kBf16};
  Bytes raw(shape.RawSize() + 1);
  Buffer encoded = codec().Encode(shape, SlabKind::kK, ByteSpan(raw).first(shape.RawSize())).value();
  for (const size_t size : {size_t{0}, raw.size() - 2, raw.size()}) {
    const MutableByteSpan wrong = MutableByteSpan(raw).first(size);
    EXPECT_EQ(codec().Encode(shape, SlabKind::kK, wrong).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(codec().Decode(shape, SlabKind::kK, encoded.span(), wrong).code(), absl::StatusCode::kInvalidArgument);
  }
  // Sizes whose product is 0 modulo 2^64.
  const SlabShape overflowing{0x80000000u, 0x80000000u, 4, DType::kF32};
  EXPECT_EQ(overflowing.RawSize(), 0u);
  EXPECT_EQ(codec().Encode(overflowing, SlabKind::kK, {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(codec().Decode(overflowing, SlabKind::kK, {}, {}).code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(ExactCodecTest, EveryTruncationIsRefusedByTheDecoderItself) {
  for (const DType dtype : kAllDTypes) {
    const SlabShape shape{3, 2, 16, dtype};
    Buffer encoded = codec().Encode(shape, SlabKind::kK, Bytes(shape.RawSize(), 7)).value();
    Bytes decoded(shape.RawSize());
    for (size_t n = 0; n < encoded.size(); ++n) {
      // A copy of its own, so that AddressSanitizer sees a read beyond the cut.
      const Bytes cut(encoded.data(), encoded.data() + n);
      EXPECT_EQ(codec().Decode(shape, SlabKind::kK, cut, decoded).code(), absl::StatusCode::kDataLoss) << n;
    }
    Bytes longer(encoded.data(), encoded.data() + encoded.size());
    longer.push_back(0);
    EXPECT_EQ(codec().Decode(shape, SlabKind::kK, longer, decoded).code(), absl::StatusCode::kDataLoss);
  }
}

// Two walls: the checksum that every reader compares first sees each flip, and a decoder that is handed the bytes all
// the same returns (with an error or with other values), inside its two spans.
TEST_P(ExactCodecTest, EveryFlippedBitFailsTheChecksumAndLeavesTheDecoderSafe) {
  for (const DType dtype : {DType::kBf16, DType::kF8E4M3}) {
    const SlabShape shape{8, 2, 32, dtype};
    const Bytes raw = dtype == DType::kBf16 ? GaussianBf16(shape) : Bytes(shape.RawSize(), 3);
    Buffer encoded = codec().Encode(shape, SlabKind::kK, raw).value();
    const uint64_t checksum = SlabChecksum(encoded.span());
    Bytes decoded(shape.RawSize());
    for (size_t bit = 0; bit < encoded.size() * 8; ++bit) {
      Bytes flipped(encoded.data(), encoded.data() + encoded.size());
      flipped[bit / 8] = static_cast<uint8_t>(flipped[bit / 8] ^ 1 << bit % 8);
      EXPECT_NE(SlabChecksum(flipped), checksum) << bit;
      const absl::Status status = codec().Decode(shape, SlabKind::kK, flipped, decoded);
      EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kDataLoss) << bit << ": " << status;
    }
  }
}

TEST_P(ExactCodecTest, ThreadsDoNotShareScratch) {
  std::vector<std::thread> threads;
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    threads.emplace_back([this, seed] {
      const SlabShape shape{16, 4, 64 + seed, DType::kBf16};
      for (uint32_t i = 0; i < 8; ++i) ExpectRoundTrip(shape, GaussianBf16(shape, 100 * seed + i));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

std::vector<const Codec*> ExactCodecs() {
  std::vector<const Codec*> exact;
  for (const Codec* codec : AllCodecs()) {
    if (codec->fidelity() == Fidelity::kExact) exact.push_back(codec);
  }
  return exact;
}

INSTANTIATE_TEST_SUITE_P(Codecs, ExactCodecTest, ::testing::ValuesIn(ExactCodecs()),
                         [](const auto& codec) { return std::string(codec.param->name()); });

}  // namespace
}  // namespace kdn
