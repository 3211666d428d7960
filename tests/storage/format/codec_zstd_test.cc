// What is particular to the zstd codec: how much it saves, and that its decoder takes nothing but what
// docs/formats.md describes, although zstd itself would take more.
#include <gtest/gtest.h>
#include <zstd.h>

#include "storage/base/status.h"
#include "storage/format/codec.h"
#include "tests/storage/format/codec_inputs.h"

namespace kdn {
namespace {

const Codec& Zstd() { return *FindCodec(CodecId::kZstd).value(); }

size_t EncodedSize(const SlabShape& shape, const Bytes& raw) {
  return Zstd().Encode(shape, SlabKind::kK, raw).value().size();
}

Bytes Frame(const Bytes& plain, bool content_size = true) {
  ZSTD_CCtx* const c = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, content_size ? 1 : 0);
  Bytes frame(ZSTD_compressBound(plain.size()));
  frame.resize(ZSTD_compress2(c, frame.data(), frame.size(), plain.data(), plain.size()));
  ZSTD_freeCCtx(c);
  return frame;
}

// A payload of the given parts; `zstd` says which of them are frames.
Bytes Payload(uint8_t layout, const std::vector<std::pair<Bytes, bool>>& parts) {
  Bytes payload = {1, layout};
  for (const auto& [part, zstd] : parts) {
    payload.resize(payload.size() + 4);
    StoreLe(static_cast<uint32_t>(part.size()) | (zstd ? 0x80000000u : 0u), &payload[payload.size() - 4]);
  }
  for (const auto& [part, zstd] : parts) payload.insert(payload.end(), part.begin(), part.end());
  return payload;
}

TEST(ZstdCodecTest, KvLikeBf16ShrinksAsPromised) {
  const SlabShape shape{256, 8, 128, DType::kBf16};
  const Bytes raw = GaussianBf16(shape);
  EXPECT_GE(static_cast<double>(raw.size()) / static_cast<double>(EncodedSize(shape, raw)), 1.40);
}

TEST(ZstdCodecTest, NoiseGrowsByNoMoreThanTheTable) {
  for (const DType dtype : kAllDTypes) {
    const SlabShape shape{256, 4, 128, dtype};
    const size_t parts = DTypeSize(dtype) == 2 ? 2 : 1;
    EXPECT_EQ(EncodedSize(shape, RandomBytes(shape.RawSize())), shape.RawSize() + 2 + 4 * parts) << DTypeName(dtype);
  }
}

TEST(ZstdCodecTest, ConstantSlabsShrinkToAlmostNothing) {
  for (const DType dtype : kAllDTypes) {
    const SlabShape shape{256, 8, 128, dtype};
    EXPECT_LT(EncodedSize(shape, Bytes(shape.RawSize(), 0x3c)), shape.RawSize() / 500) << DTypeName(dtype);
  }
}

class ZstdDecoderTest : public ::testing::Test {
 protected:
  absl::Status Decode(const Bytes& payload) { return Zstd().Decode(shape_, SlabKind::kK, payload, decoded_); }
  void ExpectRefused(const Bytes& payload) { EXPECT_EQ(Decode(payload).code(), absl::StatusCode::kDataLoss); }

  const SlabShape shape_{1, 1, 64, DType::kBf16};
  const Bytes plane_ = Bytes(64, 7);
  Bytes decoded_ = Bytes(128);
};

TEST_F(ZstdDecoderTest, TakesStoredPartsAndFramesInAnyMix) {
  for (const bool high : {false, true}) {
    for (const bool low : {false, true}) {
      const absl::Status status =
          Decode(Payload(1, {{high ? Frame(plane_) : plane_, high}, {low ? Frame(plane_) : plane_, low}}));
      EXPECT_TRUE(status.ok()) << status;
    }
  }
}

TEST_F(ZstdDecoderTest, RefusesHeadsThatDoNotFitTheShape) {
  Bytes payload = Payload(1, {{plane_, false}, {plane_, false}});
  payload[0] = 2;
  ExpectRefused(payload);
  payload[0] = 1, payload[1] = 0;
  ExpectRefused(payload);
  payload[1] = 2;
  ExpectRefused(payload);
  ExpectRefused(Payload(1, {{plane_, false}}));
  ExpectRefused(Payload(1, {{plane_, false}, {plane_, false}, {plane_, false}}));
  ExpectRefused({});
}

TEST_F(ZstdDecoderTest, RefusesPartsOfAnotherSize) {
  const Bytes shorter(63, 7), longer(65, 7);
  for (const Bytes& other : {shorter, longer}) {
    ExpectRefused(Payload(1, {{other, false}, {plane_, false}}));
    ExpectRefused(Payload(1, {{Frame(other), true}, {plane_, false}}));
    ExpectRefused(Payload(1, {{plane_, false}, {Frame(other), true}}));
  }
  // Both wrong, but right in total.
  ExpectRefused(Payload(1, {{shorter, false}, {longer, false}}));
}

TEST_F(ZstdDecoderTest, RefusesABombOfAFrame) {
  ExpectRefused(Payload(1, {{Frame(Bytes(size_t{1} << 20)), true}, {plane_, false}}));
}

TEST_F(ZstdDecoderTest, RefusesWhatZstdTakesButTheFormatDoesNot) {
  // No content size.
  ExpectRefused(Payload(1, {{Frame(plane_, false), true}, {plane_, false}}));
  // Two frames in a row.
  Bytes two = Frame(Bytes(32, 7));
  const Bytes second = two;
  two.insert(two.end(), second.begin(), second.end());
  ExpectRefused(Payload(1, {{two, true}, {plane_, false}}));
  // A skippable frame, alone and in front of a good one.
  Bytes skippable = {0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0};
  ExpectRefused(Payload(1, {{skippable, true}, {plane_, false}}));
  const Bytes good = Frame(plane_);
  skippable.insert(skippable.end(), good.begin(), good.end());
  ExpectRefused(Payload(1, {{skippable, true}, {plane_, false}}));
  // Bytes after the frame.
  Bytes trailing = good;
  trailing.push_back(0);
  ExpectRefused(Payload(1, {{trailing, true}, {plane_, false}}));
  // Nothing at all.
  ExpectRefused(Payload(1, {{{}, true}, {plane_, false}}));
}

TEST_F(ZstdDecoderTest, RefusesSizesThatAddUpOnlyByWrappingAround) {
  Bytes payload = Payload(1, {{plane_, false}, {plane_, false}});
  StoreLe(0x7fffffffu, &payload[2]);
  StoreLe(0x7fffffffu, &payload[6]);
  ExpectRefused(payload);
}

TEST(ZstdCodecTest, PlainSlabsAreOneFrame) {
  const SlabShape shape{4, 2, 64, DType::kF32};
  const Bytes raw(shape.RawSize(), 1);
  Bytes decoded(raw.size());
  EXPECT_TRUE(Zstd().Decode(shape, SlabKind::kK, Payload(0, {{Frame(raw), true}}), decoded).ok());
  EXPECT_EQ(decoded, raw);
  EXPECT_TRUE(Zstd().Decode(shape, SlabKind::kK, Payload(0, {{raw, false}}), decoded).ok());
  EXPECT_EQ(Zstd().Decode(shape, SlabKind::kK, Payload(1, {{Frame(raw), true}}), decoded).code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace kdn
