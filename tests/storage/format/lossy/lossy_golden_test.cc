// The formats cannot change unnoticed: payloads that were written once decode to what they did then, and what is
// written now decodes to the same. (Payloads themselves may differ: another zstd compresses their sections otherwise.)
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "storage/format/codec.h"
#include "tests/storage/format/lossy/lossy_inputs.h"

namespace kdn {
namespace {

// Integer arithmetic only: the same on every machine.
Bytes FixedSlab(const SlabShape& shape) {
  uint32_t state = 1;
  return MakeSlab(shape, [&](size_t t, size_t c) {
    int sum = static_cast<int>(c % 9) * 40;
    for (int i = 0; i < 4; ++i) {
      state = state * 1664525 + 1013904223;
      sum += static_cast<int>(state >> 24) - 128;
    }
    if (t == 20 && c == 5) return std::numeric_limits<float>::infinity();
    return static_cast<float>(c % 31 == 0 ? 5 * sum : sum) / 64;
  });
}

Bytes FromHex(const std::string& hex) {
  Bytes bytes(hex.size() / 2);
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<uint8_t>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  return bytes;
}

std::string Hash(const Bytes& bytes) { return fmt::format("{:016x}", XXH3_64bits(bytes.data(), bytes.size())); }

TEST(LossyGoldenTest, OldPayloadsDecodeAsTheyDidAndNewOnesAlike) {
  std::ifstream file(KDN_LOSSY_GOLDEN_JSON);
  const nlohmann::json golden = nlohmann::json::parse(file);
  ASSERT_EQ(golden.size(), 6u);
  for (const auto& vector : golden) {
    SCOPED_TRACE(vector["name"].get<std::string>());
    const Codec& codec = *FindCodec(vector["codec"].get<std::string>()).value();
    const auto kind = static_cast<SlabKind>(vector["kind"].get<int>());
    const SlabShape shape{34, 1, 36, static_cast<DType>(vector["dtype"].get<int>())};
    const Bytes raw = FixedSlab(shape);
    EXPECT_EQ(Hash(raw), vector["raw_xxh3"]);
    Bytes decoded(raw.size());
    const absl::Status status = codec.Decode(shape, kind, FromHex(vector["payload_hex"]), decoded);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(Hash(decoded), vector["decoded_xxh3"]);

    const Buffer encoded = codec.Encode(shape, kind, raw, {.layer = 0, .layer_count = 4}).value();
    Bytes again(raw.size());
    ASSERT_TRUE(codec.Decode(shape, kind, {encoded.data(), encoded.size()}, again).ok());
    EXPECT_EQ(Hash(again), vector["decoded_xxh3"]);
  }
}

}  // namespace
}  // namespace kdn
