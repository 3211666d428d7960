#include "storage/format/lossy_payload.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include "tests/storage/format/codec_inputs.h"

namespace kdn {
namespace {

TEST(SectionTest, OnlyWhatSavesAnEighthIsCompressed) {
  ByteWriter noise, skewed;
  WriteSection(RandomBytes(10000), noise);
  EXPECT_EQ(noise.written().size(), 10004u);
  Bytes plain = RandomBytes(10000);
  for (uint8_t& b : plain) b &= 7;
  WriteSection(plain, skewed);
  EXPECT_LT(skewed.written().size(), 10000u * 7 / 8);
  ByteReader in(AsBytes(skewed.written()));
  Buffer scratch;
  const ByteSpan read = ReadSection(plain.size(), in, scratch).value();
  EXPECT_TRUE(std::equal(read.begin(), read.end(), plain.begin(), plain.end()));
}

// zstd would take all of these; the format does not.
TEST(SectionTest, NothingButOneFrameOfTheRightSizeIsTaken) {
  const Bytes plain(1000, 7);
  const auto frame = [](const Bytes& bytes) {
    Bytes out(ZSTD_compressBound(bytes.size()));
    out.resize(ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), 1));
    return out;
  };
  const auto read = [](const Bytes& stored, size_t size) {
    ByteWriter out;
    out.U32(static_cast<uint32_t>(stored.size()) | uint32_t{1} << 31);
    out.Bytes(stored);
    ByteReader in(AsBytes(out.written()));
    Buffer scratch;
    return ReadSection(size, in, scratch).status().code();
  };
  EXPECT_EQ(read(frame(plain), 1000), absl::StatusCode::kOk);
  EXPECT_EQ(read(frame(plain), 999), absl::StatusCode::kDataLoss);
  EXPECT_EQ(read(frame(plain), 1001), absl::StatusCode::kDataLoss);
  Bytes two = frame(Bytes(500, 7));
  two.insert(two.end(), two.begin(), two.end());
  EXPECT_EQ(read(two, 1000), absl::StatusCode::kDataLoss);
}

TEST(TableTest, BothPredictionsComeBack) {
  for (const bool alike : {false, true}) {
    std::vector<uint8_t> small(640);
    std::vector<int16_t> wide(640);
    for (size_t i = 0; i < small.size(); ++i) {
      small[i] = static_cast<uint8_t>(alike ? i % 64 * 5 : i * i * 7 % 13);
      wide[i] = static_cast<int16_t>(alike ? static_cast<int>(i % 64 * 1021) - 32768 : static_cast<int>(i % 3) - 1);
    }
    ByteWriter out;
    WriteTable8(small, 64, out);
    WriteTable16(wide, 64, out);
    EXPECT_EQ(out.written()[0], alike ? 1 : 0);
    ByteReader in(AsBytes(out.written()));
    std::vector<uint8_t> small_read(640);
    std::vector<int16_t> wide_read(640);
    ASSERT_TRUE(ReadTable8(64, in, small_read).ok());
    ASSERT_TRUE(ReadTable16(64, in, wide_read).ok());
    EXPECT_EQ(small_read, small);
    EXPECT_EQ(wide_read, wide);
    EXPECT_EQ(in.remaining(), 0u);
  }
}

TEST(ExactValuesTest, ComeBackInTheirPlacesAndNeverOutside) {
  const Bytes raw = RandomBytes(100000);
  ExactValues exact;
  for (const size_t index : {49999u, 0u, 1u, 129u, 20000u}) exact.Add(index);
  ByteWriter out;
  std::move(exact).Write(2, raw, out);
  Bytes restored(raw.size());
  ByteReader in(AsBytes(out.written()));
  ASSERT_TRUE(ExactValues::Restore(2, in, restored).ok());
  EXPECT_EQ(restored[99999], raw[99999]);
  EXPECT_EQ(restored[258], raw[258]);
  EXPECT_EQ(restored[260], 0);
  // A slab that is one element shorter: the last index lies outside it.
  ByteReader again(AsBytes(out.written()));
  EXPECT_EQ(ExactValues::Restore(2, again, MutableByteSpan(restored).first(99998)).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace kdn
