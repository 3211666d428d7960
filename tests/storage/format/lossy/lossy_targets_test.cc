// Each instruction set gives the same payloads and the same bytes back: a slab that one machine stored and another one
// fetched is the same slab.
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include "storage/format/codec.h"
#include "tests/storage/format/lossy/lossy_inputs.h"

namespace kdn {
namespace {

class LossyTargetsTest : public ::testing::TestWithParam<int64_t> {
 protected:
  static void Use(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  void TearDown() override { Use(0); }
};

TEST_P(LossyTargetsTest, PayloadsAndDecodedBytesAreThoseOfTheBestOne) {
  for (const CodecId id : {CodecId::kQ8, CodecId::kQ4, CodecId::kCacheGen}) {
    const Codec& codec = *FindCodec(id).value();
    for (const DType dtype : kFloatTypes) {
      for (const SlabShape shape : {SlabShape{70, 2, 40, dtype}, SlabShape{64, 2, 64, dtype}}) {
        Bytes raw = KvLikeSlab(shape);
        // Some of everything: denormals, huge values, NaN.
        for (size_t i = 0; i < 300; i += 3) raw[i * 11] = static_cast<uint8_t>(i * 37);
        for (const SlabKind kind : {SlabKind::kK, SlabKind::kV}) {
          Use(0);
          const Buffer expected = codec.Encode(shape, kind, raw, kMiddle).value();
          Bytes expected_raw(raw.size());
          ASSERT_TRUE(codec.Decode(shape, kind, {expected.data(), expected.size()}, expected_raw).ok());
          Use(GetParam());
          const Buffer encoded = codec.Encode(shape, kind, raw, kMiddle).value();
          Bytes decoded(raw.size());
          ASSERT_TRUE(codec.Decode(shape, kind, {encoded.data(), encoded.size()}, decoded).ok());
          EXPECT_TRUE(std::equal(expected.data(), expected.data() + expected.size(), encoded.data(),
                                 encoded.data() + encoded.size()))
              << codec.name() << " " << DTypeName(dtype);
          EXPECT_TRUE(decoded == expected_raw) << codec.name() << " " << DTypeName(dtype);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, LossyTargetsTest, ::testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& target) { return std::string(hwy::TargetName(target.param)); });

}  // namespace
}  // namespace kdn
